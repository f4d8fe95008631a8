"""The interface of the files of a bag: what is recorded in them, and its bytes.

A file is read without any of its message definitions, so that a topic that nobody asked for is
never in the way. `messages.py` interprets the bytes of the topic that was chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

SERIALIZATIONS = ('cdr', 'ros1')
"""Serializations of messages that can be read: those of ROS 2 and of ROS 1."""


class NewerFormatError(ValueError):
    """Raised for a file whose format is newer than this reader; the text says which."""

    def __init__(self, what: str, version: object, known: object) -> None:
        """Build the error.

        Args:
            what: description of the file, as the beginning of a sentence.
            version: version of its format.
            known: newest version that can be read.
        """
        super().__init__(newer(what, version, known))


def newer(what: str, version: object, known: object) -> str:
    """Say that a format is newer than this reader, as a clause without a full stop."""
    return f'{what} has version {version}, newer than this reader, which knows up to {known}'


class Definition(NamedTuple):
    """Definition of a message type as a file holds it."""

    encoding: str
    """Language of the text: ros2msg, ros2idl, ros1msg or another; empty where there is none."""
    text: str


class Channel(NamedTuple):
    """Messages of one type on one topic of a file. A topic may have several."""

    key: int
    """Number of the channel within its file."""
    topic: str
    kind: str
    """Type of the messages, such as 'sensor_msgs/msg/Image'; empty where none is recorded."""
    serialization: str
    """How the messages are serialized: 'cdr', 'ros1', or what other tools write."""
    definition: Definition
    num_messages: int
    """Number of messages, as the file announces it."""

    @property
    def described_kind(self) -> str:
        """Type of the messages for people, with the serialization where it cannot be read."""
        kind = self.kind or 'no type'
        if self.serialization in SERIALIZATIONS:
            return kind
        return f'{kind} as {self.serialization or "unknown bytes"}'


class StoredMessage(NamedTuple):
    """One message of a file."""

    time_ns: int
    """Time at which the recorder received it."""
    key: int
    """Key of its channel."""
    data: bytes | memoryview


class Storage(Protocol):
    """One file of a bag, which can be read several times."""

    path: Path
    channels: tuple[Channel, ...]
    """Everything that is recorded in the file."""
    is_cut_off: bool
    """Whether the file is damaged or breaks off, as far as that is known by now."""
    fault: str
    """What is wrong with the first damaged part, if that is known; otherwise empty."""
    notes: tuple[str, ...]
    """Remarks on the file, each a clause without a full stop."""

    def messages(self, keys: Collection[int]) -> Iterator[StoredMessage]:
        """Read the messages of some channels in the order of time.

        Those of equal times come in the order of the file. The end of a file that breaks off is
        an exception of any kind, or the end of the iteration.
        """
        ...


def ros_type(name: str) -> str:
    """Return the ROS 2 name of a message type.

    >>> ros_type('sensor_msgs/Image')
    'sensor_msgs/msg/Image'
    """
    name = name.replace('::', '/')
    package, slash, rest = name.partition('/')
    return f'{package}/msg/{rest}' if slash and '/' not in rest else name
