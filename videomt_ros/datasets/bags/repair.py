"""Repairs bag files that were cut off, in copies that are readable up to the cut.

An mcap file ends in an index and a footer, which a recorder writes last; without them a reader
can still walk through its records. Format: mcap.dev/spec. A sqlite3 file that is shorter than its
header says is refused by sqlite as a whole, though its first pages are sound.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
import struct
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MCAP_MAGIC = b'\x89MCAP0\r\n'
_ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
_RECORD_HEAD = struct.Struct('<BQ')
"""Opcode of a record, and length in bytes of what follows."""
_DATA_END, _FOOTER = 0x0F, 0x02
_LAST_DATA_RECORD = 0x0A
"""Records of these opcodes and below hold data or their index; those above, the summary."""


def repair(path: Path, folder: Path) -> Path:
    """Write a readable copy of a file that was cut off.

    Args:
        path: an .mcap or .db3 file, or one that is compressed as a whole (.mcap.zstd).
        folder: an existing folder for the copy.

    Returns:
        The copy, which holds everything up to the cut.

    Raises:
        OSError: the copy cannot be written.
        ValueError: not even the beginning can be read, or the file is of another kind.
        sqlite3.Error: not even the beginning can be read.
    """
    copy = folder / path.name
    if path.suffix == '.mcap':
        _copy_whole_records(path, copy)
    elif path.suffix == '.db3':
        try:
            _copy_readable_rows(path, copy)
        except sqlite3.OperationalError as error:
            if not _is_disk_full(error):
                raise
            raise OSError(errno.ENOSPC, str(error)) from error
    elif path.suffix == '.zstd':
        plain = folder / path.stem
        _decompress_readable(path, plain)
        (folder / 'repaired').mkdir(exist_ok=True)
        copy = repair(plain, folder / 'repaired')
        plain.unlink()
    else:
        raise ValueError(f'Expected an .mcap or .db3 file, got {path}.')
    return copy


def decompress_message(data: Any) -> Any:
    """Decompress the bytes of a message if they are compressed.

    Only metadata.yaml says that messages are compressed, and a killed recorder writes none; no
    serialized message begins like a compressed one.
    """
    return zstd.decompress(data) if data[:4] == _ZSTD_MAGIC else data


def _copy_whole_records(source: Path, target: Path) -> None:
    """Copy an mcap file up to its last complete record, and end the copy as the format asks."""
    size = _size_of_whole_records(source)
    shutil.copyfile(source, target)
    with target.open('r+b') as file:
        file.truncate(size)
        file.seek(size)
        file.write(_RECORD_HEAD.pack(_DATA_END, 4) + bytes(4))
        # The footer announces no summary, so that the reader walks through the records.
        file.write(_RECORD_HEAD.pack(_FOOTER, 20) + bytes(20) + _MCAP_MAGIC)


def _size_of_whole_records(path: Path) -> int:
    """Count the bytes of an mcap file up to the end of its last complete record."""
    total = path.stat().st_size
    with path.open('rb') as file:
        if file.read(len(_MCAP_MAGIC)) != _MCAP_MAGIC:
            raise ValueError(f'Expected an mcap file, but {path} does not begin like one.')
        size = file.tell()
        while len(head := file.read(_RECORD_HEAD.size)) == _RECORD_HEAD.size:
            opcode, length = _RECORD_HEAD.unpack(head)
            end = size + _RECORD_HEAD.size + length
            if end > total or not 0 < opcode <= _LAST_DATA_RECORD:
                break
            size = end
            file.seek(size)
    return size


def _decompress_readable(source: Path, target: Path) -> None:
    """Decompress a zstd file as far as it goes."""
    with zstd.open(source, 'rb') as old, target.open('wb') as new:
        while True:
            try:
                part = old.read1()
            except (EOFError, zstd.ZstdError):  # it was cut off, or is damaged from here on
                return
            if not part:
                return
            new.write(part)


def _copy_readable_rows(source: Path, target: Path) -> None:
    """Copy the tables of a sqlite3 bag, row by row, as far as they can be read."""
    uri = f'file:{source}?immutable=1'
    with closing(sqlite3.connect(uri, uri=True)) as old, closing(sqlite3.connect(target)) as new:
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
