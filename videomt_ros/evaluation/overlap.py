"""Reading and writing beside the network: frames a little ahead of it, results a little behind it.

Images are decoded and results are encoded by code that leaves Python to other threads, so both
cost the network little time. One thread reads and one writes, hence frames and results keep their
order, and readers that must stay in one thread (bags, video files) do.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from videomt_ros.datasets.dataset import Video, VideoFrame

READ_AHEAD = 4
"""Number of frames that are read before the network needs them."""
WRITE_BEHIND = 8
"""Number of results, each of a frame or of one object in it, that wait to be written."""


class ReadFrame(NamedTuple):
    """A frame, and the time it took."""

    frame: VideoFrame
    read_ms: float
    """Time that the reading thread took to read and decode it."""
    wait_ms: float
    """Time that the caller waited for it."""


class _Step(NamedTuple):
    """A frame of a video; its end or its error if there is no frame."""

    number: int
    frame: VideoFrame | None
    read_ms: float
    error: Exception | None


class FrameReader:
    """Reads videos one after the other in a thread, a few frames ahead of the caller.

    While the last frames of a video are at work, the first of the next are read. Use it in a
    `with` statement, whose end stops the thread after the image that it is reading.
    """

    def __init__(self, videos: Sequence[Video], depth: int = READ_AHEAD) -> None:
        """Start the thread; reading begins with the first call of `frames`."""
        self._videos, self._depth = videos, depth
        self._thread = ThreadPoolExecutor(1, 'read frames')
        self._pending: deque[Future[_Step | None]] = deque()
        self._wanted = 0
        # Used in the thread alone, from its first step to its end.
        self._steps = self._read()

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *_: object) -> None:
        for step in self._pending:
            step.cancel()
        self._thread.submit(self._steps.close)
        self._thread.shutdown()

    def frames(self, number: int) -> Iterator[ReadFrame]:
        """Yield the frames of a video.

        Args:
            number: its place among the videos, which must rise from call to call. What is left of
                the videos before it is skipped.

        Raises:
            Exception: what the video has raised, after the frames before it.
        """
        self._wanted = number
        while True:
            begin_s = time.perf_counter()
            while len(self._pending) <= self._depth:
                self._pending.append(self._thread.submit(next, self._steps, None))
            step = self._pending.popleft().result()
            if step is None:
                return
            if step.number < number:
                continue
            if step.error is not None:
                raise step.error
            if step.frame is None:
                return
            wait_ms = (time.perf_counter() - begin_s) * 1e3
            yield ReadFrame(step.frame, step.read_ms, wait_ms)

    def _read(self) -> Generator[_Step, None, None]:
        for number, video in enumerate(self._videos):
            error = None
            try:
                if number >= self._wanted:
                    yield from self._read_video(number, video)
            except Exception as caught:
                error = caught
            yield _Step(number, None, 0.0, error)

    def _read_video(self, number: int, video: Video) -> Iterator[_Step]:
        frames = video.frames()
        while self._wanted <= number:
            begin_s = time.perf_counter()
            frame = next(frames, None)
            if frame is None:
                return
            yield _Step(number, frame, (time.perf_counter() - begin_s) * 1e3, None)


class WrittenBehind:
    """The results of a video, which a thread writes while the caller goes on.

    See `families.family.VideoResults`. What goes wrong in the thread is raised by one of the next
    calls, `finish` at the latest. Use it in a `with` statement, whose end drops what waits.
    """

    def __init__(self, results: Any, depth: int = WRITE_BEHIND) -> None:
        """Wrap the results of one family; the caller must not change what it has added."""
        self._results, self._depth = results, depth
        self._thread = ThreadPoolExecutor(1, 'write results')
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> WrittenBehind:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def add(self, *result: Any) -> None:
        """Add a result in its turn; waits while too many do."""
        self._check(self._depth - 1)
        self._pending.append(self._thread.submit(self._results.add, *result))

    def wait(self) -> None:
        """Wait until all that was added is written."""
        self._check(0)

    def finish(self, *summary: Any) -> dict[str, Any]:
        """Complete the results, once all are written."""
        self.wait()
        return self._results.finish(*summary)

    def abort(self) -> None:
        """Close what is open, without writing what waits; the video has no result."""
        self._thread.shutdown(cancel_futures=True)
        self._results.abort()

    def _check(self, limit: int) -> None:
        """Wait until no more results than this are to be written; raises the first error."""
        while self._pending and (len(self._pending) > limit or self._pending[0].done()):
            self._pending.popleft().result()
