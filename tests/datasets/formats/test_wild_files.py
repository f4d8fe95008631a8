"""Annotation files as other tools write them: what they lack, and what they write differently."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.datasets.formats import test_coco, test_vipseg, test_ytvis
from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.datasets.formats.vipseg import load_vipseg
from videomt_ros.datasets.formats.ytvis import load_ytvis, load_ytvis_results
from videomt_ros.datasets.rle import decode

BIG = (0, -1, 2**31, 2**40, 2**63, 2**70)
"""Ids that do not fit in 32 or 64 bits, and those that a count from 1 does not have."""


def read(tmp_path, content):
    return load_ytvis(test_ytvis.write(tmp_path / 'valid.json', content))


def images(num_annotations: int, **fields) -> dict:
    """Build COCO instances with so many annotations of one image."""
    content = test_coco.instances()
    (first, _) = content['annotations']
    content['annotations'] = [
        {**first, 'id': number, **fields} for number in range(1, num_annotations + 1)
    ]
    return content


def without(content: dict, *fields: str) -> dict:
    for annotation in content['annotations']:
        for field in fields:
            annotation.pop(field)
    return content


def test_what_annotations_lack_is_taken_as_usual_and_told_once(tmp_path):
    truth = read(tmp_path, without(images(1000), 'iscrowd', 'area', 'bbox'))
    assert truth.notes == (
        'valid.json: 1,000 annotations without iscrowd, which was taken as 0.',
        'valid.json: 1,000 annotations without area, which was computed from the mask.',
    )
    tracks = truth.tracks(139)
    assert {(track.is_crowd, track.areas) for track in tracks} == {(False, None)}
    assert tracks[0].read()[1].tolist() == [8]


def test_what_tracks_lack_is_taken_as_usual_and_told_once(tmp_path):
    content = test_ytvis.truth()
    del content['annotations'][0]['iscrowd'], content['annotations'][0]['areas']
    content['annotations'][2]['iscrowd'] = content['annotations'][2]['areas'] = None
    truth = read(tmp_path, content)
    assert truth.notes == (
        'valid.json: 2 annotations without iscrowd, which was taken as 0.',
        'valid.json: 2 annotations without areas, which were computed from the masks.',
    )
    first = truth.tracks(2)[0]
    assert (first.is_crowd, first.read()[1].tolist()) == (False, [0, 2, 2])


def test_what_segments_lack_is_taken_as_usual_and_told_once(tmp_path):
    content = test_vipseg.truth_json()
    for video in content['annotations']:
        for frame in video['annotations']:
            for segment in frame['segments_info']:
                del segment['iscrowd'], segment['area']
    truth = load_vipseg(test_vipseg.write_truth(tmp_path, content))
    assert truth.notes == (
        f'{test_vipseg.JSON}: 6 segments without area, which was computed from the pixels.',
        f'{test_vipseg.JSON}: 6 segments without iscrowd, which was taken as 0.',
    )
    assert {segment['iscrowd'] for segment in truth.segments('12_abc', 0)} == {0}


def test_many_faults_of_one_kind_are_told_once_with_their_number(tmp_path):
    content = images(10_000, iscrowd=5)
    content['images'][0].pop('width')
    content['images'][1]['file_name'] = ''
    with pytest.raises(DatasetError) as caught:
        read(tmp_path, content)
    text = str(caught.value)
    assert len(text) < 400
    assert '10,002 faults: ' in text
    assert 'Annotation 1: expected iscrowd' in text
    assert '[and 9,998 more like this]' in text
    assert 'Image 139: width is missing.' in text
    assert 'Image 9: expected file_name' in text
    assert len(caught.value.faults) == 10_002


@pytest.mark.parametrize('fields', [{'segmentation': []}, {'segmentation': [[]]}, {}])
@pytest.mark.parametrize('skip_bad', [False, True])
def test_boxes_alone_are_refused_in_one_line(tmp_path, fields, skip_bad):
    content = without(images(500), 'segmentation')
    for annotation in content['annotations']:
        annotation.update(fields)
    path = test_ytvis.write(tmp_path / 'valid.json', content)
    (fault,) = test_ytvis.faults(lambda: load_ytvis(path, skip_bad=skip_bad))
    assert fault.startswith('No annotation has a mask: all 500 have a box and no mask')
    assert 'Export them as instance segmentation' in fault


def test_boxes_along_videos_alone_are_refused_in_one_line(tmp_path):
    content = test_ytvis.truth()
    for annotation in content['annotations']:
        annotation['bboxes'] = [[0, 0, 2, 2]] + [None] * (len(annotation['areas']) - 1)
        annotation['segmentations'] = [None] * len(annotation['areas'])
    (fault,) = test_ytvis.faults(lambda: read(tmp_path, content))
    assert fault.startswith('No annotation has a mask')


def test_objects_that_are_nowhere_are_no_boxes(tmp_path):
    content = test_ytvis.truth()
    content['annotations'] = [{**content['annotations'][2], 'bboxes': [None] * 3}]
    (track,) = read(tmp_path, content).tracks(2)
    assert list(track.masks) == [None] * 3


def test_a_box_beside_masks_is_told(tmp_path):
    content = images(3)
    content['annotations'][1]['segmentation'] = [[]]
    truth = read(tmp_path, content)
    assert [[mask is None for mask in track.masks] for track in truth.tracks(139)] == [
        [False],
        [True],
        [False],
    ]
    assert truth.notes == (
        'valid.json: 1 annotation with a box and no mask, each an object that is missed.',
    )


def test_polygons_without_an_area_are_left_out_and_told(tmp_path):
    content = images(2)
    square = content['annotations'][0]['segmentation'][0]
    content['annotations'][0]['segmentation'] = [square, [1, 1, 3, 3], [2, 2], []]
    truth = read(tmp_path, content)
    first, second = truth.tracks(139)
    assert list(first.masks) == list(second.masks)
    assert truth.notes == (
        'valid.json: 1 mask with polygons of one or two points, which cover no pixel and were '
        'left out.',
    )


def test_a_polygon_beyond_the_image_is_cut_at_its_edge(tmp_path):
    content = images(1, segmentation=[[-3, -2, 2, -2, 2, 9, -3, 9]])
    (track,) = read(tmp_path, content).tracks(139)
    (mask,) = track.masks
    expected = np.zeros((4, 6), bool)
    expected[:, :2] = True
    assert (decode(mask) == expected).all()


def test_a_polygon_that_is_in_no_list_is_read(tmp_path):
    content = images(2)
    (square,) = content['annotations'][0]['segmentation']
    content['annotations'][0]['segmentation'] = square
    first, second = read(tmp_path, content).tracks(139)
    assert list(first.masks) == list(second.masks)


def test_an_rle_in_a_list_is_read(tmp_path):
    runs = {'size': [4, 6], 'counts': [5, 2, 17]}
    (track,) = read(tmp_path, images(1, segmentation=[runs], area=2)).tracks(139)
    assert track.read()[1].tolist() == [2]
    (track,) = read(tmp_path, images(1, segmentation=[{**runs, 'counts': '52a0'}])).tracks(139)
    assert track.read()[1].tolist() == [2]
    assert (
        'as polygon 1'
        in test_ytvis.faults(lambda: read(tmp_path, images(1, segmentation=[runs, runs])))[0]
    )


@pytest.mark.parametrize('places', [('a.json', ''), ('annotations/a_val.json', 'images/val')])
@pytest.mark.parametrize('missing', [None, -1])
def test_sizes_that_a_file_lacks_are_those_of_its_images(tmp_path, places, missing):
    path, folder = places
    content = test_coco.instances()
    test_coco.write_images(tmp_path / folder, content)
    for image in content['images']:
        image.update(width=missing, height=missing)
    truth = load_ytvis(test_coco.write(tmp_path / path, content))
    assert [video.size for video in truth.videos] == [(2, 3), (4, 6)]
    assert truth.notes[0].endswith('2 images without size, which was read from the file.')
    content['images'][0]['file_name'] = 'elsewhere.jpg'
    faults = test_coco.faults(lambda: load_ytvis(test_coco.write(tmp_path / path, content)))
    assert faults[0].startswith('Image 139: expected height')


def test_sizes_that_a_video_lacks_are_those_of_its_images(tmp_path):
    content = test_ytvis.truth()
    test_ytvis.write_images(tmp_path / 'valid' / 'JPEGImages', content)
    for video in content['videos']:
        del video['height'], video['width']
    truth = read(tmp_path, content)
    assert [video.size for video in truth.videos] == [(4, 6), (4, 6)]


@pytest.mark.parametrize('number', BIG)
def test_ids_may_be_any_whole_number_and_floats_without_a_fraction(tmp_path, number):
    content = test_ytvis.truth()
    content['videos'][1]['id'] = number
    content['categories'][0]['id'] = number
    content['annotations'][0].update(id=number, video_id=number, category_id=number)
    content['annotations'][2].update(video_id=number)
    exact = abs(number) < 2**53
    as_floats = json.loads(json.dumps(content), parse_int=float if exact else int)
    known = read(tmp_path, content)
    for one in (known, read(tmp_path, as_floats)):
        first, third = one.tracks(number)
        assert (first.track_id, first.category_id, third.track_id) == (number, number, 3)
        assert one.videos[0].size == (4, 6)
    content['annotations'][1]['id'] = number
    assert test_ytvis.faults(lambda: read(tmp_path, content)) == (
        f'Annotation {number}: the id occurs twice.',
    )
    predictions = test_ytvis.predictions()
    predictions[0].update(video_id=number, category_id=float(number) if exact else number)
    path = test_ytvis.write(tmp_path / 'results.json', [predictions[0]])
    (track,) = load_ytvis_results(path, known.videos, known.categories)[number]
    assert (track.category_id, type(track.category_id)) == (number, int)


def test_images_and_segments_may_have_floats_as_ids(tmp_path):
    test_coco.write_panoptic(tmp_path)
    path = tmp_path / 'annotations' / 'panoptic_val2017.json'
    content = json.loads(path.read_text(), parse_int=float)
    path.write_text(json.dumps(content))
    truth = load_vipseg(path)
    assert truth.ids('139', 0).shape == (2, 3)
    assert [segment['category_id'] for segment in truth.segments('139', 0)] == [1, 187]
    assert open_dataset('coco_panoptic', tmp_path).videos[0].size == (2, 3)
    content = json.loads(json.dumps(test_vipseg.truth_json()), parse_int=float)
    truth = load_vipseg(test_vipseg.write_truth(tmp_path / 'v', content))
    assert truth.videos[0].size == (2, 3)
    assert truth.ids('12_abc', 1).max() == 70000


def test_images_may_have_names_as_ids(tmp_path):
    path = test_coco.write_panoptic(tmp_path)
    content = test_coco.panoptic()
    content['images'][0]['id'] = content['annotations'][0]['image_id'] = 'aachen_000001'
    path.write_text(json.dumps(content))
    (video,) = open_dataset('coco_panoptic', tmp_path).videos
    assert video.video_id == 'aachen_000001'
    content['annotations'][0]['image_id'] = 'aachen_000002'
    path.write_text(json.dumps(content))
    assert test_coco.faults(lambda: load_vipseg(path))[0] == (
        'annotations[0]: image_id aachen_000002 is not among the images.'
    )


def test_groups_and_doubles_that_no_annotation_uses_are_dropped(tmp_path):
    content = images(1, category_id=1)
    content['categories'] = [
        {'id': 0, 'name': 'animals', 'supercategory': 'none'},
        {'id': 1, 'name': 'cat', 'supercategory': 'animals'},
        {'id': 2, 'name': 'dog', 'supercategory': 'animals'},
        {'id': 3, 'name': 'Cat', 'supercategory': 'animals'},
        {'id': 4, 'name': 'owl', 'supercategory': 'owl'},
    ]
    truth = read(tmp_path, content)
    assert [category.category_id for category in truth.categories] == [1, 2, 4]
    assert truth.notes == (
        'valid.json: dropped categories that no annotation uses, and that have the name of '
        'another one or are its supercategory: animals (0), Cat (3).',
    )


def test_a_group_with_the_name_of_its_class_is_dropped_also_without_annotations(tmp_path):
    content = images(0)
    content['categories'] = [
        {'id': 0, 'name': 'cat', 'supercategory': 'none'},
        {'id': 1, 'name': 'cat', 'supercategory': 'cat'},
    ]
    for records in ([], None):
        truth = read(tmp_path, {**content, 'annotations': records})
        assert [category.category_id for category in truth.categories] == [1]


def test_used_categories_of_one_name_stay(tmp_path):
    content = images(2)
    content['categories'] = [{'id': 18, 'name': 'cat'}, {'id': 1, 'name': 'cat'}]
    content['annotations'][1]['category_id'] = 1
    truth = read(tmp_path, content)
    assert (len(truth.categories), truth.notes) == (2, ())


def test_paths_of_other_systems_are_found(tmp_path):
    content = test_ytvis.truth()
    test_ytvis.write_images(tmp_path / 'valid', content)
    for video, pattern in zip(content['videos'], ('.\\{}', './{}'), strict=True):
        names = [pattern.format(name) for name in video['file_names']]
        video['file_names'] = [name.replace('/', '\\') for name in names]
    content['videos'][1]['file_names'] = ['./' + name[2:] for name in names]
    test_ytvis.write(tmp_path / 'valid.json', content)
    dataset = open_dataset('ytvis2019', tmp_path)
    assert [video.name for video in dataset.videos] == ['a', 'b']
    assert all(frame.image.shape == (4, 6, 3) for v in dataset.videos for frame in v.frames())


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_a_byte_order_mark_does_no_harm(tmp_path, encoding):
    path = tmp_path / 'valid.json'
    path.write_text(json.dumps(test_ytvis.truth()), encoding=encoding)
    known = load_ytvis(path)
    results = tmp_path / 'results.json'
    results.write_text(json.dumps(test_ytvis.predictions()), encoding=encoding)
    assert len(load_ytvis_results(results, known.videos, known.categories)) == 2


def test_empty_runs_of_pycocotools_are_joined_in_truth_and_results(tmp_path):
    runs = {'size': [4, 6], 'counts': [3, 0, 2, 2, 0, 0, 0, 1, 16]}
    string = coco_mask.frPyObjects(runs, 4, 6)
    string['counts'] = string['counts'].decode()
    content = test_ytvis.truth()
    content['annotations'][0].update(segmentations=[runs, string, None], areas=[3, 3, None])
    truth = read(tmp_path, content)
    first, second, _ = truth.tracks(2)[0].masks
    assert first == second == coco_mask.encode(decode(first).astype(np.uint8, order='F'))
    assert truth.notes == ()
    predictions = [{**test_ytvis.predictions()[0], 'segmentations': [runs, string, None]}]
    path = test_ytvis.write(tmp_path / 'results.json', predictions)
    (track,) = load_ytvis_results(path, truth.videos, truth.categories)[2]
    assert list(track.masks) == [first, first, None]


def fiftyone(root, name):
    """Write one image as FiftyOne does: no iscrowd in old versions, ids from 1."""
    (root / name / 'data').mkdir(parents=True)
    return root / name / 'labels.json', root / name / 'data'


def roboflow(root, name):
    (root / name).mkdir(parents=True)
    return root / name / '_annotations.coco.json', root / name


def label_studio(root, name):
    (root / 'images').mkdir(parents=True)
    return root / f'{name}.json', root


def cvat(root, name):
    (root / 'images' / name).mkdir(parents=True)
    return root / 'annotations' / f'instances_{name}.json', root / 'images' / name


@pytest.mark.parametrize(
    ('tool', 'name', 'prefix'),
    [
        (fiftyone, 'val', ''),
        (fiftyone, 'train', ''),
        (roboflow, 'valid', ''),
        (roboflow, 'test', ''),
        (label_studio, 'val', 'images\\'),
        (cvat, 'default', ''),
    ],
)
def test_exports_open_where_the_tools_put_them(tmp_path, tool, name, prefix):
    path, folder = tool(tmp_path, name)
    content = test_coco.instances()
    test_coco.write_images(folder / prefix.rstrip('\\'), content)
    for image in content['images']:
        image.update(file_name=prefix + image['file_name'], license=1, date_captured='', extra={})
    content |= {'info': {'year': '2024'}, 'licenses': []}
    test_coco.write(path, content)
    dataset = open_dataset('coco', tmp_path, name)
    shapes = [frame.image.shape for video in dataset.videos for frame in video.frames()]
    assert shapes == [(2, 3, 3), (4, 6, 3)]
    if name in ('val', 'valid'):  # the split that is opened by default
        assert len(open_dataset('coco', tmp_path).videos) == 2
