"""Makes readable copies of bag files: of sqlite3 files that were cut off, and of compressed ones.

A sqlite3 file that is shorter than its header says is refused by sqlite as a whole, though its
first pages are sound.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from videomt_ros.datasets.bags.sqlite_file import connect

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'


def repair(path: Path, folder: Path) -> Path:
    """Write a readable copy of a sqlite3 file that was cut off.

    Args:
        path: a .db3 file.
        folder: an existing folder for the copy.

    Returns:
        The copy, which holds everything up to the cut.

    Raises:
        OSError: the copy cannot be written.
        sqlite3.Error: not even the beginning can be read.
    """
    copy = folder / path.name
    try:
        _copy_readable_rows(path, copy)
    except sqlite3.OperationalError as error:
        if not _is_disk_full(error):
            raise
        raise OSError(errno.ENOSPC, str(error)) from error
    return copy


def has_journal(path: Path) -> bool:
    """Whether a recorder was killed before it moved its newest messages into a sqlite3 file.

    That of rosbag2 keeps them in a file beside it where `storage_preset_profile` is resilient.
    """
    journal = _journal_of(path)
    return journal.is_file() and journal.stat().st_size > 0


def join_journal(path: Path, folder: Path) -> Path:
    """Write a copy of a sqlite3 file that also holds what is in its journal.

    Args:
        path: a .db3 file for which `has_journal` is true.
        folder: an existing folder for the copy.

    Returns:
        The copy; without the journal if that is damaged.

    Raises:
        OSError: the copy cannot be written.
    """
    copy = folder / path.name
    shutil.copyfile(path, copy)
    shutil.copyfile(_journal_of(path), _journal_of(copy))
    with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(copy)) as connection:
        connection.execute('PRAGMA wal_checkpoint(TRUNCATE)')
    return copy


def _journal_of(path: Path) -> Path:
    return path.with_name(f'{path.name}-wal')


def decompress_file(source: Path, folder: Path) -> tuple[Path, bool]:
    """Decompress a file that is compressed as a whole, as far as it goes.

    Args:
        source: a zstd file, such as bag_0.mcap.zstd.
        folder: an existing folder for the copy.

    Returns:
        The copy, and whether it is complete.

    Raises:
        OSError: the copy cannot be written.
    """
    target = folder / source.stem
    with zstd.open(source, 'rb') as old, target.open('wb') as new:
        while True:
            try:
                part = old.read1()
            except (EOFError, zstd.ZstdError):  # it was cut off, or is damaged from here on
                return target, False
            if not part:
                return target, True
            new.write(part)


def decompress_message(data: Any) -> Any:
    """Decompress the bytes of a message if they are compressed.

    Only metadata.yaml says that messages are compressed, and a killed recorder writes none; no
    serialized message begins like a compressed one.
    """
    return zstd.decompress(data) if data[:4] == _ZSTD_MAGIC else data


def _copy_readable_rows(source: Path, target: Path) -> None:
    """Copy the tables of a sqlite3 bag, row by row, as far as they can be read."""
    with closing(connect(source)) as old, closing(sqlite3.connect(target)) as new:
        # This makes sqlite read a file that is shorter than its header says.
        old.execute('PRAGMA writable_schema = ON')
        tables = old.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
        # Messages come last, since the cut is among them.
        for name, statement in sorted(tables, key=lambda table: table[0] == 'messages'):
            new.execute(statement)
            rows = old.execute(f'SELECT * FROM "{name}"')
            marks = ','.join('?' * len(rows.description))
            insert = f'INSERT INTO "{name}" VALUES ({marks})'
            try:
                for row in rows:
                    new.execute(insert, row)
            except sqlite3.DatabaseError as error:
                # A row of messages that cannot be read, or that the table does not take, is the
                # cut; a full disk is an error of the same kind.
                if name != 'messages' or _is_disk_full(error):
                    raise
        new.commit()


def _is_disk_full(error: sqlite3.Error) -> bool:
    return 'disk is full' in str(error)  # Python 3.10 keeps no code of the error
