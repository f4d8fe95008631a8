"""The recorder of a run: subscribes to what the segmenter publishes, and writes it to files.

    python -m videomt_ros.rig.recorder --folder FOLDER [--fps 10]
    python -m videomt_ros.rig.recorder --bag BAG

Until SIGINT it writes a `datasets.recording`, or the lists of tracks unchanged into a rosbag2
(mcap). It prints events: `ready` once the segmenter is active, its topics are matched and it was
reset, `kept` when all results of one more image are written, and `health` for every report of the
segmenter on /diagnostics.
"""

from __future__ import annotations

import argparse
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rclpy.subscription import Subscription
from rclpy.task import Future
from rclpy.utilities import remove_ros_args
from rosbags.rosbag2 import StoragePlugin, Writer
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from videomt_ros.datasets.bags.messages import TRACK_ARRAY, message_types
from videomt_ros.datasets.recording import RecordingWriter
from videomt_ros.msg import Track, TrackArray
from videomt_ros.rig.processes import emit
from videomt_ros.ros.conversions import stamp_from_msg
from videomt_ros.ros.ending import end_process

_QOS = QoSProfile(depth=30, reliability=ReliabilityPolicy.RELIABLE)
_TELLS_ARRIVAL = hasattr(Subscription, 'CallbackType')
"""Whether rclpy passes the time of arrival to callbacks with two arguments, as from Iron on."""
_MAX_WAITING = 100
"""Largest number of messages that wait to be written; further ones wait in the middleware, which
then drops some."""


class Storage(Protocol):
    """Files that a recorder writes, from its writing thread."""

    outputs: ClassVar[dict[str, type]]
    """Topics under `segmentation/` that are written, and their types."""

    def write(self, name: str, msg: Any, received_ns: int) -> None:
        """Write a message of one of these topics."""
        ...

    def close(self) -> None:
        """Complete the files."""
        ...


class FolderStorage:
    """Writes tracks, id images and overlay as a `datasets.recording`."""

    outputs: ClassVar[dict[str, type]] = {
        'tracks': TrackArray,
        'instances': Image,
        'overlay': Image,
    }

    def __init__(self, folder: Path, fps: float) -> None:
        self._writer = RecordingWriter(folder, fps)

    def write(self, name: str, msg: Any, received_ns: int) -> None:
        """Write a message."""
        stamp_ns = stamp_from_msg(msg.header.stamp)
        if name == 'overlay':
            image = np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.width, 3)
            self._writer.add_overlay(stamp_ns, image)
        elif name == 'instances':
            order = '>u2' if msg.is_bigendian else '<u2'
            ids = np.frombuffer(msg.data, order).reshape(msg.height, msg.step // 2)
            self._writer.add_ids(stamp_ns, ids[:, : msg.width].astype(np.uint16))
        else:
            self._writer.add_tracks(
                {
                    'stamp_ns': stamp_ns,
                    'received_ns': received_ns,
                    'frame_id': msg.header.frame_id,
                    'model': msg.model,
                    'height': msg.height,
                    'width': msg.width,
                    'tracks': [track_to_record(track) for track in msg.tracks],
                }
            )

    def close(self) -> None:
        """Complete the files."""
        self._writer.close()


class BagStorage:
    """Writes the lists of tracks, unchanged to the byte, into a new bag."""

    outputs: ClassVar[dict[str, type]] = {'tracks': TrackArray}

    def __init__(self, bag: Path, topic: str) -> None:
        self._writer = Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        # With the message definition, the bag can be read without this package.
        self._connection = self._writer.add_connection(
            topic, TRACK_ARRAY, typestore=message_types()
        )

    def write(self, name: str, msg: Any, received_ns: int) -> None:
        """Write a message."""
        del name
        self._writer.write(self._connection, received_ns, serialize_message(msg))

    def close(self) -> None:
        """Write the index and metadata.yaml."""
        self._writer.close()


class RecorderNode(Node):
    """Records what one segmenter publishes.

    Callbacks only queue the messages and a thread writes them, so that a slow disk or a busy
    processor does not fill the short queue of the middleware.
    """

    def __init__(self, segmenter: str, kind: type[Storage], *args: Any) -> None:
        """Subscribe, and open the files.

        Args:
            segmenter: name of the segmenter's node, in the namespace of this one.
            kind: class of the storage.
            args: arguments of its constructor.
        """
        super().__init__('recorder')
        self.failure: Future = Future()
        """Future that is done, with the error, once a file could not be written."""
        self._counts = dict.fromkeys(kind.outputs, 0)
        self._num_kept = 0
        self._reports_while_ready = 0
        self._reset = self.create_client(Trigger, f'{segmenter}/reset')
        # /diagnostics also carries the reports of segmenters in other namespaces.
        self._segmenter = f'{self.get_namespace().rstrip("/")}/{segmenter}: frames'
        self._waiting: queue.Queue[tuple[str, Any, int] | None] = queue.Queue(_MAX_WAITING)
        self._outputs = [
            self.create_subscription(type_, f'segmentation/{name}', self._taker(name), _QOS)
            for name, type_ in kind.outputs.items()
        ]
        self.create_subscription(DiagnosticArray, '/diagnostics', self._take_diagnostics, 10)
        # Last, so that the existence of the files means that the recorder is complete.
        self._storage = kind(*args)
        self._thread = threading.Thread(target=self._write, name='writer', daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write the messages that wait, complete the files, and destroy the node."""
        self._waiting.put(None)
        self._thread.join()
        self._storage.close()
        self.destroy_node()

    def _taker(self, name: str) -> Callable[..., None]:
        """Make the callback of a topic, which queues the message with its time of arrival."""

        def take(msg: Any, info: dict[str, Any]) -> None:
            # The time of the middleware, which does not include our writing of files.
            self._waiting.put((name, msg, info.get('received_timestamp') or time.time_ns()))

        def take_now(msg: Any) -> None:
            take(msg, {})

        return take if _TELLS_ARRIVAL else take_now

    def _write(self) -> None:
        """Write the messages that wait; runs in a thread. After a failure, discard them."""
        while (item := self._waiting.get()) is not None:
            if self.failure.done():
                continue
            try:
                self._storage.write(*item)
                self._count(item[0])
            except Exception as error:  # such as a full disk
                self.failure.set_exception(error)

    def _count(self, name: str) -> None:
        self._counts[name] += 1
        num_kept = min(self._counts.values())
        if num_kept > self._num_kept:
            self._num_kept = num_kept
            emit('kept', frames=num_kept)

    def _take_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if status.name != self._segmenter:
                continue
            health = {value.key: value.value for value in status.values}
            emit('health', **health)
            matched = all(self.count_publishers(output.topic_name) for output in self._outputs)
            matched = matched and self._reset.service_is_ready()
            if self._reports_while_ready < 2 and matched and health.get('state') == 'active':
                # The publisher may discover us a moment after we discover it; by its second
                # report, which comes a second later, it has.
                self._reports_while_ready += 1
                if self._reports_while_ready == 2:
                    self._begin()

    def _begin(self) -> None:
        """Have the segmenter begin a new video.

        One that runs already has seen other stamps, and would take the first image for an outlier.
        """
        future = self._reset.call_async(Trigger.Request())
        future.add_done_callback(lambda _: emit('ready'))


def track_to_record(track: Track) -> dict[str, Any]:
    """Convert a track to a JSON object; `mask` is an RLE as pycocotools takes it, or None."""
    mask = track.mask
    return {
        'id': track.id,
        'class_id': track.class_id,
        'class_name': track.class_name,
        'is_thing': track.is_thing,
        'score': round(track.score, 4),
        'state': {Track.TENTATIVE: 'tentative', Track.CONFIRMED: 'confirmed', Track.LOST: 'lost'}[
            track.state
        ],
        'age': track.age,
        'last_seen_ns': stamp_from_msg(track.last_seen),
        'box_xyxy': [
            track.box.x_offset,
            track.box.y_offset,
            track.box.x_offset + track.box.width,
            track.box.y_offset + track.box.height,
        ],
        'area': track.area,
        'mask': {'size': [mask.height, mask.width], 'counts': mask.counts}
        if mask.counts
        else None,
    }


def main() -> int:
    """Record until SIGINT or SIGTERM.

    Returns:
        0 if the files are complete; 1 if one could not be written.
    """
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0] if __doc__ else None)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument('--folder', type=Path, help='new or empty')
    place.add_argument('--bag', type=Path, help='new; keeps the lists of tracks alone')
    parser.add_argument('--fps', type=float, default=10.0, help='of overlay.mp4')
    parser.add_argument('--topic', default='/segmentation/tracks', help='in the bag')
    parser.add_argument('--segmenter', default='segmenter', help='name of its node')
    args = parser.parse_args(remove_ros_args(sys.argv)[1:])
    node = None
    # rclpy ends a spin at a signal by itself. The KeyboardInterrupt of Python's own handler could
    # come while a callback holds the lock of the queue, and `close` would wait for it for ever.
    interrupts: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    try:
        rclpy.init()
        if interrupts:
            return 0
        if args.bag is not None:
            node = RecorderNode(args.segmenter, BagStorage, args.bag, args.topic)
        else:
            node = RecorderNode(args.segmenter, FolderStorage, args.folder, args.fps)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        # Not `spin_until_future_complete`, which adds a callback to the future at each turn.
        while rclpy.ok() and not node.failure.done():
            executor.spin_once(timeout_sec=0.5)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass  # the usual end
    except RuntimeError:
        if rclpy.ok():
            raise  # otherwise a signal has shut down the context of a call
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    if node is not None and node.failure.done():
        print(f'recorder: {node.failure.exception()}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    end_process(main())
