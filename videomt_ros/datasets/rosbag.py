"""Image topics of a bag, readable without a ROS installation, also where the recording broke off.

rosbag2 in sqlite3 and mcap, with or without compression, as a folder or as one of its files; and
rosbag1, since the same library reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from videomt_ros.datasets.bag_repair import repaired
from videomt_ros.datasets.images import FrameError, decode_compressed_image, decode_image
from videomt_ros.datasets.source import SourceFrame

_DECODERS = {
    'sensor_msgs/msg/Image': decode_image,
    'sensor_msgs/msg/CompressedImage': decode_compressed_image,
}
_STORAGE_SUFFIXES = ('.db3', '.mcap')
_FIRST_IMAGES = 30
"""Images at the start of a bag whose times decide its rate; one of them must be readable."""


class BagError(ValueError):
    """A bag that cannot be used; the text says why."""


def is_bag(path: Path) -> bool:
    """True for what looks like a bag, be it sound or not."""
    if path.is_dir():
        return (path / 'metadata.yaml').exists() or bool(_storage_files(path))
    return path.suffix in (*_STORAGE_SUFFIXES, '.bag')


class BagImages:
    """The images of one topic of a bag, in the order and time of recording.

    Times are those at which the recorder got the images, as `ros2 bag play` keeps them; the
    images' own stamps come beside. See `datasets.source.Source`.
    """

    is_live = False

    def __init__(self, path: Path, topic: str = '') -> None:
        """Open the bag, choose the topic, and try its first images.

        Args:
            path: a bag's folder, or one .mcap, .db3 or .bag file.
            topic: of `sensor_msgs/Image` or `sensor_msgs/CompressedImage`; may be left out where
                there is one.

        Raises:
            BagError: the bag or the topic cannot be used.
        """
        self._path = path
        self.notes: list[str] = []
        self._is_cut_off = False
        with self._opened() as reader:
            topics = {c.topic: c.msgtype for c in reader.connections if c.msgtype in _DECODERS}
            self.topic = _chosen_topic(path, topics, reader.connections, topic)
            self.num_frames: int | None = sum(
                c.msgcount for c in reader.connections if c.topic == self.topic
            )
            times: list[int] = []
            first_error, is_readable = '', False
            for _, time_ns, data in self._messages(reader):
                if not is_readable:
                    error = self._error_in(reader, data, topics[self.topic])
                    first_error, is_readable = first_error or error, not error
                times.append(time_ns)
                if len(times) == _FIRST_IMAGES:
                    break
        if not times:
            raise BagError(f'Expected images on {self.topic} of {path}, got none to be read.')
        if not is_readable:
            raise BagError(f'Cannot read the images on {self.topic} of {path}: {first_error}')
        period_s = float(np.median(np.diff(times))) / 1e9 if len(times) > 1 else 0.0
        self.fps = 1 / period_s if period_s > 0 else 10.0

    @property
    def description(self) -> str:
        """What it is, for a person."""
        return (
            f'topic {self.topic} of the bag {self._path}, '
            f'{self.num_frames} images, {self.fps:.3g} a second'
        )

    def frames(self) -> Iterator[SourceFrame]:
        """The images from the first; those that cannot be read are left out, and noted."""
        num_read = 0
        faults: list[str] = []
        with self._opened() as reader:
            for connection, time_ns, data in self._messages(reader):
                num_read += 1
                try:
                    msg: Any = reader.deserialize(data, connection.msgtype)
                    image = _DECODERS[connection.msgtype](msg)
                except Exception as error:  # FrameError, or a message that is no such message
                    faults.append(str(error))
                    continue
                stamp = msg.header.stamp
                stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
                yield SourceFrame(time_ns, image, stamp_ns, msg.header.frame_id)
        if faults:
            self.notes.append(f'{len(faults)} of {num_read} images are unreadable: {faults[0]}')
        if self._is_cut_off or num_read < (self.num_frames or 0):
            announced = f' of {self.num_frames}' if num_read < (self.num_frames or 0) else ''
            self.notes.append(
                f'The bag {self._path} is damaged or was cut off: '
                f'{num_read}{announced} images on {self.topic} could be read.'
            )

    @contextmanager
    def _opened(self) -> Iterator[AnyReader]:
        """A reader of the bag, or of what is left of it."""
        # Bags of ROS before Iron carry no message definitions; images have not changed since.
        store = get_typestore(Stores.ROS2_HUMBLE)
        with ExitStack() as stack:
            try:
                if self._path.is_dir() and not (self._path / 'metadata.yaml').exists():
                    # The recorder was killed. Each of its files is a bag, too.
                    self._is_cut_off = True
                    paths = _storage_files(self._path)
                else:
                    paths = [self._path]
                reader = stack.enter_context(AnyReader(paths, default_typestore=store))
            except FileNotFoundError as error:
                raise BagError(f'Expected a bag, but there is no {self._path}.') from error
            except Exception as error:  # each storage fails in its own way
                files = _storage_files(self._path) if self._path.is_dir() else [self._path]
                try:
                    views = [stack.enter_context(repaired(file)) for file in files]
                    reader = stack.enter_context(AnyReader(views, default_typestore=store))
                except Exception:
                    raise BagError(
                        f'Expected a bag, but {self._path} cannot be read: {error}'
                    ) from error
                self._is_cut_off = True
            yield reader

    def _messages(self, reader: AnyReader) -> Iterator[tuple[Connection, int, bytes]]:
        """Messages of the topic, up to where the bag breaks off."""
        connections = [
            c for c in reader.connections if c.topic == self.topic and c.msgtype in _DECODERS
        ]
        messages = reader.messages(connections)
        while True:
            try:
                message = next(messages, None)
            except Exception:  # sqlite, lz4, zstd, struct, rosbags: all mean that it ends here
                self._is_cut_off = True
                return
            if message is None:
                return
            yield message

    @staticmethod
    def _error_in(reader: AnyReader, data: bytes, msgtype: str) -> str:
        try:
            _DECODERS[msgtype](reader.deserialize(data, msgtype))
        except FrameError as error:
            return str(error)
        except Exception as error:
            return f'{type(error).__name__}: {error}'
        return ''


def _chosen_topic(
    path: Path, image_topics: dict[str, str], connections: list[Connection], wanted: str
) -> str:
    """The topic to read; raises a BagError that lists what there is."""
    listed = ', '.join(f'{topic} ({kind})' for topic, kind in sorted(image_topics.items()))
    if not image_topics:
        others = ', '.join(sorted(f'{c.topic} ({c.msgtype})' for c in connections)) or 'none'
        raise BagError(
            f'Expected a topic of sensor_msgs/Image or CompressedImage in {path}, '
            f'got these topics: {others}.'
        )
    if wanted:
        for topic in (wanted, f'/{wanted}'):
            if topic in image_topics:
                return topic
        raise BagError(f'Expected an image topic of {path}, got {wanted!r}. It has: {listed}.')
    if len(image_topics) > 1:
        raise BagError(f'Name one of the image topics of {path} (TOPIC=, --topic): {listed}.')
    return next(iter(image_topics))


def _storage_files(folder: Path) -> list[Path]:
    """The files of a bag's folder, in the order in which they were written."""
    files = [path for path in folder.iterdir() if path.suffix in _STORAGE_SUFFIXES]
    # bag_2 comes before bag_10.
    return sorted(files, key=lambda path: (len(path.name), path.name))
