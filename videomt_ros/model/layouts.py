"""How the weights of VidEoMT are named in each kind of file, as tables from our names to theirs.

Ours are the names of `VidEoMT.state_dict()`: timm's below `backbone.vit.`, the original's for the
rest. In a table `*` stands for one part of a dotted name; three names on the right are the query,
key and value that timm keeps in one tensor.

Shapes in this file: C channels, P patches of the position table, L2 query blocks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from math import isqrt
from statistics import mode
from typing import Any

from torch import Tensor

Names = str | tuple[str, str, str]


@dataclass(frozen=True)
class Layout:
    """The names of one kind of file."""

    name: str
    """For messages."""
    family: str = ''
    """Backbone family; '' where the file's own record says it."""
    table: Mapping[str, Names] = field(default_factory=dict)
    """Our name -> theirs, patterns with `*`; looked up first."""
    prefixes: tuple[tuple[str, str], ...] = (('', ''),)
    """Start of our name -> start of theirs, for names outside the table."""
    dead: Collection[str] = ()
    """Their names that no network reads: accepted, and left out."""
    query_blocks: str = ''
    """Their name of a tensor of length L2."""
    flat_positions: bool = False
    """The position table is (P, C), not (1, P, C)."""

    def file_keys(self, key: str) -> tuple[str, ...]:
        """Their names of our tensor, one, or three that are joined along the first axis."""
        for pattern, names in self.table.items():
            found = re.fullmatch(re.escape(pattern).replace(r'\*', r'([^.]+)'), key)
            if found:
                targets = (names,) if isinstance(names, str) else names
                return tuple(_fill(target, found.groups()) for target in targets)
        for ours, theirs in self.prefixes:
            if key.startswith(ours):
                return (theirs + key[len(ours) :],)
        raise AssertionError(f'{self.name}: no rule for {key}')


def _fill(target: str, parts: tuple[str, ...]) -> str:
    for part in parts:
        target = target.replace('*', part, 1)
    return target


VIT = 'backbone.vit.'
ENCODER = 'backbone.encoder.backbone.'
_ORIGINAL_DEAD = ('backbone.attn_mask_probs', 'criterion.empty_weight')

OWN = Layout('videomt_ros')

DINOV2 = Layout(
    'original DINOv2',
    family='dinov2',
    prefixes=((VIT, ENCODER), ('', 'backbone.')),
    dead=_ORIGINAL_DEAD,
    query_blocks='backbone.attn_mask_probs',
)

# The original runs DINOv3 with the network of transformers 4.56, under timm's outer names; on our
# side stands timm's Eva, whose keys have no bias, as theirs have none.
DINOV3 = Layout(
    'original DINOv3',
    family='dinov3',
    table={
        VIT + 'cls_token': ENCODER + 'patch_embed.cls_token',
        VIT + 'reg_token': ENCODER + 'patch_embed.register_tokens',
        VIT + 'patch_embed.proj.*': ENCODER + 'patch_embed.patch_embeddings.*',
        VIT + 'blocks.*.attn.qkv.weight': (
            ENCODER + 'blocks.*.attention.q_proj.weight',
            ENCODER + 'blocks.*.attention.k_proj.weight',
            ENCODER + 'blocks.*.attention.v_proj.weight',
        ),
        VIT + 'blocks.*.attn.q_bias': ENCODER + 'blocks.*.attention.q_proj.bias',
        VIT + 'blocks.*.attn.v_bias': ENCODER + 'blocks.*.attention.v_proj.bias',
        VIT + 'blocks.*.attn.proj.*': ENCODER + 'blocks.*.attention.o_proj.*',
        VIT + 'blocks.*.gamma_1': ENCODER + 'blocks.*.layer_scale1.lambda1',
        VIT + 'blocks.*.gamma_2': ENCODER + 'blocks.*.layer_scale2.lambda1',
        VIT + 'blocks.*.mlp.fc1.*': ENCODER + 'blocks.*.mlp.up_proj.*',
        VIT + 'blocks.*.mlp.fc2.*': ENCODER + 'blocks.*.mlp.down_proj.*',
    },
    prefixes=((VIT, ENCODER), ('', 'backbone.')),
    dead=_ORIGINAL_DEAD,
    query_blocks='backbone.attn_mask_probs',
)

TRANSFORMERS = Layout(
    'transformers',
    family='dinov2',
    table={
        VIT + 'cls_token': 'embeddings.cls_token',
        VIT + 'reg_token': 'embeddings.register_tokens',
        VIT + 'pos_embed': 'embeddings.position_embeddings.weight',
        VIT + 'patch_embed.proj.*': 'embeddings.patch_embeddings.projection.*',
        VIT + 'blocks.*.attn.qkv.*': (
            'layers.*.attention.q_proj.*',
            'layers.*.attention.k_proj.*',
            'layers.*.attention.v_proj.*',
        ),
        VIT + 'blocks.*.attn.proj.*': 'layers.*.attention.out_proj.*',
        VIT + 'blocks.*.ls1.gamma': 'layers.*.layer_scale1.lambda1',
        VIT + 'blocks.*.ls2.gamma': 'layers.*.layer_scale2.lambda1',
        VIT + 'norm.*': 'layernorm.*',
        'q.weight': 'query.weight',
        'class_head.*': 'class_predictor.*',
        'mask_head.0.*': 'mask_head.fc1.*',
        'mask_head.2.*': 'mask_head.fc2.*',
        'mask_head.4.*': 'mask_head.fc3.*',
        'upscale.*.norm.*': 'upscale_block.block.*.layernorm2d.*',
        'upscale.*.*.*': 'upscale_block.block.*.*.*',
    },
    prefixes=((VIT + 'blocks.', 'layers.'), ('', '')),
    dead=('attn_mask_probs', 'criterion.empty_weight', 'embeddings.mask_token'),
    query_blocks='attn_mask_probs',
    flat_positions=True,
)


def detect_layout(keys: Collection[str]) -> Layout | None:
    """The layout that the names of a file's tensors show, None for anything else."""
    layout = None
    if any(re.match(r'(layers\.\d+|embeddings)\.', key) for key in keys):
        layout = TRANSFORMERS
    if any(re.match(re.escape(ENCODER) + r'blocks\.\d+\.(attn|ls[12])\.', key) for key in keys):
        layout = DINOV2
    pattern = re.escape(ENCODER) + r'blocks\.\d+\.(attention|layer_scale[12])\.'
    if any(re.match(pattern, key) for key in keys):
        layout = DINOV3
    if layout and any(key.startswith('backbone.query_gru.') for key in keys):
        # The name that the original code gives a recurrent updater.
        renamed = ('query_updater.', 'backbone.query_gru.')
        layout = replace(layout, prefixes=(renamed, *layout.prefixes))
    return layout


def read_sizes(layout: Layout, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fields of VidEoMTConfig that the shapes of a file's tensors tell.

    A field whose tensor is absent is left out; the strict comparison names the tensor later.

    Raises:
        ValueError: the blocks are not numbered 0, 1, 2 and so on.
    """

    def shape(key: str, rank: int) -> tuple[int, ...] | None:
        found = tensors.get(layout.file_keys(key)[0])
        return tuple(found.shape) if found is not None and found.ndim == rank else None

    sizes: dict[str, Any] = {'family': layout.family}
    # One tensor may be misshapen: the width is what most of them say.
    widths = [
        found[-1]
        for key, rank in ((VIT + 'cls_token', 3), ('q.weight', 2), ('class_head.weight', 2))
        + ((VIT + 'norm.weight', 1), ('mask_head.0.weight', 2))
        if (found := shape(key, rank))
    ]
    if widths:
        sizes['embed_dim'] = mode(widths)
    block = layout.file_keys(VIT + 'blocks.0.norm1.weight')[0].removesuffix('0.norm1.weight')
    pattern = re.compile(re.escape(block) + r'(\d+)\.')
    blocks = sorted({int(match[1]) for key in tensors if (match := pattern.match(key))})
    if blocks:
        # The highest number alone may come from one stray key; that is no reason to build it.
        gap = next((i for i, number in enumerate(blocks) if i != number), None)
        if gap is not None:
            after = blocks[gap]
            raise ValueError(
                f'expected blocks numbered from 0 without a gap, got {block}{after} but no '
                f'{block}{gap}.'
            )
        sizes['depth'] = len(blocks)
    if queries := shape('q.weight', 2):
        sizes['num_queries'] = queries[0]
    if classes := shape('class_head.weight', 2) or shape('class_head.bias', 1):
        sizes['num_classes'] = classes[0] - 1
    if (hidden := shape(VIT + 'blocks.0.mlp.fc1.bias', 1)) and widths:
        sizes['mlp_ratio'] = hidden[0] / sizes['embed_dim']
    if patch := shape(VIT + 'patch_embed.proj.weight', 4):
        sizes['patch_size'] = patch[-1]
    if layout.family == 'dinov2':
        table = shape(VIT + 'pos_embed', 2 if layout.flat_positions else 3)
        if table:
            sizes['table_size'] = isqrt(table[-2]) * sizes.get('patch_size', 16)
    blocks_seen = tensors.get(layout.query_blocks)
    if blocks_seen is not None and blocks_seen.ndim == 1:
        sizes['num_query_blocks'] = len(blocks_seen)
    updater = layout.file_keys('query_updater.bias')[0].removesuffix('bias')
    kinds = {key.removeprefix(updater) for key in tensors if key.startswith(updater)}
    if kinds & {'weight', 'bias'}:
        sizes['propagation'] = 'fusion'
    elif kinds:
        sizes['propagation'] = 'gru'
    return sizes
