"""The annotation files that may be the truth of a bag, one object per format.

Each format is that of a benchmark, with a stamp for every annotated frame: it is recognised, read,
and written for one video that was cut out of a data set.
"""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

from videomt_ros.datasets.dataset import AnnotatedVideo, Dataset, DatasetError, Video
from videomt_ros.datasets.formats.coco_video import is_coco_video
from videomt_ros.datasets.formats.instance_files import YtvisTruth
from videomt_ros.datasets.formats.panoptic_files import VipsegTruth
from videomt_ros.datasets.formats.semantic_files import VspwTruth
from videomt_ros.datasets.formats.vipseg import load_vipseg
from videomt_ros.datasets.formats.vspw import SPLITS, load_vspw
from videomt_ros.datasets.formats.ytvis import load_ytvis
from videomt_ros.datasets.json_files import load_json


class StampedVideo(AnnotatedVideo, Protocol):
    """A video of an annotation file that may have stamps."""

    @property
    def stamps_ns(self) -> tuple[int, ...] | None:
        """Stamp of each annotated frame in nanoseconds; None if the file has none."""
        ...


StampedTruth: TypeAlias = YtvisTruth | VipsegTruth | VspwTruth
"""Content of an annotation file."""


class TruthFormat(ABC):
    """A format of annotation files with stamps. It has no state."""

    family: ClassVar[str]
    """Family of data sets with this format; see `Dataset.family`."""
    how_to_add_stamps: ClassVar[str]
    """Advice to a user whose files have no stamps."""

    @abstractmethod
    def fits(self, path: Path, first_video: Mapping[str, Any]) -> bool:
        """Tell whether a file or folder has this format.

        Args:
            path: the file or folder.
            first_video: first of the `videos` of a JSON file; empty if there is none.
        """

    @abstractmethod
    def load(self, path: Path, skip_bad: bool = False) -> StampedTruth:
        """Read a file or folder that fits; with `skip_bad` as far as its records have no fault.

        Raises:
            DatasetError: it cannot be used.
        """

    def split(self, path: Path) -> str:
        """Return the split of a folder that may have several, val before others; '' for a file.

        Raises:
            DatasetError: the folder has a list of none.
        """
        return ''

    def masks_folder(self, path: Path) -> Path | None:
        """Return the folder of the true PNGs, for formats that have one beside their file."""
        return None

    @abstractmethod
    def paths(self, out: Path, video: Video) -> list[Path]:
        """List the files and folders that a video's truth takes in a folder of bags."""

    def read_contents(self, dataset: Dataset) -> list[dict[str, Any]]:
        """Read the JSON files of a data set's truth, from which `write` takes single videos.

        Raises:
            DatasetError: one cannot be read, or is of single images.
        """
        contents = []
        for path in dataset.truth:
            content = load_json(path)
            if is_coco_video(content):
                fault = (
                    'Expected one record for each video, got one for each of its images. '
                    '`videomt convert` turns the data set into one that bags can be made of.'
                )
                raise DatasetError(path, [fault])
            if 'videos' not in content:
                fault = 'Expected annotations of videos, got those of single images.'
                raise DatasetError(path, [fault])
            contents.append(content)
        return contents

    @abstractmethod
    def write(
        self,
        dataset: Dataset,
        contents: Sequence[Mapping[str, Any]],
        video: Video,
        stamps_ns: Sequence[int],
        out: Path,
    ) -> None:
        """Write the truth of one video.

        Args:
            dataset: a data set with truth.
            contents: what `read_contents` has returned for it.
            video: one of its videos.
            stamps_ns: stamp of each annotated frame.
            out: existing folder; `paths` says what is written to it.
        """


class _YtvisFormat(TruthFormat):
    """JSON of YouTube-VIS, whose videos have `stamps_ns`, one number per frame."""

    family = 'ytvis'
    how_to_add_stamps = (
        'Add to the video a field `stamps_ns`: one whole number of nanoseconds per frame.'
    )

    def fits(self, path: Path, first_video: Mapping[str, Any]) -> bool:
        return not path.is_dir() and 'images' not in first_video

    def load(self, path: Path, skip_bad: bool = False) -> StampedTruth:
        truth = load_ytvis(path, skip_bad=skip_bad)
        if not truth.has_annotations:
            raise DatasetError(
                path, ['Expected a field `annotations`; there is no truth without.']
            )
        return truth

    def paths(self, out: Path, video: Video) -> list[Path]:
        return [out / f'{bag_name(video)}.json']

    def write(
        self,
        dataset: Dataset,
        contents: Sequence[Mapping[str, Any]],
        video: Video,
        stamps_ns: Sequence[int],
        out: Path,
    ) -> None:
        # Of several files, such as those of short and of long videos, the first that has it.
        content, record = next(
            (content, record)
            for content in contents
            for record in content['videos']
            if record['id'] == video.video_id
        )
        annotations = [a for a in content['annotations'] if a['video_id'] == video.video_id]
        record = {**record, 'stamps_ns': list(stamps_ns)}
        _write_json(
            out / f'{bag_name(video)}.json',
            {**content, 'videos': [record], 'annotations': annotations},
        )


class _VipsegFormat(TruthFormat):
    """JSON of VIPSeg, whose images have `stamp_ns`, and PNGs beside it."""

    family = 'vipseg'
    how_to_add_stamps = (
        'Add to each of its images a field `stamp_ns`: a whole number of nanoseconds.'
    )

    def fits(self, path: Path, first_video: Mapping[str, Any]) -> bool:
        return not path.is_dir() and 'images' in first_video

    def load(self, path: Path, skip_bad: bool = False) -> StampedTruth:
        return load_vipseg(path, skip_bad=skip_bad)

    def masks_folder(self, path: Path) -> Path | None:
        return path.parent / 'panomasksRGB'

    def paths(self, out: Path, video: Video) -> list[Path]:
        return [out / 'panomasksRGB' / str(video.video_id), out / f'{bag_name(video)}.json']

    def write(
        self,
        dataset: Dataset,
        contents: Sequence[Mapping[str, Any]],
        video: Video,
        stamps_ns: Sequence[int],
        out: Path,
    ) -> None:
        (content,) = contents
        (record,) = (v for v in content['videos'] if v['video_id'] == video.video_id)
        images = [
            {**image, 'stamp_ns': stamp_ns}
            for image, stamp_ns in zip(record['images'], stamps_ns, strict=True)
        ]
        annotations = [a for a in content['annotations'] if a['video_id'] == video.video_id]
        record = {**record, 'images': images}
        masks = dataset.truth_masks
        assert masks is not None, 'a VIPSeg data set with truth has its masks'
        folder = str(video.video_id)
        for name in video.frame_names:
            target = out / 'panomasksRGB' / folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(masks / folder / name, target)
        _write_json(
            out / f'{bag_name(video)}.json',
            {**content, 'videos': [record], 'annotations': annotations},
        )


class _VspwFormat(TruthFormat):
    """Folder of VSPW, whose masks are named by their stamps."""

    family = 'vspw'
    how_to_add_stamps = 'Name its masks by the stamps of their images in nanoseconds.'

    def fits(self, path: Path, first_video: Mapping[str, Any]) -> bool:
        return path.is_dir()

    def load(self, path: Path, skip_bad: bool = False) -> StampedTruth:
        return load_vspw(path, self.split(path), skip_bad=skip_bad)

    def split(self, path: Path) -> str:
        bases = (path, path / 'VSPW_480p')
        found = [
            split
            for split in ('val', *sorted(set(SPLITS.values()) - {'val'}))
            if any((base / f'{split}.txt').is_file() for base in bases)
        ]
        if not found:
            names = ', '.join(f'{split}.txt' for split in sorted(set(SPLITS.values())))
            raise DatasetError(path, [f'Expected a list of videos out of {names}, got none.'])
        return found[0]

    def paths(self, out: Path, video: Video) -> list[Path]:
        return [out / f'{bag_name(video)}_vspw']

    def read_contents(self, dataset: Dataset) -> list[dict[str, Any]]:
        return []

    def write(
        self,
        dataset: Dataset,
        contents: Sequence[Mapping[str, Any]],
        video: Video,
        stamps_ns: Sequence[int],
        out: Path,
    ) -> None:
        (source,) = dataset.truth
        folder, name = out / f'{bag_name(video)}_vspw', str(video.video_id)
        masks = folder / 'data' / name / 'mask'
        masks.mkdir(parents=True)
        (folder / 'val.txt').write_text(f'{name}\n', encoding='utf-8')
        for file in source.glob('*.json'):  # names of the classes, and the origin
            shutil.copyfile(file, folder / file.name)
        for frame_name, stamp_ns in zip(video.frame_names, stamps_ns, strict=True):
            shutil.copyfile(
                source / 'data' / name / 'mask' / frame_name, masks / f'{stamp_ns}.png'
            )


TRUTH_FORMATS: dict[str, TruthFormat] = {
    each.family: each for each in (_YtvisFormat(), _VipsegFormat(), _VspwFormat())
}
"""All formats by the name of their family."""


def find_truth_format(path: Path) -> TruthFormat:
    """Recognise the format of a file or folder.

    Raises:
        DatasetError: the file is no JSON.
    """
    first: Any = {}
    if not path.is_dir():
        content = load_json(path)
        records = content.get('videos') if isinstance(content, dict) else None
        first = records[0] if isinstance(records, list) and records else {}
    first_video = first if isinstance(first, dict) else {}
    return next(each for each in TRUTH_FORMATS.values() if each.fits(path, first_video))


def bag_name(video: Video) -> str:
    """Name the bag of a video."""
    return video.name.replace('/', '_')


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding='utf-8')
