"""Masks of queries from the tokens of patches, one strip of the image after the other, on a CPU.

Upscaled features are the largest tensors of the network. A strip of them stays in the cache
between the layers, and needs no memory that the operating system has to clear first. Channels are
last throughout, which is how tokens come, so that nothing is transposed.

Letters: B batch, C channels, Q queries, h w grid of patches, r rows of a strip.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

STRIP = 2**21
"""Number of upscaled values that are computed at a time, unless this is under `MIN_ROWS`."""
MIN_ROWS = 8
"""Smallest height of a strip before its upscaling: two rows more are computed for its margins."""


def masks_by_strips(
    queries: Tensor, patches: Tensor, grid: tuple[int, int], upscale: nn.Sequential
) -> Tensor:
    """Compute the dot products of mask embeddings with upscaled features.

    Args:
        queries: mask embeddings, (B, Q, C).
        patches: tokens of the patches, (B, h * w, C).
        grid: number of patches (vertical, horizontal).
        upscale: the network's upscale blocks, at least one.

    Returns:
        Mask logits (B, Q, 2^n h, 2^n w) of n upscale blocks.
    """
    features = patches.unflatten(1, grid)  # B, h, w, C
    *first, last = (_Doubling(block) for block in upscale)
    for doubling in first:
        features = doubling.rows(features, 0, features.shape[1])
    batch_size, height, width, num_channels = features.shape
    step = max(MIN_ROWS, STRIP // (4 * width * num_channels))
    masks = queries.new_empty(batch_size, queries.shape[1], 2 * height, 2 * width)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        strip = last.rows(features, top, bottom)  # B, 2 r, 2 w, C
        for b in range(batch_size):
            logits = F.linear(queries[b], strip[b].flatten(0, 1))  # Q, 4 r w
            masks[b, :, 2 * top : 2 * bottom] = logits.unflatten(1, (-1, 2 * width))
    return masks


class _Doubling:
    """An `UpscaleBlock` as a matrix product and a depthwise convolution, with channels last."""

    def __init__(self, block: Any) -> None:
        self.block = block
        weight = block.conv1.weight  # in, out, 2, 2
        # Each patch becomes 2 x 2 cells, which overlap with no others.
        self.weight = weight.permute(0, 2, 3, 1).flatten(1).t()  # 4 C, C
        self.bias = block.conv1.bias.repeat(4)

    def rows(self, features: Tensor, top: int, bottom: int) -> Tensor:
        """Double rows `top` to `bottom` of (B, h, w, C) to (B, 2 r, 2 w, C)."""
        start, end = max(top - 1, 0), min(bottom + 1, features.shape[1])
        cells = F.gelu(F.linear(features[:, start:end], self.weight, self.bias))
        cells = cells.unflatten(3, (2, 2, -1)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        # The convolution reads the cells around, which at the edges of the image are zeros.
        cells = self.block.conv2(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        cells = cells[:, 2 * (top - start) :][:, : 2 * (bottom - top)]
        norm = self.block.norm
        return F.layer_norm(cells, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
