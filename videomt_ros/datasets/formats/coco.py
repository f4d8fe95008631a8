"""COCO (Lin et al., ECCV 2014; Kirillov et al., CVPR 2019): images as videos of one frame.

The scorers of videos thus score images: instances as YouTube-VIS (`load_ytvis` reads their file),
panoptic segments as VIPSeg. The figures of instances are those of YouTube-VIS: size ranges end at
128 x 128 and 256 x 256 pixels where COCO's end at 32 x 32 and 96 x 96, and a crowd matches by
plain IoU. AP over all sizes equals COCO's if no detection meets a crowd.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from videomt_ros.datasets.formats.file_search import find_missing
from videomt_ros.datasets.formats.instance_files import FileMasks, YtvisVideo
from videomt_ros.datasets.formats.origin import says_drawn
from videomt_ros.datasets.formats.panoptic_files import (
    SegmentsInfo,
    VipsegTruth,
    VipsegVideo,
    segment_faults,
)
from videomt_ros.datasets.formats.record_checks import Checks, read_categories
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
        size = checks.size(record, where)
        name = checks.text(record, 'file_name', where)
        if checks.new(image_id, videos, where) and image_id is not None and checks.keeps:
            videos[image_id] = YtvisVideo(image_id, '', size, (name or '',))
    if content.get('annotations') is None:
        return videos, None
    tracks: dict[int, MaskTrack] = {}
    for where, record in checks.section(content, 'annotations'):
        number = checks.whole(record, 'id', where)
        is_new = checks.new(number, tracks, where)
        category_id = checks.known(record, 'category_id', where, categories, 'the categories')
        is_crowd = checks.flag(record, 'iscrowd', where)
        area = checks.number(record, 'area', where, least=0)
        image_id = checks.known(record, 'image_id', where, videos, 'the images')
        if image_id is None or 0 in videos[image_id].size:
            continue
        size = videos[image_id].size
        segmentation = checks.segmentation(record, where, size)
        if is_new and number is not None and checks.keeps:
            tracks[number] = MaskTrack(
                image_id,
                category_id or 0,
                FileMasks([segmentation], size),
                is_crowd=bool(is_crowd),
                areas=(area,),
                track_id=number,
            )
    return videos, list(tracks.values())


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
    images: dict[int, dict[str, Any]] = {}
    for where, record in checks.section(content, 'images'):
        image_id = checks.whole(record, 'id', where)
        checks.size(record, where)
        checks.text(record, 'file_name', where)
        if checks.new(image_id, images, where) and image_id is not None and checks.keeps:
            images[image_id] = record
    segments: dict[str, list[SegmentsInfo]] = {}
    masks: dict[str, list[Path]] = {}
    if isinstance(content, dict) and content.get('annotations') is not None:
        for where, record in checks.section(content, 'annotations'):
            image_id = checks.known(record, 'image_id', where, images, 'the images')
            name = checks.text(record, 'file_name', where)
            if image_id is None or name is None:
                continue
            where, entries = f'Image {image_id}', record.get('segments_info')
            if str(image_id) in segments:
                checks.fault(f'{where}: is annotated twice.')
            for fault in segment_faults(entries, known, is_truth=True):
                checks.fault(f'{where}: {fault}.')
            if checks.keeps:
                segments[str(image_id)] = [entries if isinstance(entries, list) else []]
                masks[str(image_id)] = [masks_folder / name]
        missing = set(find_missing(Path(), [str(paths[0]) for paths in masks.values()]))
        for image_id in checks.each(list(images)):
            name = str(image_id)
            if name not in segments:
                checks.fault(f'Image {image_id}: has no annotation.')
            elif str(masks[name][0]) in missing:
                checks.fault(f'There is no {masks[name][0]}.')
            if not checks.keeps:
                del images[image_id]
                segments.pop(name, None), masks.pop(name, None)
    checks.finish()
    videos = [
        VipsegVideo(
            str(image_id),
            (images[image_id]['height'], images[image_id]['width']),
            # Results are folders of PNGs, whatever the image is.
            (f'{Path(images[image_id]["file_name"]).stem}.png',),
        )
        for image_id in sorted(images)
    ]
    truth = VipsegTruth(
        categories, videos, segments, masks, says_drawn(content), checks.notes, checks.left_out
    )
    return truth, {str(image_id): image['file_name'] for image_id, image in images.items()}
