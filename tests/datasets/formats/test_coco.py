from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.dataset import Category, DatasetError
from videomt_ros.datasets.formats.coco import load_coco_panoptic
from videomt_ros.datasets.formats.vipseg import load_vipseg, load_vipseg_results
from videomt_ros.datasets.formats.ytvis import load_ytvis, load_ytvis_results, write_ytvis_results
from videomt_ros.datasets.mask_png import write_ids
from videomt_ros.datasets.rle import MaskTrack, decode

PERSON = 256 * 3 + 1
SKY = 65536 * 2
IDS = np.array([[SKY, SKY, 0], [PERSON, SKY, 0]])


def instances() -> dict[str, Any]:
    return {
        'images': [
            {'id': 139, 'file_name': '000000000139.jpg', 'height': 4, 'width': 6},
            {'id': 9, 'file_name': '000000000009.jpg', 'height': 2, 'width': 3},
        ],
        'categories': [{'id': 18, 'name': 'dog', 'supercategory': 'animal'}],
        'annotations': [
            {
                'id': 900100,
                'image_id': 139,
                'category_id': 18,
                'iscrowd': 0,
                'area': 7.5,
                'bbox': [0, 0, 2, 4],
                'segmentation': [[0, 0, 2, 0, 2, 4, 0, 4]],
            },
            {
                'id': 5,
                'image_id': 139,
                'category_id': 18,
                'iscrowd': 1,
                'area': 2,
                'bbox': [1, 1, 1, 2],
                'segmentation': {'size': [4, 6], 'counts': [5, 2, 17]},
            },
        ],
    }


def panoptic() -> dict[str, Any]:
    return {
        'images': [{'id': 139, 'file_name': '000000000139.jpg', 'height': 2, 'width': 3}],
        'categories': [
            {'id': 1, 'name': 'person', 'isthing': 1},
            {'id': 187, 'name': 'sky', 'isthing': 0},
        ],
        'annotations': [
            {
                'image_id': 139,
                'file_name': '000000000139.png',
                'segments_info': [
                    {'id': PERSON, 'category_id': 1, 'iscrowd': 0, 'area': 1, 'bbox': []},
                    {'id': SKY, 'category_id': 187, 'iscrowd': 0, 'area': 3, 'bbox': []},
                ],
            }
        ],
    }


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding='utf-8')
    return path


def write_images(folder: Path, content: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image in content['images']:
        pixels = np.full((image['height'], image['width'], 3), 90, np.uint8)
        cv2.imwrite(str(folder / image['file_name']), pixels)


def write_panoptic(root: Path) -> Path:
    path = write(root / 'annotations' / 'panoptic_val2017.json', panoptic())
    write_ids(root / 'annotations' / 'panoptic_val2017' / '000000000139.png', IDS)
    write_images(root / 'val2017', panoptic())
    return path


def faults(load: Callable[[], Any]) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as caught:
        load()
    return caught.value.faults


def test_images_are_videos_of_one_frame(tmp_path):
    truth = load_ytvis(write(tmp_path / 'instances_val2017.json', instances()))
    assert truth.has_annotations
    assert [(v.video_id, v.name, v.size, v.frame_names) for v in truth.videos] == [
        (9, '9', (2, 3), ('000000000009.jpg',)),
        (139, '139', (4, 6), ('000000000139.jpg',)),
    ]
    assert truth.tracks(9) == ()
    dog, crowd = truth.tracks(139)
    assert (dog.track_id, dog.category_id, dog.is_crowd, dog.areas) == (900100, 18, False, (7.5,))
    assert (crowd.track_id, crowd.is_crowd, crowd.areas) == (5, True, (2,))
    # Columns 0 and 1; and rows 1 and 2 of column 1.
    expected = np.zeros((2, 4, 6), bool)
    expected[0, :, :2] = expected[1, 1:3, 1] = True
    for track, mask in zip((dog, crowd), expected, strict=True):
        (rle,) = track.masks
        assert (decode(rle) == mask).all()


def test_results_of_videos_and_of_coco_itself_are_read(tmp_path):
    truth = load_ytvis(write(tmp_path / 'instances_val2017.json', instances()))
    rle = {'size': [4, 6], 'counts': '52a0'}
    mask = {'size': [4, 6], 'counts': b'52a0'}
    own = write(
        tmp_path / 'coco.json',
        [{'image_id': 139, 'category_id': 18, 'score': 0.5, 'segmentation': rle}],
    )
    write_ytvis_results(tmp_path / 'videos.json', [MaskTrack(139, 18, [mask], 0.5)])
    for path in (own, tmp_path / 'videos.json'):
        results = load_ytvis_results(path, truth.videos, truth.categories)
        assert list(results) == [139]
        (track,) = results[139]
        assert (track.score, list(track.masks)) == (0.5, [mask])


@pytest.mark.parametrize(
    ('change', 'fault'),
    [
        (lambda c: c['images'][0].pop('file_name'), 'Image 139: file_name is missing.'),
        (lambda c: c['images'].append(c['images'][0]), 'Image 139: the id occurs twice.'),
        (lambda c: c['images'][0].pop('width'), 'Image 139: width is missing.'),
        (
            lambda c: c['annotations'][1].update(id=900100),
            'Annotation 900100: the id occurs twice.',
        ),
        (
            lambda c: c['annotations'][1].update(image_id=1),
            'Annotation 5: image_id 1 is not among the images.',
        ),
        (
            lambda c: c['annotations'][1].update(category_id=1),
            'Annotation 5: category_id 1 is not among the categories.',
        ),
        (
            lambda c: c['annotations'][1].update(iscrowd='0'),
            "Annotation 5: expected iscrowd to be 0 or 1, got '0'.",
        ),
        (
            lambda c: c['annotations'][1].update(image_id='139'),
            "Annotation 5: expected image_id to be a whole number, got '139'.",
        ),
        (
            lambda c: c['annotations'][1].update(area=-1),
            'Annotation 5: expected area to be a finite number of 0 or more, got -1.',
        ),
        (
            lambda c: c['annotations'][1].pop('segmentation'),
            'Annotation 5: segmentation is missing.',
        ),
        (
            lambda c: c['annotations'][1]['segmentation'].update(counts=[5, 2]),
            'Annotation 5: the runs of the RLE make 7 pixels, expected 4 x 6 = 24.',
        ),
        (
            lambda c: c['annotations'][0].update(segmentation=[[0, 0, 2, 0, 2]]),
            'Annotation 900100: expected polygons [x, y, x, y, ...] of three points or more, got '
            '[0, 0, 2, 0, 2] as polygon 1.',
        ),
    ],
)
def test_a_fault_of_instances_names_its_record(tmp_path, change, fault):
    content = instances()
    change(content)
    path = write(tmp_path / 'instances_val2017.json', content)
    assert faults(lambda: load_ytvis(path)) == (fault,)


def test_boxes_as_results_are_refused_in_one_line(tmp_path):
    truth = load_ytvis(write(tmp_path / 'instances_val2017.json', instances()))
    box = {'image_id': 139, 'category_id': 18, 'score': 0.5, 'bbox': [0, 0, 2, 4]}
    path = write(tmp_path / 'coco.json', [box] * 5000)
    with pytest.raises(DatasetError) as caught:
        load_ytvis_results(path, truth.videos, truth.categories)
    assert str(caught.value).startswith(
        f'{path}: 5,000 faults: (1) Prediction [0]: segmentation is missing, and a box'
    )
    assert len(str(caught.value)) < 300 + len(str(path))


@pytest.mark.parametrize('split', ['val2017', 'val', None])
def test_instances_open_as_they_were_unpacked(tmp_path, split):
    path = write(tmp_path / 'annotations' / 'instances_val2017.json', instances())
    write_images(tmp_path / 'val2017', instances())
    dataset = open_dataset('coco', tmp_path, split)
    assert (dataset.family, dataset.truth) == ('ytvis', (path,))
    assert dataset.categories == (Category(18, 'dog'),)
    for video in dataset.videos:
        (frame,) = video.frames()
        assert frame.image.shape == (*video.size, 3)


def test_images_without_annotations_have_no_truth(tmp_path):
    content = instances()
    del content['annotations']
    write(tmp_path / 'annotations' / 'image_info_test-dev2017.json', content)
    write_images(tmp_path / 'test2017', content)
    dataset = open_dataset('coco', tmp_path, 'test-dev2017')
    assert (dataset.truth, len(dataset.videos)) == ((), 2)


def test_missing_images_of_coco_are_named(tmp_path):
    write(tmp_path / 'annotations' / 'instances_val2017.json', instances())
    write_images(tmp_path / 'val2017', instances())
    (tmp_path / 'val2017' / '000000000009.jpg').unlink()
    found = faults(lambda: open_dataset('coco', tmp_path))
    assert found[0].startswith('1 of 2 images are missing')
    assert found[1].endswith('val2017/000000000009.jpg.')


def test_panoptic_images_open_with_their_ids_and_segments(tmp_path):
    path = write_panoptic(tmp_path)
    dataset = open_dataset('coco_panoptic', tmp_path)
    assert (dataset.family, dataset.truth) == ('coco_panoptic', (path,))
    assert dataset.truth_masks == path.with_suffix('')
    assert dataset.categories == (Category(1, 'person'), Category(187, 'sky', is_thing=False))
    (video,) = dataset.videos
    assert (video.video_id, video.name, video.size) == ('139', '139', (2, 3))
    assert video.frame_names == ('000000000139.png',)
    (frame,) = video.frames()
    assert frame.image.shape == (2, 3, 3)
    for truth in (
        load_coco_panoptic(path),
        load_vipseg(path),
        load_vipseg(path, dataset.truth_masks),
    ):
        assert truth.has_annotations
        assert (truth.ids('139', 0) == IDS).all()
        assert [segment['category_id'] for segment in truth.segments('139', 0)] == [1, 187]


def test_panoptic_results_have_the_form_of_vipseg(tmp_path):
    truth = load_vipseg(write_panoptic(tmp_path))
    segments = [{'id': PERSON, 'category_id': 1}, {'id': SKY, 'category_id': 187}]
    annotation = {'video_id': '139', 'annotations': [{'segments_info': segments}]}
    write(tmp_path / 'out' / 'pred.json', {'annotations': [annotation]})
    write_ids(tmp_path / 'out' / 'pan_pred' / '139' / '000000000139.png', IDS)
    results = load_vipseg_results(tmp_path / 'out', truth.videos, truth.categories)
    assert (results.ids('139', 0) == IDS).all()


@pytest.mark.parametrize(
    ('change', 'fault'),
    [
        (lambda c: c['categories'][0].pop('isthing'), 'Category 1: isthing is missing.'),
        (lambda c: c['annotations'].clear(), 'Image 139: has no annotation.'),
        (
            lambda c: c['images'][0].update(height=0, file_name='none.jpg'),
            'Image 139: expected height to be a whole number of 1 or more, got 0.',
        ),
        (
            lambda c: c['images'][0].update(width='3'),
            "Image 139: expected width to be a whole number of 1 or more, got '3'.",
        ),
        (lambda c: c['images'][0].pop('file_name'), 'Image 139: file_name is missing.'),
        (lambda c: c['images'].append(c['images'][0]), 'Image 139: the id occurs twice.'),
        (
            lambda c: c['annotations'].append(c['annotations'][0]),
            'Image 139: is annotated twice.',
        ),
        (
            lambda c: c['annotations'][0].update(file_name='x.png'),
            'There is no {folder}/x.png.',
        ),
        (
            lambda c: c['annotations'][0]['segments_info'][0].update(category_id=2),
            f'Image 139: expected a category of the truth for id {PERSON}, got category_id 2.',
        ),
        (
            lambda c: c['annotations'][0].pop('segments_info'),
            'Image 139: expected a list segments_info, got None.',
        ),
    ],
)
def test_a_fault_of_panoptic_files_names_its_image(tmp_path, change, fault):
    path = write_panoptic(tmp_path)
    content = panoptic()
    change(content)
    write(path, content)
    assert faults(lambda: load_vipseg(path)) == (fault.format(folder=path.with_suffix('')),)


def test_panoptic_images_may_come_without_annotations(tmp_path):
    path = write_panoptic(tmp_path)
    content = panoptic()
    del content['annotations']
    content['images'].append({'id': 9, 'file_name': '9.jpg', 'height': 5, 'width': 4})
    write(path, content)
    write_images(tmp_path / 'val2017', content)
    dataset = open_dataset('coco_panoptic', tmp_path)
    assert (dataset.truth, dataset.truth_masks) == ((), None)
    assert [(video.video_id, video.size) for video in dataset.videos] == [
        ('9', (5, 4)),
        ('139', (2, 3)),
    ]


def test_a_file_of_youtube_vis_in_the_folders_of_coco_keeps_its_stamps(tmp_path: Path) -> None:
    names = ['a/00000.jpg', 'a/00001.jpg']
    stamps = [10**18, 10**18 + 70_000_000]
    video = {'id': 1, 'width': 3, 'height': 2, 'length': 2, 'file_names': names}
    content = {'categories': [{'id': 1, 'name': 'dog'}], 'videos': [video | {'stamps_ns': stamps}]}
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/instances_val2017.json').write_text(json.dumps(content))
    (tmp_path / 'val2017/a').mkdir(parents=True)
    for name in names:
        cv2.imwrite(str(tmp_path / 'val2017' / name), np.zeros((2, 3, 3), np.uint8))

    (opened,) = open_dataset('coco', tmp_path, 'val2017').videos

    assert [frame.stamp_ns for frame in opened.frames()] == stamps
