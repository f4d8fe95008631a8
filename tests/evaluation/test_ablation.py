"""`videomt benchmark tracker`: what it varies, on which videos, and what it prints."""

from __future__ import annotations

import json
import math
from dataclasses import fields

import pytest

from tests.evaluation.made_videos import MadeVideo, made_dataset
from videomt_ros.cli import main
from videomt_ros.evaluation.ablation import KINDS, TUNED, draw_scenes, split_videos, variants
from videomt_ros.inference.stream_settings import StreamSettings
from videomt_ros.inference.tracker_constants import TrackerConstants


def test_each_constant_is_dropped_halved_and_doubled():
    default, slots, *changed = variants()
    assert default.constants == slots.constants == TrackerConstants()
    assert slots.settings == {'association': 'slots'}
    assert default.settings == {}
    for variant in changed:
        (name,) = [
            item.name
            for item in fields(TrackerConstants)
            if getattr(variant.constants, item.name) != getattr(TrackerConstants(), item.name)
        ] + list(variant.settings)
        assert name == variant.subject
        StreamSettings(**variant.settings)
    names = {f.name for f in fields(TrackerConstants)} | {'same_object_iou', 'jump_sizes'}
    assert {variant.subject for variant in changed} == names
    assert {(v.subject, v.change) for v in changed} >= {
        ('jump_sizes', change) for change in ('off', 'half', 'double')
    }


def test_changed_values_differ_and_stay_within_the_limits():
    for item in TUNED:
        values = [value for _, value in item.changes()]
        assert len({item.default, *values}) == len(values) + 1 > 2
        for value in values:
            assert value == item.off or 0 < value <= item.limit
            assert math.isinf(value) or type(value) is type(item.default)


def test_a_constant_that_does_not_exist_is_named(capsys):
    assert main(['benchmark', 'tracker', '--constants', 'jump']) == 1
    assert 'Expected constants out of same_object_iou' in capsys.readouterr().err


def test_kinds_of_scenes_have_seeds_of_their_own(tmp_path):
    names = set()
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        dataset = draw_scenes(kind, tmp_path / kind, 2, 2, (32, 40))
        assert dataset.truth
        names |= {video.name for video in dataset.videos}
    assert len(names) == 2 * len(KINDS)


def test_sets_hold_every_video_once():
    dataset = made_dataset('ytvis', [MadeVideo(video_id=k) for k in range(7)])
    sets = split_videos(dataset, 3)
    assert [len(part.videos) for part in sets] == [2, 2, 3]
    assert [video for part in sets for video in part.videos] == list(dataset.videos)
    with pytest.raises(ValueError, match='Expected 8 or more videos for 8 sets, made has 7'):
        split_videos(dataset, 8)


def test_the_command_prints_a_table_for_each_kind_of_scenes(tmp_path, capsys):
    path = tmp_path / 'tracker.json'
    options = '--scenes open stuff --sets 2 --videos 1 --frames 12 --size 80x64 --precision fp32'
    words = f'benchmark tracker --constants same_object_iou {options} --json {path}'
    assert main(words.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(('open: ', 'stuff: ')) for line in lines) == 2
    for subject in ('default', 'association', 'same_object_iou'):
        number = 3 if subject == 'same_object_iou' else 1
        assert sum(line.startswith(f'| {subject} ') for line in lines) == 2 * number
    results = json.loads(path.read_text())['results']
    assert [r['change'] for r in results] == ['', 'slots', 'off', 'half', 'double'] * 2
    assert [set(r['figures'][0]) for r in (results[0], results[5])] == [
        {'AP', 'IDF1', 'HOTA', 'AssA', 'IDSW/100'},
        {'VPQ', 'IDF1', 'HOTA', 'AssA', 'IDSW/100'},
    ]
    for result in results:
        assert len(result['figures']) == 2
        for name, (mean, spread) in result['changes'].items():
            pairs = zip(results[0]['figures'], result['figures'], strict=True)
            if result['scenes'] == 'open':
                values = [new[name] - old[name] for old, new in pairs]
                assert mean == pytest.approx(sum(values) / 2)
                assert spread == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))


def test_a_data_set_needs_its_folder(capsys):
    assert main(['benchmark', 'tracker', '--dataset', 'ytvis2019']) == 1
    assert '--dataset and --root together' in capsys.readouterr().err


def test_videos_of_a_data_set_take_the_place_of_scenes(tmp_path, capsys):
    draw_scenes('open', tmp_path, 2, 6, (64, 80))
    words = (
        f'benchmark tracker --dataset ytvis2019 --root {tmp_path} --sets 1 --set confirm_frames=1'
    )
    assert main([*words.split(), '--constants', 'size_ratio']) == 0
    assert 'ytvis2019; 2 videos in 1 sets' in capsys.readouterr().out
