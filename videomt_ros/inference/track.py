"""One track: an object in a query slot, the class it has shown so far, and how it moves.

Letters: N detections, K classes, h w mask grid. Lengths are in cells of the grid, points are
(row, column), times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from videomt_ros.inference.association import Detections, softmax
from videomt_ros.inference.identities import Identity

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


@dataclass(eq=False)
class Track:
    """One object in one query slot, with the mean of its class logits so far."""

    identity: Identity
    query: int | None
    """Slot that showed it last; None once another track has the slot."""
    motion: Motion
    logit_sum: NDArray[np.float64]
    num_logits: int
    last_seen_ns: int
    seen: bool = True
    new_class: int | None = None
    """Class of the newest frames if it is for certain not the track's own, their number, and
    the sum of their logits."""
    new_class_frames: int = 0
    new_class_sum: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def probs(self) -> NDArray[np.float64]:
        """Softmax of the mean logits, (K + 1,)."""
        return softmax(self.logit_sum / self.num_logits)

    @property
    def class_id(self) -> int:
        """Likeliest class of the mean logits, 0..K-1."""
        return int(self.logit_sum[:-1].argmax())


def changed_class(class_logits: NDArray[np.floating], class_id: int) -> int | None:
    """The other class that the logits (K + 1,) decide for, or None if they do not."""
    probs = softmax(class_logits)
    other = int(probs[:-1].argmax())
    if other == class_id or probs[class_id] > CLASS_GONE or probs[other] < CLASS_NEW:
        return None
    return other
