"""Bad records that are left out on request, in the truth and the results of every format."""

from __future__ import annotations

import json

import pytest

from tests.datasets.formats import test_coco, test_vipseg, test_vspw, test_ytvis
from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.datasets.formats.coco import load_coco_panoptic
from videomt_ros.datasets.formats.vipseg import load_vipseg, load_vipseg_results
from videomt_ros.datasets.formats.vspw import load_vspw, load_vspw_results
from videomt_ros.datasets.formats.ytvis import load_ytvis, load_ytvis_results


def test_bad_records_of_instances_are_left_out_with_what_refers_to_them(tmp_path):
    content = test_ytvis.truth()
    content['videos'][1].pop('height')  # with annotations 1 and 3
    content['annotations'][1]['segmentations'][0] = 'no mask'
    content['categories'].append('cat')
    path = test_ytvis.write(tmp_path / 'valid.json', content)
    with pytest.raises(DatasetError):
        load_ytvis(path)
    truth = load_ytvis(path, skip_bad=True)
    assert [video.video_id for video in truth.videos] == [7]
    assert truth.tracks(7) == ()
    assert len(truth.categories) == 2
    assert truth.left_out == (
        'valid.json: categories[2]: expected an object, got a text.',
        'valid.json: Video 2: height is missing.',
        'valid.json: Annotation 1: video_id 2 is that of a record that was left out.',
        "valid.json: Annotation 4, frame 0: expected null, RLE or polygons, got 'no mask'.",
        'valid.json: Annotation 3: video_id 2 is that of a record that was left out.',
    )


def test_a_file_without_a_fault_is_read_as_without_the_option(tmp_path):
    path = test_ytvis.write(tmp_path / 'valid.json', test_ytvis.truth())
    truth = load_ytvis(path, skip_bad=True)
    assert truth.left_out == ()
    assert [len(truth.tracks(video.video_id)) for video in truth.videos] == [2, 1]


@pytest.mark.parametrize('data', ['{', '[]', '{"videos": 1, "categories": [], "annotations": []}'])
def test_a_file_of_another_kind_stays_an_error(tmp_path, data):
    path = tmp_path / 'valid.json'
    path.write_text(data)
    with pytest.raises(DatasetError):
        load_ytvis(path, skip_bad=True)
    with pytest.raises(DatasetError):
        load_vipseg(path, skip_bad=True)


def test_bad_predictions_of_instances_are_left_out(tmp_path):
    known = load_ytvis(test_ytvis.write(tmp_path / 'valid.json', test_ytvis.truth()))
    content = test_ytvis.predictions()
    content[0].pop('score')
    path = test_ytvis.write(tmp_path / 'results.json', [*content, 5])
    results = load_ytvis_results(path, known.videos, known.categories, skip_bad=True)
    assert {video: len(tracks) for video, tracks in results.items()} == {2: 1, 7: 1}
    assert results.left_out == (
        'results.json: Prediction [0]: score is missing.',
        'results.json: Prediction [3]: expected an object, got a number.',
    )


def test_images_with_faults_are_left_out(tmp_path):
    content = test_coco.panoptic()
    for number in (3, 4, 5):
        content['images'].append({**content['images'][0], 'id': number})
    content['annotations'].append({**content['annotations'][0], 'image_id': 3, 'file_name': 'x'})
    content['annotations'].append({**content['annotations'][0], 'image_id': 4})
    content['annotations'][-1]['segments_info'] = [{'id': 1}]
    path = test_coco.write_panoptic(tmp_path)
    test_coco.write(path, content)
    truth = load_coco_panoptic(path, skip_bad=True)
    assert [video.video_id for video in truth.videos] == ['139']
    assert len(truth.left_out) == 3
    dataset = open_dataset('coco_panoptic', tmp_path, skip_bad=True)
    assert [video.video_id for video in dataset.videos] == ['139']
    assert dataset.left_out == truth.left_out


@pytest.mark.parametrize('name', ['ytvis2019', 'coco', 'coco_panoptic'])
def test_videos_whose_images_are_missing_are_left_out(tmp_path, name):
    if name == 'ytvis2019':
        content = test_ytvis.truth()
        test_ytvis.write(tmp_path / 'valid.json', content)
        test_ytvis.write_images(tmp_path / 'valid', content)
        lost = tmp_path / 'valid' / 'a' / '00005.jpg'
    elif name == 'coco':
        content = test_coco.instances()
        test_coco.write(tmp_path / 'annotations' / 'instances_val2017.json', content)
        test_coco.write_images(tmp_path / 'val2017', content)
        lost = tmp_path / 'val2017' / '000000000009.jpg'
    else:
        path = test_coco.write_panoptic(tmp_path)
        content = test_coco.panoptic()
        content['images'].append({**content['images'][0], 'id': 1, 'file_name': '1.jpg'})
        content['annotations'].append({**content['annotations'][0], 'image_id': 1})
        test_coco.write(path, content)
        lost = tmp_path / 'val2017' / '1.jpg'
    lost.unlink(missing_ok=True)
    with pytest.raises(DatasetError):
        open_dataset(name, tmp_path)
    dataset = open_dataset(name, tmp_path, skip_bad=True)
    assert dataset.skip_bad
    assert len(dataset.videos) == 1
    (fault,) = dataset.left_out
    assert fault.endswith(f'There is no {lost}.')


def test_videos_of_vipseg_with_faults_are_left_out(tmp_path):
    content = test_vipseg.truth_json()
    content['annotations'][0]['annotations'][1]['segments_info'][0]['category_id'] = 5
    path = test_vipseg.write_truth(tmp_path, content)
    truth = load_vipseg(path, skip_bad=True)
    assert [video.video_id for video in truth.videos] == ['3_x']
    (fault,) = truth.left_out
    assert fault.startswith(f'{path.name}: Video 12_abc, frame 1: expected a category')
    dataset = open_dataset('vipseg', tmp_path, skip_bad=True)
    assert ([video.video_id for video in dataset.videos], dataset.left_out) == (['3_x'], (fault,))


def test_results_of_vipseg_with_faults_are_left_out(tmp_path):
    truth = load_vipseg(test_vipseg.write_truth(tmp_path / 'truth'))
    folder = test_vipseg.write_results(tmp_path / 'results')
    (folder / 'pan_pred' / '3_x' / '00000003.png').unlink()
    results = load_vipseg_results(folder, truth.videos, truth.categories, skip_bad=True)
    assert results.missing == ('3_x',)
    (fault,) = results.left_out
    assert 'Video 3_x' in fault


def test_videos_of_vspw_with_faults_are_left_out(tmp_path):
    base = test_vspw.write_truth(tmp_path)
    (base / 'data' / '9_b' / 'mask' / '00000000.png').unlink()
    (base / 'val.txt').write_text('9_b\n127_a\n../x\n')
    dataset = open_dataset('vspw', base, skip_bad=True)
    assert [video.video_id for video in dataset.videos] == ['127_a']
    assert len(dataset.left_out) == 2
    assert [video.video_id for video in load_vspw(base, skip_bad=True).videos] == ['127_a']


def test_results_of_vspw_with_faults_are_left_out(tmp_path):
    truth = load_vspw(test_vspw.write_truth(tmp_path / 'truth'))
    folder = test_vspw.write_results(tmp_path / 'results')
    (folder / '127_a' / '00000001.png').unlink()
    results = load_vspw_results(folder, truth.videos, skip_bad=True)
    assert results.missing == ('127_a',)
    assert len(results.left_out) == 1


def test_what_was_left_out_is_counted_in_one_line(tmp_path):
    content = test_ytvis.truth()
    for annotation in content['annotations']:
        annotation['iscrowd'] = 7
    test_ytvis.write(tmp_path / 'valid.json', content)
    test_ytvis.write_images(tmp_path / 'valid', content)
    (remark,) = open_dataset('ytvis2019', tmp_path, skip_bad=True).remarks()
    assert remark.startswith('3 bad records were left out (--skip-bad): valid.json: Annotation 1:')
    assert json.loads((tmp_path / 'valid.json').read_text()) == content
