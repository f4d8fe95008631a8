"""Forward the package's `logging` records to the node's logger, and limit repeated messages."""

from __future__ import annotations

import logging
import re
import threading
import time

from rclpy.impl.rcutils_logger import RcutilsLogger


class RosHandler(logging.Handler):
    """Forwards records to a ROS logger, and so to the console and `/rosout`.

    Warnings of one kind are limited, since the images that a camera sends may cause one each.
    """

    def __init__(self, logger: RcutilsLogger) -> None:
        """Forward all records to a logger, which filters them by its own level."""
        super().__init__()
        self._ros_logger = logger
        self._throttle = Throttle()

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record at its level."""
        # rclpy allows one level only for each line of code that logs.
        message = self.format(record)
        if record.levelno == logging.WARNING and not self._throttle.allows(message):
            return
        if record.levelno >= logging.ERROR:
            self._ros_logger.error(message)
        elif record.levelno >= logging.WARNING:
            self._ros_logger.warning(message)
        elif record.levelno >= logging.INFO:
            self._ros_logger.info(message)
        else:
            self._ros_logger.debug(message)


class Throttle:
    """Limits how often each kind of message is logged; safe to call from any thread.

    rclpy throttles each line of code that logs, so that one reason would hide all others.
    """

    def __init__(self, period_s: float = 5.0, max_kinds: int = 20) -> None:
        """Set the limits.

        Args:
            period_s: shortest time, in seconds, between two messages of one kind.
            max_kinds: number of kinds that may be logged within this time. Texts may quote what
                a peer sent, and a peer may send something else each time.
        """
        self._period_s = period_s
        self._max_kinds = max_kinds
        self._lock = threading.Lock()
        self._logged_s: dict[str, float] = {}

    def allows(self, text: str) -> bool:
        """Whether to log a message now; those that differ in their numbers alone are one kind."""
        kind = re.sub(r'\d+', '0', text)
        now_s = time.monotonic()
        with self._lock:
            logged_s = {k: t for k, t in self._logged_s.items() if now_s - t < self._period_s}
            allowed = kind not in logged_s and len(logged_s) < self._max_kinds
            if allowed:
                logged_s[kind] = now_s
            self._logged_s = logged_s
        return allowed
