"""Class masks of VSPW along videos, true and predicted, and the list of classes.

Category ids are 0..123, one below the values of the true masks.

Letters: H W image size in pixels, T frames.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.dataset import Category, DatasetError
from videomt_ros.datasets.json_files import as_whole, load_json
from videomt_ros.datasets.mask_png import read_mask
from videomt_ros.labels import load_classes

NUM_CLASSES = 124
"""Number of classes, which have the values 1..124 in a true mask; others are ignored."""
CLASS_FILES = ('classes.json', 'label_num_dic_final.json')
"""Files that may hold the classes of a data set; the first that exists is read."""

VOID = 255
"""Value that a prediction may hold where the truth has no class."""

_NUMBER = re.compile('[0-9]{1,4}')


@dataclass(frozen=True)
class VspwVideo:
    """One video of a split."""

    video_id: str
    size: tuple[int, int]
    """Size (height, width) of the frames in pixels."""
    frame_names: tuple[str, ...]
    """T names of PNGs, such as '00000123.png', in truth and results alike."""
    stamps_ns: tuple[int, ...] | None = None
    """T stamps, if the names are whole numbers of nanoseconds."""

    @property
    def name(self) -> str:
        """Name of the video's folders, which is its id."""
        return self.video_id


class VspwTruth:
    """True masks of the videos of a split, read on demand."""

    def __init__(
        self,
        folder: Path,
        categories: Sequence[Category],
        videos: Sequence[VspwVideo],
        is_drawn: bool = False,
        notes: Sequence[str] = (),
        left_out: Sequence[str] = (),
        unusable: Mapping[int | str, str] | None = None,
    ) -> None:
        """Describe the masks of a folder; `load_vspw` checks that they exist.

        For `notes` and `left_out` see `Dataset`.
        """
        self.unusable = dict(unusable or {})
        """Why a video cannot be scored, such as for a missing mask, by its id."""
        self.notes, self.left_out = tuple(notes), tuple(left_out)
        self.categories = tuple(categories)
        self.videos = tuple(videos)
        self.is_drawn = is_drawn
        self._folder = folder
        self._by_id = {video.video_id: video for video in videos}
        values = np.arange(256)
        known = [category.category_id + 1 for category in categories]
        self._is_unknown = (values >= 1) & (values <= NUM_CLASSES) & ~np.isin(values, known)

    def path(self, video_id: str, t: int) -> Path:
        """Return the path of the mask of a frame."""
        return mask_folder(self._folder, video_id) / self._by_id[video_id].frame_names[t]

    def mask(self, video_id: str, t: int) -> NDArray[np.uint8]:
        """Read the mask of a frame with the values of the file, (H, W) uint8.

        0 and 125..255 are pixels without a class, others a category id + 1.

        Raises:
            DatasetError: the PNG cannot be read, has another size or mode, or an unknown class.
        """
        video, path = self._by_id[video_id], self.path(video_id, t)
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
    """Predicted masks for the videos of a truth, read on demand."""

    def __init__(
        self,
        folder: Path,
        videos: Sequence[VspwVideo],
        faulty: Container[str] = (),
        left_out: Sequence[str] = (),
        unusable: Mapping[int | str, str] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Describe the masks of a folder; `load_vspw_results` checks that they exist.

        Args:
            folder: holds `<video>/<frame>.png`.
            videos: the videos that may have results.
            faulty: ids of the videos whose results are not read.
            left_out: one line for each result that is left out.
            unusable: why the results of a video cannot be used, such as for a missing PNG, by id.
            notes: remarks on what was ignored.
        """
        self.unusable, self.notes = dict(unusable or {}), tuple(notes)
        self._folder = folder
        self._by_id = {video.video_id: video for video in videos}
        self.missing = tuple(
            video.video_id
            for video in videos
            if video.video_id in faulty or not (folder / video.video_id).is_dir()
        )
        """Ids of the videos that have no result."""
        self.left_out = tuple(left_out)
        """One line per video whose result was left out; see `Dataset.left_out`."""

    def mask(
        self, video_id: str, t: int, true_mask: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Read the mask of a frame, (H, W) uint8, 0..123.

        Args:
            video_id: id of the video; one without a result is all VOID.
            t: number of the frame, 0..T-1.
            true_mask: mask of `VspwTruth.mask`, (H, W); where it has a class, the prediction must
                have one, too. Elsewhere the prediction may hold any value.

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
    """Return the folder of the true masks of a video."""
    return base / 'data' / video_id / 'mask'


def read_vspw_classes(base: Path, faults: list[str]) -> list[Category]:
    """Read the classes of a data set, by rising id.

    They come from `classes.json`, a file of the user's own, or from `label_num_dic_final.json`,
    or else are the official ones. Both files hold {name: value in the masks}, where a value is a
    number or its text, as in the official file, and 0 ("others") is void and no class.

    Args:
        base: folder of the data set.
        faults: receives a sentence for each fault.
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
        is_text = isinstance(value, str) and _NUMBER.fullmatch(value)
        number = int(value) if is_text else as_whole(value)
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
    # Classes that the official list does not have count as stuff.
    return [
        Category(number - 1, name, kinds.get(name, False))
        for number, name in sorted(names.items())
        if number > 0
    ]


def _values(mask: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the distinct values of a mask, rising."""
    return np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
