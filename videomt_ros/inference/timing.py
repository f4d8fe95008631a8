"""How long the stages of one frame take, measured without making the host wait."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch


class StageTimes(NamedTuple):
    """Durations of one frame in milliseconds."""

    prepare_ms: float
    """Time from the image to the network's input."""
    network_ms: float
    """Time of the network; the whole step of a batch if frames of other streams are in it."""
    result_ms: float
    """Time from the network's outputs to the segments: masks and tracks. Time in which the host
    is busy with other frames does not count."""


class DeviceClock:
    """Marks moments as a device reaches them, without making the host wait.

    On a GPU the marks are events in the device's own queue.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[float | torch.cuda.Event] = []

    def mark(self) -> None:
        """Mark the moment at which the device has done all that it was given so far."""
        if self._device.type == 'cuda':
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def elapsed_ms(self) -> list[float]:
        """Return the milliseconds between neighbouring marks; waits until they are passed."""
        pairs = zip(self._marks[:-1], self._marks[1:], strict=True)
        return [_elapsed_ms(start, end) for start, end in pairs]


def _elapsed_ms(start: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    if isinstance(start, float) and isinstance(end, float):
        return (end - start) * 1e3
    assert isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event)
    # The host may be here as soon as what comes just before the mark in the queue is done.
    end.synchronize()
    return start.elapsed_time(end)
