"""Forward the package's `logging` records to the node's logger."""

from __future__ import annotations

import logging

from rclpy.impl.rcutils_logger import RcutilsLogger


class RosHandler(logging.Handler):
    """Forwards records to a ROS logger, and so to the console and `/rosout`."""

    def __init__(self, logger: RcutilsLogger) -> None:
        """Forward all records to a logger, which filters them by its own level."""
        super().__init__()
        self._ros_logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record at its level."""
        # rclpy allows one level only for each line of code that logs.
        message = self.format(record)
        if record.levelno >= logging.ERROR:
            self._ros_logger.error(message)
        elif record.levelno >= logging.WARNING:
            self._ros_logger.warning(message)
        elif record.levelno >= logging.INFO:
            self._ros_logger.info(message)
        else:
            self._ros_logger.debug(message)
