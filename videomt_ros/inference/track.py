"""One track: its query slot, its class so far, and its motion.

Letters: N detections, K classes, h w mask grid. Lengths are in cells of the grid, points are
(row, column), times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from videomt_ros.inference.association import Detections
from videomt_ros.inference.grid_masks import GridMask
from videomt_ros.inference.identities import Identity
from videomt_ros.inference.stream_settings import StreamSettings
from videomt_ros.inference.tracker_constants import TrackerConstants

MIN_INTERVAL_S = 1e-3
"""Least time between two frames that gives a velocity: stamps are no more exact than that."""


@dataclass
class Motion:
    """Last known place and velocity of an object."""

    constants: TrackerConstants
    mask: GridMask
    """Mask when the object was last seen."""
    centre: NDArray[np.float64]
    """Centre of that mask, (2,)."""
    size: float
    """Square root of the area of that mask."""
    stamp_ns: int
    """Stamp of the frame in which the object was last seen."""
    velocity: NDArray[np.float64] | None = None
    """Velocity in cells per second, (2,); None until it was seen at two different times."""

    def displacement(self, stamp_ns: int) -> NDArray[np.float64]:
        """Compute the expected movement since the object was last seen, (2,)."""
        if self.velocity is None:
            return np.zeros(2)
        return self.velocity * ((stamp_ns - self.stamp_ns) * 1e-9)

    def expected_mask(self, stamp_ns: int) -> GridMask:
        """Shift the last mask by the expected movement."""
        rows, columns = (int(round(cells)) for cells in self.displacement(stamp_ns))
        return self.mask.shifted(rows, columns)

    def reaches(
        self, detections: Detections, stamp_ns: int, jump_sizes: float
    ) -> NDArray[np.float64]:
        """Measure how far each detection is from where the object can be.

        The object can be anywhere between its last place and the expected one (it may have
        stopped), give or take an allowance.

        Args:
            detections: the N detections of the frame.
            stamp_ns: time of the detections.
            jump_sizes: the allowance, in sizes of the object.

        Returns:
            Distances over that allowance, (N,). Up to 1 is plausible; inf: the detection is too
            large.
        """
        step = self.displacement(stamp_ns)
        offsets = detections.centres - self.centre
        length = float(step @ step)
        along = np.clip(offsets @ step / length, 0.0, 1.0) if length else np.zeros(len(offsets))
        distances = np.linalg.norm(offsets - along[:, None] * step, axis=1)
        too_large = detections.sizes > self.constants.size_ratio * self.size
        # Where no distance is allowed, only the place itself is within reach.
        allowance = max(jump_sizes * self.size, 1e-9)
        return np.where(too_large, np.inf, distances / allowance)

    def move(self, detections: Detections, n: int, stamp_ns: int) -> None:
        """Move to detection n."""
        elapsed_s = (stamp_ns - self.stamp_ns) * 1e-9
        if elapsed_s >= MIN_INTERVAL_S:
            self.velocity = (detections.centres[n] - self.centre) / elapsed_s
        self.mask = detections.masks[n]
        self.centre = detections.centres[n]
        self.size = float(detections.sizes[n])
        self.stamp_ns = stamp_ns


@dataclass(eq=False)
class Track:
    """One object in one query slot, with the mean of its class logits so far."""

    identity: Identity
    """Id and life of the track, unless all tracks of its class share one."""
    query: int | None
    """Slot that showed the object last; None once another track has the slot."""
    motion: Motion
    logit_sum: NDArray[np.float64]
    """Sum of the class logits of all detections so far, (K + 1,)."""
    num_logits: int
    """Number of detections in that sum."""
    last_seen_ns: int
    """Stamp of the newest frame in which the track was seen."""
    seen: bool = True
    """Whether the track was seen in the newest frame."""
    new_class: int | None = None
    """Class of the newest detections if it is certain and not the track's own, else None."""
    new_class_frames: int = 0
    """Number of consecutive detections of that class."""
    new_class_sum: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """Sum of the class logits of these detections, (K + 1,)."""

    @classmethod
    def begin(
        cls,
        detections: Detections,
        n: int,
        frame: int,
        stamp_ns: int,
        constants: TrackerConstants,
    ) -> Track:
        """Begin a track with its first detection."""
        size = float(detections.sizes[n])
        return cls(
            Identity(frame, last_seen_ns=stamp_ns),
            int(detections.queries[n]),
            Motion(constants, detections.masks[n], detections.centres[n], size, stamp_ns),
            detections.class_logits[n].copy(),
            1,
            stamp_ns,
        )

    @property
    def mean_logits(self) -> NDArray[np.float64]:
        """Mean of the class logits so far, (K + 1,)."""
        return self.logit_sum / self.num_logits

    @property
    def constants(self) -> TrackerConstants:
        """Constants of the tracker."""
        return self.motion.constants

    @property
    def class_id(self) -> int:
        """Likeliest class of the mean logits, 0..K-1."""
        return int(self.logit_sum[:-1].argmax())

    def changed_class(self, detections: Detections, n: int) -> int | None:
        """Get the class of detection n if it is certain and not the track's own."""
        own, other = self.class_id, int(detections.classes[n])
        if other == own:
            return None
        is_certain = detections.class_probs[n, other] >= self.constants.class_certain
        return other if is_certain else None

    def may_continue_as(
        self,
        detections: Detections,
        n: int,
        ious: NDArray[np.float32],
        stamp_ns: int,
        settings: StreamSettings,
    ) -> bool:
        """Whether a detection in the track's slot can show the track's object.

        Args:
            detections: the N detections of the frame.
            n: index of the one in the slot.
            ious: IoU of each detection with the mask expected of the track, (N,).
            stamp_ns: time of the detections.
            settings: settings of the stream.
        """
        in_place = bool(ious[n] >= settings.same_object_iou)
        if self.changed_class(detections, n) is not None:
            # After a gap, or with another mask, another class is another object.
            return in_place and self.seen
        return in_place or bool(
            self.motion.reaches(detections, stamp_ns, settings.jump_sizes)[n] <= 1.0
        )

    def costs(
        self,
        detections: Detections,
        ious: NDArray[np.float32],
        stamp_ns: int,
        settings: StreamSettings,
    ) -> NDArray[np.float64]:
        """Compute the costs of assigning each detection to this track.

        The cost is 1 - IoU for a detection that overlaps the expected mask, unless its class is
        certain to have changed; else 1 + reach for a detection of the same class.

        Args:
            detections: the N detections of the frame.
            ious: IoU of each detection with the mask expected of the track, (N,).
            stamp_ns: time of the detections.
            settings: settings of the stream.

        Returns:
            (N,), 0..2; inf for a detection that cannot show the track's object.
        """
        same_class = detections.classes == self.class_id
        reaches = self.motion.reaches(detections, stamp_ns, settings.jump_sizes)
        costs = np.where(same_class & (reaches <= 1.0), 1.0 + reaches, np.inf)
        for n in np.flatnonzero(ious >= settings.same_object_iou).tolist():
            if self.changed_class(detections, n) is None:
                costs[n] = 1.0 - ious[n]
        return costs

    def observe(self, detections: Detections, n: int, stamp_ns: int, shows_place: bool) -> None:
        """Add a detection to the track.

        Args:
            detections: the N detections of the frame.
            n: index of the one that shows the track's object.
            stamp_ns: time of the detections.
            shows_place: whether so much of the object shows that it is where the detection is.
        """
        logits = detections.class_logits[n]
        changed = self.changed_class(detections, n)
        if changed is None:
            self.new_class, self.new_class_frames = None, 0
        elif changed != self.new_class:
            self.new_class, self.new_class_frames = changed, 1
            self.new_class_sum = logits.copy()
        else:
            self.new_class_frames += 1
            self.new_class_sum = self.new_class_sum + logits
        if shows_place:
            self.motion.move(detections, n, stamp_ns)
        self.logit_sum = self.logit_sum + logits
        self.num_logits += 1

    def successor(self, frame: int) -> Track:
        """Build the track of the object of `new_class` that has taken the slot over.

        Args:
            frame: number of the newest frame.
        """
        frames = self.new_class_frames
        return Track(
            Identity(frame - frames + 1, frames_seen=frames - 1, last_seen_ns=self.last_seen_ns),
            self.query,
            self.motion,
            self.new_class_sum,
            frames,
            self.last_seen_ns,
        )
