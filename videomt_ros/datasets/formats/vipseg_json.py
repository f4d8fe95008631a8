"""Reads the JSON files of VIPSeg, truth and results, and lists all of their faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from videomt_ros.datasets.dataset import Category, DatasetError
from videomt_ros.datasets.formats.coco import (
    is_coco,
    is_coco_results,
    read_coco_panoptic,
    read_coco_results,
)
from videomt_ros.datasets.formats.origin import says_drawn
from videomt_ros.datasets.formats.panoptic_files import (
    SegmentsInfo,
    VipsegResults,
    VipsegTruth,
    VipsegVideo,
    read_segments,
    used_categories,
)
from videomt_ros.datasets.formats.record_checks import (
    Checks,
    Unknown,
    is_number,
    without_unused,
)
from videomt_ros.datasets.image_folder import is_plain_name
from videomt_ros.datasets.json_files import as_whole, load_json


def read_truth(masks_folder: Path, checks: Checks) -> VipsegTruth:
    """Read a truth as far as it can be used; the caller ends the checks.

    Args:
        masks_folder: folder of the true PNGs, which need not exist without annotations.
        checks: checks of the JSON file; collects the faults.

    Raises:
        DatasetError: the file is no JSON of this form.
    """
    path, faults = checks.path, checks.faults
    content = load_json(path)
    if is_coco(content):
        # COCO keeps its PNGs in the folder that is named like the JSON.
        folder = masks_folder if masks_folder.is_dir() else path.with_suffix('')
        return read_coco_panoptic(content, folder, checks)[0]
    _check_lists(content, path, ('videos', 'categories'))
    if content.get('annotations') is not None:
        _check_lists(content, path, ('annotations',))
    categories = _read_categories(content['categories'], checks)
    category_ids = {category.category_id for category in categories}
    videos: dict[str, VipsegVideo] = {}
    images: dict[str, list[Any]] = {}
    for entry in checks.each(content['videos']):
        video = _read_video(entry, faults)
        if video is None:
            continue
        if video.video_id in videos:
            faults.append(f'Video {video.video_id}: expected it once, got it again.')
        if checks.keeps:
            videos[video.video_id] = video
            images[video.video_id] = entry['images']
    if not content['videos']:
        faults.append('Expected at least one video, got none.')
    segments: dict[str, list[SegmentsInfo]] = {}
    masks: dict[str, list[Path]] = {}
    is_drawn = says_drawn(content)
    if not content.get('annotations'):
        return _truth(categories, videos, segments, masks, is_drawn, checks)
    if not masks_folder.is_dir():
        faults.append(f'Expected the folder of the true PNGs, but there is no {masks_folder}.')
    for video_id, entries in _annotated(content, checks):
        video = videos.get(video_id)
        if video is None:
            faults.append(f'Expected annotations of listed videos, got video {video_id!r}.')
            continue
        found = _read_frames(video, entries, category_ids, checks, is_truth=True)
        faults += _order_faults(video, images[video_id], entries)
        faults += _category_changes(video, found)
        paths: list[Path] = []
        if masks_folder.is_dir():
            lacking: list[str] = []
            paths = _find_masks(masks_folder, video, lacking)
            checks.lacks_masks(video_id, lacking)
        if checks.keeps:
            segments[video_id], masks[video_id] = found, paths
        else:
            del videos[video_id]
    for video_id in checks.each(list(videos)):
        if video_id not in segments:
            checks.lacks_masks(video_id, [f'Video {video_id}: expected annotations, got none.'])
            if not checks.keeps:
                del videos[video_id]
    if not faults:
        categories = without_unused(categories, content, used_categories(segments), checks)
    return _truth(categories, videos, segments, masks, is_drawn, checks)


def read_results(
    masks_folder: Path,
    videos: Sequence[VipsegVideo],
    categories: Iterable[Category],
    checks: Checks,
    is_strict: bool = True,
) -> VipsegResults:
    """Read results as far as they can be used; the caller ends the checks.

    Args:
        masks_folder: folder of the predicted PNGs.
        videos: the videos that may have results.
        categories: the categories that a result may have.
        checks: checks of the JSON; collects the faults.
        is_strict: whether results of other videos are faults; else they are ignored and noted.

    Raises:
        DatasetError: the file is no JSON of this form.
    """
    category_ids = {category.category_id for category in categories}
    by_id = {video.video_id: video for video in videos}
    segments: dict[str, list[SegmentsInfo]] = {}
    masks: dict[str, list[Path]] = {}
    faults, unknown = checks.faults, Unknown()
    content = load_json(checks.path)
    results: Iterable[tuple[str, list[Any], list[str] | None]]
    if is_coco_results(content):
        results = read_coco_results(content, by_id, checks)
    else:
        if isinstance(content, list):
            fault = (
                'Expected results of panoptic segments, got a list without `segments_info`. Are '
                'these results of instances?'
            )
            raise DatasetError(checks.path, [fault])
        _check_lists(content, checks.path, ('annotations',))
        results = ((*entry, None) for entry in _annotated(content, checks))
    for video_id, entries, names in results:
        if video_id not in by_id:
            if is_strict:
                faults.append(f'Expected results of videos of the truth, got video {video_id!r}.')
            else:
                unknown.add(video_id)
            continue
        video = by_id[video_id]
        found = _read_frames(video, entries, category_ids, checks, is_truth=False)
        lacking: list[str] = []
        if names is None:
            paths = _find_masks(masks_folder, video, lacking)
        else:
            home = masks_folder if masks_folder.is_dir() else checks.path.parent
            paths = [home / name for name in names]
            lacking = [f'There is no {path}.' for path in paths if not path.is_file()]
        checks.lacks_masks(video_id, lacking)
        if checks.keeps:
            segments[video_id], masks[video_id] = found, paths
    notes = unknown.notes(len(segments), checks)
    return VipsegResults(videos, segments, masks, checks.left_out, checks.without_masks, notes)


def _truth(
    categories: Sequence[Category],
    videos: Mapping[str, VipsegVideo],
    segments: Mapping[str, Sequence[SegmentsInfo]],
    masks: Mapping[str, Sequence[Path]],
    is_drawn: bool,
    checks: Checks,
) -> VipsegTruth:
    return VipsegTruth(
        categories,
        tuple(videos.values()),
        segments,
        masks,
        is_drawn,
        checks.notes,
        checks.left_out,
        checks.without_masks,
    )


def _check_lists(content: Any, path: Path, fields: Sequence[str]) -> None:
    if not isinstance(content, dict):
        raise DatasetError(path, [f'Expected a JSON object, got {type(content).__name__}.'])
    faults = [
        f'Expected a list {field!r}, got {type(content.get(field)).__name__}.'
        for field in fields
        if not isinstance(content.get(field), list)
    ]
    if faults:
        raise DatasetError(path, faults)


def _read_categories(entries: list[Any], checks: Checks) -> list[Category]:
    categories: list[Category] = []
    faults = checks.faults
    for entry in checks.each(entries):
        number, name, is_thing = (
            (as_whole(entry.get('id')), entry.get('name'), entry.get('isthing'))
            if isinstance(entry, dict)
            else (None, None, None)
        )
        if type(number) is not int or not isinstance(name, str) or is_thing not in (0, 1):
            faults.append(
                f'Expected categories as {{id: number, name: text, isthing: 0 or 1}}, '
                f'got {str(entry)[:80]}.'
            )
        elif any(number == category.category_id for category in categories):
            faults.append(f'Expected each category id once, got {number} again.')
        else:
            categories.append(Category(number, name, bool(is_thing)))
    if not entries:
        faults.append('Expected at least one category, got none.')
    return categories


def _read_video(entry: Any, faults: list[str]) -> VipsegVideo | None:
    """Read one entry of `videos`; None if it cannot be used."""
    video_id = entry.get('video_id') if isinstance(entry, dict) else None
    if not is_plain_name(video_id):
        faults.append(
            f'Expected a video_id (text) that can be the name of a folder, got {video_id!r:.80}.'
        )
        return None
    where, images = f'Video {video_id}', entry.get('images')
    wrong: list[str] = []
    if not isinstance(images, list) or not images:
        faults.append(f'{where}: expected a list of images, got {str(images)[:80]}.')
        return None
    fields = {'file_name': is_plain_name, 'width': _is_count, 'height': _is_count}
    for t, image in enumerate(images):
        if not isinstance(image, dict):
            wrong.append(f'{where}, image {t}: expected an object, got {str(image)[:80]}.')
            continue
        image = images[t] = image | {
            field: as_whole(image.get(field)) for field in ('width', 'height')
        }
        wrong += [
            f'{where}, image {t}: expected {field}, got {image.get(field)!r:.80}.'
            for field, is_right in fields.items()
            if not is_right(image.get(field))
        ]
    fps = entry.get('fps')
    if fps is not None and not (is_number(fps) and fps > 0):
        wrong.append(f'{where}: expected fps above 0, got {fps!r:.80}.')
    if wrong:
        faults += wrong
        return None
    sizes = sorted({(image['height'], image['width']) for image in images})
    if len(sizes) > 1:
        wrong.append(f'{where}: expected images of one size, got (height, width) {sizes}.')
    names = tuple(image['file_name'] for image in images)
    wrong += [
        f'{where}: expected each file_name once, got {name} {count} times.'
        for name, count in Counter(names).items()
        if count > 1
    ]
    faults += wrong
    stamps = _read_stamps(where, images, faults)
    return VipsegVideo(entry['video_id'], sizes[0], names, stamps, fps)


def _read_stamps(where: str, images: list[Any], faults: list[str]) -> tuple[int, ...] | None:
    """Read the stamps of all images; None if there are none."""
    stamps = [image.get('stamp_ns') for image in images]
    if all(stamp is None for stamp in stamps):
        return None
    if not all(type(stamp) is int and 0 <= stamp < 2**63 for stamp in stamps):
        faults.append(
            f'{where}: expected stamp_ns in every image or in none, as a whole number of '
            'nanoseconds.'
        )
        return None
    if any(later <= earlier for earlier, later in zip(stamps, stamps[1:], strict=False)):
        faults.append(f'{where}: expected stamp_ns to rise from image to image.')
    return tuple(stamps)


def _annotated(content: dict[str, Any], checks: Checks) -> Iterator[tuple[str, list[Any]]]:
    """Yield video id and frames of each entry of `annotations` that has them."""
    seen = set()
    faults = checks.faults
    for entry in checks.each(content['annotations']):
        video_id = entry.get('video_id') if isinstance(entry, dict) else None
        frames = entry.get('annotations') if isinstance(entry, dict) else None
        if not isinstance(video_id, str) or not isinstance(frames, list):
            faults.append(
                'Expected annotations as {video_id: text, annotations: list}, '
                f'got {str(entry)[:80]}.'
            )
        elif video_id in seen:
            faults.append(f'Video {video_id}: expected annotations once, got them again.')
        else:
            seen.add(video_id)
            yield video_id, frames


def _read_frames(
    video: VipsegVideo,
    frames: list[Any],
    category_ids: Collection[int],
    checks: Checks,
    *,
    is_truth: bool,
) -> list[SegmentsInfo]:
    """Read the segments of each frame of a video."""
    where = f'Video {video.video_id}'
    if len(frames) != len(video.frame_names):
        checks.fault(
            f'{where}: expected annotations of {len(video.frame_names)} frames, as the truth has '
            f'images, got {len(frames)}.'
        )
    segments: list[SegmentsInfo] = []
    for t, frame in enumerate(frames):
        entries: Any = frame.get('segments_info') if isinstance(frame, dict) else None
        segments.append(
            read_segments(entries, category_ids, f'{where}, frame {t}', checks, is_truth=is_truth)
        )
    return segments


def _find_masks(folder: Path, video: VipsegVideo, faults: list[str]) -> list[Path]:
    """List the paths of the PNGs of a video."""
    home, where = folder / video.video_id, f'Video {video.video_id}'
    # The names are those of the JSON, since the public scorers do not change the suffix.
    present = {path.name for path in home.iterdir()} if home.is_dir() else set()
    if not present:
        faults.append(f'{where}: expected {len(video.frame_names)} PNGs in {home}, got none.')
    else:
        faults += [
            f'{where}: expected {home / name}, but there is no such file.'
            for name in video.frame_names
            if name not in present
        ]
    return [home / name for name in video.frame_names]


def _order_faults(video: VipsegVideo, images: list[Any], frames: list[Any]) -> list[str]:
    """Report frames of a truth that do not belong to the images at their positions."""
    faults = []
    for t, (image, frame) in enumerate(zip(images, frames, strict=False)):
        wanted, said = image.get('id'), frame.get('image_id') if isinstance(frame, dict) else None
        if wanted is not None and said is not None and said != wanted:
            faults.append(
                f'Video {video.video_id}, frame {t}: expected annotations of image {wanted!r}, '
                f'got image_id {said!r}. Bring them into the order of the images.'
            )
    return faults


def _category_changes(video: VipsegVideo, segments: list[SegmentsInfo]) -> list[str]:
    """Report ids of a truth that change their class; an id is one object along a video."""
    category_of: dict[int, int] = {}
    faults = []
    for t, frame in enumerate(segments):
        for segment in frame:
            first = category_of.setdefault(segment['id'], segment['category_id'])
            if segment['category_id'] != first:
                faults.append(
                    f'Video {video.video_id}, frame {t}: expected id {segment["id"]} to keep its '
                    f'category {first}, got {segment["category_id"]}.'
                )
    return faults


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value < 2**31
