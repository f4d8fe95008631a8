"""Opens YouTube-VIS and OVIS as they are unpacked, and finds annotation files and images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from videomt_ros.datasets.dataset import Dataset, DatasetError
from videomt_ros.datasets.formats.file_search import find_file, find_image_folder
from videomt_ros.datasets.formats.instance_files import YtvisTruth, YtvisVideo, with_names
from videomt_ros.datasets.formats.record_checks import Checks
from videomt_ros.datasets.formats.ytvis import load_ytvis
from videomt_ros.datasets.image_folder import ImageFolderVideo, regular_stamps

USUAL_FPS = 6.0
"""Frames per second of files that have neither `fps` nor `stamps_ns`: YouTube-VOS labels every
fifth frame of 30 per second, and the downloads hold those frames alone. OVIS is close to it."""

_FILES = (
    '{split}.json',
    '{split}/instances.json',
    'annotations/{split}.json',
    'annotations/instances_{split}.json',
    'annotations_{split}.json',
    'annotations/annotations_{split}.json',
    'instances_{split}.json',
    '{split}/annotations.json',
    '{split}/{split}.json',
)
"""Places of annotation files: 2019 comes with the first, 2021 and 2022 with the second, OVIS with
the fifth; training tools use the others."""
_IMAGES = (
    '{split}/JPEGImages',
    '{split}',
    'JPEGImages/{split}',
    'Images/{split}',
    'images/{split}',
    'JPEGImages',
    'images',
    'images/default',
    '{split}/images',
    '{split}/data',
    'data/{split}',
    'data',
    '.',
)
_LABELLED = ('gt_{length}.json', 'annotations/gt_{length}.json', '{split}/gt_{length}.json')
"""Places of the labels of the valid split of 2022, with the names that its server gives them."""
_SAME_SPLITS = {'val': 'valid', 'valid': 'val'}
_LENGTHS = ('short', 'long')


def ytvis_dataset(
    name: str,
    root: Path,
    split: str = 'valid',
    skip_bad: bool = False,
    keep_faulty: bool = False,
) -> Dataset:
    """Open YouTube-VIS or OVIS, or another data set of this format, as it was unpacked.

    The labels of YouTube-VIS 2022 are two files, for short and for long videos: 'valid' takes
    both where they are there, 'valid_short' and 'valid_long' one.

    Args:
        name: name that the user gave, such as 'ytvis2019'.
        root: folder of the data set.
        split: 'train', 'valid', 'test', or what the annotation file is called.
        skip_bad: leave out records with faults; see `open_dataset`.
        keep_faulty: keep videos without all of their images; see `open_dataset`.

    Raises:
        DatasetError: no annotation file is where such files lie, it has faults, or images are
            missing.
    """
    paths = _annotation_files(name, root, split)
    truths = [load_ytvis(path, skip_bad=skip_bad) for path in paths]
    videos = _union(truths)
    # A part of a split, such as 'valid_long' or one's own 'train_sub', has no images of its own.
    places = [*_filled(_IMAGES, split), *_filled(_IMAGES, split.partition('_')[0])]
    checks = Checks(paths[0], skip_bad, keep_faulty)
    found = with_images(map(image_video, videos), [root / place for place in places], checks)
    categories = {c.category_id: c for truth in truths for c in truth.categories}
    return Dataset(
        name,
        'ytvis',
        tuple(categories[number] for number in sorted(categories)),
        found,
        tuple(truth.path for truth in truths if truth.has_annotations),
        is_drawn=all(truth.is_drawn for truth in truths),
        skip_bad=skip_bad,
        notes=tuple(note for truth in truths for note in truth.notes),
        left_out=tuple(
            text
            for left_out in (*(truth.left_out for truth in truths), checks.left_out)
            for text in left_out
        ),
        faulty=checks.without_images,
    )


def image_video(video: YtvisVideo) -> ImageFolderVideo:
    """Describe a video of an annotation file, with the paths of its images as in that file."""
    names = video.frame_names
    stamps = video.stamps_ns or regular_stamps(len(names), video.fps or USUAL_FPS)
    paths = tuple(map(Path, names))
    return ImageFolderVideo(video.video_id, video.name, video.size, names, paths, stamps)


def with_images(
    videos: Iterable[ImageFolderVideo], places: Sequence[Path], checks: Checks
) -> tuple[ImageFolderVideo, ...]:
    """Find the folder that holds the images of some videos.

    Args:
        videos: videos whose image paths are relative to that folder.
        places: folders that may be it, the likeliest first.
        checks: collects the faults.

    Returns:
        The videos with full paths, without those that `checks` leaves out.
    """
    videos = list(videos)
    names = [str(path) for video in videos for path in video.image_paths]
    folder, missing = places[0], set[str]()
    if names:
        folder, missing = find_image_folder(checks, places, names)
    found = []
    for video in checks.each(videos):
        paths = tuple(folder / path for path in video.image_paths)
        lacking = [p for p in video.image_paths if str(p) in missing]
        checks.lacks_images(video.video_id, [f'There is no {folder / p}.' for p in lacking])
        if checks.keeps:
            found.append(replace(video, image_paths=paths))
    return tuple(found)


def _annotation_files(name: str, root: Path, split: str) -> list[Path]:
    what, usual = f'the annotations of {name}, split {split}', _filled(_FILES, split)
    if name != 'ytvis2022':
        return [find_file(root, usual, what)]
    base, _, length = split.partition('_')
    if length in _LENGTHS:
        return [find_file(root, [*_labelled(base, length), *usual], what)]
    if split in _SAME_SPLITS:
        places = [_labelled(split, length) for length in _LENGTHS]
        found = [[root / place for place in one if (root / place).is_file()] for one in places]
        if any(found):
            return [paths[0] for paths in found if paths]
        usual += [place for one in places for place in one]
    return [find_file(root, usual, what)]


def _labelled(split: str, length: str) -> list[str]:
    return [place.format(length=length) for place in _filled(_LABELLED, split)]


def _filled(patterns: Sequence[str], split: str) -> list[str]:
    """Fill in the split, and its other names, in some paths."""
    splits = [split, *filter(None, [_SAME_SPLITS.get(split)])]
    return [pattern.replace('{split}', one) for one in splits for pattern in patterns]


def _union(truths: Sequence[YtvisTruth]) -> Iterable[YtvisVideo]:
    """Collect the videos of all files; one that several files have must be the same in all."""
    videos: dict[int, YtvisVideo] = {}
    for truth in truths:
        other = [
            f'Video {video.video_id} has other frames or another size than in {truths[0].path}.'
            for video in truth.videos
            if (known := videos.setdefault(video.video_id, video)).frame_names != video.frame_names
            or known.size != video.size
        ]
        if other:
            raise DatasetError(truth.path, other)
    return with_names(videos[number] for number in sorted(videos))
