"""Reads mcap files record by record, whatever their channels hold, and up to where they break off.

The list of channels and the counts come from the summary at the end of the file. Where it is
missing or incomplete, every record is looked at. The indexes of messages are not used: every chunk
that may hold messages is read, so that one without an index, or with a wrong one, loses nothing.
Format: mcap.dev/spec.
"""

from __future__ import annotations

import heapq
import reprlib
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import lz4.frame  # type: ignore[import-untyped]

from videomt_ros.datasets.bags.storage import (
    Channel,
    Definition,
    NewerFormatError,
    StoredMessage,
    ros_type,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_VERSION = ord('0')
_MAGIC = b'\x89MCAP0\r\n'
_HEAD = struct.Struct('<BQ')
"""Opcode of a record, and length in bytes of what follows."""
_MESSAGE = struct.Struct('<HIQQ')
"""Channel, sequence number, time of the log and of publication in nanoseconds."""
_CHUNK = struct.Struct('<QQQI')
"""First and last time, size without compression, and checksum."""
_STATISTICS = struct.Struct('<QHIIIIQQ')
_FOOTER_OPCODE, _SCHEMA, _CHANNEL, _MESSAGE_OPCODE, _CHUNK_OPCODE = 0x02, 0x03, 0x04, 0x05, 0x06
_STATISTICS_OPCODE, _DATA_END = 0x0B, 0x0F
_FOOTER_SIZE = _HEAD.size + 20 + len(_MAGIC)
_DECOMPRESSORS: dict[str, Callable[[memoryview], bytes | memoryview]] = {
    '': lambda data: data,
    'zstd': zstd.decompress,
    'lz4': lz4.frame.decompress,
}


class _Record(NamedTuple):
    """Place of one record in a file."""

    opcode: int
    start: int
    """Position of its content."""
    size: int
    """Length of its content in bytes."""


class _Contents:
    """The schemas, channels and numbers of messages that records tell of."""

    def __init__(self) -> None:
        self.schemas: dict[int, tuple[str, Definition]] = {}
        self.channels: dict[int, tuple[int, str, str]] = {}
        """Schema, topic and serialization of each channel."""
        self.counts: Counter[int] = Counter()
        self.num_channels: int | None = None
        """Number of channels that the statistics tell; None without statistics."""

    def add(self, opcode: int, data: memoryview) -> None:
        """Take the content of a record into account.

        Raises:
            struct.error: the record is damaged.
        """
        if opcode == _SCHEMA:
            (key,) = struct.unpack_from('<H', data)
            name, place = _text(data, 2)
            encoding, place = _text(data, place)
            text, _ = _text(data, place)
            self.schemas.setdefault(key, (name, Definition(encoding, text)))
        elif opcode == _CHANNEL:
            key, schema = struct.unpack_from('<HH', data)
            topic, place = _text(data, 4)
            serialization, _ = _text(data, place)
            self.channels.setdefault(key, (schema, topic, serialization))
        elif opcode == _STATISTICS_OPCODE:
            self.num_channels = _STATISTICS.unpack_from(data)[2]
            (size,) = struct.unpack_from('<I', data, _STATISTICS.size)
            start = _STATISTICS.size + 4
            for key, count in struct.iter_unpack('<HQ', data[start : start + size]):
                self.counts[key] = count

    def listed(self) -> tuple[Channel, ...]:
        """List the channels in the order of their numbers."""
        found = []
        for key, (schema, topic, serialization) in sorted(self.channels.items()):
            name, definition = self.schemas.get(schema, ('', Definition('', '')))
            # Schemas without a name are those of no type; serializations without one, of ROS 2.
            serialization = serialization or ('cdr' if name else '')
            found.append(
                Channel(key, topic, ros_type(name), serialization, definition, self.counts[key])
            )
        return tuple(found)


class McapFile:
    """An mcap file; see `storage.Storage`."""

    def __init__(self, path: Path) -> None:
        """Read what the file holds.

        Raises:
            NewerFormatError: a newer version wrote the file.
            ValueError: the file does not begin as an mcap file.
            OSError: the file cannot be read.
        """
        self.path = path
        self.is_cut_off = False
        self.fault = ''
        self.notes: tuple[str, ...] = ()
        self._parts: tuple[list[_Part], list[_Part]] | None = None
        with path.open('rb') as file:
            _check_magic(path, file)
            contents = self._read_summary(file)
            if contents is None:
                contents = self._read_everything(file)
        self.channels = contents.listed()

    def messages(self, keys: Collection[int]) -> Iterator[StoredMessage]:
        """Read the messages of some channels in the order of time; see `Storage`.

        Chunks that are damaged are left out.
        """
        wanted = frozenset(keys)
        with self.path.open('rb') as file:
            if self._parts is None:
                self._parts = self._find_parts(file)
            chunks, single = self._parts
            yield from heapq.merge(
                self._in_chunks(file, chunks, wanted),
                self._outside(file, single, wanted),
                key=lambda message: message.time_ns,
            )

    def _read_summary(self, file: BinaryIO) -> _Contents | None:
        """Read the summary; None if there is none, or one that does not tell all channels."""
        size = file.seek(0, 2)
        if size < len(_MAGIC) + _FOOTER_SIZE:
            return None
        file.seek(size - _FOOTER_SIZE)
        footer = file.read()
        if footer[-len(_MAGIC) :] != _MAGIC or _HEAD.unpack_from(footer) != (_FOOTER_OPCODE, 20):
            return None
        (start,) = struct.unpack_from('<Q', footer, _HEAD.size)
        end = size - _FOOTER_SIZE
        if not len(_MAGIC) <= start < end:
            return None
        file.seek(start)
        data = memoryview(file.read(end - start))
        contents = _Contents()
        try:
            for opcode, content in _records_of(data):
                contents.add(opcode, content)
        except struct.error:
            return None
        is_complete = contents.num_channels == len(contents.channels) and all(
            not schema or schema in contents.schemas for schema, _, _ in contents.channels.values()
        )
        return contents if is_complete else None

    def _read_everything(self, file: BinaryIO) -> _Contents:
        """Look at every record before the summary, and count the messages."""
        contents = _Contents()
        for record in self._records(file):
            if record.opcode in (_SCHEMA, _CHANNEL):
                self._add(contents, record.opcode, _content(file, record))
            elif record.opcode == _MESSAGE_OPCODE:
                file.seek(record.start)
                contents.counts[int.from_bytes(file.read(2), 'little')] += 1
            elif record.opcode == _CHUNK_OPCODE:
                for opcode, content in _records_of(self._chunk(file, record)):
                    if opcode == _MESSAGE_OPCODE:
                        contents.counts[int.from_bytes(content[:2], 'little')] += 1
                    elif opcode in (_SCHEMA, _CHANNEL):
                        self._add(contents, opcode, content)
        return contents

    def _add(self, contents: _Contents, opcode: int, data: memoryview) -> None:
        try:
            contents.add(opcode, data)
        except struct.error:
            self._damage('a damaged record')

    def _find_parts(self, file: BinaryIO) -> tuple[list[_Part], list[_Part]]:
        """Find the chunks and the messages outside of them, each sorted by time."""
        chunks, single = [], []
        for record in self._records(file):
            if record.opcode == _CHUNK_OPCODE and record.size >= _CHUNK.size:
                file.seek(record.start)
                (time_ns,) = struct.unpack('<Q', file.read(8))
                chunks.append(_Part(time_ns, record))
            elif record.opcode == _MESSAGE_OPCODE and record.size >= _MESSAGE.size:
                file.seek(record.start)
                time_ns = _MESSAGE.unpack(file.read(_MESSAGE.size))[2]
                single.append(_Part(time_ns, record))
        return sorted(chunks, key=_time), sorted(single, key=_time)

    def _in_chunks(
        self, file: BinaryIO, chunks: list[_Part], wanted: Collection[int]
    ) -> Iterator[StoredMessage]:
        """Read the messages of chunks that may overlap in time; few chunks are in memory."""
        waiting: list[tuple[int, int, StoredMessage]] = []
        number = 0
        for part in chunks:
            messages = list(_messages_of(self._chunk(file, part.record), wanted))
            if not messages:
                continue
            # The first time that a chunk states may be wrong, that of its messages is not.
            first_ns = min(message.time_ns for message in messages)
            while waiting and waiting[0][0] <= first_ns:
                yield heapq.heappop(waiting)[2]
            for message in messages:
                heapq.heappush(waiting, (message.time_ns, number, message))
                number += 1
        while waiting:
            yield heapq.heappop(waiting)[2]

    def _outside(
        self, file: BinaryIO, single: list[_Part], wanted: Collection[int]
    ) -> Iterator[StoredMessage]:
        for part in single:
            file.seek(part.record.start)
            if int.from_bytes(file.read(2), 'little') in wanted:
                yield _message(_content(file, part.record))

    def _chunk(self, file: BinaryIO, record: _Record) -> memoryview:
        """Read a chunk without its compression; empty if it is damaged."""
        nothing = memoryview(b'')
        data = _content(file, record)
        try:
            _, _, size, checksum = _CHUNK.unpack_from(data)
            compression, place = _text(data, _CHUNK.size)
            (packed,) = struct.unpack_from('<Q', data, place)
            place += 8
            if compression not in _DECOMPRESSORS:
                name = reprlib.repr(compression)
                self._damage(f'chunks compressed by {name}; zstd and lz4 are read')
                return nothing
            plain = memoryview(_DECOMPRESSORS[compression](data[place : place + packed]))
        except (struct.error, zstd.ZstdError, RuntimeError, MemoryError):  # the last two: lz4
            self._damage('a damaged chunk')
            return nothing
        if len(plain) != size or (checksum and zlib.crc32(plain) != checksum):
            self._damage('a damaged chunk')
            return nothing
        return plain

    def _records(self, file: BinaryIO) -> Iterator[_Record]:
        """Walk through the records before the summary, up to where the file breaks off."""
        total = file.seek(0, 2)
        place = len(_MAGIC)
        while True:
            file.seek(place)
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                break
            opcode, size = _HEAD.unpack(head)
            start = place + _HEAD.size
            if opcode in (_DATA_END, _FOOTER_OPCODE):
                return
            if not opcode or start + size > total:
                break
            yield _Record(opcode, start, size)
            place = start + size
        self.is_cut_off = True

    def _damage(self, fault: str) -> None:
        self.is_cut_off, self.fault = True, self.fault or fault


class _Part(NamedTuple):
    """A chunk, or a message outside of chunks."""

    time_ns: int
    """Its first time."""
    record: _Record


def _time(part: _Part) -> int:
    return part.time_ns


def _check_magic(path: Path, file: BinaryIO) -> None:
    start = file.read(len(_MAGIC))
    if start == _MAGIC:
        return
    if len(start) == len(_MAGIC) and start[:5] == _MAGIC[:5] and start[6:] == _MAGIC[6:]:
        raise NewerFormatError(f'The mcap file {path}', chr(start[5]), chr(_VERSION))
    raise ValueError(f'Expected an mcap file, but {path} does not begin like one.')


def _text(data: memoryview, place: int) -> tuple[str, int]:
    """Read a text with its length before it, and the position after it."""
    (size,) = struct.unpack_from('<I', data, place)
    start = place + 4
    if start + size > len(data):
        raise struct.error('a text goes beyond its record')
    return bytes(data[start : start + size]).decode(errors='replace'), start + size


def _content(file: BinaryIO, record: _Record) -> memoryview:
    file.seek(record.start)
    return memoryview(file.read(record.size))


def _records_of(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield opcode and content of each record of a chunk or of a summary."""
    place = 0
    while place + _HEAD.size <= len(data):
        opcode, size = _HEAD.unpack_from(data, place)
        start = place + _HEAD.size
        place = start + size
        if not opcode or place > len(data):
            return
        yield opcode, data[start:place]


def _messages_of(data: memoryview, wanted: Collection[int]) -> Iterator[StoredMessage]:
    """Read the messages of a chunk on some channels."""
    for opcode, content in _records_of(data):
        if opcode == _MESSAGE_OPCODE and len(content) >= _MESSAGE.size:
            message = _message(content)
            if message.key in wanted:
                yield message


def _message(content: memoryview) -> StoredMessage:
    key, _, time_ns, _ = _MESSAGE.unpack_from(content)
    return StoredMessage(time_ns, key, content[_MESSAGE.size :])
