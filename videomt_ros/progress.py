"""The one way to show how far a task is: a bar in a terminal, lines anywhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

QUIET_S, PERIOD_S = 2.0, 10.0
"""Time before the first line, so that short tasks say nothing, and between two lines."""


def is_terminal(*streams: TextIO) -> bool:
    """Tell whether people read all of these streams in a terminal."""
    return all(stream.isatty() for stream in streams)


class Progress:
    """Context manager that shows the progress of a task.

    A log that is not a terminal gets lines such as `12 of 80 videos, 31 s, 175 s left`, with no
    carriage returns in it.
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        what: str = '',
        stream: TextIO | None = None,
        is_quiet: bool = False,
    ) -> None:
        """Start the clock; shows nothing yet where there is no terminal.

        Args:
            total: number of steps; None if it is not known.
            unit: name of a step, in the singular.
            what: name of the task, before the counts.
            stream: where to show it; None: stderr.
            is_quiet: show nothing, for all but one of several processes.
        """
        stream = stream or sys.stderr
        self._total, self._unit, self._what, self._note = total, unit, what, ''
        self._stream: TextIO | None = None if is_quiet or is_terminal(stream) else stream
        self.done = 0
        """Number of steps that are done."""
        self._start_s = time.monotonic()
        self._next_s = self._start_s + QUIET_S
        self._bar = tqdm(
            total=total,
            unit=unit,
            desc=what or None,
            file=stream,
            disable=is_quiet or not is_terminal(stream),
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if (
            self._stream is not None
            and kind is None
            and time.monotonic() >= self._start_s + QUIET_S
        ):
            self._speak(self._stream)
        self._bar.close()

    def update(self, steps: int = 1) -> None:
        """Note that some more steps are done."""
        self.show(self.done + steps)

    def show(
        self,
        done: int,
        total: int | None = None,
        what: str | None = None,
        note: str | None = None,
    ) -> None:
        """Note what has changed.

        Args:
            done: number of steps that are done.
            total: number of steps, if it is known by now.
            what: name of the part that is being done.
            note: more on the state, after the counts.
        """
        self._total = self._total if total is None else total
        self._what = self._what if what is None else what
        self._note = self._note if note is None else note
        steps, self.done = done - self.done, done
        self._bar.total = self._total
        if what is not None:
            self._bar.set_description(what, refresh=False)
        if note is not None:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(steps)
        if self._stream is not None and time.monotonic() >= self._next_s:
            self._speak(self._stream)

    def _speak(self, stream: TextIO) -> None:
        now_s = time.monotonic()
        self._next_s = now_s + PERIOD_S
        elapsed_s = now_s - self._start_s
        of = f' of {self._total}' if self._total is not None else ''
        text = f'{self._what}: ' if self._what else ''
        text += f'{self.done}{of} {self._unit}{"" if (self._total or self.done) == 1 else "s"}'
        text += f', {self._note}' if self._note else ''
        text += f', {elapsed_s:.0f} s'
        if self._total and 0 < self.done < self._total:
            text += f', {elapsed_s / self.done * (self._total - self.done):.0f} s left'
        print(text, file=stream, flush=True)
