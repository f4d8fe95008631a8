from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np
import pytest

from videomt_ros.datasets.recording import Recording, RecordingWriter
from videomt_ros.datasets.synthetic.scene import ALL_NAMES, CLASS_NAMES, Scene
from videomt_ros.evaluation.metrics.overlap import FrameOverlap
from videomt_ros.evaluation.report.contact_sheet import (
    _evenly_in_time,
    contact_sheet,
    write_contact_sheet,
)
from videomt_ros.evaluation.report.demo import (
    _matched_iou,
    _overlap,
    build_report,
    write_tracks,
)

START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000
HEALTH = {'received': '10', 'processed': '8', 'dropped': '1', 'rejected': '1', 'failed': '0'}


@pytest.fixture
def scene() -> Scene:
    return Scene(4, height=96, width=120, num_frames=10)


def as_track(track_id: int, class_id: int, area: int) -> dict[str, Any]:
    name = ALL_NAMES[class_id]
    return {
        'id': track_id,
        'class_id': class_id,
        'class_name': name,
        'is_thing': name in CLASS_NAMES,
        'area': area,
    }


def record(tmp_path, scene: Scene, numbers: list[int], **renamed: str) -> Recording:
    """Write the truth as tracks 11, 12, ..., with latencies of 10, 20, ... ms."""
    writer = RecordingWriter(tmp_path / 'recording', 10)
    for place, number in enumerate(numbers):
        image, ids = scene.frame(number)
        stamp_ns = START_NS + number * PERIOD_NS
        tracks = [
            as_track(identity + 10, scene.class_of[identity], 9)
            for identity in np.unique(ids[ids > 0]).tolist()
        ]
        for track in tracks:
            track['class_name'] = renamed.get(track['class_name'], track['class_name'])
        tracks.append(as_track(99, 0, 0))  # lost: not seen
        received_ns = stamp_ns + 10_000_000 * (place + 1)
        line = {'stamp_ns': stamp_ns, 'received_ns': received_ns, 'tracks': tracks}
        writer.add_tracks(line)
        writer.add_ids(stamp_ns, np.where(ids, ids + 10, 0).astype(np.uint16))
        writer.add_overlay(stamp_ns, image)
    writer.close()
    return Recording(tmp_path / 'recording')


def sent_by_stamp() -> dict[int, int]:
    return {START_NS + number * PERIOD_NS: number for number in range(10)}


def figures_of(table: str) -> dict[str, str]:
    """Parse the figures of the table by name."""
    return {line[2:16].strip(): line[16:24].strip() for line in table.splitlines()}


def test_report_of_perfect_tracks(tmp_path, scene):
    report = build_report(record(tmp_path, scene, [0, 1, 2, 4, 7]), sent_by_stamp(), HEALTH, scene)
    assert (report.sent, report.received, report.processed) == (10, 10, 8)
    assert (report.dropped, report.rejected, report.kept) == (1, 1, 5)
    assert (report.latency_p50_ms, report.latency_p95_ms) == pytest.approx((30, 48))
    assert (report.sent_hz, report.processed_hz) == pytest.approx((10, 4 / 0.74))
    assert 99 not in report.track_ids and len(report.track_ids) > 1
    scores = report.scores
    assert scores is not None
    assert (scores.mean_iou, scores.found, scores.num_switches) == (1, 1, 0)
    assert (scores.classes_right, scores.num_frames) == (1, 5)
    figures = figures_of(report.table())
    assert (figures['frames sent'], figures['dropped']) == ('10', '1')
    assert (figures['latency p50'], figures['mean IoU']) == ('30 ms', '1.00')
    assert figures['objects found'] == figures['classes right'] == '100%'


def test_things_and_stuff_are_scored_apart(tmp_path):
    scene = Scene(2, height=96, width=120, num_frames=10, stuff=True)
    numbers = [0, 3, 6]
    truth = np.stack([scene.frame(number)[1] for number in numbers])
    names = np.array(['', *(ALL_NAMES[k] for k in scene.class_of.values())])[truth]
    area = {name: np.count_nonzero(names == name) for name in ('sky', 'ground', 'wall')}
    assert min(area.values()) > 0

    recording = record(tmp_path, scene, numbers, ground='sky')
    report = build_report(recording, sent_by_stamp(), HEALTH, scene)
    scores = report.scores
    assert scores is not None
    things = [identity for identity, k in scene.class_of.items() if k < len(CLASS_NAMES)]
    shares = [(frame == i).mean() for frame in truth for i in things]
    assert scores.num_visible == sum(share >= 0.002 for share in shares)
    assert (scores.mean_iou, scores.found, scores.classes_right) == (1, 1, 1)
    # All ground is called sky: the sky has too much, the ground nothing, the walls are right.
    sky = area['sky'] / (area['sky'] + area['ground'])
    assert report.stuff_iou == pytest.approx((sky + 0 + 1) / 3)
    assert figures_of(report.table())['stuff mIoU'] == f'{(sky + 1) / 3:.2f}'


def row(text: str) -> np.ndarray:
    """Build an image of one row, in which a digit is an id and 0 is nothing."""
    return np.array([[int(digit) for digit in text]], np.uint16)


def overlap(true_ids: str, ids: str) -> FrameOverlap:
    return _overlap(row(true_ids), range(1, 10), row(ids), range(1, 10))


@pytest.mark.parametrize(
    ('true_ids', 'ids', 'expected'),
    [
        ('11102200', '01100333', 2 / 3 + 1 / 4),
        ('1122', '5500', 1),
        # Track 5 covers both, but matches one: IoU 2/3 with object 1, 1/3 with object 2.
        ('112', '555', 2 / 3),
        # 1-5 has 6/12 and is found. The two other pairs, 2-5 and 1-6, would add up to 3/9 + 3/9.
        ('111111111222', '666555555555', 6 / 12),
        ('0000', '5500', 0),
        ('1100', '0000', 0),
    ],
)
def test_iou_of_matched_things(true_ids, ids, expected):
    assert _matched_iou(overlap(true_ids, ids)) == pytest.approx(expected)


def test_small_things_do_not_count():
    # Of 1000 pixels 2 are visible, 1 is not.
    for area, visible in ((1, 0), (2, 1)):
        true_ids = np.zeros((20, 50), np.uint16)
        true_ids[0, :area] = 1
        found = _overlap(true_ids, [1], np.zeros_like(true_ids), [])
        assert found.iou.shape == (visible, 0)


def test_a_change_of_the_track_is_a_switch_whatever_its_class(tmp_path, scene):
    writer = RecordingWriter(tmp_path / 'recording', 10)
    for number in range(3):
        stamp_ns = START_NS + number * PERIOD_NS
        ids = scene.frame(number)[1]
        shift, class_id = ((10, 0), (10, 1), (20, 2))[number]
        tracks = [as_track(i + shift, class_id, 9) for i in np.unique(ids[ids > 0]).tolist()]
        writer.add_tracks({'stamp_ns': stamp_ns, 'received_ns': stamp_ns, 'tracks': tracks})
        writer.add_ids(stamp_ns, np.where(ids, ids + shift, 0).astype(np.uint16))
    writer.close()
    scores = build_report(Recording(tmp_path / 'recording'), sent_by_stamp(), HEALTH, scene).scores
    assert scores.num_found == scores.num_visible
    assert scores.num_switches == len(tracks)  # of the last frame
    assert scores.switches_per_100_frames == pytest.approx(100 * scores.num_switches / 3)
    assert 0 < scores.classes_right < 1


def test_stuff_that_is_painted_where_there_is_none_is_no_object(tmp_path, scene):
    """A model of things and stuff can run on scenes without stuff."""
    writer = RecordingWriter(tmp_path / 'recording', 10)
    true_ids = scene.frame(0)[1]
    writer.add_tracks(
        {
            'stamp_ns': START_NS,
            'received_ns': START_NS + 1,
            'tracks': [as_track(5, ALL_NAMES.index('sky'), 9)],
        }
    )
    writer.add_ids(START_NS, np.where(true_ids, 5, 0).astype(np.uint16))
    writer.close()
    report = build_report(Recording(tmp_path / 'recording'), sent_by_stamp(), HEALTH, scene)
    assert report.scores is not None
    assert (report.scores.mean_iou, report.scores.num_found) == (0, 0)
    assert report.stuff_iou is None and 'stuff' not in report.table()


def test_classes_are_compared_by_name(tmp_path, scene):
    names = {ALL_NAMES[k] for k in scene.class_of.values()}
    recording = record(tmp_path, scene, [0, 1], **dict.fromkeys(names, 'dog'))
    report = build_report(recording, sent_by_stamp(), HEALTH, scene)
    assert (report.scores.found, report.scores.classes_right) == (1, 0)


def test_report_without_truth(tmp_path, scene):
    report = build_report(record(tmp_path, scene, [0]), sent_by_stamp(), HEALTH, None)
    assert report.scores is None and 'mean IoU' not in report.table()


def test_shares_of_nothing_are_dashes(tmp_path, scene):
    writer = RecordingWriter(tmp_path / 'recording', 10)
    writer.add_tracks({'stamp_ns': START_NS, 'received_ns': START_NS + 1, 'tracks': []})
    writer.add_ids(START_NS, np.zeros((96, 120), np.uint16))
    writer.close()
    recording = Recording(tmp_path / 'recording')
    figures = figures_of(build_report(recording, sent_by_stamp(), HEALTH, scene).table())
    assert figures['objects found'] == '0%'
    assert figures['classes right'] == '-'


def test_results_of_images_that_were_not_sent_are_left_out(tmp_path, scene):
    recording = record(tmp_path, scene, [2, 3])
    sent = sent_by_stamp()
    del sent[START_NS + 3 * PERIOD_NS]
    report = build_report(recording, sent, HEALTH, scene)
    assert (report.kept, report.unknown, report.scores.num_frames) == (1, 1, 1)
    assert figures_of(report.table())['of others'] == '1'
    events = [{'stamp_ns': stamp, 'number': n, 'source_ns': 0} for stamp, n in sent.items()]
    write_tracks(recording, events, tmp_path / 'tracks.jsonl')
    (line,) = (tmp_path / 'tracks.jsonl').read_text().splitlines()
    assert json.loads(line)['frame'] == 2


def test_tracks_tell_where_their_image_came_from(tmp_path, scene):
    recording = record(tmp_path, scene, [3])
    stamp_ns = START_NS + 3 * PERIOD_NS
    sent = [{'stamp_ns': stamp_ns, 'number': 3, 'source_ns': 42}]
    write_tracks(recording, sent, tmp_path / 'tracks.jsonl')
    (line,) = (tmp_path / 'tracks.jsonl').read_text().splitlines()
    found = json.loads(line)
    assert (found['frame'], found['source_ns'], found['stamp_ns']) == (3, 42, stamp_ns)
    assert found['tracks'][-1]['id'] == 99


@pytest.mark.parametrize(('count', 'shown'), [(10, 8), (3, 3), (1, 1)])
def test_contact_sheet_of_a_recording(tmp_path, scene, count, shown):
    recording = record(tmp_path, scene, list(range(count)))
    path = tmp_path / 'sheet.png'
    write_contact_sheet(recording, START_NS, 'a title', path)
    page = cv2.imread(str(path))
    columns, rows = min(4, shown), -(-shown // 4)
    # The images are 120 x 96 pixels and are shown four times as large.
    assert page.shape[1] == 12 + columns * (480 + 12)
    assert rows * 384 < page.shape[0] < rows * 460 + 60


def test_images_are_chosen_by_time_and_not_by_number():
    # A frame a second for 30 s, then a burst.
    stamps = [i * 10**9 for i in range(30)] + [30 * 10**9 + i for i in range(100)]
    chosen = _evenly_in_time(stamps, 4)
    assert [round(stamp_ns / 1e9) for stamp_ns in chosen] == [4, 11, 19, 26]
    assert _evenly_in_time([5, 6], 8) == [5, 6]


def test_images_lie_row_by_row_with_their_colours():
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    images = [np.full((30, 40, 3), colour, np.uint8) for colour in colours]
    page = contact_sheet(images, ['a', 'b', 'c'], 'title', columns=2, tile_width=40)
    found = [np.argwhere((page == colour).all(axis=2)) for colour in colours]
    assert all(len(pixels) == 30 * 40 for pixels in found)
    first, second, third = (pixels.min(axis=0) for pixels in found)
    assert first[0] == second[0] < third[0] and first[1] == third[1] < second[1]


def test_large_images_shrink():
    page = contact_sheet([np.zeros((1080, 1920, 3), np.uint8)], [''], '', tile_width=480)
    assert page.shape[1] == 480 + 24 and page.shape[0] < 270 + 100
