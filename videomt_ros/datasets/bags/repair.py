"""Bag files that were cut off, made readable again up to the cut; the files stay as they are.

An mcap file ends in an index and a footer, which a recorder writes last; without them a reader
can still walk through its records. Format: mcap.dev/spec. A sqlite3 file that is shorter than its
header says is refused by sqlite as a whole, though its first pages are sound. `bag_repair_ros1`
does the same for bags of ROS 1.
"""

from __future__ import annotations

import io
import sqlite3
import struct
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from videomt_ros.datasets.bags.repair_ros1 import copy_readable_messages

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ['repaired', 'zstd']

_MCAP_MAGIC = b'\x89MCAP0\r\n'
_RECORD_HEAD = struct.Struct('<BQ')  # opcode, length of what follows
_DATA_END, _FOOTER = 0x0F, 0x02
_LAST_DATA_RECORD = 0x0A
"""Records of these opcodes and below hold data or their index; those above, the summary."""


@contextmanager
def repaired(path: Path) -> Iterator[Any]:
    """Make a cut off file readable.

    Args:
        path: an .mcap, .db3 or .bag file, or one that is compressed as a whole (.mcap.zstd).

    Yields:
        What rosbags takes for a path: it holds everything up to the cut.

    Raises:
        ValueError: not even its beginning can be read, or it is of another kind.
        sqlite3.Error: as above, found by sqlite.
    """
    if path.suffix == '.mcap':
        yield _McapView(path)
    elif path.suffix == '.db3':
        with TemporaryDirectory() as folder:
            copy = Path(folder, path.name)
            _copy_readable_rows(path, copy)
            yield copy
    elif path.suffix == '.zstd':
        with TemporaryDirectory() as folder:
            plain = Path(folder, path.stem)
            _decompress_readable(path, plain)
            with repaired(plain) as view:
                yield view
    elif path.suffix == '.bag':
        with TemporaryDirectory() as folder:
            copy = Path(folder, path.name)
            copy_readable_messages(path, copy)
            yield copy
    else:
        raise ValueError(f'Expected an .mcap, .db3 or .bag file, got {path}.')


class _McapView(type(Path())):  # type: ignore[misc]
    """A path that opens as the sound part of its file, with an end put after it."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        del args, kwargs  # rosbags reads bytes, and nothing else
        size = _sound_size(Path(self))
        end = _RECORD_HEAD.pack(_DATA_END, 4) + bytes(4)
        # No summary is announced, so that the reader walks through the records.
        end += _RECORD_HEAD.pack(_FOOTER, 20) + bytes(20) + _MCAP_MAGIC
        return io.BufferedReader(_WithEnd(Path(self), size, end))


class _WithEnd(io.RawIOBase):
    """The first `size` bytes of a file, then `end`."""

    def __init__(self, path: Path, size: int, end: bytes) -> None:
        self._file = path.open('rb')
        self._size, self._end, self._position = size, end, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = (0, self._position, self._size + len(self._end))[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position < self._size:
            self._file.seek(self._position)
            data = self._file.read(min(len(buffer), self._size - self._position))
        else:
            data = self._end[self._position - self._size :][: len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _sound_size(path: Path) -> int:
    """Bytes up to the end of the last complete record of an mcap file."""
    total = path.stat().st_size
    with path.open('rb') as file:
        if file.read(len(_MCAP_MAGIC)) != _MCAP_MAGIC:
            raise ValueError(f'Expected an mcap file, but {path} does not begin like one.')
        sound = file.tell()
        while len(head := file.read(_RECORD_HEAD.size)) == _RECORD_HEAD.size:
            opcode, length = _RECORD_HEAD.unpack(head)
            end = sound + _RECORD_HEAD.size + length
            if end > total or not 0 < opcode <= _LAST_DATA_RECORD:
                break
            sound = end
            file.seek(sound)
    return sound


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
            try:
                for row in rows:
                    new.execute(f'INSERT INTO "{name}" VALUES ({marks})', row)
            except sqlite3.DatabaseError:
                if name != 'messages':
                    raise
        new.commit()
