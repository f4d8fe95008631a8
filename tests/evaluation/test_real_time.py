"""The score in real time: the demo model on a drawn scene, at given latencies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.dataset import Dataset, VideoFrame
from videomt_ros.datasets.formats.ytvis import load_ytvis, load_ytvis_results
from videomt_ros.datasets.synthetic.writing import write_dataset
from videomt_ros.evaluation.evaluator import evaluate
from videomt_ros.evaluation.real_time import RealTime
from videomt_ros.evaluation.scoring import score_files
from videomt_ros.inference import VideoStream
from videomt_ros.model import load_model

NUM_FRAMES = 10
NAMES = {'ytvis': 'ytvis2019', 'vipseg': 'vipseg', 'vspw': 'vspw'}
MAIN = {'ytvis': 'AP', 'vipseg': 'VPQ', 'vspw': 'mIoU'}


@pytest.fixture(scope='module')
def net():
    return load_model('demo')


@pytest.fixture(scope='module')
def datasets(tmp_path_factory) -> dict[str, Dataset]:
    home = tmp_path_factory.mktemp('data')
    for family in NAMES:
        write_dataset(family, home / family, 2, NUM_FRAMES, seed=29)
    return {family: open_dataset(name, home / family) for family, name in NAMES.items()}


def first_video(dataset: Dataset) -> Dataset:
    return replace(dataset, videos=dataset.videos[:1])


def clocked(dataset: Dataset, net, out: Path, asked: RealTime) -> dict[str, Any]:
    metrics = evaluate(dataset, net, out, modes=('live',), real_time=asked)
    assert metrics is not None
    return metrics


@pytest.mark.parametrize('family', list(NAMES))
def test_without_latency_it_is_the_live_score(tmp_path, datasets, net, family):
    dataset = datasets[family]
    metrics = clocked(dataset, net, tmp_path / 'out', RealTime(latency_ms=0.0))
    live, real = metrics['live'], metrics['real_time']
    assert real['scores']['figures'] == live['figures']
    assert (real['frames'], real['processed'], real['dropped']) == (20, 20, 0)
    assert real['without_result'] == 0
    name = MAIN[family]
    assert real['sweep_figure'] == name
    assert [entry['latency_ms'] for entry in real['sweep']] == [0, 25, 50, 100, 200, 400]
    assert real['sweep'][0]['figure'] == live['figures'][name] > 0.5
    assert real['sweep'][-1]['figure'] < live['figures'][name]
    # What stands in the folder gives the same figures again.
    results = tmp_path / 'out' / 'real_time'
    again = score_files(
        dataset.family,
        dataset.truth,
        results / 'results.json' if family == 'ytvis' else results,
        dataset.truth_masks,
        dataset.split,
    )
    assert again.figures == real['scores']['figures']
    assert not list((tmp_path / 'out').glob('.sweep-*'))


def test_each_frame_has_the_newest_result_of_a_stream_on_the_frames_taken(tmp_path, datasets, net):
    """At 10 Hz and 150 ms, frames are taken at 0, 150, 300, ... and ready 150 ms later."""
    dataset = first_video(datasets['ytvis'])
    metrics = clocked(dataset, net, tmp_path / 'out', RealTime(latency_ms=150.0, sweep_ms=()))
    # 0 at 0; 1 waits and is taken at 150; 2 waits, 3 replaces it at 300 and is taken; and so on.
    taken = [0, 1, 3, 4, 6, 7, 9]
    seen_by = [None, None, 0, 1, 1, 3, 4, 4, 6, 7]
    real = metrics['real_time']
    assert (real['processed'], real['dropped']) == (7, 3)
    assert (real['annotated'], real['without_result']) == (10, 2)
    stream = VideoStream(net, 'instance')
    of_frame = {}
    for number, frame in enumerate(dataset.videos[0].frames()):
        if number in taken:
            of_frame[number] = stream.push(frame.image, frame.stamp_ns)
    truth = load_ytvis(dataset.truth[0])
    results = load_ytvis_results(tmp_path / 'out' / 'real_time', truth.videos, truth.categories)
    expected: dict[int, list[int]] = {}
    for index, seen in enumerate(seen_by):
        for segment in of_frame[seen].segments if seen is not None else ():
            areas = expected.setdefault(segment.track_id, [0] * NUM_FRAMES)
            areas[index] = segment.area
    found = [
        [0 if mask is None else area_of(mask) for mask in track.masks]
        for track in results[dataset.videos[0].video_id]
    ]
    assert sorted(found) == sorted(expected.values()) != []


def area_of(mask: Any) -> int:
    from pycocotools import mask as coco_mask

    return int(coco_mask.area(mask))


def test_a_video_that_is_played_faster_loses_more(tmp_path, datasets, net):
    counts = []
    for number, (factor, latency_ms) in enumerate([(1, 100.0), (2, 50.0), (2, 100.0)]):
        out = tmp_path / str(number)
        real = clocked(datasets['ytvis'], net, out, RealTime(factor, latency_ms, ()))['real_time']
        counts.append((real['processed'], real['dropped'], real['scores']['figures']['AP']))
    # Twice as fast with half the latency is the same film.
    assert counts[0] == counts[1]
    assert counts[2][:2] == (10, 8)  # of ten frames: 0, 2, 4, 6, 8; the last one still waits
    assert counts[2][2] < counts[0][2]


def test_two_runs_are_equal(tmp_path, datasets, net):
    dataset = first_video(datasets['vipseg'])
    asked = RealTime(latency_ms=130.0, sweep_ms=(50.0,))
    first, second = (clocked(dataset, net, tmp_path / name, asked) for name in ('a', 'b'))
    assert first['real_time'] == second['real_time']


def test_with_measured_times(tmp_path, datasets, net):
    metrics = clocked(datasets['ytvis'], net, tmp_path / 'out', RealTime(sweep_ms=()))
    real = metrics['real_time']
    assert real['latency_ms'] is None
    assert real['measured_ms']['p50'] > 0
    assert real['frames'] == 20
    assert 2 <= real['processed'] <= 20 - real['dropped']
    assert real['without_result'] >= 2  # of each video the first frame at least
    written = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
    assert written['real_time'] == json.loads(json.dumps(real))


class Breaks:
    """A video whose second image cannot be read."""

    video_id, name, size, frame_names = 1, 'breaks', (64, 64), ('a', 'b')

    def frames(self):
        yield VideoFrame(0, 0, np.zeros((64, 64, 3), np.uint8))
        raise ValueError('no such image')


def test_a_video_that_fails_is_named(tmp_path, datasets, net):
    dataset = Dataset('x', 'ytvis', datasets['ytvis'].categories, (Breaks(),))
    real = clocked(dataset, net, tmp_path / 'out', RealTime(latency_ms=10.0))['real_time']
    (failure,) = real['failures']
    assert (failure['video'], failure['mode']) == ('breaks', 'real_time')
    assert 'no such image' in failure['error']
    assert real['scores'] == {}
    assert all(entry['figure'] is None for entry in real['sweep'])


def test_impossible_requests():
    with pytest.raises(ValueError, match='factor above 0, got 0'):
        RealTime(0.0)
    with pytest.raises(ValueError, match='latency from 0 to below 1e9 ms, got -1'):
        RealTime(latency_ms=-1.0)
