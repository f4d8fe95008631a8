"""Reads the sqlite3 files of rosbag2, of all versions of their tables."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

from videomt_ros.datasets.bags.storage import (
    Channel,
    Definition,
    NewerFormatError,
    StoredMessage,
    newer,
    ros_type,
)

_VERSION = 4
"""Newest version of the tables that is known."""


class SqliteFile:
    """A sqlite3 file of a bag; see `storage.Storage`."""

    def __init__(self, path: Path) -> None:
        """Read what the file holds.

        Raises:
            NewerFormatError: the tables are of a newer version, and cannot be read.
            sqlite3.Error: the file is damaged, or no bag.
        """
        self.path = path
        self.is_cut_off = False
        self.fault = ''
        self.notes: tuple[str, ...] = ()
        with closing(connect(path)) as connection:
            version = _version(connection)
            try:
                self.channels = _channels(connection)
            except sqlite3.Error as error:
                if version > _VERSION:
                    raise NewerFormatError(f'The bag {path}', version, _VERSION) from error
                raise
        if version > _VERSION:
            self.notes = (newer(f'The bag {path}', version, _VERSION),)

    def messages(self, keys: Collection[int]) -> Iterator[StoredMessage]:
        """Read the messages of some channels in the order of time; see `Storage`."""
        marks = ','.join('?' * len(keys))
        query = (
            f'SELECT timestamp, topic_id, data FROM messages WHERE topic_id IN ({marks}) '
            'ORDER BY timestamp, rowid'
        )
        with closing(connect(self.path)) as connection:
            for time_ns, key, data in connection.execute(query, tuple(keys)):
                yield StoredMessage(time_ns, key, bytes(data))


def connect(path: Path) -> sqlite3.Connection:
    """Open a sqlite3 file that nobody writes, whatever locks are left on it."""
    connection = sqlite3.connect(f'{path.absolute().as_uri()}?immutable=1', uri=True)
    connection.text_factory = lambda text: text.decode(errors='replace')
    return connection


def _version(connection: sqlite3.Connection) -> int:
    """Read the version of the tables; 0 where none is recorded, as before ROS 2 Iron."""
    if not _columns(connection, 'schema'):
        return 0
    (version,) = connection.execute('SELECT max(schema_version) FROM schema').fetchone()
    return version or 0


def _channels(connection: sqlite3.Connection) -> tuple[Channel, ...]:
    counts = Counter(
        dict(connection.execute('SELECT topic_id, count(*) FROM messages GROUP BY topic_id'))
    )
    definitions: dict[str, Definition] = {}
    if _columns(connection, 'message_definitions'):
        rows = connection.execute(
            'SELECT topic_type, encoding, encoded_message_definition FROM message_definitions'
        )
        for kind, encoding, text in rows:
            definitions.setdefault(kind, Definition(encoding or '', text or ''))
    rows = connection.execute(
        'SELECT id, name, type, serialization_format FROM topics ORDER BY id'
    )
    return tuple(
        Channel(
            key,
            topic or '',
            ros_type(kind or ''),
            serialization or ('cdr' if kind else ''),
            definitions.get(kind, Definition('', '')),
            counts[key],
        )
        for key, topic, kind, serialization in rows
    )


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f'PRAGMA table_info({table})')]
