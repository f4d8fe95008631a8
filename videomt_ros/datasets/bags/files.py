"""Finds the files of a bag, and opens each, whole or what is left of it.

The files of a folder are those that its metadata.yaml names. A recorder that was killed leaves no
metadata.yaml, but each file is a bag, too.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import yaml

from videomt_ros.datasets.bags.mcap_file import McapFile
from videomt_ros.datasets.bags.repair import decompress_file, has_journal, join_journal, repair
from videomt_ros.datasets.bags.ros1_file import Ros1File
from videomt_ros.datasets.bags.sqlite_file import SqliteFile
from videomt_ros.datasets.bags.storage import NewerFormatError, Storage, newer

_VERSION = 9
"""Newest version of metadata.yaml that is known, which is that of ROS 2 Jazzy and Kilted."""
_READERS: dict[str, Callable[[Path], Storage]] = {'.db3': SqliteFile, '.mcap': McapFile}
_SUFFIXES = (*_READERS, '.zstd')
_SQLITE_DAMAGE = (sqlite3.Error, UnicodeDecodeError)
"""What sqlite3 raises for a damaged file; the second where a damaged text is in its message."""


class BagError(ValueError):
    """Raised for a bag that cannot be used; the text says why."""


@dataclass(frozen=True)
class BagFiles:
    """The files of a bag, opened."""

    storages: tuple[Storage, ...]
    """The files, in the order in which they were written."""
    is_damaged: bool
    """Whether a file is damaged, or the recorder did not come to its end."""
    is_in_order: bool
    """Whether metadata.yaml tells the order of the files."""
    notes: tuple[str, ...] = ()
    """Remarks for the user, each a sentence."""
    announced: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Number of messages by topic and type, as metadata.yaml has it; empty without one."""


@dataclass
class _Metadata:
    """What metadata.yaml says."""

    names: list[str] = field(default_factory=list)
    """Names of the files, in the order of recording."""
    announced: Counter[tuple[str, str]] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def is_bag(path: Path) -> bool:
    """Tell whether a path looks like a bag, damaged or not."""
    if path.is_dir():
        return (path / 'metadata.yaml').exists() or bool(_files_in(path))
    return path.suffix in (*_SUFFIXES, '.bag')


def open_files(path: Path, owner: object) -> BagFiles:
    """Open the files of a bag.

    Args:
        path: a bag's folder, or one .mcap, .db3 or .bag file.
        owner: object whose end removes the copies of files that were compressed or cut off.

    Raises:
        BagError: no file of the bag can be read.
    """
    if not path.exists():
        raise BagError(f'Expected a bag, but there is no {path}.')
    if path.suffix == '.bag' and not path.is_dir():
        return BagFiles((_open_ros1(path),), is_damaged=False, is_in_order=True)
    if not path.is_dir():
        storage, is_repaired = _open_one(path, owner)
        return BagFiles((storage,), is_repaired, is_in_order=True, notes=_sentences(storage))
    return _open_folder(path, owner)


def _open_folder(folder: Path, owner: object) -> BagFiles:
    metadata = _read_metadata(folder / 'metadata.yaml')
    present = _files_in(folder)
    notes, missing = [], []
    files = present
    if metadata is not None:
        notes += metadata.notes
    if metadata is not None and metadata.names:
        missing = [name for name in metadata.names if not (folder / name).exists()]
        named = [folder / name for name in metadata.names if name not in missing]
        # A file may be missing since it was renamed.
        files = named + [path for path in present if missing and path not in named]
    if missing and not files:
        raise BagError(
            f'Expected the files of a bag in {folder}, but {_listed(missing)} of its '
            f'metadata.yaml {"are missing. Copy them" if missing[1:] else "is missing. Copy it"} '
            'there.'
        )
    if missing:
        verb = 'are' if len(missing) > 1 else 'is'
        notes.append(
            f'{_listed(missing)} of {folder} {verb} missing, though metadata.yaml names '
            f'{"them" if len(missing) > 1 else "it"}; the other files were read.'
        )
    if not files:
        fault = f'Expected a bag, but {folder} holds no .mcap or .db3 file.'
        raise BagError(' '.join([fault, *notes]))
    storages: list[Storage] = []
    is_damaged = metadata is None
    failures: list[BagError] = []
    for file in files:
        try:
            storage, is_repaired = _open_one(file, owner)
        except BagError as error:
            failures.append(error)
            continue
        storages.append(storage)
        notes += _sentences(storage)
        is_damaged = is_damaged or is_repaired
    if not storages:
        raise BagError(' '.join([f'{str(failures[0]).rstrip(".")}.', *notes]))
    notes += [f'{str(error).rstrip(".")}; the other files were read.' for error in failures]
    return BagFiles(
        tuple(storages),
        is_damaged or bool(failures),
        is_in_order=metadata is not None,
        notes=tuple(notes),
        announced=Counter() if metadata is None else metadata.announced,
    )


def _open_one(file: Path, owner: object) -> tuple[Storage, bool]:
    """Open one file.

    Returns:
        The file, and whether it is a repaired copy.

    Raises:
        BagError: it cannot be read.
    """
    try:
        return _open_or_repair(file, owner)
    except NewerFormatError as error:
        raise BagError(f'{error}.') from error
    except Exception as error:  # each storage fails in its own way
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise BagError(
                f'{file} is compressed or was cut off, and {tempfile.gettempdir()} has no space '
                'for a readable copy. Set TMPDIR to a folder with more.'
            ) from error
        raise BagError(f'Expected a bag, but {file} cannot be read: {error}') from error


def _open_or_repair(file: Path, owner: object) -> tuple[Storage, bool]:
    is_whole = True
    if file.suffix == '.zstd':
        file, is_whole = decompress_file(file, _temporary_folder(owner))
    reader = _READERS.get(file.suffix)
    if reader is None:
        raise ValueError('it is no .mcap or .db3 file')
    if file.suffix == '.mcap':
        return reader(file), not is_whole
    if has_journal(file):
        file, is_whole = join_journal(file, _temporary_folder(owner)), False
    try:
        return reader(file), not is_whole
    except _SQLITE_DAMAGE as error:
        try:
            return reader(repair(file, _temporary_folder(owner))), True
        except _SQLITE_DAMAGE:
            raise error from None


def _open_ros1(path: Path) -> Storage:
    try:
        return Ros1File(path)
    except NewerFormatError as error:
        raise BagError(f'{error}.') from error
    except Exception as error:  # rosbags raises many kinds
        reason = f'Expected a bag, but {path} cannot be read: {error}'.rstrip('.')
        raise BagError(
            f'{reason}. A bag of ROS 1 that was cut off, or whose recorder was killed, is mended '
            f'by the command of ROS 1: rosbag reindex {path}'
        ) from error


def _read_metadata(path: Path) -> _Metadata | None:
    """Read metadata.yaml; None if there is none, or a damaged one."""
    metadata = _Metadata()
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
        info: dict[str, Any] = content['rosbag2_bagfile_information']
        if int(info['version']) > _VERSION:
            what = newer(f'metadata.yaml of {path.parent}', info['version'], _VERSION)
            metadata.notes.append(f'{what}; the files were read as far as it understands them.')
        metadata.names = [PurePath(name).name for name in info['relative_file_paths']]
        for entry in info['topics_with_message_count']:
            topic = entry['topic_metadata']
            metadata.announced[topic['name'], topic['type']] += int(entry['message_count'])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return metadata if metadata.notes else None
    return metadata


def _files_in(folder: Path) -> list[Path]:
    """List the files of a bag's folder in the order in which they were written."""
    files = [path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file()]
    # bag_2 comes before bag_10.
    return sorted(files, key=lambda path: (len(path.name), path.name))


def _temporary_folder(owner: object) -> Path:
    """Create a folder that is removed when its owner is."""
    folder = tempfile.mkdtemp(prefix='videomt-bag-')
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _sentences(storage: Storage) -> tuple[str, ...]:
    return tuple(f'{note}.' for note in storage.notes)


def _listed(names: list[str]) -> str:
    more = f' and {len(names) - 3} more' if len(names) > 3 else ''
    return ', '.join(names[:3]) + more
