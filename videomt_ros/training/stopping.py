"""Handling of Ctrl-C and SIGTERM: all processes of a run end together after a checkpoint."""

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
    """Records the signals that ask a run to end after the current step.

    A second Ctrl-C ends it at once. A second SIGTERM does not, since a launcher and the system may
    send one each.
    """

    def __init__(self) -> None:
        self._received = 0

    def watch(self) -> None:
        """Install the handlers; Lightning restores the previous ones after the run."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python handles signals only in its main thread
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # shells ignore it for `command &`
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
        """Return the exception that all processes are to raise if one received a signal."""
        number = self._received
        if trainer.world_size > 1:
            numbers = torch.tensor(number, device=trainer.strategy.root_device)
            dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
            number = int(numbers)
        if not number:
            return None
        return SIGTERMException() if number == signal.SIGTERM else KeyboardInterrupt()


def end_with_parent(worker_id: int) -> None:
    """Make a worker of a data loader ignore all signals to end but those of its parent.

    Terminals and launchers signal workers as well, but the current step still needs their data.

    Args:
        worker_id: ignored; DataLoader passes it.
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
