"""A run: it learns, keeps its folder, and leaves weights that load."""

from __future__ import annotations

import io
import math
import os
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.runs import checkpoint_of, log_lines, run, tiny_settings
from videomt_ros.cli import main
from videomt_ros.model import load_model
from videomt_ros.training.machine import USUAL_THREADS, set_threads, usual_threads
from videomt_ros.training.trainer import train


def test_a_run_leaves_weights_that_load_and_a_log(tmp_path):
    settings = tiny_settings(tmp_path / 'out', 'learning_rate=0.1')
    path = train(settings)
    assert path == tmp_path / 'out/model.safetensors'
    net = load_model(path)
    assert net.config == settings.network
    content = checkpoint_of(settings, 6)
    for name, value in net.state_dict().items():
        mean = content['state_dict'][f'net.{name}']
        assert torch.equal(value, mean.half().float()), name
    lines = log_lines(settings)
    assert [line['step'] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        assert math.isfinite(line['loss'])
        assert line['loss'] == pytest.approx(line['class'] + line['mask'] + line['dice'])
    events = EventAccumulator(str(tmp_path / 'out/tensorboard'))
    events.Reload()
    scalars = events.Scalars('train/loss')
    assert [event.step for event in scalars] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in scalars] == pytest.approx([line['loss'] for line in lines])


@pytest.mark.parametrize(('warmup_steps', 'is_short'), [(3, False), (4, True)])
def test_a_run_that_is_all_warm_up_is_told_of(tmp_path, caplog, warmup_steps, is_short):
    settings = tiny_settings(
        tmp_path / 'out', f'warmup_steps={warmup_steps}', 'vit_warmup_steps=2'
    )
    train(settings)
    told = f'The learning rate rises for {warmup_steps + 2} steps of 6' in caplog.text
    assert told == is_short


def test_a_run_without_a_mean_leaves_its_last_weights(tmp_path):
    settings = tiny_settings(tmp_path / 'out', 'ema_decay=null', 'learning_rate=0.1')
    net = load_model(train(settings))
    content = checkpoint_of(settings, 6)
    assert 'current_model_state' not in content
    for name, value in net.state_dict().items():
        last = content['state_dict'][f'net.{name}']
        assert torch.equal(value, last.half().float()), name


@pytest.mark.parametrize('decay', [0.999, 0.2])
def test_the_mean_follows_its_formula(tmp_path, decay):
    """After step s it keeps min(decay, (1 + s) / (10 + s)), and nothing of the random start."""
    settings = tiny_settings(
        tmp_path / 'out', f'ema_decay={decay}', 'warmup_steps=0', 'learning_rate=0.1'
    )
    weights, means = [], []

    def look(module) -> None:
        weights.append(module.net.q.weight.detach().clone())
        means.append(module.deliverable()['q.weight'].clone())

    run(settings, look)
    expected = weights[0]
    for step, kept in enumerate((2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15), start=1):
        kept = min(decay, kept)
        expected = kept * expected + (1 - kept) * weights[step]
        torch.testing.assert_close(means[step], expected)
    assert not torch.allclose(means[-1], weights[-1])


def test_a_folder_with_a_run_is_kept(tmp_path):
    settings = tiny_settings(
        tmp_path / 'out', 'phases=[{steps: 1, clip_frames: 1, batch_size: 1}]'
    )
    train(settings)
    before = {path: path.read_bytes() for path in Path(settings.out).rglob('*') if path.is_file()}
    with pytest.raises(ValueError, match='--resume, or choose another folder with out='):
        train(settings)
    after = {path: path.read_bytes() for path in Path(settings.out).rglob('*') if path.is_file()}
    assert before == after


def test_a_folder_that_cannot_be_is_told_before_the_data_is_read(tmp_path):
    (tmp_path / 'file').touch()
    settings = tiny_settings(tmp_path / 'a', 'data=[{dataset: ytvis2019, root: there/is/none}]')
    settings = replace(settings, out=str(tmp_path / 'file/out'))
    with pytest.raises(ValueError, match=r'Expected a folder to write the run to.*Choose another'):
        train(settings)


def test_the_groups_are_logged(tmp_path, caplog):
    caplog.set_level('INFO')
    phases = 'phases=[{steps: 1, clip_frames: 1, batch_size: 1}]'
    train(tiny_settings(tmp_path / 'out', phases, 'decay_all=false'))
    assert 'vit block 2, no decay' in caplog.text
    assert 'step 1 of 1, loss ' in caplog.text


class Terminal(io.StringIO):
    """Output that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_progress_of_the_whole_run(tmp_path, monkeypatch, caplog):
    caplog.set_level('INFO')
    for name in ('LINES', 'COLUMNS'):
        monkeypatch.delenv(name, raising=False)
    settings = tiny_settings(tmp_path / 'out')
    monkeypatch.setattr('sys.stdout', Terminal())
    monkeypatch.setattr('sys.stderr', Terminal())
    train(settings)
    shown = sys.stdout.getvalue()
    assert (
        ' 0/6 [' in shown
        and ' 6/6 [' in shown
        and f'loss={log_lines(settings)[-1]["loss"]:.1f}' in shown
    )
    assert 'step 6 of 6' not in caplog.text
    (tmp_path / 'out/checkpoints/step=6.ckpt').unlink()
    monkeypatch.setattr('sys.stdout', Terminal())
    train(settings, resume=True)
    shown = sys.stdout.getvalue()
    assert ' 4/6 [' in shown and ' 6/6 [' in shown and ' 3/6 [' not in shown


def test_more_gpus_than_there_are_end_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    tiny_settings(tmp_path / 'out')
    command = ['train', '--config', str(tmp_path / 'out.yaml'), 'device=cuda', 'devices=2']
    assert main(command) == 1
    error = capsys.readouterr().err
    assert 'Expected 2 GPUs that work here, got 1. Set devices' in error
    assert error.count('\n') == 1


def test_a_batch_that_cannot_be_shared_is_refused_before_processes_start(tmp_path):
    settings = tiny_settings(tmp_path / 'out', 'devices=3')
    with pytest.raises(ValueError, match='phases.0.batch_size to be a multiple of 3'):
        train(settings)


@pytest.mark.skipif(find_spec('wandb') is not None, reason='wandb is installed')
def test_a_missing_package_for_weights_and_biases_is_named(tmp_path):
    with pytest.raises(ValueError, match='pip install wandb.*TensorBoard has the same figures'):
        train(tiny_settings(tmp_path / 'out', 'wandb=mine', unreadable(tmp_path)))


def unreadable(folder: Path) -> str:
    """Data without annotations, which a run that reads it would complain of."""
    return f'data=[{{dataset: ytvis2019, root: {folder}}}]'


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ('init_from=gone.pth', 'gone.pth: expected weights, there is no such file'),
        ('init_from=demo', 'Expected weights in init_from of a network like that of the run'),
        ('init_from=timm:vit_smal', 'timm, which has no vit_smal'),
        ('validation={dataset: ovis, root: gone}', 'Expected validation.root to be the folder'),
        ('accumulate=4', 'phases.0.batch_size to be a multiple of 4'),
    ],
)
def test_faults_beside_the_data_are_told_before_it_is_read(tmp_path, override, message):
    with pytest.raises(ValueError, match=message):
        train(tiny_settings(tmp_path / 'out', override, unreadable(tmp_path)))
    with pytest.raises(ValueError, match='Expected the annotations of ytvis2019'):
        train(tiny_settings(tmp_path / 'out', unreadable(tmp_path)))


def test_a_folder_that_is_not_there_is_named_by_its_setting(tmp_path):
    data = f'data=[{{dataset: ovis, root: {tmp_path}}}, {{dataset: coco, root: {tmp_path}/gone}}]'
    with pytest.raises(
        ValueError, match=r'Expected data\.1\.root .* at /.*/gone\. Set data\.1\.root='
    ):
        train(tiny_settings(tmp_path / 'out', data))


@pytest.fixture
def torch_threads():
    """Restore the number of threads after a test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_threads_are_those_of_the_run_then_those_of_the_user(monkeypatch, torch_threads):
    monkeypatch.setenv('OMP_NUM_THREADS', '5')
    for threads, expected in ((2, 2), (None, USUAL_THREADS), (3, 3), (None, USUAL_THREADS)):
        set_threads(threads)
        assert torch.get_num_threads() == expected
        # Lightning's launcher of several processes leaves this number alone.
        assert os.environ['OMP_NUM_THREADS'] == str(expected)


def test_a_user_sets_the_threads_of_runs_that_do_not_say(monkeypatch):
    """torch is replaced, since it lowers the user's number to that of the cores."""
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 3)
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    assert usual_threads() == 3
    monkeypatch.delenv('OMP_NUM_THREADS')
    assert usual_threads() == 4


def test_a_log_has_the_first_step_and_then_some(tmp_path, caplog):
    caplog.set_level('INFO')
    train(tiny_settings(tmp_path / 'out', 'log_every=4'))
    steps = [step for step in range(1, 7) if f'step {step} of 6, loss' in caplog.text]
    assert {1, 4} <= set(steps)
    assert [line['step'] for line in log_lines(tiny_settings(tmp_path / 'out'))] == [4]
