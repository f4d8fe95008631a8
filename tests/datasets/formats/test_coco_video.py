from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.datasets.formats.exported import cocovid, cvat_coco, write_pngs
from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.datasets.formats.instance_files import YtvisTruth
from videomt_ros.datasets.formats.ytvis import load_ytvis, write_ytvis_results
from videomt_ros.datasets.rle import MaskTrack, decode
from videomt_ros.datasets.synthetic.writing import write_dataset
from videomt_ros.evaluation.scoring import score_files

SIZE = (8, 10)
LEFT = [[0, 0, 3, 0, 3, 4, 0, 4]]
RIGHT = [[6, 2, 9, 2, 9, 5, 6, 5]]


@pytest.fixture(scope='module')
def drawn(tmp_path_factory) -> Path:
    """Three videos whose objects hide and return."""
    out = tmp_path_factory.mktemp('drawn') / 'data'
    write_dataset('ytvis', out, 3, 9, seed=3, size=(64, 96), hidden_frames=(2, 3))
    return out


def small() -> dict[str, Any]:
    """Two videos of CocoVID in disorder; object 7 of video 4 has two shapes in frame 1."""
    image = {'height': SIZE[0], 'width': SIZE[1]}
    shape = {'category_id': 3, 'iscrowd': 0}
    return {
        'categories': [{'id': 3, 'name': 'dog'}, {'id': 1, 'name': 'person'}],
        'videos': [{'id': 9, 'name': 'b', 'fps': 5}, {'id': 4, 'name': 'a b'}],
        'images': [
            {'id': 0, 'file_name': '3.jpg', 'video_id': 4, 'frame_id': 2, **image},
            {'id': 5, 'file_name': '1.jpg', 'video_id': 4, 'frame_id': 0, **image},
            {'id': 2**40, 'file_name': '2.jpg', 'video_id': 4, 'frame_id': 1, **image},
            {'id': 6, 'file_name': '4.jpg', 'video_id': 9, 'frame_id': 0, **image},
        ],
        'annotations': [
            {'id': 1, 'image_id': 0, 'instance_id': 7, 'segmentation': LEFT, 'area': 9, **shape},
            {'id': 2, 'image_id': 5, 'instance_id': 0, 'segmentation': RIGHT, **shape},
            {'id': 3, 'image_id': 2**40, 'instance_id': 7, 'segmentation': LEFT, **shape},
            {'id': 4, 'image_id': 2**40, 'instance_id': 7, 'segmentation': RIGHT, **shape},
            {'id': 0, 'image_id': 6, 'instance_id': 2**33, 'segmentation': LEFT, **shape},
        ],
    }


def load(path: Path, content: Any, **options: Any) -> YtvisTruth:
    path.write_text(json.dumps(content))
    return load_ytvis(path, **options)


def assert_same(first: YtvisTruth, second: YtvisTruth, with_numbers: bool = True) -> None:
    """Videos, identities, masks and areas are equal."""
    for one, other in zip(first.videos, second.videos, strict=True):
        assert (one.size, len(one.frame_names)) == (other.size, len(other.frame_names))
        pairs = zip(first.tracks(one.video_id), second.tracks(other.video_id), strict=True)
        for a, b in pairs:
            assert (a.category_id, a.is_crowd) == (b.category_id, b.is_crowd)
            assert not with_numbers or a.track_id == b.track_id
            assert list(a.areas) == list(b.areas)
            for mask, same in zip(a.masks, b.masks, strict=True):
                assert (mask is None) == (same is None)
                assert mask is None or np.array_equal(decode(mask), decode(same))


def results_of(truth: YtvisTruth, path: Path) -> Path:
    """Predictions that lose objects for a while, cut their masks and swap two of them."""
    tracks = []
    for video in truth.videos:
        own = truth.tracks(video.video_id)
        for number, track in enumerate(own):
            other = own[(number + 1) % len(own)]
            masks = [
                None
                if (t + number) % 4 == 0
                else (other if t > 6 and number < 2 else track).masks[t]
                for t in range(len(video.frame_names))
            ]
            score = 0.9 - 0.07 * number
            tracks.append(MaskTrack(video.video_id, track.category_id, masks, score))
    write_ytvis_results(path, tracks)
    return path


def test_cocovid_scores_as_the_same_file_of_youtube_vis(tmp_path, drawn):
    truth = load_ytvis(drawn / 'valid.json')
    content = json.loads((drawn / 'valid.json').read_text())
    same = load(tmp_path / 'cocovid.json', cocovid(content))
    assert_same(truth, same)
    assert [video.frame_names for video in same.videos] == [v.frame_names for v in truth.videos]
    assert [video.name for video in same.videos] == [video.name for video in truth.videos]
    assert any(None in track.masks for v in truth.videos for track in truth.tracks(v.video_id))
    results = results_of(truth, tmp_path / 'results.json')
    scores = [
        score_files('ytvis', [path], results).figures
        for path in (drawn / 'valid.json', tmp_path / 'cocovid.json')
    ]
    assert scores[0] == scores[1]
    assert 0 < scores[0]['AP'] < 1 and 0 < scores[0]['HOTA'] < 1
    assert 'read as CocoVID: 3 videos, 27 frames' in same.notes[0]


@pytest.mark.parametrize('name', ['coco', 'ytvis2019'])
def test_an_export_of_cvat_opens_and_scores_as_the_video_that_was_labelled(tmp_path, drawn, name):
    content = json.loads((drawn / 'valid.json').read_text())
    video = content['videos'][0]
    export = cvat_coco(content, video)
    root = tmp_path / 'export'
    (root / 'annotations').mkdir(parents=True)
    (root / 'annotations/instances_default.json').write_text(json.dumps(export))
    write_pngs(
        [drawn / 'valid/JPEGImages' / each for each in video['file_names']],
        root / 'images/default',
    )
    dataset = open_dataset(name, root)
    shutil.copy(root / 'annotations/instances_default.json', root / 'mine.json')
    assert len(open_dataset(name, root, 'mine').videos) == 1
    (opened,) = dataset.videos
    frames = [frame.image for frame in opened.frames()]
    assert len(frames) == 9 and frames[0].shape == (64, 96, 3)
    assert any('iscrowd 1' in note for note in dataset.notes)

    content['videos'] = [video]
    content['annotations'] = [a for a in content['annotations'] if a['video_id'] == video['id']]
    truth = load(tmp_path / 'one.json', content)
    same = load_ytvis(dataset.truth[0])
    assert_same(truth, same, with_numbers=False)
    results = results_of(truth, tmp_path / 'results.json')
    figures = [
        score_files('ytvis', [path], results).figures
        for path in (tmp_path / 'one.json', dataset.truth[0])
    ]
    assert figures[0] == figures[1]


def test_frames_come_in_order_and_shapes_of_one_frame_are_one_mask(tmp_path):
    truth = load(tmp_path / 'a.json', small())
    first, second = truth.videos
    assert (first.video_id, first.name) == (4, 'a_b')
    assert first.frame_names == ('1.jpg', '2.jpg', '3.jpg')
    assert (second.name, second.fps) == ('b', 5)
    other, own = truth.tracks(4)
    assert (other.track_id, own.track_id) == (0, 7)
    assert list(own.areas) == [None, 12 + 9, 9]
    assert own.masks[0] is None
    assert decode(own.masks[1]).sum() == 21 and decode(own.masks[2]).sum() == 12
    assert [track.track_id for track in truth.tracks(9)] == [2**33]
    assert any('1 mask joined' in note for note in truth.notes)


def test_polygons_and_runs_of_one_object_are_joined(tmp_path):
    content = small()
    runs = {'size': [8, 10], 'counts': [0, 8, 72]}  # column 0, half of which LEFT covers
    content['annotations'][3]['segmentation'] = runs
    own = load(tmp_path / 'a.json', content).tracks(4)[1]
    assert decode(own.masks[1]).sum() == 12 + 4 == own.areas[1]


def test_identities_that_each_video_counts_anew_stay_apart(tmp_path):
    content = small()
    content['annotations'][4]['instance_id'] = 7
    truth = load(tmp_path / 'a.json', content)
    numbers = [track.track_id for v in truth.videos for track in truth.tracks(v.video_id)]
    assert len(set(numbers)) == len(numbers) == 3


def test_the_words_and_places_of_other_writers_are_read(tmp_path):
    """`track_id` beside the mask; whole floats and texts as ids; no `videos`; no `frame_id`."""
    content = small()
    del content['videos']
    for image in content['images']:
        del image['frame_id']
    for annotation in content['annotations']:
        annotation['track_id'] = float(annotation.pop('instance_id'))
        del annotation['iscrowd']
    truth = load(tmp_path / 'a.json', content)
    assert truth.videos[0].frame_names == ('1.jpg', '2.jpg', '3.jpg')
    assert [track.track_id for track in truth.tracks(4)] == [0, 7]
    for annotation in content['annotations']:
        annotation['track_id'] = f'clip__{annotation["track_id"]}'
    assert [len(load(tmp_path / 'b.json', content).tracks(v)) for v in (4, 9)] == [2, 1]


def test_images_of_a_file_without_videos_are_grouped_by_folder_and_task(tmp_path):
    """CVAT appends a number to the frames of further tasks, and its ids give the order."""
    names = ['frame_000010', 'frame_000009', 'frame_000009_0', 'frame_000010_0', 'x/9', 'x/10']
    image = {'height': 8, 'width': 10}
    content = {
        'categories': [{'id': 1, 'name': 'dog'}],
        'images': [{'id': i, 'file_name': f'{n}.PNG', **image} for i, n in enumerate(names)],
        'annotations': [
            {
                'id': i,
                'image_id': i,
                'category_id': 1,
                'segmentation': LEFT,
                'area': 12,
                'iscrowd': 0,
                'attributes': {'track_id': 0},
            }
            for i in range(len(names))
        ],
    }
    truth = load(tmp_path / 'a.json', content)
    assert [video.frame_names for video in truth.videos] == [
        ('frame_000009.PNG', 'frame_000010.PNG'),
        ('frame_000009_0.PNG', 'frame_000010_0.PNG'),
        ('x/9.PNG', 'x/10.PNG'),
    ]
    assert [len(truth.tracks(video.video_id)) for video in truth.videos] == [1, 1, 1]


def test_images_are_single_ones_where_no_object_is_in_two(tmp_path):
    content = small()
    del content['videos']
    for image in content['images']:
        del image['video_id'], image['frame_id']
    content['annotations'] = [content['annotations'][k] for k in (0, 1, 4)]
    for annotation in content['annotations']:
        annotation.setdefault('area', 12)
    truth = load(tmp_path / 'a.json', content)
    assert [len(video.frame_names) for video in truth.videos] == [1, 1, 1, 1]


def _set(field: str, value: Any, number: int = 0, section: str = 'annotations'):
    def spoil(content: dict[str, Any]) -> None:
        content[section][number][field] = value

    return spoil


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (_set('instance_id', None), '1 of 5 annotations have no instance_id, which the others'),
        (_set('category_id', 1), 'Track 7 of video 4: changes its category, which is 3 in 2'),
        (_set('iscrowd', 1), 'Track 7 of video 4: expected the same iscrowd in all frames'),
        (_set('instance_id', True), 'expected instance_id to be a whole number, got True'),
        (_set('image_id', 77), 'Annotation 1: image_id 77 is not among the images'),
        (_set('width', 11, 0, 'images'), 'Video 4: expected images of one size, but 1.jpg has'),
        (_set('frame_id', 0, 0, 'images'), 'images 0 and 5 have the same frame_id 0'),
        (_set('video_id', 5, 0, 'images'), 'Image 0: video_id 5 is not among the videos'),
        (_set('segmentation', []), None),
        (_set('segmentation', [], 1), 'Track 0 of video 4: has no mask in any frame'),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, spoil: Callable, words: str | None):
    content = copy.deepcopy(small())
    spoil(content)
    if words is None:
        assert load(tmp_path / 'a.json', content).tracks(4)[1].masks[2] is None
        return
    with pytest.raises(DatasetError) as caught:
        load(tmp_path / 'a.json', content)
    assert words in str(caught.value) and '\n' not in str(caught.value)
    assert len(caught.value.faults) == 1  # and not one more for each record that refers to it


def test_a_file_of_youtube_vis_may_list_its_images_as_well(tmp_path, drawn):
    content = json.loads((drawn / 'valid.json').read_text())
    content['images'] = cocovid(content)['images']
    assert_same(load_ytvis(drawn / 'valid.json'), load(tmp_path / 'a.json', content))


def test_annotations_without_any_identity_are_told_at_once(tmp_path):
    content = small()
    for annotation in content['annotations']:
        del annotation['instance_id']
    with pytest.raises(DatasetError, match='No annotation has an instance_id or track_id'):
        load(tmp_path / 'a.json', content)


def test_bad_records_are_left_out_on_request(tmp_path):
    content = small()
    content['annotations'][1]['instance_id'] = None
    content['annotations'][4]['category_id'] = 55
    truth = load(tmp_path / 'a.json', content, skip_bad=True)
    assert [len(truth.tracks(v)) for v in (4, 9)] == [1, 0]
    assert len(truth.left_out) == 2


def test_a_video_without_images_is_left_out_with_a_note(tmp_path):
    content = small()
    content['videos'].append({'id': 1, 'name': 'c'})
    truth = load(tmp_path / 'a.json', content)
    assert len(truth.videos) == 2
    assert any('1 of 3 videos have no image' in note for note in truth.notes)


def test_a_test_split_has_no_annotations(tmp_path):
    content = small()
    del content['annotations']
    truth = load(tmp_path / 'a.json', content)
    assert len(truth.videos) == 2 and not truth.has_annotations


def test_the_opener_finds_missing_frames(tmp_path, drawn):
    content = cocovid(json.loads((drawn / 'valid.json').read_text()))
    root = tmp_path / 'data'
    shutil.copytree(drawn / 'valid/JPEGImages', root / 'valid/JPEGImages')
    (root / 'valid.json').write_text(json.dumps(content))
    assert len(open_dataset('ytvis2019', root).videos) == 3
    name = content['images'][4]['file_name']
    (root / 'valid/JPEGImages' / name).unlink()
    with pytest.raises(DatasetError, match=f'There is no .*{name}'):
        open_dataset('ytvis2019', root)
