"""Files that are there with all of their bytes or not at all, whatever kills the writer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
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
    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        with partial.open('wb') as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
