"""Plain Vision Transformers of timm behind one interface: encoder, query blocks, norm.

Three families: DINOv2 with registers (timm `VisionTransformer`, a table of positions), DINOv3 and
EVA-02 (timm `Eva`, rotary positions; EVA-02 also has a table). Weights keep timm's names below
`vit`, so that checkpoints of timm need no key map.

Letters: B batch, C channels, Q queries, P prefix tokens (class token and registers),
h w patch grid, N = P + h * w tokens.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from typing import Any

import timm
import torch
from timm.layers import RotaryEmbeddingDinoV3
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videomt_ros.model.config import VIT_SIZES, NetworkConfig

# Names of timm's models by width. The sizes of EVA-02 differ in more than their width (fused q,
# k, v; a norm inside the MLP), so a width not listed is built like the smallest of its family.
TIMM_NAMES = {
    'dinov2': {
        384: 'vit_small_patch14_reg4_dinov2',
        768: 'vit_base_patch14_reg4_dinov2',
        1024: 'vit_large_patch14_reg4_dinov2',
    },
    # The variants with biases on q and v: fine-tuned weights have them, though Meta's are zero.
    'dinov3': {
        384: 'vit_small_patch16_dinov3_qkvb',
        768: 'vit_base_patch16_dinov3_qkvb',
        1024: 'vit_large_patch16_dinov3_qkvb',
    },
    'eva02': {
        384: 'eva02_small_patch14_224',
        768: 'eva02_base_patch14_224',
        1024: 'eva02_large_patch14_224',
    },
}


def timm_name(config: NetworkConfig) -> str:
    """Return the name of the timm model whose design a configuration follows."""
    names = TIMM_NAMES[config.family]
    return names.get(config.embed_dim, names[384])


def build_vit(config: NetworkConfig) -> Any:
    """Build the timm network of a configuration, with random weights and without a head."""
    arguments: dict[str, Any] = {
        'img_size': config.table_size,
        'patch_size': config.patch_size,
        'embed_dim': config.embed_dim,
        'depth': config.depth,
        'num_heads': config.num_heads,
        'num_classes': 0,
        'global_pool': '',
        'dynamic_img_size': True,
    }
    if config.family != 'eva02':  # EVA-02's SwiGLU has a ratio of its own, 8/3
        arguments['mlp_ratio'] = config.mlp_ratio
    vit = timm.create_model(timm_name(config), pretrained=False, **arguments)
    if config.family == 'dinov3':
        vit.rope = RotaryPositions(config.embed_dim // config.num_heads)
    return vit


def check_design(config: NetworkConfig, name: str) -> None:
    """Raise ValueError unless a model of timm is built like the ViT of a configuration."""
    own = timm_name(config)
    model = name.partition('.')[0]
    if not timm.is_model(model):
        near = get_close_matches(model, timm.list_models())
        meant = f' Nearest: {", ".join(near)}.' if near else ''
        raise ValueError(
            f'Expected the name of a model of timm, which has no {model}.{meant} '
            f'The network is built like {own}.'
        )
    # The name without the suffix is the same model without biases on q and v, which equal zeros.
    fits = model in (own, own.removesuffix('_qkvb'))
    size = next((s for s in VIT_SIZES.values() if s['embed_dim'] == config.embed_dim), None)
    if config.embed_dim in TIMM_NAMES[config.family] and size:
        # The tensors of a wrong number of heads would fit.
        fits &= (config.depth, config.num_heads) == (size['depth'], size['num_heads'])
    if not fits:
        raise ValueError(
            f'Expected weights that fit the network, of family {config.family}, embed_dim '
            f'{config.embed_dim}, depth {config.depth} and num_heads {config.num_heads} (built '
            f'like {own}{f" with {size}" if size else ""}), got those of {name}. Choose others in '
            'init_from, or another network.'
        )


def pretrained_record(name: str) -> Any:
    """Find timm's record of pretrained weights: their hub repository, and their images' mean.

    Raises:
        ValueError: timm has no weights of this name.
    """
    try:
        about = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        about = None
    if about is None:
        known = timm.list_pretrained(f'{name.partition(".")[0]}.*')
        raise ValueError(f'Expected the name of weights of timm, got {name}. Try {known}.')
    return about


class RotaryPositions(RotaryEmbeddingDinoV3):
    """Rotary positions of DINOv3, whose table depends on the patch grid alone in evaluation mode.

    timm builds each table on the CPU. A GPU would wait for its copy in each step, and a CUDA graph
    cannot hold it; and a trace would take its size for a constant. In training mode the CPU draws
    the shifts of positions, and the table is timm's.
    """

    def get_embed(
        self, shape: Sequence[int] | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return sines and cosines, (h * w, 2 * channels of a head), for a grid of h x w."""
        if self.training or shape is None:
            return super().get_embed(shape, dtype)
        device = self.periods.device
        axes = [(torch.arange(side, device=device) + 0.5) / side for side in shape]
        places = torch.stack(torch.meshgrid(axes, indexing='ij'), dim=-1).flatten(0, 1)
        angles = 2 * math.pi * (2 * places - 1)[:, :, None] / self.periods
        angles = angles.flatten(1).tile(2)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Backbone(nn.Module):
    """A ViT, all of whose blocks encode the frame, but the last of VidEoMT.

    The last `num_query_blocks` blocks of VidEoMT take Q query tokens in front of the others. Token
    order there: [queries | class token, registers | patches].
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.vit: Any = build_vit(config)
        self.num_prefix_tokens: int = self.vit.num_prefix_tokens
        shared = config.num_query_blocks if config.architecture == 'videomt' else 0
        self.num_encoder_blocks = config.depth - shared
        self.rotary = config.family != 'dinov2'
        self.checkpointing = False
        """Whether blocks keep no activations, which the backward pass then computes again."""
        if self.rotary:
            # timm rotates every token after the prefix. Queries have no place in the image, so
            # they count as prefix in the blocks that see them; else the angles of the patches
            # would be shifted by Q.
            for block in self.query_blocks:
                block.attn.num_prefix_tokens += config.num_queries

    @property
    def query_blocks(self) -> Any:
        """Blocks of the ViT that see queries, first block first."""
        return self.vit.blocks[self.num_encoder_blocks :]

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """Run the blocks that see the frame alone.

        Args:
            frames: normalised RGB, (B, 3, H, W), sides multiples of the patch size.

        Returns:
            Tokens (B, N, C) and the rotary table of this grid, None without rotary positions.
        """
        (tokens,), rope = self._run_encoder(frames, {self.num_encoder_blocks})
        return tokens, rope

    def encode_taps(
        self, frames: Tensor, taps: Collection[int]
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Compute the tokens after each of some blocks and the final norm.

        Args:
            frames: as for `encode`.
            taps: indices of the blocks, from 0.

        Returns:
            Tokens (B, N, C) of each tap, and the rotary table as for `encode`.
        """
        levels, rope = self._run_encoder(frames, {tap + 1 for tap in taps})
        return tuple(self.norm(level) for level in levels), rope

    def _run_encoder(
        self, frames: Tensor, counts: Collection[int]
    ) -> tuple[list[Tensor], Tensor | None]:
        """Compute the tokens after so many blocks each, and the rotary table."""
        vit = self.vit
        # EVA-02's rotary table is built on the default device.
        on_default = self.training or frames.device.type == 'cpu'
        with nullcontext() if on_default else frames.device:
            embedded = vit._pos_embed(vit.patch_embed(frames))
        tokens, rope = embedded if self.rotary else (embedded, None)
        tokens = vit.norm_pre(tokens)
        levels = [tokens] if 0 in counts else []
        for count, block in enumerate(vit.blocks[: max(counts)], start=1):
            tokens = run_block(block, tokens, rope, recompute=self.training and self.checkpointing)
            if count in counts:
                levels.append(tokens)
        return levels, rope

    def norm(self, tokens: Tensor) -> Tensor:
        """Apply the final norm."""
        return self.vit.norm(tokens)

    def forward(self, frames: Tensor) -> Tensor:
        """Compute the features of frames without queries: tokens after the final norm, (B, N, C).

        Only valid with `num_queries` = 0, since rotary positions otherwise expect queries.
        """
        tokens, rope = self.encode(frames)
        for block in self.query_blocks:
            tokens = run_block(block, tokens, rope)
        return self.norm(tokens)


def run_block(
    block: nn.Module,
    tokens: Tensor,
    rope: Tensor | None,
    mask: Tensor | None = None,
    recompute: bool = False,
) -> Tensor:
    """Run one block of timm.

    Args:
        block: the block.
        tokens: (B, N, C).
        rope: rotary table; None for blocks that take none.
        mask: bool, (B, 1, N, N), True where attention is allowed.
        recompute: whether the block keeps no activations for the backward pass.
    """
    arguments: dict[str, Any] = {'attn_mask': mask} | ({} if rope is None else {'rope': rope})
    if recompute and torch.is_grad_enabled():
        # Blocks use no random numbers, so the state of the generator need not be kept either.
        return checkpoint(
            block, tokens, use_reentrant=False, preserve_rng_state=False, **arguments
        )
    return block(tokens, **arguments)


def check_frames(frames: Tensor, patch_size: int) -> None:
    """Raise ValueError unless frames are (B, 3, H, W) with sides that are multiples of a patch."""
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(f'Expected frames of shape (B, 3, H, W), got {tuple(frames.shape)}.')
    height, width = frames.shape[-2:]
    if height % patch_size or width % patch_size or not height or not width:
        raise ValueError(
            f'Expected frames whose sides are multiples of the patch size {patch_size}, '
            f'got {height} x {width}. Pad them: VideoStream does.'
        )
