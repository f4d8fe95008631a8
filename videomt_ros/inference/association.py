"""Which query of this frame shows which track: geometry and assignment on the mask grid.

Letters: N detections, M tracks, K classes, h w mask grid. Lengths are in cells of the grid,
points are (row, column), times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

DUPLICATE_IOU = 0.4
"""Two masks that overlap this much show one object. Visible masks of two objects do not."""
PART_SHARE = 0.9
"""A mask that lies inside a larger one of its class by this share is a part of it ..."""
PART_AREA = 0.25
"""... unless it is smaller than this share of the larger: then it may be another object."""
SAME_PLACE_IOU = 0.3
"""Overlap with the expected mask that speaks for the same object by itself."""
JUMP_SIZES = 0.75
"""Sizes by which an object may miss its expected place from one frame to the next."""
FIRST_JUMP = 2.0
"""Times as much while the velocity is unknown, in a track's second frame."""
JUMP_SIZES_PER_S = 1.5
"""Sizes per second by which that grows with the time since the track was seen."""
JUMP_SPEED_SHARE = 0.25
"""Share of the way the velocity covers in that time, by which it grows too."""
JUMP_FLOOR = 0.03
"""Least and ..."""
JUMP_CEILING = 0.5
"""... largest allowance over the diagonal of the grid."""
SIZE_RATIO = 3.0
"""Largest change of size (square root of the area) of an object that does not overlap itself."""
CLASS_GONE = 0.2
"""A class changed for certain if the old one has at most this probability ..."""
CLASS_NEW = 0.6
"""... and another at least this."""
CLASS_CHANGE_FRAMES = 5
"""Frames in a row after which a changed class is another object that took the slot over. Fewer
split objects that come in through an edge, whose class is a guess until more of them shows; by
then the mean over a young track has changed with it."""
SIZE_MEMORY = 0.9
"""Share of an object's size that is remembered from frame to frame while less of it shows."""
SPECK_RATIO = 0.2
"""Size over the object's at which a mask is a remnant and says nothing of the object's place."""
MIN_INTERVAL_S = 1e-3
"""Shorter intervals give no velocity: stamps are not that exact."""
_NEVER = 1e6


@dataclass(frozen=True)
class Detections:
    """Queries of one frame that may show an object, in an order that is free of query order."""

    queries: NDArray[np.intp]
    """(N,), index of the query."""
    class_logits: NDArray[np.float64]
    """(N, K + 1)."""
    scores: NDArray[np.float64]
    """(N,), largest class probability in this frame; 0 if no object is what the head says."""
    masks: NDArray[np.bool_]
    """(N, h, w), none of them empty."""
    centres: NDArray[np.float64]
    """(N, 2), of the masks."""
    sizes: NDArray[np.float64]
    """(N,), square roots of the areas."""

    def __len__(self) -> int:
        return len(self.queries)


def build_detections(
    queries: NDArray[np.intp],
    class_logits: NDArray[np.floating],
    scores: NDArray[np.floating],
    masks: NDArray[np.bool_],
) -> Detections:
    """Measure the masks and sort by falling score, then area, then place."""
    areas = masks.sum((1, 2)).astype(np.float64)
    rows = masks.sum(2) @ np.arange(masks.shape[1])
    columns = masks.sum(1) @ np.arange(masks.shape[2])
    centres = np.stack([rows, columns], 1) / areas[:, None]
    order = np.lexsort((centres[:, 1], centres[:, 0], -areas, -scores))
    return Detections(
        queries[order],
        class_logits[order].astype(np.float64),
        scores[order].astype(np.float64),
        masks[order],
        centres[order],
        np.sqrt(areas[order]),
    )


@dataclass
class Motion:
    """Where an object was seen last, and how it moves."""

    mask: NDArray[np.bool_]
    centre: NDArray[np.float64]
    size: float
    """Largest of late, so that a half hidden object keeps the size it has."""
    stamp_ns: int
    velocity: NDArray[np.float64] | None = None
    """Cells per second; None until it was seen at two different times."""

    def step(self, stamp_ns: int) -> NDArray[np.float64]:
        """Expected way since the last sight, in cells."""
        if self.velocity is None:
            return np.zeros(2)
        return self.velocity * ((stamp_ns - self.stamp_ns) * 1e-9)

    def expected_mask(self, stamp_ns: int) -> NDArray[np.bool_]:
        """The last mask moved by the expected way; what leaves the grid is gone."""
        rows, columns = (int(round(way)) for way in self.step(stamp_ns))
        height, width = self.mask.shape
        moved = np.zeros_like(self.mask)
        if abs(rows) < height and abs(columns) < width:
            moved[
                max(0, rows) : height + min(0, rows), max(0, columns) : width + min(0, columns)
            ] = self.mask[
                max(0, -rows) : height - max(0, rows), max(0, -columns) : width - max(0, columns)
            ]
        return moved

    def reaches(self, detections: Detections, stamp_ns: int) -> NDArray[np.float64]:
        """How far each detection is from where the object can be, (N,); up to 1 is plausible.

        The object can be anywhere between its last place and the expected one (it may have
        stopped), give or take an allowance that follows its size and the time that passed.
        """
        step = self.step(stamp_ns)
        elapsed_s = (stamp_ns - self.stamp_ns) * 1e-9
        jump = JUMP_SIZES * (FIRST_JUMP if self.velocity is None else 1.0)
        diagonal = float(np.hypot(*self.mask.shape))
        allowance = self.size * (jump + JUMP_SIZES_PER_S * elapsed_s)
        allowance += JUMP_SPEED_SHARE * float(np.hypot(*step)) + JUMP_FLOOR * diagonal
        offsets = detections.centres - self.centre
        length = float(step @ step)
        along = np.clip(offsets @ step / length, 0.0, 1.0) if length else np.zeros(len(offsets))
        distances = np.linalg.norm(offsets - along[:, None] * step, axis=1)
        ratios = distances / min(allowance, JUMP_CEILING * diagonal)
        # Two cells of slack: tiny masks double their size from one frame to the next.
        too_large = detections.sizes > SIZE_RATIO * self.size + 2.0
        return np.where(too_large, np.inf, ratios)

    def move(self, detections: Detections, n: int, stamp_ns: int) -> None:
        """Take the place of detection n, unless it is a speck of the object."""
        if detections.sizes[n] < SPECK_RATIO * self.size:
            self.size *= SIZE_MEMORY
            return
        elapsed_s = (stamp_ns - self.stamp_ns) * 1e-9
        if elapsed_s >= MIN_INTERVAL_S:
            velocity = (detections.centres[n] - self.centre) / elapsed_s
            known = self.velocity is not None
            self.velocity = 0.5 * (self.velocity + velocity) if known else velocity
        self.mask = detections.masks[n]
        self.centre = detections.centres[n]
        self.size = max(float(detections.sizes[n]), SIZE_MEMORY * self.size)
        self.stamp_ns = stamp_ns


def overlaps(
    masks: NDArray[np.bool_], others: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Intersections (N, M) and areas (N,), (M,) of two sets of masks, in cells."""
    cells = int(np.prod(masks.shape[1:]))
    a = masks.reshape(-1, cells).astype(np.float32)
    b = others.reshape(-1, cells).astype(np.float32)
    return a @ b.T, a.sum(1), b.sum(1)


def ious(masks: NDArray[np.bool_], others: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Intersection over union, (N, M); 0 where both are empty."""
    inside, areas, other_areas = overlaps(masks, others)
    unions = areas[:, None] + other_areas[None] - inside
    return inside / np.maximum(unions, 1.0)


def suppress_duplicates(
    detections: Detections, order: NDArray[np.intp], established: NDArray[np.bool_]
) -> list[int]:
    """Leave one detection per object.

    Args:
        detections: N of them.
        order: detections that count, best first; of two that show one object the first stays.
        established: (N,), detections that continue a confirmed track. A part inside a larger
            mask goes, whichever comes first, unless both are established.

    Returns:
        The detections that stay, in the same order.
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
    """Pairs (row, column) of least total cost, as many as there can be; inf: never."""
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
    """Probabilities over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def changed_class(class_logits: NDArray[np.floating], class_id: int) -> int | None:
    """The other class that the logits (K + 1,) decide for, or None if they do not."""
    probs = softmax(class_logits)
    other = int(probs[:-1].argmax())
    if other == class_id or probs[class_id] > CLASS_GONE or probs[other] < CLASS_NEW:
        return None
    return other
