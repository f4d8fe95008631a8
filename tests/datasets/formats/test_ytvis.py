from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from videomt_ros.datasets.dataset import Category, DatasetError
from videomt_ros.datasets.formats.ytvis import load_ytvis, load_ytvis_results, write_ytvis_results
from videomt_ros.datasets.formats.ytvis_folders import ytvis_dataset
from videomt_ros.datasets.rle import MaskTrack, decode, encode

SIZE = (4, 6)
RUNS = {'size': [4, 6], 'counts': [5, 2, 17]}
"""Two pixels, in column 1: rows 1 and 2."""
TEXT = {'size': [4, 6], 'counts': '52a0'}
"""The same."""
POLYGONS = [[0, 0, 2, 0, 2, 4, 0, 4]]
"""Columns 0 and 1."""


def truth() -> dict[str, Any]:
    """Two videos of 3 and 2 frames, the higher id first; three objects."""
    return {
        'videos': [
            {
                'id': 7,
                'height': 4,
                'width': 6,
                'length': 2,
                'file_names': ['b/00000.jpg', 'b/00005.jpg'],
            },
            {
                'id': 2,
                'height': 4,
                'width': 6,
                'length': 3,
                'file_names': ['a/00000.jpg', 'a/00005.jpg', 'a/00010.jpg'],
            },
        ],
        'categories': [{'id': 3, 'name': 'dog'}, {'id': 1, 'name': 'person'}],
        'annotations': [
            {
                'id': 1,
                'video_id': 2,
                'category_id': 3,
                'iscrowd': 0,
                'segmentations': [None, dict(RUNS), dict(TEXT)],
                'areas': [None, 2, 2.5],
            },
            {
                'id': 4,
                'video_id': 7,
                'category_id': 1,
                'iscrowd': 1,
                'segmentations': [POLYGONS, []],
                'areas': [8, None],
            },
            {
                'id': 3,
                'video_id': 2,
                'category_id': 1,
                'iscrowd': 0,
                'segmentations': [None, None, None],
                'areas': [None, None, None],
            },
        ],
    }


def predictions() -> list[dict[str, Any]]:
    return [
        {
            'video_id': 2,
            'category_id': 3,
            'score': 0.5,
            'segmentations': [None, dict(TEXT), dict(RUNS)],
        },
        {'video_id': 7, 'category_id': 1, 'score': 1, 'segmentations': [dict(TEXT), None]},
        {'video_id': 2, 'category_id': 1, 'score': 0.75, 'segmentations': [None] * 3},
    ]


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding='utf-8')
    return path


def write_images(folder: Path, content: dict[str, Any]) -> None:
    for video in content['videos']:
        for number, name in enumerate(video['file_names']):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            image = np.full((video['height'], video['width'], 3), (10 * number, 0, 200), np.uint8)
            cv2.imwrite(str(folder / name), image)


def faults(load: Callable[[], Any]) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as caught:
        load()
    return caught.value.faults


def test_a_truth_has_its_videos_by_id_and_its_objects_in_the_order_of_the_file(tmp_path):
    loaded = load_ytvis(write(tmp_path / 'valid.json', truth()))
    assert loaded.has_annotations
    assert loaded.categories == (Category(3, 'dog'), Category(1, 'person'))
    assert [(v.video_id, v.name, v.size) for v in loaded.videos] == [
        (2, 'a', SIZE),
        (7, 'b', SIZE),
    ]
    assert loaded.videos[1].frame_names == ('b/00000.jpg', 'b/00005.jpg')
    assert [track.track_id for track in loaded.tracks(2)] == [1, 3]
    (crowd,) = loaded.tracks(7)
    assert (crowd.category_id, crowd.is_crowd, crowd.areas) == (1, True, [8, None])


def test_masks_of_every_kind_become_codes_when_they_are_read(tmp_path):
    loaded = load_ytvis(write(tmp_path / 'valid.json', truth()))
    dog, (crowd,) = loaded.tracks(2)[0], loaded.tracks(7)
    assert len(dog.masks) == 3
    assert dog.masks[0] is None
    two_pixels = np.zeros(SIZE, bool)
    two_pixels[1:3, 1] = True
    assert (decode(dog.masks[1]) == two_pixels).all()
    assert dog.masks[2] == dog.masks[1]
    assert list(dog.masks[1:]) == [dog.masks[1]] * 2
    columns = np.zeros(SIZE, bool)
    columns[:, :2] = True
    assert (decode(crowd.masks[0]) == columns).all()
    assert crowd.masks[1] is None  # an empty list of polygons


@pytest.mark.parametrize('annotations', ['missing', None, []])
def test_a_test_split_has_no_annotations_and_an_empty_list_is_a_label(tmp_path, annotations):
    content = {**truth(), 'annotations': annotations}
    if annotations == 'missing':
        del content['annotations']
    loaded = load_ytvis(write(tmp_path / 'test.json', content))
    assert loaded.has_annotations is (annotations == [])
    assert loaded.tracks(2) == ()


def test_times_come_from_the_file(tmp_path):
    content = truth()
    content['videos'][0] |= {'stamps_ns': [10**18, 10**18 + 5]}
    content['videos'][1] |= {'fps': 30}
    first, second = load_ytvis(write(tmp_path / 'valid.json', content)).videos
    assert (first.stamps_ns, first.fps) == (None, 30)
    assert (second.stamps_ns, second.fps) == ((10**18, 10**18 + 5), None)


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        ([['x/1.jpg'], ['y/1.jpg']], ['x', 'y']),
        ([['x/1.jpg'], ['x/2.jpg']], ['x_2', 'x_7']),
        ([['1.jpg', '2.jpg'], ['3.jpg']], ['2', '7']),
        ([['x/1.jpg', 'y/2.jpg'], ['z/3.jpg']], ['2', 'z']),
        ([['a/b c/1.jpg'], ['../x/2.jpg']], ['a_b_c', 'x']),
        ([['x/1.jpg'], ['x/2.jpg'], ['x_2/3.jpg']], ['2', '7', '9']),
    ],
)
def test_videos_are_named_by_their_folders(tmp_path, names, expected):
    videos = [
        {'id': number, 'height': 4, 'width': 6, 'file_names': files}
        for number, files in zip((2, 7, 9), names, strict=False)
    ]
    path = write(tmp_path / 'valid.json', {'videos': videos, 'categories': []})
    assert [video.name for video in load_ytvis(path).videos] == expected


def broken(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    content = truth()
    change(content)
    return content


@pytest.mark.parametrize(
    ('change', 'fault'),
    [
        (lambda c: c.pop('videos'), 'Expected a list of videos, got nothing.'),
        (lambda c: c.update(categories={}), 'Expected a list of categories, got an object.'),
        (lambda c: c.update(annotations=5), 'Expected a list of annotations, got a number.'),
        (lambda c: c['videos'].append(5), 'videos[2]: expected an object, got a number.'),
        (lambda c: c['videos'][0].pop('height'), 'Video 7: height is missing.'),
        (
            lambda c: c['videos'][0].update(width=0),
            'Video 7: expected width to be a whole number of 1 or more, got 0.',
        ),
        (
            lambda c: c['videos'][0].pop('file_names'),
            'Video 7: expected file_names, the images of its frames, got nothing.',
        ),
        (
            lambda c: c['videos'][0].update(file_names=[]),
            'Video 7: expected file_names, the images of its frames, got [].',
        ),
        (
            lambda c: c['videos'][0].update(length=3),
            'Video 7: its length is 3, but it has 2 frames.',
        ),
        (
            lambda c: c['videos'][0].update(id='7'),
            "Video 7: expected id to be a whole number, got '7'.",
        ),
        (
            lambda c: c['videos'][0].update(id=7.5),
            'Video 7.5: expected id to be a whole number, got 7.5.',
        ),
        (
            lambda c: c['videos'][0].update(id=True),
            'Video True: expected id to be a whole number, got True.',
        ),
        (
            lambda c: c['videos'][0].update(height=2**16, width=2**16),
            'Video 7: expected fewer than 2^32 pixels, got 65536 x 65536.',
        ),
        (
            lambda c: c['videos'][0].update(fps=10**400),
            'Video 7: expected fps to be a finite number, got 1' + 56 * '0' + '....',
        ),
        (
            lambda c: c['videos'][0].update(stamps_ns=[5, 2**63]),
            'Video 7: expected stamps_ns, rising whole numbers from 0 on, '
            'got [5, 9223372036854775808].',
        ),
        (lambda c: c['videos'][0].update(fps=0), 'Video 7: expected fps above 0, got 0.'),
        (
            lambda c: c['videos'][0].update(stamps_ns=[5, 5]),
            'Video 7: expected stamps_ns, rising whole numbers from 0 on, got [5, 5].',
        ),
        (
            lambda c: c['videos'][0].update(stamps_ns=[0.5, 1.5]),
            'Video 7: expected stamps_ns, rising whole numbers from 0 on, got [0.5, 1.5].',
        ),
        (
            lambda c: c['videos'][0].update(stamps_ns=[5]),
            'Video 7: expected stamps_ns with one entry for each of 2 frames, got 1.',
        ),
        (lambda c: c['videos'].append(c['videos'][0]), 'Video 7: the id occurs twice.'),
        (
            lambda c: c['categories'].append({'id': 3, 'name': 'cat'}),
            'Category 3: the id occurs twice.',
        ),
        (lambda c: c['categories'][0].pop('name'), 'Category 3: name is missing.'),
        (
            lambda c: c['annotations'][1].update(id=1),
            'Annotation 1: the id occurs twice.',
        ),
        (lambda c: c['annotations'][0].pop('id'), 'annotations[0]: id is missing.'),
        (
            lambda c: c['annotations'][0].update(iscrowd='no'),
            "Annotation 1: expected iscrowd to be 0 or 1, got 'no'.",
        ),
        (
            lambda c: c['annotations'][0].update(iscrowd=2),
            'Annotation 1: expected iscrowd to be 0 or 1, got 2.',
        ),
        (
            lambda c: c['annotations'][0].update(video_id=5),
            'Annotation 1: video_id 5 is not among the videos.',
        ),
        (lambda c: c['annotations'][0].pop('video_id'), 'Annotation 1: video_id is missing.'),
        (
            lambda c: c['annotations'][0].update(category_id=2),
            'Annotation 1: category_id 2 is not among the categories.',
        ),
        (
            lambda c: c['annotations'][0].pop('segmentations'),
            'Annotation 1: segmentations is missing.',
        ),
        (
            lambda c: c['annotations'][0]['segmentations'].pop(),
            'Annotation 1: expected segmentations with one entry for each of 3 frames, got 2.',
        ),
        (
            lambda c: c['annotations'][0]['areas'].append(None),
            'Annotation 1: expected areas with one entry for each of 3 frames, got 4.',
        ),
        (
            lambda c: c['annotations'][0]['areas'].__setitem__(1, math.nan),
            'Annotation 1, frame 1: expected an area or null, got nan.',
        ),
        (
            lambda c: c['annotations'][0]['segmentations'][1].update(counts=[5, 2, 18]),
            'Annotation 1, frame 1: the runs of the RLE make 25 pixels, expected 4 x 6 = 24.',
        ),
        (
            lambda c: c['annotations'][0]['segmentations'][1].update(counts=[5, -2, 21]),
            'Annotation 1, frame 1: expected counts as a string or as runs of 0 or more, got '
            '[5, -2, 21].',
        ),
        (
            lambda c: c['annotations'][0]['segmentations'][2].update(counts='52~0'),
            "Annotation 1, frame 2: the RLE string '52~0' is damaged.",
        ),
        (
            lambda c: c['annotations'][0]['segmentations'][2].update(size=[6, 4]),
            'Annotation 1, frame 2: expected an RLE of size [4, 6], got [6, 4].',
        ),
    ],
)
def test_a_fault_of_a_truth_names_its_record(tmp_path, change, fault):
    path = write(tmp_path / 'valid.json', broken(change))
    assert fault in faults(lambda: load_ytvis(path))


def test_all_faults_of_a_truth_are_listed_at_once(tmp_path):
    content = truth()
    content['annotations'][0]['iscrowd'] = 3
    content['annotations'][1]['segmentations'] = [5, 5]
    content['annotations'][2]['category_id'] = 9
    found = faults(lambda: load_ytvis(write(tmp_path / 'valid.json', content)))
    assert [fault.partition(':')[0] for fault in found] == [
        'Annotation 1',
        'Annotation 4, frame 0',
        'Annotation 4, frame 1',
        'Annotation 3',
    ]


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (b'{"videos": [\n  {"id": 1,}]}', 'line 2, column 12'),
        (b'', 'line 1, column 1'),
        (b'{"videos": ["\xff"]}', 'byte 13'),
        (b'[' * 200_000, 'of a usual kind'),
        (b'[]', 'Expected an object with videos, got a list'),
    ],
)
def test_a_file_that_is_no_truth_says_where_it_breaks(tmp_path, data, words):
    path = tmp_path / 'valid.json'
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=words):
        load_ytvis(path)


def test_a_missing_truth_is_named(tmp_path):
    with pytest.raises(DatasetError, match='valid.json.*No such file'):
        load_ytvis(tmp_path / 'valid.json')


def test_results_keep_their_order_and_scores(tmp_path):
    known = load_ytvis(write(tmp_path / 'valid.json', truth()))
    results = load_ytvis_results(
        write(tmp_path / 'results.json', predictions()), known.videos, known.categories
    )
    assert {video: [t.track_id for t in tracks] for video, tracks in results.items()} == {
        2: [1, 3],
        7: [2],
    }
    assert [track.score for track in results[2]] == [0.5, 0.75]
    dog = known.tracks(2)[0].masks[1]
    assert list(results[2][0].masks) == [None, dog, dog]
    assert results.notes == ()


def test_results_that_break_halfway_say_where(tmp_path):
    known = load_ytvis(write(tmp_path / 'valid.json', truth()))
    path = write(tmp_path / 'results.json', predictions())
    path.write_bytes(path.read_bytes()[:-20])
    [fault] = faults(lambda: load_ytvis_results(path, known.videos, known.categories))
    assert fault.startswith('Expected JSON, but it breaks at line 1, column ')


def test_masks_can_be_read_in_any_order(tmp_path):
    known = load_ytvis(write(tmp_path / 'valid.json', truth()))
    for video in known.videos:
        for track in known.tracks(video.video_id):
            masks = list(track.masks)
            assert [track.masks[index] for index in range(len(masks))] == masks
            assert track.masks[-1] == masks[-1]
            assert list(track.masks[1:]) == masks[1:]


def test_no_predictions_are_results(tmp_path):
    known = load_ytvis(write(tmp_path / 'valid.json', truth()))
    assert (
        load_ytvis_results(write(tmp_path / 'results.json', []), known.videos, known.categories)
        == {}
    )


def test_unknown_categories_of_results_are_ignored_and_noted(tmp_path):
    known = load_ytvis(write(tmp_path / 'valid.json', truth()))
    records = predictions()
    records[0]['category_id'] = records[2]['category_id'] = 9
    results = load_ytvis_results(
        write(tmp_path / 'results.json', records), known.videos, known.categories
    )
    assert list(results) == [7]
    assert results.notes == (
        'Ignored predictions of category 9, which the truth does not have: 2.',
    )


def test_many_unknown_categories_of_results_make_one_note(tmp_path):
    known = load_ytvis(write(tmp_path / 'valid.json', truth()))
    records = [{**predictions()[0], 'category_id': 100 + number} for number in range(40)]
    path = write(tmp_path / 'results.json', records)
    (note,) = load_ytvis_results(path, known.videos, known.categories).notes
    assert note.startswith('Ignored 40 predictions of 40 categories')
    assert len(note) < 150


@pytest.mark.parametrize('member', ['results.json', 'sub/results.json', 'mine.json'])
def test_results_may_lie_in_a_zip_or_a_folder(tmp_path, member):
    known = load_ytvis(write(tmp_path / 'valid.json', truth()))
    path = tmp_path / 'out' / 'results.zip'
    path.parent.mkdir()
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr(f'__MACOSX/._{member}', 'x')
        archive.writestr(member, json.dumps(predictions()))
    for place in (path, path.parent):
        assert sorted(load_ytvis_results(place, known.videos, known.categories)) == [2, 7]


def test_a_zip_without_results_says_what_it_holds(tmp_path):
    known = load_ytvis(write(tmp_path / 'valid.json', truth()))
    path = tmp_path / 'results.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.json', '[]')
        archive.writestr('b.json', '[]')
    assert (
        'got a.json, b.json'
        in faults(lambda: load_ytvis_results(path, known.videos, known.categories))[0]
    )
    path.write_bytes(path.read_bytes()[:20])
    assert (
        'Expected a sound zip file'
        in faults(lambda: load_ytvis_results(path, known.videos, known.categories))[0]
    )
    path.unlink()
    assert (
        'No such file'
        in faults(lambda: load_ytvis_results(path, known.videos, known.categories))[0]
    )
    assert (
        'results.json or results.zip'
        in faults(lambda: load_ytvis_results(tmp_path, known.videos, known.categories))[0]
    )


@pytest.mark.parametrize('method', [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_zip_says_so_however_it_was_packed(tmp_path, method):
    known = load_ytvis(write(tmp_path / 'valid.json', truth()))
    path = tmp_path / 'results.zip'
    with zipfile.ZipFile(path, 'w', method) as archive:
        archive.writestr('results.json', json.dumps(predictions()))
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    (fault,) = faults(lambda: load_ytvis_results(path, known.videos, known.categories))
    assert 'zip file, but ' in fault
    assert 'None' not in fault


def test_results_may_belong_to_the_videos_of_several_truths(tmp_path):
    short, long = truth(), truth()
    del short['videos'][0], short['annotations'][1]
    del long['videos'][1], long['annotations'][0], long['annotations'][1]
    truths = [
        load_ytvis(write(tmp_path / name, content))
        for name, content in (('gt_short.json', short), ('gt_long.json', long))
    ]
    path = write(tmp_path / 'results.json', predictions())
    videos = [video for one in truths for video in one.videos]
    assert sorted(load_ytvis_results(path, videos, truths[0].categories)) == [2, 7]
    assert faults(lambda: load_ytvis_results(path, truths[0].videos, truths[0].categories)) == (
        'Prediction [1]: video_id 7 is not among the videos of the truth.',
    )


@pytest.mark.parametrize(
    ('change', 'fault'),
    [
        (lambda r: r.append(5), 'Prediction [3]: expected an object, got a number.'),
        (lambda r: r[1].pop('score'), 'Prediction [1]: score is missing.'),
        (
            lambda r: r[1].update(score='0.5'),
            "Prediction [1]: expected score to be a finite number, got '0.5'.",
        ),
        (
            lambda r: r[1].update(score=math.nan),
            'Prediction [1]: expected score to be a finite number, got nan.',
        ),
        (
            lambda r: r[1].update(score=True),
            'Prediction [1]: expected score to be a finite number, got True.',
        ),
        (
            lambda r: r[1].update(score=10**400),
            'Prediction [1]: expected score to be a finite number, got 1' + 56 * '0' + '....',
        ),
        (
            lambda r: r[1].update(category_id='1'),
            "Prediction [1]: expected category_id to be a whole number, got '1'.",
        ),
        (lambda r: r[1].pop('category_id'), 'Prediction [1]: category_id is missing.'),
        (
            lambda r: r[1].update(video_id=1),
            'Prediction [1]: video_id 1 is not among the videos of the truth.',
        ),
        (
            lambda r: r[1].update(segmentations=[None]),
            'Prediction [1]: expected segmentations with one entry for each of 2 frames, got 1.',
        ),
        (
            lambda r: r[1]['segmentations'][0].update(size=[8, 12]),
            'Prediction [1], frame 0: expected an RLE of size [4, 6], got [8, 12].',
        ),
    ],
)
def test_a_fault_of_results_names_its_place(tmp_path, change, fault):
    known = load_ytvis(write(tmp_path / 'valid.json', truth()))
    records = predictions()
    change(records)
    path = write(tmp_path / 'results.json', records)
    assert faults(lambda: load_ytvis_results(path, known.videos, known.categories)) == (fault,)


def test_results_that_are_no_list_are_refused(tmp_path):
    known = load_ytvis(write(tmp_path / 'valid.json', truth()))
    path = write(tmp_path / 'results.json', {'annotations': []})
    assert faults(lambda: load_ytvis_results(path, known.videos, known.categories)) == (
        'Expected a list of predictions, got an object. Are these results of instances, and no '
        'annotations or results of another benchmark?',
    )


def test_written_results_are_read_back_and_the_zip_holds_the_same(tmp_path):
    known = load_ytvis(write(tmp_path / 'valid.json', truth()))
    mask = np.zeros(SIZE, bool)
    mask[1, 2:5] = True
    tracks = [
        MaskTrack(7, 3, [encode(mask), None], score=1 / 3),
        MaskTrack(2, 1, [None, None, encode(~mask)], score=np.float32(0.25)),
    ]
    path = tmp_path / 'out' / 'results.json'
    write_ytvis_results(path, iter(tracks))
    results = load_ytvis_results(path, known.videos, known.categories)
    (first,), (second,) = results[7], results[2]
    assert (first.category_id, first.score, list(first.masks)) == (3, 1 / 3, tracks[0].masks)
    assert (second.category_id, second.score, list(second.masks)) == (1, 0.25, tracks[1].masks)
    with zipfile.ZipFile(path.with_suffix('.zip')) as archive:
        assert archive.namelist() == ['results.json']
        # Not the time of writing: equal results are equal files.
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)
        assert archive.read('results.json') == path.read_bytes()
    assert isinstance(json.loads(path.read_text())[0]['segmentations'][0]['counts'], str)


def test_no_results_are_written_as_an_empty_list(tmp_path):
    write_ytvis_results(tmp_path / 'results.json', [])
    assert json.loads((tmp_path / 'results.json').read_text()) == []


def test_results_that_fail_halfway_leave_the_old_file_alone(tmp_path):
    path = tmp_path / 'results.json'
    path.write_text('old')
    with pytest.raises(ValueError, match='JSON'):
        write_ytvis_results(
            path, [MaskTrack(7, 3, [None], 0.5), MaskTrack(7, 3, [None], math.nan)]
        )
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [
        ('results.json', 'old')
    ]


@pytest.mark.parametrize(
    ('name', 'split', 'file', 'images'),
    [
        ('ytvis2019', 'valid', 'valid.json', 'valid/JPEGImages'),
        ('ytvis2019', 'val', 'valid.json', 'valid/JPEGImages'),
        ('ytvis2021', 'train', 'train/instances.json', 'train/JPEGImages'),
        ('ytvis2021', 'valid', 'annotations/instances_val.json', 'JPEGImages'),
        ('ytvis2021', 'train_sub', 'train_sub.json', 'train/JPEGImages'),
        ('ytvis2022', 'valid', 'valid/instances.json', 'valid/JPEGImages'),
        ('ovis', 'train', 'annotations_train.json', 'train'),
        ('ovis', 'valid', 'annotations/valid.json', 'Images/valid'),
        ('ovis', 'mine', 'mine.json', '.'),
    ],
)
def test_a_data_set_is_found_as_it_was_unpacked(tmp_path, name, split, file, images):
    path = write(tmp_path / file, truth())
    write_images(tmp_path / images, truth())
    dataset = ytvis_dataset(name, tmp_path, split)
    assert (dataset.name, dataset.family, dataset.truth) == (name, 'ytvis', (path,))
    assert [c.category_id for c in dataset.categories] == [1, 3]
    frames = list(dataset.videos[0].frames())
    assert [frame.index for frame in frames] == [0, 1, 2]
    for number, frame in enumerate(frames):
        assert frame.image.shape == (4, 6, 3)
        # RGB; JPEG loses a little.
        assert np.abs(frame.image.astype(int) - (200, 0, 10 * number)).max() < 20


def test_frames_have_the_times_of_the_file_or_come_at_the_usual_rate(tmp_path):
    content = truth()
    content['videos'][0]['stamps_ns'] = [5, 9]
    write(tmp_path / 'valid.json', content)
    write_images(tmp_path, content)
    first, second = ytvis_dataset('ytvis2019', tmp_path).videos
    assert [frame.stamp_ns for frame in first.frames()] == [0, 166_666_667, 333_333_333]
    assert [frame.stamp_ns for frame in second.frames()] == [5, 9]
    content['videos'][1]['fps'] = 10
    write(tmp_path / 'valid.json', content)
    first, _ = ytvis_dataset('ytvis2019', tmp_path).videos
    assert [frame.stamp_ns for frame in first.frames()] == [0, 100_000_000, 200_000_000]


def test_a_test_split_is_a_data_set_without_truth(tmp_path):
    content = {**truth(), 'annotations': None}
    write(tmp_path / 'test.json', content)
    write_images(tmp_path / 'test' / 'JPEGImages', content)
    dataset = ytvis_dataset('ytvis2019', tmp_path, 'test')
    assert dataset.truth == ()
    assert len(dataset.videos) == 2


def split_of_2022(root: Path) -> None:
    short, long = truth(), truth()
    del short['videos'][0], short['annotations'][1]
    del long['videos'][1], long['annotations'][0], long['annotations'][1]
    write(root / 'gt_short.json', short)
    write(root / 'annotations' / 'gt_long.json', long)
    write(root / 'valid' / 'instances.json', {**truth(), 'annotations': None})
    write_images(root / 'valid' / 'JPEGImages', truth())


def test_2022_has_two_truths_and_the_videos_of_both(tmp_path):
    split_of_2022(tmp_path)
    dataset = ytvis_dataset('ytvis2022', tmp_path)
    assert dataset.truth == (tmp_path / 'gt_short.json', tmp_path / 'annotations' / 'gt_long.json')
    assert [video.video_id for video in dataset.videos] == [2, 7]


def test_2022_can_be_short_or_long_alone(tmp_path):
    split_of_2022(tmp_path)
    for split, video_id, name in (('valid_short', 2, 'gt_short'), ('valid_long', 7, 'gt_long')):
        dataset = ytvis_dataset('ytvis2022', tmp_path, split)
        assert [path.stem for path in dataset.truth] == [name]
        assert [video.video_id for video in dataset.videos] == [video_id]


@pytest.mark.parametrize('change', [{'file_names': ['a/1.jpg'], 'length': 1}, {'width': 7}])
def test_2022_refuses_truths_that_disagree_on_a_video(tmp_path, change):
    split_of_2022(tmp_path)
    content = truth()
    content['videos'][1] |= change
    write(tmp_path / 'annotations' / 'gt_long.json', {**content, 'annotations': []})
    found = faults(lambda: ytvis_dataset('ytvis2022', tmp_path))
    assert len(found) == 1
    assert 'Video 2 has other frames' in found[0]


def test_missing_annotations_say_what_was_looked_for(tmp_path):
    (fault,) = faults(lambda: ytvis_dataset('ovis', tmp_path, 'valid'))
    for place in ('valid.json', 'valid/instances.json', 'annotations_valid.json'):
        assert place in fault
    (fault,) = faults(lambda: ytvis_dataset('ytvis2022', tmp_path))
    assert 'annotations/gt_long.json' in fault
    (fault,) = faults(lambda: ytvis_dataset('ovis', tmp_path / 'nowhere'))
    assert 'there is none' in fault


def test_every_missing_frame_is_named_before_any_work(tmp_path):
    write(tmp_path / 'valid.json', truth())
    write_images(tmp_path / 'valid' / 'JPEGImages', truth())
    for name in ('a/00005.jpg', 'b/00000.jpg'):
        (tmp_path / 'valid' / 'JPEGImages' / name).unlink()
    found = faults(lambda: ytvis_dataset('ytvis2019', tmp_path))
    assert found[0].startswith('2 of 5 images are missing in')
    assert [fault.rpartition('JPEGImages/')[2] for fault in found[1:]] == [
        'a/00005.jpg.',
        'b/00000.jpg.',
    ]


def test_boxes_that_are_no_list_are_no_boxes(tmp_path):
    content = truth()
    for annotation in content['annotations']:
        annotation.pop('segmentations')
        annotation['bboxes'] = 5
    (fault,) = faults(lambda: load_ytvis(write(tmp_path / 'valid.json', content)))
    assert 'No annotation has a mask' in fault and 'have no mask' in fault


@pytest.mark.parametrize('section', ['videos', 'categories'])
def test_a_list_that_is_missing_is_told_once(tmp_path, section):
    content = truth()
    del content[section]
    path = write(tmp_path / 'valid.json', content)
    assert faults(lambda: load_ytvis(path)) == (f'Expected a list of {section}, got nothing.',)


def test_missing_images_say_where_they_were_looked_for(tmp_path):
    write(tmp_path / 'valid.json', truth())
    (fault,) = faults(lambda: ytvis_dataset('ytvis2019', tmp_path))
    assert f'Looked in {tmp_path}, and there in valid/JPEGImages, valid,' in fault
    assert 'None of its 5 images' in fault


@pytest.mark.parametrize('damage', ['cut', 'size', 'gone'])
def test_a_bad_image_is_named_when_it_is_read(tmp_path, damage):
    write(tmp_path / 'valid.json', truth())
    write_images(tmp_path, truth())
    dataset = ytvis_dataset('ytvis2019', tmp_path)
    path = tmp_path / 'a' / '00005.jpg'
    match damage:
        case 'cut':
            path.write_bytes(path.read_bytes()[:-300])
        case 'size':
            cv2.imwrite(str(path), np.zeros((6, 4, 3), np.uint8))
        case 'gone':
            path.unlink()
    frames = dataset.videos[0].frames()
    assert next(frames).index == 0
    with pytest.raises(DatasetError, match='a/00005.jpg'):
        next(frames)
