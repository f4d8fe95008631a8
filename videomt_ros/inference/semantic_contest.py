"""The semantic label of each pixel on a CPU, tile by tile.

The sum over the queries is a matrix product. Within a tile the bounds of the mask probabilities
bound the sum of each class, too, and most classes cannot have the largest; only the others are
computed, and the sum over all classes as one more row.

Letters: Q queries, K classes, h w mask grid, H W image size in pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.inference.preprocess import Geometry
from videomt_ros.inference.tiles import SLACK, cut_tiles

_TILE = (48, 96)
"""Height and width of a tile in pixels; others were slower."""


def label_in_tiles(
    class_probs: Tensor, mask_logits: Tensor, geometry: Geometry
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Compute what `postprocess.semantic_pixels` does, from finite values on a CPU.

    Args:
        class_probs: probabilities of the classes, without that of no object, (Q, K).
        mask_logits: (Q, h, w) float32.
        geometry: sizes of the frame.

    Returns:
        Class ids 0..K-1, (H, W), and the winner's share of the sum over all classes, 0..1, (H, W).
    """
    classes = np.zeros(geometry.image_size, np.int16)
    shares = np.zeros(geometry.image_size, np.float32)
    weights = torch.cat([class_probs, class_probs.sum(1, keepdim=True)], 1).T.contiguous()
    grid = (mask_logits.shape[1], mask_logits.shape[2])
    for row in cut_tiles(geometry, grid, _TILE):
        rows = mask_logits[:, slice(*row[0].cells.rows)]
        bounds = torch.stack([rows.amin(1), rows.amax(1)], 1)  # Q, 2, w
        for tile in row:
            columns = bounds[:, :, slice(*tile.cells.columns)]
            ends = torch.stack([columns[:, 0].amin(1), columns[:, 1].amax(1)], 1).sigmoid()
            lows, highs = (weights[:-1] @ ends).numpy().T  # K
            candidates = np.flatnonzero(highs * (1 + SLACK) >= lows.max())
            chosen = weights[np.append(candidates, len(weights) - 1)]
            probs = tile.many_probs(mask_logits)
            maps = (chosen @ probs.flatten(1)).view(-1, *tile.resized.size)
            values = tile.to_image(maps)
            best, winner = values[:-1].max(0)
            classes[tile.image.slices] = candidates[winner.numpy()]
            shares[tile.image.slices] = (best / values[-1].clamp_min(1e-12)).numpy()
    return classes, shares
