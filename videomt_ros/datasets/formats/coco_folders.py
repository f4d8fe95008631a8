"""Opens COCO as it is unpacked, and finds its annotation files and images."""

from __future__ import annotations

from pathlib import Path

from videomt_ros.datasets.dataset import Dataset
from videomt_ros.datasets.formats.coco import read_coco_panoptic
from videomt_ros.datasets.formats.file_search import find_file
from videomt_ros.datasets.formats.record_checks import Checks
from videomt_ros.datasets.formats.ytvis import load_ytvis
from videomt_ros.datasets.formats.ytvis_folders import image_video, with_images
from videomt_ros.datasets.image_folder import ImageFolderVideo
from videomt_ros.datasets.json_files import load_json

_SPLITS = {
    'val': ('val', 'val2017', 'valid'),
    'valid': ('valid', 'val2017', 'val'),
    'val2017': ('val2017', 'val', 'valid'),
    'train': ('train', 'train2017'),
    'test': ('test', 'test2017'),
}
"""Splits in the names of the files for each split that users name, the likeliest first."""
_INSTANCES = (
    'annotations/instances_{split}.json',
    'instances_{split}.json',
    'annotations/image_info_{split}.json',
    '{split}.json',
    '{split}/instances.json',
    '{split}/_annotations.coco.json',
    '{split}/labels.json',
    '{split}/annotations.json',
    'annotations/{split}.json',
)
"""Places of annotation files: the first three are those of COCO, Roboflow's is the sixth,
FiftyOne's the seventh."""
_PANOPTIC = ('annotations/panoptic_{split}.json', 'panoptic_{split}.json')
_IMAGES = (
    '{split}',
    'images/{split}',
    '{split}/images',
    '{split}/data',
    'data/{split}',
    '{split}/JPEGImages',
    'JPEGImages/{split}',
    'images',
    'images/default',
    'data',
    'JPEGImages',
    '.',
)


def coco_dataset(
    name: str,
    root: Path,
    split: str = 'val2017',
    skip_bad: bool = False,
    keep_faulty: bool = False,
) -> Dataset:
    """Open the instances of COCO, or of a data set in its format; each image is a video.

    Where track ids connect the images, those of a video are its frames; see `formats.coco_video`.

    Args:
        name: name that the user gave to the data set.
        root: folder with `annotations/` and the images, such as in `val2017/`.
        split: name such as 'val2017'; 'val' and 'train' are those of 2017.
        skip_bad: leave out records with faults; see `open_dataset`.
        keep_faulty: keep images that are missing; see `open_dataset`.

    Raises:
        DatasetError: the annotations or images are missing, or the annotations have faults.
    """
    path = _annotations(root, split, _INSTANCES, f'the annotations of {name}, split {split}')
    truth = load_ytvis(path, skip_bad=skip_bad)
    checks = Checks(path, skip_bad, keep_faulty)
    return Dataset(
        name,
        'ytvis',
        truth.categories,
        with_images(map(image_video, truth.videos), _image_folders(root, split), checks),
        (path,) if truth.has_annotations else (),
        is_drawn=truth.is_drawn,
        skip_bad=skip_bad,
        notes=truth.notes,
        left_out=(*truth.left_out, *checks.left_out),
        faulty=checks.without_images,
    )


def coco_panoptic_dataset(
    name: str,
    root: Path,
    split: str = 'val2017',
    skip_bad: bool = False,
    keep_faulty: bool = False,
) -> Dataset:
    """Open the panoptic segments of COCO; each image is a video, as in `coco_dataset`."""
    path = _annotations(root, split, _PANOPTIC, f'the annotations of {name}, split {split}')
    content = load_json(path)
    masks_folder = path.with_suffix('')
    checks = Checks(path, skip_bad, keep_faulty)
    truth, files = read_coco_panoptic(content, masks_folder, checks)
    videos = (
        ImageFolderVideo(
            v.video_id, v.name, v.size, v.frame_names, (Path(files[v.video_id]),), (0,)
        )
        for v in truth.videos
    )
    has_truth = truth.has_annotations
    return Dataset(
        name,
        'coco_panoptic',
        truth.categories,
        with_images(videos, _image_folders(root, split), checks),
        (path,) if has_truth else (),
        masks_folder if has_truth else None,
        is_drawn=truth.is_drawn,
        skip_bad=skip_bad,
        notes=truth.notes,
        left_out=tuple(checks.left_out),
        faulty=checks.without_images,
    )


def _annotations(root: Path, split: str, places: tuple[str, ...], what: str) -> Path:
    splits = _SPLITS.get(split, (split,))
    return find_file(root, [place.format(split=one) for one in splits for place in places], what)


def _image_folders(root: Path, split: str) -> list[Path]:
    """List the folders that may hold the images of a split."""
    # The images of test-dev2017 are among those of test2017.
    splits = dict.fromkeys([*_SPLITS.get(split, (split,)), split.replace('-dev', '')])
    return [root / place.format(split=one) for one in splits for place in _IMAGES]
