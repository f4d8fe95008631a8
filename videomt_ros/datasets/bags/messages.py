"""Messages of one topic of a bag, read without ROS, also where the recording broke off.

Bags of ROS 2 are read in sqlite3 and mcap, with or without compression, as a folder or as one of
its files; what is left of a damaged one is read, and reported. Bags of ROS 1 are read if they have
their index.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
import weakref
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from videomt_ros.datasets.bags.repair import decompress_message, repair
from videomt_ros.resources import resource

TRACK_ARRAY = 'videomt_ros/msg/TrackArray'
_STORAGE_SUFFIXES = ('.db3', '.mcap', '.zstd')


class BagError(ValueError):
    """Raised for a bag that cannot be used; the text says why."""


class BagMessage(NamedTuple):
    """One message of a bag."""

    time_ns: int
    """Time at which the recorder received the message."""
    content: Any
    """Message object of rosbags, with the fields' names as attributes."""
    kind: str
    """Type of the message, such as 'sensor_msgs/msg/Image'."""

    @property
    def stamp_ns(self) -> int:
        """Stamp in the message's header; 0 where none was set."""
        stamp = self.content.header.stamp
        return stamp.sec * 1_000_000_000 + stamp.nanosec


def is_bag(path: Path) -> bool:
    """Tell whether a path looks like a bag, damaged or not."""
    if path.is_dir():
        return (path / 'metadata.yaml').exists() or bool(_storage_files(path))
    return path.suffix in (*_STORAGE_SUFFIXES, '.bag')


@lru_cache(maxsize=1)
def message_types() -> Typestore:
    """Return the message types that bags are read with: those of ROS and of this package."""
    # Bags of ROS before Iron carry no definitions; images have not changed since.
    store = get_typestore(Stores.ROS2_HUMBLE)
    types = {}
    for name in ('Mask', 'Track', 'TrackArray'):
        text = resource('msg', f'{name}.msg').read_text(encoding='utf-8')
        types.update(get_types_from_msg(text, f'videomt_ros/msg/{name}'))
    store.register(types)
    return store


class BagTopic:
    """One topic of a bag, which can be read several times.

    Every pass gives the same messages in the same order.
    """

    def __init__(self, path: Path, kinds: Collection[str], topic: str, wanted: str) -> None:
        """Open the bag and choose the topic.

        Args:
            path: a bag's folder, or one .mcap, .db3 or .bag file.
            kinds: message types of interest.
            topic: topic to read; empty: the only one of these types.
            wanted: description of these types for errors, such as 'an image topic'.

        Raises:
            BagError: the bag or the topic cannot be used.
        """
        self.path = path
        self.is_cut_off = False
        """Whether the bag is damaged, or a pass has found it cut off."""
        self.num_faulty = 0
        """Number of messages that the last pass could not read."""
        self.first_fault = ''
        """Fault of the first message that could not be read."""
        self._kinds = frozenset(kinds)
        self._files: list[Path] = []
        connections = self._connect()
        self.topic = _chosen_topic(path, connections, self._kinds, topic, wanted)
        self.num_announced = sum(c.msgcount for c in connections if c.topic == self.topic)
        """Number of messages that the bag says it has."""

    def messages(self) -> Iterator[BagMessage]:
        """Read the messages in the order of recording, up to where the bag breaks off.

        Those that cannot be read are left out, and counted in `num_faulty`.
        """
        self.num_faulty, self.first_fault = 0, ''
        with AnyReader(self._files, default_typestore=message_types()) as reader:
            connections = [
                c for c in reader.connections if c.topic == self.topic and c.msgtype in self._kinds
            ]
            raw = reader.messages(connections)
            while True:
                try:
                    item = next(raw, None)
                except Exception:  # of sqlite, lz4, zstd, struct or rosbags: the bag ends here
                    self.is_cut_off = True
                    return
                if item is None:
                    return
                connection, time_ns, data = item
                try:
                    data = decompress_message(data)
                    content: Any = reader.deserialize(data, connection.msgtype)
                except Exception as error:  # the bytes are no such message
                    self.num_faulty += 1
                    self.first_fault = self.first_fault or f'{type(error).__name__}: {error}'
                    continue
                yield BagMessage(time_ns, content, connection.msgtype)

    def _connect(self) -> list[Connection]:
        """Set the files to read, which are copies where some were cut off.

        Returns:
            Connections that they hold.
        """
        path = self.path
        if not path.exists():
            raise BagError(f'Expected a bag, but there is no {path}.')
        files = _storage_files(path) if path.is_dir() else [path]
        # A recorder that was killed leaves no metadata.yaml, but each file is a bag, too.
        self.is_cut_off = path.is_dir() and not (path / 'metadata.yaml').exists()
        self._files = files if self.is_cut_off else [path]
        try:
            return _connections(self._files)
        except Exception as error:  # each storage fails in its own way
            reason = f'Expected a bag, but {path} cannot be read: {error}'
            if path.suffix == '.bag':
                remedy = (
                    'A bag of ROS 1 that was cut off, or whose recorder was killed, is mended by '
                    f'the command of ROS 1: rosbag reindex {path}'
                )
                raise BagError(f'{reason.rstrip(".")}. {remedy}') from error
            try:
                self._files = [self._readable(file) for file in files]
                connections = _connections(self._files)
            except Exception as failure:
                if isinstance(failure, OSError) and failure.errno == errno.ENOSPC:
                    raise BagError(
                        f'{path} was cut off, and {tempfile.gettempdir()} has no space for a '
                        'repaired copy. Set TMPDIR to a folder with more.'
                    ) from failure
                raise BagError(reason) from error
        self.is_cut_off = True
        return connections

    def _readable(self, file: Path) -> Path:
        """Return the file itself if it can be opened, otherwise a repaired copy."""
        try:
            _connections([file])
        except Exception:  # as above; what is no cut, such as a missing right, fails in the repair
            folder = tempfile.mkdtemp(prefix='videomt-bag-')
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            return repair(file, Path(folder))
        return file


def _connections(files: list[Path]) -> list[Connection]:
    with AnyReader(files, default_typestore=message_types()) as reader:
        return list(reader.connections)  # the reader empties its own list at its end


def _chosen_topic(
    path: Path, connections: list[Connection], kinds: frozenset[str], topic: str, wanted: str
) -> str:
    """Choose the topic to read; raises a BagError that lists the topics of the bag."""
    fitting = {c.topic: c.msgtype for c in connections if c.msgtype in kinds}
    listed = ', '.join(f'{name} ({kind})' for name, kind in sorted(fitting.items()))
    if not fitting:
        others = ', '.join(sorted(f'{c.topic} ({c.msgtype})' for c in connections)) or 'none'
        raise BagError(f'Expected {wanted} in {path}, got these topics: {others}.')
    if topic:
        for name in (topic, f'/{topic}'):
            if name in fitting:
                return name
        raise BagError(f'Expected {wanted} in {path}, got {topic!r}. It has: {listed}.')
    if len(fitting) > 1:
        raise BagError(f'Name one of the topics of {path} (TOPIC=, --topic): {listed}.')
    return next(iter(fitting))


def _storage_files(folder: Path) -> list[Path]:
    """List the files of a bag's folder in the order in which they were written."""
    files = [path for path in folder.iterdir() if path.suffix in _STORAGE_SUFFIXES]
    # bag_2 comes before bag_10.
    return sorted(files, key=lambda path: (len(path.name), path.name))
