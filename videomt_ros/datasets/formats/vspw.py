"""VSPW: videos labelled with a class per pixel, and results in the same form.

Miao et al., VSPW: A Large-scale Dataset for Video Scene Parsing in the Wild, CVPR 2021. A data set
is a folder (or its subfolder `VSPW_480p`) with

    <split>.txt                         train, val, test: one video per line
    data/<video>/origin/<frame>.jpg
    data/<video>/mask/<frame>.png       0 void, 1..124 class, 255 ignored; no folder: no truth
    label_num_dic_final.json            classes, see `datasets.formats.semantic_files`
    info.json                           ours, of drawn scenes, see `datasets.formats.origin`

and results are a folder with `<video>/<frame>.png`, whose pixels are category ids: 0..123, one
below the masks' values.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from videomt_ros.datasets.dataset import Dataset, DatasetError
from videomt_ros.datasets.formats.file_search import read_video_list
from videomt_ros.datasets.formats.origin import folder_says_drawn
from videomt_ros.datasets.formats.semantic_files import (
    VspwResults,
    VspwTruth,
    VspwVideo,
    mask_folder,
    read_vspw_classes,
)
from videomt_ros.datasets.image_folder import (
    ImageFolderVideo,
    find_files,
    regular_stamps,
    stamps_of_names,
)
from videomt_ros.datasets.mask_png import read_size

FPS = 15.0
"""Labelled frames per second of the official videos."""
SPLITS = {'train': 'train', 'val': 'val', 'valid': 'val', 'test': 'test'}
"""Name of the list of videos for each split that users name."""


def load_vspw(folder: Path, split: str = 'val') -> VspwTruth:
    """Open the truth of a split and check that its masks exist; they are read on demand.

    The frames of a video are the PNGs of its folder of masks, by name.

    Args:
        folder: folder of the data set, or the one above its `VSPW_480p`.
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
    """Open results and check that every PNG exists; they are read on demand.

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
        name: name that the user gave to the data set.
        root: the folder, or the one above its `VSPW_480p`.
        split: train, val (or valid) or test.

    Raises:
        ValueError: there is no such split.
        DatasetError: the files cannot be used; lists every fault, each missing frame among them.
    """
    faults: list[str] = []
    base = _find_base(root)
    names = _read_list(base, split, faults)
    has_truth = any(find_files(mask_folder(base, each), ('.png',)) for each in names)
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
    return Dataset(
        name,
        'vspw',
        categories,
        tuple(videos),
        truth_folder,
        split=SPLITS[split],
        is_drawn=folder_says_drawn(base),
    )


def _find_base(root: Path) -> Path:
    if not root.is_dir():
        raise DatasetError(root, ['Expected the folder of the data set, but there is none.'])
    return root / 'VSPW_480p' if (root / 'VSPW_480p').is_dir() else root


def _read_list(base: Path, split: str, faults: list[str]) -> list[str]:
    """Read the list of videos of a split."""
    if split not in SPLITS:
        raise ValueError(f'Expected a split out of {", ".join(SPLITS)}, got {split!r}.')
    return read_video_list(base / f'{SPLITS[split]}.txt', faults)


def _read_truth(base: Path, names: list[str], faults: list[str]) -> VspwTruth:
    """Read the truth as far as it can be used; faults are added to the list."""
    categories = read_vspw_classes(base, faults)
    found = []
    for video_id in names:
        folder = mask_folder(base, video_id)
        found.append(_find_video(video_id, folder, find_files(folder, ('.png',)), faults))
    videos = [video for video in found if video]
    return VspwTruth(base, categories, videos, folder_says_drawn(base))


def _find_video(
    video_id: str, folder: Path, files: dict[str, Path], faults: list[str]
) -> VspwVideo | None:
    """Build the video whose frames are these files of a folder; None if there are none."""
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
    """Report frames of a video without an image, and images without a frame."""
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
