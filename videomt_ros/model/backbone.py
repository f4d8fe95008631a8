"""Plain Vision Transformers of timm behind one face: embed, encoder blocks, query blocks, norm.

Three families: DINOv2 with registers (timm `VisionTransformer`, a table of positions), DINOv3 and
EVA-02 (timm `Eva`, rotary positions; EVA-02 also has a table). Weights stay under timm's own names
in `vit`, so that any timm checkpoint maps without a table of its own.

Letters: B batch, C channels, Q queries, P prefix tokens (class token and registers),
h w patch grid, N = P + h * w tokens.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videomt_ros.model.config import VidEoMTConfig

# timm's names by width. EVA-02 differs by size in more than width (fused q, k, v; a norm inside
# the MLP), so a width that is not listed is built like the smallest of its family.
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


def timm_name(config: VidEoMTConfig) -> str:
    """Name of the timm model whose design this configuration follows."""
    names = TIMM_NAMES[config.family]
    return names.get(config.embed_dim, names[384])


def build_vit(config: VidEoMTConfig) -> Any:
    """Build the timm network of a configuration, without weights and without a head."""
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
    return timm.create_model(timm_name(config), pretrained=False, **arguments)


class Backbone(nn.Module):
    """A ViT whose last `num_query_blocks` blocks take Q query tokens in front of their own.

    Token order in the query blocks: [queries | class token, registers | patches].
    """

    def __init__(self, config: VidEoMTConfig) -> None:
        super().__init__()
        self.vit: Any = build_vit(config)
        self.num_prefix_tokens: int = self.vit.num_prefix_tokens
        self.num_encoder_blocks = config.depth - config.num_query_blocks
        self.rotary = config.family != 'dinov2'
        self.checkpointing = False
        """Keep no activations of a block for the backward pass, but compute them again."""
        if self.rotary:
            # timm rotates every token after the prefix. Queries have no place in the image: they
            # join the prefix of the blocks that see them, or the patches' angles would slip by Q.
            for block in self.query_blocks:
                block.attn.num_prefix_tokens += config.num_queries

    @property
    def query_blocks(self) -> Any:
        """The blocks that see queries."""
        return self.vit.blocks[self.num_encoder_blocks :]

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """Run the blocks that see the frame alone.

        Args:
            frames: normalised RGB, (B, 3, H, W), sides multiples of the patch size.

        Returns:
            Tokens (B, N, C) and the rotary table of this grid, None without rotary positions.
        """
        vit = self.vit
        embedded = vit._pos_embed(vit.patch_embed(frames))
        tokens, rope = embedded if self.rotary else (embedded, None)
        tokens = vit.norm_pre(tokens)
        for block in vit.blocks[: self.num_encoder_blocks]:
            tokens = self.run_block(block, tokens, rope)
        return tokens, rope

    def run_block(
        self, block: nn.Module, tokens: Tensor, rope: Tensor | None, mask: Tensor | None = None
    ) -> Tensor:
        """One transformer block; mask is bool, (B, 1, N, N), True where attention is allowed."""
        arguments: dict[str, Any] = {'attn_mask': mask} | ({'rope': rope} if self.rotary else {})
        if self.checkpointing and self.training and torch.is_grad_enabled():
            # Blocks draw nothing at random, so there is no such state to keep either.
            return checkpoint(
                block, tokens, use_reentrant=False, preserve_rng_state=False, **arguments
            )
        return block(tokens, **arguments)

    def norm(self, tokens: Tensor) -> Tensor:
        """The final norm."""
        return self.vit.norm(tokens)

    def forward(self, frames: Tensor) -> Tensor:
        """Features of frames without queries: tokens after the final norm, (B, N, C).

        Only a network with `num_queries` = 0 may be asked for them (see __init__).
        """
        tokens, rope = self.encode(frames)
        for block in self.query_blocks:
            tokens = self.run_block(block, tokens, rope)
        return self.norm(tokens)


def check_frames(frames: Tensor, patch_size: int) -> None:
    """Raise ValueError unless frames are (B, 3, H, W) with sides that hold whole patches."""
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(f'Expected frames of shape (B, 3, H, W), got {tuple(frames.shape)}.')
    height, width = frames.shape[-2:]
    if height % patch_size or width % patch_size or not height or not width:
        raise ValueError(
            f'Expected frames whose sides are multiples of the patch size {patch_size}, '
            f'got {height} x {width}. Pad them: VideoStream does.'
        )
