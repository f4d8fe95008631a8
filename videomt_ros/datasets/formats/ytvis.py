"""YouTube-VIS 2019, 2021 and 2022 and OVIS: one JSON format of instances along videos.

The format is that of the YouTube-VOS challenge (youtubevos/cocoapi): COCO with one segmentation
per frame. A file is checked as a whole when it is loaded, without decoding a mask, and a fault
names its record; masks are converted to RLE on demand.
"""

from __future__ import annotations

import json
import lzma
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from videomt_ros.datasets.dataset import AnnotatedVideo, Category, DatasetError, list_names
from videomt_ros.datasets.formats.coco import is_coco, read_images
from videomt_ros.datasets.formats.coco_video import is_coco_video, read_coco_video
from videomt_ros.datasets.formats.file_search import image_size
from videomt_ros.datasets.formats.instance_files import (
    YtvisTruth,
    YtvisVideo,
    with_names,
)
from videomt_ros.datasets.formats.origin import says_drawn
from videomt_ros.datasets.formats.record_checks import (
    Checks,
    Unknown,
    check_masks,
    kind,
    read_categories,
    usual_path,
    without_unused,
)
from videomt_ros.datasets.json_files import load_json, parse_json, shown, stream_objects
from videomt_ros.datasets.rle import MaskTrack, pack_runs, rle_to_json
from videomt_ros.files import whole_file

BROKEN_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)
"""Errors of `zipfile` for archives that are damaged, encrypted or of an unknown kind."""


_MOST_IGNORED = 3
"""Largest number of unknown categories of which each has a note of its own."""


class YtvisResults(dict[int | str, list[MaskTrack]]):
    """Predictions of a results file by video id, in the order of the file."""

    notes: tuple[str, ...] = ()
    """Remarks on predictions that were ignored."""
    left_out: tuple[str, ...] = ()
    """One line per bad prediction that was left out; see `Dataset.left_out`."""


def load_ytvis(path: Path, *, skip_bad: bool = False) -> YtvisTruth:
    """Read an annotation file, which may lack annotations, such as that of a test split.

    The instances of COCO are read as well: each image is a video of one frame. So are the videos
    of CocoVID and of CVAT's "COCO 1.0"; see `formats.coco_video`.

    Args:
        path: JSON file.
        skip_bad: leave out records with faults, and list them in `left_out`.

    Raises:
        DatasetError: lists every fault with its record.
    """
    content = load_json(path, pack_runs)
    checks = Checks(path, skip_bad)
    check_masks(content, checks)
    categories = read_categories(content, checks)
    known = {category.category_id for category in categories}
    tracks = None
    if is_coco_video(content):
        videos, tracks = read_coco_video(content, known, checks)
    elif is_coco(content):
        videos, tracks = read_images(content, known, checks)
    else:
        videos = _read_videos(content, checks)
        if isinstance(content, dict) and content.get('annotations') is not None:
            tracks = _read_tracks(content, videos, known, checks)
    checks.finish()
    used = {track.category_id for track in tracks or ()}
    categories = without_unused(categories, content, used, checks)
    named = with_names(videos.values())
    return YtvisTruth(
        path, categories, named, tracks, says_drawn(content), checks.notes, checks.left_out
    )


def load_ytvis_results(
    path: Path,
    videos: Iterable[AnnotatedVideo],
    categories: Iterable[Category],
    *,
    skip_bad: bool = False,
    is_strict: bool = True,
) -> YtvisResults:
    """Read predictions.

    Args:
        path: `results.json`, a .zip with this file, or a folder with one of the two.
        videos: the videos that may have predictions, such as those of a `YtvisTruth`.
        categories: the categories that count.
        skip_bad: leave out predictions with faults, and list them in `left_out`.
        is_strict: whether predictions for other videos are faults; else they are left out and
            noted.

    Returns:
        Predictions of each video in the order of the file; videos without one are left out. Those
        of other categories are ignored, as in the reference scorer, and noted.

    Raises:
        DatasetError: lists every fault with its position in the file, counted from 0.
    """
    sizes = {video.video_id: (video.size, len(video.frame_names)) for video in videos}
    known = {category.category_id for category in categories}
    checks = Checks(path, skip_bad)
    results, ignored = YtvisResults(), dict[Any, int]()
    unknown, num_known, odd_scores = Unknown(), 0, list[float]()
    for number, record in checks.each(enumerate(_read_predictions(path))):
        where = f'Prediction [{number}]'
        if not isinstance(record, dict):
            checks.fault(f'{where}: expected an object, got {kind(record)}.')
            continue
        if 'image_id' in record and 'video_id' not in record:  # results of COCO itself
            if 'segmentation' not in record:
                checks.fault(
                    f'{where}: segmentation is missing, and a box says nothing of pixels.'
                )
                continue
            segmentations = [record['segmentation']]
            record = {**record, 'video_id': record['image_id'], 'segmentations': segmentations}
        if is_strict:
            video_id = checks.known(record, 'video_id', where, sizes, 'the videos of the truth')
        else:
            video_id = checks.whole(record, 'video_id', where)
            if video_id is not None and video_id not in sizes:
                unknown.add(video_id)
                continue
        num_known += video_id is not None
        category_id = checks.whole(record, 'category_id', where)
        score = checks.number(record, 'score', where)
        if video_id is None or category_id is None:
            continue
        if category_id not in known:
            ignored[category_id] = ignored.get(category_id, 0) + 1
            continue
        size, length = sizes[video_id]
        masks = checks.segmentations(record, where, size, length)
        if masks is None or score is None:
            continue
        if not 0 <= score <= 1:
            odd_scores.append(score)
        track = MaskTrack(
            video_id, category_id, masks, score, track_id=number + 1, pixels=masks.pixels
        )
        results.setdefault(video_id, []).append(track)
    notes = [
        *unknown.notes(num_known, checks),
        *_ignored_notes(ignored),
        *checks.notes,
    ]
    if odd_scores:
        notes.append(
            f'Scores outside of 0 to 1: {len(odd_scores):,}, such as '
            f'{odd_scores[0]:g}. Their order is what counts.'
        )
    checks.finish()
    results.left_out = tuple(checks.left_out)
    results.notes = tuple(notes)
    return results


def _ignored_notes(ignored: Mapping[int, int]) -> list[str]:
    """Tell of predictions that were ignored, whose number is given by category id."""
    if len(ignored) > _MOST_IGNORED:
        ids = list_names([str(category_id) for category_id in sorted(ignored)])
        return [
            f'Ignored {sum(ignored.values()):,} predictions of {len(ignored):,} categories, which '
            f'the truth does not have: {ids}.'
        ]
    return [
        f'Ignored predictions of category {category_id}, which the truth does not have: {count}.'
        for category_id, count in sorted(ignored.items())
    ]


def write_ytvis_results(path: Path, tracks: Iterable[MaskTrack]) -> None:
    """Write predictions, and the same as a .zip, which the CodaLab servers ask for.

    Tracks are written one at a time. The files appear once they are complete.

    Args:
        path: file such as 'results.json'; the zip beside it is 'results.zip'.
        tracks: predictions, of which `video_id`, `category_id`, `score` and `masks` are written.
    """
    with whole_file(path) as file:
        file.write(b'[')
        for number, track in enumerate(tracks):
            record = {
                'video_id': track.video_id,
                'category_id': int(track.category_id),
                'score': float(track.score),
                'segmentations': [rle and rle_to_json(rle) for rle in track.masks],
            }
            line = json.dumps(record, allow_nan=False)
            file.write((',\n' if number else '\n').encode() + line.encode())
        file.write(b'\n]\n')
    # One date for all, so that equal results are equal files.
    member = zipfile.ZipInfo('results.json', (1980, 1, 1, 0, 0, 0))
    member.compress_type = zipfile.ZIP_DEFLATED
    with (
        whole_file(path.with_suffix('.zip')) as file,
        zipfile.ZipFile(file, 'w') as archive,
        archive.open(member, 'w', force_zip64=True) as target,
        path.open('rb') as source,
    ):
        shutil.copyfileobj(source, target)


def _read_videos(content: Any, checks: Checks) -> dict[int, YtvisVideo]:
    videos: dict[int, YtvisVideo] = {}
    for where, record in checks.section(content, 'videos'):
        video_id = checks.whole(record, 'id', where)
        names = record.get('file_names')
        if not (isinstance(names, list) and names and all(isinstance(n, str) for n in names)):
            got = shown(names) if 'file_names' in record else 'nothing'
            checks.fault(f'{where}: expected file_names, the images of its frames, got {got}.')
            names = []
        names = [usual_path(name) for name in names]
        size = image_size(record, names[0] if names else None, where, checks)
        length = record.get('length', len(names))
        if names and length != len(names):
            checks.fault(
                f'{where}: its length is {shown(length)}, but it has {len(names)} frames.'
            )
        stamps = _read_stamps(record, len(names), where, checks)
        fps = checks.number(record, 'fps', where) if 'fps' in record else None
        if fps is not None and fps <= 0:
            checks.fault(f'{where}: expected fps above 0, got {fps:g}.')
        if checks.new(video_id, videos, where) and video_id is not None and checks.keeps:
            videos[video_id] = YtvisVideo(video_id, '', size, tuple(names), stamps, fps)
    return videos


def _read_stamps(
    record: dict[str, Any], length: int, where: str, checks: Checks
) -> tuple[int, ...] | None:
    if 'stamps_ns' not in record or not length:
        return None
    stamps = checks.per_frame(record, 'stamps_ns', where, length)
    if stamps is None:
        return None
    if (
        set(map(type, stamps)) != {int}
        or any(b <= a for a, b in pairwise(stamps))
        or not 0 <= stamps[0] <= stamps[-1] < 2**63
    ):
        checks.fault(
            f'{where}: expected stamps_ns, rising whole numbers from 0 on, got {shown(stamps)}.'
        )
    return tuple(stamps)


def _read_tracks(
    content: Any, videos: dict[int, YtvisVideo], known: set[int], checks: Checks
) -> list[MaskTrack]:
    tracks: dict[int, MaskTrack] = {}
    for where, record in checks.section(content, 'annotations'):
        number = checks.whole(record, 'id', where)
        is_new = checks.new(number, tracks, where)
        category_id = checks.known(record, 'category_id', where, known, 'the categories')
        is_crowd = checks.is_crowd(record, where)
        video_id = checks.known(record, 'video_id', where, videos, 'the videos')
        if video_id is None:
            continue
        video = videos[video_id]
        if not video.frame_names or 0 in video.size:
            continue  # its own fault has been noted, and would only be told once more
        length = len(video.frame_names)
        masks = checks.segmentations(record, where, video.size, length)
        areas = checks.areas(record, where, length)
        if is_new and number is not None and checks.keeps:
            tracks[number] = MaskTrack(
                video_id,
                category_id or 0,
                masks or (),
                is_crowd=is_crowd,
                areas=areas,
                track_id=number,
                pixels=masks.pixels if masks else None,
            )
    return list(tracks.values())


def _read_predictions(path: Path) -> Iterator[Any]:
    """Read the records of a results file one by one; their texts can be large."""
    number = 0
    with suppress(OSError, ValueError, *BROKEN_ZIP), _open_results(path) as file:
        for record in stream_objects(file, pack_runs):
            yield record
            number += 1
        return
    # What is not as usual is read whole, which tells what is wrong with it.
    content = _load_results(path)
    if not isinstance(content, list):
        raise DatasetError(
            path,
            [
                f'Expected a list of predictions, got {kind(content)}. Are these results of '
                'instances, and no annotations or results of another benchmark?'
            ],
        )
    yield from content[number:]


def _load_results(path: Path) -> Any:
    """Read the JSON from a file, a zip or a folder."""
    path = _find_results(path)
    if path.suffix.lower() != '.zip':
        return load_json(path, pack_runs)
    try:
        with zipfile.ZipFile(path) as archive:
            data = archive.read(_find_member(archive, path))
    except OSError as error:
        raise DatasetError(path, [f'Expected a zip file, but {error}.']) from error
    except BROKEN_ZIP as error:
        raise DatasetError(path, [f'Expected a sound zip file, but {error}.']) from error
    return parse_json(data, path, pack_runs)


@contextmanager
def _open_results(path: Path) -> Iterator[BinaryIO]:
    path = _find_results(path)
    if path.suffix.lower() != '.zip':
        with path.open('rb') as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive, archive.open(_find_member(archive, path)) as member:
        yield cast(BinaryIO, member)


def _find_results(path: Path) -> Path:
    """Return the file of results itself, where a folder holds it."""
    if path.is_dir():
        found = [path / name for name in ('results.json', 'results.zip') if (path / name).exists()]
        if not found:
            raise DatasetError(path, ['Expected results.json or results.zip in it.'])
        path = found[0]
    return path


def _find_member(archive: zipfile.ZipFile, path: Path) -> str:
    """Return the name of the JSON in a zip, of which macOS adds '__MACOSX/._results.json'."""
    names = [
        name
        for name in archive.namelist()
        if name.endswith('.json') and not name.startswith('__MACOSX/')
    ]
    chosen = [name for name in names if PurePosixPath(name).name == 'results.json']
    if len(chosen or names) != 1:
        fault = f'Expected one results.json in it, got {", ".join(names) or "no JSON"}.'
        raise DatasetError(path, [fault])
    return (chosen or names)[0]
