"""Turns what ends a run before its last step into one line: what happened and how to go on."""

from __future__ import annotations

import errno
import json
import logging
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from videomt_ros.files import remove_partials, whole_file
from videomt_ros.training.checkpoints import FOLDER, find_checkpoints
from videomt_ros.training.machine import precision_of
from videomt_ros.training.run_settings import TrainSettings

NONFINITE_FILE = 'nonfinite_step.json'
"""Name of the file in the folder of a run that describes the step with the non-finite loss."""
_PATIENCE_S = 3.0
"""Time that other processes get to end by themselves, so that they can say why."""

logger = logging.getLogger(__name__)


class EndedEarly(ValueError):
    """A run cannot go on as it is; the message says in one line what to change."""


class NonFiniteLoss(ValueError):
    """The loss of a step or its gradient is infinite or NaN; the weights were not updated.

    All processes of a run raise it in the same step.
    """

    def __init__(
        self,
        step: int,
        losses: Mapping[str, float],
        origins: Sequence[str],
        what: Literal['loss', 'gradient'] = 'loss',
    ) -> None:
        """Describe the step.

        Args:
            step: number of the step, from 0.
            losses: losses of the whole batch by name.
            origins: clips of the parts of the batch with such a loss, if this process has them;
                for a gradient, all clips of this process, since the parts share it.
            what: the quantity that is not finite.
        """
        values = ', '.join(f'{name} {value:.4g}' for name, value in losses.items())
        super().__init__(f'The {what} is not finite at step {step} ({values})')
        self.step = step
        self.losses = dict(losses)
        self.origins = tuple(origins)


@contextmanager
def explain_early_end(settings: TrainSettings, trainer: Trainer) -> Iterator[None]:
    """Replace errors that the user can mend by a line that says how; checkpoints stay as they are.

    Args:
        settings: settings of the run.
        trainer: the trainer that runs inside the block.

    Raises:
        EndedEarly: the loss is not finite, or memory or disk are full.
        KeyboardInterrupt: Ctrl-C.
        SystemExit: SIGTERM, with exit code 143 as in a shell.
    """
    try:
        yield
    except NonFiniteLoss as error:
        raise EndedEarly(_describe_nonfinite(error, settings, trainer)) from error
    except (KeyboardInterrupt, SystemExit) as error:
        _end_children(trainer)
        is_sigterm = isinstance(error, SIGTERMException)
        # Lightning raises SystemExit while it handles a KeyboardInterrupt.
        is_ctrl_c = any(isinstance(e, KeyboardInterrupt) for e in (error, error.__context__))
        if (is_sigterm or is_ctrl_c) and trainer.is_global_zero:
            what = 'Stopped by SIGTERM' if is_sigterm else 'Interrupted'
            logger.warning('%s. %s Go on with --resume.', what, _last_checkpoint(settings))
        if is_sigterm:
            sys.exit(128 + signal.SIGTERM)
        if is_ctrl_c:
            raise KeyboardInterrupt from error
        raise
    except Exception as error:
        _end_children(trainer)
        step, last = trainer.global_step, _last_checkpoint(settings)
        if disk_is_full(error):
            if trainer.is_global_zero:
                remove_partials(Path(settings.out))
            raise EndedEarly(
                f'{settings.out} cannot be written at step {step}, the disk is full: '
                f'{_shorten(error)}. {last} Make room (keep_checkpoints=1 takes less, now '
                f'{settings.keep_checkpoints}), and go on with --resume.'
            ) from error
        if memory_is_full(error):
            raise EndedEarly(
                f'Out of memory at step {step}: {_shorten(error)}. Go on with --resume and other '
                f'values of {less_memory(settings)}. {last}'
            ) from error
        raise


def disk_is_full(error: BaseException) -> bool:
    """Whether an error or one of its causes is a full disk or an exhausted quota."""
    return any(
        isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT)
        for each in _with_causes(error)
    )


def memory_is_full(error: BaseException) -> bool:
    """Whether an error or one of its causes is a lack of memory on the GPU or in Python."""
    return any(
        isinstance(each, (torch.OutOfMemoryError, MemoryError)) for each in _with_causes(error)
    )


def less_memory(settings: TrainSettings) -> str:
    """Name the settings that lower the memory of a step, with their present values."""
    return (
        f'accumulate (now {settings.accumulate}), activation_checkpointing (now '
        f'{str(settings.activation_checkpointing).lower()}), precision (now '
        f'{settings.precision}) or workers (now {settings.workers}); smaller chunk_frames, '
        'image_sizes or augmentation.short_sides change what is learnt, and need a run of their '
        'own in another out=...'
    )


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and all that led to it: torch.save, for one, hides the OSError of a disk."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _end_children(trainer: Trainer) -> None:
    """End the processes that Lightning started, which would wait for this one for ever.

    Under torchrun and SLURM there are none: those end the other processes themselves.
    """
    started = getattr(trainer.strategy.launcher, 'procs', [])
    children = list(started)
    started.clear()  # Lightning watches this list, and ends this process too if a child fails
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.wait(_PATIENCE_S)
        child.kill()  # a process that waits for others on the GPU does not react to SIGTERM
        child.wait()


def _describe_nonfinite(error: NonFiniteLoss, settings: TrainSettings, trainer: Trainer) -> str:
    """Write the file about a non-finite loss, and return the message."""
    origins = list(error.origins)
    if trainer.world_size > 1:
        gathered: list[list[str]] = [[] for _ in range(trainer.world_size)]
        dist.all_gather_object(gathered, origins)
        origins = [origin for each in gathered for origin in each]
    path = Path(settings.out) / NONFINITE_FILE
    where = f'{path} has all of this'
    if trainer.is_global_zero:
        losses = {name: str(value) for name, value in error.losses.items()}  # JSON has no NaN
        content = {'step': error.step, 'losses': losses, 'origins': origins}
        try:
            with whole_file(path) as file:
                file.write(json.dumps(content, indent=1).encode())
        except OSError as failure:
            where = f'{path} could not be written: {failure}'
    named = '; '.join(origins[:8]) or 'unknown'
    more = f' and {len(origins) - 8} more' if len(origins) > 8 else ''
    precision = precision_of(trainer)
    finer = '' if precision == 'fp32' else f', or --resume precision=fp32 (now {precision})'
    return (
        f'{error}. Clips: {named}{more}; {where}. Look at these clips, try a lower learning_rate '
        f'(now {settings.learning_rate:g}) in another out=...{finer}. {_last_checkpoint(settings)}'
    )


def _last_checkpoint(settings: TrainSettings) -> str:
    saved = find_checkpoints(Path(settings.out) / FOLDER)
    if not saved:
        return 'There is no checkpoint yet.'
    return f'The last checkpoint is whole: {next(iter(saved.values()))}.'


def _shorten(error: Exception) -> str:
    """Return the message of an error on one line; some of torch fill a page."""
    return textwrap.shorten(str(error) or type(error).__name__, 200, placeholder='...')
