"""Values that cross folders. numpy only; checked when they are built.

Letters: H W image size in pixels, N segments, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_TRACK_ID = 65535
"""Largest track id: the pixel of a `mono16` image holds it."""


class TrackState(IntEnum):
    """Life of a track. The numbers are those of `videomt_ros/msg/Track`."""

    TENTATIVE = 1
    """Seen, but in fewer frames than a track needs to be confirmed."""
    CONFIRMED = 2
    """Seen in this frame, and in enough frames before it."""
    LOST = 3
    """Confirmed earlier, not in this frame, and within the gap after which it ends."""


@dataclass(frozen=True)
class Segment:
    """What is known of one track in one frame."""

    track_id: int
    """1..65535; the value of its pixels in `Segments.ids`."""
    class_id: int
    """0..K-1, in the order of the model's class head."""
    class_name: str
    is_thing: bool
    """True for countable objects, False for stuff such as sky or road."""
    score: float
    """Probability of the class, 0..1, averaged over the track's past."""
    state: TrackState
    age: int
    """Frames since the track began, this one included; 1 in its first frame."""
    last_seen_ns: int
    """Stamp of the newest frame in which the track had pixels."""
    box: tuple[int, int, int, int]
    """(x0, y0, x1, y1) in image pixels, x1 and y1 exclusive; of the last sight if LOST."""
    area: int
    """Pixels in this frame; 0 if LOST."""

    def __post_init__(self) -> None:
        if not 1 <= self.track_id <= MAX_TRACK_ID:
            raise ValueError(f'Expected a track id from 1 to {MAX_TRACK_ID}, got {self.track_id}.')


@dataclass(frozen=True)
class Segments:
    """The result of one frame: an image of track ids and one entry per segment."""

    stamp_ns: int
    ids: NDArray[np.uint16]
    """(H, W); the pixel is a track id, 0 is nothing."""
    segments: tuple[Segment, ...]
    """By falling score. Each id in `ids` has exactly one entry; a LOST entry has no pixels."""
    num_classes: int

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.ids.dtype != np.uint16:
            raise ValueError(
                'Expected ids of shape (H, W) and type uint16, '
                f'got {self.ids.shape} {self.ids.dtype}.'
            )

    def mask(self, track_id: int) -> NDArray[np.bool_]:
        """Pixels of one track, (H, W) bool."""
        return self.ids == track_id

    def semantic(self) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Class id per pixel, (H, W).

        Returns:
            uint8 with 255 for unlabelled pixels; with more than 254 classes uint16 with 65535.
        """
        dtype = np.uint8 if self.num_classes <= 254 else np.uint16
        table: NDArray[Any] = np.full(MAX_TRACK_ID + 1, np.iinfo(dtype).max, dtype)
        for segment in self.segments:
            table[segment.track_id] = segment.class_id
        return table[self.ids]
