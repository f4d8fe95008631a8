"""Writes labelled videos of any origin as a data set in the format of YouTube-VIS."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
from pycocotools import mask as coco_mask

from videomt_ros.datasets.dataset import Category, DatasetError
from videomt_ros.datasets.formats.exports import Export, open_export
from videomt_ros.datasets.formats.instance_files import YtvisVideo
from videomt_ros.datasets.formats.origin import DRAWN_INFO
from videomt_ros.datasets.formats.ytvis_folders import USUAL_FPS
from videomt_ros.datasets.json_files import write_json
from videomt_ros.datasets.rle import MaskTrack, rle_to_json
from videomt_ros.files import whole_file

JPEG_QUALITY = 95
"""Quality of frames of video files; images are copied as they are."""
LEFT_OUT_FILE = 'left_out.txt'
"""File in the new folder with one line per bad record that was left out, if there are any."""
_NO_RATE = (
    f'The labels do not say how many frames a second has, which will be taken as {USUAL_FPS:g}; '
    '--fps writes another number.'
)


@dataclass(frozen=True)
class Converted:
    """What was written, and remarks on what was read."""

    videos: dict[str, int]
    """Number of videos by the name of their split."""
    num_frames: int
    num_objects: int
    notes: tuple[str, ...]
    """Remarks on the files that were read."""
    left_out: tuple[str, ...]
    """Bad records that were left out; see `Dataset.left_out`."""


@dataclass(frozen=True)
class _Item:
    """One video to write."""

    export: Export
    video: YtvisVideo
    video_id: int
    name: str
    category_ids: dict[int, int]
    """Category id to write by that of the export."""
    keeps_ids: bool
    """Whether objects keep their numbers, which no other export has then."""


def convert(
    sources: Sequence[Path],
    out: Path,
    frames: Path | None = None,
    valid_share: float = 0.0,
    fps: float | None = None,
    *,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Converted:
    """Read labels and frames, and write `JPEGImages/VIDEO/00000.jpg` and one JSON per split.

    Args:
        sources: what `open_export` reads: folders, zips, JSON or XML files. The ids of one are
            kept; of several, videos and objects are numbered anew, and categories of one name
            are one.
        out: new or empty folder, which appears once everything is written.
        frames: folder of images or video file, where they are not part of the only source.
        valid_share: share of the videos, in 0..1, that go to `valid.json`, the last ones; the
            others go to `train.json`. With 0 all go to `valid.json`.
        fps: frames per second of videos for which neither the labels nor a video file say it.
        skip_bad: leave out records with faults.
        progress: function that is called with the numbers of frames written and of all.

    Raises:
        ValueError: the folder holds files, or there are too few videos for two splits.
        DatasetError: labels or frames are missing or wrong.
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f'Expected a new or empty folder, got {out}. Remove it or name another.')
    if frames is not None and len(sources) > 1:
        raise ValueError(
            f'Expected one source with --frames, whose frames they are, got {len(sources)}.'
        )
    # Beside the target, so that what fails or is interrupted leaves no data set that looks whole.
    with (
        _new_parents(out),
        tempfile.TemporaryDirectory(prefix=f'.{out.name}.', dir=out.parent) as scratch,
        _names_of_zips({Path(scratch, f'export{k}'): path for k, path in enumerate(sources)}),
    ):
        partial = Path(scratch, 'data')
        exports = []
        for number, source in enumerate(sources):
            unpacked = Path(scratch, f'export{number}')
            unpacked.mkdir()
            exports.append(open_export(source, frames, unpacked, skip_bad=skip_bad))
        categories, items = _join(exports)
        if not items:
            raise ValueError(f'Expected videos in {", ".join(map(str, sources))}, got none.')
        splits = _split(items, valid_share)
        written = _write(splits, categories, partial, fps, progress)
        notes = _with_sources(sources, [export.truth.notes for export in exports])
        left_out = _with_sources(sources, [export.left_out for export in exports])
        if left_out:
            lines = ''.join(f'{line}\n' for line in left_out)
            (partial / LEFT_OUT_FILE).write_text(lines, encoding='utf-8')
        if out.exists():
            out.rmdir()
        partial.rename(out)
    return replace(written, notes=(*notes, *written.notes), left_out=left_out)


@contextmanager
def _new_parents(path: Path) -> Iterator[None]:
    """Make the folders that a path is in, and remove them if the block fails."""
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        raise


@contextmanager
def _names_of_zips(sources: Mapping[Path, Path]) -> Iterator[None]:
    """Name in errors a zip by its own path rather than by the folder that it was unpacked to."""
    try:
        yield
    except DatasetError as error:
        texts = [str(error.path), *error.faults]
        for unpacked, source in sources.items():
            texts = [text.replace(str(unpacked), str(source)) for text in texts]
        raise DatasetError(Path(texts[0]), texts[1:]) from error


def _with_sources(sources: Sequence[Path], texts: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Join remarks on each source, and name it where there are several."""
    return tuple(
        f'{source.name}: {text}' if len(sources) > 1 else text
        for source, own in zip(sources, texts, strict=True)
        for text in own
    )


def _join(exports: Sequence[Export]) -> tuple[list[Category], list[_Item]]:
    """Give videos and categories of several exports ids and names of their own."""
    if len(exports) == 1:
        (export,) = exports
        kept = list(export.truth.categories)
        ids = {category.category_id: category.category_id for category in kept}
        return kept, [
            _Item(export, video, video.video_id, export.names[video.video_id], ids, True)
            for video in export.videos
        ]
    categories: dict[str, Category] = {}
    items: list[_Item] = []
    names: set[str] = set()
    for export in exports:
        for category in export.truth.categories:
            number = len(categories) + 1
            categories.setdefault(category.name, replace(category, category_id=number))
        ids = {
            category.category_id: categories[category.name].category_id
            for category in export.truth.categories
        }
        for video in export.videos:
            video_id, name = len(items) + 1, export.names[video.video_id]
            if name in names:
                name = f'{name}_{video_id}'
            names.add(name)
            items.append(_Item(export, video, video_id, name, ids, False))
    return list(categories.values()), items


def _write(
    splits: dict[str, Sequence[_Item]],
    categories: Sequence[Category],
    root: Path,
    fps: float | None,
    progress: Callable[[int, int], None],
) -> Converted:
    """Write the images, and one JSON per split."""
    total = sum(len(item.video.frame_names) for items in splits.values() for item in items)
    num_frames = num_objects = 0
    has_rates = True
    for split, items in splits.items():
        videos: list[dict[str, Any]] = []
        objects: list[dict[str, Any]] = []
        for item in items:
            videos.append(_video_record(item, fps))
            has_rates &= 'fps' in videos[-1] or 'stamps_ns' in videos[-1]
            for file_name in _write_frames(item, root):
                videos[-1]['file_names'].append(file_name)
                num_frames += 1
                progress(num_frames, total)
            for track in item.export.truth.tracks(item.video.video_id):
                num_objects += 1
                number = track.track_id if item.keeps_ids else num_objects
                objects.append(_object_record(track, item, number))
        content: dict[str, Any] = {
            'info': DRAWN_INFO if all(item.export.truth.is_drawn for item in items) else {},
            'categories': [
                {'id': category.category_id, 'name': category.name} for category in categories
            ],
            'videos': videos,
        }
        if all(item.export.truth.has_annotations for item in items):
            content['annotations'] = objects
        write_json(root / f'{split}.json', content)
    return Converted(
        {split: len(items) for split, items in splits.items()},
        num_frames,
        num_objects,
        () if has_rates else (_NO_RATE,),
        (),
    )


def _split(videos: Sequence[_Item], valid_share: float) -> dict[str, Sequence[_Item]]:
    """Set the last videos aside; whole ones, since neighbouring frames are alike."""
    if not valid_share:
        return {'valid': videos}
    if len(videos) < 2:
        raise ValueError(
            f'Expected two videos or more, to set some aside, got {len(videos)}. Leave out '
            '--valid-share, or label more videos.'
        )
    count = min(max(round(valid_share * len(videos)), 1), len(videos) - 1)
    return {'train': videos[:-count], 'valid': videos[-count:]}


def _write_frames(item: _Item, root: Path) -> Iterator[str]:
    """Write the images of a video one by one; gives their names."""
    frames = item.export.frames[item.video.video_id].frames()
    for index, (suffix, image) in enumerate(frames):
        file_name = f'{item.name}/{index:05d}{suffix}'
        if not isinstance(image, bytes):
            pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            image = cv2.imencode('.jpg', pixels, quality)[1].tobytes()
        with whole_file(root / 'JPEGImages' / file_name) as file:
            file.write(image)
        yield file_name


def _video_record(item: _Item, fps: float | None) -> dict[str, Any]:
    """Describe a video, whose `file_names` are still to come."""
    video = item.video
    height, width = video.size
    record: dict[str, Any] = {
        'id': item.video_id,
        'width': width,
        'height': height,
        'length': len(video.frame_names),
        'file_names': [],
    }
    if rate := video.fps or item.export.frames[video.video_id].fps or fps:
        record['fps'] = rate
    if video.stamps_ns:
        record['stamps_ns'] = list(video.stamps_ns)
    return record


def _object_record(track: MaskTrack, item: _Item, number: int) -> dict[str, Any]:
    masks, pixels = track.read()
    areas = track.areas or [int(area) for area in pixels]
    return {
        'id': number,
        'video_id': item.video_id,
        'category_id': item.category_ids[track.category_id],
        'iscrowd': int(track.is_crowd),
        'height': item.video.size[0],
        'width': item.video.size[1],
        'length': len(masks),
        'segmentations': [mask and rle_to_json(mask) for mask in masks],
        'areas': [area if mask else None for mask, area in zip(masks, areas, strict=True)],
        'bboxes': [mask and coco_mask.toBbox(mask).tolist() for mask in masks],
    }
