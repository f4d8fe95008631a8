"""Reads bags of ROS 1 that have their index, whatever their message definitions are."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag1,
    MessageDefinition,
    MessageDefinitionFormat,
)
from rosbags.rosbag1 import Reader
from rosbags.rosbag1.reader import Header, RecordType

from videomt_ros.datasets.bags.storage import (
    Channel,
    Definition,
    NewerFormatError,
    StoredMessage,
    ros_type,
)

_VERSION = '2.0'


class Ros1File:
    """A bag of ROS 1; see `storage.Storage`."""

    def __init__(self, path: Path) -> None:
        """Read what the bag holds.

        Raises:
            NewerFormatError: the bag is of a newer version.
            Exception: the bag is damaged, without an index, or none; rosbags raises many kinds.
        """
        self.path = path
        self.is_cut_off = False
        self.fault = ''
        self.notes: tuple[str, ...] = ()
        _check_version(path)
        with _TolerantReader(path) as reader:
            self.channels = tuple(
                Channel(
                    connection.id,
                    connection.topic,
                    connection.msgtype,
                    'ros1',
                    Definition('ros1msg', connection.msgdef.data),
                    connection.msgcount,
                )
                for connection in reader.connections
            )

    def messages(self, keys: Collection[int]) -> Iterator[StoredMessage]:
        """Read the messages of some channels in the order of time; see `Storage`."""
        with _TolerantReader(self.path) as reader:
            connections = [each for each in reader.connections if each.id in keys]
            for connection, time_ns, data in reader.messages(connections):
                yield StoredMessage(time_ns, connection.id, data)


class _TolerantReader(Reader):
    """A reader that takes every connection, also one without a definition that can be read.

    That of rosbags refuses the whole bag where one text is no UTF-8, or a field is missing.
    """

    def read_connection(self) -> Connection:
        """Read the connection record at the current position."""
        assert self.bio is not None
        outer = Header.read(self.bio, RecordType.CONNECTION)
        inner = Header.read(self.bio)
        text = {
            name: inner.get(name, b'').decode(errors='replace')
            for name in ('type', 'md5sum', 'message_definition')
        }
        topic = outer.get('topic', b'').decode(errors='replace')
        return Connection(
            outer.get_uint32('conn'),
            re.sub('/+', '/', topic).rstrip('/') or '/',
            ros_type(text['type']),
            MessageDefinition(MessageDefinitionFormat.MSG, text['message_definition']),
            text['md5sum'],
            0,
            ConnectionExtRosbag1(None, None),
            self,
        )


def _check_version(path: Path) -> None:
    with path.open('rb') as file:
        found = re.match(rb'#ROSBAG V(\d+)\.(\d+)', file.read(20))
    if found is None:
        return
    major, minor = (int(part) for part in found.groups())
    if (major, minor) > (2, 0):
        raise NewerFormatError(f'The bag of ROS 1 {path}', f'{major}.{minor}', _VERSION)
    if (major, minor) < (2, 0):
        raise ValueError(
            f'it has version {major}.{minor} of the format, older than {_VERSION}; the tools of '
            'ROS 1 convert it: rosbag fix'
        )
