"""The kinds of weight files: how each is recognised, its names of tensors, its settings.

Names are mapped from those of `VideoNetwork.state_dict()`: timm's below `backbone.vit.` and in the
decoder of PMT, the originals' for the rest. Keys and shapes follow the released code of VidEoMT
(arXiv 2602.17807), PMT (arXiv 2603.25398) and LVMT (arXiv 2609.34895), and the port of VidEoMT in
Hugging Face transformers (`models/videomt`, Apache-2.0).

Letters: C channels, P patches of the position table, L2 query blocks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from math import isqrt
from statistics import mode
from typing import TYPE_CHECKING, Any

from videomt_ros.model.config import NetworkConfig, even_taps
from videomt_ros.model.weight_files import FORMAT, CheckpointError, WeightFile

if TYPE_CHECKING:
    from torch import Tensor

VERSION = '1'
"""Metadata `version` of files written by `save_model`."""

Names = str | tuple[str, str, str]
"""A name in the file, or the names of query, key and value, which timm keeps in one tensor."""

Settings = dict[str, Any]
"""Fields of NetworkConfig by name."""

VIT = 'backbone.vit.'
"""Start of the names of the timm network in `VideoNetwork.state_dict()`."""
ENCODER = 'backbone.encoder.backbone.'
"""Start of the names of the ViT in the originals' files."""
DECODER = 'backbone.decoder.'
"""Start of the names of the decoder in the original files of PMT and LVMT."""

_WIDTHS = (
    (VIT + 'cls_token', 3), ('q.weight', 2), ('class_head.weight', 2), (VIT + 'norm.weight', 1),
    ('mask_head.0.weight', 2),
)  # fmt: skip
"""Tensors whose last axis is C, with their rank."""

# Fields of config.json and ours, as far as a network is built from them.
_CONFIG_FIELDS = {
    'hidden_size': 'embed_dim',
    'num_hidden_layers': 'depth',
    'num_attention_heads': 'num_heads',
    'mlp_ratio': 'mlp_ratio',
    'patch_size': 'patch_size',
    'image_size': 'table_size',
    'num_queries': 'num_queries',
    'num_blocks': 'num_query_blocks',
}
# What this network computes in one way only; another value would load and then be wrong.
_CONFIG_FIXED = {
    'hidden_act': 'gelu',
    'use_swiglu_ffn': False,
    'num_channels': 3,
    'num_register_tokens': 4,
    'layer_norm_eps': 1e-6,
}


@dataclass(frozen=True)
class Layout:
    """One kind of weight file: how to recognise it, and how to read it."""

    name: str
    """Name of the layout in messages."""
    matches: Callable[[WeightFile], bool] = lambda weights: False
    """Function that recognises a file of this layout."""
    read_record: Callable[[WeightFile], Settings] = lambda weights: {}
    """Function that reads what a file states beside its tensors; it raises CheckpointError."""
    states_all: bool = False
    """Whether that record holds all fields of NetworkConfig."""
    architecture: str = 'videomt'
    """Design of the network, unless the record states it."""
    family: str = ''
    """Backbone family; '' where the record states it."""
    table: Mapping[str, Names] = field(default_factory=dict)
    """Map from our names to the file's; `*` stands for one part of a dotted name."""
    prefixes: tuple[tuple[str, str], ...] = (('', ''),)
    """Starts of our names and of the file's, for names that the table does not hold."""
    unused: Collection[str] = ()
    """Names in the file that are accepted although no network reads them, with `*` as above."""
    query_blocks: str = ''
    """Name in the file of a tensor of length L2."""
    flat_positions: bool = False
    """Whether the position table is (P, C) rather than (1, P, C)."""

    def read_settings(self, weights: WeightFile) -> Settings:
        """Read the fields of NetworkConfig that a file states or its tensors show.

        A field whose tensor is absent is left out; the strict comparison names the tensor later.

        Raises:
            CheckpointError: the file states what no network can have, or its blocks are not
                numbered 0, 1, 2 and so on.
        """
        record = self.read_record(weights)
        return record if self.states_all else self._read_sizes(weights) | record

    def file_keys(self, key: str) -> tuple[str, ...]:
        """Find the names in the file of our tensor: one, or three joined along the first axis."""
        for pattern, names in self.table.items():
            if found := _match(pattern, key):
                parts = (names,) if isinstance(names, str) else names
                return tuple(part.replace('*', '{}').format(*found.groups()) for part in parts)
        for ours, theirs in self.prefixes:
            if key.startswith(ours):
                return (theirs + key[len(ours) :],)
        raise AssertionError(f'{self.name}: no rule for {key}')

    def is_unused(self, name: str) -> bool:
        """Tell whether a name in the file is accepted although no network reads it."""
        return any(_match(pattern, name) for pattern in self.unused)

    def file_shapes(self, targets: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        """Compute the shape that each tensor of the file must have, from our tensors."""
        shapes: dict[str, tuple[int, ...]] = {}
        for key, target in targets.items():
            first, *rest = target.shape
            if self.flat_positions and key.endswith('.pos_embed'):
                first, *rest = rest
            names = self.file_keys(key)
            shapes.update((name, (first // len(names), *rest)) for name in names)
        return shapes

    def _read_sizes(self, weights: WeightFile) -> Settings:
        tensors = weights.tensors

        def shape(key: str, rank: int) -> tuple[int, ...] | None:
            found = tensors.get(self.file_keys(key)[0])
            return tuple(found.shape) if found is not None and found.ndim == rank else None

        sizes: Settings = {'architecture': self.architecture, 'family': self.family}
        # One tensor may be misshapen: the width is what most of them say.
        widths = [found[-1] for key, rank in _WIDTHS if (found := shape(key, rank))]
        if widths:
            sizes['embed_dim'] = mode(widths)
        if depth := self._count_blocks(weights):
            sizes['depth'] = depth
        if queries := shape('q.weight', 2):
            sizes['num_queries'] = queries[0]
        if classes := shape('class_head.weight', 2) or shape('class_head.bias', 1):
            sizes['num_classes'] = classes[0] - 1
        if (hidden := shape(VIT + 'blocks.0.mlp.fc1.bias', 1)) and widths:
            sizes['mlp_ratio'] = hidden[0] / sizes['embed_dim']
        if patch := shape(VIT + 'patch_embed.proj.weight', 4):
            sizes['patch_size'] = patch[-1]
        positions = shape(VIT + 'pos_embed', 2 if self.flat_positions else 3)
        if positions and self.family == 'dinov2':
            sizes['table_size'] = isqrt(positions[-2]) * sizes.get('patch_size', 16)
        blocks_seen = tensors.get(self.query_blocks)
        if blocks_seen is not None and blocks_seen.ndim == 1:
            sizes['num_query_blocks'] = len(blocks_seen)
        if self.architecture == 'pmt':
            sizes |= self._read_decoder_sizes(weights, sizes)
            if (hidden := shape('blocks.0.mlp.fc1.bias', 1)) and widths:
                sizes['decoder_mlp_ratio'] = hidden[0] / sizes['embed_dim']
        updater = self.file_keys('query_updater.bias')[0].removesuffix('bias')
        kinds = {key.removeprefix(updater) for key in tensors if key.startswith(updater)}
        if kinds:
            sizes['propagation'] = 'fusion' if kinds & {'weight', 'bias'} else 'gru'
        return sizes

    def _read_decoder_sizes(self, weights: WeightFile, sizes: Settings) -> Settings:
        found: Settings = {'norm_queries': False}
        if blocks := self._count(weights, 'blocks.', '0.norm1.weight'):
            found['num_query_blocks'] = blocks
        # Any of the tensors of a level may be missing, or all of one between others.
        levels = (
            self._numbers(weights, 'bn.', '0.weight')[1]
            | self._numbers(weights, 'lateral_projections.', '0.0.weight')[1]
            | self._numbers(weights, 'scalers.', '0')[1]
        )
        number = max(levels, default=-1) + 1
        depth = sizes.get('depth', 0)
        # The tensors do not tell which blocks are tapped; the published ones lie at equal
        # distances.
        if 0 < number <= depth and number != min(4, depth):
            found['tap_blocks'] = even_taps(depth, number)
        return found

    def _count_blocks(self, weights: WeightFile) -> int:
        return self._count(weights, VIT + 'blocks.', '0.norm1.weight')

    def _count(self, weights: WeightFile, stem: str, rest: str) -> int:
        """Count the modules of a list, from our name of a tensor of its first: stem and rest."""
        theirs, found = self._numbers(weights, stem, rest)
        for expected, number in enumerate(sorted(found)):
            # The highest number alone may come from one stray key; that is no reason to build it.
            if number != expected:
                raise CheckpointError(
                    f'{weights.path}: expected blocks numbered from 0 without a gap, got '
                    f'{theirs}{number} but no {theirs}{expected}.'
                )
        return len(found)

    def _numbers(self, weights: WeightFile, stem: str, rest: str) -> tuple[str, set[int]]:
        """Find the stem of a list in the file, and the numbers that follow it."""
        theirs = self.file_keys(stem + rest)[0].removesuffix(rest)
        pattern = re.compile(re.escape(theirs) + r'(\d+)(\.|$)')
        return theirs, {int(match[1]) for key in weights.tensors if (match := pattern.match(key))}


def _match(pattern: str, name: str) -> re.Match[str] | None:
    """Match a name with a pattern, in which `*` stands for one part of a dotted name."""
    return re.fullmatch(re.escape(pattern).replace(r'\*', r'([^.]+)'), name)


def _qkv(name: str) -> tuple[str, str, str]:
    """Fill q, k and v into a name."""
    return name.format('q'), name.format('k'), name.format('v')


def _has_keys(*patterns: str) -> Callable[[WeightFile], bool]:
    """Make a function that recognises files with keys whose starts match all of the patterns."""
    return lambda weights: all(
        any(re.match(pattern, key) for key in weights.tensors) for pattern in patterns
    )


def _read_metadata(weights: WeightFile) -> Settings:
    """Read the configuration from the metadata of our own file."""
    metadata, path = weights.metadata, weights.path
    if metadata.get('version') != VERSION:
        raise CheckpointError(
            f'{path}: expected a file of save_model, version {VERSION}, got version '
            f'{metadata.get("version")!r}.'
        )
    try:
        stated = json.loads(metadata.get('config', ''))
        config = NetworkConfig.from_dict(stated).to_dict()
        return {name: config[name] for name in stated}  # without fields newer than the file
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: its configuration can't be used: {error}") from error


def _read_config_json(weights: WeightFile) -> Settings:
    """Read the fields that config.json of transformers states; a single file states none."""
    if weights.config is None:
        return {}
    config, path = weights.config, weights.path / 'config.json'
    if config.get('model_type') != 'videomt':
        raise CheckpointError(
            f"{path}: expected model_type 'videomt', got {config.get('model_type')!r}."
        )
    missing = [key for key in ('hidden_size', 'num_attention_heads') if key not in config]
    if missing:
        raise CheckpointError(f'{path}: missing fields: {", ".join(missing)}.')
    for key, expected in _CONFIG_FIXED.items():
        if config.get(key, expected) != expected:
            raise CheckpointError(
                f'{path}: expected {key} to be {expected}, got {config[key]}; '
                'this network has no other.'
            )
    settings: Settings = {}
    for key, ours in _CONFIG_FIELDS.items():
        value = config.get(key)
        if isinstance(value, list) and value and all(entry == value[0] for entry in value):
            value = value[0]  # sizes may be written as [height, width]
        kinds, what = ((int, float), '') if ours == 'mlp_ratio' else ((int,), 'whole ')
        if value is not None and type(value) not in kinds:
            raise CheckpointError(f'{path}: expected {key} to be one {what}number, got {value!r}.')
        if value is not None:
            settings[ours] = value
    names = config.get('id2label')
    if isinstance(names, dict) and all(str(key).isdecimal() for key in names):
        ordered = tuple(str(names[key]) for key in sorted(names, key=int))
        settings['num_classes'] = len(ordered)
        # transformers fills in LABEL_0, LABEL_1, ... where nobody gave names.
        if ordered != tuple(f'LABEL_{i}' for i in range(len(ordered))):
            settings['class_names'] = ordered
    return settings


OWN = Layout(
    'videomt_ros',
    matches=lambda weights: weights.metadata.get('format') == FORMAT,
    read_record=_read_metadata,
    states_all=True,
)

_DINOV2_BLOCKS = re.escape(ENCODER) + r'blocks\.\d+\.(attn|ls[12])\.'
_DINOV3_BLOCKS = re.escape(ENCODER) + r'blocks\.\d+\.(attention|layer_scale[12])\.'


def _dinov3_blocks(ours: str, theirs: str) -> dict[str, Names]:
    """Map the names of blocks of timm's Eva to those of DINOv3 in transformers 4.56.

    Keys have no bias in either.
    """
    return {
        ours + '*.attn.qkv.weight': _qkv(theirs + '*.attention.{}_proj.weight'),
        ours + '*.attn.q_bias': theirs + '*.attention.q_proj.bias',
        ours + '*.attn.v_bias': theirs + '*.attention.v_proj.bias',
        ours + '*.attn.proj.*': theirs + '*.attention.o_proj.*',
        ours + '*.gamma_1': theirs + '*.layer_scale1.lambda1',
        ours + '*.gamma_2': theirs + '*.layer_scale2.lambda1',
        ours + '*.mlp.fc1.*': theirs + '*.mlp.up_proj.*',
        ours + '*.mlp.fc2.*': theirs + '*.mlp.down_proj.*',
    }


DINOV2 = Layout(
    'original DINOv2',
    matches=_has_keys(_DINOV2_BLOCKS),
    read_record=_read_config_json,
    family='dinov2',
    prefixes=((VIT, ENCODER), ('', 'backbone.')),
    unused=(
        'backbone.attn_mask_probs',
        'backbone.encoder.pixel_mean',
        'backbone.encoder.pixel_std',
        'criterion.empty_weight',
    ),
    query_blocks='backbone.attn_mask_probs',
)

# The originals run DINOv3 with the network of transformers, under timm's outer names.
DINOV3 = replace(
    DINOV2,
    name='original DINOv3',
    matches=_has_keys(_DINOV3_BLOCKS),
    family='dinov3',
    table={
        VIT + 'cls_token': ENCODER + 'patch_embed.cls_token',
        VIT + 'reg_token': ENCODER + 'patch_embed.register_tokens',
        VIT + 'patch_embed.proj.*': ENCODER + 'patch_embed.patch_embeddings.*',
        **_dinov3_blocks(VIT + 'blocks.', ENCODER + 'blocks.'),
    },
)

# The decoder has blocks of DINOv3's design, whatever the encoder.
PMT_DINOV2 = replace(
    DINOV2,
    name='original PMT or LVMT, DINOv2',
    matches=_has_keys(_DINOV2_BLOCKS, re.escape(DECODER)),
    architecture='pmt',
    table={
        **_dinov3_blocks('blocks.', DECODER + 'blocks.'),
        # A recurrent updater has another name, by which it is also named where it is missing.
        **{
            f'query_updater.{kind}_{side}': f'{DECODER}query_gru.{kind}_{side}'
            for kind in ('weight', 'bias')
            for side in ('ih', 'hh')
        },
    },
    prefixes=((VIT, ENCODER), ('bn.', 'backbone.bn.'), ('', DECODER)),
    unused=(
        DECODER + 'attn_mask_probs',
        'backbone.encoder.pixel_mean',
        'backbone.encoder.pixel_std',
        'backbone.bn.*.num_batches_tracked',
        'criterion.empty_weight',
    ),
    query_blocks=DECODER + 'attn_mask_probs',
)

PMT_DINOV3 = replace(
    PMT_DINOV2,
    name='original PMT or LVMT, DINOv3',
    matches=_has_keys(_DINOV3_BLOCKS, re.escape(DECODER)),
    family='dinov3',
    table={**DINOV3.table, **PMT_DINOV2.table},
)

TRANSFORMERS = Layout(
    'transformers',
    matches=_has_keys(r'(layers\.\d+|embeddings)\.'),
    read_record=_read_config_json,
    family='dinov2',
    table={
        VIT + 'cls_token': 'embeddings.cls_token',
        VIT + 'reg_token': 'embeddings.register_tokens',
        VIT + 'pos_embed': 'embeddings.position_embeddings.weight',
        VIT + 'patch_embed.proj.*': 'embeddings.patch_embeddings.projection.*',
        VIT + 'blocks.*.attn.qkv.*': _qkv('layers.*.attention.{}_proj.*'),
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
    unused=('attn_mask_probs', 'criterion.empty_weight', 'embeddings.mask_token'),
    query_blocks='attn_mask_probs',
    flat_positions=True,
)

TIMM = Layout('timm')
"""Weights of a pretrained ViT after timm's conversion; asked for by name, never recognised."""

LAYOUTS: tuple[Layout, ...] = (OWN, PMT_DINOV3, PMT_DINOV2, DINOV3, DINOV2, TRANSFORMERS)
"""Layouts of whole networks; the first that matches a file is its layout."""


def is_network(weights: WeightFile) -> bool:
    """Tell whether a file has the names of a network in one of the layouts."""
    return any(layout.matches(weights) for layout in LAYOUTS)


def find_layout(weights: WeightFile) -> Layout:
    """Find the layout of a file.

    Raises:
        CheckpointError: these are not weights of VidEoMT, PMT or LVMT.
    """
    layout = next((layout for layout in LAYOUTS if layout.matches(weights)), None)
    if layout is None:
        _read_config_json(weights)  # its error is the plainer one, where it names another model
        raise CheckpointError(
            f'{weights.path}: expected weights of VidEoMT, PMT or LVMT (keys such as '
            'backbone.encoder.backbone.blocks.0.attn.qkv.weight or '
            'layers.0.attention.q_proj.weight), got '
            f'{", ".join(list(weights.tensors)[:3]) or "no tensors"}.'
        )
    # The name that the original code gives a recurrent updater.
    gru = layout.file_keys('query_updater.')[0].replace('query_updater.', 'query_gru.')
    if layout is not OWN and any(key.startswith(gru) for key in weights.tensors):
        renamed = ('query_updater.', gru)
        layout = replace(layout, prefixes=(renamed, *layout.prefixes))
    return layout
