"""Frames whose results are in the making, partly on the device and partly on the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from videomt_ros.inference.timing import DeviceClock, StageTimes
from videomt_ros.inference.transfer import Arrays
from videomt_ros.structures import Segment, Segments

Labels: TypeAlias = tuple[NDArray[np.uint16], tuple[Segment, ...]]
"""Track id of each pixel, (H, W), and the segments."""
Labelling: TypeAlias = Generator[Arrays, None, Labels]
"""Labels one frame, and yields what the host has to wait for before it goes on."""


@dataclass(frozen=True)
class FrameClocks:
    """Marks of a frame, two on each clock."""

    prepare: DeviceClock
    network: DeviceClock
    """Marks around the step of the whole batch."""
    readback: DeviceClock
    """Marks around what follows before the host waits for the first time."""


class PendingFrame:
    """A frame that the network was given and whose result is not complete.

    `choose` and `result` of several frames may be called in turns, so that the device works for
    some of them while the host works for others. Frames of one stream are completed in their
    order, whichever is asked for first.
    """

    def __init__(
        self,
        labelling: Labelling,
        state: Arrays,
        clocks: FrameClocks,
        before: PendingFrame | None,
        note_state: Callable[[list[NDArray[Any]]], None],
        build: Callable[[Labels, StageTimes], Segments],
    ) -> None:
        """Queue what needs no decision of the host.

        Args:
            labelling: labels the frame.
            state: what the host is to know of the state after the frame.
            clocks: marks of the frame; those of the readback are made here.
            before: the frame before it in its stream, if that may be pending.
            note_state: takes the arrays of `state`, once the network is done.
            build: makes the result.
        """
        self._labelling, self._state, self._clocks = labelling, state, clocks
        self._before, self._note_state, self._build = before, note_state, build
        self._awaited: Arrays | None = None
        self._result: Segments | Exception | None = None
        self._is_chosen = False
        self._host_s = 0.0
        clocks.readback.mark()
        self._go_on()
        clocks.readback.mark()
        self._host_s = 0.0  # which those marks have measured

    @property
    def is_complete(self) -> bool:
        """Whether `result` returns at once."""
        return self._result is not None

    @torch.inference_mode()
    def choose(self) -> None:
        """Wait for the network, choose what competes for pixels, and queue the contest."""
        if self._is_chosen:
            return
        self._is_chosen = True
        if self._before is not None:
            self._before.result()
            self._before = None
        try:
            # First, and after an error too, since the next frame starts from this state.
            self._note_state(self._state.wait())
            if self._awaited is not None:
                self._awaited.wait()
        except Exception as error:
            self._result = error
        self._go_on()

    @torch.inference_mode()
    def result(self) -> Segments | Exception:
        """Complete the frame: its segments, or the error that it failed with."""
        self.choose()
        while self._result is None:
            self._go_on()
        return self._result

    def _go_on(self) -> None:
        """Label the frame up to the next wait, or to the end."""
        if self._result is not None:
            return
        begin_s = time.perf_counter()
        try:
            if self._is_chosen and self._awaited is not None:
                self._awaited.wait()
            try:
                self._awaited = next(self._labelling)
            except StopIteration as end:
                self._host_s += time.perf_counter() - begin_s
                self._result = self._build(end.value, self._times())
            else:
                self._host_s += time.perf_counter() - begin_s
        except Exception as error:
            self._result = error

    def _times(self) -> StageTimes:
        prepare_ms, network_ms, readback_ms = (
            clock.elapsed_ms()[0]
            for clock in (self._clocks.prepare, self._clocks.network, self._clocks.readback)
        )
        return StageTimes(prepare_ms, network_ms, readback_ms + self._host_s * 1e3)
