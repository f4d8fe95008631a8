"""Detections of one frame: their scores, overlaps, duplicates and assignment to tracks.

Letters: N detections, M tracks, K classes, h w mask grid. Lengths are in cells of the grid,
points are (row, column).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from videomt_ros.inference.grid_masks import GridMask, areas, intersections, pack_masks
from videomt_ros.model.config import Task

_NEVER = 1e6


@dataclass(frozen=True)
class Detections:
    """Queries of one frame that may show an object, in an order independent of their slots."""

    queries: NDArray[np.intp]
    """Query indices, (N,)."""
    class_logits: NDArray[np.float64]
    """Class logits of the frame, (N, K + 1)."""
    class_probs: NDArray[np.float64]
    """Their softmax, (N, K + 1)."""
    classes: NDArray[np.intp]
    """Likeliest classes, 0..K-1, (N,)."""
    scores: NDArray[np.float64]
    """Scores in this frame, (N,); see `class_scores`."""
    masks: list[GridMask]
    """N masks, none of them empty."""
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
    packed = pack_masks(masks)
    sums = np.empty((len(masks), 3))
    for n, (mask, cells) in enumerate(zip(packed, masks.view(np.uint8), strict=True)):
        top, left, bottom, right = mask.box
        found = cv2.moments(cells[top:bottom, left:right], binaryImage=True)
        # Sums first, so that each centre is rounded once.
        rows, columns = found['m01'] + top * mask.area, found['m10'] + left * mask.area
        sums[n] = mask.area, rows, columns
    centres = sums[:, 1:] / sums[:, :1]
    order = np.lexsort((centres[:, 1], centres[:, 0], -sums[:, 0], -scores))
    logits = class_logits[order].astype(np.float64)
    return Detections(
        queries[order],
        logits,
        softmax(logits),
        logits[:, :-1].argmax(1),
        scores[order].astype(np.float64),
        [packed[n] for n in order],
        centres[order],
        np.sqrt(sums[order, 0]),
        cell_area,
    )


def suppress_duplicates(
    detections: Detections, order: NDArray[np.intp], same_object_iou: float
) -> list[int]:
    """Keep one detection per object.

    Args:
        detections: the N detections of the frame.
        order: indices of the detections to choose from, best first; of two that show one object
            the first is kept.
        same_object_iou: least IoU of two masks that show one object.

    Returns:
        Indices of the detections that are kept, in the same order.
    """
    inside, sizes = intersections(detections.masks), areas(detections.masks)
    unions = sizes[:, None] + sizes[None] - inside
    same_object = inside >= same_object_iou * unions
    stay: list[int] = []
    repeats = np.zeros(len(detections), bool)
    for n in order.tolist():
        if not repeats[n]:
            stay.append(n)
            repeats |= same_object[n]
    return stay


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
