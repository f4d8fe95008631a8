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
from contextlib import suppress
from pathlib import Path

from videomt_ros.datasets.dataset import Dataset, DatasetError
from videomt_ros.datasets.formats.file_search import read_video_list
from videomt_ros.datasets.formats.origin import folder_says_drawn
from videomt_ros.datasets.formats.record_checks import Checks, Unknown
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


def load_vspw(
    folder: Path, split: str = 'val', *, skip_bad: bool = False, keep_faulty: bool = False
) -> VspwTruth:
    """Open the truth of a split and check that its masks exist; they are read on demand.

    The frames of a video are the PNGs of its folder of masks, by name. Where its images are there,
    each needs a mask.

    Args:
        folder: folder of the data set, or the one above its `VSPW_480p`.
        split: train, val (or valid) or test.
        skip_bad: leave out videos with faults, and list them in `left_out`.
        keep_faulty: keep videos that lack masks, and list them in `unusable`.

    Raises:
        ValueError: there is no such split.
        DatasetError: the files cannot be used; lists every fault.
    """
    base = _find_base(folder)
    checks = Checks(base, skip_bad, keep_faulty)
    names = _read_list(base, split, checks)
    truth = _read_truth(base, names, checks)
    checks.finish()
    return truth


def load_vspw_results(
    folder: Path,
    videos: Sequence[VspwVideo],
    *,
    skip_bad: bool = False,
    is_strict: bool = True,
) -> VspwResults:
    """Open results and check that every PNG exists; they are read on demand.

    A video without a folder is named in `missing`. PNGs of frames that the truth has not are not
    looked at, as in the public scorers.

    Args:
        folder: holds `<video>/<frame>.png`.
        videos: the videos that may have results, such as those of a `VspwTruth`.
        skip_bad: leave out videos with faults, and list them in `left_out`.
        is_strict: whether a missing PNG and results of other videos are errors; else the first is
            in `unusable`, and the others are ignored and noted.

    Raises:
        DatasetError: the files cannot be used; lists every fault.
    """
    if not folder.is_dir():
        raise DatasetError(folder, ['Expected a folder of results, but there is none.'])
    results = VspwResults(folder, videos)
    checks = Checks(folder, skip_bad, keep_faulty=not is_strict)
    left_out, unknown, surplus = set[str](), Unknown(), 0
    for video in checks.each(videos):
        if video.video_id in results.missing:
            continue
        present = {path.name for path in (folder / video.video_id).iterdir()}
        surplus += len({name for name in present if name.endswith('.png')} - {*video.frame_names})
        lacking = [
            f'Video {video.video_id}: expected {folder / video.video_id / name}, but there is no '
            'such file.'
            for name in video.frame_names
            if name not in present
        ]
        checks.lacks_masks(video.video_id, lacking)
        if not checks.keeps:
            left_out.add(video.video_id)
    known = {video.video_id for video in videos}
    for path in checks.each(sorted(folder.iterdir())):
        if path.name not in known and (num_files := len(find_files(path, ('.png',)))):
            if is_strict:
                checks.fault(f'Expected results of videos of the truth, got PNGs of {path.name}.')
            else:
                unknown.add(path.name, num_files)
    notes = unknown.notes(len(videos) - len(results.missing), checks)
    if surplus:
        notes.append(f'Ignored {surplus:,} PNGs of frames that the truth has no mask for.')
    if not checks.faults and not checks.left_out and len(results.missing) == len(videos):
        found = [path.name for path in folder.iterdir() if not path.name.startswith('.')]
        if found:
            checks.fault(
                f'Expected folders of videos of the truth, such as {videos[0].video_id}, '
                f'got none, but {", ".join(sorted(found)[:5])}. Name the folder that holds them.'
            )
    checks.finish()
    return VspwResults(folder, videos, left_out, checks.left_out, checks.without_masks, notes)


def vspw_dataset(
    name: str,
    root: Path,
    split: str = 'val',
    skip_bad: bool = False,
    keep_faulty: bool = False,
) -> Dataset:
    """Open a VSPW data set, or a folder laid out like one.

    If no video of the split has masks, there is no truth. Else each image needs its mask, and
    each mask its image.

    Args:
        name: name that the user gave to the data set.
        root: the folder, or the one above its `VSPW_480p`.
        split: train, val (or valid) or test.
        skip_bad: leave out videos with faults; see `open_dataset`.
        keep_faulty: keep videos that lack images or masks; see `open_dataset`.

    Raises:
        ValueError: there is no such split.
        DatasetError: the files cannot be used; lists every fault, each missing frame among them.
    """
    base = _find_base(root)
    checks = Checks(base, skip_bad, keep_faulty)
    names = _read_list(base, split, checks)
    has_truth = any(find_files(mask_folder(base, each), ('.png',)) for each in names)
    if has_truth:
        truth = _read_truth(base, names, checks)
        categories, labelled = truth.categories, {each.video_id: each for each in truth.videos}
    else:
        categories, labelled = tuple(read_vspw_classes(base, checks.faults)), {}
    videos = []
    for video_id in checks.each(names):
        if has_truth and skip_bad and video_id not in labelled:
            continue  # it has been left out already
        folder = _image_folder(base, video_id)
        images = find_files(folder)
        video = labelled.get(video_id)
        if not has_truth:
            lacking: list[str] = []
            video = _find_video(video_id, folder, images, lacking)
            if video is None and checks.keep_faulty:
                video = VspwVideo(video_id, (0, 0), ())
            checks.lacks_images(video_id, lacking)
        if video is None:
            continue
        if has_truth:
            checks.lacks_images(video_id, _without_image(video, folder, images))
        if not checks.keeps:
            continue
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
    checks.finish()
    return Dataset(
        name,
        'vspw',
        categories,
        tuple(videos),
        (base,) if has_truth else (),
        split=SPLITS[split],
        is_drawn=folder_says_drawn(base),
        skip_bad=skip_bad,
        notes=tuple(checks.notes),
        left_out=tuple(checks.left_out),
        faulty=checks.without_images,
    )


def _find_base(root: Path) -> Path:
    if not root.is_dir():
        raise DatasetError(root, ['Expected the folder of the data set, but there is none.'])
    return root / 'VSPW_480p' if (root / 'VSPW_480p').is_dir() else root


def _read_list(base: Path, split: str, checks: Checks) -> list[str]:
    """Read the list of videos of a split."""
    if split not in SPLITS:
        raise ValueError(f'Expected a split out of {", ".join(SPLITS)}, got {split!r}.')
    return read_video_list(base / f'{SPLITS[split]}.txt', checks)


def _read_truth(base: Path, names: list[str], checks: Checks) -> VspwTruth:
    """Read the truth as far as it can be used; the caller ends the checks."""
    categories = read_vspw_classes(base, checks.faults)
    found = []
    for video_id in checks.each(names):
        masks = find_files(mask_folder(base, video_id), ('.png',))
        images = find_files(_image_folder(base, video_id))
        lacking: list[str] = []
        video = _find_video(video_id, mask_folder(base, video_id), masks, lacking)
        if masks:
            lacking += [
                f'Video {video_id}: expected a mask {stem}.png in {mask_folder(base, video_id)}, '
                'as there is an image of that name, but there is none.'
                for stem in sorted(images.keys() - masks.keys())
            ]
        if lacking and checks.keep_faulty:
            video = _faulty_video(video_id, masks, images)
        checks.lacks_masks(video_id, lacking)
        found.append(video)
    videos = [video for video in found if video]
    return VspwTruth(
        base,
        categories,
        videos,
        folder_says_drawn(base),
        checks.notes,
        checks.left_out,
        checks.without_masks,
    )


def _faulty_video(video_id: str, masks: dict[str, Path], images: dict[str, Path]) -> VspwVideo:
    """Build a video that lacks masks: its frames are all those that have a mask or an image."""
    size = 0, 0
    for path in (*images.values(), *masks.values()):
        with suppress(DatasetError):
            size = read_size(path)
            break
    names = tuple(
        masks[stem].name if stem in masks else f'{stem}.png' for stem in sorted({*masks, *images})
    )
    return VspwVideo(video_id, size, names, stamps_of_names(names))


def _image_folder(base: Path, video_id: str) -> Path:
    return base / 'data' / video_id / 'origin'


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


def _without_image(video: VspwVideo, folder: Path, images: dict[str, Path]) -> list[str]:
    """Report frames of a video without an image."""
    where = f'Video {video.video_id}'
    if not images:
        count = f'{len(video.frame_names)} images' if video.frame_names else 'images'
        return [f'{where}: expected {count} in {folder}, got none.']
    stems = {Path(each).stem for each in video.frame_names}
    return [
        f'{where}: expected an image {stem}.jpg in {folder}, as there is a mask of that name, '
        'but there is none.'
        for stem in sorted(stems - set(images))
    ]
