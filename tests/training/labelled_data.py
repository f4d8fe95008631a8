"""Small labelled data sets, one of each format, as run files name them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from videomt_ros.datasets.mask_png import segments_info, write_ids
from videomt_ros.datasets.rle import encode, rle_to_json
from videomt_ros.datasets.synthetic.scene import CLASS_NAMES, Scene
from videomt_ros.datasets.synthetic.writing import write_dataset

SIZE = (48, 64)
FORMATS = ('ytvis2019', 'ovis', 'vipseg', 'vspw', 'coco', 'coco_panoptic')


def write_labelled(dataset: str, root: Path, num_videos: int = 2, num_frames: int = 4) -> None:
    """Write a data set in the format of `dataset`, whose split is val; its scenes are 0, 1, ..."""
    if dataset.startswith('coco'):
        write_coco(dataset, root, num_videos)
    else:
        benchmark = dataset if dataset in ('vipseg', 'vspw') else 'ytvis'
        write_dataset(benchmark, root, num_videos, num_frames, size=SIZE)


def write_coco(dataset: str, root: Path, num_images: int) -> Path:
    """The first frames of scenes, as images of COCO; returns the annotation file."""
    is_panoptic = dataset == 'coco_panoptic'
    images, annotations = [], []
    (root / 'val2017').mkdir(parents=True)
    for number in range(num_images):
        scene = Scene(number, *SIZE)
        image, ids = scene.frame(0)
        Image.fromarray(image).save(root / 'val2017' / f'{number}.png')
        images.append(
            {'id': number, 'height': SIZE[0], 'width': SIZE[1], 'file_name': f'{number}.png'}
        )
        segments = segments_info(ids, {k: class_id + 1 for k, class_id in scene.class_of.items()})
        if is_panoptic:
            write_ids(root / 'annotations' / 'panoptic_val2017' / f'{number}.png', ids)
            annotations.append(
                {'image_id': number, 'file_name': f'{number}.png', 'segments_info': segments}
            )
            continue
        for segment in segments:
            annotations.append(
                {
                    **segment,
                    'id': len(annotations) + 1,
                    'image_id': number,
                    'segmentation': rle_to_json(encode(ids == segment['id'])),
                }
            )
    categories = [{'id': k, 'name': name, 'isthing': 1} for k, name in enumerate(CLASS_NAMES, 1)]
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    name = 'panoptic_val2017' if is_panoptic else 'instances_val2017'
    path = root / 'annotations' / f'{name}.json'
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def scene_objects(
    scene: Scene, times: list[int], by_class: bool = False
) -> list[tuple[int, NDArray[np.bool_]]]:
    """Class and masks (T, H, W) of what is visible of a scene: its objects, or its classes."""
    ids = np.stack([scene.frame(t)[1] for t in times])
    if by_class:
        classes = {scene.class_of[int(k)] for k in np.unique(ids) if k}
        members = [[k for k, c in scene.class_of.items() if c == each] for each in classes]
        return [(c, np.isin(ids, k)) for c, k in zip(classes, members, strict=True)]
    return [(scene.class_of[int(k)], ids == k) for k in np.unique(ids) if k]
