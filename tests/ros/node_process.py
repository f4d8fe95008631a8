"""A segmenter in its own process, and a peer in this one that plays its camera and its user."""

from __future__ import annotations

import array
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from videomt_ros.datasets.synthetic.scene import CLASS_NAMES, Scene
from videomt_ros.evaluation.metrics.overlap import ImageOverlaps, TrackSequence
from videomt_ros.model import NetworkConfig, build_network, load_model, save_model
from videomt_ros.msg import TrackArray
from videomt_ros.rig.processes import domain_of, hold_free_domain
from videomt_ros.ros.transports import AnyImage

PATIENCE_S = 90.0
KILLED_IS_LISTED_S = 30.0
"""Time in seconds for which peers list a node that was killed, and some more."""
RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
KINDS = {
    'tracks': TrackArray,
    **dict.fromkeys(('instances', 'semantic', 'confidence', 'mask', 'overlay'), Image),
    'overlay/compressed': CompressedImage,
    'camera_info': CameraInfo,
}
"""Types of the topics that are offered everywhere."""
TRANSITIONS = {
    'configure': Transition.TRANSITION_CONFIGURE,
    'activate': Transition.TRANSITION_ACTIVATE,
    'deactivate': Transition.TRANSITION_DEACTIVATE,
    'cleanup': Transition.TRANSITION_CLEANUP,
    'shutdown': Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
}


_held_domains: list[socket.socket] = []
_returned_domains: deque[tuple[float, socket.socket]] = deque()


def new_domain() -> int:
    """Get a ROS_DOMAIN_ID that no other test has: what an ended node left behind is not heard."""
    now_s = time.monotonic()
    while _returned_domains and now_s - _returned_domains[0][0] > KILLED_IS_LISTED_S:
        _returned_domains.popleft()[1].close()
    _held_domains.append(hold_free_domain())
    return domain_of(_held_domains[-1])


def return_domains() -> None:
    """Let others have the domains of the tests that have ended: there are no more than 101."""
    now_s = time.monotonic()
    _returned_domains.extend((now_s, lock) for lock in _held_domains)
    _held_domains.clear()


def save_random_model(path: Path, **fields: Any) -> Path:
    """Write a small network with random weights, which sees something in every image."""
    torch.manual_seed(3)
    settings = {
        'num_classes': 4,
        'embed_dim': 32,
        'depth': 3,
        'num_heads': 2,
        'patch_size': 8,
        'table_size': 64,
        'num_queries': 6,
        'num_query_blocks': 2,
        'test_size': 64,
        'size_divisor': 8,
        'class_names': ('circle', 'square', 'star', 'cross'),
        'name': 'random',
    }
    save_model(build_network(NetworkConfig(**{**settings, **fields})).eval(), path)
    return path


def save_random_pair(folder: Path) -> tuple[Path, Path]:
    """Write two networks for instances and for things and stuff, which share an encoder."""
    shared = {'architecture': 'pmt', 'propagation': 'gru'}
    path = save_random_model(folder / 'objects.safetensors', name='objects', **shared)
    first = load_model(path)
    stuff = {
        'num_classes': 3,
        'class_names': ('square', 'sky', 'road'),
        'thing_classes': (True, False, False),
        'num_queries': 8,
        'task': 'panoptic',
        'name': 'stuff',
    }
    second = load_model(save_random_model(folder / 'stuff.safetensors', **shared, **stuff))
    with torch.no_grad():
        second.backbone.load_state_dict(first.backbone.state_dict())
        # Not what the first one sees, though the seeds of both are equal.
        second.q.weight.copy_(torch.randn(second.q.weight.shape))
    save_model(second, folder / 'stuff.safetensors')
    return path, folder / 'stuff.safetensors'


_running: list[NodeProcess] = []


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Return the condition's first true value; fail the test if it takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        for process in _running:
            assert process.is_alive(), (
                f'The node ended during the wait for {what}: {process.log()}'
            )
        time.sleep(0.02)
    raise AssertionError(f'Waited {PATIENCE_S:.0f} s in vain for {what}.')


class NodeProcess:
    """`python -m videomt_ros.ros` with parameters, its output kept in a file.

    Another module may start the node in another way.
    """

    def __init__(
        self,
        log: Path,
        domain: int,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        module: str = 'videomt_ros.ros',
        **parameters: Any,
    ) -> None:
        words = list(arguments)
        for name, value in parameters.items():
            if isinstance(value, bool):
                value = str(value).lower()
            words += ['-p', f'{name}:={value}']
        self._log = log
        with log.open('w') as output:
            self.process = subprocess.Popen(
                [sys.executable, '-m', module, '--ros-args', *words],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {}), 'ROS_DOMAIN_ID': str(domain)},
            )

        _running.append(self)

    def log(self) -> str:
        return self._log.read_text()

    def num_threads(self) -> int:
        return psutil.Process(self.process.pid).num_threads()

    def memory_mb(self) -> float:
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def wait_for_log(self, text: str) -> None:
        wait_for(lambda: text in self.log(), f'{text!r} in the log')

    def end(self, number: int = signal.SIGINT) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.exit_code()

    def exit_code(self) -> int:
        """Wait for the end."""
        _running.remove(self)
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """End it, if it did not end before."""
        if self in _running:
            _running.remove(self)
        self.process.kill()
        self.process.wait()


class Peer:
    """A node in this process: publishes images, keeps what comes back, calls services."""

    def __init__(
        self,
        domain: int,
        image_qos: QoSProfile = RELIABLE,
        namespace: str = '',
        camera: str = '',
    ) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node('peer', namespace=namespace, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()
        self._camera = camera
        self._prefix = f'{camera}/' if camera else ''
        self.images = self.node.create_publisher(Image, f'{self._prefix}image_raw', image_qos)
        self.received: dict[str, dict[int, Any]] = defaultdict(dict)
        self._subscriptions: dict[str, Any] = {}
        self.statuses: dict[str, DiagnosticStatus] = {}
        self.health: dict[str, str] = {}
        self.health_name = ''
        self.health_message = ''
        self.is_warned = False
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._keep_health, 10)
        self._stamps_sent: set[int] = set()
        # A clock of today, to the nanosecond: what cuts a stamp short shows.
        self._next_stamp_ns = 1_700_000_000_123_456_789

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        self._context.try_shutdown()

    def subscribe(
        self,
        *names: str,
        qos: QoSProfile = RELIABLE,
        kind: type | None = None,
        model: str = '',
    ) -> None:
        """Listen to outputs of the segmenter, and wait until they are connected.

        Args:
            names: names of their topics under `segmentation/`.
            qos: QoS of the subscriptions.
            kind: type of the messages, if it is not that of KINDS.
            model: label of the model, where there are several; results are then kept under label,
                slash and name.
        """
        for name in names:
            key = f'{model}/{name}' if model else name
            topic = f'{self._prefix}{model}/segmentation/{name}'.replace('//', '/').lstrip('/')
            self._subscriptions[key] = self.node.create_subscription(
                kind or KINDS[name], topic, lambda msg, key=key: self._keep(key, msg), qos
            )
            wait_for(
                lambda topic=topic: self.node.count_publishers(topic), f'a publisher of {topic}'
            )

    def unsubscribe(self) -> None:
        """Listen to no outputs any more."""
        while self._subscriptions:
            self.node.destroy_subscription(self._subscriptions.popitem()[1])

    def wait_until_heard(self) -> None:
        """Wait until the segmenter listens to the images."""
        wait_for(self.images.get_subscription_count, 'a subscriber of the images')

    def send(
        self, image: np.ndarray | AnyImage, stamp_ns: int | None = None, encoding: str = 'rgb8'
    ) -> int:
        """Publish an image and return its stamp, which no image before had."""
        if stamp_ns is None:
            stamp_ns = self._next_stamp_ns
        # Results are known by their stamps: an earlier image's would pass for those of this one.
        assert stamp_ns not in self._stamps_sent, stamp_ns
        self._stamps_sent.add(stamp_ns)
        self._next_stamp_ns = stamp_ns + 33_000_000
        msg = image
        if not isinstance(image, AnyImage):
            height, width = image.shape[:2]
            data = array.array('B', np.ascontiguousarray(image).tobytes())
            msg = Image(height=height, width=width, encoding=encoding, data=data)
            msg.step = len(data) // height
        msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
        msg.header.frame_id = 'camera_optical'
        self.images.publish(msg)
        return stamp_ns

    def results(self, stamp_ns: int, *names: str) -> list[Any]:
        """Wait for what the segmenter made of the image of this stamp."""
        return [
            wait_for(lambda name=name: self.received[name].get(stamp_ns), f'{name} of {stamp_ns}')
            for name in names or self._subscriptions
        ]

    def ask(self, image: np.ndarray | AnyImage, *names: str, **fields: Any) -> list[Any]:
        """Publish an image and wait for the outputs, by default all that were subscribed."""
        return self.results(self.send(image, **fields), *names)

    def call(self, kind: Any, name: str, request: Any, is_question: bool = False) -> Any:
        """Call a service of the segmenter.

        Args:
            kind: type of the service.
            name: its name below the node's.
            request: what is asked.
            is_question: whether it changes nothing, so that it may be asked again.
        """
        client = self.node.create_client(kind, f'segmenter/{name}')
        try:
            assert client.wait_for_service(PATIENCE_S), name
            futures = [client.call_async(request)]
            asked_s = time.monotonic()

            def reply() -> Any:
                nonlocal asked_s
                if is_question and time.monotonic() - asked_s > 5:
                    # DDS loses a reply that leaves before the two ends know each other.
                    futures.append(client.call_async(request))
                    asked_s = time.monotonic()
                return next((future for future in futures if future.done()), None)

            return wait_for(reply, f'the reply of {name}').result()
        finally:
            self.node.destroy_client(client)

    def begin_transition(self, transition: str) -> Any:
        """Ask for a transition; gives the future of the reply."""
        client = self.node.create_client(ChangeState, 'segmenter/change_state')
        assert client.wait_for_service(PATIENCE_S)
        request = ChangeState.Request()
        request.transition.id = TRANSITIONS[transition]
        return client.call_async(request)

    def set_parameters(self, **values: Any) -> list[Any]:
        """Set parameters; the results say what was refused, and why."""
        parameters = [
            Parameter(name, *(() if value != [] else (Parameter.Type.STRING_ARRAY,)), value=value)
            for name, value in values.items()
        ]
        request = SetParameters.Request(parameters=[p.to_parameter_msg() for p in parameters])
        return self.call(SetParameters, 'set_parameters', request).results

    def change_state(self, transition: str | int, label: str = '') -> bool:
        """Ask for a transition by its name here or by a number, or by ROS's label."""
        request = ChangeState.Request()
        request.transition.id = TRANSITIONS.get(transition, transition)
        request.transition.label = label
        return self.call(ChangeState, 'change_state', request).success

    def state(self) -> str:
        reply = self.call(GetState, 'get_state', GetState.Request(), is_question=True)
        return reply.current_state.label

    def wait_for_state(self, state: str) -> None:
        wait_for(lambda: self.state() == state, f'the state {state}')

    def enable(self, is_enabled: bool, camera: str = '') -> SetBool.Response:
        name = f'{camera}/enable' if camera else 'enable'
        return self.call(SetBool, name, SetBool.Request(data=is_enabled))

    def reset(self) -> Trigger.Response:
        """Reset the camera of this peer."""
        return self.call(Trigger, f'{self._prefix}reset', Trigger.Request())

    def counts(self) -> dict[str, int]:
        """Wait for the next report, and return its counts."""
        self.health = {}
        wait_for(lambda: self.health, 'diagnostics')
        names = ('received', 'processed', 'dropped', 'rejected', 'failed')
        return {name: int(self.health[name]) for name in names}

    def wait_for_warning(self, *words: str) -> None:
        """Wait until the diagnostics warn with these words; without words, until they are OK."""

        def is_warned() -> bool:
            self.counts()
            return self.is_warned == bool(words) and all(w in self.health_message for w in words)

        wait_for(is_warned, f'a warning of {words}' if words else 'the end of the warning')

    def wait_for_rise(self, before: dict[str, int], total: int, **rises: int) -> dict[str, int]:
        """Wait until more images were received and finished; return what became of them.

        Args:
            before: counts to start from.
            total: images received since.
            rises: by how much some counts must have risen.
        """

        def settled() -> dict[str, int] | None:
            now = self.counts()
            rise = {name: now[name] - before[name] for name in now}
            received = rise.pop('received')
            done = received == total == sum(rise.values())
            return rise if done and rises.items() <= rise.items() else None

        return wait_for(settled, f'{total} images to be accounted for, {rises}')

    def _keep(self, name: str, msg: Any) -> None:
        stamp = msg.header.stamp
        self.received[name][stamp.sec * 1_000_000_000 + stamp.nanosec] = msg

    def _keep_health(self, msg: DiagnosticArray) -> None:
        wanted = f': {self._camera} frames'.replace(':  ', ': ')
        for status in msg.status:
            self.statuses[status.name] = status
            if not status.name.endswith(wanted):
                continue
            self.health_name = status.name
            self.health_message = status.message
            self.is_warned = status.level == DiagnosticStatus.WARN
            self.health = {item.key: item.value for item in status.values}


@contextmanager
def segmenter(folder: Path, model: str, *outputs: str) -> Iterator[Peer]:
    """A peer that hears these outputs of a segmenter with a shipped model; `folder` is its own."""
    domain = new_domain()
    process = NodeProcess(folder / 'log', domain, model=model, input_reliability='reliable')
    peer = Peer(domain)
    try:
        peer.wait_for_state('active')
        peer.wait_until_heard()
        peer.subscribe(*outputs)
        yield peer
    finally:
        peer.close()
        process.kill()


def pixels(msg: Image) -> np.ndarray:
    """The array of a message that the segmenter published."""
    dtype, channels = {
        'rgb8': (np.uint8, 3),
        'mono8': (np.uint8, 1),
        'mono16': (np.dtype('>u2' if msg.is_bigendian else '<u2'), 1),
        '32SC1': (np.dtype('>i4' if msg.is_bigendian else '<i4'), 1),
    }[msg.encoding]
    array_ = np.frombuffer(msg.data, dtype).reshape(msg.height, msg.width, channels)
    return array_[..., 0] if channels == 1 else array_


def thing_sequences(
    scene: Scene, frames: Iterable[tuple[np.ndarray, np.ndarray, Mapping[int, int]]]
) -> list[TrackSequence]:
    """Overlaps of the things of a scene with tracks.

    Args:
        scene: whose things are looked for.
        frames: true ids (H, W), track ids (H, W), and the class of each track that is a thing.
    """
    is_thing = {class_id: class_id < len(CLASS_NAMES) for class_id in scene.class_of.values()}
    truth = [{'id': i, 'category_id': k, 'iscrowd': 0} for i, k in scene.class_of.items()]
    overlaps = ImageOverlaps(is_thing)
    for true_ids, ids, classes in frames:
        # Pixels of id 0 would count as void, but a track on the background is wrong.
        true_pixels = np.where(true_ids, true_ids, 10_000).astype(np.uint32)
        tracks = [{'id': i, 'category_id': k} for i, k in classes.items()]
        overlaps.update(true_pixels, truth, ids.astype(np.uint32), tracks)
    return overlaps.sequences('scene')


def ids_of(tracks: TrackArray) -> Sequence[int]:
    """Track ids in a message, in its order."""
    return [track.id for track in tracks.tracks]
