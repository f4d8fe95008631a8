"""The camera of a run: publishes any source of images as `sensor_msgs/Image`.

    python -m videomt_ros.rig.camera --source clip.mp4 [--ros-args -r image_raw:=/camera/image_raw]

It waits for a subscriber and plays the source at its own speed. As a driver does, it stamps each
image with the time of publication, or with the stamp of the source (--keep-stamps); `sent` events
hold both. With --every-frame, it waits for the result of each image before it sends the next.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from videomt_ros.datasets.opening import open_source
from videomt_ros.datasets.source import Source, SourceFrame
from videomt_ros.msg import TrackArray
from videomt_ros.rig.processes import emit
from videomt_ros.ros.conversions import image_to_msg, stamp_to_msg

SUBSCRIBER_TIMEOUT_S = 60.0
"""Longest time to wait for a subscriber, in seconds."""
RESULT_TIMEOUT_S = 120.0
"""Longest time to wait for a result, in seconds; a large network is slow on a small processor."""


@dataclass(frozen=True)
class Playback:
    """How a source is played."""

    seconds: float = 0.0
    """Length in seconds of the source's time after which to end; 0: no limit."""
    frames: int = 0
    """Number of images after which to end; 0: no limit."""
    rate: float = 0.0
    """Images per second; 0: the times of the source, divided by `speed`. Of a live source, which
    has times of its own, images are left out down to this rate."""
    speed: float = 1.0
    """Speed of the playback over that of the source."""
    keeps_stamps: bool = False
    """Whether images keep the stamps of the source, or its times if it has no stamps."""
    every_frame: bool = False
    """Whether to wait for the result of each image before sending the next."""
    clock: bool = False
    """Whether to publish the stamp of each image on /clock before it."""


def play(source: Source, node: Node, playback: Playback) -> None:
    """Publish a source from its first image to its last, or until Ctrl-C.

    Args:
        source: the images.
        node: node that publishes them on `image_raw`.
        playback: speed, length and stamps.

    Raises:
        TimeoutError: there is no subscriber, or no result comes.
    """
    # Reliable, so that dropped images were dropped by the segmenter and not by the transport. Real
    # drivers are often best effort; the segmenter takes either.
    quality = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
    publisher = node.create_publisher(Image, 'image_raw', quality)
    clock = node.create_publisher(Clock, '/clock', 10) if playback.clock else None
    results = _Results(node) if playback.every_frame else None
    _wait_for_subscriber(publisher)
    try:
        for number, frame in enumerate(_paced(source, playback)):
            if results is not None:
                results.wait_for(number)
            source_ns = frame.time_ns if frame.stamp_ns is None else frame.stamp_ns
            stamp_ns = source_ns if playback.keeps_stamps else node.get_clock().now().nanoseconds
            header = Header(stamp=stamp_to_msg(stamp_ns), frame_id=frame.frame_id)
            if clock is not None:
                clock.publish(Clock(clock=header.stamp))
            encoding = 'rgb8' if frame.image.dtype == np.uint8 else 'rgb16'
            publisher.publish(image_to_msg(frame.image, encoding, header))
            emit('sent', number=number, stamp_ns=stamp_ns, source_ns=source_ns)
    except KeyboardInterrupt:
        pass  # the usual end of a webcam
    publisher.wait_for_all_acked(Duration(seconds=10))
    emit('end', notes=source.notes)


class _Results:
    """Counts the lists of tracks that the segmenter publishes."""

    def __init__(self, node: Node) -> None:
        """Subscribe, and wait until the segmenter is matched with the subscription."""
        self._node = node
        self._num_results = self._num_reports = 0
        quality = QoSProfile(depth=30, reliability=ReliabilityPolicy.RELIABLE)
        node.create_subscription(TrackArray, 'segmentation/tracks', self._take_result, quality)
        node.create_subscription(DiagnosticArray, '/diagnostics', self._take_report, 10)
        # The publisher may discover us a moment after we discover it; by its second report, which
        # comes a second later, it has.
        self._spin_until(lambda: self._num_reports >= 2, SUBSCRIBER_TIMEOUT_S, 'a segmenter')

    def wait_for(self, count: int) -> None:
        """Wait until there are this many results."""
        what = f'the result of image {count}'
        self._spin_until(lambda: self._num_results >= count, RESULT_TIMEOUT_S, what)

    def _spin_until(self, is_true: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not is_true():
            rclpy.spin_once(self._node, timeout_sec=0.1)
            if time.monotonic() > deadline_s:
                raise TimeoutError(f'Expected {what} within {timeout_s:.0f} s, none came.')

    def _take_result(self, msg: TrackArray) -> None:
        del msg
        self._num_results += 1

    def _take_report(self, msg: DiagnosticArray) -> None:
        del msg
        self._num_reports += bool(self._node.count_publishers('segmentation/tracks'))


def _wait_for_subscriber(publisher: Publisher) -> None:
    deadline_s = time.monotonic() + SUBSCRIBER_TIMEOUT_S
    while not publisher.get_subscription_count():
        if time.monotonic() > deadline_s:
            raise TimeoutError(
                f'Expected a subscriber of {publisher.topic_name} within '
                f'{SUBSCRIBER_TIMEOUT_S:.0f} s, none came.'
            )
        time.sleep(0.02)


def _paced(source: Source, playback: Playback) -> Iterator[SourceFrame]:
    """Yield each frame at its time; the next one is read meanwhile."""
    start_s, first_ns, number, due_s = 0.0, 0, 0, 0.0
    for frame in source.frames():
        if number == 0:
            start_s, first_ns = time.monotonic(), frame.time_ns
        elapsed_s = (frame.time_ns - first_ns) * 1e-9
        is_late = bool(playback.seconds and elapsed_s >= playback.seconds)
        if is_late or (playback.frames and number >= playback.frames):
            return
        if not source.is_endless:
            after_s = number / playback.rate if playback.rate else elapsed_s / playback.speed
            time.sleep(max(0.0, start_s + after_s - time.monotonic()))
        elif playback.rate:
            if elapsed_s < due_s:
                continue
            due_s = max(due_s + 1 / playback.rate, elapsed_s)
        yield frame
        number += 1


def main() -> int:
    """Run the camera until the source ends.

    Returns:
        0 at the end of the source or after SIGINT; 1 after an error, which is logged in one line.
    """
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0] if __doc__ else None)
    parser.add_argument('--source', default='synthetic', help='as for `videomt demo`')
    parser.add_argument('--topic', default='', help='of a bag')
    parser.add_argument('--seed', type=int, default=0, help='of a synthetic scene')
    parser.add_argument('--scene-frames', type=int, default=300, help='of a synthetic scene')
    parser.add_argument('--stuff', action='store_true', help='in a synthetic scene')
    parser.add_argument('--seconds', type=float, default=0.0, help='end after; 0: never')
    parser.add_argument('--frames', type=int, default=0, help='end after; 0: never')
    parser.add_argument('--rate', type=float, default=0.0, help="in Hz; 0: the source's own")
    parser.add_argument('--speed', type=float, default=1.0, help="times the source's own")
    parser.add_argument('--keep-stamps', action='store_true', help='those of the source')
    parser.add_argument('--every-frame', action='store_true', help='wait for each result')
    parser.add_argument('--clock', action='store_true', help='publish the stamps on /clock')
    args = parser.parse_args(remove_ros_args(sys.argv)[1:])
    # SIGINT ends the source, but rclpy must run until the last image has arrived.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    node = rclpy.create_node('camera')
    try:
        # The node reduces images of 16 bits, by its own parameters.
        source = open_source(
            args.source,
            args.topic,
            args.seed,
            args.scene_frames,
            args.stuff,
            keep_depth=True,
        )
        playback = Playback(
            args.seconds,
            args.frames,
            args.rate,
            args.speed,
            args.keep_stamps,
            args.every_frame,
            args.clock,
        )
        play(source, node, playback)
    except (ValueError, OSError) as error:
        node.get_logger().fatal(str(error))
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
