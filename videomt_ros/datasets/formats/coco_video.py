"""Videos in files of COCO's layout: CocoVID, and the export "COCO 1.0" of a video by CVAT.

CocoVID (open-mmlab/mmtracking) adds `videos` to COCO's lists, `video_id` and `frame_id` to images
and `instance_id` to annotations. CVAT writes plain COCO, by Datumaro, and `attributes.track_id` at
the annotations of a track; its images carry the number of their frame in their names. In a file
without `videos`, the images of one folder are a video.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from videomt_ros.datasets.formats.file_search import image_size
from videomt_ros.datasets.formats.frame_tracks import FrameTracks, Identity
from videomt_ros.datasets.formats.instance_files import YtvisVideo
from videomt_ros.datasets.formats.record_checks import Checks, counted
from videomt_ros.datasets.json_files import as_whole, shown
from videomt_ros.datasets.rle import MaskTrack

_CVAT_NAME = re.compile(r'frame_\d{6,}(_\d+)?')
"""Name of a frame of a video in CVAT. In the export of a project, where frames of several tasks
have the same number, CVAT appends one more number to the names of the later tasks."""


@dataclass(frozen=True)
class _Image:
    """One checked image."""

    image_id: int
    name: str
    size: tuple[int, int]
    frame_id: int | None


def is_coco_video(content: Any) -> bool:
    """Tell whether a JSON lists images, and says which of them belong to one video.

    Without `videos` and `video_id` they do if two of them show the same track. An `instance_id`
    is no sign of it, since single images may count their objects from 1.
    """
    if not (isinstance(content, dict) and isinstance(content.get('images'), list)):
        return False
    if 'segmentations' in next(_records(content, 'annotations'), {}):
        return False  # YouTube-VIS, whose images some tools list as well
    if _names_videos(content):
        return True
    if 'videos' in content:
        return not any('file_names' in video for video in _records(content, 'videos'))
    images: dict[tuple[str, Any], Any] = {}
    for record in _records(content, 'annotations'):
        found = _identity(record)
        if not found or found[0] == 'instance_id':
            continue
        if images.setdefault(found, record.get('image_id')) != record.get('image_id'):
            return True
    return False


def read_coco_video(
    content: Any, categories: set[int], checks: Checks
) -> tuple[dict[int, YtvisVideo], list[MaskTrack] | None]:
    """Read the videos of such a file, and their objects.

    Args:
        content: content of the JSON, which `is_coco_video` has recognised.
        categories: ids that annotations may have.
        checks: collects the faults.

    Returns:
        The videos by id, and the objects of each in the order of their identities; None without
        annotations.
    """
    is_cocovid = _names_videos(content) or 'videos' in content
    groups, names, rates = (
        _read_cocovid(content, checks) if is_cocovid else _read_images(content, checks)
    )
    videos: dict[int, YtvisVideo] = {}
    places: dict[int, tuple[int, int]] = {}
    for video_id, images in checks.each(groups.items()):
        images = _in_order(images)
        _check_images(video_id, images, checks)
        if not checks.is_sound:
            for image in images:
                checks.lose('images', image.image_id)
            continue
        file_names = tuple(image.name for image in images)
        videos[video_id] = YtvisVideo(
            video_id,
            names.get(video_id, ''),
            images[0].size,
            file_names,
            None,
            rates.get(video_id),
        )
        places |= {image.image_id: (video_id, frame) for frame, image in enumerate(images)}
    kind = 'CocoVID' if is_cocovid else 'frames of videos, since track ids connect its images'
    checks.note(
        f'read as {kind}: {counted(len(videos), "video")}, {counted(len(places), "frame")}'
    )
    if content.get('annotations') is None:
        return videos, None
    return videos, _read_tracks(content, categories, videos, places, checks)


def _read_cocovid(
    content: Any, checks: Checks
) -> tuple[dict[int, list[_Image]], dict[int, str], dict[int, float]]:
    """Read the images by video, and the names and frame rates of the videos."""
    records: dict[int, dict[str, Any]] = {}
    names: dict[int, str] = {}
    rates: dict[int, float] = {}
    if 'videos' in content:
        for where, record in checks.section(content, 'videos'):
            video_id = checks.whole(record, 'id', where)
            if checks.new(video_id, records, where) and video_id is not None and checks.keeps:
                records[video_id] = record
                names[video_id] = str(record.get('name') or '')
                fps = checks.number(record, 'fps', where, least=0) if record.get('fps') else None
                if fps:
                    rates[video_id] = fps
    has_order = any('frame_id' in record for record in _records(content, 'images'))
    groups: dict[int, list[_Image]] = {}
    for where, record in _new_images(content, checks):
        if 'videos' in content:
            video_id = checks.known(record, 'video_id', where, records, 'the videos')
        else:
            video_id = checks.whole(record, 'video_id', where)
        frame_id = checks.whole(record, 'frame_id', where, least=0) if has_order else None
        if video_id is None:
            continue
        # The size may stand at the video alone.
        sizes = {k: records.get(video_id, {}).get(k) for k in ('height', 'width')}
        image = _read_image({**sizes, **record}, frame_id, where, checks)
        if image and checks.keeps:
            groups.setdefault(video_id, []).append(image)
    empty = len(records.keys() - groups.keys())
    if empty:
        checks.note(f'{empty} of {len(records)} videos have no image and are left out')
    return groups, names, rates


def _read_images(
    content: Any, checks: Checks
) -> tuple[dict[int, list[_Image]], dict[int, str], dict[int, float]]:
    """Read the images of a file without `videos`, by folder."""
    folders: dict[tuple[str, int], list[_Image]] = {}
    for where, record in _new_images(content, checks):
        image = _read_image(record, None, where, checks)
        if image and checks.keeps:
            path = PurePosixPath(image.name)
            found = _CVAT_NAME.fullmatch(path.stem)
            task = int(found[1][1:]) + 1 if found and found[1] else 0
            folders.setdefault((str(path.parent), task), []).append(image)
    return {number: folders[key] for number, key in enumerate(sorted(folders), start=1)}, {}, {}


def _new_images(content: Any, checks: Checks) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the records of images whose ids are new."""
    seen: dict[int, None] = {}
    for where, record in checks.section(content, 'images'):
        image_id = checks.whole(record, 'id', where)
        if checks.new(image_id, seen, where) and image_id is not None:
            seen[image_id] = None
            yield where, record


def _read_image(
    record: dict[str, Any], frame_id: int | None, where: str, checks: Checks
) -> _Image | None:
    name = checks.file_name(record, where)
    size = image_size(record, name, where, checks)
    if not name or 0 in size:
        return None
    return _Image(as_whole(record['id']), name, size, frame_id)


def _in_order(images: list[_Image]) -> list[_Image]:
    """Sort the images of a video by `frame_id`, or by the number in their names, or by their ids.

    The number counts where the names differ in nothing else.
    """
    if all(image.frame_id is not None for image in images):
        return sorted(images, key=lambda image: (image.frame_id, image.image_id))
    parts = [re.split(r'(\d+)', image.name) for image in images]
    varying = [column for column in zip(*parts, strict=False) if len(set(column)) > 1]
    is_numbered = len(set(map(len, parts))) == 1 and len(varying) == 1
    if is_numbered and all(part.isdigit() for part in varying[0]):
        numbers = dict(
            zip((image.image_id for image in images), map(int, varying[0]), strict=True)
        )
        return sorted(images, key=lambda image: (numbers[image.image_id], image.image_id))
    return sorted(images, key=lambda image: image.image_id)


def _check_images(video_id: int, images: list[_Image], checks: Checks) -> None:
    """Check that the images can be the frames of one video."""
    first = images[0]
    other = [image for image in images if image.size != first.size]
    if other:
        (height, width), (other_height, other_width) = first.size, other[0].size
        checks.fault(
            f'Video {video_id}: expected images of one size, but {first.name} has {width} x '
            f'{height} pixels and {other[0].name} has {other_width} x {other_height}. If these '
            'are several videos, give each a folder of its own in file_name.'
        )
    by_frame: dict[int, _Image] = {}
    for image in images:
        if image.frame_id is not None:
            before = by_frame.setdefault(image.frame_id, image)
            if before is not image:
                checks.fault(
                    f'Video {video_id}: images {before.image_id} and {image.image_id} have the '
                    f'same frame_id {image.frame_id}.'
                )


def _read_tracks(
    content: Any,
    categories: set[int],
    videos: dict[int, YtvisVideo],
    places: dict[int, tuple[int, int]],
    checks: Checks,
) -> list[MaskTrack]:
    joined = FrameTracks(videos, checks, 'Track')
    seen: dict[int, None] = {}
    strangers: list[str] = []
    fields: dict[str, None] = {}
    total = 0
    for where, record in checks.section(content, 'annotations'):
        total += 1
        number = checks.whole(record, 'id', where)
        if checks.new(number, seen, where) and number is not None:
            seen[number] = None
        category_id = checks.known(record, 'category_id', where, categories, 'the categories')
        image_id = checks.known(record, 'image_id', where, places, 'the images')
        found = _identity(record)
        if found is None:
            if checks.skip_bad:
                checks.fault(f'{where}: has no identity, such as a track_id.')
            strangers.append(where)
            continue
        field, identity = found
        fields[field] = None
        if image_id is None:
            continue
        video_id, frame = places[image_id]
        segmentation = checks.segmentation(record, where, videos[video_id].size)
        if not segmentation and record.get('bbox') and checks.keeps:
            checks.count('annotation', 'with a box and no mask, whose object is taken as hidden')
        areas = checks.area(record, where)
        area = None if areas is None else areas[0]
        is_crowd = _is_crowd(record, field, where, checks)
        if not isinstance(identity, (int, str)) or isinstance(identity, bool):
            checks.fault(f'{where}: expected {field} to be a whole number, got {shown(identity)}.')
        elif category_id is not None and checks.is_sound:
            joined.add(video_id, frame, identity, category_id, segmentation, area, is_crowd)
    if strangers and not checks.skip_bad:
        if fields:
            checks.fault(
                f'{len(strangers):,} of {total:,} annotations have no {next(iter(fields))}, which '
                f'the others have, such as {_lower(strangers[0])}. Make tracks of them in the '
                'tool that wrote the file, or leave them out with --skip-bad.'
            )
        else:
            checks.fault(
                f'No annotation has an instance_id or track_id, which would tell that objects in '
                f'several of its {len(places):,} frames are the same.'
            )
    return joined.tracks()


def _is_crowd(record: dict[str, Any], field: str, where: str, checks: Checks) -> bool:
    """Tell whether a record shows a group.

    Datumaro, and so CVAT, sets `iscrowd` of each mask that is not a polygon, as COCO has no others
    of that form; a track is one object all the same.
    """
    is_crowd = checks.is_crowd(record, where)
    if (
        is_crowd
        and field == 'attributes.track_id'
        and isinstance(record.get('segmentation'), dict)
    ):
        checks.count('mask', 'with iscrowd 1, as CVAT marks masks of pixels, which were read as 0')
        return False
    return is_crowd


def _identity(record: dict[str, Any]) -> tuple[str, Identity | Any] | None:
    """Return the name and the value of the field that says which object a record shows."""
    attributes = record.get('attributes')
    places = (
        ('instance_id', record),
        ('track_id', record),
        ('attributes.track_id', attributes if isinstance(attributes, dict) else {}),
    )
    for name, home in places:
        value = home.get(name.rpartition('.')[2])
        if value is not None:
            value = as_whole(value)
            return name, value if isinstance(value, (int, str)) else repr(value)
    return None


def _names_videos(content: dict[str, Any]) -> bool:
    return any('video_id' in record for record in _records(content, 'images'))


def _records(content: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Give the objects of a list that has not been checked yet."""
    records = content.get(name)
    if isinstance(records, list):
        yield from (record for record in records if isinstance(record, dict))


def _lower(where: str) -> str:
    return where[0].lower() + where[1:]
