"""The demo's recorder: subscribes to what the segmenter publishes, and keeps it.

    python -m videomt_ros.ros.recorder --folder FOLDER [--fps 10]

Until SIGINT it writes a `datasets.recording`, and prints events: `ready` once the segmenter is
active and its topics are matched, `kept` for every frame of which all outputs arrived, and
`health` for every report of the segmenter on /diagnostics.
"""

from __future__ import annotations

import argparse
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.task import Future
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image

from videomt_ros.datasets.recording import RecordingWriter
from videomt_ros.msg import Track, TrackArray
from videomt_ros.ros.conversions import stamp_from_msg
from videomt_ros.ros.events import emit

_OUTPUTS = {'tracks': TrackArray, 'instances': Image, 'overlay': Image}
_QOS = QoSProfile(depth=30, reliability=ReliabilityPolicy.RELIABLE)
_TELLS_ARRIVAL = hasattr(Subscription, 'CallbackType')
"""Whether rclpy tells a callback of two arguments when the message arrived: not before Iron."""
_MAX_WAITING = 100
"""Messages that wait to be written; beyond these the middleware holds back, and then drops."""


class RecorderNode(Node):
    """Keeps tracks, id images and overlay of one segmenter.

    Callbacks only queue what came; a thread writes it, so that a slow disk or a busy processor
    does not fill the middleware's own short queue.
    """

    def __init__(self, folder: Path, fps: float) -> None:
        super().__init__('recorder')
        self.failure: Future = Future()
        """Done with the error if a file could not be written."""
        self._counts = dict.fromkeys(_OUTPUTS, 0)
        self._num_kept = 0
        self._reports_while_ready = 0
        # Under /diagnostics come those of other namespaces, too.
        self._segmenter = f'{self.get_namespace().rstrip("/")}/segmenter: '
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(_MAX_WAITING)
        take: dict[str, Callable[..., None]] = {
            'tracks': self._take_tracks if _TELLS_ARRIVAL else self._take_tracks_now,
            'instances': self._take_instances,
            'overlay': self._take_overlay,
        }
        self._outputs = [
            self.create_subscription(kind, f'segmentation/{name}', take[name], _QOS)
            for name, kind in _OUTPUTS.items()
        ]
        self.create_subscription(DiagnosticArray, '/diagnostics', self._take_diagnostics, 10)
        # Last, so that its files are there once everything is.
        self._writer = RecordingWriter(folder, fps)
        self._thread = threading.Thread(target=self._write, name='writer', daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, complete the files, and end."""
        self._waiting.put(None)
        self._thread.join()
        self._writer.close()
        self.destroy_node()

    def _write(self) -> None:
        """In a thread: write what waits. After a failure, only take it."""
        while (task := self._waiting.get()) is not None:
            if self.failure.done():
                continue
            try:
                task()
            except Exception as error:  # a full disk, or what no writer can write
                self.failure.set_exception(error)

    def _take_tracks(self, msg: TrackArray, info: dict[str, Any]) -> None:
        # The middleware's own time of arrival, so that our writing of files is not in it.
        received_ns = info.get('received_timestamp') or time.time_ns()
        self._waiting.put(lambda: self._write_tracks(msg, received_ns))

    def _take_tracks_now(self, msg: TrackArray) -> None:
        self._take_tracks(msg, {})

    def _take_instances(self, msg: Image) -> None:
        self._waiting.put(lambda: self._write_instances(msg))

    def _take_overlay(self, msg: Image) -> None:
        self._waiting.put(lambda: self._write_overlay(msg))

    def _write_tracks(self, msg: TrackArray, received_ns: int) -> None:
        self._writer.add_tracks(
            {
                'stamp_ns': stamp_from_msg(msg.header.stamp),
                'received_ns': received_ns,
                'frame_id': msg.header.frame_id,
                'model': msg.model,
                'height': msg.height,
                'width': msg.width,
                'tracks': [track_to_record(track) for track in msg.tracks],
            }
        )
        self._count('tracks')

    def _write_instances(self, msg: Image) -> None:
        order = '>u2' if msg.is_bigendian else '<u2'
        ids = np.frombuffer(msg.data, order).reshape(msg.height, msg.step // 2)[:, : msg.width]
        self._writer.add_ids(stamp_from_msg(msg.header.stamp), ids.astype(np.uint16))
        self._count('instances')

    def _write_overlay(self, msg: Image) -> None:
        image = np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.width, 3)
        self._writer.add_overlay(stamp_from_msg(msg.header.stamp), image)
        self._count('overlay')

    def _count(self, name: str) -> None:
        self._counts[name] += 1
        num_kept = min(self._counts.values())
        if num_kept > self._num_kept:
            self._num_kept = num_kept
            emit('kept', frames=num_kept)

    def _take_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if not status.name.startswith(self._segmenter):
                continue
            health = {value.key: value.value for value in status.values}
            emit('health', **health)
            matched = all(self.count_publishers(output.topic_name) for output in self._outputs)
            if self._reports_while_ready < 2 and matched and health.get('state') == 'active':
                # The publisher may see us a moment after we see it, and we can't look into it:
                # the second report is a second later.
                self._reports_while_ready += 1
                if self._reports_while_ready == 2:
                    emit('ready')


def track_to_record(track: Track) -> dict[str, Any]:
    """All fields of a track, as JSON holds them; `mask` is what pycocotools takes, or None."""
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
    parser.add_argument('--folder', type=Path, required=True, help='new or empty')
    parser.add_argument('--fps', type=float, default=10.0, help='of overlay.mp4')
    args = parser.parse_args(remove_ros_args(sys.argv)[1:])
    node = None
    try:
        rclpy.init()
        node = RecorderNode(args.folder, args.fps)
        rclpy.spin_until_future_complete(node, node.failure)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass  # its usual end
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    if node is not None and node.failure.done():
        print(f'recorder: {node.failure.exception()}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
