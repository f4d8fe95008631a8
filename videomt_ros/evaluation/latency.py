"""Simulates which frames a busy segmenter takes, and which result each frame is scored against.

Li, Wang, Ramanan, Towards Streaming Perception (ECCV 2020): the world does not wait, so each
annotated frame is compared with the newest result that is ready when the frame arrives, however
old the image of that result is. The segmenter behaves like the node: it processes one image, one
more may wait, and a newer image replaces the waiting one (`ros.worker`).

Time is simulated: nothing sleeps, and given processing times always lead to the same schedule.
Events at the same time happen in this order: an image arrives, a result becomes ready, the newest
image is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')


@dataclass(frozen=True)
class Job(Generic[Item, Result]):
    """An item that was taken, and its result."""

    item: Item
    start_ns: int
    ready_ns: int
    result: Result


class NewestWins(Generic[Item, Result]):
    """A simulated segmenter with a one-slot mailbox."""

    def __init__(self, process: Callable[[Item], tuple[Result, int]]) -> None:
        """Start idle.

        Args:
            process: returns the result of an item and its processing time in nanoseconds. It is
                called only for items that are taken, in their order.
        """
        self._process = process
        self._waiting: Item | None = None
        self._has_waiting = False
        self._current: Job[Item, Result] | None = None
        self._ready: Job[Item, Result] | None = None
        self._now_ns: int | None = None
        self.num_arrived = 0
        self.num_taken = 0
        self.num_dropped = 0
        """Number of items that were replaced by a newer one."""

    def arrive(self, item: Item, time_ns: int) -> Job[Item, Result] | None:
        """Let the next item arrive.

        Args:
            item: the item, such as an image.
            time_ns: time of arrival; a time before the latest counts as the latest.

        Returns:
            The newest job that is ready at this time; None before the first.
        """
        now_ns = time_ns if self._now_ns is None else max(time_ns, self._now_ns)
        self._now_ns = now_ns
        self.num_arrived += 1
        self._finish_before(now_ns)
        self.num_dropped += self._has_waiting
        self._waiting, self._has_waiting = item, True
        if self._current is not None and self._current.ready_ns == now_ns:
            self._ready, self._current = self._current, None
        if self._current is None:
            self._take(now_ns)
            # A result that takes no time is ready at once.
            if self._current is not None and self._current.ready_ns == now_ns:
                self._ready, self._current = self._current, None
        return self._ready

    def _finish_before(self, time_ns: int) -> None:
        while self._current is not None and self._current.ready_ns < time_ns:
            self._ready, self._current = self._current, None
            self._take(self._ready.ready_ns)

    def _take(self, start_ns: int) -> None:
        """Start processing the waiting item, if there is one."""
        if not self._has_waiting:
            return
        item, self._waiting, self._has_waiting = self._waiting, None, False
        self.num_taken += 1
        result, duration_ns = self._process(item)  # type: ignore[arg-type]
        if duration_ns < 0:
            raise ValueError(f'Expected a processing time of 0 or more, got {duration_ns} ns.')
        self._current = Job(item, start_ns, start_ns + duration_ns, result)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Schedule:
    """Frames of a video that are processed, and the result that is seen when each arrives."""

    taken: tuple[int, ...]
    """Numbers of the frames that are processed, in order."""
    seen_by: tuple[int | None, ...]
    """Number of the frame whose result is the newest when each frame arrives; None before the
    first result."""
    num_dropped: int
    """Number of frames that were replaced by a newer one."""


def arrivals(stamps_ns: Iterable[int], factor: float = 1.0) -> Iterator[int]:
    """Yield the arrival times in ns of a video played `factor` times as fast as recorded.

    The first frame arrives at 0; a stamp before the latest counts as the latest.

    Raises:
        ValueError: the factor is not above 0.

    >>> list(arrivals([5_000, 5_100, 5_090, 5_300], factor=2))
    [0, 50, 50, 150]
    """
    if not 0 < factor < float('inf'):
        raise ValueError(f'Expected a real-time factor above 0, got {factor}.')
    first_ns = latest_ns = None
    for stamp_ns in stamps_ns:
        first_ns = stamp_ns if first_ns is None else first_ns
        latest_ns = stamp_ns if latest_ns is None else max(latest_ns, stamp_ns)
        yield round((latest_ns - first_ns) / factor)


def schedule(arrivals_ns: Sequence[int], durations_ns: int | Sequence[int]) -> Schedule:
    """Simulate a video.

    Args:
        arrivals_ns: time of arrival of each frame.
        durations_ns: processing time of all frames, or one for each; those of frames that are not
            taken are ignored.

    >>> schedule([0, 10, 20, 30], 15)  # the second waits until 15, when it is taken
    Schedule(taken=(0, 1, 3), seen_by=(None, None, 0, 1), num_dropped=1)
    """
    taken: list[int] = []

    def process(frame: int) -> tuple[None, int]:
        taken.append(frame)
        return None, durations_ns if isinstance(durations_ns, int) else durations_ns[frame]

    worker = NewestWins(process)
    seen_by: list[int | None] = []
    for frame, time_ns in enumerate(arrivals_ns):
        job = worker.arrive(frame, time_ns)
        seen_by.append(None if job is None else job.item)
    return Schedule(tuple(taken), tuple(seen_by), worker.num_dropped)
