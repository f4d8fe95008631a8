"""Bags of ROS 1 that were cut off or never indexed, copied as far as they can be read.

A recorder that is killed leaves a bag without its index (`.bag.active`, or what `rosbag reindex`
mends), and a copy that broke off ends amid a chunk. Format: the bag file format 2.0 of the ROS
wiki: records of a header, whose fields are name=value, and data.
"""

from __future__ import annotations

import struct
from bz2 import BZ2Decompressor
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]
from rosbags.rosbag1 import Writer

_MAGIC = b'#ROSBAG V2.0\n'
_MESSAGE, _CHUNK, _CONNECTION = 2, 5, 7
_LENGTH, _TIME = struct.Struct('<I'), struct.Struct('<II')
_MAX_HEADER = 1 << 24
"""A longer header is no header, but what damage looks like."""


def copy_readable_messages(source: Path, target: Path) -> None:
    """Write a new bag with every message up to the first damage.

    Args:
        source: a bag of ROS 1.
        target: does not exist yet.

    Raises:
        ValueError: it does not begin like such a bag.
    """
    with source.open('rb') as file, Writer(target) as writer:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f'Expected a bag of ROS 1, but {source} does not begin like one.')
        known: dict[bytes, object] = {}
        added: dict[tuple[str, ...], object] = {}
        for fields, data in _in_chunks(file):
            number, code = fields.get(b'conn', b''), fields[b'op'][0]
            if code == _CONNECTION and number not in known:
                about = _fields(data)
                topic = fields[b'topic'].decode()
                kind = '/msg/'.join(about[b'type'].decode().split('/'))
                definition, digest = about[b'message_definition'], about[b'md5sum'].decode()
                key = (topic, kind, digest)  # several nodes may publish one topic
                if key not in added:
                    added[key] = writer.add_connection(
                        topic, kind, msgdef=definition.decode(), md5sum=digest
                    )
                known[number] = added[key]
            elif code == _MESSAGE and number in known:
                seconds, nanoseconds = _TIME.unpack(fields[b'time'])
                time_ns = seconds * 1_000_000_000 + nanoseconds
                writer.write(known[number], time_ns, data)  # type: ignore[arg-type]


def _in_chunks(file: BinaryIO) -> Iterator[tuple[dict[bytes, bytes], bytes]]:
    """Records of connections and messages, in the order of the file."""
    for fields, data in _records(file):
        if fields[b'op'][0] != _CHUNK:
            continue
        compression = fields.get(b'compression', b'none')
        try:
            if compression == b'bz2':
                data = BZ2Decompressor().decompress(data)
            elif compression == b'lz4':
                data = LZ4FrameDecompressor().decompress(data)
        except (OSError, RuntimeError, EOFError):
            return
        yield from _records(BytesIO(data), whole=True)


def _records(file: BinaryIO, whole: bool = False) -> Iterator[tuple[dict[bytes, bytes], bytes]]:
    """Fields and data of each record, up to the end or the first damage.

    Args:
        file: at the begin of a record.
        whole: leave out a last record whose data end early; of a chunk its begin is of use.
    """
    while len(head := file.read(_LENGTH.size)) == _LENGTH.size:
        (size,) = _LENGTH.unpack(head)
        if size > _MAX_HEADER:
            return
        fields = _fields(file.read(size))
        head = file.read(_LENGTH.size)
        if len(fields.get(b'op', b'')) != 1 or len(head) != _LENGTH.size:
            return
        (size,) = _LENGTH.unpack(head)
        data = file.read(size)
        if len(data) < size and whole:
            return
        yield fields, data


def _fields(header: bytes) -> dict[bytes, bytes]:
    """name=value of each field; those after the first damage are left out."""
    fields, place = {}, 0
    while place + _LENGTH.size <= len(header):
        (size,) = _LENGTH.unpack_from(header, place)
        place += _LENGTH.size
        name, equals, value = header[place : place + size].partition(b'=')
        if not equals or place + size > len(header):
            break
        fields[name] = value
        place += size
    return fields
