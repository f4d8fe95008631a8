"""`videomt benchmark stream`: what it runs and prints. No timing is asserted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from videomt_ros.cli import main
from videomt_ros.inference import VideoStream
from videomt_ros.speed.frame import FRAME_NS
from videomt_ros.speed.stream import STAGES, MadeNetwork, draw_scene, time_frames


@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
def test_made_up_objects_are_tracked(task):
    stream = VideoStream(MadeNetwork(4, (120, 160), task))
    image = np.zeros((120, 160, 3), np.uint8)
    results = [stream.push(image, n * FRAME_NS) for n in range(12)]
    ids = [{segment.track_id for segment in result.segments} for result in results]
    # In panoptic results objects may cover most of a band of stuff, which is dropped then.
    assert ids[-1] == ids[-6]
    assert len(ids[-1]) >= 4


def test_every_stage_is_timed():
    times = time_frames(MadeNetwork(3, (120, 160), 'instance'), draw_scene((120, 160)), 2)
    assert times.frame == (120, 160)
    assert times.num_segments == 3
    assert tuple(times.stages_ms) == STAGES
    assert min(times.stages_ms.values()) > 0


def test_the_command_prints_a_table_for_each_network(capsys, tmp_path):
    path = tmp_path / 'stream.json'
    options = [
        '--sizes',
        '64x48',
        '128x96',
        '--precision',
        'fp32',
        '--objects',
        '2',
        '3',
        '--repeats',
        '1',
        '--json',
        str(path),
    ]
    assert main(['benchmark', 'stream', *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    titles = [line for line in lines if line.endswith(' 64 x 48 | 128 x 96 |')]
    assert [title.split(';')[0].lstrip('| ') for title in titles] == [
        'demo on drawn scenes, engine eager, float32',
        '2 made-up objects, instance, no network',
        '3 made-up objects, instance, no network',
    ]
    assert sum(line.startswith('| masks to segments ') for line in lines) == 3
    results = json.loads(path.read_text())['results']
    assert [(r['width'], r['height']) for r in results] == [(64, 48), (128, 96)] * 3
    assert tuple(results[0]['median_ms']) == STAGES
