"""`videomt benchmark gpu` on the CPU, with a tiny network. No timing is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from videomt_ros.cli import main
from videomt_ros.cli.benchmark_gpu import HEAD, WIDTHS, cells, records_of
from videomt_ros.speed import gpu_plan
from videomt_ros.speed.gpu import run_group
from videomt_ros.speed.gpu_plan import OURS, SIDES, Group, plan

FRAME = (72, 128)
TINY = Group('frame', 'tiny', (64, 64), 1, ('eager', 'port'))
OPTIONS = {'device': 'cpu', 'precision': 'fp32', 'frame': FRAME, 'segments': 2, 'repeats': 2}


@pytest.fixture
def transformers():
    return pytest.importorskip('transformers', minversion='5.8')


def measured(group: Group) -> list[dict]:
    """Records of a group, measured in this process."""
    records = run_group(group, torch.device('cpu'), torch.float32, FRAME, 2, repeats=2)
    return [record for record in records if 'begin' not in record]


def measured_apart(group: Group, longest_s: float = 600.0) -> list[dict]:
    """Records of a group, measured in processes of their own."""
    return list(records_of(group, OPTIONS, time.monotonic() + longest_s, longest_s))


def test_the_main_cases_come_first():
    groups = plan(('L', 'B', 'S'), ((640, 640), (448, 800)), (1, 4, 8), SIDES)
    assert groups[0] == Group('frame', 'L', (640, 640), 1, (*OURS, 'port'))
    assert groups[1] == Group('cameras', 'L', (640, 640), 8, OURS)
    with_target = {size for size, *_ in gpu_plan.TARGETS}
    assert {group.size for group in groups[:4]} == with_target
    assert len(set(groups)) == len(groups)
    for size, kind, number in (('S', 'batch', 4), ('B', 'batch', 8), ('L', 'cameras', 4)):
        for input_size in ((640, 640), (448, 800)):
            assert any(
                (g.size, g.kind, g.batch_size, g.input_size) == (size, kind, number, input_size)
                for g in groups
            )
    sides = {side for g in groups if g.kind == 'frame' and g.size == 'S' for side in g.sides}
    assert sides == set(SIDES)


def test_only_the_kinds_that_were_asked_for_run():
    groups = plan(('S',), ((64, 64),), (1, 2), kinds=('parts',))
    assert [group.kind for group in groups] == ['parts']


def test_only_the_sides_that_were_asked_for_run():
    groups = plan(('S',), ((64, 64),), (1, 2), ('eager', 'port'))
    assert {side for group in groups for side in group.sides} == {'eager', 'port'}
    alone = plan(('S',), ((64, 64),), (1,), ('compiled',))
    assert [group.kind for group in alone] == ['frame']


def test_both_sides_are_measured_with_their_work(transformers):
    records = measured(TINY)
    assert [(r['side'], r['measure']) for r in records] == [
        ('eager', 'step'),
        ('eager', 'push'),
        ('eager', 'push, two deep'),
        ('port', 'step'),
        ('port', 'push'),
    ]
    for record in records:
        assert len(record['samples_ms']) == 2
        assert record['frames_per_s'] == pytest.approx(1e3 / record['median_ms'])
        assert 0 < record['share_of_peak'] == record['tflops'] / record['peak_tflops']
        assert len(cells(record)) == len(HEAD) == len(WIDTHS)


def test_a_batch_and_several_cameras_are_measured(transformers):
    (batch,) = measured(Group('batch', 'tiny', (64, 96), 3, ('port',)))
    assert batch['network_input'] == (80, 80)  # a square of as many patches, or more
    assert batch['frames_per_s'] == pytest.approx(3e3 / batch['median_ms'])
    (cameras,) = measured(Group('cameras', 'tiny', (64, 64), 2, ('eager',)))
    assert (cameras['measure'], cameras['batch_size']) == ('cameras', 2)


def test_a_side_that_fails_is_a_row_and_the_others_go_on(transformers):
    records = measured(Group('frame', 'tiny', (64, 64), 1, ('absent', 'eager')))
    assert records[0]['side'] == 'absent' and 'error' in records[0]
    assert cells(records[0])[-1] == records[0]['error']
    assert {record['side'] for record in records[1:]} == {'eager'}


def test_a_process_that_dies_loses_one_side_alone(tmp_path, monkeypatch, transformers):
    """A process that is killed while it builds a side, as by a GPU out of host memory."""
    site = tmp_path / 'sitecustomize.py'
    site.write_text(
        'import os, signal\n'
        'import transformers\n'
        'import videomt_ros.speed.gpu_sides as sides\n'
        'build = sides._of_port\n'
        'sides._of_port = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=':')
    records = measured_apart(Group('frame', 'tiny', (64, 64), 1, ('port', 'eager')))
    assert records[0]['side'] == 'port' and 'ended with -9' in records[0]['error']
    assert [record['measure'] for record in records[1:]] == ['step', 'push', 'push, two deep']


def test_the_time_ends_a_group():
    records = measured_apart(TINY, longest_s=0.2)
    assert [(r['side'], r['error']) for r in records] == [
        ('eager', 'the time was over'),
        ('port', 'the time was over'),
    ]


def test_the_command_needs_no_ros_and_little_else(transformers, tmp_path):
    """Of the packages that this one depends on, six are enough."""
    path = tmp_path / 'gpu.json'
    absent = (
        'rclpy', 'cv_bridge', 'sensor_msgs', 'pycocotools', 'lightning', 'rosbags', 'matplotlib',
        'onnx', 'onnxruntime', 'onnxscript', 'jinja2', 'tensorboard', 'pandas', 'sklearn',
    )  # fmt: skip
    (tmp_path / 'sitecustomize.py').write_text(
        f'import sys\nsys.modules.update(dict.fromkeys({absent!r}))\n'  # importing these fails
    )
    words = (
        '--device cpu --sizes tiny --inputs 64x64 --frame 128x72 --batches 1 --sides eager port '
        f'--segments 2 --repeats 1 --json {path}'
    )
    done = subprocess.run(
        [sys.executable, '-m', 'videomt_ros', 'benchmark', 'gpu', *words.split()],
        env={**os.environ, 'PYTHONPATH': f'{tmp_path}:{os.environ.get("PYTHONPATH", "")}'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert '0 cases failed.' in done.stdout
    report = json.loads(path.read_text())
    measures = [record['measure'] for record in report['results']]
    assert measures[:2] == ['step', 'push'] and 'encoder blocks' in measures
    assert f'torch {torch.__version__}' in report['metadata']['versions']
    rows = [line for line in done.stdout.splitlines() if line.startswith('| tiny')]
    assert len(rows) == len(report['results'])


def test_an_input_that_cannot_be_is_refused(capsys):
    assert main(['benchmark', 'gpu', '--device', 'cpu', '--inputs', '100x64']) == 1
    assert 'multiples of 32, got 100x64' in capsys.readouterr().err


@pytest.mark.gpu
def test_every_side_runs_on_a_gpu(transformers):
    options = {**OPTIONS, 'device': 'cuda', 'precision': 'fp16'}
    group = Group('frame', 'tiny', (64, 64), 1, SIDES)
    records = list(records_of(group, options, time.monotonic() + 600, 600))
    assert [record for record in records if 'error' in record] == []
