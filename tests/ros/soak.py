"""Thousands of frames of four cameras through one segmenter in its own process, over real DDS.

    python -m tests.ros.soak --frames 20000

It covers the node as a robot runs it: images in and all results out over DDS, four cameras of
different sizes and rates in common batches, diagnostics, and what happens in a long life: scenes
that end, bags that begin again, gaps in the stamps, parameters that change, subscribers that come
and go, resets that were asked for, images that cannot be read. Each image waits for the results of
the one before, so that none is dropped; the rate is what the machine gives. It does not cover a
GPU, nor a flood of images (see test_node_cameras.py).
"""

from __future__ import annotations

import argparse
import array
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from tests.ros.node_process import RELIABLE, NodeProcess, new_domain
from videomt_ros.datasets.synthetic.scene import Scene
from videomt_ros.msg import TrackArray

SIZES = {'front': (96, 128), 'rear': (96, 128), 'left': (128, 128), 'right': (150, 200)}
"""Size (height, width) of the images of each camera; the first two share batches."""
PERIODS = {'front': 1, 'rear': 2, 'left': 3, 'right': 1}
"""Ticks from one image of a camera to its next."""
TICK_NS = 33_000_000
SCENES, SCENE_FRAMES = 5, 40
"""Number of scenes of each camera, which it shows in turn, and their length."""
GAP_S, MEMORY_S = 1.0, 2.0
"""Values of the parameters gap_s and memory_s: an id that was absent for longer than both together
must not come back."""
WARM_FRAMES = 1000
"""Number of frames after which memory must not grow any more."""
INSIST_S = 0.1
"""Time in seconds without a result after which a camera that jumped sends another image."""
PATIENCE_S = 90.0


@dataclass
class Report:
    """What a soak found."""

    frames: int = 0
    """Number of images whose results arrived."""
    seconds: float = 0.0
    """Time from the first image to the last result."""
    warm_mb: float = 0.0
    """Resident memory of the segmenter after WARM_FRAMES, in MB."""
    end_mb: float = 0.0
    """Resident memory of the segmenter at the end, in MB."""
    warm_threads: int = 0
    """Number of its threads after WARM_FRAMES."""
    end_threads: int = 0
    """Number of its threads at the end."""
    exit_code: int | None = None
    """Its exit code after SIGINT."""
    ids: dict[str, int] = field(default_factory=dict)
    """Number of ids that each camera gave to tracks."""
    repeated: list[str] = field(default_factory=list)
    """Ids that came back after their tracks must have ended."""
    events: dict[str, int] = field(default_factory=dict)
    """What was done to the segmenter meanwhile, and how often."""

    @property
    def growth(self) -> float:
        """Growth of the memory after WARM_FRAMES, as a share."""
        return self.end_mb / self.warm_mb - 1 if self.warm_mb else 0.0


class Ids:
    """Watches the ids of one camera: none is given to a second object."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen_ns: dict[int, int] = {}
        self._ended: set[int] = set()
        self._resets = 0
        self.repeated: list[str] = []
        self.given = 0

    def add(self, msg: TrackArray, stamp_ns: int) -> None:
        """Take the tracks of the next image, of which the stamp is given."""
        if msg.resets != self._resets:
            self._resets = msg.resets
            self._ended |= set(self._seen_ns)  # an automatic reset ends every track
            self._seen_ns.clear()
        for id_, seen_ns in list(self._seen_ns.items()):
            if stamp_ns - seen_ns > (GAP_S + MEMORY_S) * 1e9:
                self._ended.add(id_)
                del self._seen_ns[id_]
        for track in msg.tracks:
            if track.id in self._ended:
                self.repeated.append(f'{self._name}: id {track.id} at {stamp_ns}')
                self._ended.remove(track.id)
            self.given += track.id not in self._seen_ns
            self._seen_ns[track.id] = stamp_ns

    def begin_again(self) -> None:
        """Expect ids from 1 on, after a reset that was asked for."""
        self._ended.clear()
        self._seen_ns.clear()


class Camera:
    """Images of one camera, endless, and its results."""

    def __init__(self, name: str, seed: int, node: Any) -> None:
        height, width = SIZES[name]
        self.name = name
        self.ids = Ids(name)
        self.stamp_ns = 1_700_000_000_000_000_000
        self.awaited_ns = 0
        """Stamp of the image whose result is awaited; 0 if none is."""
        self._has_jumped = False
        self._sent_s = 0.0
        self._messages = []
        for scene in range(SCENES):
            frames = Scene(seed + scene, height, width, num_frames=SCENE_FRAMES).frames()
            for image, _ in frames:
                data = array.array('B', image.tobytes())
                fields = {'height': height, 'width': width, 'step': 3 * width}
                self._messages.append(Image(**fields, encoding='rgb8', data=data))
        self._number = 0
        self._images = node.create_publisher(Image, f'{name}/image_raw', RELIABLE)
        topic = f'{name}/segmentation/tracks'
        node.create_subscription(TrackArray, topic, self._take, RELIABLE)
        self._node = node

    @property
    def is_connected(self) -> bool:
        topic = f'{self.name}/segmentation/tracks'
        return bool(self._images.get_subscription_count() and self._node.count_publishers(topic))

    def jump_back(self) -> None:
        """Let the stamps of the next images be a minute earlier."""
        self.stamp_ns -= 60_000_000_000
        self._has_jumped = True

    def insist(self) -> None:
        """Send another image after a jump if the one before may have been dropped.

        The node takes a lone jump for an outlier; the next image that it sees begins a new video.
        """
        if self._has_jumped and self.awaited_ns and time.monotonic() - self._sent_s > INSIST_S:
            self.send()

    def send(self) -> None:
        """Publish the next image."""
        msg = self._messages[self._number % len(self._messages)]
        self._number += 1
        self.stamp_ns += TICK_NS * PERIODS[self.name]
        msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(self.stamp_ns, 1_000_000_000)
        self.awaited_ns, self._sent_s = self.stamp_ns, time.monotonic()
        self._images.publish(msg)

    def send_unreadable(self) -> None:
        """Publish an image that the node must reject."""
        self._images.publish(Image(height=5, width=5, encoding='rgb8', step=15, data=bytes(7)))

    def _take(self, msg: TrackArray) -> None:
        stamp_ns = msg.header.stamp.sec * 1_000_000_000 + msg.header.stamp.nanosec
        assert self._has_jumped or stamp_ns == self.awaited_ns, 'a result of an earlier image'
        self.ids.add(msg, stamp_ns)
        if stamp_ns == self.awaited_ns:
            self.awaited_ns, self._has_jumped = 0, False


class Soak:
    """One segmenter and its four cameras."""

    def __init__(self, folder: Path, model: str, score_threshold: float, input_size: int) -> None:
        """Start everything, and wait until all are connected."""
        self._score_threshold = score_threshold
        domain = new_domain()
        self._segmenter = NodeProcess(
            folder / 'log',
            domain,
            model=model,
            cameras=f'[{", ".join(SIZES)}]',
            gap_s=GAP_S,
            memory_s=MEMORY_S,
            score_threshold=score_threshold,
            input_size=input_size,
            input_reliability='reliable',
            input_depth=100,
        )
        self._process = psutil.Process(self._segmenter.process.pid)
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._node = rclpy.create_node('cameras', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._cameras = [Camera(name, 100 * n, self._node) for n, name in enumerate(SIZES)]
        self._visitor: Any = None
        self._sent = 0
        self._report = Report()
        self._wait(lambda: all(camera.is_connected for camera in self._cameras), 'the segmenter')

    def run(self, num_frames: int, note: Callable[[Report], None] | None = None) -> Report:
        """Play this number of images, and end the segmenter.

        Args:
            num_frames: number of images of all cameras together, more than WARM_FRAMES.
            note: called with the report now and then.
        """
        begin_s, report, tick = time.monotonic(), self._report, 0
        warm, end = [], []
        while report.frames < num_frames:
            due = [camera for camera in self._cameras if tick % PERIODS[camera.name] == 0]
            for camera in due:
                camera.send()
            self._wait(self._have_all_arrived, 'the results')
            report.frames += len(due)
            tick += 1
            self._disturb(tick)
            memory_mb = self._process.memory_info().rss / 2**20
            # The mean of a while, since it rises and falls with every batch.
            if WARM_FRAMES <= report.frames < 1.1 * WARM_FRAMES:
                warm.append(memory_mb)
                report.warm_threads = self._process.num_threads()
            if num_frames - 0.1 * WARM_FRAMES <= report.frames:
                end.append(memory_mb)
            report.seconds = time.monotonic() - begin_s
            if note is not None and tick % 200 == 0:
                report.end_mb = memory_mb
                report.warm_mb = sum(warm) / max(1, len(warm))
                note(report)
        report.warm_mb, report.end_mb = sum(warm) / len(warm), sum(end) / len(end)
        self._leave()
        report.end_threads = self._process.num_threads()
        report.ids = {camera.name: camera.ids.given for camera in self._cameras}
        report.repeated = [text for camera in self._cameras for text in camera.ids.repeated]
        report.exit_code = self._segmenter.end()
        return report

    def close(self) -> None:
        """End everything."""
        self._segmenter.kill()
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _have_all_arrived(self) -> bool:
        for camera in self._cameras:
            camera.insist()
        return not any(camera.awaited_ns for camera in self._cameras)

    def _disturb(self, tick: int) -> None:
        """Do to the segmenter, between two images, what happens to one in a long life."""
        camera = self._cameras[tick // 7 % len(self._cameras)]
        if tick % 50 == 0:
            self._note('parameter')
            value = self._score_threshold + 0.1 * (tick // 50 % 2)
            self._set_parameter('score_threshold', value)
        if tick % 61 == 0:
            self._note('unreadable image')
            camera.send_unreadable()
        if tick % 70 == 0:
            self._note('gap in the stamps')
            camera.stamp_ns += round((tick % 3 + 0.5) * GAP_S * 1e9)
        if tick % 83 == 0:
            self._note('stamps back')
            camera.jump_back()
        if tick % 90 == 0:
            self._note('subscriber')
            self._leave()
            self._visit(camera.name)
        if tick % 301 == 0:
            self._note('reset')
            self._call(Trigger, f'segmenter/{camera.name}/reset', Trigger.Request())
            camera.ids.begin_again()

    def _note(self, event: str) -> None:
        self._report.events[event] = self._report.events.get(event, 0) + 1

    def _visit(self, camera: str) -> None:
        topic = f'{camera}/segmentation/overlay'
        self._visitor = self._node.create_subscription(Image, topic, lambda msg: None, RELIABLE)

    def _leave(self) -> None:
        if self._visitor is not None:
            self._node.destroy_subscription(self._visitor)
            self._visitor = None

    def _set_parameter(self, name: str, value: float) -> None:
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        self._call(SetParameters, 'segmenter/set_parameters', request)

    def _call(self, kind: Any, name: str, request: Any) -> None:
        client = self._node.create_client(kind, name)
        self._wait(client.service_is_ready, name)
        future = client.call_async(request)
        self._wait(future.done, name)
        self._node.destroy_client(client)

    def _wait(self, condition: Callable[[], Any], what: str) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            self._executor.spin_once(timeout_sec=0.05)
            assert self._segmenter.is_alive(), self._segmenter.log()
            assert time.monotonic() < deadline_s, f'waited in vain for {what}'


def soak(
    folder: Path,
    model: str,
    num_frames: int,
    score_threshold: float = 0.5,
    input_size: int = 0,
    note: Callable[[Report], None] | None = None,
) -> Report:
    """Play images through a segmenter with this model; `folder` gets its log."""
    run = Soak(folder, model, score_threshold, input_size)
    try:
        return run.run(num_frames, note)
    finally:
        run.close()


def main() -> None:
    """Run a soak and print its report as JSON, also now and then on the way."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0] if __doc__ else None)
    parser.add_argument('--frames', type=int, default=20_000)
    parser.add_argument('--model', default='demo')
    parser.add_argument('--input-size', type=int, default=0, help="0: the model's own")
    args = parser.parse_args()

    def note(report: Report) -> None:
        print(json.dumps({**asdict(report), 'growth': report.growth}), file=sys.stderr)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the segmenter ends too
    with tempfile.TemporaryDirectory() as folder:
        report = soak(Path(folder), args.model, args.frames, input_size=args.input_size, note=note)
    print(json.dumps({**asdict(report), 'growth': report.growth}, indent=2))


if __name__ == '__main__':
    main()
