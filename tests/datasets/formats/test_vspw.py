from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videomt_ros.datasets.dataset import Category, DatasetError
from videomt_ros.datasets.formats.vspw import load_vspw, load_vspw_results, vspw_dataset
from videomt_ros.datasets.mask_png import write_mask
from videomt_ros.datasets.synthetic.writing import write_dataset

# True values of the frames of two videos.
VIDEOS = {
    '127_a': [[[0, 1, 255], [124, 3, 3]], [[1, 1, 1], [2, 2, 130]]],
    '9_b': [[[5, 5], [0, 0]]],
}
OFFICIAL = {'others': '0', 'wall': '1', 'ceiling': '2', 'door': '3', 'train': '124'}


def write_truth(base: Path, split: str = 'val') -> Path:
    """A data set of two videos, without a file of classes."""
    for video_id, frames in VIDEOS.items():
        for t, mask in enumerate(frames):
            write_mask(base / 'data' / video_id / 'mask' / f'{t:08d}.png', np.array(mask))
            path = base / 'data' / video_id / 'origin' / f'{t:08d}.jpg'
            path.parent.mkdir(exist_ok=True)
            pixels = np.full((*np.shape(mask), 3), (200, 90, 40 + t), np.uint8)
            Image.fromarray(pixels).save(path, quality=100)
    (base / f'{split}.txt').write_text('\n'.join(reversed(VIDEOS)))
    return base


def write_results(folder: Path, values: int = 7) -> Path:
    """Results that give all pixels one class."""
    for video_id, frames in VIDEOS.items():
        for t, mask in enumerate(frames):
            name = f'{t:08d}.png'
            write_mask(folder / video_id / name, np.full(np.shape(mask), values, np.uint8))
    return folder


def faults_of(action, *args: object) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as error:
        action(*args)
    return error.value.faults


def test_true_masks_are_read_as_they_are_in_the_files(tmp_path):
    truth = load_vspw(write_truth(tmp_path))
    # In the order of the list, whose last line has no newline.
    assert [video.video_id for video in truth.videos] == ['9_b', '127_a']
    video = truth.videos[1]
    assert (video.name, video.size, video.stamps_ns) == ('127_a', (2, 3), None)
    assert video.frame_names == ('00000000.png', '00000001.png')
    for video_id, frames in VIDEOS.items():
        for t, mask in enumerate(frames):
            assert truth.mask(video_id, t).dtype == np.uint8
            assert truth.mask(video_id, t).tolist() == mask


def test_categories_are_one_below_the_values_of_the_masks(tmp_path):
    truth = load_vspw(write_truth(tmp_path))
    assert [c.category_id for c in truth.categories] == list(range(124))
    assert truth.categories[0] == Category(0, 'wall', False)
    assert truth.categories[123] == Category(123, 'train', True)


def test_the_file_of_classes_that_vspw_ships_has_numbers_as_texts(tmp_path):
    write_truth(tmp_path)
    (tmp_path / 'label_num_dic_final.json').write_text(json.dumps(OFFICIAL))
    assert load_vspw(tmp_path).categories == (
        Category(0, 'wall', False),
        Category(1, 'ceiling', False),
        Category(2, 'door', True),
        Category(123, 'train', True),
    )


def test_classes_of_the_user_go_first_and_have_names_of_their_own(tmp_path):
    write_truth(tmp_path)
    (tmp_path / 'label_num_dic_final.json').write_text(json.dumps(OFFICIAL))
    (tmp_path / 'classes.json').write_text(json.dumps({'robot': 5, 'door': 3}))
    categories = vspw_dataset('mine', tmp_path).categories
    assert categories == (Category(2, 'door', True), Category(4, 'robot', False))


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('{"wall": 1,', 'JSON'),
        ('[]', 'name: value'),
        ('{}', 'name: value'),
        ('{"a": 125}', "from 0 to 124 for 'a'"),
        ('{"a": "-1"}', "from 0 to 124 for 'a'"),
        ('{"a": true}', "from 0 to 124 for 'a'"),
        (f'{{"a": "{"9" * 5000}"}}', "from 0 to 124 for 'a'"),
        ('{"a": 1.5}', "from 0 to 124 for 'a'"),
        ('{"a": 4, "b": "4"}', "got 4 for 'a' and 'b'"),
    ],
)
def test_a_broken_file_of_classes_is_named(tmp_path, text, said):
    write_truth(tmp_path)
    (tmp_path / 'classes.json').write_text(text)
    faults = faults_of(load_vspw, tmp_path)
    assert len(faults) == 1
    assert said in faults[0]
    assert 'classes.json' in faults[0]


def test_a_class_that_the_data_set_has_not_is_named_when_its_mask_is_read(tmp_path):
    write_truth(tmp_path)
    (tmp_path / 'classes.json').write_text(json.dumps({'a': 1, 'b': 2, 'c': 124}))
    truth = load_vspw(tmp_path)
    assert truth.mask('127_a', 1).tolist() == VIDEOS['127_a'][1]
    with pytest.raises(DatasetError, match=r'127_a/mask/00000000\.png: .*got \[3\]'):
        truth.mask('127_a', 0)


def test_names_that_are_nanoseconds_are_stamps(tmp_path):
    write_truth(tmp_path)
    names = ['1700000000000000000', '1700000000040000000']
    for t, name in enumerate(names):
        for kind, suffix in (('mask', '.png'), ('origin', '.jpg')):
            path = tmp_path / 'data' / '127_a' / kind / f'{t:08d}{suffix}'
            path.rename(path.with_name(name + suffix))
    truth = load_vspw(tmp_path)
    assert truth.videos[1].stamps_ns == tuple(map(int, names))
    frames = vspw_dataset('mine', tmp_path).videos[1].frames()
    assert [frame.stamp_ns for frame in frames] == list(map(int, names))


def test_results_are_read_as_they_were_written(tmp_path):
    truth = load_vspw(write_truth(tmp_path / 'truth'))
    folder = write_results(tmp_path / 'results')
    write_mask(folder / '9_b' / '00000000.png', np.array([[0, 123], [255, 4]]))
    results = load_vspw_results(folder, truth.videos)
    assert results.missing == ()
    assert results.mask('9_b', 0).tolist() == [[0, 123], [255, 4]]
    assert results.mask('127_a', 1).tolist() == [[7, 7, 7], [7, 7, 7]]


@pytest.mark.parametrize(('value', 'count'), [(124, 1), (255, 1)])
def test_a_pixel_without_a_class_where_the_truth_has_one_is_named(tmp_path, value, count):
    truth = load_vspw(write_truth(tmp_path / 'truth'))
    folder = write_results(tmp_path / 'results')
    mask = np.full((2, 3), 7, np.uint8)
    mask[1, 0] = value  # the truth is 124 there, the last class
    write_mask(folder / '127_a' / '00000000.png', mask)
    results = load_vspw_results(folder, truth.videos)
    with pytest.raises(DatasetError, match=rf'127_a/00000000\.png: .*\[{value}\] in {count} of'):
        results.mask('127_a', 0, truth.mask('127_a', 0))
    assert results.mask('127_a', 0).tolist() == mask.tolist()


def test_a_pixel_may_hold_anything_where_the_truth_has_no_class(tmp_path):
    truth = load_vspw(write_truth(tmp_path / 'truth'))
    folder = write_results(tmp_path / 'results')
    mask = np.full((2, 3), 123, np.uint8)
    mask[0, 0], mask[0, 2] = 255, 200  # on 0 and on 255
    write_mask(folder / '127_a' / '00000000.png', mask)
    second = np.full((2, 3), 0, np.uint8)
    second[1, 2] = 124  # on 130
    write_mask(folder / '127_a' / '00000001.png', second)
    results = load_vspw_results(folder, truth.videos)
    assert results.mask('127_a', 0, truth.mask('127_a', 0)).tolist() == mask.tolist()
    assert results.mask('127_a', 1, truth.mask('127_a', 1)).tolist() == second.tolist()


def test_a_video_without_results_is_named_and_void(tmp_path):
    truth = load_vspw(write_truth(tmp_path / 'truth'))
    folder = write_results(tmp_path / 'results')
    shutil.rmtree(folder / '127_a')
    results = load_vspw_results(folder, truth.videos)
    assert results.missing == ('127_a',)
    assert results.mask('127_a', 0, truth.mask('127_a', 0)).tolist() == [[255] * 3] * 2


def test_one_error_lists_every_fault_of_results(tmp_path):
    truth = load_vspw(write_truth(tmp_path / 'truth'))
    folder = write_results(tmp_path / 'results')
    (folder / '127_a' / '00000001.png').rename(folder / '127_a' / '00000002.png')
    (folder / '9_b' / '00000000.png').unlink()
    write_mask(folder / 'other' / '00000000.png', np.zeros((2, 2), np.uint8))
    faults = faults_of(load_vspw_results, folder, truth.videos)
    for said in ('127_a/00000001.png, but', '9_b/00000000.png, but', 'got PNGs of other'):
        assert sum(said in fault for fault in faults) == 1, said
    assert len(faults) == 3
    assert len(faults_of(load_vspw_results, tmp_path / 'none', truth.videos)) == 1


def test_a_folder_above_that_of_the_results_is_not_scored_as_nothing(tmp_path):
    truth = load_vspw(write_truth(tmp_path / 'truth'))
    write_results(tmp_path / 'runs' / 'first')
    (fault,) = faults_of(load_vspw_results, tmp_path / 'runs', truth.videos)
    assert 'such as 9_b, got none, but first' in fault
    (tmp_path / 'empty').mkdir()
    assert load_vspw_results(tmp_path / 'empty', truth.videos).missing == ('9_b', '127_a')


def test_a_list_of_videos_may_come_from_another_system(tmp_path):
    write_truth(tmp_path)
    (tmp_path / 'val.txt').write_bytes(b'\xef\xbb\xbf9_b\r\n127_a\r\n')
    assert [video.video_id for video in load_vspw(tmp_path).videos] == ['9_b', '127_a']


def test_results_of_another_size_are_named(tmp_path):
    truth = load_vspw(write_truth(tmp_path / 'truth'))
    folder = write_results(tmp_path / 'results')
    write_mask(folder / '9_b' / '00000000.png', np.zeros((2, 3), np.uint8))
    with pytest.raises(DatasetError, match=r'9_b/00000000\.png: .*2 x 2 pixels .*got 3 x 2'):
        load_vspw_results(folder, truth.videos).mask('9_b', 0)


@pytest.mark.parametrize('subfolder', ['', 'VSPW_480p'])
@pytest.mark.parametrize('split', ['val', 'valid'])
def test_a_data_set_gives_its_images_in_either_layout(tmp_path, subfolder, split):
    base = write_truth(tmp_path / subfolder)
    dataset = vspw_dataset('mine', tmp_path, split)
    assert (dataset.name, dataset.family, dataset.split) == ('mine', 'vspw', 'val')
    assert (dataset.truth, dataset.truth_masks) == ((base,), None)
    assert len(load_vspw(dataset.truth[0], dataset.split).videos) == 2
    video = dataset.videos[1]
    assert (video.video_id, video.name, video.size) == ('127_a', '127_a', (2, 3))
    assert video.frame_names == ('00000000.png', '00000001.png')
    frames = list(video.frames())
    # Labelled frames come fifteen times a second.
    assert [(frame.index, frame.stamp_ns) for frame in frames] == [(0, 0), (1, 66_666_667)]
    for t, frame in enumerate(frames):
        assert np.abs(frame.image.astype(int) - (200, 90, 40 + t)).max() <= 3


def test_a_split_without_masks_has_no_truth(tmp_path):
    write_truth(tmp_path, 'test')
    for video_id in VIDEOS:
        shutil.rmtree(tmp_path / 'data' / video_id / 'mask')
    (tmp_path / 'data' / '9_b' / 'mask').mkdir()
    dataset = vspw_dataset('mine', tmp_path, 'test')
    assert (dataset.truth, dataset.split) == ((), 'test')
    assert [video.size for video in dataset.videos] == [(2, 2), (2, 3)]
    assert dataset.videos[1].frame_names == ('00000000.png', '00000001.png')
    assert len(faults_of(load_vspw, tmp_path, 'test')) == 2


def test_missing_images_and_masks_come_in_one_error(tmp_path):
    write_truth(tmp_path)
    (tmp_path / 'data' / '127_a' / 'origin' / '00000000.jpg').unlink()
    (tmp_path / 'data' / '127_a' / 'mask' / '00000001.png').unlink()
    shutil.rmtree(tmp_path / 'data' / '9_b' / 'mask')
    (tmp_path / 'classes.json').write_text('{}')
    faults = faults_of(vspw_dataset, 'mine', tmp_path)
    for said in (
        'Video 127_a: expected an image 00000000.jpg',
        'Video 127_a: expected a mask 00000001.png',
        f'Video 9_b: expected frames in {tmp_path}/data/9_b/mask, got none',
        'classes.json',
    ):
        assert sum(said in fault for fault in faults) == 1, said
    assert len(faults) == 4


def test_videos_without_any_file_are_named(tmp_path):
    write_truth(tmp_path)
    (tmp_path / 'val.txt').write_text('127_a\ngone\n\n127_a\nup/../..\n')
    shutil.rmtree(tmp_path / 'data' / '127_a' / 'origin')
    faults = faults_of(vspw_dataset, 'mine', tmp_path)
    for said in (
        'Line 4 of val.txt: expected each video once, got 127_a',
        "Line 5 of val.txt: expected a video name, got 'up/../..'",
        f'expected 2 images in {tmp_path}/data/127_a/origin, got none',
        f'expected frames in {tmp_path}/data/gone/mask, got none',
    ):
        assert sum(said in fault for fault in faults) == 1, said


def test_a_first_mask_that_is_no_image_is_named_at_opening(tmp_path):
    write_truth(tmp_path)
    (tmp_path / 'data' / '9_b' / 'mask' / '00000000.png').write_bytes(b'no image')
    faults = faults_of(load_vspw, tmp_path)
    assert len(faults) == 1
    assert '9_b/mask/00000000.png' in faults[0]


def test_what_is_not_there_is_said(tmp_path):
    write_truth(tmp_path)
    with pytest.raises(ValueError, match=r"split out of train, val, valid, test, got 'dev'"):
        vspw_dataset('mine', tmp_path, 'dev')
    assert 'train.txt' in faults_of(vspw_dataset, 'mine', tmp_path, 'train')[0]
    assert 'folder of the data set' in faults_of(load_vspw, tmp_path / 'none')[0]
    (tmp_path / 'val.txt').write_text('\n')
    assert 'at least one video' in faults_of(load_vspw, tmp_path)[0]


def test_synthetic_scenes_are_read_and_written_back_as_they_are(tmp_path):
    write_dataset('vspw', tmp_path / 'synth', num_videos=2, num_frames=3, seed=4)
    dataset = vspw_dataset('synth', tmp_path / 'synth')
    assert [c.name for c in dataset.categories][:2] == ['circle', 'square']
    truth = load_vspw(dataset.truth[0], dataset.split)
    for video in truth.videos:
        for t, name in enumerate(video.frame_names):
            # One below: 0, which is void, becomes 255.
            mask = truth.mask(video.video_id, t) - np.uint8(1)
            write_mask(tmp_path / 'results' / video.video_id / name, mask)
    results = load_vspw_results(tmp_path / 'results', truth.videos)
    for video in truth.videos:
        for t in range(3):
            true_mask = truth.mask(video.video_id, t)
            found = results.mask(video.video_id, t, true_mask)
            assert (found == true_mask - np.uint8(1)).all()
