"""A clock for streams whose images may lack stamps."""

from __future__ import annotations


class StreamClock:
    """Gives every image of a video a time on the clock of those that are stamped.

    A driver that sets no stamp must not freeze the time by which tracks are given up, and a stamp
    that is missing now and then must not throw the stream onto another clock and back: it would
    start anew at each.
    """

    def __init__(self) -> None:
        self._stamp_ns: int | None = None
        """Last stamp that a driver set."""
        self._monotonic_s = 0.0
        """Time at which the image with that stamp came."""
        self._given_ns = 0

    def time_of(self, stamp_ns: int, clock_ns: int, monotonic_s: float) -> int:
        """Return the time of the next image in nanoseconds.

        Args:
            stamp_ns: stamp of its header; 0 where the driver set none.
            clock_ns: arrival by the node's clock, which is used until there is a stamp.
            monotonic_s: arrival by the monotonic clock.

        Returns:
            The stamp. Where there is none, the last one plus the time since. Earlier than the time
            before only if stamps went back.
        """
        if not stamp_ns and self._stamp_ns is None:
            return clock_ns
        if not stamp_ns:
            assert self._stamp_ns is not None
            stamp_ns = self._stamp_ns + round((monotonic_s - self._monotonic_s) * 1e9)
            self._given_ns = max(self._given_ns, stamp_ns)
            return self._given_ns
        # What was guessed for an image that came late may lie after the next image's stamp.
        goes_on = self._stamp_ns is not None and stamp_ns >= self._stamp_ns
        self._given_ns = max(self._given_ns, stamp_ns) if goes_on else stamp_ns
        self._stamp_ns, self._monotonic_s = stamp_ns, monotonic_s
        return self._given_ns
