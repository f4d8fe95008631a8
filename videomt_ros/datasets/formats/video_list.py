"""Lists of the videos of a split, one name per line, as VSPW and VIPSeg ship them."""

from __future__ import annotations

from pathlib import Path

from videomt_ros.datasets.image_folder import is_plain_name


def read_video_list(path: Path, faults: list[str]) -> list[str]:
    """Names in the order of the file; blank lines and a missing newline at the end do no harm.

    Args:
        path: of the list.
        faults: what is wrong is added to them.
    """
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f'Expected a list of videos, but {path} cannot be read: {error}.')
        return []
    names: list[str] = []
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name:
            continue
        if not is_plain_name(name):
            faults.append(f'Line {number} of {path.name}: expected a video name, got {name!r}.')
        elif name in names:
            faults.append(f'Line {number} of {path.name}: expected each video once, got {name}.')
        else:
            names.append(name)
    if not names:
        faults.append(f'Expected at least one video in {path}, got none.')
    return names
