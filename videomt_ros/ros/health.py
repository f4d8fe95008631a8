"""Counts and durations of the node: what became of the images, and how long they took.

All methods are safe to call from any thread. `diagnostics.py` reports them.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from videomt_ros.inference.continuity import ResetReason

WINDOW = 200
"""Number of newest images over which percentiles are computed."""
RATE_WINDOW_S = 10.0
"""Time in seconds over which rates are computed."""
DROP_REASONS = ('replaced', 'rate', 'stale', 'outlier', 'other_publisher', 'stopped')
"""Why an image is skipped: a newer one came first, `max_rate_hz`, `stale_after_s`, a stamp or a
size that belongs to no video, a publisher that is not heard, a reset or the end of the work."""
DEPTH_OUTCOMES = ('found', 'no_depth', 'stamps', 'no_camera_info', 'unusable')
"""What became of the search for the depth of an image: there is one; no depth image came at all,
or none near its stamp; no camera_info came; or one of the two cannot be used."""
STAGES = ('decode', 'prepare', 'network', 'result', 'publish', 'stamp_to_result')
"""Stages of an image whose durations are measured."""


class Rate:
    """Number of events per second, over the newest `RATE_WINDOW_S`."""

    def __init__(self) -> None:
        self._times_s: deque[float] = deque(maxlen=2000)

    def count(self) -> None:
        """Count an event that happens now."""
        self._times_s.append(time.monotonic())

    def hz(self) -> float:
        """Compute the present rate; 0 without two events in the window."""
        now_s = time.monotonic()
        recent = [t for t in self._times_s if now_s - t <= RATE_WINDOW_S]
        if len(recent) < 2 or recent[-1] <= recent[0]:
            return 0.0
        # Once events stay away, the rate falls with the time since the newest one.
        return min((len(recent) - 1) / (recent[-1] - recent[0]), len(recent) / (now_s - recent[0]))


class ImageCounts(Protocol):
    """Counts what becomes of the images of a camera before a model has them."""

    def count_received(self) -> None:
        """Count an image that was received."""

    def count_dropped(self, reason: str) -> None:
        """Count an image that was skipped, for one of DROP_REASONS."""

    def count_depth(self, outcome: str) -> None:
        """Count a result for which a depth image was looked for, by one of DEPTH_OUTCOMES."""

    def count_lost(self, number: int) -> None:
        """Count images that the middleware reports as lost."""

    def count_missing(self, number: int) -> None:
        """Count images that are missing between two stamps."""


class CameraHealth:
    """What became of the images of one camera, at one model.

    Every image received is counted in exactly one of `processed`, `dropped`, `rejected` and
    `failed` once it is finished. At most two are not: one that waits and one that is processed; or
    three, if `pipeline_depth` is 2.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.received = 0
        """Number of images received."""
        self.processed = 0
        """Number of images whose results were published."""
        self.dropped: Counter[str] = Counter(dict.fromkeys(DROP_REASONS, 0))
        """Number of images skipped, by reason."""
        self.rejected: Mapping[str, int] = {}
        """Number of images that cannot be read, by the kind of fault."""
        self.depth: Counter[str] = Counter(dict.fromkeys(DEPTH_OUTCOMES, 0))
        """Number of results for which a depth image was looked for, by DEPTH_OUTCOMES."""
        self.failed = 0
        """Number of images on which inference raised an error."""
        self.failed_in_row = 0
        """Number of these since the newest result, or since the camera was started."""
        self.lost = 0
        """Number of images that the middleware reported as lost."""
        self.missing = 0
        """Number of images that gaps in the stamps suggest never arrived."""
        self.resets: Mapping[ResetReason, int] = {}
        """Number of times the video began anew, by reason."""
        self.tracks_alive = 0
        """Number of tracks in the newest result."""
        self.tracks_ever = 0
        """Number of ids given to tracks so far."""
        self.state_norm: float | None = None
        """Mean norm of the queries in the state that the newest result left; None before it."""
        self.state_norm_start: float | None = None
        """The same after the first image of the present video."""
        self.last_error = ''
        """Reason why the newest image was rejected or failed; empty if there was none."""
        self._last_error_s = 0.0
        self._withheld: Counter[str] = Counter()
        self._withheld_since_s = 0.0
        self._first_image_s: float | None = None
        self._last_image_s: float | None = None
        self._latencies_ms: deque[float] = deque(maxlen=WINDOW)
        self._input_rate, self._output_rate = Rate(), Rate()
        self._known_ids: set[int] = set()

    def start(self) -> None:
        """Note that the camera is started."""
        with self._lock:
            self.failed_in_row = 0
            self._withheld.clear()

    def count_received(self) -> None:
        """Count an image that was received."""
        with self._lock:
            self.received += 1
            self._last_image_s = time.monotonic()
            if self._first_image_s is None:
                self._first_image_s = self._last_image_s
            self._input_rate.count()

    def count_processed(self, latency_ms: float) -> None:
        """Count an image whose results were published this long after it was received."""
        with self._lock:
            self.processed += 1
            self.failed_in_row = 0
            self._withheld.clear()
            self._latencies_ms.append(latency_ms)
            self._output_rate.count()

    def count_dropped(self, reason: str) -> None:
        """Count an image that was skipped, for one of DROP_REASONS."""
        assert reason in DROP_REASONS, reason
        with self._lock:
            self.dropped[reason] += 1
            if reason in ('stale', 'rate'):
                if not self._withheld:
                    self._withheld_since_s = time.monotonic()
                self._withheld[reason] += 1

    def withheld(self) -> tuple[Mapping[str, int], float]:
        """Count the images dropped as stale or by the rate since the newest result.

        Returns:
            The numbers by reason, and the time in seconds since the first of these images.
        """
        with self._lock:
            since_s = time.monotonic() - self._withheld_since_s if self._withheld else 0.0
            return Counter(self._withheld), since_s

    def count_rejected(self, kind: str, reason: str) -> None:
        """Count an image that cannot be read: a word for the kind of fault, and a sentence."""
        with self._lock:
            # A new mapping, since another thread may iterate over this one.
            self.rejected = {**self.rejected, kind: self.rejected.get(kind, 0) + 1}
            self._keep_error(reason)

    def count_depth(self, outcome: str) -> None:
        """Count a result for which a depth image was looked for, by one of DEPTH_OUTCOMES."""
        assert outcome in DEPTH_OUTCOMES, outcome
        with self._lock:
            self.depth[outcome] += 1

    def count_failed(self, reason: str) -> None:
        """Count an image on which inference raised an error."""
        with self._lock:
            self.failed += 1
            self.failed_in_row += 1
            self._keep_error(reason)

    def count_lost(self, number: int) -> None:
        """Count images that the middleware reports as lost."""
        with self._lock:
            self.lost += number

    def count_missing(self, number: int) -> None:
        """Count images that are missing between two stamps."""
        with self._lock:
            self.missing += number

    def keep_tracks(self, ids: Collection[int], resets: Mapping[ResetReason, int]) -> None:
        """Record the tracks and the resets of the newest result.

        Args:
            ids: ids of its tracks.
            resets: number of resets of the stream by reason.
        """
        with self._lock:
            if resets.get('requested', 0) != self.resets.get('requested', 0):
                self._known_ids.clear()  # the ids begin again
            self.resets = {**resets}
            self.tracks_alive = len(ids)
            new = set(ids) - self._known_ids
            self.tracks_ever += len(new)
            self._known_ids |= new

    def keep_state_norm(self, norm: float, started_anew: bool) -> None:
        """Record the mean norm of the queries in the state after the newest result.

        Args:
            norm: the norm.
            started_anew: whether the network began with the image of this result.
        """
        with self._lock:
            self.state_norm = norm
            if started_anew or self.state_norm_start is None:
                self.state_norm_start = norm

    def _keep_error(self, reason: str) -> None:
        self.last_error, self._last_error_s = reason, time.monotonic()

    @property
    def faults(self) -> int:
        """Number of images that were rejected or failed."""
        return sum(self.rejected.values()) + self.failed

    def seconds_since_image(self) -> float | None:
        """Measure the seconds since the newest image was received; None before the first."""
        last = self._last_image_s
        return None if last is None else time.monotonic() - last

    def seconds_since_first(self) -> float:
        """Measure the seconds since the first image was received; 0 before it."""
        first = self._first_image_s
        return 0.0 if first is None else time.monotonic() - first

    def seconds_since_error(self) -> float | None:
        """Measure the seconds since the newest error; None before the first."""
        return time.monotonic() - self._last_error_s if self.faults else None

    def latencies_ms(self) -> tuple[float, float, float] | None:
        """Compute p50, p95 and the maximum of the newest latencies; None before the first."""
        with self._lock:
            return percentiles(self._latencies_ms)

    def rates_hz(self) -> tuple[float, float]:
        """Compute the rates of the images received and of those processed."""
        with self._lock:
            return self._input_rate.hz(), self._output_rate.hz()

    def summary(self) -> str:
        """Write the counts, the rate and the latency in one line."""
        with self._lock:
            text = (
                f'{self.received} images received, {self.processed} processed, '
                f'{sum(self.dropped.values())} dropped, {sum(self.rejected.values())} rejected, '
                f'{self.failed} failed'
            )
            latencies = percentiles(self._latencies_ms)
            rate_hz = self._output_rate.hz()
        if latencies is None:
            return text
        return f'{text}; {rate_hz:.1f} Hz, latency {latencies[0]:.0f} ms (p95 {latencies[1]:.0f})'


class SharedCounts:
    """Counts what becomes of the images of one camera for all of its models."""

    def __init__(self, healths: Sequence[CameraHealth]) -> None:
        """Count for each of these.

        Args:
            healths: counts of the camera at each model.
        """
        self._healths = list(healths)

    def count_received(self) -> None:
        """Count an image that was received."""
        for health in self._healths:
            health.count_received()

    def count_dropped(self, reason: str) -> None:
        """Count an image that was skipped, for one of DROP_REASONS."""
        for health in self._healths:
            health.count_dropped(reason)

    def count_rejected(self, kind: str, reason: str) -> None:
        """Count an image that cannot be read: a word for the kind of fault, and a sentence."""
        for health in self._healths:
            health.count_rejected(kind, reason)

    def count_failed(self, reason: str) -> None:
        """Count an image that raised an error before the network had it."""
        for health in self._healths:
            health.count_failed(reason)

    def count_depth(self, outcome: str) -> None:
        """Count a search for the depth of an image, by one of DEPTH_OUTCOMES."""
        for health in self._healths:
            health.count_depth(outcome)

    def count_lost(self, number: int) -> None:
        """Count images that the middleware reports as lost."""
        for health in self._healths:
            health.count_lost(number)

    def count_missing(self, number: int) -> None:
        """Count images that are missing between two stamps."""
        for health in self._healths:
            health.count_missing(number)

    def start(self) -> None:
        """Note that the camera is started."""
        for health in self._healths:
            health.start()


class ModelHealth:
    """How long the stages of an image take at one model, over all cameras."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages_ms: dict[str, deque[float]] = {name: deque(maxlen=WINDOW) for name in STAGES}
        self._batch_sizes: deque[int] = deque(maxlen=WINDOW)
        self._busy_since_s: float | None = None

    def count(self, **durations_ms: float) -> None:
        """Keep the durations of stages of one image, in milliseconds."""
        with self._lock:
            for name, duration_ms in durations_ms.items():
                self._stages_ms[name].append(duration_ms)

    def begin_batch(self, size: int) -> None:
        """Note that the work on this number of images begins; 0: on results that are pending."""
        with self._lock:
            if size:
                self._batch_sizes.append(size)
            self._busy_since_s = time.monotonic()

    def end_batch(self) -> None:
        """Note that this work is done."""
        with self._lock:
            self._busy_since_s = None

    def busy_s(self) -> float:
        """Measure how long the present batch has been in progress, in seconds; 0 if none is."""
        since = self._busy_since_s
        return 0.0 if since is None else time.monotonic() - since

    def values(self) -> dict[str, str]:
        """Write p50, p95 and maximum of each stage, and the mean size of a batch."""
        with self._lock:
            texts: dict[str, str] = {}
            for name, durations_ms in self._stages_ms.items():
                found = percentiles(durations_ms)
                if found is not None:
                    keys = (f'{name}_{part}_ms' for part in ('p50', 'p95', 'max'))
                    texts |= {key: f'{ms:.1f}' for key, ms in zip(keys, found, strict=True)}
            if self._batch_sizes:
                texts['batch_size_mean'] = f'{np.mean(self._batch_sizes):.2f}'
            return texts


def percentiles(values: Iterable[float]) -> tuple[float, float, float] | None:
    """Compute the median, the 95th percentile and the maximum; None of nothing."""
    array = np.array(list(values))
    if not array.size:
        return None
    p50, p95 = np.percentile(array, (50, 95))
    return float(p50), float(p95), float(array.max())
