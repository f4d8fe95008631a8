"""The load of a speed test: images of several cameras at chosen rates, and what comes back.

    python -m videomt_ros.rig.load --cameras 4 --size 480 640 --pid PID

It searches for the highest rate with which the node keeps up, then measures latency and processor
time at half of it. Every image is stamped with the time of its publication. Events: `trial` for
each trial with its figures, and `end`.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image

from videomt_ros.datasets.synthetic.scene import Scene
from videomt_ros.msg import TrackArray
from videomt_ros.rig.processes import emit
from videomt_ros.rig.trials import MISSED, SENT, Key, figures, find_peak, keeps_up

OUTPUTS: dict[str, type] = {
    'tracks': TrackArray,
    'instances': Image,
    'semantic': Image,
    'overlay': Image,
}
"""Outputs that can be waited for, and their types."""
SCENE_FRAMES = 8
"""Number of different images, which every camera sends in turn."""
READY_TIMEOUT_S = 300.0
"""Longest time to wait for the node, in seconds; it may have to download the model."""
SETTLE_S = 5.0
"""Longest time to wait for results after the last image, in seconds."""
MAX_TRIALS, CLEAR_FAILURE = 2, 0.3
"""Number of trials of one rate, since other processes may have disturbed a failed one, and share
of lost frames above which there is no second."""
LATENCY_TRIALS = 4
"""Length of the trial in which latencies are measured, in lengths of the others. The node reports
its stages over the newest 200 images, which then are mostly of this trial."""
WARM_UP_FRAMES = 10
"""Number of images of each camera before the first trial, sent one after the other."""


class LoadNode(Node):
    """Publishes the images, and keeps the times at which results arrive.

    Results are not deserialised, so that receiving them takes little of the processor.
    """

    def __init__(self, cameras: int, size: tuple[int, int], outputs: Sequence[str]) -> None:
        """Create publishers and subscriptions.

        Args:
            cameras: number of cameras; a single one has no name.
            size: height and width of the images.
            outputs: outputs of the node that are subscribed to; a frame has arrived with the last.
        """
        super().__init__('load')
        names = camera_names(cameras) or ['']
        prefixes = [f'{name}/' if name else '' for name in names]
        reliable = QoSProfile(depth=30, reliability=ReliabilityPolicy.RELIABLE)
        self._cameras = [
            self.create_publisher(Image, f'{prefix}image_raw', reliable) for prefix in prefixes
        ]
        self._images = build_images(size)
        self._outputs = [f'{prefix}segmentation/{name}' for prefix in prefixes for name in outputs]
        for number, prefix in enumerate(prefixes):
            for name in outputs:
                self.create_subscription(
                    OUTPUTS[name],
                    f'{prefix}segmentation/{name}',
                    partial(self._take, number),
                    reliable,
                    raw=True,
                )
        self.create_subscription(DiagnosticArray, '/diagnostics', self._take_diagnostics, 10)
        # /diagnostics also carries the reports of segmenters in other namespaces.
        self._status = f'{self.get_namespace().rstrip("/")}/segmenter: model'
        self.stages: dict[str, str] = {}
        """Values of the node's newest status of the model."""
        self.reports = 0
        """Number of such statuses while all was connected."""
        self._num_outputs = len(outputs)
        self._lock = threading.Lock()
        self._partial: dict[Key, int] = {}
        self.sent_s: dict[Key, float] = {}
        self.received_s: dict[Key, float] = {}

    @property
    def is_connected(self) -> bool:
        """Whether the node has all topics; it may discover them a moment later than this one."""
        return all(camera.get_subscription_count() for camera in self._cameras) and all(
            self.count_publishers(topic) for topic in self._outputs
        )

    def wait_until_ready(self) -> None:
        """Wait until the node is active, and has seen that its results are listened to.

        Raises:
            TimeoutError: it is not active in time.
        """

        def is_ready() -> bool:
            return self.reports >= 2 and self.stages.get('state') == 'active'

        if not _wait(is_ready, READY_TIMEOUT_S):
            raise TimeoutError(f'Expected an active segmenter within {READY_TIMEOUT_S:.0f} s.')

    def warm_up(self) -> None:
        """Send a few images, each after the results of the one before."""
        for number in range(WARM_UP_FRAMES):
            keys = {self._send(camera, number) for camera in range(len(self._cameras))}
            _wait(partial(self._have_arrived, keys), READY_TIMEOUT_S)

    def play(self, rate_hz: float, seconds: float) -> dict[str, float]:
        """Publish images at a rate, and compute the figures of what came back.

        Args:
            rate_hz: images per second of each camera; the cameras take turns.
            seconds: length of the trial.
        """
        with self._lock:
            self.sent_s, self.received_s, self._partial = {}, {}, {}
        cameras = len(self._cameras)
        # At least two of each camera, so that there is a rate.
        total = max(2, round(rate_hz * seconds)) * cameras
        begin_s = time.monotonic()
        for number in range(total):
            due_s = begin_s + number / (rate_hz * cameras)
            time.sleep(max(0.0, due_s - time.monotonic()))
            self._send(number % cameras, number // cameras)
        # The newest image of each camera is never dropped, so its result ends the trial.
        _wait(partial(self._have_arrived, set(list(self.sent_s)[-cameras:])), SETTLE_S)
        with self._lock:
            return figures(self.sent_s, self.received_s)

    def _have_arrived(self, keys: Set[Key]) -> bool:
        return keys <= self.received_s.keys()

    def _send(self, camera: int, number: int) -> Key:
        msg = self._images[number % len(self._images)]
        stamp_ns = time.time_ns()
        msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
        key = (camera, stamp_ns)
        with self._lock:
            self.sent_s[key] = time.monotonic()
        self._cameras[camera].publish(msg)
        return key

    def _take(self, camera: int, data: bytes) -> None:
        now_s = time.monotonic()
        # CDR: four bytes on the encoding, then the header with its stamp.
        order = '<' if data[1] & 1 else '>'
        sec, nanosec = struct.unpack_from(f'{order}iI', data, 4)
        key = (camera, sec * 1_000_000_000 + nanosec)
        with self._lock:
            if key not in self.sent_s:
                return  # of an earlier trial
            self._partial[key] = self._partial.get(key, 0) + 1
            if self._partial[key] == self._num_outputs:
                self.received_s[key] = now_s

    def _take_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if status.name == self._status:
                self.stages = {value.key: value.value for value in status.values}
                self.reports += self.is_connected


def camera_names(cameras: int) -> list[str]:
    """List the names of the cameras; none for a single one."""
    return [f'camera{number + 1}' for number in range(cameras)] if cameras > 1 else []


def build_images(size: tuple[int, int]) -> list[Image]:
    """Draw a scene of this height and width, as messages."""
    height, width = size
    return [
        Image(
            height=height,
            width=width,
            step=3 * width,
            encoding='rgb8',
            data=array.array('B', image.tobytes()),
        )
        for image, _ in Scene(seed=1, height=height, width=width, num_frames=SCENE_FRAMES).frames()
    ]


def cpu_seconds(pid: int) -> float:
    """Read the processor time of a process, of all its threads; 0 where /proc does not tell."""
    path = Path('/proc', str(pid), 'stat')
    if not path.is_file():
        return 0.0
    # The name of the process, in brackets, may hold spaces.
    values = path.read_text(encoding='utf-8').rpartition(')')[2].split()
    user, system = int(values[11]), int(values[12])
    return (user + system) / os.sysconf('SC_CLK_TCK')


def measure(node: LoadNode, args: argparse.Namespace) -> None:
    """Run all trials."""

    def try_rate(rate_hz: float) -> bool:
        for _ in range(MAX_TRIALS):
            values = node.play(rate_hz, args.seconds)
            kept_up = keeps_up(values, rate_hz * args.cameras)
            emit('trial', kind='search', rate_hz=rate_hz, kept_up=kept_up, figures=values)
            if kept_up or values[MISSED] > CLEAR_FAILURE * values[SENT]:
                break
        return kept_up

    node.wait_until_ready()
    node.warm_up()
    peak_hz = find_peak(try_rate, args.min_rate, args.max_rate)
    rate_hz = args.min_rate if peak_hz is None else max(peak_hz / 2, args.min_rate)
    before_s = cpu_seconds(args.pid)
    values = node.play(rate_hz, LATENCY_TRIALS * args.seconds)
    frames = values[SENT] - values[MISSED]
    cpu_ms = (cpu_seconds(args.pid) - before_s) * 1e3 / max(1.0, frames)
    reports = node.reports
    _wait(lambda: node.reports > reports, SETTLE_S)
    emit(
        'trial',
        kind='half',
        rate_hz=rate_hz,
        peak_hz=peak_hz,
        cpu_ms_per_frame=cpu_ms,
        stages=node.stages,
        figures=values,
    )
    emit('end', notes=[])


def _wait(condition: Callable[[], Any], timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.005)
    return True


def main() -> int:
    """Run the trials.

    Returns:
        0 when they are done, or after a signal; 1 if no node was there.
    """
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0] if __doc__ else None)
    parser.add_argument('--cameras', type=int, default=1)
    parser.add_argument('--size', type=int, nargs=2, default=(480, 640), help='height width')
    parser.add_argument('--outputs', nargs='+', choices=OUTPUTS, default=['tracks'])
    parser.add_argument('--seconds', type=float, default=4.0, help='of each trial')
    parser.add_argument('--min-rate', type=float, default=0.5, help='in Hz, of each camera')
    parser.add_argument('--max-rate', type=float, default=120.0, help='in Hz, of each camera')
    parser.add_argument('--pid', type=int, default=0, help='process of the node')
    args = parser.parse_args(remove_ros_args(sys.argv)[1:])
    rclpy.init()
    node = LoadNode(args.cameras, tuple(args.size), args.outputs)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=_spin, args=(executor,), daemon=True)
    thread.start()
    try:
        measure(node, args)
    except TimeoutError as error:
        node.get_logger().fatal(str(error))
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        executor.shutdown()
        thread.join()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _spin(executor: SingleThreadedExecutor) -> None:
    with contextlib.suppress(ExternalShutdownException):  # a signal
        executor.spin()


if __name__ == '__main__':
    sys.exit(main())
