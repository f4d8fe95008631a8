"""Recorded lists of tracks, written by hand, against a truth of one square in four frames."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from tests.datasets.bags.made import STORE, header_of, image_message, write_bag
from videomt_ros.cli import main
from videomt_ros.datasets.bags.dataset import bag_dataset
from videomt_ros.datasets.bags.files import BagError
from videomt_ros.datasets.bags.messages import TRACK_ARRAY, message_types
from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.datasets.rle import encode
from videomt_ros.evaluation.results_bag import (
    RecordedTracks,
    evaluate_results_bag,
    segments_of,
)
from videomt_ros.structures import TrackState

TYPES = message_types().types
START_NS, PERIOD_NS = 1_700_000_000_000_000_000, 100_000_000
SIZE = (20, 30)
CONFIRMED, LOST = int(TrackState.CONFIRMED), int(TrackState.LOST)


def stamp(number: float) -> int:
    return START_NS + round(number * PERIOD_NS)


def square(column: int = 3) -> np.ndarray:
    """Draw a mask (H, W) of 25 pixels."""
    mask = np.zeros(SIZE, bool)
    mask[5:10, column : column + 5] = True
    return mask


def track(number: int, mask: np.ndarray | None, **fields: Any) -> Any:
    values = {
        'id': number,
        'class_id': 1,
        'class_name': 'square',
        'is_thing': True,
        'score': 0.9,
        'state': CONFIRMED,
        'age': 1,
        'last_seen': TYPES['builtin_interfaces/msg/Time'](0, 0),
        'box': TYPES['sensor_msgs/msg/RegionOfInterest'](3, 5, 5, 5, False),
        'area': 0 if mask is None else int(mask.sum()),
        'mask': TYPES['videomt_ros/msg/Mask'](0, 0, '')
        if mask is None
        else TYPES['videomt_ros/msg/Mask'](*mask.shape, encode(mask)['counts'].decode()),
        'position': TYPES['geometry_msgs/msg/Point'](math.nan, math.nan, math.nan),
        'extent': TYPES['geometry_msgs/msg/Vector3'](math.nan, math.nan, math.nan),
        **fields,
    }
    return TYPES['videomt_ros/msg/Track'](**values)


def message(stamp_ns: int, *tracks: Any, size: tuple[int, int] = SIZE) -> Any:
    time = TYPES['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 10**9))
    header = TYPES['std_msgs/msg/Header'](time, 'camera')
    return TYPES[TRACK_ARRAY](header, 'demo', *size, tracks=list(tracks), resets=0)


def record(path: Path, messages: list[Any], topic: str = '/segmentation/tracks') -> Path:
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(topic, TRACK_ARRAY, typestore=message_types())
        for number, content in enumerate(messages):
            data = message_types().serialize_cdr(content, TRACK_ARRAY)
            writer.write(connection, stamp(number) + 30_000_000, data)
    return path


def small_image(stamp_ns: int, number: int) -> Any:
    """An image of the size of the masks."""
    time = STORE.types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 10**9))
    header = STORE.types['std_msgs/msg/Header'](time, 'camera')
    height, width = SIZE
    data = np.full(height * width, number, np.uint8)
    return image_message(
        0, header=header, height=height, width=width, encoding='mono8', step=width, data=data
    )


@pytest.fixture
def truth(tmp_path) -> Path:
    return write_truth(tmp_path / 'truth.json', [stamp(t) for t in range(4)])


def write_truth(path: Path, stamps: list[int]) -> Path:
    height, width = SIZE
    names = [f'v/{t:05d}.jpg' for t in range(len(stamps))]
    sides = {'height': height, 'width': width, 'length': len(stamps)}
    code = encode(square())
    code['counts'] = code['counts'].decode()
    annotation = {
        'id': 1,
        'video_id': 1,
        'category_id': 7,
        'iscrowd': 0,
        'segmentations': [code] * len(stamps),
        'areas': [25] * len(stamps),
        'bboxes': [[3, 5, 5, 5]] * len(stamps),
        **sides,
    }
    video = {'id': 1, 'file_names': names, 'stamps_ns': stamps, **sides}
    categories = [{'id': 7, 'name': 'Square'}, {'id': 9, 'name': 'circle'}]
    content = {'videos': [video], 'categories': categories, 'annotations': [annotation]}
    path.write_text(json.dumps(content))
    return path


def scored(tmp_path: Path, messages: list[Any], truth: Path) -> dict[str, Any]:
    bag = record(tmp_path / 'bag', messages)
    return evaluate_results_bag(bag, '', truth, tmp_path / 'out')


@pytest.mark.parametrize('with_images', [True, False])
@pytest.mark.parametrize('order', ['each', 'all'])
def test_results_that_were_recorded_twice_count_once(tmp_path, truth, order, with_images):
    """As a recording of two replays has them, the second with other ids."""
    images = None
    if with_images:
        messages = [small_image(stamp(t), t) for t in range(4)]
        bag = write_bag(tmp_path / 'images', {'/image': messages})
        (images,) = bag_dataset(bag, '', truth).videos
    once = [message(stamp(t), track(4, square(3 + (t == 3) * 12))) for t in range(4)]
    again = [message(stamp(t), track(9, square())) for t in range(4)]
    pairs = zip(once, again, strict=True)
    twice = [*once, *again] if order == 'all' else [each for pair in pairs for each in pair]
    found = {}
    for name, messages in {'once': once, 'twice': twice}.items():
        bag = record(tmp_path / name, messages)
        found[name] = evaluate_results_bag(bag, '', truth, tmp_path / f'{name}_out', images)
    assert found['twice']['live']['figures'] == found['once']['live']['figures']
    (note,) = set(found['twice']['live']['notes'][1:]) - set(found['once']['live']['notes'])
    assert note.startswith('4 of 8 results have the stamp of another one')


def test_ids_that_come_twice_in_a_list_count_once(tmp_path, truth):
    once = [message(stamp(t), track(4, square())) for t in range(4)]
    twice = [message(stamp(t), track(4, square()), track(4, square(15))) for t in range(4)]
    figures = [scored(tmp_path / str(len(m[0].tracks)), m, truth)['live'] for m in (once, twice)]
    assert figures[0]['figures'] == figures[1]['figures']
    assert any(note.startswith('4 tracks have the id of another') for note in figures[1]['notes'])


def test_a_second_run_asks_to_resume_and_gives_the_same(tmp_path, truth):
    first = scored(tmp_path, [message(stamp(t), track(4, square())) for t in range(4)], truth)
    with pytest.raises(ValueError, match='--resume'):
        evaluate_results_bag(tmp_path / 'bag', '', truth, tmp_path / 'out')
    (tmp_path / 'out' / 'metrics.json').unlink()
    again = evaluate_results_bag(tmp_path / 'bag', '', truth, tmp_path / 'out', resume=True)
    assert again == first
    record(tmp_path / 'other', [message(stamp(t)) for t in range(4)])
    with pytest.raises(ValueError, match='another run: results_bag was'):
        evaluate_results_bag(tmp_path / 'other', '', truth, tmp_path / 'out', resume=True)


def test_a_track_in_every_frame(tmp_path, truth):
    metrics = scored(tmp_path, [message(stamp(t), track(4, square())) for t in range(4)], truth)
    assert metrics['live']['figures']['AP'] == 1
    assert metrics['run']['frames'] == {'annotated': 4, 'missed': 0}
    assert metrics['run']['model'] == 'demo'
    assert metrics['live']['notes'] == [
        '4 of 4 annotated frames have a result on /segmentation/tracks (by equal stamps), '
        'which holds 4.'
    ]
    # The report has all but pictures, and says how to get them.
    (problem,) = metrics['report_problems']
    assert '3 of 3 pictures' in problem and '--bag' in problem
    (result,) = json.loads((tmp_path / 'out' / 'live' / 'results.json').read_text())
    assert (result['video_id'], result['category_id']) == (1, 7)
    assert result['score'] == pytest.approx(0.9)


def test_a_frame_without_a_message_is_a_miss(tmp_path, truth):
    metrics = scored(tmp_path, [message(stamp(t), track(4, square())) for t in (0, 1, 3)], truth)
    # Three of four frames: an IoU of 3/4, which is enough at 0.5, 0.55, ... 0.75, six of ten.
    assert metrics['live']['figures']['AP'] == pytest.approx(6 / 10)
    assert metrics['run']['frames'] == {'annotated': 4, 'missed': 1}
    assert metrics['live']['notes'][1] == (
        '1 annotated frames have no result, and count as misses: v/00002.jpg.'
    )


def test_a_lost_track_has_no_mask(tmp_path, truth):
    messages = [message(stamp(t), track(4, square())) for t in range(3)]
    messages.append(message(stamp(3), track(4, square(), state=LOST)))
    metrics = scored(tmp_path, messages, truth)
    assert metrics['live']['figures']['AP'] == pytest.approx(6 / 10)
    assert metrics['run']['frames']['missed'] == 0


def test_each_frame_gets_its_own_message(tmp_path, truth):
    """Results may come in any order; that of an image that is not annotated is left out."""
    times = (3, -1, 0, 2)
    messages = [message(stamp(t), track(10 + t, square())) for t in times]
    recorded = RecordedTracks(record(tmp_path / 'bag', messages), '', truth)
    found = dict(recorded.frames())
    assert sorted(found) == [0, 2, 3]
    for index, segments in found.items():
        assert segments.stamp_ns == stamp(index)
        assert [s.track_id for s in segments.segments] == [10 + index]
    assert recorded.num_missed == 1


def test_the_result_of_an_image_between_is_not_that_of_a_dropped_one(tmp_path, truth):
    """The camera is three times as fast as the truth; the node has dropped annotated frame 2."""
    times = [t / 3 for t in range(11) if t != 6]
    messages = [message(stamp(t), track(4, square())) for t in times]
    metrics = scored(tmp_path, messages, truth)
    assert metrics['run']['frames'] == {'annotated': 4, 'missed': 1}


def test_labels_far_apart_do_not_take_the_result_of_a_neighbour(tmp_path):
    """Every fifth image is labelled, and the node has dropped exactly these."""
    truth = write_truth(tmp_path / 'truth.json', [stamp(t) for t in (1, 6, 11, 16)])
    messages = [message(stamp(t), track(4, square())) for t in range(20) if t % 5 != 1]
    metrics = scored(tmp_path, messages, truth)
    assert metrics['run']['frames'] == {'annotated': 4, 'missed': 4}


def test_images_tell_which_result_is_that_of_a_label(tmp_path):
    """Labels are 30 ms late, for every second image; the node has dropped image 2."""
    bag = write_bag(tmp_path / 'images', {'/image': [image_message(t) for t in range(8)]})
    first_ns = START_NS - 7_000_000  # of the stamps that these images have
    labelled = [first_ns + t * PERIOD_NS + 30_000_000 for t in (0, 2, 4, 6)]
    truth = write_truth(tmp_path / 'truth.json', labelled)
    messages = [
        message(first_ns + t * PERIOD_NS, track(4, square()))
        for t in (0, 3, 4, 6)  # image 3 is 70 ms after the label of the dropped image 2
    ]
    recorded = record(tmp_path / 'bag', messages)
    (images,) = bag_dataset(bag, '', truth).videos
    tracks = RecordedTracks(recorded, '', truth, images)
    assert [index for index, _ in tracks.frames()] == [0, 2, 3]
    assert '3 of 4 annotated frames' in tracks.notes[0]
    assert 'by the stamps of their images' in tracks.notes[0]


def test_a_truth_with_stamps_of_its_own(tmp_path):
    truth = write_truth(tmp_path / 'truth.json', [stamp(t) + 20_000_000 for t in range(4)])
    messages = [message(stamp(t), track(4, square())) for t in range(4)]
    metrics = scored(tmp_path, messages, truth)
    assert metrics['run']['frames']['missed'] == 0
    assert '(the nearest stamp within 50 ms)' in metrics['live']['notes'][0]


def test_nothing_was_ever_seen(tmp_path, truth):
    metrics = scored(tmp_path, [message(stamp(t)) for t in range(4)], truth)
    assert metrics['live']['figures']['AP'] == 0
    assert metrics['run']['frames']['missed'] == 0


def test_a_mask_that_is_none(tmp_path, truth):
    messages = [message(stamp(t), track(4, square())) for t in range(4)]
    messages[1].tracks[0].mask.counts = 'not a mask'
    metrics = scored(tmp_path, messages, truth)
    assert metrics['run']['frames']['missed'] == 1
    assert any(
        note.startswith('1 results cannot be used, and their frames count as misses: v/00001.jpg')
        for note in metrics['live']['notes']
    )


def test_results_of_another_size(tmp_path, truth):
    messages = [message(stamp(t), track(4, square())) for t in range(3)]
    messages.append(message(stamp(3), size=(10, 10)))
    metrics = scored(tmp_path, messages, truth)
    assert metrics['run']['frames']['missed'] == 1
    assert 'Expected results of 30 x 20 pixels, as annotated, got 10 x 10.' in str(
        metrics['live']['notes']
    )


def test_classes_go_by_their_names(tmp_path, truth):
    star = {'class_id': 4, 'class_name': 'star'}
    messages = [
        message(stamp(t), track(4, square()), track(5, square(20), **star)) for t in range(4)
    ]
    metrics = scored(tmp_path, messages, truth)
    assert metrics['live']['figures']['AP'] == 1
    (note,) = metrics['run']['notes']
    assert note == 'Classes of the model that the data set does not have: star.'


def test_no_class_in_common(tmp_path, truth):
    messages = [message(stamp(0), track(4, square(), class_name='star'))]
    with pytest.raises(ValueError, match='classes in common'):
        scored(tmp_path, messages, truth)


def test_two_models_in_one_recording(tmp_path, truth):
    messages = [
        message(stamp(0), track(4, square())),
        message(stamp(1), track(4, square(), class_name='star')),
    ]
    with pytest.raises(BagError, match="class 1 is 'square' and 'star' there"):
        scored(tmp_path, messages, truth)


def test_the_truth_of_another_recording(tmp_path, truth):
    with pytest.raises(DatasetError, match='No annotated frame has the stamp of one of the 1 res'):
        scored(tmp_path, [message(stamp(1000), track(4, square()))], truth)


def test_topics(tmp_path, truth):
    bag = write_bag(tmp_path / 'other', {'/header': [header_of(0)]})
    with pytest.raises(BagError, match=r'videomt_ros/msg/TrackArray in .*: /header \(std_msgs'):
        RecordedTracks(bag, '', truth)
    bag = record(tmp_path / 'bag', [message(stamp(0))], '/front/segmentation/tracks')
    with pytest.raises(BagError, match="got '/rear'. It has: /front/segmentation/tracks"):
        RecordedTracks(bag, '/rear', truth)
    assert RecordedTracks(bag, 'front/segmentation/tracks', truth).num_messages == 1


def test_an_empty_topic(tmp_path, truth):
    with pytest.raises(BagError, match='the topic is empty'):
        RecordedTracks(record(tmp_path / 'bag', []), '', truth)


def test_a_recording_that_was_cut_off(tmp_path):
    truth = write_truth(tmp_path / 'truth.json', [stamp(t) for t in range(3000)])
    rng = np.random.default_rng(0)  # noise, for more than one chunk of mcap
    messages = [message(stamp(t), track(4, rng.random(SIZE) > 0.5)) for t in range(3000)]
    bag = record(tmp_path / 'bag', messages)
    (file,) = bag.glob('*.mcap')
    data = file.read_bytes()
    file.write_bytes(data[: int(0.8 * len(data))])
    recorded = RecordedTracks(bag, '', truth)
    found = [index for index, _ in recorded.frames()]
    assert 0 < len(found) < 3000
    assert found == list(range(len(found)))
    assert recorded.num_missed == 3000 - len(found)
    assert f'damaged or was cut off: {len(found)} results' in recorded.notes[-1]


def test_segments_are_those_that_were_published():
    content = message(
        stamp(0), track(7, square(3)), track(9, None, state=LOST, area=0), track(8, square(20))
    )
    segments = segments_of(content, stamp(0), 2)
    np.testing.assert_array_equal(segments.ids, 7 * square(3) + 8 * square(20))
    assert [s.track_id for s in segments.segments] == [7, 9, 8]
    assert [s.area for s in segments.segments] == [25, 0, 25]
    assert segments.segments[0].box == (3, 5, 8, 10)
    assert segments.segments[1].state is TrackState.LOST


def test_it_needs_neither_torch_nor_ros(tmp_path, truth):
    bag = record(tmp_path / 'bag', [message(stamp(t), track(4, square())) for t in range(4)])
    code = (
        'import sys\n'
        "for name in ('torch', 'timm', 'rclpy'): sys.modules[name] = None\n"
        'from videomt_ros.cli import main\n'
        'sys.exit(main(sys.argv[1:]))'
    )
    out = tmp_path / 'out'
    command = ['evaluate', '--results-bag', str(bag), '--truth', str(truth), '--out', str(out)]
    run = subprocess.run(
        [sys.executable, '-c', code, *command], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert json.loads((out / 'metrics.json').read_text())['live']['figures']['AP'] == 1
    assert run.stdout.splitlines()[-1] == str(out / 'report.html')


def test_results_are_not_mixed(tmp_path, truth, capsys):
    bag = record(tmp_path / 'bag', [message(stamp(t), track(4, square())) for t in range(4)])
    command = ['evaluate', '--results-bag', str(bag), '--truth', str(truth)]
    out = tmp_path / 'out'
    assert main([*command, '--out', str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / 'report.html')
    assert main([*command, '--out', str(out)]) == 1
    assert 'holds results already' in capsys.readouterr().err


def test_bad_records_of_the_truth_are_left_out_on_request(tmp_path, truth):
    content = json.loads(truth.read_text())
    bad = {**content['annotations'][0], 'id': 99, 'iscrowd': 'no'}
    truth.write_text(json.dumps({**content, 'annotations': [*content['annotations'], bad]}))
    bag = record(tmp_path / 'bag', [message(stamp(t), track(4, square())) for t in range(4)])
    with pytest.raises(DatasetError):
        evaluate_results_bag(bag, '', truth, tmp_path / 'out')
    metrics = evaluate_results_bag(bag, '', truth, tmp_path / 'out', skip_bad=True)
    assert metrics['left_out'] == metrics['live']['left_out']
    assert [text.partition(',')[0] for text in metrics['left_out']] == [
        'truth.json: Annotation 99: expected iscrowd to be 0 or 1'
    ]
    assert metrics['live']['figures']['HOTA'] == 1
