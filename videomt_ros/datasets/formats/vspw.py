"""VSPW: videos labelled with a class per pixel, and results in the same form.

Miao et al., VSPW: A Large-scale Dataset for Video Scene Parsing in the Wild, CVPR 2021. A data set
is a folder (or its subfolder `VSPW_480p`) with

    <split>.txt                         train, val, test: one video per line
    data/<video>/origin/<frame>.jpg
    data/<video>/mask/<frame>.png       0 void, 1..124 class, 255 ignored; no folder: no truth
    label_num_dic_final.json            classes, see `datasets.formats.vspw_classes`

and results are a folder with `<video>/<frame>.png`, whose pixels are category ids: 0..123, one
below the masks' values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.dataset import Category, Dataset, DatasetError
from videomt_ros.datasets.formats.file_search import read_video_list
from videomt_ros.datasets.formats.vspw_classes import NUM_CLASSES, read_vspw_classes
from videomt_ros.datasets.image_folder import (
    ImageFolderVideo,
    find_files,
    regular_stamps,
    stamps_of_names,
)
from videomt_ros.datasets.mask_png import read_mask, read_size

FPS = 15.0
"""Labelled frames a second of the official videos."""
VOID = 255
"""What a prediction may hold where the truth has no class."""
SPLITS = {'train': 'train', 'val': 'val', 'valid': 'val', 'test': 'test'}
"""What users say -> what the lists are called."""


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
        path = _mask_folder(self._folder, video_id) / video.frame_names[t]
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


def load_vspw(folder: Path, split: str = 'val') -> VspwTruth:
    """Open the truth of a split: see that its masks are there; they are read when asked for.

    The frames of a video are the PNGs of its folder of masks, by name.

    Args:
        folder: of the data set, or the one above its `VSPW_480p`.
        split: train, val (or valid) or test.

    Raises:
        ValueError: there is no such split.
        DatasetError: the files cannot be used; lists every fault.
    """
    faults: list[str] = []
    base = _find_base(folder)
    names = _read_list(base, split, faults)
    truth = _read_truth(base, names, faults)
    if faults:
        raise DatasetError(base, faults)
    return truth


def load_vspw_results(folder: Path, videos: Sequence[VspwVideo]) -> VspwResults:
    """Open results: see that every PNG is there; they are read when asked for.

    A video without a folder is named in `missing`. PNGs of frames that the truth has not are not
    looked at, as in the public scorers.

    Args:
        folder: holds `<video>/<frame>.png`.
        videos: the videos that may have results, such as those of a `VspwTruth`.

    Raises:
        DatasetError: the files cannot be used; lists every fault.
    """
    if not folder.is_dir():
        raise DatasetError(folder, ['Expected a folder of results, but there is none.'])
    results = VspwResults(folder, videos)
    faults = []
    for video in videos:
        if video.video_id in results.missing:
            continue
        present = {path.name for path in (folder / video.video_id).iterdir()}
        faults += [
            f'Video {video.video_id}: expected {folder / video.video_id / name}, but there is no '
            'such file.'
            for name in video.frame_names
            if name not in present
        ]
    known = {video.video_id for video in videos}
    faults += [
        f'Expected results of videos of the truth, got PNGs of {path.name}.'
        for path in sorted(folder.iterdir())
        if path.name not in known and find_files(path, ('.png',))
    ]
    if not faults and len(results.missing) == len(videos):
        found = [path.name for path in folder.iterdir() if not path.name.startswith('.')]
        if found:
            faults.append(
                f'Expected folders of videos of the truth, such as {videos[0].video_id}, '
                f'got none, but {", ".join(sorted(found)[:5])}. Name the folder that holds them.'
            )
    if faults:
        raise DatasetError(folder, faults)
    return results


def vspw_dataset(name: str, root: Path, split: str = 'val') -> Dataset:
    """Open a VSPW data set, or a folder laid out like one.

    If no video of the split has masks, there is no truth. Else each image needs its mask, and
    each mask its image.

    Args:
        name: of the data set, as the user says it.
        root: the folder, or the one above its `VSPW_480p`.
        split: train, val (or valid) or test.

    Raises:
        ValueError: there is no such split.
        DatasetError: the files cannot be used; lists every fault, each missing frame among them.
    """
    faults: list[str] = []
    base = _find_base(root)
    names = _read_list(base, split, faults)
    has_truth = any(find_files(_mask_folder(base, each), ('.png',)) for each in names)
    if has_truth:
        truth = _read_truth(base, names, faults)
        categories, labelled = truth.categories, {each.video_id: each for each in truth.videos}
    else:
        categories, labelled = tuple(read_vspw_classes(base, faults)), {}
    videos = []
    for video_id in names:
        folder = base / 'data' / video_id / 'origin'
        images = find_files(folder)
        video = labelled.get(video_id) or _find_video(video_id, folder, images, faults)
        if video is None:
            continue
        faults += _unpaired(video, folder, images)
        videos.append(
            ImageFolderVideo(
                video_id,
                video_id,
                video.size,
                video.frame_names,
                tuple(images.get(Path(each).stem, folder / each) for each in video.frame_names),
                video.stamps_ns or regular_stamps(len(video.frame_names), FPS),
            )
        )
    if faults:
        raise DatasetError(base, faults)
    truth_folder = (base,) if has_truth else ()
    return Dataset(name, 'vspw', categories, tuple(videos), truth_folder, split=SPLITS[split])


def _find_base(root: Path) -> Path:
    if not root.is_dir():
        raise DatasetError(root, ['Expected the folder of the data set, but there is none.'])
    return root / 'VSPW_480p' if (root / 'VSPW_480p').is_dir() else root


def _mask_folder(base: Path, video_id: str) -> Path:
    return base / 'data' / video_id / 'mask'


def _read_list(base: Path, split: str, faults: list[str]) -> list[str]:
    """Videos of a split."""
    if split not in SPLITS:
        raise ValueError(f'Expected a split out of {", ".join(SPLITS)}, got {split!r}.')
    return read_video_list(base / f'{SPLITS[split]}.txt', faults)


def _read_truth(base: Path, names: list[str], faults: list[str]) -> VspwTruth:
    """The truth as far as it can be used; what is wrong is added to the faults."""
    categories = read_vspw_classes(base, faults)
    found = []
    for video_id in names:
        folder = _mask_folder(base, video_id)
        found.append(_find_video(video_id, folder, find_files(folder, ('.png',)), faults))
    return VspwTruth(base, categories, [video for video in found if video])


def _find_video(
    video_id: str, folder: Path, files: dict[str, Path], faults: list[str]
) -> VspwVideo | None:
    """The video whose frames are these files of a folder, or None if there are none."""
    if not files:
        faults.append(f'Video {video_id}: expected frames in {folder}, got none.')
        return None
    try:
        size = read_size(next(iter(files.values())))
    except DatasetError as error:
        faults.append(f'Video {video_id}: {error.path}: {" ".join(error.faults)}')
        return None
    names = tuple(
        path.name if path.suffix.lower() == '.png' else f'{stem}.png'
        for stem, path in files.items()
    )
    return VspwVideo(video_id, size, names, stamps_of_names(names))


def _unpaired(video: VspwVideo, folder: Path, images: dict[str, Path]) -> list[str]:
    """Faults of a video: frames without an image, and images that are no frame."""
    where = f'Video {video.video_id}'
    if not images:
        return [f'{where}: expected {len(video.frame_names)} images in {folder}, got none.']
    stems = {Path(each).stem for each in video.frame_names}
    missing = [
        f'{where}: expected an image {stem}.jpg in {folder}, as there is a mask of that name, '
        'but there is none.'
        for stem in sorted(stems - set(images))
    ]
    return missing + [
        f'{where}: expected a mask {stem}.png in {folder.parent / "mask"}, as there is an image '
        'of that name, but there is none.'
        for stem in sorted(set(images) - stems)
    ]


def _values(mask: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Distinct values of a mask, rising."""
    return np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
