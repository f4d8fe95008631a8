"""What the package says through `logging`, said again through the node's logger."""

from __future__ import annotations

import logging

from rclpy.impl.rcutils_logger import RcutilsLogger


class RosHandler(logging.Handler):
    """Passes records on to a ROS logger, and so to the console and `/rosout`."""

    def __init__(self, logger: RcutilsLogger) -> None:
        """Pass on to this logger, which drops what is below its own level."""
        super().__init__()
        self._ros_logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Say it at its own level; rclpy wants one line of code for each."""
        message = self.format(record)
        if record.levelno >= logging.ERROR:
            self._ros_logger.error(message)
        elif record.levelno >= logging.WARNING:
            self._ros_logger.warning(message)
        elif record.levelno >= logging.INFO:
            self._ros_logger.info(message)
        else:
            self._ros_logger.debug(message)
