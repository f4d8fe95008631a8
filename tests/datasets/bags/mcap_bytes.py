"""Mcap files written byte by byte, as any tool may write them; format: mcap.dev/spec."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lz4.frame
from rosbags.rosbag2.storage_mcap import zstd

from tests.datasets.bags.made import PERIOD_NS, START_NS, STORE, image_message

MAGIC = b'\x89MCAP0\r\n'
IMAGE = 'sensor_msgs/msg/Image'
IMAGE_DEFINITION = STORE.generate_msgdef(IMAGE, ros_version=2)[0]
PACK = {'': bytes, 'zstd': zstd.compress, 'lz4': lz4.frame.compress, 'xz': bytes}
"""Compressions; what is called xz is none that a reader knows."""
ENDING = len(bytes(9 + 4) + bytes(9 + 20) + MAGIC)
"""Bytes from the end of the data on, where there is no summary."""


class Channel(NamedTuple):
    """A channel with a schema of its own."""

    topic: str
    kind: str = IMAGE
    schema_encoding: str = 'ros2msg'
    schema: bytes = IMAGE_DEFINITION.encode()
    encoding: str = 'cdr'


class Message(NamedTuple):
    channel: int
    time_ns: int
    data: bytes


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack('<I', len(data)) + data


def record(opcode: int, content: bytes) -> bytes:
    return struct.pack('<BQ', opcode, len(content)) + content


def channel_records(channels: Sequence[Channel]) -> bytes:
    """Schemas and channels, numbered from 1 on; a channel without a type has no schema."""
    records = b''
    for key, each in enumerate(channels, start=1):
        schema = key if each.kind else 0
        if schema:
            content = text(each.kind) + text(each.schema_encoding) + text(each.schema)
            records += record(0x03, struct.pack('<H', schema) + content)
        content = text(each.topic) + text(each.encoding) + text(b'')
        records += record(0x04, struct.pack('<HH', key, schema) + content)
    return records


def message_record(message: Message) -> bytes:
    head = struct.pack('<HIQQ', message.channel, 0, message.time_ns, message.time_ns)
    return record(0x05, head + message.data)


def chunk(messages: Sequence[Message], compression: str = '', before: bytes = b'') -> bytes:
    """A chunk without an index of its messages."""
    plain = before + b''.join(message_record(message) for message in messages)
    times = [message.time_ns for message in messages] or [0]
    head = struct.pack('<QQQI', min(times), max(times), len(plain), zlib.crc32(plain))
    packed = PACK[compression](plain)
    return record(0x06, head + text(compression) + struct.pack('<Q', len(packed)) + packed)


def statistics(counts: dict[int, int], num_channels: int) -> bytes:
    content = struct.pack('<QHIIIIQQ', sum(counts.values()), 0, num_channels, 0, 0, 0, 0, 0)
    pairs = b''.join(struct.pack('<HQ', *pair) for pair in counts.items())
    return record(0x0B, content + text(pairs))


def mcap(data: bytes, summary: bytes = b'', profile: str = 'ros2') -> bytes:
    """A whole file of these records."""
    start = MAGIC + record(0x01, text(profile) + text('a tool')) + data + record(0x0F, bytes(4))
    place = len(start) if summary else 0
    return start + summary + record(0x02, struct.pack('<QQI', place, 0, 0)) + MAGIC


def image(number: int, channel: int = 1) -> Message:
    """The message of an image, 0.1 s after the one before it."""
    data = bytes(STORE.serialize_cdr(image_message(number), IMAGE))
    return Message(channel, START_NS + number * PERIOD_NS, data)


def write_mcap(
    path: Path, channels: Sequence[Channel], messages: Iterable[Message], **options: Any
) -> Path:
    """Write a file of one chunk, whose summary has everything but indexes."""
    listed = channel_records(channels)
    messages = list(messages)
    keys = [message.channel for message in messages]
    counts = {key: keys.count(key) for key in set(keys)}
    summary = listed + statistics(counts, len(channels))
    path.write_bytes(mcap(listed + chunk(messages), summary, **options))
    return path
