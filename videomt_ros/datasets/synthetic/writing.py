"""Writes synthetic scenes as data sets in the formats of YouTube-VIS, VIPSeg and VSPW.

Their truth is exact: a pixel belongs to the shape that covers it. The background has no label, so
VIPSeg and VSPW see it as void, unless it is of stuff: sky, ground and wall. Scenes are those of
`datasets.synthetic.scene`; video i of a data set of seed s is the scene of seed s + i.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from videomt_ros.datasets.formats.origin import DRAWN_INFO, INFO_FILE
from videomt_ros.datasets.json_files import write_json
from videomt_ros.datasets.mask_png import segments_info, write_ids, write_mask
from videomt_ros.datasets.rle import encode, rle_to_json
from videomt_ros.datasets.synthetic.scene import ALL_NAMES, CLASS_NAMES, Scene

FPS = 10.0
"""Frame rate in the annotations, which is that of the demo's camera."""
JPEG_QUALITY = 95
START_NS = 1_700_000_000_000_000_000
"""Stamp of the first frame of a VSPW video, whose frames are named by their stamps."""


def write_dataset(
    family: str,
    out: Path,
    num_videos: int,
    num_frames: int = 40,
    seed: int = 0,
    progress: Callable[[int], None] = lambda number: None,
    size: tuple[int, int] = (384, 480),
    stuff: bool = False,
    hidden_frames: tuple[int, int] | None = None,
    away_frames: tuple[int, int] | None = None,
    alike: int = 0,
    num_objects: int | None = None,
    hard: bool = False,
) -> None:
    """Write a labelled data set.

    Args:
        family: name of the family whose format is written, one of `FORMATS`.
        out: new or empty folder, which appears once everything is written.
        num_videos: number of videos, at least 1.
        num_frames: length of each video, at least 1.
        seed: seed of the first scene.
        progress: function that is called with the number of videos written so far.
        size: (height, width) of the images in pixels.
        stuff: whether scenes have sky, ground and walls, for VIPSeg and VSPW.
        hidden_frames: fewest and most frames for which shapes vanish behind a wall; see `Scene`.
        away_frames: fewest and most frames for which shapes leave the view; see `Scene`.
        alike: number of shapes that look alike; see `Scene`.
        num_objects: number of shapes of each scene; None: see `Scene`.
        hard: whether scenes are harder; see `Scene`.

    Raises:
        ValueError: the folder holds files, a number is out of range, or the format has no stuff.
    """
    if num_videos < 1 or num_frames < 1 or seed < 0:
        raise ValueError(
            'Expected 1 or more videos of 1 or more frames and a seed of 0 or more, '
            f'got {num_videos} videos, {num_frames} frames, seed {seed}.'
        )
    drawn_format = FORMATS[family]
    if stuff and not drawn_format.has_stuff:
        able = ' or '.join(name for name, each in FORMATS.items() if each.has_stuff)
        raise ValueError(f'Expected {able} for scenes with stuff, got {family}: it has none.')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f'Expected a new or empty folder, got {out}. Remove it or name another.')
    scenes = [
        Scene(
            seed + i,
            *size,
            num_frames,
            num_objects,
            hidden_frames=hidden_frames,
            stuff=stuff,
            away_frames=away_frames,
            alike=alike,
            hard=hard,
        )
        for i in range(num_videos)
    ]
    # Written beside the target, so that an interrupted run leaves no data set that looks whole.
    partial = out.with_name(f'.{out.name}.partial')
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    drawn_format.write(partial, scenes, progress)
    if out.exists():
        out.rmdir()
    partial.rename(out)


def _write_ytvis(out: Path, scenes: list[Scene], progress: Callable[[int], None]) -> None:
    videos: list[Any] = []
    annotations: list[Any] = []
    for video_id, scene in enumerate(scenes, start=1):
        name = _name(scene)
        tracks: dict[int, list[Any]] = {k: [None] * len(scene) for k in scene.class_of}
        for t, (image, ids) in enumerate(scene.frames()):
            _write_image(out / 'valid' / 'JPEGImages' / name / f'{t:05d}.jpg', image)
            for identity in _visible(ids):
                tracks[identity][t] = encode(ids == identity)
        videos.append(
            {
                'id': video_id,
                'width': scene.width,
                'height': scene.height,
                'length': len(scene),
                'fps': FPS,
                'file_names': [f'{name}/{t:05d}.jpg' for t in range(len(scene))],
            }
        )
        for identity, masks in tracks.items():
            if not any(masks):
                continue
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'video_id': video_id,
                    'category_id': scene.class_of[identity] + 1,
                    'iscrowd': 0,
                    'height': scene.height,
                    'width': scene.width,
                    'length': len(scene),
                    'segmentations': [mask and rle_to_json(mask) for mask in masks],
                    'areas': [m and int(coco_mask.area(m)) for m in masks],
                    'bboxes': [m and coco_mask.toBbox(m).tolist() for m in masks],
                }
            )
        progress(video_id)
    truth = {
        'info': DRAWN_INFO,
        'licenses': [],
        'videos': videos,
        'categories': [{'id': k, 'name': name} for k, name in enumerate(CLASS_NAMES, start=1)],
        'annotations': annotations,
    }
    write_json(out / 'valid.json', truth)


def _write_vipseg(out: Path, scenes: list[Scene], progress: Callable[[int], None]) -> None:
    videos: list[Any] = []
    annotations: list[Any] = []
    for number, scene in enumerate(scenes, start=1):
        name = _name(scene)
        images, frames = [], []
        for t, (image, ids) in enumerate(scene.frames()):
            _write_image(out / 'images' / name / f'{t:05d}.jpg', image)
            path = out / 'panomasksRGB' / name / f'{t:05d}.png'
            write_ids(path, ids)
            images.append(
                {
                    'id': f'{name}_{t:05d}',
                    'width': scene.width,
                    'height': scene.height,
                    'file_name': path.name,
                }
            )
            frames.append(
                {
                    'image_id': images[-1]['id'],
                    'file_name': path.name,
                    'segments_info': segments_info(ids, dict(sorted(scene.class_of.items()))),
                }
            )
        videos.append({'video_id': name, 'fps': FPS, 'images': images})
        annotations.append({'video_id': name, 'annotations': frames})
        progress(number)
    categories = [
        {'id': k, 'name': name, 'isthing': int(k < len(CLASS_NAMES))}
        for k, name in enumerate(_names(scenes))
    ]
    truth = {
        'info': DRAWN_INFO,
        'videos': videos,
        'annotations': annotations,
        'categories': categories,
    }
    write_json(out / 'panoptic_gt_VIPSeg_val.json', truth)


def _write_vspw(out: Path, scenes: list[Scene], progress: Callable[[int], None]) -> None:
    for number, scene in enumerate(scenes, start=1):
        folder = out / 'data' / _name(scene)
        classes = np.zeros(max(scene.class_of) + 1, np.uint8)
        for identity, class_id in scene.class_of.items():
            classes[identity] = class_id + 1
        for t, (image, ids) in enumerate(scene.frames()):
            name = str(START_NS + round(t * 1e9 / FPS))
            _write_image(folder / 'origin' / f'{name}.jpg', image)
            write_mask(folder / 'mask' / f'{name}.png', classes[ids])
        progress(number)
    names = ''.join(f'{_name(scene)}\n' for scene in scenes)
    (out / 'val.txt').write_text(names, encoding='utf-8')
    numbers = {name: number for number, name in enumerate(_names(scenes), start=1)}
    write_json(out / 'label_num_dic_final.json', numbers)
    write_json(out / INFO_FILE, {'info': DRAWN_INFO})


def _names(scenes: list[Scene]) -> tuple[str, ...]:
    """Names of the classes that the scenes may have."""
    return ALL_NAMES if scenes[0].has_stuff else CLASS_NAMES


def _name(scene: Scene) -> str:
    return f'scene_{scene.seed:06d}'


def _visible(ids: NDArray[np.uint16]) -> list[int]:
    return [int(identity) for identity in np.unique(ids) if identity]


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=JPEG_QUALITY)


class DrawnFormat(NamedTuple):
    """A format in which scenes are written."""

    write: Callable[[Path, list[Scene], Callable[[int], None]], None]
    benchmark: str
    """Name under which `open_dataset` reads it."""
    has_stuff: bool = True
    """Whether sky, ground and walls can have labels."""


FORMATS = {
    'ytvis': DrawnFormat(_write_ytvis, 'ytvis2019', has_stuff=False),
    'vipseg': DrawnFormat(_write_vipseg, 'vipseg'),
    'vspw': DrawnFormat(_write_vspw, 'vspw'),
}
"""All formats by the name of their family."""
