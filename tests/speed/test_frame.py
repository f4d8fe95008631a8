"""`videomt benchmark model`: what it compares, and what it prints. No timing is asserted."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from videomt_ros.cli import main
from videomt_ros.cli.benchmark_model import rows
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.model import NetworkConfig
from videomt_ros.model.config import VIT_SIZES
from videomt_ros.speed.frame import (
    PARTS,
    Side,
    compare,
    matching_test_size,
    measure,
)
from videomt_ros.speed.machine import cpu_name
from videomt_ros.speed.parts import LATERAL
from videomt_ros.speed.transformers_port import TINY as SIZES
from videomt_ros.speed.transformers_port import distinct_queries, port_sizes

TINY = {'image_size': 64, 'frame': (72, 128), 'num_classes': 5, 'repeats': 2}


@pytest.fixture
def transformers():
    return pytest.importorskip('transformers', minversion='5.8')


def test_both_sides_draw_the_segments_that_were_asked_for(transformers):
    for num_segments in (1, 2):
        comparison = compare(SIZES, num_segments=num_segments, **TINY)
        assert comparison.ours.num_segments == num_segments
        assert comparison.port.num_segments == num_segments


def test_both_sides_have_the_same_weights(transformers):
    comparison = compare(SIZES, num_segments=2, **TINY)
    assert comparison.difference < 1e-4
    assert comparison.port.input_size == (64, 64)
    height, width = comparison.ours.input_size
    assert height * width >= 64 * 64
    assert comparison.config.num_queries == SIZES['num_queries']
    for side in (comparison.ours, comparison.port):
        assert tuple(side.samples_ms) == PARTS
        for samples in side.samples_ms.values():
            assert len(samples) == TINY['repeats'] and min(samples) > 0


def test_half_precision_runs_on_both_sides(transformers):
    comparison = compare(SIZES, num_segments=2, dtype=torch.bfloat16, **TINY)
    assert comparison.difference < 1
    assert comparison.ours.num_segments == comparison.port.num_segments == 2


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_a_gpu_gives_the_same_segments(transformers, dtype):
    comparison = compare(SIZES, num_segments=2, device=torch.device('cuda'), dtype=dtype, **TINY)
    assert comparison.difference < 0.1
    assert comparison.ours.num_segments == comparison.port.num_segments == 2


def test_the_input_has_as_many_patches_as_the_square():
    config = NetworkConfig(num_classes=1)
    for image_size in (640, 1280, 448):
        size = matching_test_size(config, image_size, (720, 1280))
        areas = [
            np.prod(Geometry.of((720, 1280), NetworkConfig(1, test_size=side)).padded_size)
            for side in (size - 32, size)
        ]
        assert areas[0] < image_size**2 <= areas[1]
    assert matching_test_size(config, 640, (720, 1280)) == 480


def test_sizes_are_those_of_the_published_models():
    assert port_sizes('S') == {
        'hidden_size': 384,
        'num_hidden_layers': 12,
        'num_attention_heads': 6,
        'num_blocks': 3,
    }
    assert port_sizes('L')['num_blocks'] == 4


def test_queries_with_the_same_mask_are_left_out():
    masks = np.zeros((4, 8, 8), bool)
    masks[0, :4] = masks[1, :4] = masks[3, 4:] = True  # 2 is empty
    assert distinct_queries(masks, 2) == [0, 3]
    with pytest.raises(ValueError, match='Expected 3 queries .* have 2'):
        distinct_queries(masks, 3)


def test_the_table_shows_both_sides_and_their_ratio():
    ours, port = (
        Side({part: [ms] for part, ms in zip(PARTS, times_ms, strict=True)}, 2, size)
        for times_ms, size in (
            ((80.0, 90.0, 100.0, 150.0, 10.0, 80.0, 10.04), (480, 864)),
            ((88.0, 90.0, 1250.4, 300.0, 8.0, 88.0, 1154.4), (640, 640)),
        )
    )
    cells = rows(ours, port, repeats=7)
    assert cells[0] == ('median of 7, ms', 'videomt_ros', 'transformers', 'ratio')
    assert cells[1][1:] == ('80.0', '88.0', '1.10')
    assert cells[-1] == ('processor time of a frame, all threads', '150', '300', '2.00')
    assert cells[2] == ('whole frame to 1280 x 720 masks', '100', '1250', '12.50')


@pytest.mark.parametrize('propagation', ['fusion', 'gru'])
def test_a_network_without_a_port_is_measured_alone(propagation):
    config = NetworkConfig(
        num_classes=5, architecture='pmt', embed_dim=32, depth=4, num_heads=2, num_queries=24,
        num_query_blocks=2, test_size=64, propagation=propagation,
    )  # fmt: skip
    side, analysis = measure(config, frame=(72, 128), num_segments=2, repeats=2)
    assert side.num_segments == 2
    assert side.input_size == (64, 128)
    assert tuple(side.samples_ms) == PARTS
    assert all(len(samples) == 2 and min(samples) > 0 for samples in side.samples_ms.values())
    assert LATERAL in [part.name for part in analysis.measured()]


def test_lvmt_is_measured_by_its_name(monkeypatch, tmp_path, capsys):
    size = {'embed_dim': 32, 'depth': 4, 'num_heads': 2}
    monkeypatch.setitem(VIT_SIZES, 'small', size)
    arguments = ['--network', 'lvmt', '--image-size', '64', '64', '--repeats', '1']
    options = ['--threads', '1', '--segments', '2', '--json', str(tmp_path / 'speed.json')]
    assert main(['benchmark', 'model', *arguments, '--precision', 'fp32', *options]) == 0
    assert '| lateral path' in capsys.readouterr().out
    assert 'LVMT with ViT-S' in (tmp_path / 'speed.json').read_text()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--image-size', '448', '800'], 'Expected a square --image-size, got 448 x 800'),
        (['--device', 'toaster'], "Expected the device auto, cpu, cuda or cuda:n, got 'toaster'"),
        (['--device', 'cuda:64'], 'Expected device cuda:64 of'),
    ],
)
def test_what_cannot_be_measured_ends_in_one_line(capsys, arguments, message):
    assert main(['benchmark', 'model', *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1


@pytest.mark.parametrize('arguments', [['--repeats', '0'], ['--size', 'XL'], ['--threads', 'two']])
def test_wrong_arguments_are_refused(capsys, arguments):
    with pytest.raises(SystemExit) as error:
        main(['benchmark', 'model', *arguments])
    assert error.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_it_runs_without_ros(transformers):
    """In a process of its own: other tests of this one may have imported rclpy."""
    program = f"""
import json, sys
sys.modules.update(rclpy=None, cv_bridge=None, pycocotools=None)  # importing these now fails
from videomt_ros.cli.benchmark_model import about_frames, rows
from videomt_ros.cli.benchmark_report import markdown
from videomt_ros.speed.frame import compare
from videomt_ros.speed.machine import header
comparison = compare({SIZES!r}, num_segments=2, **{TINY!r})
import torch
print(header(torch.device('cpu'), 'torch'), about_frames(comparison), sep='\\n')
print(*markdown(rows(comparison.ours, comparison.port, 2)), sep='\\n')
ros = ('rclpy', 'cv_bridge', 'videomt_ros.ros', 'videomt_ros.msg')
loaded = [name for name, module in sys.modules.items() if module and name.startswith(ros)]
print(json.dumps(loaded))
"""
    output = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(output.splitlines()[-1]) == []
    assert 'videomt_ros 2, transformers 2' in output
    assert f'torch {torch.__version__}' in output
    assert '| whole frame to 1280 x 720 masks' in output


def test_the_processor_has_a_name(tmp_path):
    file = tmp_path / 'cpuinfo'
    file.write_text('processor\t: 0\nmodel name\t: A CPU: the fast one\n')
    assert cpu_name(file) == 'A CPU: the fast one'
    assert cpu_name(tmp_path / 'absent')
