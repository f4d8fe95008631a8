"""Opens what labelling tools export: finds labels and frames in a folder, a zip or a file.

What a file is, its content says: CocoVID, CVAT's "COCO 1.0" and "CVAT for video 1.1", labelme,
COCO, or YouTube-VIS itself.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.datasets.formats.cvat_xml import load_cvat_xml
from videomt_ros.datasets.formats.file_search import find_image_folder, find_missing
from videomt_ros.datasets.formats.instance_files import YtvisTruth, YtvisVideo, plain_name
from videomt_ros.datasets.formats.labelme import is_labelme, labelme_folders, load_labelme
from videomt_ros.datasets.formats.record_checks import Checks
from videomt_ros.datasets.formats.ytvis import BROKEN_ZIP, load_ytvis
from videomt_ros.datasets.image_folder import find_files, natural_key, read_image
from videomt_ros.datasets.json_files import load_json
from videomt_ros.datasets.video import VideoFile

_IMAGES = (
    'images/{split}',
    '{split}/JPEGImages',
    'JPEGImages/{split}',
    '{split}',
    'JPEGImages',
    'images',
    'data',
    '.',
)
"""Places of images beside an annotation file, or beside the folder that it is in."""
_CVAT_NUMBER = re.compile(r'frame_(\d{6,})')
_READ = (
    'YouTube-VIS, COCO, CocoVID, the exports "COCO 1.0" and "CVAT for video 1.1" of CVAT, and '
    'labelme'
)
_HOW_TO_GIVE = (
    'Export the labels with their images, or give the folder of images or the video file with '
    '--frames.'
)


class StoredImages:
    """The frames of a video as image files, which are copied as they are."""

    fps: float | None = None

    def __init__(self, paths: Sequence[Path], size: tuple[int, int]) -> None:
        """Wrap T files of images of `size` (height, width)."""
        self._paths, self._size = paths, size

    def frames(self) -> Iterator[tuple[str, bytes | NDArray[np.uint8]]]:
        """Give the suffix and the bytes of each file.

        Raises:
            DatasetError: an image cannot be read, or has another size than its labels.
        """
        for path in self._paths:
            yield path.suffix.lower(), read_image(path, self._size)[0]


class VideoFrames:
    """The frames of a video in a video file, of which some are taken."""

    def __init__(self, path: Path, names: Sequence[str], size: tuple[int, int]) -> None:
        """Open the file.

        Args:
            path: a file that OpenCV reads.
            names: T names of frames. Those of CVAT hold the number of the frame, from 0 on;
                others stand for all frames of the file in their order.
            size: size (height, width) of the labels.

        Raises:
            VideoError: it is no video.
        """
        self._path, self._size, self._source = path, size, VideoFile(path)
        found = [_CVAT_NUMBER.fullmatch(Path(name).stem) for name in names]
        self._is_numbered = all(found)
        self._numbers = [
            int(match[1]) if match and self._is_numbered else index
            for index, match in enumerate(found)
        ]
        strides = {b - a for a, b in zip(self._numbers, self._numbers[1:], strict=False)}
        self.fps: float | None = (
            self._source.fps / next(iter(strides), 1) if len(strides) < 2 else None
        )

    def frames(self) -> Iterator[tuple[str, bytes | NDArray[np.uint8]]]:
        """Give '.jpg' and the pixels of each frame.

        Raises:
            DatasetError: the file has another number of frames, or another size than the labels.
        """
        wanted, position, count = self._numbers, 0, 0
        for count, frame in enumerate(self._source.frames(), start=1):
            if position < len(wanted) and wanted[position] == count - 1:
                _check_size(self._path, frame.image, self._size)
                yield '.jpg', frame.image
                position += 1
            elif position == len(wanted) and self._is_numbered:
                return
        if position < len(wanted) or (not self._is_numbered and count != len(wanted)):
            needed = wanted[-1] + 1
            raise DatasetError(
                self._path,
                [
                    f'Expected {needed:,} frames, as the labels have, got {count:,}. Is it the '
                    'video that was labelled?'
                ],
            )


_Frames = dict[int, StoredImages | VideoFrames]
"""Frames of each video by its id."""


@dataclass(frozen=True)
class Export:
    """Labels, and the frames that they belong to."""

    truth: YtvisTruth
    frames: _Frames
    """Frames of each video by its id; a video with bad records may be left out."""
    names: dict[int, str]
    """Name of each video by its id."""
    left_out: tuple[str, ...] = ()
    """One line per bad record that was left out; see `Dataset.left_out`."""

    @property
    def videos(self) -> list[YtvisVideo]:
        """Videos that have frames."""
        return [video for video in self.truth.videos if video.video_id in self.frames]


def open_export(
    path: Path, frames: Path | None, scratch: Path, *, skip_bad: bool = False
) -> Export:
    """Open labels and find their frames.

    Args:
        path: folder, zip, JSON or XML.
        frames: folder of the images, or the video file that was labelled; None: the images are
            part of the export.
        scratch: existing empty folder, where a zip is unpacked.
        skip_bad: leave out records with faults.

    Raises:
        DatasetError: there are no labels, they have faults, or frames are missing.
    """
    if not path.exists():
        raise DatasetError(
            path, ['Expected the export of a labelling tool; there is no such file.']
        )
    if frames is not None and not frames.exists():
        raise DatasetError(frames, ['Expected a folder of images or a video; there is none.'])
    name = path.stem if path.is_file() else path.resolve().name
    if path.is_file() and (path.suffix.lower() == '.zip' or zipfile.is_zipfile(path)):
        _unpack(path, scratch)
        path = _find_labels(_inner_folder(scratch), path)
    elif path.is_dir():
        path = _find_labels(_inner_folder(path), path)
    elif path.suffix.lower() == '.json' and is_labelme(load_json(path)):
        path = path.parent
    if path.is_dir():
        truth = load_labelme(path, labelme_folders(path), skip_bad=skip_bad)
        places = [frames or path]
    elif path.suffix.lower() == '.xml':
        truth = load_cvat_xml(path, skip_bad=skip_bad)
        places = []
    else:
        truth = _load_json(path, skip_bad)
        split = path.stem.rpartition('_')[2]
        bases = [frames] if frames else [path.parent, path.parent.parent]
        places = [base / place.format(split=split) for base in bases for place in _IMAGES]
    places = [place for place in dict.fromkeys(places) if place.is_dir()]
    checks = Checks(path, skip_bad)
    if frames is not None and frames.is_file():
        found = _of_video(truth, frames)
    elif path.suffix.lower() == '.xml' or (frames and _has_other_names(truth, places)):
        found = _of_one(truth, frames or path.parent)
    else:
        found = _of_images(truth, places, checks)
    return Export(truth, found, _names(truth, name), (*truth.left_out, *checks.left_out))


def _unpack(path: Path, scratch: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(scratch)  # names that lead out of the folder lose what does so
    except BROKEN_ZIP as error:
        raise DatasetError(path, [f'Expected a sound zip file, but {error}.']) from error


def _inner_folder(root: Path) -> Path:
    """Return the folder that a zip may have around all that it holds."""
    inner = [path for path in root.iterdir() if not path.name.startswith(('.', '__MACOSX'))]
    is_around = len(inner) == 1 and inner[0].is_dir() and not find_files(inner[0])
    return inner[0] if is_around else root


def _find_labels(root: Path, source: Path) -> Path:
    """Find the one annotation file of a folder; the folder itself for files of labelme.

    Args:
        root: the folder.
        source: what the user named, for errors.
    """
    folders = [root, root / 'annotations', *sorted(p for p in root.iterdir() if p.is_dir())]
    found = [
        path
        for folder in dict.fromkeys(folders)
        for path in (*find_files(folder, ('.xml',)).values(), *_json_files(folder))
        if path.suffix.lower() != '.xml' or _is_cvat(path)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = ', '.join(str(path.relative_to(root)) for path in found)
        how = 'Name one of them.' if source == root else 'Unpack it and name one of them.'
        raise DatasetError(source, [f'Expected one annotation file, got {names}. {how}'])
    if not labelme_folders(root):
        if zips := sorted(root.glob('*.zip')):
            how = f'Name the zips themselves, such as {zips[0]}.'
            raise DatasetError(source, [f'Expected one export, got a folder of zip files. {how}'])
        raise DatasetError(source, [f'Expected labels in a format that is read: {_READ}.'])
    return root


def _is_cvat(path: Path) -> bool:
    with path.open('rb') as file:
        return b'<annotations' in file.read(1000)


def _json_files(folder: Path) -> Iterator[Path]:
    """Give the annotation files of a folder, but those of labelme."""
    for path in find_files(folder, ('.json',)).values():
        try:
            content = load_json(path)
        except DatasetError:
            yield path  # what is wrong with it is told if it is the only one
            continue
        if is_labelme(content):
            return  # all files of its folder are
        if isinstance(content, dict) and ('images' in content or 'videos' in content):
            yield path


def _has_other_names(truth: YtvisTruth, places: Sequence[Path]) -> bool:
    """Tell whether there is one video, and none of its images is found by its name."""
    names = [name for video in truth.videos for name in video.frame_names]
    return len(truth.videos) == 1 and all(
        len(find_missing(place, names)) == len(names) for place in places
    )


def _load_json(path: Path, skip_bad: bool) -> YtvisTruth:
    try:
        return load_ytvis(path, skip_bad=skip_bad)
    except DatasetError as error:
        content = load_json(path)
        records = content.get('annotations') if isinstance(content, dict) else None
        first = records[0] if isinstance(records, list) and records else None
        if isinstance(first, dict) and ('segments_info' in first or 'annotations' in first):
            fault = (
                'Expected labels of instances, got panoptic ones, which are not converted. VIPSeg '
                'and panoptic COCO are read as they are: --dataset vipseg, coco_panoptic.'
            )
            raise DatasetError(path, [fault]) from error
        if not (isinstance(content, dict) and content.keys() & {'categories', 'annotations'}):
            faults = [f'Expected labels in a format that is read: {_READ}.']
            raise DatasetError(path, faults) from error
        raise


def _of_one(truth: YtvisTruth, base: Path) -> _Frames:
    """Find the images of a single video by their stems, or else take them in their order."""
    (video,) = truth.videos
    folders = [base, base / 'images', *sorted((base / 'images').glob('*'))]
    found = next((files for folder in folders if (files := find_files(folder))), {})
    names = [Path(name).stem for name in video.frame_names]
    if not set(names) <= set(found):
        # Frames that were extracted by another tool than the one for labels.
        names = sorted(found, key=natural_key)
    if len(names) != len(video.frame_names):
        raise DatasetError(
            truth.path,
            [
                f'Expected {len(video.frame_names):,} images in {base}, such as '
                f'{Path(video.frame_names[0]).stem}.jpg, got {len(names):,}. {_HOW_TO_GIVE}'
            ],
        )
    paths = [found[name] for name in names]
    return {video.video_id: StoredImages(paths, video.size)}


def _of_images(truth: YtvisTruth, places: Sequence[Path], checks: Checks) -> _Frames:
    """Find the folder of the images; one that is missing is a fault."""
    names = [name for video in truth.videos for name in video.frame_names]
    if not names:
        return {}
    try:
        folder, missing = find_image_folder(checks, places, names)
    except DatasetError as error:
        raise DatasetError(error.path, [*error.faults, _HOW_TO_GIVE]) from error
    found: _Frames = {}
    for video in checks.each(truth.videos):
        own = video.frame_names
        checks.faults += [f'There is no {folder / name}.' for name in own if name in missing]
        if checks.keeps:
            found[video.video_id] = StoredImages([folder / name for name in own], video.size)
    return found


def _of_video(truth: YtvisTruth, path: Path) -> _Frames:
    if len(truth.videos) != 1:
        raise DatasetError(
            path,
            [
                f'Expected the labels of one video for a video file, got {len(truth.videos)} '
                'videos. Give the folder of their images.'
            ],
        )
    (video,) = truth.videos
    return {video.video_id: VideoFrames(path, video.frame_names, video.size)}


def _names(truth: YtvisTruth, name: str) -> dict[int, str]:
    """Name the videos, the only one after the export where its labels do not name it."""
    names = {video.video_id: video.name for video in truth.videos}
    if len(names) == 1:
        ((video_id, own),) = names.items()
        if own == str(video_id):
            names[video_id] = plain_name(name) or own
    return names


def _check_size(path: Path, image: NDArray[np.uint8], size: tuple[int, int]) -> None:
    if image.shape[:2] != size:
        raise DatasetError(
            path,
            [
                f'Expected {size[1]} x {size[0]} pixels (width x height), as its labels have, got '
                f'{image.shape[1]} x {image.shape[0]}.'
            ],
        )
