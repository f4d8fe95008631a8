"""`videomt benchmark shared`: what it runs and prints. No timing is asserted."""

from __future__ import annotations

import json

import pytest

from tests.model.test_shared import CONFIG, OTHER, make
from videomt_ros.cli import main
from videomt_ros.model import save_model
from videomt_ros.speed.shared import random_networks


def test_the_random_networks_share_an_encoder():
    group = random_networks('S', 3)
    assert group.num_encoders == 1
    assert [net.config.num_classes for net in group] == [40, 124, 40]


def test_the_command_prints_time_and_memory_of_each_side(tmp_path, capsys):
    first = make(CONFIG, 1)
    nets = [first, make(OTHER, 2, first)]
    paths = [str(tmp_path / f'{n}.safetensors') for n in range(2)]
    for net, path in zip(nets, paths, strict=True):
        save_model(net, path)
    file = tmp_path / 'shared.json'
    words = ['benchmark', 'shared', '--models', *paths, '--image-size', '64', '96']
    options = ['--repeats', '2', '--device', 'cpu', '--precision', 'fp32', '--json', str(file)]
    assert main([*words, *options]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith('| ')]
    sides = ['one network', '2 networks', '2 decoders on one encoder']
    assert [row.split('|')[1].strip() for row in rows[1:]] == sides
    results = json.loads(file.read_text())['results']
    assert [result['side'] for result in results] == sides
    assert all(min(result['samples_ms']['step']) > 0 for result in results)
    encoder = sum(value.numel() * 4 for value in first.backbone.state_dict().values())
    apart, shared = (result['weight_bytes'] for result in results[1:])
    assert shared == pytest.approx(apart - encoder, rel=0.02)


def test_models_that_share_nothing_are_refused(tmp_path, capsys):
    paths = [str(tmp_path / f'{n}.safetensors') for n in range(2)]
    for n, path in enumerate(paths):
        save_model(make(CONFIG, n), path)
    assert main(['benchmark', 'shared', '--models', *paths]) != 0
    assert 'its weights differ' in capsys.readouterr().err
