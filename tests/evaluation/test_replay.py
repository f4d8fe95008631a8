"""Recorded outputs that are replayed to streams score as the network itself does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.evaluation.made_videos import MadeVideo, made_dataset
from videomt_ros.evaluation.ablation import draw_scenes
from videomt_ros.evaluation.evaluator import evaluate
from videomt_ros.evaluation.replay import Recording
from videomt_ros.inference.tracker_constants import TrackerConstants
from videomt_ros.model import load_model


@pytest.fixture(scope='module', params=[('demo', 'crowd'), ('demo_panoptic', 'stuff')])
def recorded(request, tmp_path_factory):
    model, kind = request.param
    folder = tmp_path_factory.mktemp('recorded')
    (folder / 'data').mkdir()
    (folder / 'outputs').mkdir()
    dataset = draw_scenes(kind, folder / 'data', 2, 20, (64, 80))
    net = load_model(model)
    return dataset, net, Recording(dataset, net, folder / 'outputs')


@pytest.mark.parametrize('settings', [{}, {'association': 'slots', 'confirm_frames': 1}])
def test_a_replay_has_the_figures_of_an_evaluation(recorded, tmp_path, settings):
    dataset, net, recording = recorded
    metrics = evaluate(dataset, net, tmp_path, modes=('live',), settings=settings)
    report = recording.score(TrackerConstants(), settings)
    assert report.figures == metrics['live']['figures']
    assert report.switches == metrics['live']['switches']
    assert recording.num_frames == 40


def test_settings_reach_the_tracker_and_leave_the_recording_alone(recorded):
    _, _, recording = recorded
    default = recording.score(TrackerConstants(), {}).figures
    assert recording.score(TrackerConstants(), {'same_object_iou': 1.0}).figures != default
    assert recording.score(TrackerConstants(), {}).figures == default


def test_data_sets_that_have_no_score_of_tracks_are_refused(recorded, tmp_path):
    dataset, net, _ = recorded
    with pytest.raises(ValueError, match='made has no truth'):
        Recording(made_dataset('ytvis', [MadeVideo()]), net, tmp_path)
    with pytest.raises(ValueError, match='has no identities'):
        Recording(replace(dataset, family='vspw'), net, tmp_path)
