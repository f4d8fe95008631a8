"""What became of the frames, and how long they took, for `/diagnostics`.

The keys of the message are part of the package's interface; `Health.to_msg` lists them.
"""

from __future__ import annotations

import threading
import time
from collections import deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

LATENCY_WINDOW = 200
"""Frames over which percentiles are taken."""


class Health:
    """Counts and latencies of one image topic; any thread may report to it.

    Every image received ends in exactly one of the other counts, apart from the one or two that
    wait or are being processed: received = processed + dropped + rejected + failed + those.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.received = 0
        self.processed = 0
        """Images whose results were published."""
        self.dropped = 0
        """Images left out: a newer one came first, or the stream was reset or stopped."""
        self.rejected = 0
        """Images that cannot be used: see `datasets.images.FrameError`."""
        self.failed = 0
        """Images on which inference raised an error."""
        self.last_error = ''
        self._faults_reported = 0
        self._last_image_s: float | None = None
        self._latencies_ms: deque[float] = deque(maxlen=LATENCY_WINDOW)

    def count_received(self) -> None:
        """An image came in."""
        with self._lock:
            self.received += 1
            self._last_image_s = time.monotonic()

    def count_processed(self, latency_ms: float) -> None:
        """An image's results went out, so long after it came in."""
        with self._lock:
            self.processed += 1
            self._latencies_ms.append(latency_ms)

    def count_dropped(self) -> None:
        """An image was left out."""
        with self._lock:
            self.dropped += 1

    def count_rejected(self, reason: str) -> None:
        """An image cannot be used."""
        with self._lock:
            self.rejected += 1
            self.last_error = reason

    def count_failed(self, reason: str) -> None:
        """Inference raised an error."""
        with self._lock:
            self.failed += 1
            self.last_error = reason

    def seconds_since_image(self) -> float | None:
        """Seconds since the last image came in; None before the first."""
        with self._lock:
            last = self._last_image_s
        return None if last is None else time.monotonic() - last

    def summary(self) -> str:
        """The counts in one line."""
        with self._lock:
            return (
                f'{self.received} images received, {self.processed} processed, '
                f'{self.dropped} dropped, {self.rejected} rejected, {self.failed} failed'
            )

    def to_msg(self, name: str, device: str, state: str) -> DiagnosticStatus:
        """Report.

        Args:
            name: of the component, as `node: task`.
            device: on which the network runs; empty without a network.
            state: of the node's life cycle.

        Returns:
            OK, or WARN if images were rejected or failed since the report before. Values: `state`,
            the counts, `last_error`, and once there are any, `latency_p50_ms`, `latency_p95_ms`
            (from the arrival of an image to its results, the last 200 images) and
            `seconds_since_image`.
        """
        message = self.summary()
        since_image = self.seconds_since_image()
        with self._lock:
            faults = self.rejected + self.failed
            level = DiagnosticStatus.OK
            if faults > self._faults_reported:
                level = DiagnosticStatus.WARN
            self._faults_reported = faults
            values = {
                'state': state,
                'received': str(self.received),
                'processed': str(self.processed),
                'dropped': str(self.dropped),
                'rejected': str(self.rejected),
                'failed': str(self.failed),
                'last_error': self.last_error,
            }
            latencies_ms = np.array(self._latencies_ms)
        if latencies_ms.size:
            p50, p95 = np.percentile(latencies_ms, (50, 95))
            values |= {'latency_p50_ms': f'{p50:.1f}', 'latency_p95_ms': f'{p95:.1f}'}
        if since_image is not None:
            values['seconds_since_image'] = f'{since_image:.1f}'
        return DiagnosticStatus(
            level=level,
            name=name,
            message=message,
            hardware_id=device,
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
