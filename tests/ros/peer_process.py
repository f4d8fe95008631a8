"""A camera or a listener in a process of its own, which can be killed as on a robot.

    python -m tests.ros.peer_process camera reliable
    python -m tests.ros.peer_process listener best_effort

The camera publishes a small image 20 times a second; the listener prints the stamp of each result.
It imports neither torch nor this package's code, so it starts within a second.
"""

from __future__ import annotations

import array
import contextlib
import os
import subprocess
import sys
import threading
import time

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

HEIGHT, WIDTH, RATE_HZ = 48, 64, 20.0


class PeerProcess:
    """Starts the process and reads what it prints."""

    def __init__(self, domain: int, role: str, reliability: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'tests.ros.peer_process', role, reliability],
            env={**os.environ, 'ROS_DOMAIN_ID': str(domain)},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.newest_ns = 0
        """Stamp of the newest result that a listener heard; 0 before the first."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def kill(self) -> None:
        """End it with SIGKILL: no one is told."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def end(self) -> None:
        """End it with SIGTERM: it leaves the domain in order."""
        self._process.terminate()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.newest_ns = int(line)


def run_camera(node: rclpy.node.Node, quality: QoSProfile) -> None:
    """Publish images for ever, stamped with the time."""
    publisher = node.create_publisher(Image, 'image_raw', quality)
    fields = {'height': HEIGHT, 'width': WIDTH, 'step': 3 * WIDTH, 'encoding': 'rgb8'}
    msg = Image(**fields, data=array.array('B', os.urandom(3 * WIDTH * HEIGHT)))
    while rclpy.ok():
        stamp_ns = time.time_ns()
        msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
        publisher.publish(msg)
        time.sleep(1 / RATE_HZ)


def run_listener(node: rclpy.node.Node, quality: QoSProfile) -> None:
    """Print the stamp of each result for ever."""
    from videomt_ros.msg import TrackArray

    def take(msg: TrackArray) -> None:
        print(msg.header.stamp.sec * 1_000_000_000 + msg.header.stamp.nanosec, flush=True)

    node.create_subscription(TrackArray, 'segmentation/tracks', take, quality)
    rclpy.spin(node)


def main() -> None:
    """Run until a signal."""
    role, reliability = sys.argv[1:]
    rclpy.init()
    quality = QoSProfile(depth=10, reliability=ReliabilityPolicy[reliability.upper()])
    # A signal may end the context at any moment.
    with contextlib.suppress(ExternalShutdownException, RuntimeError, KeyboardInterrupt):
        {'camera': run_camera, 'listener': run_listener}[role](rclpy.create_node(role), quality)
    sys.stdout.flush()
    os._exit(0)


if __name__ == '__main__':
    main()
