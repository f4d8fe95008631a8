"""Ctrl-C and SIGTERM: a run ends where its checkpoint can be saved, in all processes at once."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from types import FrameType

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from videomt_ros.training.machine import is_first_process

logger = logging.getLogger(__name__)


class StopSignals:
    """Notes the signals that ask a run to end.

    A second Ctrl-C does not wait. A second SIGTERM does: under a launcher, one may come from it
    and one from the system.
    """

    def __init__(self) -> None:
        self._received = 0

    def watch(self) -> None:
        """Take the signals; Lightning gives them back to those who had them before the run."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python has signals there alone
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell has it for `command &`
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = number
        if is_first_process():
            logger.warning(
                '%s: the run ends after this step, with a checkpoint. Ctrl-C ends it at once.',
                signal.Signals(number).name,
            )

    def wanted(self, trainer: Trainer) -> BaseException | None:
        """What ends the run if any process was asked to end, for all of them to raise."""
        number = self._received
        if trainer.world_size > 1:
            numbers = torch.tensor(number, device=trainer.strategy.root_device)
            dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
            number = int(numbers)
        if not number:
            return None
        return SIGTERMException() if number == signal.SIGTERM else KeyboardInterrupt()


def end_with_parent(_: int) -> None:
    """Have a process that loads data, whose number it is, end where its parent says so alone.

    Terminals and launchers send their signals to it as well, and the step at hand needs its data.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_at_sigterm_of, args=(parent.pid,), daemon=True).start()


def _end_at_sigterm_of(pid: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != pid:
        pass
    os._exit(0)
