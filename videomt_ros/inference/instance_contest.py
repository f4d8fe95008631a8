"""The contest of instances for pixels on a CPU, in which each mask is computed in its box alone.

Letters: N segments, h w mask grid, H W image size in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.inference.grid_masks import GridBox, bound_cells
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.inference.resizing import Box, Span, logits_to_image
from videomt_ros.inference.scratch import own_scratch

_LEAST_SAFE_THRESHOLD = 1e-6
"""Mask threshold from which no product of a score and a probability is rounded to 0."""
_LEAST_SAFE_SCORE = 1e-6
"""The same for scores."""


def bound_masks(
    boxes: Iterable[GridBox], geometry: Geometry, grid: tuple[int, int]
) -> list[Box | None]:
    """Find the box of the image that the cells of each mask can reach.

    Args:
        boxes: box of each mask in the grid; see `grid_masks.GridMask.box`.
        geometry: sizes of the frame.
        grid: size (h, w) of the grid.

    Returns:
        The box of each mask; None if it reaches no pixel.
    """
    resize = logits_to_image(geometry, grid)
    return [
        None if top == bottom else resize.reached(Box(Span(top, bottom), Span(left, right)))
        for top, left, bottom, right in boxes
    ]


def contest_in_boxes(
    mask_logits: Sequence[Tensor],
    scores: NDArray[np.float64],
    geometry: Geometry,
    mask_threshold: float,
) -> NDArray[np.uint8] | NDArray[np.int16]:
    """Compute what `postprocess.instance_pixels` does, from finite logits on a CPU.

    The logit of a pixel lies between those of its cells. So a mask lies in the box that its cells
    above the threshold reach, and masks compete only where their boxes meet.

    Args:
        mask_logits: N of (h, w) float32, N at least 1.
        scores: (N,), 0..1.
        geometry: sizes of the frame.
        mask_threshold: mask probability that a pixel must exceed.

    Returns:
        (H, W); k + 1 for segment k, 0 for none.
    """
    grid = (mask_logits[0].shape[0], mask_logits[0].shape[1])
    resize = logits_to_image(geometry, grid)
    outside = last_logit_outside(mask_threshold)
    # Rounding may lift a pixel a little above its cells.
    lowest = outside - 1e-5 * max(1.0, abs(outside)) if np.isfinite(outside) else outside
    boxes = bound_masks(
        (bound_cells(mask.numpy() > lowest) for mask in mask_logits), geometry, grid
    )
    winner = np.zeros(geometry.image_size, np.uint8 if len(boxes) <= 255 else np.int16)
    best: Tensor | None = None
    scratch = own_scratch()
    meet = _meet(boxes)
    for k, box in enumerate(boxes):
        if box is None:
            continue
        number = winner.dtype.type(k + 1)
        is_safe = mask_threshold >= _LEAST_SAFE_THRESHOLD and scores[k] >= _LEAST_SAFE_SCORE
        rivals = [other.rows for n in np.flatnonzero(meet[k]) if (other := boxes[n])]
        if best is None and not (is_safe and not rivals):
            best = scratch.take('best', geometry.image_size).zero_()
        for rows, strip in resize.strips(mask_logits[k], *box, scratch):
            index = Box(rows, box.columns).slices
            is_alone = not any(r.start < rows.stop and rows.start < r.stop for r in rivals)
            if best is None or (is_safe and is_alone):
                np.multiply(strip.numpy() > outside, number, out=winner[index])
                continue
            values = F.threshold(strip.sigmoid_(), mask_threshold, 0.0, inplace=True)
            values.mul_(float(np.float32(scores[k])))
            own_best = best[index]
            larger = values.numpy() > own_best.numpy()  # torch takes three times as long
            torch.maximum(own_best, values, out=own_best)
            # Numbers rise, so the newest is the largest, and a maximum replaces a masked write.
            np.maximum(winner[index], larger * number, out=winner[index])
    return winner


def _meet(boxes: Sequence[Box | None]) -> NDArray[np.bool_]:
    """Tell which pairs of different boxes have a pixel in common, (N, N)."""
    corners = np.array([(*box.rows, *box.columns) if box else (0, 0, 0, 0) for box in boxes])
    top, bottom, left, right = corners.reshape(-1, 4).T
    meet = (top[:, None] < bottom) & (top < bottom[:, None])
    meet &= (left[:, None] < right) & (left < right[:, None])
    np.fill_diagonal(meet, False)
    return meet


@lru_cache(maxsize=64)
def last_logit_outside(mask_threshold: float) -> float:
    """Find the largest float32 logit whose probability does not exceed the threshold.

    Comparing logits with it decides as comparing their rounded probabilities does, which are equal
    for many logits next to one another.

    Args:
        mask_threshold: probability, 0..1.
    """

    def is_outside(logit: np.float32) -> bool:
        # Several equal numbers, since torch rounds a single one in another way.
        probs = torch.full((64,), float(logit)).sigmoid()
        return not bool(F.threshold(probs, mask_threshold, 0.0)[0] > 0)

    low, high = np.float32(-128.0), np.float32(128.0)  # probabilities 0 and 1
    if is_outside(high):
        return float('inf')
    while True:
        middle = (low + high) / np.float32(2.0)
        if middle in (low, high):
            return float(low)
        if is_outside(middle):
            low = middle
        else:
            high = middle
