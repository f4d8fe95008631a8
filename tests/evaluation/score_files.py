"""Small truth and result files of each family, which tests write and then break."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

SIZE = 20, 30
NUM_FRAMES = 9
"""One window of 8 frames of mVC counts; the last is left out."""


def disc(x: int, radius: int = 4) -> np.ndarray:
    """Draw a mask of SIZE with a disc around column x."""
    rows, columns = np.indices(SIZE)
    return (rows - 10) ** 2 + (columns - x) ** 2 <= radius**2


def rle(mask: np.ndarray) -> dict[str, Any]:
    code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {'size': list(SIZE), 'counts': code['counts'].decode()}


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def instances(video_ids: tuple[int, ...] = (1, 2)) -> dict[str, Any]:
    """Build a YouTube-VIS truth: in each video two objects, of classes 1 and 2, side by side."""
    videos, annotations = [], []
    for video_id in video_ids:
        names = [f'v{video_id}/{t:05d}.jpg' for t in range(NUM_FRAMES)]
        videos.append(
            {
                'id': video_id,
                'height': SIZE[0],
                'width': SIZE[1],
                'length': NUM_FRAMES,
                'file_names': names,
            }
        )
        for category_id, x in ((1, 6), (2, 20)):
            masks = [disc(x + t % 3) for t in range(NUM_FRAMES)]
            annotations.append(
                {
                    'id': 10 * video_id + category_id,
                    'video_id': video_id,
                    'category_id': category_id,
                    'iscrowd': 0,
                    'height': SIZE[0],
                    'width': SIZE[1],
                    'length': NUM_FRAMES,
                    'segmentations': [rle(mask) for mask in masks],
                    'areas': [int(mask.sum()) for mask in masks],
                    'bboxes': [[0, 0, 1, 1]] * NUM_FRAMES,
                }
            )
    categories = [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}, {'id': 3, 'name': 'owl'}]
    return {'videos': videos, 'categories': categories, 'annotations': annotations}


def predictions(truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Build results that are equal to the truth."""
    return [
        {
            'video_id': annotation['video_id'],
            'category_id': annotation['category_id'],
            'score': 0.9,
            'segmentations': list(annotation['segmentations']),
        }
        for annotation in truth['annotations']
    ]


CATEGORIES = [
    {'id': 0, 'name': 'wall', 'isthing': 0},
    {'id': 1, 'name': 'cat', 'isthing': 1},
]
WALL, LEFT, RIGHT = 11, 12, 13
"""Ids of the segments of each VIPSeg video: stuff, and two cats. The wall comes first."""


def panoptic_ids(t: int) -> np.ndarray:
    """Draw the ids (H, W) of frame t."""
    ids = np.full(SIZE, WALL, np.uint32)
    ids[disc(6 + t % 3)] = LEFT
    ids[disc(20 + t % 3)] = RIGHT
    return ids


def write_ids(path: Path, ids: np.ndarray) -> None:
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2)
    write_png(path, rgb.astype(np.uint8))


def panoptic_frame(ids: np.ndarray) -> list[dict[str, Any]]:
    """Build the `segments_info` of a frame."""
    return [
        {
            'id': number,
            'category_id': int(number != WALL),
            'iscrowd': 0,
            'area': int((ids == number).sum()),
            'bbox': [0, 0, 1, 1],
        }
        for number in np.unique(ids[ids > 0]).tolist()
    ]


def write_vipseg(folder: Path, names: tuple[str, ...] = ('a', 'b')) -> tuple[Path, Path]:
    """Write a truth and results that are the truth.

    Returns:
        The JSON of the truth, and the folder of the results.
    """
    videos, annotations = [], []
    for name in names:
        images, frames = [], []
        for t in range(NUM_FRAMES):
            png, ids = f'{t:08d}.png', panoptic_ids(t)
            image = {'id': f'{name}{t}', 'width': SIZE[1], 'height': SIZE[0], 'file_name': png}
            images.append(image)
            frames.append(
                {
                    'image_id': image['id'],
                    'file_name': png,
                    'segments_info': panoptic_frame(ids),
                }
            )
            write_ids(folder / 'truth' / 'panomasksRGB' / name / png, ids)
            write_ids(folder / 'results' / 'pan_pred' / name / png, ids)
        videos.append({'video_id': name, 'images': images})
        annotations.append({'video_id': name, 'annotations': frames})
    truth = write_json(
        folder / 'truth' / 'panoptic_gt_VIPSeg_val.json',
        {'videos': videos, 'annotations': annotations, 'categories': CATEGORIES},
    )
    write_json(folder / 'results' / 'pred.json', {'annotations': annotations})
    return truth, folder / 'results'


def write_vspw(folder: Path, names: tuple[str, ...] = ('a', 'b')) -> tuple[Path, Path]:
    """Write a truth and results that are the truth; return both folders."""
    for name in names:
        for t in range(NUM_FRAMES):
            classes = np.where(disc(6 + t % 3), 3, 7).astype(np.uint8)
            classes[:, -1] = 0
            write_png(folder / 'truth' / 'data' / name / 'mask' / f'{t:08d}.png', classes)
            write_png(folder / 'results' / name / f'{t:08d}.png', classes - np.uint8(1))
    (folder / 'truth' / 'val.txt').write_text(''.join(f'{name}\n' for name in names))
    return folder / 'truth', folder / 'results'
