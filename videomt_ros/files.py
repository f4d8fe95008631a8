"""Files that are there with all of their bytes or not at all, whatever kills the writer."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path, durable: bool = False) -> Iterator[BinaryIO]:
    """Open a file to write; it gets its name, and replaces an older one, when the block ends well.

    Makes the folder. After an error in the block, what was there before is untouched.

    Args:
        path: name of the file.
        durable: wait until file and name are on the disk, so that they outlast a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, since a rename is one step only within a file system; hidden, so that
    # what a killed process leaves is not taken for a frame.
    partial = path.with_name(f'.{path.name}.{os.urandom(4).hex()}.partial')
    try:
        with partial.open('xb') as file:
            yield file
        if durable:  # before it has its name, or a power cut leaves an empty file
            _force_to_disk(partial)
        os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    if durable:
        _force_to_disk(path.parent)


def keep_earlier(folder: Path, names: Sequence[str]) -> Path | None:
    """Move files of an earlier run into a new folder beside them, so that no run replaces them.

    Args:
        folder: folder of the results.
        names: names of the files that the next run writes.

    Returns:
        The new folder, such as `folder/earlier-1`; None if none of the files exists.
    """
    there = [name for name in names if os.path.lexists(folder / name)]
    if not there:
        return None
    number = 1
    while os.path.lexists(folder / f'earlier-{number}'):
        number += 1
    kept = folder / f'earlier-{number}'
    kept.mkdir()
    for name in there:
        os.replace(folder / name, kept / name)
    return kept


def remove_partials(folder: Path) -> None:
    """Remove what killed writers left in a folder and in those directly in it."""
    for path in (*folder.glob('*.partial'), *folder.glob('*/*.partial')):
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _force_to_disk(path: Path) -> None:
    """Wait until a file, or the names of the files in a folder, would outlast a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot do this for a folder
            raise
    finally:
        os.close(handle)
