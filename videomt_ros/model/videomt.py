"""VidEoMT: one plain ViT that segments and tracks (arXiv 2602.17807, section 3).

The last blocks of the ViT process learned queries beside the tokens of the frame (EoMT, arXiv
2503.19108). Letters as in `network`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from videomt_ros.model.network import Encoded, VideoNetwork


class VidEoMT(VideoNetwork):
    """A network whose queries pass the last blocks of its ViT."""

    @property
    def query_blocks(self) -> Any:
        """Last blocks of the ViT."""
        return self.backbone.query_blocks

    @property
    def rotary(self) -> Any:
        """Module of the ViT that computes rotary positions; None without such positions."""
        return getattr(self.backbone.vit, 'rope', None)

    def _encode(self, frames: Tensor, grid: tuple[int, int]) -> Encoded:
        tokens, rope = self.backbone.encode(frames)
        return Encoded((tokens,), rope, grid)

    def _entering(self, encoded: Encoded) -> Tensor:
        (tokens,) = encoded.tokens
        return tokens

    def _final_norm(self, tokens: Tensor) -> Tensor:
        return self.backbone.norm(tokens)
