"""The contest of panoptic segments for pixels on a CPU, tile by tile.

Every segment may win any pixel, even outside of its own mask, so boxes do not help. But within a
tile of the image the probabilities of a mask lie between those of the cells around it, which shows
which segments can win there at all: mostly one, whose pixels need not be computed, or a few, of
which only the parts are computed that are high enough.

Letters: N segments, h w mask grid, H W image size in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.inference.grid_masks import logit
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.inference.scratch import own_scratch
from videomt_ros.inference.tiles import SLACK, bound_row, cut_tiles

_TILE = (96, 256)
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
    cells = mask_logits.numpy()
    for row in cut_tiles(geometry, grid, _TILE):
        lows, highs = bound_row(mask_logits, row)
        is_inside = lows >= mask_threshold * (1 + SLACK)
        is_partial = ~is_inside & (highs >= mask_threshold * (1 - SLACK))
        least = (lows * weights).max(1)  # of the winner of each pixel of a tile
        can_win = highs * weights * (1 + SLACK) >= least[:, None]
        enough = np.where(least > _LEAST_VALUE, least / (1 + SLACK), 0.0)
        for n, tile in enumerate(row):
            view = pixels[tile.image.slices]
            areas[is_inside[n]] += view.size
            rivals = np.flatnonzero(can_win[n])
            if len(rivals) == 1 and least[n] > _LEAST_VALUE and not is_partial[n, rivals[0]]:
                (winner,) = rivals
                won[winner] += view.size
                view[...] = winner + 1 if is_inside[n, winner] else 0
                can_win[n, winner] = False
                rivals = rivals[:0]
            best = scratch.array('best', tile.image.size, np.float32)
            best.fill(0.0)
            is_won_inside = np.zeros(tile.image.size, bool)
            for k in np.flatnonzero(can_win[n] | is_partial[n]).tolist():
                # Where all cells are lower, the segment neither wins nor has a part of its mask.
                lowest = mask_threshold * (1 - SLACK) if is_partial[n, k] else 1.0
                if can_win[n, k]:
                    lowest = min(lowest, float(enough[n] / weights[k])) if weights[k] else 0.0
                part = tile.part(cells[k], logit(lowest))
                if part is None:
                    continue
                index = part.image.moved(-tile.image.rows.start, -tile.image.columns.start).slices
                probs = part.probs(mask_logits[k], scratch)
                mask = probs.numpy() >= mask_threshold
                if is_partial[n, k]:
                    areas[k] += np.count_nonzero(mask)
                if not can_win[n, k]:
                    continue
                values = probs.mul_(float(weights[k])).numpy()
                larger = values > best[index]
                np.maximum(best[index], values, out=best[index])
                # Numbers rise, so the newest is the largest.
                np.maximum(view[index], larger * pixels.dtype.type(k + 1), out=view[index])
                np.copyto(is_won_inside[index], mask, where=larger)
            for k in rivals.tolist():
                won[k] += np.count_nonzero(view == k + 1)
            if len(rivals):
                np.multiply(view, is_won_inside, out=view)
    return PanopticContest(pixels, won, areas)
