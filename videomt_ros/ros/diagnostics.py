"""Count the images of the node and measure their latencies, for `/diagnostics`.

The keys of the message are part of the package's interface; `Health.to_msg` lists them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

LATENCY_WINDOW = 200
"""Number of newest images over which the percentiles of the latency are computed."""
ERROR_SHOWN_S = 60.0
"""Time in seconds for which the text of an error is shown."""


class Health:
    """Counts and latencies of one image topic; all methods are safe to call from any thread.

    Every image received is counted in exactly one of the other counts, once it is finished. At
    most two are not: one that waits and one that is being processed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.received = 0
        """Number of images received."""
        self.processed = 0
        """Number of images whose results were published."""
        self.dropped = 0
        """Number of images skipped: a newer one came first, or the stream was reset or stopped."""
        self.rejected = 0
        """Number of images that cannot be read; see `datasets.images.FrameError`."""
        self.failed = 0
        """Number of images on which inference raised an error."""
        self.last_error = ''
        """Reason why the newest of these images was rejected or failed; empty if there is none."""
        self._last_error_s = 0.0
        self._faults_reported = 0
        self._last_image_s: float | None = None
        self._latencies_ms: deque[float] = deque(maxlen=LATENCY_WINDOW)

    def count_received(self) -> None:
        """Count an image that was received."""
        with self._lock:
            self.received += 1
            self._last_image_s = time.monotonic()

    def count_processed(self, latency_ms: float) -> None:
        """Count an image whose results were published this long after it was received."""
        with self._lock:
            self.processed += 1
            self._latencies_ms.append(latency_ms)

    def count_dropped(self) -> None:
        """Count an image that was skipped."""
        with self._lock:
            self.dropped += 1

    def count_rejected(self, reason: str) -> None:
        """Count an image that cannot be read."""
        with self._lock:
            self.rejected += 1
            self._keep_error(reason)

    def count_failed(self, reason: str) -> None:
        """Count an image on which inference raised an error."""
        with self._lock:
            self.failed += 1
            self._keep_error(reason)

    def _keep_error(self, reason: str) -> None:
        self.last_error, self._last_error_s = reason, time.monotonic()

    def seconds_since_image(self) -> float | None:
        """Measure the seconds since the newest image was received; None before the first."""
        with self._lock:
            last = self._last_image_s
        return None if last is None else time.monotonic() - last

    def summary(self) -> str:
        """Write the counts in one line."""
        with self._lock:
            return (
                f'{self.received} images received, {self.processed} processed, '
                f'{self.dropped} dropped, {self.rejected} rejected, {self.failed} failed'
            )

    def to_msg(
        self, name: str, device: str, state: str, troubles: Sequence[str] = ()
    ) -> DiagnosticStatus:
        """Build the diagnostic status.

        Args:
            name: name of the component, as `node: task`.
            device: device of the network; empty without a network.
            state: state of the node's life cycle.
            troubles: sentences on what is wrong at present, and what to do; they begin the
                message of the status.

        Returns:
            WARN if there are troubles, or if images were rejected or failed since the previous
            status, and OK otherwise. The values are `state`, the counts, `last_error` (empty once
            it is `ERROR_SHOWN_S` old) and `seconds_since_error` and, once there are images,
            `latency_p50_ms`, `latency_p95_ms` (from the arrival of an image to its results, over
            the last 200 images) and `seconds_since_image`.
        """
        message = ' '.join((*troubles, self.summary()))
        since_image = self.seconds_since_image()
        with self._lock:
            faults = self.rejected + self.failed
            level = DiagnosticStatus.OK
            if troubles or faults > self._faults_reported:
                level = DiagnosticStatus.WARN
            self._faults_reported = faults
            since_error = time.monotonic() - self._last_error_s if faults else None
            is_current = since_error is not None and since_error < ERROR_SHOWN_S
            values = {
                'state': state,
                'received': str(self.received),
                'processed': str(self.processed),
                'dropped': str(self.dropped),
                'rejected': str(self.rejected),
                'failed': str(self.failed),
                'last_error': self.last_error if is_current else '',
            }
            latencies_ms = np.array(self._latencies_ms)
        if latencies_ms.size:
            p50, p95 = np.percentile(latencies_ms, (50, 95))
            values |= {'latency_p50_ms': f'{p50:.1f}', 'latency_p95_ms': f'{p95:.1f}'}
        if since_error is not None:
            values['seconds_since_error'] = f'{since_error:.1f}'
        if since_image is not None:
            values['seconds_since_image'] = f'{since_image:.1f}'
        return DiagnosticStatus(
            level=level,
            name=name,
            message=message,
            hardware_id=device,
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
