"""Detections of one frame: their scores, overlaps, duplicates and assignment to tracks.

Letters: N detections, M tracks, K classes, h w mask grid. Lengths are in cells of the grid,
points are (row, column).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from videomt_ros.model.config import Task

DUPLICATE_IOU = 0.4
"""Least IoU of two masks that show one object. Visible masks of two objects overlap less."""
PART_SHARE = 0.9
"""Least share of a mask that lies inside a larger mask of its class if it is a part of it."""
PART_AREA = 0.25
"""Least area of a part, as a share of the larger mask; a smaller one may be another object."""
SAME_PLACE_IOU = 0.3
"""Least IoU with the expected mask of a track that suffices to be the same object."""
_NEVER = 1e6
_FEW_PAIRS = 256
"""Number of pairs of masks up to which the whole grid is compared at once."""
_BLOCK = (40, 72)
"""Height and width of a block of the grid in which many masks are compared."""


@dataclass(frozen=True)
class Detections:
    """Queries of one frame that may show an object, in an order independent of their slots."""

    queries: NDArray[np.intp]
    """Query indices, (N,)."""
    class_logits: NDArray[np.float64]
    """Class logits of the frame, (N, K + 1)."""
    scores: NDArray[np.float64]
    """Scores in this frame, (N,); see `class_scores`."""
    masks: NDArray[np.bool_]
    """Masks, (N, h, w), none of them empty."""
    centres: NDArray[np.float64]
    """Centres of the masks, (N, 2)."""
    sizes: NDArray[np.float64]
    """Square roots of the masks' areas, (N,)."""
    cell_area: float
    """Number of image pixels that one cell of the grid stands for."""

    def __len__(self) -> int:
        return len(self.queries)


def build_detections(
    queries: NDArray[np.intp],
    class_logits: NDArray[np.floating],
    scores: NDArray[np.floating],
    masks: NDArray[np.bool_],
    cell_area: float = 1.0,
) -> Detections:
    """Measure the masks, and sort the detections by falling score, then area, then place.

    Args:
        queries: (N,).
        class_logits: (N, K + 1).
        scores: (N,), 0..1.
        masks: (N, h, w), none of them empty.
        cell_area: number of image pixels that one cell of the grid stands for.
    """
    boxes = _boxes(masks)
    sums = np.empty((len(masks), 3))
    for n, (top, left, height, width) in enumerate(boxes.tolist()):
        part = masks[n, top : top + height, left : left + width].view(np.uint8)
        found = cv2.moments(part, binaryImage=True)
        sums[n] = found['m00'], found['m01'], found['m10']
    areas = sums[:, 0]
    # Sums first, so that each centre is rounded once.
    centres = (sums[:, 1:] + boxes[:, :2] * areas[:, None]) / areas[:, None]
    order = np.lexsort((centres[:, 1], centres[:, 0], -areas, -scores))
    return Detections(
        queries[order],
        class_logits[order].astype(np.float64),
        scores[order].astype(np.float64),
        masks[order],
        centres[order],
        np.sqrt(areas[order]),
        cell_area,
    )


def overlaps(
    masks: NDArray[np.bool_], others: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Measure two sets of masks: their intersections, (N, M), and areas, (N,) and (M,).

    Many masks are compared block by block of the grid, in each those that reach it.
    """
    height, width = masks.shape[1:]
    is_many = len(masks) * len(others) > _FEW_PAIRS
    rows, columns = _BLOCK if is_many else (height, width)
    boxes, other_boxes = _boxes(masks), _boxes(others)
    inside = np.zeros((len(masks), len(others)), np.float32)
    for top, left in product(range(0, height, rows), range(0, width, columns)):
        block = slice(top, top + rows), slice(left, left + columns)
        a, b = (_reaching(block, found) for found in (boxes, other_boxes))
        if len(a) and len(b):
            x = masks[(a, *block)].reshape(len(a), -1).astype(np.float32)
            y = others[(b, *block)].reshape(len(b), -1).astype(np.float32)
            inside[np.ix_(a, b)] += x @ y.T
    return inside, _areas(masks), _areas(others)


def _boxes(masks: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Find the boxes of masks: first row and column, height, width; (N, 4)."""
    found = [cv2.boundingRect(mask.view(np.uint8)) for mask in masks]
    return np.array([(y, x, height, width) for x, y, width, height in found]).reshape(-1, 4)


def _areas(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Count the cells of masks, (N,)."""
    return np.array([cv2.countNonZero(mask.view(np.uint8)) for mask in masks], np.float32)


def _reaching(block: tuple[slice, slice], boxes: NDArray[np.intp]) -> NDArray[np.intp]:
    """Find the boxes that have a cell in a block of the grid."""
    starts, ends = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    first = [part.start for part in block]
    stop = [part.stop for part in block]
    return np.flatnonzero(((starts < stop) & (ends > first)).all(1))


def ious(masks: NDArray[np.bool_], others: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Compute the intersections over unions, (N, M); 0 where both masks are empty."""
    inside, areas, other_areas = overlaps(masks, others)
    unions = areas[:, None] + other_areas[None] - inside
    return inside / np.maximum(unions, 1.0)


def suppress_duplicates(
    detections: Detections, order: NDArray[np.intp], established: NDArray[np.bool_]
) -> list[int]:
    """Keep one detection per object.

    Args:
        detections: the N detections of the frame.
        order: indices of the detections to choose from, best first; of two that show one object
            the first is kept.
        established: whether a detection continues a confirmed track, (N,). A part of a larger
            mask is dropped, whichever comes first, unless both are established.

    Returns:
        Indices of the detections that are kept, in the same order.
    """
    inside, areas, _ = overlaps(detections.masks, detections.masks)
    unions = areas[:, None] + areas[None] - inside
    same_object = inside >= DUPLICATE_IOU * unions
    classes = detections.class_logits[:, :-1].argmax(1)
    smaller = areas[:, None] < areas[None]
    part = (
        smaller
        & (inside >= PART_SHARE * areas[:, None])
        & (areas[:, None] >= PART_AREA * areas[None])
        & (classes[:, None] == classes[None])
        & ~(established[:, None] & established[None])
    )
    stay: list[int] = []
    for n in order:
        if not same_object[n, stay].any():
            stay.append(int(n))
    return [n for n in stay if not part[n, stay].any()]


def assign(costs: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Find the pairs (row, column) of least total cost, as many as possible; inf: no pair."""
    if not costs.size:
        return []
    finite = np.where(np.isfinite(costs), costs, _NEVER)
    rows, columns = linear_sum_assignment(finite)
    return [
        (int(row), int(column))
        for row, column in zip(rows, columns, strict=True)
        if finite[row, column] < _NEVER
    ]


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Compute the softmax over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def class_scores(class_probs: NDArray[np.floating], task: Task) -> NDArray[np.floating]:
    """Score queries or tracks by the probability of their likeliest class.

    Args:
        class_probs: (N, K + 1); the last column is the probability of no object.
        task: in panoptic results the score is 0 where no object is likelier than every class, as
            the rule of the paper drops such queries.

    Returns:
        (N,), 0..1.
    """
    scores = class_probs[:, :-1].max(1)
    if task == 'panoptic':
        scores = np.where(class_probs[:, -1] > scores, 0.0, scores)
    return scores
