"""The folder on disk that keeps exported files and compiled programs between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """Return the folder of a kind of files in the user's cache; it need not exist."""
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(home) / 'videomt_ros' / kind
