"""Runs with a limit of time: which steps they make, and that they end whole."""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path

import pytest

from tests.training.runs import at_step, checkpoint_of, log_lines, run, tiny_settings
from videomt_ros.model import load_model
from videomt_ros.training import data
from videomt_ros.training.checkpoints import find_checkpoints
from videomt_ros.training.pace import Pace
from videomt_ros.training.trainer import train


class Clock:
    """A clock that each look advances."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now = seconds, 100.0

    def __call__(self) -> float:
        self.now += self.seconds
        return self.now


def test_without_a_limit_no_step_is_left_out():
    pace = Pace(5)
    assert list(pace.steps()) == [0, 1, 2, 3, 4] and pace.left_s == float('inf')
    pace.next_step = 3
    assert list(pace.steps()) == [3, 4]


@pytest.mark.parametrize(
    ('seconds', 'steps'),
    [
        (0.5, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),  # in time
        (2.5, [0, 2, 5, 7, 9]),
        (4.0, [0, 4, 8, 9]),
        (1000.0, [0, 9]),  # the first and the last in any case
    ],
)
def test_a_slow_run_leaves_out_steps_evenly(seconds, steps):
    assert list(Pace(10, 10.0, Clock(seconds)).steps()) == steps


def test_a_resumed_run_has_the_time_that_is_left():
    pace = Pace(10, 10.0, Clock(1.0))
    pace.load_state_dict({'next_step': 6, 'spent_s': 6.0})
    assert list(pace.steps()) == [6, 7, 8, 9]
    late = Pace(10, 10.0, Clock(1.0))
    late.load_state_dict({'next_step': 4, 'spent_s': 8.0})
    assert list(late.steps()) == [4, 9]
    assert list(Pace(1, 10.0, Clock(99.0)).steps()) == [0]


@pytest.fixture
def slow(monkeypatch) -> None:
    """Let 12 seconds pass for each batch."""
    now = [0.0]
    draw = data.StepClips.__getitem__

    def slowly(self, step):
        now[0] += 12.0
        return draw(self, step)

    monkeypatch.setattr(data.StepClips, '__getitem__', slowly)
    monkeypatch.setattr(data, 'Pace', partial(Pace, clock=lambda: now[0]))


LIMIT = ('max_minutes=1', 'phases=[{steps: 10, clip_frames: 1, batch_size: 2},'
         ' {steps: 10, clip_frames: 2, batch_size: 2}]', 'warmup_steps=4')  # fmt: skip


def test_a_run_ends_in_time_with_all_phases_and_schedules(tmp_path, slow):
    settings, seen = tiny_settings(tmp_path / 'out', *LIMIT), []

    def look(module) -> None:
        group = module.optimizers().param_groups[0]
        seen.append((module.trainer.global_step, group['lr'] / settings.learning_rate))

    run(settings, look)
    # Steps 0, 4, 8, 12, 16 and 19 of the plan; the rate falls from step 4 on.
    rates = [0, 1, 0.75**0.9, 0.5**0.9, 0.25**0.9, (1 / 16) ** 0.9]
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert [rate for _, rate in seen] == pytest.approx(rates)


def test_what_a_limited_run_leaves(tmp_path, slow):
    settings = tiny_settings(tmp_path / 'out', *LIMIT)
    path = train(settings)
    assert list(find_checkpoints(Path(settings.out) / 'checkpoints')) == [6, 4]
    assert [line['step'] for line in log_lines(settings)] == [1, 2, 3, 4, 5, 6]
    assert checkpoint_of(settings, 6)['RunData']['next_step'] == 20
    before = load_model(path).state_dict()
    path.unlink()
    train(settings, resume=True)  # nothing is left to do but to write the weights
    after = load_model(path).state_dict()
    assert all((after[name] == value).all() for name, value in before.items())


def test_a_limited_run_goes_on_in_its_plan(tmp_path, slow, monkeypatch):
    settings, made = tiny_settings(tmp_path / 'out', *LIMIT), []
    calls = count()

    def crash(*_) -> None:
        if next(calls) == 0:
            raise RuntimeError('as a crash would')

    at_step(monkeypatch, 4, crash)
    with pytest.raises(RuntimeError, match='as a crash would'):
        train(settings)
    at_step(monkeypatch, 4, lambda module, batch: made.append(batch[0].step))
    train(settings, resume=True)
    assert len(made) == 1 and made[0] > 12  # the plan was at step 12 when the run was cut off
    assert checkpoint_of(settings, max(find_checkpoints(Path(settings.out) / 'checkpoints')))


def test_several_processes_have_no_limit(tmp_path):
    with pytest.raises(ValueError, match='max_minutes=null for 2 processes, whose clocks differ'):
        train(tiny_settings(tmp_path / 'out', 'max_minutes=1', 'devices=2'))
    with pytest.raises(ValueError, match='max_minutes'):
        tiny_settings(tmp_path / 'out', 'max_minutes=0')
