from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videomt_ros.datasets.dataset import Category, DatasetError
from videomt_ros.datasets.formats.vipseg import (
    PredictedVideo,
    load_vipseg,
    load_vipseg_results,
    vipseg_dataset,
    write_pred_json,
)
from videomt_ros.datasets.mask_png import segments_info, write_ids
from videomt_ros.datasets.synthetic.writing import write_dataset

CATEGORIES = [
    {'id': 0, 'name': 'wall', 'isthing': 0},
    {'id': 60, 'name': 'person', 'isthing': 1},
]
CATEGORY_OF = {7: 0, 70000: 60, 300: 60}
VIDEOS = {
    # Ids of two frames; 70000 needs three bytes, 300 two.
    '12_abc': [[[7, 7, 0], [70000, 70000, 0]], [[7, 70000, 0], [7, 7, 300]]],
    '3_x': [[[300, 300], [0, 0]]],
}
JSON = 'panoptic_gt_VIPSeg_val.json'


def frame_names(video_id: str) -> list[str]:
    return [f'{12 * t + 3:08d}.png' for t in range(len(VIDEOS[video_id]))]


def truth_json() -> dict:
    videos, annotations = [], []
    for video_id, frames in VIDEOS.items():
        height, width = np.shape(frames[0])
        names = frame_names(video_id)
        images = [
            {'id': name[:-4], 'width': width, 'height': height, 'file_name': name}
            for name in names
        ]
        entries = [
            {
                'image_id': name[:-4],
                'file_name': name,
                'segments_info': segments_info(np.array(ids), CATEGORY_OF),
            }
            for name, ids in zip(names, frames, strict=True)
        ]
        videos.append({'video_id': video_id, 'images': images})
        annotations.append({'video_id': video_id, 'annotations': entries})
    categories = [dict(category) for category in CATEGORIES]
    return {'videos': videos, 'annotations': annotations, 'categories': categories}


def write_truth(base: Path, content: object = None, images: str = 'images') -> Path:
    """A data set of two videos; `content` instead of the true JSON."""
    base.mkdir(parents=True, exist_ok=True)
    (base / JSON).write_text(json.dumps(truth_json() if content is None else content))
    for video_id, frames in VIDEOS.items():
        folder = base / images / video_id
        folder.mkdir(parents=True, exist_ok=True)
        for t, (name, ids) in enumerate(zip(frame_names(video_id), frames, strict=True)):
            write_ids(base / 'panomasksRGB' / video_id / name, np.array(ids))
            pixels = np.full((*np.shape(ids), 3), (200, 90, 40 + t), np.uint8)
            Image.fromarray(pixels).save(folder / name.replace('.png', '.jpg'), quality=100)
    return base / JSON


def write_results(folder: Path, videos: dict | None = None) -> Path:
    """Results equal to the truth, the last video first."""
    entries = []
    for video_id, frames in reversed((videos or VIDEOS).items()):
        names = [f'{12 * t + 3:08d}.png' for t in range(len(frames))]
        for name, ids in zip(names, frames, strict=True):
            write_ids(folder / 'pan_pred' / video_id / name, np.array(ids))
        segments = [segments_info(np.array(ids), CATEGORY_OF) for ids in frames]
        entries.append(PredictedVideo(video_id, names, segments))
    write_pred_json(folder, entries)
    return folder


def faults_of(action, *args: object) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as error:
        action(*args)
    return error.value.faults


def broken(tmp_path: Path, change) -> tuple[str, ...]:
    """Faults of a truth whose JSON was changed."""
    content = truth_json()
    change(content)
    return faults_of(load_vipseg, write_truth(tmp_path, content))


def test_a_truth_is_read_as_it_was_written(tmp_path):
    truth = load_vipseg(write_truth(tmp_path))
    assert truth.categories == (Category(0, 'wall', False), Category(60, 'person', True))
    assert truth.has_annotations
    assert [video.video_id for video in truth.videos] == ['12_abc', '3_x']
    video = truth.videos[0]
    assert (video.name, video.size, video.stamps_ns) == ('12_abc', (2, 3), None)
    assert video.frame_names == ('00000003.png', '00000015.png')
    for video_id, frames in VIDEOS.items():
        for t, ids in enumerate(frames):
            assert truth.ids(video_id, t).tolist() == ids
    assert truth.segments('12_abc', 1) == [
        {'id': 7, 'category_id': 0, 'iscrowd': 0, 'area': 3, 'bbox': [0, 0, 2, 2]},
        {'id': 70000, 'category_id': 60, 'iscrowd': 0, 'area': 1, 'bbox': [1, 0, 1, 1]},
        {'id': 300, 'category_id': 60, 'iscrowd': 0, 'area': 1, 'bbox': [2, 1, 1, 1]},
    ]


def test_masks_may_lie_elsewhere(tmp_path):
    path = write_truth(tmp_path)
    (tmp_path / 'panomasksRGB').rename(tmp_path / 'elsewhere')
    assert load_vipseg(path, tmp_path / 'elsewhere').ids('3_x', 0).tolist() == [[300, 300], [0, 0]]
    assert any('no ' + str(tmp_path / 'panomasksRGB') in f for f in faults_of(load_vipseg, path))


def test_stamps_are_those_of_the_images_or_none(tmp_path):
    content = truth_json()
    for t, image in enumerate(content['videos'][0]['images']):
        image['stamp_ns'] = 1_700_000_000_000_000_000 + t
    truth = load_vipseg(write_truth(tmp_path, content))
    assert truth.videos[0].stamps_ns == (1_700_000_000_000_000_000, 1_700_000_000_000_000_001)
    assert truth.videos[1].stamps_ns is None
    frames = list(vipseg_dataset('mine', tmp_path).videos[0].frames())
    assert [frame.stamp_ns for frame in frames] == list(truth.videos[0].stamps_ns)


def test_a_json_without_annotations_lists_videos_and_has_no_truth(tmp_path):
    content = truth_json()
    del content['annotations']
    path = write_truth(tmp_path, content)
    shutil.rmtree(tmp_path / 'panomasksRGB')
    truth = load_vipseg(path)
    assert not truth.has_annotations
    assert len(truth.videos) == 2
    dataset = vipseg_dataset('mine', tmp_path)
    assert (dataset.truth, dataset.truth_masks) == ((), None)
    assert [video.name for video in dataset.videos] == ['12_abc', '3_x']


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('', 'JSON'),
        ('{"videos": [', 'JSON'),
        ('[]', 'object'),
        ('{"videos": {}, "annotations": []}', "list 'videos'"),
    ],
)
def test_a_file_that_is_no_truth_at_all_says_so(tmp_path, text, said):
    (tmp_path / JSON).write_text(text)
    assert said in faults_of(load_vipseg, tmp_path / JSON)[0]
    assert len(faults_of(load_vipseg, tmp_path / 'none.json')) == 1


def test_one_error_lists_every_fault(tmp_path):
    content = truth_json()
    first, second = content['annotations']
    first['annotations'][0]['segments_info'][0]['category_id'] = 99
    first['annotations'][1]['segments_info'].append(
        {'id': 7, 'category_id': 0, 'iscrowd': 2, 'area': 'large'}
    )
    second['annotations'] = []
    content['videos'].append({'video_id': '4_y', 'images': []})
    content['categories'] = [*CATEGORIES, CATEGORIES[0]]
    path = write_truth(tmp_path, content)
    (tmp_path / 'panomasksRGB' / '12_abc' / '00000015.png').unlink()
    faults = faults_of(load_vipseg, path)
    for said in (
        'category id once, got 0 again',
        'Video 4_y: expected a list of images',
        'Video 12_abc, frame 0: expected a category of the truth for id 7, got category_id 99',
        'Video 12_abc, frame 1: expected each id once, got id 7 again',
        "Video 12_abc, frame 1: expected an area of id 7, got 'large'",
        'Video 12_abc, frame 1: expected iscrowd 0 or 1 of id 7, got 2',
        f'expected {tmp_path}/panomasksRGB/12_abc/00000015.png, but there is no such file',
        'Video 3_x: expected annotations of 1 frames, as the truth has images, got 0',
    ):
        assert sum(said in fault for fault in faults) == 1, said
    assert len(faults) == 8


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda c: c['videos'].append(c['videos'][0]), 'Video 12_abc: expected it once'),
        (lambda c: c['annotations'].append(c['annotations'][0]), 'annotations once'),
        (lambda c: c['annotations'].pop(), 'Video 3_x: expected annotations, got none'),
        (lambda c: c['videos'].pop(), "listed videos, got video '3_x'"),
        (lambda c: c['videos'][0].update(video_id='../out'), "folder, got '../out'"),
        (lambda c: c['videos'][0].pop('video_id'), 'Expected a video_id'),
        (lambda c: c['videos'][0].update(video_id=12), 'folder, got 12'),
        (lambda c: c['videos'][0].update(fps=0), 'fps above 0'),
        (lambda c: c['videos'][0].update(fps=10**400), 'fps above 0'),
        (
            lambda c: [image.update(width=2**31) for image in c['videos'][0]['images']],
            'expected width, got 2147483648',
        ),
        (
            lambda c: [
                image.update(stamp_ns=2**63 + t)
                for t, image in enumerate(c['videos'][0]['images'])
            ],
            'a whole number of nanoseconds',
        ),
        (lambda c: c['videos'][0]['images'][0].update(width=4), 'images of one size'),
        (lambda c: c['videos'][0]['images'][0].update(height='2'), "height, got '2'"),
        (lambda c: c['videos'][0]['images'][0].update(file_name='../a.png'), 'file_name'),
        (lambda c: c['videos'][0]['images'][1].update(stamp_ns=5), 'in every image or in none'),
        (
            lambda c: [image.update(stamp_ns=5) for image in c['videos'][0]['images']],
            'stamp_ns to rise',
        ),
        (
            lambda c: c['videos'][0]['images'][1].update(file_name='00000003.png'),
            'file_name once, got 00000003.png 2 times',
        ),
        (lambda c: c['annotations'][0]['annotations'].reverse(), 'order of the images'),
        (
            lambda c: c['annotations'][0]['annotations'][1]['segments_info'][0].update(
                category_id=60
            ),
            'expected id 7 to keep its category 0, got 60',
        ),
        (
            lambda c: c['annotations'][1]['annotations'][0]['segments_info'][0].update(id=0),
            'segment id from 1 to 16777215, got 0',
        ),
        (
            lambda c: c['annotations'][1]['annotations'][0]['segments_info'][0].update(id=True),
            'segment id from 1 to 16777215, got True',
        ),
        (
            lambda c: c['annotations'][1]['annotations'][0]['segments_info'][0].update(
                area=float('nan')
            ),
            'area of id 300, got nan',
        ),
        (
            lambda c: c['annotations'][1]['annotations'][0]['segments_info'][0].update(
                area=10**400
            ),
            'area of id 300, got 1000',
        ),
        (lambda c: c['annotations'][1]['annotations'][0].pop('segments_info'), 'segments_info'),
        (lambda c: c['annotations'].append(None), 'got None'),
        (lambda c: c['videos'].append(7), 'Expected a video_id'),
        (lambda c: c['videos'][0]['images'].append(7), 'expected an object, got 7'),
        (lambda c: c['annotations'][1]['annotations'].append(None), 'expected a list segments'),
        (lambda c: c['categories'].append({'id': 3}), 'Expected categories as'),
        (lambda c: c.update(videos=[], annotations=[]), 'at least one video'),
        (lambda c: c.update(categories=[]), 'at least one category'),
        (lambda c: c.update(annotations=5), "a list 'annotations', got int"),
    ],
)
def test_a_fault_of_the_json_is_named(tmp_path, change, said):
    assert any(said in fault for fault in broken(tmp_path, change))


def test_pixels_that_the_json_does_not_explain_are_named(tmp_path):
    truth = load_vipseg(write_truth(tmp_path))
    write_ids(tmp_path / 'panomasksRGB' / '3_x' / '00000003.png', np.array([[300, 5], [6, 0]]))
    with pytest.raises(DatasetError, match=r'3_x/00000003\.png: .*\[5, 6\]'):
        truth.ids('3_x', 0)


def test_a_true_segment_without_pixels_is_an_object_that_was_missed(tmp_path):
    path = write_truth(tmp_path)
    write_ids(tmp_path / 'panomasksRGB' / '3_x' / '00000003.png', np.zeros((2, 2), int))
    assert load_vipseg(path).ids('3_x', 0).tolist() == [[0, 0], [0, 0]]


def test_results_pair_by_position_whatever_their_order_and_file_names(tmp_path):
    truth = load_vipseg(write_truth(tmp_path / 'truth'))
    folder = write_results(tmp_path / 'results')
    content = json.loads((folder / 'pred.json').read_text())
    assert [entry['video_id'] for entry in content['annotations']] == ['3_x', '12_abc']
    for entry in content['annotations']:
        for frame in entry['annotations']:
            frame['file_name'] = 'not read.jpg'
            for segment in frame['segments_info']:
                del segment['area'], segment['bbox'], segment['iscrowd']
    (folder / 'pred.json').write_text(json.dumps(content))
    results = load_vipseg_results(folder, truth.videos, truth.categories)
    assert results.missing == ()
    for video_id, frames in VIDEOS.items():
        for t, ids in enumerate(frames):
            assert results.ids(video_id, t).tolist() == ids
            assert [(s['id'], s['category_id']) for s in results.segments(video_id, t)] == [
                (s['id'], s['category_id']) for s in truth.segments(video_id, t)
            ]


def test_a_video_without_results_is_named_and_void(tmp_path):
    truth = load_vipseg(write_truth(tmp_path / 'truth'))
    folder = write_results(tmp_path / 'results', {'3_x': VIDEOS['3_x']})
    results = load_vipseg_results(folder, truth.videos, truth.categories)
    assert results.missing == ('12_abc',)
    assert results.ids('12_abc', 1).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert results.segments('12_abc', 1) == []


def test_results_of_nothing_are_all_missing(tmp_path):
    truth = load_vipseg(write_truth(tmp_path / 'truth'))
    write_pred_json(tmp_path / 'results', [])
    assert load_vipseg_results(tmp_path / 'results', truth.videos, truth.categories).missing == (
        '12_abc',
        '3_x',
    )


def test_one_error_lists_every_fault_of_results(tmp_path):
    truth = load_vipseg(write_truth(tmp_path / 'truth'))
    frames = VIDEOS['12_abc']
    folder = write_results(
        tmp_path / 'results', {'12_abc': [*frames, frames[0]], 'other': frames, '3_x': [[[7, 7]]]}
    )
    content = json.loads((folder / 'pred.json').read_text())
    content['annotations'][0]['annotations'][0]['segments_info'][0]['category_id'] = 61
    (folder / 'pred.json').write_text(json.dumps(content))
    (folder / 'pan_pred' / '12_abc' / '00000015.png').unlink()
    faults = faults_of(load_vipseg_results, folder, truth.videos, truth.categories)
    for said in (
        'Video 12_abc: expected annotations of 2 frames, as the truth has images, got 3',
        'pan_pred/12_abc/00000015.png, but there is no such file',
        "videos of the truth, got video 'other'",
        'Video 3_x, frame 0: expected a category of the truth for id 7, got category_id 61',
    ):
        assert sum(said in fault for fault in faults) == 1, said
    assert len(faults) == 4


@pytest.mark.parametrize(
    ('ids', 'said'),
    [
        ([[300, 5], [0, 0]], r'lists for this frame, got also \[5\]'),
        ([[0, 0], [0, 0]], r'lists for this frame, got none of \[300\]'),
        ([[300, 300, 0], [0, 0, 0]], 'Expected 2 x 2 pixels'),
    ],
)
def test_a_predicted_png_that_does_not_fit_its_json_is_named(tmp_path, ids, said):
    truth = load_vipseg(write_truth(tmp_path / 'truth'))
    folder = write_results(tmp_path / 'results')
    write_ids(folder / 'pan_pred' / '3_x' / '00000003.png', np.array(ids))
    results = load_vipseg_results(folder, truth.videos, truth.categories)
    with pytest.raises(DatasetError, match=rf'pan_pred/3_x/00000003\.png: .*{said}'):
        results.ids('3_x', 0)


def test_a_predicted_id_may_change_its_category(tmp_path):
    truth = load_vipseg(write_truth(tmp_path / 'truth'))
    folder = write_results(tmp_path / 'results')
    content = json.loads((folder / 'pred.json').read_text())
    content['annotations'][1]['annotations'][1]['segments_info'][0]['category_id'] = 60
    (folder / 'pred.json').write_text(json.dumps(content))
    assert (
        load_vipseg_results(folder, truth.videos, truth.categories).segments('12_abc', 1)[0][
            'category_id'
        ]
        == 60
    )


def test_pred_json_appears_whole_or_not_at_all(tmp_path):
    def videos():
        yield PredictedVideo('a', ['0.png'], [[]])
        raise RuntimeError('the model failed')

    write_pred_json(tmp_path, [PredictedVideo('old', ['0.png'], [[]])])
    with pytest.raises(RuntimeError, match='the model failed'):
        write_pred_json(tmp_path, videos())
    content = json.loads((tmp_path / 'pred.json').read_text())
    assert [entry['video_id'] for entry in content['annotations']] == ['old']
    assert os.listdir(tmp_path) == ['pred.json']


def test_lists_of_unequal_length_are_not_written(tmp_path):
    with pytest.raises(ValueError, match='shorter'):
        write_pred_json(tmp_path, [PredictedVideo('a', ['0.png', '1.png'], [[]])])


@pytest.mark.parametrize('subfolder', ['', 'VIPSeg_720P'])
@pytest.mark.parametrize('images', ['images', 'imgs'])
@pytest.mark.parametrize('split', ['val', 'valid'])
def test_a_data_set_gives_its_images_in_either_layout(tmp_path, subfolder, images, split):
    path = write_truth(tmp_path / subfolder, images=images)
    dataset = vipseg_dataset('mine', tmp_path, split)
    assert (dataset.name, dataset.family, dataset.split) == ('mine', 'vipseg', 'val')
    assert dataset.truth == (path,)
    assert dataset.truth_masks == path.parent / 'panomasksRGB'
    assert [(c.category_id, c.is_thing) for c in dataset.categories] == [(0, False), (60, True)]
    video = dataset.videos[0]
    assert (video.video_id, video.name, video.size) == ('12_abc', '12_abc', (2, 3))
    assert video.frame_names == ('00000003.png', '00000015.png')
    frames = list(video.frames())
    # Labelled frames come five times a second.
    assert [(frame.index, frame.stamp_ns) for frame in frames] == [(0, 0), (1, 200_000_000)]
    for t, frame in enumerate(frames):
        assert frame.image.shape == (2, 3, 3)
        assert np.abs(frame.image.astype(int) - (200, 90, 40 + t)).max() <= 3


def test_a_rate_in_the_json_is_kept(tmp_path):
    content = truth_json()
    content['videos'][0]['fps'] = 10.0
    write_truth(tmp_path, content)
    stamps = [frame.stamp_ns for frame in vipseg_dataset('mine', tmp_path).videos[0].frames()]
    assert stamps == [0, 100_000_000]


def test_images_are_read_only_when_their_frame_is_asked_for(tmp_path):
    write_truth(tmp_path)
    frames = vipseg_dataset('mine', tmp_path).videos[0].frames()
    assert next(frames).index == 0
    (tmp_path / 'images' / '12_abc' / '00000015.jpg').write_bytes(b'\xff\xd8 broken')
    with pytest.raises(DatasetError, match=r'00000015\.jpg'):
        next(frames)


def test_an_image_of_another_size_or_cut_off_is_named(tmp_path):
    write_truth(tmp_path)
    path = tmp_path / 'images' / '3_x' / '00000003.jpg'
    dataset = vipseg_dataset('mine', tmp_path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DatasetError, match=r'00000003\.jpg'):
        next(dataset.videos[1].frames())
    Image.new('RGB', (3, 2)).save(path)
    with pytest.raises(DatasetError, match='2 x 2 pixels.* got 3 x 2'):
        next(dataset.videos[1].frames())


def test_missing_images_and_faults_of_the_json_come_in_one_error(tmp_path):
    content = truth_json()
    content['annotations'][0]['annotations'][0]['segments_info'][0]['category_id'] = 99
    write_truth(tmp_path, content)
    (tmp_path / 'images' / '12_abc' / '00000015.jpg').unlink()
    shutil.rmtree(tmp_path / 'images' / '3_x')
    shutil.rmtree(tmp_path / 'panomasksRGB' / '3_x')
    faults = faults_of(vipseg_dataset, 'mine', tmp_path)
    for said in (
        'category_id 99',
        f'Video 12_abc: expected an image 00000015.jpg in {tmp_path}/images/12_abc',
        f'Video 3_x: expected 1 images in {tmp_path}/images/3_x, got none',
        f'Video 3_x: expected 1 PNGs in {tmp_path}/panomasksRGB/3_x, got none',
    ):
        assert sum(said in fault for fault in faults) == 1, said
    assert len(faults) == 4


def test_hidden_files_are_no_frames_and_do_no_harm(tmp_path):
    write_truth(tmp_path)
    (tmp_path / 'images' / '3_x' / '._00000003.jpg').write_bytes(b'of macOS')
    assert len(list(vipseg_dataset('mine', tmp_path).videos[1].frames())) == 1


def test_a_split_without_a_json_has_its_list_and_no_truth(tmp_path):
    write_truth(tmp_path / 'VIPSeg_720P')
    (tmp_path / 'test.txt').write_text('3_x\n\n12_abc')
    dataset = vipseg_dataset('mine', tmp_path, 'test')
    assert (dataset.truth, dataset.truth_masks, dataset.split) == ((), None, 'test')
    assert [video.name for video in dataset.videos] == ['3_x', '12_abc']
    assert [video.size for video in dataset.videos] == [(2, 2), (2, 3)]
    assert dataset.videos[1].frame_names == ('00000003.png', '00000015.png')
    assert len(dataset.categories) == 124
    assert [c.category_id for c in dataset.categories] == list(range(124))
    assert (dataset.categories[2].name, dataset.categories[2].is_thing) == ('door', True)


def test_a_list_with_faults_names_them_all(tmp_path):
    write_truth(tmp_path)
    (tmp_path / 'test.txt').write_text('3_x\n../up\n3_x\ngone\n')
    faults = faults_of(vipseg_dataset, 'mine', tmp_path, 'test')
    assert len(faults) == 3
    for said in ("Line 2 of test.txt: expected a video name, got '../up'", 'Line 3', 'Video gone'):
        assert sum(said in fault for fault in faults) == 1, said


def test_what_is_not_there_is_said(tmp_path):
    write_truth(tmp_path)
    with pytest.raises(ValueError, match=r"split out of train, val, valid, test, got 'dev'"):
        vipseg_dataset('mine', tmp_path, 'dev')
    assert 'panoptic_gt_VIPSeg_train.json' in str(
        pytest.raises(DatasetError, vipseg_dataset, 'mine', tmp_path, 'train').value
    )
    assert len(faults_of(vipseg_dataset, 'mine', tmp_path / 'none')) == 1


def test_synthetic_scenes_are_read_and_written_back_as_they_are(tmp_path):
    write_dataset('vipseg', tmp_path / 'synth', num_videos=2, num_frames=3, seed=4)
    dataset = vipseg_dataset('synth', tmp_path / 'synth')
    truth = load_vipseg(dataset.truth[0], dataset.truth_masks)
    entries = []
    for video in truth.videos:
        segments = []
        for t, name in enumerate(video.frame_names):
            ids = truth.ids(video.video_id, t)
            write_ids(tmp_path / 'results' / 'pan_pred' / video.video_id / name, ids)
            category_of = {s['id']: s['category_id'] for s in truth.segments(video.video_id, t)}
            segments.append(segments_info(ids, category_of))
            assert segments[-1] == truth.segments(video.video_id, t)
        entries.append(PredictedVideo(video.video_id, video.frame_names, segments))
    write_pred_json(tmp_path / 'results', entries)
    results = load_vipseg_results(tmp_path / 'results', truth.videos, truth.categories)
    for video in truth.videos:
        for t in range(3):
            assert (results.ids(video.video_id, t) == truth.ids(video.video_id, t)).all()


def test_a_split_without_truth_keeps_a_video_without_images_and_says_why(tmp_path):
    (tmp_path / 'test.txt').write_text('a\nb\nc\n')
    for name in 'ac':
        (tmp_path / 'images' / name).mkdir(parents=True)
    Image.new('RGB', (3, 2)).save(tmp_path / 'images/a/0001.png')
    (tmp_path / 'images/c/0001.png').write_bytes(b'no image')

    dataset = vipseg_dataset('mine', tmp_path, 'test', keep_faulty=True)

    assert [(v.video_id, v.frame_names) for v in dataset.videos] == [
        ('a', ('0001.png',)),
        ('b', ()),
        ('c', ()),
    ]
    assert f'expected images in {tmp_path}/images/b, got none' in dataset.faulty['b']
    assert 'images/c/0001.png' in dataset.faulty['c']
    with pytest.raises(DatasetError):
        vipseg_dataset('mine', tmp_path, 'test')
    left = vipseg_dataset('mine', tmp_path, 'test', skip_bad=True)
    assert [video.video_id for video in left.videos] == ['a'] and len(left.left_out) == 2
