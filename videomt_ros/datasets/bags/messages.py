"""Messages of one topic of a bag, read without ROS, also where the recording broke off.

Bags of ROS 2 are read in sqlite3 and mcap, with or without compression, as a folder or as one of
its files; what is left of a damaged one is read, and reported. Bags of ROS 1 are read if they have
their index. What else a bag holds does not matter: only the definition of the topic that is read
is interpreted.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from videomt_ros.datasets.bags.files import BagError, open_files
from videomt_ros.datasets.bags.repair import decompress_message
from videomt_ros.datasets.bags.storage import SERIALIZATIONS, Channel, Storage, StoredMessage
from videomt_ros.resources import resource

TRACK_ARRAY = 'videomt_ros/msg/TrackArray'
_IDL_SEPARATOR = '=' * 80 + '\n'


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


@lru_cache(maxsize=1)
def _ros1_types() -> Typestore:
    return get_typestore(Stores.ROS1_NOETIC)


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
        self.num_faulty = 0
        """Number of messages that the last pass could not read."""
        self.first_fault = ''
        """Fault of the first message that could not be read."""
        self._files = open_files(path, self)
        self.notes = self._files.notes
        """Remarks on the bag for the user, such as a file that is missing, each a sentence."""
        channels = [channel for file in self._files.storages for channel in file.channels]
        try:
            self.topic = _chosen_topic(path, channels, frozenset(kinds), topic, wanted)
        except BagError as error:
            if lost := self._lost():
                raise BagError(f'{error} {lost}') from None
            raise
        self._readers: list[tuple[Storage, dict[int, _Reader]]] = []
        for file in self._files.storages:
            readers = {
                channel.key: _Reader(channel)
                for channel in file.channels
                if channel.topic == self.topic and _is_readable(channel, kinds)
            }
            if readers:
                self._readers.append((file, readers))
        stored = [r.channel for _, readers in self._readers for r in readers.values()]
        self.num_stored = sum(channel.num_messages for channel in stored)
        """Number of messages that the files say they have."""
        announced = {(channel.topic, channel.kind) for channel in stored}
        self.num_announced = max(
            self.num_stored, sum(self._files.announced[name] for name in announced)
        )
        """Number of messages that the bag says it has, with those of files that are missing."""

    @property
    def is_cut_off(self) -> bool:
        """Whether the bag is damaged, or a pass has found it cut off."""
        return self._files.is_damaged or any(file.is_cut_off for file in self._files.storages)

    def _lost(self) -> str:
        """Say which files may have held more topics than could be read; empty if none."""
        notes = [
            f'{file.path} is damaged or was cut off{f" ({file.fault})" if file.fault else ""}.'
            for file in self._files.storages
            if file.is_cut_off
        ]
        return ' '.join([*self.notes, *notes])

    def messages(self) -> Iterator[BagMessage]:
        """Read the messages in the order of recording, up to where the bag breaks off.

        Those that cannot be read are left out, and counted in `num_faulty`.
        """
        self.num_faulty, self.first_fault = 0, ''
        parts = [self._read(file, readers) for file, readers in self._readers]
        joined: Iterator[tuple[_Reader, StoredMessage]]
        if self._files.is_in_order:
            joined = chain.from_iterable(parts)
        else:
            joined = heapq.merge(*parts, key=lambda item: item[1].time_ns)
        for reader, message in joined:
            try:
                content = reader.deserialize(decompress_message(message.data))
            except Exception as error:  # the bytes are no such message
                self.num_faulty += 1
                self.first_fault = self.first_fault or f'{type(error).__name__}: {error}'
                continue
            yield BagMessage(message.time_ns, content, reader.channel.kind)

    def _read(
        self, file: Storage, readers: dict[int, _Reader]
    ) -> Iterator[tuple[_Reader, StoredMessage]]:
        """Read one file, up to where it breaks off."""
        try:
            for message in file.messages(readers):
                yield readers[message.key], message
        except Exception as error:  # of sqlite, struct or rosbags: the file ends here
            file.is_cut_off, file.fault = True, file.fault or str(error)
        self.first_fault = self.first_fault or file.fault


class _Reader:
    """Deserializes the messages of a channel, by its own definition if that can be used."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        is_ros1 = channel.serialization == 'ros1'
        store = _own_types(channel) or (_ros1_types() if is_ros1 else message_types())
        read = store.deserialize_ros1 if is_ros1 else store.deserialize_cdr
        self.deserialize: Callable[[bytes | memoryview], Any] = partial(
            read, typename=channel.kind
        )


def _own_types(channel: Channel) -> Typestore | None:
    """Return the types of a channel's definition; None if that is missing, wrong or partial."""
    encoding, text = channel.definition
    try:
        if encoding in ('ros2msg', 'ros1msg'):
            types = get_types_from_msg(text, channel.kind)
        elif encoding in ('ros2idl', 'omgidl'):
            types = {}
            for part in filter(None, text.split(_IDL_SEPARATOR)):
                # Where several types follow each other, a line with the name begins each.
                is_named = part.startswith('IDL: ')
                types.update(get_types_from_idl(part.partition('\n')[2] if is_named else part))
        else:
            return None
        store = get_typestore(Stores.EMPTY)
        store.register(types)
        fields = [name for name, _ in store.fielddefs[channel.kind][1]]
        store.get_msgdef(channel.kind)
    except Exception:  # of parsers and of generated code
        return None
    return store if 'header' in fields else None


def _is_readable(channel: Channel, kinds: Collection[str]) -> bool:
    return channel.kind in kinds and channel.serialization in SERIALIZATIONS


def _chosen_topic(
    path: Path, channels: list[Channel], kinds: frozenset[str], topic: str, wanted: str
) -> str:
    """Choose the topic to read; raises a BagError that lists the topics of the bag."""
    fitting = {c.topic for c in channels if _is_readable(c, kinds)}
    listed = _listed(c for c in channels if c.topic in fitting)
    others = _listed(c for c in channels if c.topic not in fitting)
    if not fitting:
        raise BagError(f'Expected {wanted} in {path}, got these topics: {others or "none"}.')
    if topic:
        for name in (topic, f'/{topic}'):
            if name in fitting:
                return name
        other = f' Its other topics: {others}.' if others else ''
        raise BagError(f'Expected {wanted} in {path}, got {topic!r}. It has: {listed}.{other}')
    if len(fitting) > 1:
        raise BagError(f'Name one of the topics of {path} (TOPIC=, --topic): {listed}.')
    return next(iter(fitting))


def _listed(channels: Iterator[Channel]) -> str:
    """List topics with their types, each once."""
    return ', '.join(sorted({f'{c.topic} ({c.described_kind})' for c in channels}))
