"""How long the stages of one frame take, measured without making the host wait."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch


class StageTimes(NamedTuple):
    """Durations of one frame in milliseconds."""

    prepare_ms: float
    """Image to network input."""
    network_ms: float
    result_ms: float
    """The network's outputs to the segments: masks and tracks."""


class StageClock:
    """Marks the ends of the stages of one frame.

    On a GPU the marks are events in the device's own queue. They are read after the result was
    copied to the host, when the device has passed them all, so that reading them costs nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin_s = time.perf_counter()
        self._marks: list[float | torch.cuda.Event] = []
        self.mark()

    def mark(self) -> None:
        """A stage ends here."""
        if self._device.type == 'cuda':
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def times(self) -> StageTimes:
        """The durations, once the result is on the host; two marks must have been set."""
        whole_ms = (time.perf_counter() - self._begin_s) * 1e3
        begin, prepared, stepped = self._marks
        prepare_ms, network_ms = _elapsed_ms(begin, prepared), _elapsed_ms(prepared, stepped)
        return StageTimes(prepare_ms, network_ms, max(0.0, whole_ms - prepare_ms - network_ms))


def _elapsed_ms(start: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    if isinstance(start, float) and isinstance(end, float):
        return (end - start) * 1e3
    assert isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event)
    return start.elapsed_time(end)
