"""The place of a run in its plan, which a limit of time may let it go through faster.

The plan has the steps of all phases, with their schedules. With a limit, a run that is too slow
leaves out steps of the plan evenly, so that it ends in time and with its schedules done. The last
step of the plan is always made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator


class Pace:
    """Chooses the steps of the plan that a run makes."""

    def __init__(
        self,
        total_steps: int,
        limit_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up the pace; its clock does not run yet.

        Args:
            total_steps: number of steps of the plan.
            limit_s: seconds in which the whole plan is to be done; None: no step is left out.
            clock: source of the time in seconds.
        """
        self._total_steps = total_steps
        self._limit_s = limit_s
        self._clock = clock
        self._started: float | None = None
        self._spent_s = 0.0
        self.next_step = 0
        """Step of the plan after the last one that was made."""

    @property
    def spent_s(self) -> float:
        """Seconds that the run has taken, those before a resume included."""
        running = 0.0 if self._started is None else self._clock() - self._started
        return self._spent_s + running

    @property
    def left_s(self) -> float:
        """Seconds until the limit."""
        return float('inf') if self._limit_s is None else max(0.0, self._limit_s - self.spent_s)

    def steps(self) -> Iterator[int]:
        """Choose the steps that are made from now on, each when it is asked for."""
        self._started = self._clock()
        step = self.next_step
        while step < self._total_steps:
            yield step
            step += 1
            if self._limit_s is not None and step < self._total_steps:
                due = int(self.spent_s / self._limit_s * self._total_steps)
                step = max(step, min(due, self._total_steps - 1))

    def state_dict(self) -> dict[str, float]:
        """Return what a resumed run needs."""
        return {'next_step': self.next_step, 'spent_s': self.spent_s}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on where a run was stopped."""
        self.next_step, self._spent_s = int(state['next_step']), state['spent_s']
