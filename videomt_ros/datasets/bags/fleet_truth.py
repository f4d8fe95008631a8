"""Writes the truths of several bags as one truth, with one list of classes and one set of ids.

Everything that reads a truth, such as scoring, then reads that of all bags. There is one object
per family, which holds what differs.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from videomt_ros.datasets.bags.truth import BagTruth, TimedVideo
from videomt_ros.datasets.categories import normalised
from videomt_ros.datasets.dataset import AnnotatedVideo, Category, DatasetError, list_names
from videomt_ros.datasets.formats.origin import DRAWN_INFO, INFO_FILE
from videomt_ros.datasets.formats.semantic_files import (
    CLASS_FILES,
    NUM_CLASSES,
    VspwTruth,
    mask_folder,
)
from videomt_ros.datasets.formats.vipseg import load_vipseg
from videomt_ros.datasets.formats.vspw import load_vspw
from videomt_ros.datasets.formats.ytvis import load_ytvis
from videomt_ros.datasets.json_files import write_json
from videomt_ros.datasets.mask_png import write_mask
from videomt_ros.datasets.rle import rle_to_json


@dataclass(frozen=True)
class LabelledVideo:
    """One video of a truth, and the name that it gets among those of all bags."""

    name: str
    truth: BagTruth
    video: TimedVideo


@dataclass(frozen=True)
class WrittenTruth:
    """What has been written; see the fields of `Dataset`."""

    path: Path
    videos: Sequence[AnnotatedVideo]
    """The videos, in the order in which they were given, without those that have faults."""
    masks: Path | None = None
    split: str = ''
    faults: Mapping[str, str] = field(default_factory=dict)
    """Why a video cannot be used, by its name."""


@dataclass(frozen=True)
class MergedClasses:
    """The classes of several truths as one list."""

    categories: tuple[Category, ...]
    """All classes by id."""
    ids: Mapping[Path, Mapping[int, int]]
    """Merged id of each class, by the path of its truth and its id there."""


def merge_classes(truths: Sequence[BagTruth]) -> MergedClasses:
    """Merge the classes of several truths by their names, whatever their ids are.

    An id stays as it is where no other class has it.

    Args:
        truths: truths of one family.

    Raises:
        DatasetError: truths contradict each other, or have too many classes.
    """
    merged: dict[str, tuple[Category, Path]] = {}
    keys: dict[Path, dict[int, str]] = {}
    for truth in truths:
        own: dict[str, Category] = {}
        for category in truth.categories:
            key = normalised(category.name)
            if key in own:
                raise DatasetError(
                    truth.path,
                    [
                        f'Expected classes of different names, got {own[key].name!r} '
                        f'({own[key].category_id}) and {category.name!r} '
                        f'({category.category_id}).'
                    ],
                )
            own[key] = category
            first, path = merged.setdefault(key, (category, truth.path))
            if first.is_thing != category.is_thing:
                kinds = ('stuff', 'a thing')
                raise DatasetError(
                    truth.path,
                    [
                        f'Expected {category.name!r} to be {kinds[first.is_thing]} as in {path}, '
                        f'got {kinds[category.is_thing]}. Correct one of them.'
                    ],
                )
        keys[truth.path] = {category.category_id: key for key, category in own.items()}
    family = UNIONS[truths[0].family]
    taken: dict[int, str] = {}
    for key, (category, _) in merged.items():
        taken.setdefault(category.category_id, key)
    ids = {key: number for number, key in taken.items()}
    free = (n for n in range(family.first_id, len(merged) + len(taken) + 1) if n not in taken)
    ids |= {key: next(free) for key in merged if key not in ids}
    if family.last_id is not None and max(ids.values()) > family.last_id:
        raise DatasetError(
            truths[0].path,
            [
                f'Expected at most {family.last_id + 1} classes in all bags together, got '
                f'{len(merged)}.'
            ],
        )
    categories = [
        Category(ids[key], category.name, category.is_thing)
        for key, (category, _) in merged.items()
    ]
    categories.sort(key=lambda category: category.category_id)
    tables = {
        path: {category_id: ids[key] for category_id, key in own_keys.items()}
        for path, own_keys in keys.items()
    }
    return MergedClasses(tuple(categories), tables)


def class_notes(truths: Sequence[BagTruth], classes: MergedClasses) -> list[str]:
    """Note which truths lack classes that others have."""
    by_missing: dict[tuple[str, ...], list[str]] = {}
    for truth in truths:
        own = set(classes.ids[truth.path].values())
        missing = tuple(item.name for item in classes.categories if item.category_id not in own)
        if missing:
            by_missing.setdefault(missing, []).append(truth.path.name)
    return [
        f'{list_names(paths)} {"lacks" if len(paths) == 1 else "lack"} classes that other bags '
        f'have: {list_names(names)}. Predictions of them count as false there.'
        for names, paths in by_missing.items()
    ]


class Union(ABC):
    """Writes the truth of several bags of one family. It has no state."""

    first_id = 1
    """Lowest id of a class that gets a new one."""
    last_id: int | None = None
    """Highest id that the format has room for; None if there is no bound."""

    @abstractmethod
    def write(
        self,
        folder: Path,
        videos: Sequence[LabelledVideo],
        classes: MergedClasses,
        skip_bad: bool,
    ) -> WrittenTruth:
        """Write a truth of these videos, in this order.

        Args:
            folder: existing, empty folder.
            videos: the videos, whose names differ.
            classes: the classes of their truths.
            skip_bad: whether bad records of the truths are left out.
        """


class _InstanceUnion(Union):
    """One JSON of YouTube-VIS."""

    def write(
        self,
        folder: Path,
        videos: Sequence[LabelledVideo],
        classes: MergedClasses,
        skip_bad: bool,
    ) -> WrittenTruth:
        """See `Union`."""
        records: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        opened = {path: load_ytvis(path, skip_bad=skip_bad) for path in _paths(videos)}
        for number, each in enumerate(videos, start=1):
            names = _frame_names(each)
            records.append(
                {
                    'id': number,
                    'height': each.video.size[0],
                    'width': each.video.size[1],
                    'length': len(names),
                    'file_names': names,
                    'stamps_ns': list(each.video.stamps_ns),
                }
            )
            for track in opened[each.truth.path].tracks(each.video.video_id):
                masks, pixels = track.read()
                areas = [
                    None if mask is None else int(count)
                    for mask, count in zip(masks, pixels, strict=True)
                ]
                annotations.append(
                    {
                        'id': len(annotations) + 1,
                        'video_id': number,
                        'category_id': classes.ids[each.truth.path][track.category_id],
                        'iscrowd': int(track.is_crowd),
                        'areas': areas if track.areas is None else list(track.areas),
                        'segmentations': [rle and rle_to_json(rle) for rle in masks],
                    }
                )
        content = {
            **_info(videos),
            'categories': [
                {'id': item.category_id, 'name': item.name} for item in classes.categories
            ],
            'videos': records,
            'annotations': annotations,
        }
        write_json(folder / 'truth.json', content)
        return WrittenTruth(folder / 'truth.json', load_ytvis(folder / 'truth.json').videos)


class _PanopticUnion(Union):
    """One JSON of VIPSeg, and links to the PNGs."""

    def write(
        self,
        folder: Path,
        videos: Sequence[LabelledVideo],
        classes: MergedClasses,
        skip_bad: bool,
    ) -> WrittenTruth:
        """See `Union`."""
        records, annotations = [], []
        opened = {path: load_vipseg(path, skip_bad=skip_bad) for path in _paths(videos)}
        masks = folder / 'panomasksRGB'
        for each in videos:
            truth, video_id = opened[each.truth.path], str(each.video.video_id)
            table = classes.ids[each.truth.path]
            height, width = each.video.size
            names = each.video.frame_names
            records.append(
                {
                    'video_id': each.name,
                    'images': [
                        {'file_name': name, 'width': width, 'height': height, 'stamp_ns': stamp_ns}
                        for name, stamp_ns in zip(names, each.video.stamps_ns, strict=True)
                    ],
                }
            )
            entries = []
            for t, name in enumerate(names):
                _link(truth.path(video_id, t), masks / each.name / name)
                segments = [
                    {**segment, 'category_id': table[segment['category_id']]}
                    for segment in truth.segments(video_id, t)
                ]
                entries.append({'file_name': name, 'segments_info': segments})
            annotations.append({'video_id': each.name, 'annotations': entries})
        content = {
            **_info(videos),
            'categories': [
                {'id': item.category_id, 'name': item.name, 'isthing': int(item.is_thing)}
                for item in classes.categories
            ],
            'videos': records,
            'annotations': annotations,
        }
        path = folder / 'truth.json'
        write_json(path, content)
        return WrittenTruth(path, load_vipseg(path, masks).videos, masks)


class _SemanticUnion(Union):
    """One folder of VSPW with links to the masks, or masks of other values."""

    first_id = 0
    last_id = NUM_CLASSES - 1

    def write(
        self,
        folder: Path,
        videos: Sequence[LabelledVideo],
        classes: MergedClasses,
        skip_bad: bool,
    ) -> WrittenTruth:
        """See `Union`."""
        opened: dict[Path, VspwTruth] = {}
        for each in videos:
            path = each.truth.path
            if path not in opened:
                opened[path] = load_vspw(path, each.truth.split, skip_bad=skip_bad)
        faults: dict[str, str] = {}
        for each in videos:
            truth, table = opened[each.truth.path], classes.ids[each.truth.path]
            try:
                _write_masks(mask_folder(folder, each.name), each.video, truth, table, classes)
            except DatasetError as error:
                faults[each.name] = str(error)
        videos = [each for each in videos if each.name not in faults]
        names = {item.name: item.category_id + 1 for item in classes.categories}
        write_json(folder / CLASS_FILES[0], names)
        if info := _info(videos):
            write_json(folder / INFO_FILE, info)
        lines = ''.join(f'{each.name}\n' for each in videos)
        (folder / 'val.txt').write_text(lines, encoding='utf-8')
        written = load_vspw(folder, 'val').videos if videos else ()
        return WrittenTruth(folder, written, split='val', faults=faults)


def _write_masks(
    folder: Path,
    video: TimedVideo,
    truth: VspwTruth,
    table: Mapping[int, int],
    classes: MergedClasses,
) -> None:
    """Write the masks of a video with the merged ids of its classes; the same ones are linked.

    Raises:
        DatasetError: a mask cannot be read, or has a class that its own truth lacks.
    """
    values = np.arange(256, dtype=np.uint8)
    for old, new in table.items():
        values[old + 1] = new + 1
    # Where its truth lacks classes, a wrong value might be one of them, and is found only here.
    is_same = table == {item.category_id: item.category_id for item in classes.categories}
    for t, name in enumerate(video.frame_names):
        if is_same:
            _link(truth.path(str(video.video_id), t), folder / name)
        else:
            write_mask(folder / name, values[truth.mask(str(video.video_id), t)])


UNIONS: dict[str, Union] = {
    'ytvis': _InstanceUnion(),
    'vipseg': _PanopticUnion(),
    'vspw': _SemanticUnion(),
}
"""What writes the truth of several bags, by family."""


def _paths(videos: Sequence[LabelledVideo]) -> list[Path]:
    return list(dict.fromkeys(each.truth.path for each in videos))


def _info(videos: Sequence[LabelledVideo]) -> dict[str, Any]:
    """Return the field that says of drawn scenes that they are drawn, if all are."""
    return {'info': DRAWN_INFO} if all(each.truth.is_drawn for each in videos) else {}


def _frame_names(each: LabelledVideo) -> list[str]:
    """Put the frames of a video into a folder of its name."""
    bases = [name.rpartition('/')[2] for name in each.video.frame_names]
    if len(set(bases)) < len(bases):
        bases = [f'{t:06d}_{base}' for t, base in enumerate(bases)]
    return [f'{each.name}/{base}' for base in bases]


def _link(source: Path, target: Path) -> None:
    """Give a file a second place, or where that cannot be, copy it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(source.absolute(), target)
    except OSError:
        shutil.copyfile(source, target)
