"""`videomt benchmark cameras`: what it runs and prints. No timing is asserted."""

from __future__ import annotations

import json

import pytest
import torch

from videomt_ros.cli import main
from videomt_ros.speed.cameras import build_network, time_rounds
from videomt_ros.speed.frame import random_images
from videomt_ros.speed.transformers_port import TINY

FRAME = (72, 128)


def build(device: str = 'cpu', dtype: torch.dtype = torch.float32):
    pytest.importorskip('transformers', minversion='5.8')
    return build_network(
        TINY,
        image_size=64,
        frame=FRAME,
        num_segments=2,
        device=torch.device(device),
        dtype=dtype,
    )


@pytest.mark.parametrize('depth', [1, 2])
def test_every_number_of_cameras_has_a_row(depth):
    rounds = time_rounds(build(), random_images(FRAME), (1, 3), 2, depth)
    assert [entry.cameras for entry in rounds] == [1, 3]
    for entry in rounds:
        assert entry.network_ms > 0
        assert depth == 2 or entry.network_ms < entry.round_ms
        assert entry.frames_per_s == pytest.approx(entry.cameras * 1e3 / entry.round_ms)


@pytest.mark.gpu
@pytest.mark.parametrize('depth', [1, 2])
def test_rounds_run_on_a_gpu(depth):
    net = build('cuda', torch.float16)
    (entry,) = time_rounds(net, random_images(FRAME), (2,), 2, depth)
    assert entry.memory_bytes > 0


def test_the_command_prints_a_row_for_each_number(capsys, tmp_path):
    path = tmp_path / 'cameras.json'
    words = ['benchmark', 'cameras', '--device', 'cpu', '--cameras', '1', '2', '--repeats', '1']
    assert main([*words, '--json', str(path)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith('| ')]
    assert [row.split('|')[1].strip() for row in rows[1:]] == ['1', '2']
    results = json.loads(path.read_text())['results']
    assert [result['cameras'] for result in results] == [1, 2]
    assert set(results[0]['samples_ms']) == {'round', 'network', 'cpu'}
