"""The folder on disk that keeps exported files and compiled programs between runs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch

from videomt_ros import model


def cache_folder(kind: str) -> Path:
    """Return the folder of a kind of files in the user's cache; it need not exist."""
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(home) / 'videomt_ros' / kind


def code_digest(conditions: str, *files: str) -> str:
    """Hash what decides the content of a file in the cache beside the weights.

    It becomes a part of the file's name, so that files of other versions are not used again.

    Args:
        conditions: all that the content depends on, other than torch and the code.
        files: modules that decide the content, beside those of `videomt_ros.model`.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256(f'{torch.__version__} {conditions}'.encode())
    folder = Path(next(iter(model.__path__)))
    for path in (*sorted(folder.glob('*.py')), *map(Path, files)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
