"""What the annotation files of a data set say of the origin of its images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.datasets.json_files import load_json

DRAWN_INFO = {'description': 'Synthetic scenes of videomt_ros', 'drawn': True}
"""The field `info` in the JSON files of drawn scenes. A format without a JSON of annotations has
it in `INFO_FILE`."""
INFO_FILE = 'info.json'
"""Name of the file beside the annotations that holds `info` alone."""


def says_drawn(content: Any) -> bool:
    """Tell whether the content of a JSON says that its images are drawn rather than recorded.

    >>> says_drawn({'info': DRAWN_INFO}), says_drawn({'info': {}, 'videos': []})
    (True, False)
    """
    info = content.get('info') if isinstance(content, dict) else None
    return isinstance(info, dict) and info.get('drawn') is True


def folder_says_drawn(folder: Path) -> bool:
    """Tell whether the `INFO_FILE` of a folder says that images are drawn; no without one."""
    path = folder / INFO_FILE
    try:
        return path.is_file() and says_drawn(load_json(path))
    except DatasetError:
        return False
