"""Limit how many images of a camera are processed in a second."""

from __future__ import annotations

from videomt_ros.inference.continuity import STEP_BACK_S

_TOLERANCE = 0.1
"""Share of the period by which an image may come early, since the stamps of cameras jitter."""


class RateLimit:
    """Lets images through at a rate at most, evenly spaced by their stamps."""

    def __init__(self) -> None:
        self._due_ns: float | None = None
        self._stamp_ns = 0

    def allows(self, stamp_ns: int, max_rate_hz: float) -> bool:
        """Decide whether an image is let through.

        Args:
            stamp_ns: its stamp in nanoseconds.
            max_rate_hz: largest number of images per second; 0: all.
        """
        if not max_rate_hz:
            self._due_ns = None
            return True
        period_ns = 1e9 / max_rate_hz
        went_back = stamp_ns < self._stamp_ns - STEP_BACK_S * 1e9
        self._stamp_ns = stamp_ns
        due_ns = self._due_ns
        if due_ns is None or went_back or stamp_ns > due_ns + period_ns:
            self._due_ns = stamp_ns + period_ns
            return True
        if stamp_ns < due_ns - _TOLERANCE * period_ns:
            return False
        # From when it was due rather than from its stamp: the rate stays exact in the mean.
        self._due_ns = due_ns + period_ns
        return True
