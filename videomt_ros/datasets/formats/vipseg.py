"""VIPSeg: videos labelled with panoptic PNGs and a JSON, and results in the same form.

Miao et al., Large-scale Video Panoptic Segmentation in the Wild, CVPR 2022. A data set is a folder
(or its subfolder `VIPSeg_720P`) with

    panoptic_gt_VIPSeg_<split>.json      train, val, test
    images/<video>/<frame>.jpg           or imgs/
    panomasksRGB/<video>/<frame>.png     id = R + 256 G + 65536 B, 0 is void

and results are a folder with `pred.json` and `pan_pred/<video>/<frame>.png`. Frames of results
pair with those of the truth by position, and PNGs have the names that the truth gives them.

Two fields of the JSON are ours: `fps` of a video, and `stamp_ns` of an image, when it was taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from videomt_ros.datasets.dataset import Category, Dataset, DatasetError
from videomt_ros.datasets.formats.file_search import read_video_list
from videomt_ros.datasets.formats.panoptic_files import (
    SegmentsInfo,
    VipsegResults,
    VipsegTruth,
    VipsegVideo,
)
from videomt_ros.datasets.formats.record_checks import Checks
from videomt_ros.datasets.formats.vipseg_json import read_results, read_truth
from videomt_ros.datasets.image_folder import ImageFolderVideo, find_files, regular_stamps
from videomt_ros.datasets.mask_png import read_size
from videomt_ros.files import whole_file
from videomt_ros.labels import load_classes

FPS = 5.0
"""Labelled frames per second of the official videos; `fps` of a video in the JSON overrides it."""
SPLITS = {'train': 'train', 'val': 'val', 'valid': 'val', 'test': 'test'}
"""Split in the names of the files for each split that users name."""


class PredictedVideo(NamedTuple):
    """One video to write to a `pred.json`."""

    video_id: str
    frame_names: Sequence[str]
    """T names of the frames in the truth."""
    segments: Sequence[SegmentsInfo]
    """T lists of segments; see `mask_png.segments_info`."""


def load_vipseg(
    path: Path,
    masks_folder: Path | None = None,
    *,
    skip_bad: bool = False,
    keep_faulty: bool = False,
) -> VipsegTruth:
    """Open a truth and check that every PNG exists; PNGs are read on demand.

    Args:
        path: JSON file; without annotations it still lists the videos.
        masks_folder: folder of the true PNGs; by default `panomasksRGB` beside the JSON.
        skip_bad: leave out videos with faults, and list them in `left_out`.
        keep_faulty: keep videos that lack PNGs, and list them in `unusable`.

    Raises:
        DatasetError: the files cannot be used; lists every fault.
    """
    checks = Checks(path, skip_bad, keep_faulty)
    truth = read_truth(masks_folder or _masks_beside(path), checks)
    checks.finish()
    return truth


def load_vipseg_results(
    folder: Path,
    videos: Sequence[VipsegVideo],
    categories: Iterable[Category],
    *,
    skip_bad: bool = False,
    is_strict: bool = True,
) -> VipsegResults:
    """Open results: read `pred.json` and check that every PNG exists.

    Results of COCO panoptic as panopticapi takes them are read, too: a JSON with `image_id`,
    `file_name` and `segments_info`, and PNGs in the folder that is named like it, or beside it.

    Videos may come in any order; `missing` lists those without a result, which are all void.

    Args:
        folder: folder with `pred.json` and `pan_pred/`; for images also the JSON, or its folder.
        videos: the videos that may have results, such as those of a `VipsegTruth`.
        categories: the categories that a result may have.
        skip_bad: leave out videos with faults, and list them in `left_out`.
        is_strict: whether a missing PNG and results of other videos are errors; else the first is
            in `unusable`, and the others are ignored and noted.

    Raises:
        DatasetError: the files cannot be used; lists every fault.
    """
    path, masks_folder = _find_results(folder)
    checks = Checks(path, skip_bad, keep_faulty=not is_strict)
    results = read_results(masks_folder, videos, categories, checks, is_strict)
    checks.finish()
    return results


def _find_results(place: Path) -> tuple[Path, Path]:
    """Find the JSON of results and the folder of their PNGs, from either of them."""
    path = place / 'pred.json'
    if place.is_file():
        path = place
    elif not path.exists():
        # A folder of PNGs with its JSON beside it or in it.
        inside = sorted(each for each in place.glob('*.json') if not each.name.startswith('.'))
        beside = place.with_name(f'{place.name}.json')
        if beside.is_file():
            return beside, place
        if len(inside) == 1:
            path = inside[0]
    folders = (path.parent / 'pan_pred', path.with_suffix(''))
    return path, next((each for each in folders if each.is_dir()), folders[0])


def write_pred_json(folder: Path, videos: Iterable[PredictedVideo]) -> None:
    """Write the `pred.json` of a folder of results, one video at a time.

    The file appears once all videos are in it.
    """
    with whole_file(folder / 'pred.json') as file:
        file.write(b'{"annotations": [')
        for number, video in enumerate(videos):
            frames = [
                {'file_name': name, 'segments_info': segments}
                for name, segments in zip(video.frame_names, video.segments, strict=True)
            ]
            entry = json.dumps({'video_id': video.video_id, 'annotations': frames})
            file.write((', ' if number else '').encode() + entry.encode())
        file.write(b']}')


def vipseg_dataset(
    name: str,
    root: Path,
    split: str = 'val',
    skip_bad: bool = False,
    keep_faulty: bool = False,
) -> Dataset:
    """Open a VIPSeg data set, or a folder laid out like one.

    Without the split's JSON, the videos are those of `<split>.txt` with all images of their
    folders, and there is no truth; nor is there with a JSON without annotations.

    Args:
        name: name that the user gave to the data set.
        root: folder of the data set, or the one above its `VIPSeg_720P`.
        split: train, val (or valid) or test.
        skip_bad: leave out videos with faults; see `open_dataset`.
        keep_faulty: keep videos that lack images or masks; see `open_dataset`.

    Raises:
        ValueError: there is no such split.
        DatasetError: the files cannot be used; lists every fault, missing frames included.
    """
    if split not in SPLITS:
        raise ValueError(f'Expected a split out of {", ".join(SPLITS)}, got {split!r}.')
    if not root.is_dir():
        raise DatasetError(root, ['Expected the folder of the data set, but there is none.'])
    base = root / 'VIPSeg_720P' if (root / 'VIPSeg_720P').is_dir() else root
    path = base / f'panoptic_gt_VIPSeg_{SPLITS[split]}.json'
    if not path.exists():
        return _unlabelled(name, [base, root], SPLITS[split], path, skip_bad, keep_faulty)
    checks = Checks(path, skip_bad, keep_faulty)
    masks_folder = _masks_beside(path)
    truth = read_truth(masks_folder, checks)
    videos = []
    for video in checks.each(truth.videos):
        joined = _with_images(video, base, checks)
        if checks.keeps:
            videos.append(joined)
    checks.finish()
    return Dataset(
        name,
        'vipseg',
        truth.categories,
        tuple(videos),
        truth=(path,) if truth.has_annotations else (),
        truth_masks=masks_folder if truth.has_annotations else None,
        split=SPLITS[split],
        is_drawn=truth.is_drawn,
        skip_bad=skip_bad,
        notes=tuple(checks.notes),
        left_out=tuple(checks.left_out),
        faulty=checks.without_images,
    )


def _masks_beside(path: Path) -> Path:
    return path.parent / 'panomasksRGB'


def _unlabelled(
    name: str, places: list[Path], split: str, path: Path, skip_bad: bool, keep_faulty: bool
) -> Dataset:
    """Open a split that has no JSON, with the images of the videos of a list."""
    lists = [place / f'{split}.txt' for place in places]
    found = [each for each in lists if each.exists()]
    if not found:
        raise DatasetError(
            path,
            [
                f'Expected this file, or for a split without truth a list of videos {lists[0]}, '
                'but neither is there. Name the folder that holds one of them, or another split.'
            ],
        )
    checks = Checks(found[0], skip_bad, keep_faulty)
    videos = []
    for video_id in checks.each(read_video_list(found[0], checks)):
        folders = [place / images / video_id for place in places for images in ('images', 'imgs')]
        files = next((files for files in map(find_files, folders) if files), {})
        size = 0, 0
        lacking: list[str] = []
        if not files:
            lacking = [f'Video {video_id}: expected images in {folders[0]}, got none.']
        else:
            try:
                size = read_size(next(iter(files.values())))
            except DatasetError as error:
                lacking = [f'Video {video_id}: {error.path}: {" ".join(error.faults)}']
                files = {}
        checks.lacks_images(video_id, lacking)
        frame_names = tuple(f'{stem}.png' for stem in files)
        stamps = regular_stamps(len(files), FPS)
        paths = tuple(files.values())
        if checks.keeps:
            videos.append(ImageFolderVideo(video_id, video_id, size, frame_names, paths, stamps))
    checks.finish()
    classes = load_classes('vipseg')
    entries = zip(classes.category_ids, classes.class_names, classes.thing_classes, strict=True)
    categories = tuple(sorted((Category(*entry) for entry in entries), key=_category_id))
    return Dataset(
        name,
        'vipseg',
        categories,
        tuple(videos),
        split=split,
        skip_bad=skip_bad,
        left_out=tuple(checks.left_out),
        faulty=checks.without_images,
    )


def _category_id(category: Category) -> int:
    return category.category_id


def _with_images(video: VipsegVideo, base: Path, checks: Checks) -> ImageFolderVideo:
    """Join a video with its image files; missing ones are added to the faults."""
    folders = [base / images / video.video_id for images in ('images', 'imgs')]
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    files = find_files(folder)
    where = f'Video {video.video_id}'
    if not files:
        lacking = [f'{where}: expected {len(video.frame_names)} images in {folder}, got none.']
    else:
        lacking = [
            f'{where}: expected an image {Path(name).stem}.jpg in {folder}, but there is none.'
            for name in video.frame_names
            if Path(name).stem not in files
        ]
    checks.lacks_images(video.video_id, lacking)
    return ImageFolderVideo(
        video.video_id,
        video.name,
        video.size,
        video.frame_names,
        tuple(files.get(Path(name).stem, folder / name) for name in video.frame_names),
        video.stamps_ns or regular_stamps(len(video.frame_names), video.fps or FPS),
    )
