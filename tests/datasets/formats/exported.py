"""Annotations of YouTube-VIS as other tools write them, for tests.

The fields and forms are those that the tools' own writers produce: mmtracking's
`youtubevis2coco.py`, Datumaro 1.13's exporter of `coco_instances`, which CVAT calls for "COCO
1.0", and CVAT's "CVAT for video 1.1".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image

from videomt_ros.datasets.rle import decode, to_rle


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of a flat mask, background first."""
    ends = np.flatnonzero(np.diff(mask.astype(np.int8))) + 1
    lengths = np.diff(np.concatenate([[0], ends, [mask.size]])).tolist()
    return [0, *lengths] if mask[0] else lengths


def objects(truth: dict[str, Any], video: dict[str, Any]) -> list[dict[str, Any]]:
    """Annotations of one video."""
    return [a for a in truth['annotations'] if a['video_id'] == video['id']]


def cocovid(truth: dict[str, Any]) -> dict[str, Any]:
    """The same annotations in CocoVID."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for video in truth['videos']:
        size = {'height': video['height'], 'width': video['width']}
        for frame, name in enumerate(video['file_names']):
            image_id = len(images) + 1
            place = {'frame_id': frame, 'video_id': video['id']}
            images.append({'file_name': name, **size, 'id': image_id, **place})
            for item in objects(truth, video):
                if item['segmentations'][frame] is None:
                    continue
                annotations.append(
                    {
                        'id': len(annotations) + 1,
                        'video_id': video['id'],
                        'image_id': image_id,
                        'category_id': item['category_id'],
                        'instance_id': item['id'],
                        'bbox': [0, 0, 1, 1],
                        'segmentation': item['segmentations'][frame],
                        'area': item['areas'][frame],
                        'iscrowd': item['iscrowd'],
                    }
                )
    videos = [
        {k: v[k] for k in ('id', 'width', 'height')} | {'name': v['file_names'][0].split('/')[0]}
        for v in truth['videos']
    ]
    lists = {'videos': videos, 'images': images, 'annotations': annotations}
    return {'categories': truth['categories'], **lists}


def cvat_coco(truth: dict[str, Any], video: dict[str, Any]) -> dict[str, Any]:
    """One video as CVAT's "COCO 1.0": masks of pixels have `iscrowd` 1, tracks count from 0."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for frame in range(len(video['file_names'])):
        images.append(
            {
                'id': frame + 1,
                'width': video['width'],
                'height': video['height'],
                'file_name': f'frame_{frame:06d}.PNG',
                'license': 0,
                'flickr_url': '',
                'coco_url': '',
                'date_captured': 0,
            }
        )
        for track_id, item in enumerate(objects(truth, video)):
            segmentation = item['segmentations'][frame]
            if segmentation is None:
                continue
            if isinstance(segmentation, dict):
                mask = decode(to_rle(segmentation, video['height'], video['width']))
                segmentation = {'counts': runs(mask.ravel('F')), 'size': list(mask.shape)}
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': frame + 1,
                    'category_id': item['category_id'],
                    'segmentation': segmentation,
                    'area': float(item['areas'][frame]),
                    'bbox': [0.0, 0.0, 1.0, 1.0],
                    'iscrowd': int(isinstance(segmentation, dict)),
                    'attributes': {'occluded': False, 'track_id': track_id, 'keyframe': not frame},
                }
            )
    categories = [{**category, 'supercategory': ''} for category in truth['categories']]
    head = {'licenses': [{'name': '', 'id': 0, 'url': ''}], 'info': {'description': ''}}
    return {**head, 'categories': categories, 'images': images, 'annotations': annotations}


def cvat_xml(truth: dict[str, Any], video: dict[str, Any], start: int = 0, step: int = 1) -> str:
    """One video as "CVAT for video 1.1", whose frames are every `step`-th from `start` on."""
    names = {category['id']: category['name'] for category in truth['categories']}
    length = len(video['file_names'])
    filters = f'step={step}' if step > 1 else ''
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        '<annotations><version>1.1</version><meta><task><id>1</id><name>my task</name>',
        f'<size>{length}</size><mode>interpolation</mode><start_frame>{start}</start_frame>',
        f'<stop_frame>{start + (length - 1) * step}</stop_frame>',
        f'<frame_filter>{filters}</frame_filter><labels>',
        *(f'<label><name>{escape(name)}</name></label>' for name in names.values()),
        f'</labels><original_size><width>{video["width"]}</width>',
        f'<height>{video["height"]}</height></original_size><source>clip.mp4</source></task>',
        '<dumped>2026-01-01</dumped></meta>',
    ]
    for track_id, item in enumerate(objects(truth, video)):
        label = quoteattr(names[item['category_id']])
        lines.append(f'<track id="{track_id}" label={label} source="manual">')
        last = ''
        for frame, segmentation in enumerate(item['segmentations']):
            outside = int(segmentation is None)
            head = f'frame="{start + frame * step}" keyframe="1" outside="{outside}" occluded="0" '
            if segmentation is None:
                if last:
                    lines.append(last.replace('HEAD', head))
                last = ''
                continue
            last = _shape(segmentation, video)
            lines.append(last.replace('HEAD', head))
        lines.append('</track>')
    return '\n'.join([*lines, '</annotations>'])


def _shape(segmentation: Any, video: dict[str, Any]) -> str:
    if isinstance(segmentation, list):
        (polygon,) = segmentation
        points = ';'.join(f'{x:.2f},{y:.2f}' for x, y in zip(polygon[::2], polygon[1::2]))  # noqa: B905
        return f'<polygon HEADpoints="{points}" z_order="0"></polygon>'
    mask = decode(to_rle(segmentation, video['height'], video['width']))
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    rle = ', '.join(map(str, runs(part.ravel())))
    return (
        f'<mask HEADrle="{rle}" left="{columns[0]}" top="{rows[0]}" width="{part.shape[1]}" '
        f'height="{part.shape[0]}" z_order="0"></mask>'
    )


def write_pngs(sources: list[Path], folder: Path) -> None:
    """Write images under the names that CVAT gives to the frames of a video."""
    folder.mkdir(parents=True)
    for frame, source in enumerate(sources):
        with Image.open(source) as image:
            image.save(folder / f'frame_{frame:06d}.PNG', 'PNG')
