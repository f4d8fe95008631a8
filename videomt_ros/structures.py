"""Segments and tracks: the values that all folders exchange, checked when they are built.

Letters: H W image size in pixels, N segments, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_TRACK_ID = 65535
"""Largest track id that a pixel of a `mono16` image can hold."""

_MAX_BOXED = 2.0
"""Pixels of all boxes together, as a multiple of those of the image, up to which it is faster to
paint boxes."""


def unlabelled_id(num_classes: int) -> int:
    """Get the class id of pixels without a segment: 255, or 65535 for more than 254 classes."""
    return 255 if num_classes <= 254 else 65535


class TrackState(IntEnum):
    """State of a track in one frame. The numbers are those of `videomt_ros/msg/Track`."""

    TENTATIVE = 1
    """The track is seen, but not yet in enough frames to be confirmed."""
    CONFIRMED = 2
    """The track is seen, and was seen in enough frames to be confirmed."""
    LOST = 3
    """The track was confirmed earlier, is not seen in this frame, and has not ended yet."""


@dataclass(frozen=True)
class Segment:
    """One track in one frame."""

    track_id: int
    """Id of the track, 1..65535, which is the value of its pixels in `Segments.ids`."""
    class_id: int
    """Index of the class, 0..K-1, in the order of the model's class head."""
    class_name: str
    """Name of the class."""
    is_thing: bool
    """True for countable objects, False for stuff such as sky or road."""
    score: float
    """Probability of the class, 0..1, averaged over the track's past."""
    state: TrackState
    """State of the track in this frame."""
    age: int
    """Number of frames since the track began, this one included; 1 in its first frame."""
    last_seen_ns: int
    """Stamp of the newest frame in which the track had pixels, in nanoseconds."""
    box: tuple[int, int, int, int]
    """(x0, y0, x1, y1) in image pixels, x1 and y1 exclusive; the last one seen if LOST."""
    area: int
    """Number of pixels in this frame; 0 if LOST."""

    def __post_init__(self) -> None:
        if not 1 <= self.track_id <= MAX_TRACK_ID:
            raise ValueError(f'Expected a track id from 1 to {MAX_TRACK_ID}, got {self.track_id}.')


@dataclass(frozen=True)
class Segments:
    """The result of one frame: an image of track ids and one entry per segment."""

    stamp_ns: int
    """Stamp of the frame, in nanoseconds."""
    ids: NDArray[np.uint16]
    """Track id of each pixel, (H, W); 0 is nothing."""
    segments: tuple[Segment, ...]
    """Segments by falling score. Each id in `ids` has exactly one; a LOST one has no pixels."""
    num_classes: int
    """Number of classes of the model, K."""
    resets: int = 0
    """Number of times that the stream had begun a new video, for any reason. An id of an earlier
    number names another object, except in semantic results."""

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.ids.dtype != np.uint16:
            raise ValueError(
                'Expected ids of shape (H, W) and type uint16, '
                f'got {self.ids.shape} {self.ids.dtype}.'
            )

    def mask(self, track_id: int) -> NDArray[np.bool_]:
        """Get the pixels of one track, (H, W)."""
        return self.ids == track_id

    def semantic(self) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Build the image of class ids.

        Returns:
            (H, W), uint8 with 255 for pixels without a segment; uint16 with 65535 for these if
            there are more than 254 classes.
        """
        empty = unlabelled_id(self.num_classes)
        dtype = np.uint8 if empty == 255 else np.uint16
        return self.paint(lambda segment: segment.class_id, empty, dtype)

    def paint(
        self, value_of: Callable[[Segment], int], empty: int, dtype: type[np.unsignedinteger[Any]]
    ) -> NDArray[Any]:
        """Build an image in which all pixels of a segment have one value.

        The pixels are looked for in the boxes of the segments, or in the whole image if the boxes
        do not hold them or are larger together.

        Args:
            value_of: the value of a segment.
            empty: value of pixels without a segment.
            dtype: type of the values, unsigned.

        Returns:
            (H, W).
        """
        seen = [segment for segment in self.segments if segment.area]
        boxes = [(slice(y0, y1), slice(x0, x1)) for x0, y0, x1, y1 in (s.box for s in seen)]
        if sum(self.ids[box].size for box in boxes) <= _MAX_BOXED * self.ids.size:
            image = np.full(self.ids.shape, empty, dtype)
            painted = 0
            for segment, box in zip(seen, boxes, strict=True):
                mask = self.ids[box] == segment.track_id
                # Written where the mask is; a masked write takes several times as long.
                image[box] ^= mask * dtype(empty ^ value_of(segment))
                painted += int(np.count_nonzero(mask))
            if painted == np.count_nonzero(self.ids):  # no box has missed a pixel
                return image
        table = np.full(MAX_TRACK_ID + 1, empty, dtype)
        for segment in self.segments:
            table[segment.track_id] = value_of(segment)
        return np.take(table, self.ids)
