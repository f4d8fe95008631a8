"""COCO (Lin et al., ECCV 2014; Kirillov et al., CVPR 2019): images as videos of one frame.

The scorers of videos thus score images: instances as YouTube-VIS (`load_ytvis` reads their file),
panoptic segments as VIPSeg. The figures of instances are those of YouTube-VIS: size ranges end at
128 x 128 and 256 x 256 pixels where COCO's end at 32 x 32 and 96 x 96, and a crowd matches by
plain IoU. AP over all sizes equals COCO's if no detection meets a crowd.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from videomt_ros.datasets.formats.file_search import find_missing, image_size
from videomt_ros.datasets.formats.instance_files import FileMasks, YtvisVideo
from videomt_ros.datasets.formats.origin import says_drawn
from videomt_ros.datasets.formats.panoptic_files import (
    SegmentsInfo,
    VipsegTruth,
    VipsegVideo,
    read_segments,
    used_categories,
)
from videomt_ros.datasets.formats.record_checks import Checks, read_categories, without_unused
from videomt_ros.datasets.image_folder import is_plain_name
from videomt_ros.datasets.json_files import load_json
from videomt_ros.datasets.rle import MaskTrack


def is_coco(content: Any) -> bool:
    """Tell whether a JSON is one of COCO, which lists images instead of videos."""
    return isinstance(content, dict) and 'images' in content and 'videos' not in content


def read_images(
    content: Any, categories: set[int], checks: Checks
) -> tuple[dict[int, YtvisVideo], list[MaskTrack] | None]:
    """Read the images of an instances file, and their objects.

    Args:
        content: content of the JSON.
        categories: ids that annotations may have.
        checks: collects the faults.

    Returns:
        Videos of one frame, and the objects in the order of the file; None without annotations.
    """
    videos: dict[int, YtvisVideo] = {}
    for where, record in checks.section(content, 'images'):
        image_id = checks.whole(record, 'id', where)
        name = checks.file_name(record, where)
        size = image_size(record, name, where, checks)
        if checks.new(image_id, videos, where) and image_id is not None and checks.keeps:
            videos[image_id] = YtvisVideo(image_id, '', size, (name or '',))
    if content.get('annotations') is None:
        return videos, None
    tracks: dict[int, MaskTrack] = {}
    for where, record in checks.section(content, 'annotations'):
        number = checks.whole(record, 'id', where)
        is_new = checks.new(number, tracks, where)
        category_id = checks.known(record, 'category_id', where, categories, 'the categories')
        is_crowd = checks.is_crowd(record, where)
        areas = checks.area(record, where)
        image_id = checks.known(record, 'image_id', where, videos, 'the images')
        if image_id is None or 0 in videos[image_id].size:
            continue
        size = videos[image_id].size
        segmentation = checks.segmentation(record, where, size)
        if not segmentation and record.get('bbox') and checks.keeps:
            checks.count('annotation', 'with a box and no mask, each an object that is missed')
        if is_new and number is not None and checks.keeps:
            tracks[number] = MaskTrack(
                image_id,
                category_id or 0,
                FileMasks([segmentation], size),
                is_crowd=is_crowd,
                areas=areas,
                track_id=number,
            )
    return videos, list(tracks.values())


def is_coco_results(content: Any) -> bool:
    """Tell whether a JSON has panoptic results as panopticapi takes them, one entry per image."""
    entries = content.get('annotations') if isinstance(content, dict) else content
    return (
        isinstance(entries, list)
        and bool(entries)
        and all(isinstance(entry, dict) and 'image_id' in entry for entry in entries)
    )


def read_coco_results(
    content: Any, known: Container[str], checks: Checks
) -> Iterator[tuple[str, list[Any], list[str]]]:
    """Read panoptic results as panopticapi takes them.

    Args:
        content: content of a JSON that `is_coco_results` has recognised.
        known: ids of the videos of the truth.
        checks: collects the faults.

    Yields:
        Video id, the entry of its one frame, and the name of its PNG.
    """
    seen: set[str] = set()
    entries = content['annotations'] if isinstance(content, dict) else content
    for entry in checks.each(entries):
        where = f'Image {entry["image_id"]}'
        image_id = _image_id(entry, 'image_id', where, checks)
        name = checks.file_name(entry, where)
        if image_id is None or name is None:
            continue
        key = str(image_id)
        if key not in known and key.isascii() and key.isdigit():
            key = str(int(key))  # some writers take the id from the name of the file
        if key in seen:
            checks.fault(f'{where}: expected one result, got another one.')
            continue
        seen.add(key)
        yield key, [entry], [name]


def load_coco_panoptic(
    path: Path, masks_folder: Path | None = None, *, skip_bad: bool = False
) -> VipsegTruth:
    """Open a panoptic file; its PNGs are read on demand.

    Args:
        path: JSON file, such as 'annotations/panoptic_val2017.json'.
        masks_folder: folder of the PNGs; by default the folder beside the JSON that has its name.
        skip_bad: leave out images with faults, and list them in `left_out`.

    Returns:
        The truth; the id of a video is that of its image, as text.

    Raises:
        DatasetError: lists every fault, missing PNGs included.
    """
    checks = Checks(path, skip_bad)
    return read_coco_panoptic(load_json(path), masks_folder or path.with_suffix(''), checks)[0]


def read_coco_panoptic(
    content: Any, masks_folder: Path, checks: Checks
) -> tuple[VipsegTruth, dict[str, str]]:
    """Read the content of a panoptic file and end the checks; see `load_coco_panoptic`.

    Returns:
        The truth, and the name of the image file by video id.
    """
    categories = read_categories(content, checks, with_things=True)
    known = {category.category_id for category in categories}
    images: dict[str, _Image] = {}
    for where, record in checks.section(content, 'images'):
        image_id = _image_id(record, 'id', where, checks)
        name = checks.file_name(record, where)
        size = image_size(record, name, where, checks)
        if image_id is None:
            continue
        if str(image_id) in images:
            checks.fault(f'{where}: the id occurs twice.')
        elif checks.keeps:
            images[str(image_id)] = _Image(image_id, size, name or '')
    segments: dict[str, list[SegmentsInfo]] = {}
    masks: dict[str, list[Path]] = {}
    if isinstance(content, dict) and content.get('annotations') is not None:
        for where, record in checks.section(content, 'annotations'):
            image_id = _image_id(record, 'image_id', where, checks)
            name = checks.file_name(record, where)
            if image_id is None or name is None:
                continue
            key = str(image_id)
            if key not in images:
                checks.fault(f'{where}: image_id {key} is not among the images.')
                continue
            where, entries = f'Image {key}', record.get('segments_info')
            if key in segments:
                checks.fault(f'{where}: is annotated twice.')
            found = read_segments(entries, known, where, checks, is_truth=True)
            if checks.keeps:
                segments[key] = [found]
                masks[key] = [masks_folder / name]
            elif key not in segments:
                del images[key]  # listed once, as an annotation that was left out
        missing = set(find_missing(Path(), [str(paths[0]) for paths in masks.values()]))
        for key in checks.each(list(images)):
            if key not in segments:
                checks.lacks_masks(key, [f'Image {key}: has no annotation.'])
            elif str(masks[key][0]) in missing:
                checks.lacks_masks(key, [f'There is no {masks[key][0]}.'])
            if not checks.keeps:
                del images[key]
                segments.pop(key, None)
                masks.pop(key, None)
    checks.finish()
    categories = without_unused(categories, content, used_categories(segments), checks)
    order = sorted(
        images, key=lambda key: (isinstance(images[key].image_id, str), images[key].image_id)
    )
    videos = [
        # Results are folders of PNGs, whatever the image is.
        VipsegVideo(key, images[key].size, (f'{Path(images[key].file_name).stem}.png',))
        for key in order
    ]
    truth = VipsegTruth(
        categories,
        videos,
        segments,
        masks,
        says_drawn(content),
        checks.notes,
        checks.left_out,
        checks.without_masks,
    )
    return truth, {key: image.file_name for key, image in images.items()}


class _Image(NamedTuple):
    image_id: int | str
    size: tuple[int, int]
    """Size (height, width) in pixels."""
    file_name: str


def _image_id(record: dict[str, Any], field: str, where: str, checks: Checks) -> int | str | None:
    """Check the id of an image: a number, or a name as Cityscapes has it."""
    value = record.get(field)
    return value if is_plain_name(value) else checks.whole(record, field, where)
