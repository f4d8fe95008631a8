"""Masks of classes along videos as VSPW's files have them, true and predicted, and the classes.

Category ids are 0..123, one below the values of the true masks.

Letters: H W image size in pixels, T frames.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.dataset import Category, DatasetError
from videomt_ros.datasets.json_files import load_json
from videomt_ros.datasets.mask_png import read_mask
from videomt_ros.labels import load_classes

NUM_CLASSES = 124
"""Values 1..124 of a true mask are classes; others are not looked at."""
CLASS_FILES = ('classes.json', 'label_num_dic_final.json')
"""Where classes are looked for in a data set, the first that is there counts."""

VOID = 255
"""What a prediction may hold where the truth has no class."""

_NUMBER = re.compile('[0-9]{1,4}')


@dataclass(frozen=True)
class VspwVideo:
    """One video of a split."""

    video_id: str
    size: tuple[int, int]
    """(height, width) of its frames, in pixels."""
    frame_names: tuple[str, ...]
    """T names of PNGs, such as '00000123.png'; of the truth and of results alike."""
    stamps_ns: tuple[int, ...] | None = None
    """T stamps, where the names are whole numbers of nanoseconds."""

    @property
    def name(self) -> str:
        """Of its folders."""
        return self.video_id


class VspwTruth:
    """True masks of the videos of a split; one is read when it is asked for."""

    def __init__(
        self, folder: Path, categories: Sequence[Category], videos: Sequence[VspwVideo]
    ) -> None:
        """Keep what is known; see `load_vspw`."""
        self.categories = tuple(categories)
        self.videos = tuple(videos)
        self._folder = folder
        self._by_id = {video.video_id: video for video in videos}
        values = np.arange(256)
        known = [category.category_id + 1 for category in categories]
        self._is_unknown = (values >= 1) & (values <= NUM_CLASSES) & ~np.isin(values, known)

    def mask(self, video_id: str, t: int) -> NDArray[np.uint8]:
        """Read the mask of a frame as it is in the file: (H, W) uint8.

        0 and 125..255 are pixels without a class, others a category id + 1.

        Raises:
            DatasetError: the PNG cannot be read, has another size or mode, or an unknown class.
        """
        video = self._by_id[video_id]
        path = mask_folder(self._folder, video_id) / video.frame_names[t]
        mask = read_mask(path, video.size)
        values = _values(mask)
        if (unknown := values[self._is_unknown[values]]).size:
            raise DatasetError(
                path,
                [
                    f'Expected values of the {len(self.categories)} classes of this data set '
                    f'(category id + 1), 0 or 255, got {unknown.tolist()}.'
                ],
            )
        return mask


class VspwResults:
    """Predicted masks for the videos of a truth; one is read when it is asked for."""

    def __init__(self, folder: Path, videos: Sequence[VspwVideo]) -> None:
        """Keep what is known; see `load_vspw_results`."""
        self._folder = folder
        self._by_id = {video.video_id: video for video in videos}
        self.missing = tuple(
            video.video_id for video in videos if not (folder / video.video_id).is_dir()
        )
        """Videos that have no result."""

    def mask(
        self, video_id: str, t: int, true_mask: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Read the mask of a frame: (H, W) uint8, 0..123.

        Args:
            video_id: of its video. One without a result is all VOID.
            t: 0..T-1.
            true_mask: (H, W), as `VspwTruth.mask` gives it; where it has a class, so must the
                prediction. Elsewhere the prediction may hold anything.

        Raises:
            DatasetError: the PNG cannot be read, has another size or mode, or a pixel without a
                class where it needs one.
        """
        video = self._by_id[video_id]
        if video_id in self.missing:
            return np.full(video.size, VOID, np.uint8)
        path = self._folder / video_id / video.frame_names[t]
        mask = read_mask(path, video.size)
        if true_mask is not None and mask.max() >= NUM_CLASSES:
            wrong = (mask >= NUM_CLASSES) & (true_mask >= 1) & (true_mask <= NUM_CLASSES)
            if wrong.any():
                raise DatasetError(
                    path,
                    [
                        f'Expected a category id from 0 to {NUM_CLASSES - 1} (one below the '
                        'values of the true masks) in every pixel that the truth has a class for, '
                        f'got {_values(mask[wrong]).tolist()} in {wrong.sum()} of them.'
                    ],
                )
        return mask


def mask_folder(base: Path, video_id: str) -> Path:
    """Folder of the true masks of a video, in the folder of its data set."""
    return base / 'data' / video_id / 'mask'


def read_vspw_classes(base: Path, faults: list[str]) -> list[Category]:
    """Classes of a data set by rising id.

    They are those of `classes.json`, a file of the user's own; else those of
    `label_num_dic_final.json`; else the official ones. In both files a value is a number or the
    text of one, as in the official file, and 0 ("others") is void and no class.

    Args:
        base: folder of the data set.
        faults: what is wrong is added to them.
    """
    official = load_classes('vspw')
    kinds = dict(zip(official.class_names, official.thing_classes, strict=True))
    path = next((base / each for each in CLASS_FILES if (base / each).exists()), None)
    if path is None:
        pairs = zip(official.category_ids, official.class_names, strict=True)
        return [Category(number, name, kinds[name]) for number, name in sorted(pairs)]
    try:
        content = load_json(path)
    except DatasetError as error:
        faults.append(f'{path}: {" ".join(error.faults)}')
        return []
    if not isinstance(content, dict) or not content:
        faults.append(f'Expected {{name: value in the masks}} in {path}, got {str(content)[:80]}.')
        return []
    names: dict[int, str] = {}
    for name, value in content.items():
        # The official file has its numbers as texts.
        number = int(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
        if type(number) is not int or not 0 <= number <= NUM_CLASSES:
            faults.append(
                f'Expected a value from 0 to {NUM_CLASSES} for {name!r} in {path}, '
                f'got {value!r:.80}.'
            )
        elif number in names:
            faults.append(
                f'Expected each value once in {path}, got {number} for {names[number]!r} and '
                f'{name!r}.'
            )
        else:
            names[number] = name
    # Only what the official list knows is told apart into things and stuff.
    return [
        Category(number - 1, name, kinds.get(name, False))
        for number, name in sorted(names.items())
        if number > 0
    ]


def _values(mask: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Distinct values of a mask, rising."""
    return np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
