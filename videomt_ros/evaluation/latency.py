"""Which frames a busy segmenter takes, and which result each frame is scored against.

Li, Wang, Ramanan, Towards Streaming Perception (ECCV 2020): the world does not wait, so each
annotated frame is compared with the newest result that was ready at its moment, however old the
image behind that result is. The segmenter is the node's: one image in work, one that waits, and a
newer one replaces the one that waits (`ros.worker`).

Time is simulated: nothing sleeps, and with given processing times every run is the same. At one
moment the order is: images arrive, results become ready, and the newest image is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')


@dataclass(frozen=True)
class Job(Generic[Item, Result]):
    """An image that was taken, and what came of it."""

    item: Item
    start_ns: int
    ready_ns: int
    result: Result


class NewestWins(Generic[Item, Result]):
    """A segmenter with a one-slot mailbox, on a clock of its own."""

    def __init__(self, process: Callable[[Item], tuple[Result, int]]) -> None:
        """Start idle.

        Args:
            process: gives an item's result, and how long it took in nanoseconds. Called for the
                items that are taken alone, in their order.
        """
        self._process = process
        self._waiting: Item | None = None
        self._has_waiting = False
        self._in_work: Job[Item, Result] | None = None
        self._ready: Job[Item, Result] | None = None
        self._now_ns: int | None = None
        self.num_arrived = 0
        self.num_taken = 0
        self.num_dropped = 0
        """Items that were replaced by a newer one."""

    def arrive(self, item: Item, time_ns: int) -> Job[Item, Result] | None:
        """Hand in the next item.

        Args:
            item: an image.
            time_ns: when it comes; a time before the latest counts as the latest.

        Returns:
            The newest job that is ready at this moment; None before the first.
        """
        now_ns = time_ns if self._now_ns is None else max(time_ns, self._now_ns)
        self._now_ns = now_ns
        self.num_arrived += 1
        self._finish_before(now_ns)
        self.num_dropped += self._has_waiting
        self._waiting, self._has_waiting = item, True
        if self._in_work is not None and self._in_work.ready_ns == now_ns:
            self._ready, self._in_work = self._in_work, None
        if self._in_work is None:
            self._take(now_ns)
            # What takes no time is ready at once.
            if self._in_work is not None and self._in_work.ready_ns == now_ns:
                self._ready, self._in_work = self._in_work, None
        return self._ready

    def _finish_before(self, time_ns: int) -> None:
        while self._in_work is not None and self._in_work.ready_ns < time_ns:
            self._ready, self._in_work = self._in_work, None
            self._take(self._ready.ready_ns)

    def _take(self, start_ns: int) -> None:
        """Begin with the item that waits, if any."""
        if not self._has_waiting:
            return
        item, self._waiting, self._has_waiting = self._waiting, None, False
        self.num_taken += 1
        result, duration_ns = self._process(item)  # type: ignore[arg-type]
        if duration_ns < 0:
            raise ValueError(f'Expected a processing time of 0 or more, got {duration_ns} ns.')
        self._in_work = Job(item, start_ns, start_ns + duration_ns, result)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Schedule:
    """What becomes of the frames of one video at a given processing time."""

    taken: tuple[int, ...]
    """Frames that are processed, in order."""
    seen_by: tuple[int | None, ...]
    """For each frame the one whose result is the newest at its moment; None before the first."""
    num_dropped: int
    """Frames that were replaced by a newer one."""


def arrivals(stamps_ns: Iterable[int], factor: float = 1.0) -> Iterator[int]:
    """When each frame comes if the video is played `factor` times as fast as it was recorded.

    The first comes at 0; a stamp before the latest counts as the latest.

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
    """Play a video on paper.

    Args:
        arrivals_ns: when each frame comes.
        durations_ns: processing time of every frame, or of each; a frame that is not taken has
            no use for its own.

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
