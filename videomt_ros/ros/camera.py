"""The demo's camera: publishes a scene, a video, a webcam or a bag as `sensor_msgs/Image`.

    python -m videomt_ros.ros.camera --source clip.mp4 [--ros-args -r image_raw:=/camera/image_raw]

It waits for a subscriber, keeps the time of the source, and stamps each image with the time at
which it is published, as a driver does; `sent` events tell the stamp beside the source's own.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from videomt_ros.datasets.opening import open_source
from videomt_ros.datasets.source import Source, SourceFrame
from videomt_ros.ros.conversions import image_to_msg
from videomt_ros.ros.events import emit

SUBSCRIBER_TIMEOUT_S = 60.0


def play(source: Source, node: Node, seconds: float, frames: int, rate: float) -> None:
    """Publish a source from its first image to its last, or until it is interrupted.

    Args:
        source: the images.
        node: publishes them on `image_raw`.
        seconds: end after so much of the source's time; 0: never.
        frames: end after so many images; 0: never.
        rate: images in a second; 0: in the source's own time.

    Raises:
        TimeoutError: nobody subscribes.
    """
    # Reliable, so that what the demo counts as dropped was dropped by the segmenter and not by
    # the transport. Real drivers are often best effort; the segmenter takes either.
    quality = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
    publisher = node.create_publisher(Image, 'image_raw', quality)
    _wait_for_subscriber(publisher)
    try:
        for number, frame in enumerate(_paced(source, seconds, frames, rate)):
            stamp = node.get_clock().now()
            header = Header(stamp=stamp.to_msg(), frame_id=frame.frame_id)
            publisher.publish(image_to_msg(frame.image, 'rgb8', header))
            emit(
                'sent',
                number=number,
                stamp_ns=stamp.nanoseconds,
                source_ns=frame.time_ns if frame.stamp_ns is None else frame.stamp_ns,
            )
    except KeyboardInterrupt:
        pass  # a webcam's usual end
    publisher.wait_for_all_acked(Duration(seconds=10))
    emit('end', notes=source.notes)


def _wait_for_subscriber(publisher: Publisher) -> None:
    deadline_s = time.monotonic() + SUBSCRIBER_TIMEOUT_S
    while not publisher.get_subscription_count():
        if time.monotonic() > deadline_s:
            raise TimeoutError(
                f'Expected a subscriber of {publisher.topic_name} within '
                f'{SUBSCRIBER_TIMEOUT_S:.0f} s, none came.'
            )
        time.sleep(0.02)


def _paced(source: Source, seconds: float, frames: int, rate: float) -> Iterator[SourceFrame]:
    """Hand out each frame when its time has come; the next is read while there is time."""
    start_s, first_ns = 0.0, 0
    for number, frame in enumerate(source.frames()):
        if number == 0:
            start_s, first_ns = time.monotonic(), frame.time_ns
        elapsed_s = (frame.time_ns - first_ns) * 1e-9
        if (frames and number >= frames) or (seconds and elapsed_s >= seconds):
            return
        if not source.is_live:
            due_s = start_s + (number / rate if rate else elapsed_s)
            time.sleep(max(0.0, due_s - time.monotonic()))
        yield frame


def main() -> int:
    """Run the camera until the source ends.

    Returns:
        0 at the end of the source or after SIGINT; 1 after an error, told in one line.
    """
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0] if __doc__ else None)
    parser.add_argument('--source', default='synthetic', help='as for `videomt demo`')
    parser.add_argument('--topic', default='', help='of a bag')
    parser.add_argument('--seed', type=int, default=0, help='of a synthetic scene')
    parser.add_argument('--scene-frames', type=int, default=300, help='of a synthetic scene')
    parser.add_argument('--seconds', type=float, default=0.0, help='end after; 0: never')
    parser.add_argument('--frames', type=int, default=0, help='end after; 0: never')
    parser.add_argument('--rate', type=float, default=0.0, help="in Hz; 0: the source's own")
    args = parser.parse_args(remove_ros_args(sys.argv)[1:])
    # A SIGINT ends the source; rclpy must go on for a moment, until the last image has arrived.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    node = rclpy.create_node('camera')
    try:
        source = open_source(args.source, args.topic, args.seed, args.scene_frames)
        play(source, node, args.seconds, args.frames, args.rate)
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
