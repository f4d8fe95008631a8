"""Files that are there with all of their bytes or not at all, whatever kills the writer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write; it gets its name, and replaces an older one, when the block ends well.

    Makes the folder. After an error in the block, what was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, since only within a file system a rename is one step; hidden, so that
    # what a killed process leaves is no frame.
    partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    try:
        with partial.open('wb') as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Make room of what killed writers left in a folder and in those directly in it."""
    for path in (*folder.glob('*.partial'), *folder.glob('*/*.partial')):
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
