"""Clips of annotated videos: the objects of every format, and what is wrong with its files."""

from __future__ import annotations

import json
import random
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tests.datasets.formats.exported import cocovid
from tests.training.labelled_data import FORMATS, SIZE, scene_objects, write_coco, write_labelled
from videomt_ros.datasets.dataset import Category, DatasetError
from videomt_ros.datasets.mask_png import write_ids
from videomt_ros.datasets.synthetic.scene import CLASS_NAMES, Scene
from videomt_ros.datasets.synthetic.writing import write_dataset
from videomt_ros.training.augment import ClipTransform
from videomt_ros.training.clips import Clip, list_frames
from videomt_ros.training.labelled_clips import (
    VideoClips,
    class_table,
    frame_times,
    near_times,
    open_source,
)
from videomt_ros.training.run_settings import Augmentation, DataSource

AS_IT_IS = ClipTransform((0, 0, *SIZE), SIZE, flip=False)
NETWORK = ('star', 'circle', 'square', 'triangle', 'ring', 'cross')
"""Class names of the network in another order than in the data."""


def objects(clip: Clip) -> list[tuple[int, bytes]]:
    pairs = zip(clip.class_ids.tolist(), clip.masks, strict=True)
    return sorted((class_id, mask.tobytes()) for class_id, mask in pairs)


def expected(scene: Scene, times: list[int], by_class: bool) -> list[tuple[int, bytes]]:
    return sorted(
        (NETWORK.index(CLASS_NAMES[class_id]), mask.tobytes())
        for class_id, mask in scene_objects(scene, times, by_class)
    )


@pytest.mark.parametrize('dataset', FORMATS)
def test_a_clip_holds_the_objects_of_its_frames_in_every_format(tmp_path, dataset):
    root = tmp_path / 'data'
    write_labelled(dataset, root, num_frames=4)
    source = open_source('data.0', DataSource(dataset, str(root), 'val'), NETWORK)
    assert len(source.videos) == 2
    is_image = dataset.startswith('coco')
    for seed, video in enumerate(source.videos):
        times = [0, 0, 0] if is_image else [3, 1, 2]
        clip = source.read(video, times, AS_IT_IS)
        scene = Scene(seed, *SIZE, 60 if is_image else 4)
        assert objects(clip) == expected(scene, times, by_class=dataset == 'vspw')
        assert clip.masks.dtype == bool
        frames = f', {list_frames(times)}'
        assert clip.origin.startswith(f'{source.name}, video {video.video_id}')
        assert clip.origin.endswith(frames)
        # JPEG changes colours; but no other frame is as near.
        drawn = np.stack([image for image, _ in scene.frames()]).astype(int)
        distances = np.abs(drawn - clip.frames[:, None]).mean(axis=(2, 3, 4))
        assert distances.argmin(axis=1).tolist() == times


def test_a_clip_of_cocovid_holds_the_objects_of_its_frames(tmp_path):
    """Records of single frames, connected by their `instance_id`."""
    root = tmp_path / 'data'
    write_dataset('ytvis', root, 2, 4, size=SIZE)
    labels = root / 'valid.json'
    labels.write_text(json.dumps(cocovid(json.loads(labels.read_text()))))
    source = open_source('data.0', DataSource('ytvis2019', str(root), 'valid'), NETWORK)
    for seed, video in enumerate(source.videos):
        clip = source.read(video, [3, 1, 2], AS_IT_IS)
        assert objects(clip) == expected(Scene(seed, *SIZE, 4), [3, 1, 2], by_class=False)


@pytest.mark.parametrize('dataset', FORMATS)
def test_a_variation_moves_every_object_with_its_image(tmp_path, dataset):
    root = tmp_path / 'data'
    write_labelled(dataset, root, num_videos=1, num_frames=2)
    source = open_source('data.0', DataSource(dataset, str(root), 'val'), NETWORK)
    times = [0, 0] if dataset.startswith('coco') else [0, 1]
    [video] = source.videos
    plain = source.read(video, times, AS_IT_IS)
    flipped = source.read(video, times, ClipTransform((0, 0, *SIZE), SIZE, flip=True))
    assert np.array_equal(flipped.frames, plain.frames[:, :, ::-1])
    assert objects(flipped) == objects(plain._replace(masks=plain.masks[..., ::-1]))
    # A crop leaves out the objects outside; one that is inside later is empty before.
    cropped = source.read(video, times, ClipTransform((10, 20, 34, 60), (24, 40), flip=False))
    assert np.array_equal(cropped.frames, plain.frames[:, 10:34, 20:60])
    inside = plain.masks[:, :, 10:34, 20:60]
    seen = inside.any(axis=(1, 2, 3))
    assert objects(cropped) == objects(Clip(plain.frames, plain.class_ids[seen], inside[seen], ''))


def test_a_crop_makes_objects_absent_or_leaves_them_out(tmp_path):
    write_one_video(tmp_path)
    source = open_source('data.0', DataSource('ovis', str(tmp_path), 'val'), ('dog',))
    [video] = source.videos
    whole = source.read(video, [0, 1], ClipTransform((0, 0, 2, 4), (2, 4), flip=False))
    where = f'data.0 (ovis in {tmp_path}, split val)'
    assert whole.origin == f'{where}, video 1 (v), frames 0 1'
    # The crowd is none of them, and masks overlap.
    assert whole.masks[:, :, 0].astype(int).tolist() == [
        [[1, 1, 0, 0], [0, 0, 1, 1]],
        [[0, 1, 0, 0], [0, 0, 0, 0]],
    ]
    right = source.read(video, [0, 1], ClipTransform((0, 2, 2, 4), (2, 2), flip=False))
    assert right.masks[:, :, 0].astype(int).tolist() == [[[0, 0], [1, 1]]]
    nothing = source.read(video, [0], ClipTransform((0, 3, 2, 4), (2, 1), flip=False))
    assert nothing.masks.shape == (0, 1, 2, 1)
    assert nothing.class_ids.shape == (0,)


def write_one_video(root, **changes) -> None:
    """Write frames of 2 x 4 with an object that moves right, one inside it, and a crowd."""
    (root / 'val' / 'v').mkdir(parents=True)
    for t in range(2):
        Image.new('RGB', (4, 2)).save(root / 'val' / 'v' / f'{t}.png')

    def columns(first: int, count: int) -> dict:
        """Code a mask of whole columns of two pixels each."""
        return {'size': [2, 4], 'counts': [2 * first, 2 * count, 8 - 2 * first - 2 * count]}

    tracks = [
        [columns(0, 2), columns(2, 2)],
        [columns(1, 1), None],
        [columns(0, 4), columns(0, 4)],
    ]
    annotations = [
        {
            'id': number,
            'video_id': 1,
            'category_id': 7,
            'iscrowd': int(number == 3),
            'areas': [mask and sum(mask['counts'][1::2]) for mask in masks],
            'segmentations': masks,
        }
        for number, masks in enumerate(tracks, start=1)
    ]
    content = {
        'videos': [
            {'id': 1, 'width': 4, 'height': 2, 'length': 2, 'file_names': ['v/0.png', 'v/1.png']}
        ],
        'categories': [{'id': 7, 'name': 'dog'}],
        'annotations': annotations,
    }
    (root / 'val.json').write_text(json.dumps(content | changes))


def test_crowds_void_and_unknown_categories_of_panoptic_data_are_no_objects(tmp_path):
    path = write_coco('coco_panoptic', tmp_path, 1)
    content = json.loads(path.read_text())
    ids = np.zeros(SIZE, np.int64)
    ids[:, :10], ids[:, 10:20], ids[:, 20:30], ids[:, 30:40] = 70000, 5, 300, 4
    write_ids(tmp_path / 'annotations' / 'panoptic_val2017' / '0.png', ids)
    content['annotations'][0]['segments_info'] = [
        {'id': number, 'category_id': category_id, 'iscrowd': is_crowd, 'area': 480}
        for number, category_id, is_crowd in [(5, 2, 0), (70000, 1, 0), (300, 1, 1), (4, 3, 0)]
    ]
    path.write_text(json.dumps(content))
    data = DataSource('coco_panoptic', str(tmp_path), 'val')
    source = open_source('data.0', data, ('circle', 'square'))  # categories 1 and 2
    clip = source.read(source.videos[0], [0], AS_IT_IS)
    masks = {int(k): mask[0] for k, mask in zip(clip.class_ids, clip.masks, strict=True)}
    assert clip.class_ids.shape == (2,)
    assert np.array_equal(masks[0], ids == 70000)
    assert np.array_equal(masks[1], ids == 5)


def test_images_become_pseudo_clips_that_turn(tmp_path):
    write_coco('coco', tmp_path, 1)
    source = open_source('data.0', DataSource('coco', str(tmp_path), 'val'), CLASS_NAMES)
    augmentation = Augmentation((48,), 64, crop_probability=0, flip_probability=0)
    clips = VideoClips(source, augmentation)
    clip = clips.draw(np.random.default_rng(0), 4, max_stride=3)
    assert clip.frames.shape == (4, 48, 64, 3)
    _, ids = Scene(0, *SIZE).frame(0)
    for masks in clip.masks:
        assert len({mask.tobytes() for mask in masks}) > 1
    middle = clip.frames[:, 20:28, 28:36].reshape(4, -1)
    assert len({frame.tobytes() for frame in middle}) == 4
    # A clip of one frame is the image as it is.
    single = clips.draw(np.random.default_rng(0), 1, max_stride=1)
    assert np.array_equal(single.masks.any(axis=0)[0], ids > 0)


def test_a_file_without_an_object_of_the_network_is_an_error(tmp_path):
    write_one_video(tmp_path, annotations=[])
    source = DataSource('ovis', str(tmp_path), 'val')
    with pytest.raises(ValueError, match=r'valid clip in data\.2 \(ovis in .*none of its 1 video'):
        open_source('data.2', source, ('dog',))


def test_a_file_without_annotations_is_an_error(tmp_path):
    write_one_video(tmp_path, annotations=None)
    with pytest.raises(ValueError, match=r'Expected annotations in data\.0'):
        open_source('data.0', DataSource('ovis', str(tmp_path), 'val'), ('dog',))


def test_other_classes_than_the_network_s_are_an_error(tmp_path):
    write_one_video(tmp_path)
    with pytest.raises(ValueError, match=r'^data\.0 .*classes in common'):
        open_source('data.0', DataSource('ovis', str(tmp_path), 'val'), ('cat',))


def test_a_fault_of_an_annotation_names_file_and_record(tmp_path):
    write_one_video(tmp_path, categories=[{'id': 8, 'name': 'dog'}])
    with pytest.raises(DatasetError, match=r'val\.json: 3 faults: \(1\) Annotation 1: .*7'):
        open_source('data.0', DataSource('ovis', str(tmp_path), 'val'), ('dog',))


def test_a_damaged_image_is_named_when_it_is_read(tmp_path):
    write_one_video(tmp_path)
    source = open_source('data.0', DataSource('ovis', str(tmp_path), 'val'), ('dog',))
    (tmp_path / 'val' / 'v' / '1.png').write_text('no image')
    with pytest.raises(DatasetError, match=re.escape(str(tmp_path / 'val' / 'v' / '1.png'))):
        source.read(source.videos[0], [0, 1], ClipTransform((0, 0, 2, 4), (2, 4), flip=False))


CATEGORIES = [Category(3, 'car'), Category(5, 'dog'), Category(8, 'truck'), Category(9, 'Sky')]


def test_categories_find_their_class_by_name():
    assert class_table('data.0', ['sky', 'cat', 'dog'], CATEGORIES, 'coco') == {9: 0, 5: 2}


def test_renamed_categories_may_share_a_class():
    renamed = [('car', 'vehicle'), ('truck', 'vehicle')]
    table = class_table('data.0', ['dog', 'vehicle'], CATEGORIES, 'coco', renamed)
    assert table == {3: 1, 8: 1, 5: 0}


def test_a_category_of_another_meaning_can_be_left_out(caplog):
    caplog.set_level('INFO')
    table = class_table('data.0', ['dog', 'truck'], CATEGORIES, 'coco', [('truck', None)])
    assert table == {5: 0}
    assert caplog.messages == [
        'data.0: Categories that are left out: car, truck, Sky.',
        'data.0: Classes of the network that the data set does not have: truck.',
    ]


@pytest.mark.parametrize(
    ('pair', 'fault'),
    [
        (('lorry', 'dog'), r'data\.0 .* no category of the data set lorry'),
        (('car', 'lorry'), r'data\.0 .* no class of the network lorry'),
    ],
)
def test_renamed_names_must_exist(pair, fault):
    with pytest.raises(ValueError, match=fault):
        class_table('data.0', ['dog'], CATEGORIES, 'coco', [pair])


def draw_times(num_frames: int, clip_frames: int, max_stride: int, draws: int = 2000) -> Counter:
    rng = np.random.default_rng(0)
    return Counter(
        tuple(frame_times(rng, num_frames, clip_frames, max_stride)) for _ in range(draws)
    )


def test_every_window_is_reached_the_last_one_too():
    assert set(draw_times(5, 3, 1)) == {(0, 1, 2), (1, 2, 3), (2, 3, 4)}
    assert set(draw_times(4, 4, 1)) == {(0, 1, 2, 3)}
    assert set(draw_times(3, 1, 2)) == {(0,), (1,), (2,)}


def test_windows_of_a_stride_are_equally_likely_and_so_are_strides():
    counts = draw_times(6, 3, 5, draws=6000)
    # (6 - 1) / (3 - 1) leaves strides 1 and 2: four windows of the one, two of the other.
    assert set(counts) == {(0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 2, 4), (1, 3, 5)}
    for times, count in counts.items():
        expected = 6000 / 2 / (4 if times[1] - times[0] == 1 else 2)
        assert abs(count - expected) < 5 * expected**0.5


def test_short_videos_are_played_to_their_end_and_back():
    assert set(draw_times(3, 6, 2)) == {(0, 1, 2, 1, 0, 1)}
    assert set(draw_times(2, 3, 1)) == {(0, 1, 0)}
    assert set(draw_times(1, 4, 3)) == {(0, 0, 0, 0)}


def test_frames_of_any_clip_exist():
    draw = random.Random(0)
    rng = np.random.default_rng(0)
    for _ in range(500):
        num_frames, clip_frames = draw.randint(1, 12), draw.randint(1, 12)
        max_stride = draw.randint(1, 6)
        times = frame_times(rng, num_frames, clip_frames, max_stride)
        assert len(times) == clip_frames
        assert all(type(t) is int and 0 <= t < num_frames for t in times)
        steps = {abs(b - a) for a, b in zip(times, times[1:], strict=False)}
        if num_frames >= clip_frames > 1:
            assert len(steps) == 1
            assert 1 <= steps.pop() <= max_stride


@pytest.mark.parametrize(('num_frames', 'frame_range'), [(40, 5), (7, 5), (2, 9), (1, 5)])
def test_frames_near_one_of_them_are_drawn_in_order(num_frames, frame_range):
    rng = np.random.default_rng(0)
    drawn = [near_times(rng, num_frames, 15, frame_range) for _ in range(300)]
    for times in drawn:
        assert len(times) == 15 and times == sorted(times)
        assert times[-1] - times[0] <= 2 * frame_range
        if num_frames > 1:  # the one frame is drawn once, the others repeat
            assert any(
                times.count(t) == 1 and max(t - times[0], times[-1] - t) <= frame_range
                for t in times
            )
    assert {t for times in drawn for t in times} == set(range(num_frames))
    assert near_times(rng, num_frames, 1, frame_range)[0] in range(num_frames)


def test_bad_records_are_left_out_and_counted_on_request(tmp_path, caplog):
    write_one_video(tmp_path)
    path = tmp_path / 'val.json'
    content = json.loads(path.read_text())
    bad = {**content['annotations'][0], 'id': 77, 'category_id': 99}
    path.write_text(json.dumps({**content, 'annotations': [*content['annotations'], bad]}))
    source = DataSource('ovis', str(tmp_path), 'val')
    with pytest.raises(DatasetError, match='category_id 99'):
        open_source('data.0', source, ('dog',))
    with caplog.at_level('INFO'):
        opened = open_source('data.0', source, ('dog',), skip_bad=True)
    assert len(opened.videos) == 1
    (line,) = [text for text in caplog.messages if 'left out (--skip-bad)' in text]
    assert '1 bad record was left out (--skip-bad): val.json: Annotation 77' in line


def test_a_video_with_a_damaged_mask_is_left_out_on_request(tmp_path, caplog):
    write_labelled('vspw', tmp_path, num_frames=2)
    mask = min((tmp_path / 'data').glob('*/mask/*.png'))
    mask.write_bytes(mask.read_bytes()[:-30])
    source = DataSource('vspw', str(tmp_path), 'val')
    with pytest.raises(DatasetError):
        open_source('data.0', source, NETWORK)
    with caplog.at_level('INFO'):
        opened = open_source('data.0', source, NETWORK, skip_bad=True)
    assert len(opened.videos) == 1
    assert '1 bad record was left out' in caplog.text
