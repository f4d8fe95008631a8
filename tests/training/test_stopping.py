"""Ctrl-C and SIGTERM: the step at hand is learnt, saved and gone on from."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.runs import at_step, checkpoint_of, differences, log_lines, tiny_settings
from videomt_ros.training.checkpoints import find_checkpoints
from videomt_ros.training.stopping import end_with_parent
from videomt_ros.training.trainer import train

RARE = 'checkpoint_every=100000'


@pytest.fixture(autouse=True)
def handlers():
    """Set the handlers of a new process, which the shell or earlier tests may have changed."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def steps_in(out: Path) -> list[int]:
    return list(find_checkpoints(out / 'checkpoints'))


def send(*numbers: int):
    def act(*_) -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    return act


@pytest.mark.parametrize(
    ('sent', 'raised'),
    [
        ([signal.SIGINT], KeyboardInterrupt),
        ([signal.SIGTERM], SystemExit),
        ([signal.SIGTERM, signal.SIGTERM], SystemExit),  # from the system, and from its launcher
    ],
    ids=['SIGINT', 'SIGTERM', 'SIGTERM twice'],
)
def test_a_stopped_run_goes_on_as_if_nothing_had_been(tmp_path, monkeypatch, sent, raised):
    unbroken = tiny_settings(tmp_path / 'unbroken', RARE)
    train(unbroken)
    stopped = tiny_settings(tmp_path / 'stopped', RARE)
    with monkeypatch.context() as patch:
        at_step(patch, 2, send(*sent))
        with pytest.raises(raised):
            train(stopped)
    assert steps_in(tmp_path / 'stopped') == [3]
    assert not (tmp_path / 'stopped/model.safetensors').exists()
    train(stopped, resume=True)
    assert differences(checkpoint_of(stopped, 6), checkpoint_of(unbroken, 6)) == []
    assert log_lines(stopped) == log_lines(unbroken)


@pytest.mark.parametrize('first', [signal.SIGINT, signal.SIGTERM])
def test_another_ctrl_c_ends_a_run_at_once(tmp_path, monkeypatch, caplog, first):
    at_step(monkeypatch, 4, send(first, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(tiny_settings(tmp_path / 'out', 'checkpoint_every=2'))
    assert steps_in(tmp_path / 'out') == [4, 2]
    assert f'{first.name}: the run ends after this step' in caplog.text
    assert 'step=4.ckpt. Go on with --resume.' in caplog.text


def test_a_run_stopped_in_its_last_step_is_done(tmp_path, monkeypatch):
    at_step(monkeypatch, 5, send(signal.SIGTERM))
    assert train(tiny_settings(tmp_path / 'out', RARE)).exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_run_in_the_background_of_a_shell_has_no_ctrl_c(tmp_path, monkeypatch):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    at_step(monkeypatch, 2, send(signal.SIGINT))
    assert train(tiny_settings(tmp_path / 'out', RARE)).exists()


def wait_as_a_loader(is_ready) -> None:
    end_with_parent(0)
    is_ready.set()
    time.sleep(100)


def test_a_process_that_loads_data_ends_by_the_word_of_its_parent_alone():
    context = multiprocessing.get_context('fork')
    is_ready = context.Event()
    child = context.Process(target=wait_as_a_loader, args=(is_ready,), daemon=True)
    child.start()
    assert is_ready.wait(50)
    subprocess.run(['kill', '-INT', str(child.pid)], check=True)
    subprocess.run(['kill', '-TERM', str(child.pid)], check=True)
    child.join(0.2)
    assert child.is_alive()
    for _ in range(100):  # two that come at once are one
        child.terminate()
        child.join(0.1)
    assert child.exitcode == 0


@pytest.mark.parametrize(
    ('launcher', 'sent', 'code'),
    [('lightning', signal.SIGINT, 130), ('torchrun', signal.SIGTERM, 1)],
)
def test_two_processes_end_after_the_same_step(tmp_path, launcher, sent, code):
    """With Lightning the first process tells the other; torchrun signals all, loaders included.

    Most of the time goes into starting them.
    """
    overrides = ['phases=[{steps: 9999, clip_frames: 1, batch_size: 2}]', RARE, 'workers=1']
    module = ['-m', 'videomt_ros', 'train']
    if launcher == 'torchrun':
        options = ['--standalone', '--nproc-per-node', '2']
        module = ['-m', 'torch.distributed.run', *options, *module]
    else:
        overrides.append('devices=2')
    out = tmp_path / 'out'
    tiny_settings(out, *overrides)
    with (tmp_path / 'log').open('w') as log:
        process = subprocess.Popen(
            [sys.executable, *module, '--config', f'{out}.yaml', f'out={out}', *overrides],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            while not (out / 'log.jsonl').exists():
                assert process.poll() is None, (tmp_path / 'log').read_text()
                time.sleep(0.05)
            os.kill(process.pid, sent)
            process.wait(100)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    text = (tmp_path / 'log').read_text()
    assert process.returncode == code, text
    (step,) = steps_in(out)
    assert 1 <= step < 9999
    assert text.count(f'{sent.name}: the run ends after this step') == 1, text
    assert text.count(f'step={step}.ckpt. Go on with --resume.') == 1, text
