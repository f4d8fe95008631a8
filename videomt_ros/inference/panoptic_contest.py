"""The contest of panoptic segments for pixels on a CPU, tile by tile.

Every segment may win any pixel, even outside of its own mask, so boxes do not help. But within a
tile of the image the probabilities of a mask lie between those of the cells around it, which shows
which segments can win there at all: mostly one, whose pixels need not be computed, or two.

Letters: N segments, h w mask grid, H W image size in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.inference.preprocess import Geometry
from videomt_ros.inference.scratch import own_scratch
from videomt_ros.inference.tiles import SLACK, cut_tiles

_TILE = (64, 128)
"""Height and width of a tile in pixels; others were slower."""
_LEAST_VALUE = 1e-30
"""Product of score and probability below which rounding to 0 would have to be considered."""


class PanopticContest(NamedTuple):
    """Who wins each pixel, before segments are dropped."""

    pixels: NDArray[np.uint8] | NDArray[np.int16]
    """k + 1 where segment k wins inside its own mask, else 0, (H, W)."""
    won: NDArray[np.int64]
    """Number of pixels that each segment wins, inside its mask or not, (N,)."""
    areas: NDArray[np.int64]
    """Area of each mask in pixels, (N,)."""


def contest_in_tiles(
    mask_logits: Tensor, scores: NDArray[np.float64], geometry: Geometry, mask_threshold: float
) -> PanopticContest:
    """Compute what `postprocess.panoptic_contest` does, from finite logits on a CPU.

    Args:
        mask_logits: (N, h, w) float32, N at least 1.
        scores: (N,), 0..1.
        geometry: sizes of the frame.
        mask_threshold: lowest mask probability of a pixel.
    """
    count = len(mask_logits)
    grid = (mask_logits.shape[1], mask_logits.shape[2])
    weights = scores.astype(np.float32)
    pixels = np.zeros(geometry.image_size, np.uint8 if count <= 255 else np.int16)
    won, areas = np.zeros(count, np.int64), np.zeros(count, np.int64)
    scratch = own_scratch()
    for row in cut_tiles(geometry, grid, _TILE):
        rows = mask_logits[:, slice(*row[0].cells.rows)]
        row_lows, row_highs = rows.amin(1), rows.amax(1)  # N, w
        for tile in row:
            columns = slice(*tile.cells.columns)
            lows = row_lows[:, columns].amin(1).sigmoid().numpy()
            highs = row_highs[:, columns].amax(1).sigmoid().numpy()
            view = pixels[tile.image.slices]
            is_inside = lows >= mask_threshold * (1 + SLACK)
            is_outside = highs < mask_threshold * (1 - SLACK)
            areas[is_inside] += view.size
            can_win = highs * weights * (1 + SLACK) >= (lows * weights).max()
            winner = int(can_win.argmax())
            is_known = is_inside[winner] or is_outside[winner]
            is_certain = lows[winner] * weights[winner] > _LEAST_VALUE
            if is_known and is_certain and np.count_nonzero(can_win) == 1:
                won[winner] += view.size
                view[...] = winner + 1 if is_inside[winner] else 0
                can_win[winner] = False
            is_partial = ~(is_inside | is_outside)
            best = scratch.take('best', tile.image.size).zero_()
            is_won_inside = np.zeros(tile.image.size, bool)
            for k in np.flatnonzero(can_win | is_partial):
                probs = tile.probs(mask_logits[k], scratch)
                mask = probs.numpy() >= mask_threshold
                if is_partial[k]:
                    areas[k] += np.count_nonzero(mask)
                if not can_win[k]:
                    continue
                probs.mul_(float(weights[k]))
                larger = probs.numpy() > best.numpy()
                torch.maximum(best, probs, out=best)
                # Numbers rise, so the newest is the largest.
                np.maximum(view, larger * pixels.dtype.type(k + 1), out=view)
                np.copyto(is_won_inside, mask, where=larger)
            numbers = np.flatnonzero(can_win)
            for k in numbers:
                won[k] += np.count_nonzero(view == k + 1)
            if len(numbers):
                np.multiply(view, is_won_inside, out=view)
    return PanopticContest(pixels, won, areas)
