"""Finds the files of a data set in the places where they are usual, and reads lists of videos."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.datasets.formats.record_checks import Checks
from videomt_ros.datasets.image_folder import is_plain_name
from videomt_ros.datasets.mask_png import read_size


def find_missing(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the names of files that do not exist in a folder, in the order given.

    Each folder is listed once, which over a network is far faster than a look-up of each file.
    """
    listed: dict[str, set[str]] = {}
    missing = []
    for name in names:
        parent, base = os.path.split(os.path.join(folder, name))
        if parent not in listed:
            try:
                listed[parent] = set(os.listdir(parent))
            except (OSError, ValueError):  # ValueError: a name that holds a zero byte
                listed[parent] = set()
        if base not in listed[parent]:
            missing.append(name)
    return missing


def find_image_folder(
    checks: Checks, candidates: Sequence[Path], names: Sequence[str]
) -> tuple[Path, set[str]]:
    """Find the folder that holds all images.

    Args:
        checks: checks of the file that names the images.
        candidates: folders to search, the likeliest first.
        names: names of all images, relative to the folder.

    Returns:
        The folder, and the names of the images that are missing in it, of which there are some
        only if `checks` skips bad records or keeps faulty videos.

    Raises:
        DatasetError: images are missing in the folder that has most of them, one fault for each;
            or no folder has any.
    """
    best: tuple[Path, list[str]] | None = None
    for folder in dict.fromkeys(candidates):
        missing = find_missing(folder, names)
        if not missing:
            return folder, set()
        if best is None or len(missing) < len(best[1]):
            best = folder, missing
    if best is None or len(best[1]) == len(names):
        home = Path(os.path.commonpath(candidates))
        places = dict.fromkeys(str(folder.relative_to(home)) for folder in candidates)
        looked = ', '.join(place for place in places if place != '.')
        fault = (
            f'None of its {len(names)} images was found, such as {names[0]}. Looked in {home}, '
            f'and there in {looked}. Unpack the images of this split into one of these folders.'
        )
        raise DatasetError(checks.path, [fault])
    folder, missing = best
    if checks.skip_bad or checks.keep_faulty:
        return folder, set(missing)
    summary = (
        f'{len(missing)} of {len(names)} images are missing in {folder}. Was the archive unpacked '
        'to its end?'
    )
    raise DatasetError(checks.path, [summary, *(f'There is no {folder / m}.' for m in missing)])


def image_size(
    record: dict[str, Any], name: str | None, where: str, checks: Checks
) -> tuple[int, int]:
    """Check the size of an image, or read it from its file where the record lacks it.

    Such a file is looked for beside the annotations, so that scoring finds it, too.

    Args:
        record: record with `height` and `width`; VGG Image Annotator may write -1.
        name: name of the image file.
        where: name of the record for faults.
        checks: collects the faults.

    Returns:
        (height, width), with 0 in place of a faulty value.
    """
    if name and any(record.get(field) in (None, 0, -1) for field in ('height', 'width')):
        for place in _places_of_images(checks.path):
            with suppress(DatasetError, ValueError):  # ValueError: a name that holds a zero byte
                if (place / name).is_file():
                    size = read_size(place / name)
                    checks.count('image', 'without size, which was read from the file')
                    return size
    return checks.size(record, where)


def _places_of_images(annotations: Path) -> Iterator[Path]:
    """List the folders beside an annotation file that may hold its images."""
    home = annotations.parent
    splits = dict.fromkeys(['', annotations.stem, annotations.stem.rpartition('_')[2], home.name])
    for base in (home, home.parent):
        for split in splits:
            for folder in ('', 'images', 'data', 'JPEGImages'):
                yield base / split / folder
                if folder and split:
                    yield base / folder / split


def find_file(root: Path, candidates: Sequence[str], what: str) -> Path:
    """Find the first of several files that exists.

    Args:
        root: folder of the data set.
        candidates: paths relative to it.
        what: description of the file for the error.

    Raises:
        DatasetError: none exists; lists the candidates.
    """
    if not root.is_dir():
        raise DatasetError(root, ['Expected the folder of a data set, but there is none.'])
    for candidate in candidates:
        if (root / candidate).is_file():
            return root / candidate
    fault = (
        f'Expected {what}, but there is none of {", ".join(dict.fromkeys(candidates))}. '
        'Is this the folder of the data set, and the split right?'
    )
    raise DatasetError(root, [fault])


def read_video_list(path: Path, checks: Checks) -> list[str]:
    """Read a list of videos, one name per line, as VSPW and VIPSeg ship them.

    Args:
        path: file with the list; blank lines are ignored.
        checks: collects the faults.
    """
    faults = checks.faults
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f'Expected a list of videos, but {path} cannot be read: {error}.')
        return []
    names: list[str] = []
    for number, line in checks.each(enumerate(lines, start=1)):
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
