"""Trails: where each track was in the last seconds, for overlays and markers."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


class Trails:
    """The latest positions of the tracks of one stream, in coordinates of any kind.

    It forgets positions older than `duration_s`, tracks that have none left, and everything at a
    reset, so its size is bounded.
    """

    def __init__(self, duration_s: float = 2.0, max_points: int = 64) -> None:
        """Start without tracks.

        Args:
            duration_s: age in seconds, by the stamps, up to which a position is kept.
            max_points: number of newest positions of a track that are kept at most.
        """
        self._duration_s = duration_s
        self._max_points = max_points
        self._points: dict[int, deque[tuple[int, tuple[float, ...]]]] = {}
        self._stamp_ns: int | None = None
        self._resets = 0

    def update(
        self, stamp_ns: int, positions: Mapping[int, Sequence[float]], resets: int = 0
    ) -> None:
        """Add the positions of one frame.

        Args:
            stamp_ns: stamp of the frame, in nanoseconds. One before the latest counts as equal to
                it.
            positions: position of each track that is seen, by track id; all of one length.
            resets: number of resets of the stream so far. If it is not that of the frame before,
                the ids may be those of other objects: all earlier positions are forgotten.
        """
        if resets != self._resets:
            self.clear()
            self._resets = resets
        if self._stamp_ns is not None:
            stamp_ns = max(stamp_ns, self._stamp_ns)
        self._stamp_ns = stamp_ns
        for track_id, position in positions.items():
            points = self._points.setdefault(track_id, deque(maxlen=self._max_points))
            points.append((stamp_ns, tuple(position)))
        oldest_ns = stamp_ns - round(self._duration_s * 1e9)
        for track_id, points in list(self._points.items()):
            while points and points[0][0] < oldest_ns:
                points.popleft()
            if not points:
                del self._points[track_id]

    def clear(self) -> None:
        """Forget all positions, as after a reset."""
        self._points.clear()
        self._stamp_ns = None

    def of(self, track_id: int) -> NDArray[np.float64]:
        """Get the positions of a track, oldest first, (N, D); (0, 0) of an unknown track."""
        points = self._points.get(track_id)
        if not points:
            return np.zeros((0, 0))
        return np.array([position for _, position in points])
