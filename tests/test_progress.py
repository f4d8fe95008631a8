"""Progress as a bar in a terminal, and as lines in a log."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from videomt_ros import progress
from videomt_ros.progress import Progress


class Clock:
    """A clock that the test sets."""

    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, 'time', SimpleNamespace(monotonic=clock.monotonic))
    return clock


def run(clock: Clock, seconds: list[float], log: io.StringIO, **options) -> list[str]:
    """Do a step after each of some times, and return the lines of the log."""
    with Progress(len(seconds), 'video', stream=log, **options) as bar:
        for each in seconds:
            clock.now_s += each
            bar.update()
    return log.getvalue().splitlines()


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(clock):
    assert run(clock, [1, 2, 6, 6, 6, 1], io.StringIO()) == [
        '2 of 6 videos, 3 s, 6 s left',
        '4 of 6 videos, 15 s, 8 s left',
        '6 of 6 videos, 22 s',
    ]


def test_lines_name_the_part_and_a_note(clock):
    log = io.StringIO()
    with Progress(None, 'frame', stream=log) as bar:
        clock.now_s += 20
        bar.show(1, what='front', note='results of 0')
        clock.now_s += 20
        bar.show(30, total=60, what='rear', note='results of 28')
    assert log.getvalue().splitlines() == [
        'front: 1 frame, results of 0, 20 s',
        'rear: 30 of 60 frames, results of 28, 40 s, 40 s left',
        'rear: 30 of 60 frames, results of 28, 40 s, 40 s left',
    ]


def test_a_short_task_and_a_quiet_process_say_nothing(clock):
    assert run(clock, [0.5, 0.5], io.StringIO()) == []
    assert run(clock, [60, 60], io.StringIO(), is_quiet=True) == []


def test_a_task_that_fails_has_no_last_line(clock):
    log = io.StringIO()
    with pytest.raises(ValueError), Progress(2, 'video', stream=log) as bar:
        bar.update()
        clock.now_s += 60
        raise ValueError
    assert log.getvalue() == ''


def test_a_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    with Progress(3, 'video', 'front', terminal) as bar:
        bar.show(2)
        bar.show(3, what='rear', note='results of 1')
    shown = terminal.getvalue()
    assert '\r' in shown and 'rear: 100%' in shown and '3/3' in shown and 'results of 1' in shown


def test_a_redirected_command_shows_lines(tmp_path: Path):
    code = (
        'from videomt_ros import progress\n'
        'progress.QUIET_S = progress.PERIOD_S = 0\n'
        'from videomt_ros.cli import main\n'
        f'main(["synth", "--format", "ytvis", "--videos", "2", "--frames", "2", "--out", '
        f'{str(tmp_path / "data")!r}])\n'
    )
    log = tmp_path / 'log'
    with log.open('w') as file:
        subprocess.run(
            [sys.executable, '-c', code], check=True, stdout=file, stderr=subprocess.STDOUT,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
        )  # fmt: skip
    text = log.read_text()
    assert '1 of 2 videos, ' in text and '2 of 2 videos, ' in text and '\r' not in text
