"""Image files as the frames of videos: found, read and given stamps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.dataset import DatasetError


def read_image(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Read an image of an annotated size.

    A rotation noted in the file (EXIF) is followed where its pixels have that size only then: some
    tools annotate what is stored, others what is shown.

    Args:
        path: a file that OpenCV reads.
        size: (height, width) that it must have.

    Returns:
        RGB, (H, W, 3).

    Raises:
        DatasetError: it cannot be read, or has another size.
    """
    try:
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is not None and image.shape[:2] != size:
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as error:
        raise DatasetError(path, [f'Expected an image, but {_reason(error)}.']) from error
    if image is None:
        fault = (
            f'Expected an image, got {data.size} bytes that OpenCV cannot read; is it complete?'
        )
        raise DatasetError(path, [fault])
    if image.shape[:2] != size:
        fault = (
            f'Expected {size[1]} x {size[0]} pixels as the annotations say, got '
            f'{image.shape[1]} x {image.shape[0]}.'
        )
        raise DatasetError(path, [fault])
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def index_stamps(num_frames: int, fps: float) -> tuple[int, ...]:
    """Stamps in nanoseconds of frames that come at an even rate, from 0 on."""
    return tuple(round(index * 1e9 / fps) for index in range(num_frames))


def find_missing(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of the files `folder / name` that do not exist, in the order given.

    Each folder is listed once, which over a network is far quicker than to ask for each file.
    """
    listed: dict[str, set[str]] = {}
    missing = []
    for name in names:
        parent, base = os.path.split(os.path.join(folder, name))
        if parent not in listed:
            try:
                listed[parent] = set(os.listdir(parent))
            except OSError:
                listed[parent] = set()
        if base not in listed[parent]:
            missing.append(name)
    return missing


def find_image_folder(
    annotations: Path, candidates: Sequence[Path], names: Sequence[str], hint: str = ''
) -> Path:
    """Find the folder in which all images lie.

    Args:
        annotations: the file that names the images, for the error.
        candidates: folders to look in, the likeliest first.
        names: of all images, from the folder on.
        hint: what to do where images are missing.

    Raises:
        DatasetError: one fault for each missing image, in the folder that has most of them; or
            none of the folders has any.
    """
    best: tuple[Path, list[str]] | None = None
    for folder in dict.fromkeys(candidates):
        missing = find_missing(folder, names)
        if not missing:
            return folder
        if best is None or len(missing) < len(best[1]):
            best = folder, missing
    if best is None or len(best[1]) == len(names):
        looked = ', '.join(str(folder) for folder in dict.fromkeys(candidates))
        fault = (
            f'None of its {len(names)} images was found, such as {names[0]}. Looked in {looked}. '
            f'{hint}'
        )
        raise DatasetError(annotations, [fault.rstrip()])
    folder, missing = best
    summary = f'{len(missing)} of {len(names)} images are missing in {folder}. {hint}'.rstrip()
    raise DatasetError(annotations, [summary, *(f'There is no {folder / m}.' for m in missing)])


def find_file(root: Path, candidates: Sequence[str], what: str) -> Path:
    """Find the first of several files that exists.

    Args:
        root: folder of the data set.
        candidates: paths from there on.
        what: is looked for, for the error.

    Raises:
        DatasetError: none exists; lists what was looked for.
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


def _reason(error: Exception) -> str:
    return getattr(error, 'strerror', None) or ' '.join(str(error).split())
