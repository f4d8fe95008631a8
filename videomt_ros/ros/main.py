"""The process of the node: its signals, its executor and its exit code."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.logging import get_logger

from videomt_ros.ros.guards import GuardedExecutor
from videomt_ros.ros.node import SegmenterNode


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def main(args: list[str] | None = None) -> int:
    """Run the node until a signal or a shutdown ends it.

    Returns:
        0 after SIGINT, SIGTERM or a shutdown; 1 if the node could not start by itself, or left the
        active state because of failures, which its log explains.
    """
    # With handlers, SIGINT works even if a shell started the node in the background, where it is
    # ignored. rclpy calls them before its own handlers.
    signals: list[int] = []
    node: SegmenterNode | None = None

    def interrupt_once(number: int, frame: FrameType | None) -> None:
        del frame
        _ignore_signals()  # under a launch file, Ctrl-C arrives twice
        signals.append(number)
        # rclpy ends a spin by itself; an exception inside its C++ code may abort the process.
        if node is None:
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt_once)
    try:
        try:
            rclpy.init(args=args)
            node = SegmenterNode(sys.argv if args is None else args)
        except (ValueError, RuntimeError, ParameterException) as error:
            get_logger('segmenter').fatal(f'Not started: {error}')
            return 1
        executor = GuardedExecutor()
        executor.add_node(node)
        # Not `spin_until_future_complete`, which adds a callback to the future at each turn.
        while rclpy.ok() and not node.has_failed:
            executor.spin_once()
        return int(node.has_failed)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except RuntimeError:
        # A signal inside rclpy's C++ code is raised as RuntimeError, and may be raised before the
        # handler above has run; the context is shut down by then.
        if rclpy.ok() and not signals:
            raise
        return 0
    finally:
        _ignore_signals()
        if node is not None:
            node.close()
        rclpy.try_shutdown()
