"""Ends of a run before its last step: what happened, what is left of it, and how to go on."""

from __future__ import annotations

import errno
import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities.exceptions import SIGTERMException

from videomt_ros.files import remove_partials, whole_file
from videomt_ros.training.checkpoints import FOLDER, find_checkpoints
from videomt_ros.training.machine import precision_of
from videomt_ros.training.run_settings import TrainSettings

NONFINITE_FILE = 'nonfinite_step.json'
"""In the folder of a run: the step that ended it."""
_NUM_NAMED = 8
"""Clips that a message names; the file has all of them."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NO_ROOM_WORDS = (
    'No space left on device',  # of safetensors, which has an error of its own
    'Disk quota exceeded',
    'PytorchStreamWriter failed writing',  # of torch.save
)
_NO_MEMORY_WORDS = (
    'DefaultCPUAllocator',  # can't allocate memory
    'CUDA out of memory',  # as the thread of a data loader repeats it
    'CUBLAS_STATUS_ALLOC_FAILED',
    'is killed by signal: Killed',  # a data loader's process, by the system
)
_PATIENCE = 3.0
"""Seconds for processes to end by themselves, and to say why."""
_LEFT_ALONE_WORDS = ('Connection closed by peer', 'Connection reset by peer')
"""Of gloo, where another process has ended; with NCCL the launcher ends the others."""

logger = logging.getLogger(__name__)


class EndedEarly(ValueError):
    """A run that cannot go on as it is; the message says what to change, in one line."""


class NonFiniteLoss(ValueError):
    """The loss of a step or its gradient is infinite or no number; nothing was learnt from it.

    All processes raise it in the same step.
    """

    def __init__(
        self,
        step: int,
        losses: Mapping[str, float],
        origins: Sequence[str],
        what: Literal['loss', 'gradient'] = 'loss',
    ) -> None:
        """Say which step it was.

        Args:
            step: its number, from 0.
            losses: of the whole batch, by name.
            origins: of the clips of the parts at fault; none if they are another process's. No
                one can tell for a gradient: those of all parts of this process.
            what: is not finite.
        """
        values = ', '.join(f'{name} {value:.4g}' for name, value in losses.items())
        super().__init__(f'The {what} is not finite at step {step} ({values})')
        self.step = step
        self.losses = dict(losses)
        self.origins = tuple(origins)


@contextmanager
def told_how_to_go_on(settings: TrainSettings, trainer: Trainer) -> Iterator[None]:
    """Turn what ends a run into one line that says how to go on; checkpoints stay as they are.

    Args:
        settings: of the run.
        trainer: runs it, inside the block.

    Raises:
        EndedEarly: the loss is not finite, memory or disk are too small.
        KeyboardInterrupt: Ctrl-C, after the step at hand or within it, which Lightning makes an
            exit code of 1.
        SystemExit: SIGTERM, with the code that a shell gives to it.
    """
    try:
        yield
    except NonFiniteLoss as error:
        raise EndedEarly(_after_nonfinite(error, settings, trainer)) from error
    except (KeyboardInterrupt, SystemExit) as error:
        _end_children(trainer)
        if isinstance(error, SIGTERMException):
            _say(f'Stopped by SIGTERM. {_going_on(settings)}', trainer)
            sys.exit(128 + signal.SIGTERM)
        if isinstance(error, KeyboardInterrupt) or isinstance(
            error.__context__, KeyboardInterrupt
        ):
            _say(f'Interrupted. {_going_on(settings)}', trainer)
            raise KeyboardInterrupt from error
        raise
    except Exception as error:
        _end_children(trainer)
        if disk_is_full(error):
            if trainer.is_global_zero:
                remove_partials(Path(settings.out))
            raise EndedEarly(_after_full_disk(error, settings, trainer)) from error
        if memory_is_full(error):
            raise EndedEarly(_after_full_memory(error, settings, trainer)) from error
        if any(words in str(each) for each in _chain(error) for words in _LEFT_ALONE_WORDS):
            raise EndedEarly(
                f'Process {trainer.global_rank} lost another one, whose message says why it '
                f'ended. {_going_on(settings)}'
            ) from error
        raise


def _end_children(trainer: Trainer) -> None:
    """End the processes that Lightning started: they wait for this one, and would for ever.

    Under torchrun and SLURM there are none: those end the others themselves.
    """
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher):
        return
    children = list(launcher.procs)
    # Lightning watches this list, and kills this process too, before its message, if one fails.
    launcher.procs.clear()
    until = time.monotonic() + _PATIENCE
    for child in children:
        try:
            child.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()  # it may hang in a GPU's exchange, deaf to SIGTERM
            child.wait()


def disk_is_full(error: BaseException) -> bool:
    """Whether an error, or what led to it, is that nothing more can be written."""
    return any(
        (isinstance(each, OSError) and each.errno in _NO_ROOM)
        or any(words in str(each) for words in _NO_ROOM_WORDS)
        for each in _chain(error)
    )


def memory_is_full(error: BaseException) -> bool:
    """Whether an error, or what led to it, is that a GPU or the machine is out of memory."""
    return any(
        isinstance(each, (torch.OutOfMemoryError, MemoryError))
        or (
            isinstance(each, RuntimeError)
            and any(words in str(each) for words in _NO_MEMORY_WORDS)
        )
        for each in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it: a logger that closes on a full disk hides the first one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _after_nonfinite(error: NonFiniteLoss, settings: TrainSettings, trainer: Trainer) -> str:
    origins = _of_all_processes(error.origins, trainer)
    path = Path(settings.out) / NONFINITE_FILE
    where = f'{path} has all of this'
    if trainer.is_global_zero:
        # NaN is no JSON; a text is.
        losses = {name: str(value) for name, value in error.losses.items()}
        content = {'step': error.step, 'losses': losses, 'origins': origins}
        try:
            with whole_file(path) as file:
                file.write(json.dumps(content, indent=1).encode())
        except OSError as failure:
            where = f'{path} could not be written: {failure}'
    named = '; '.join(origins[:_NUM_NAMED]) or 'unknown'
    more = f' and {len(origins) - _NUM_NAMED} more' if len(origins) > _NUM_NAMED else ''
    advice = f'try a lower learning_rate (now {settings.learning_rate:g}) in another out=...'
    better = {'fp16': 'precision=bf16 or precision=fp32', 'bf16': 'precision=fp32'}
    if (precision := precision_of(trainer)) in better:
        advice += f', or --resume {better[precision]} (now {precision})'
    return (
        f'{error}. Clips: {named}{more}; {where}. Look at these clips, {advice}. '
        f'{_last_checkpoint(settings)}'
    )


def _of_all_processes(origins: Sequence[str], trainer: Trainer) -> list[str]:
    if trainer.world_size == 1:
        return list(origins)
    gathered: list[list[str]] = [[] for _ in range(trainer.world_size)]
    dist.all_gather_object(gathered, list(origins))
    return [origin for each in gathered for origin in each]


def _after_full_memory(error: Exception, settings: TrainSettings, trainer: Trainer) -> str:
    step = min(trainer.global_step, settings.total_steps - 1)
    how, what = less_memory(settings, step, trainer)
    resumed = f'Go on with --resume and {how}. ' if how else ''
    return (
        f'Out of memory at step {step}: {_short(error)}. {resumed}What decides what is learnt '
        f'needs a run of its own, in another out=...: {what}. {_last_checkpoint(settings)}'
    )


def less_memory(settings: TrainSettings, step: int, trainer: Trainer) -> tuple[str, str]:
    """Settings that take less memory at a step, with the values they have now.

    Returns:
        Those with which the same is learnt, as text, empty if there are none; and the others.
    """
    same = []
    if accumulate := _next_accumulate(settings, trainer.world_size):
        same.append(f'accumulate={accumulate} (now {settings.accumulate})')
    if not settings.activation_checkpointing:
        same.append('activation_checkpointing=true (now false)')
    if precision_of(trainer) == 'fp32':
        same.append('precision=bf16 (now fp32)')
    if settings.workers > 1:
        same.append(f'workers=1 (now {settings.workers}) if it is the memory of the machine')
    if settings.data:
        sizes = f'augmentation.short_sides (now {_listed(settings.augmentation.short_sides)})'
    else:
        listed = _listed([f'{height} x {width}' for height, width in settings.image_sizes])
        sizes = f'image_sizes (now {listed})'
    phase = settings.phase(step)
    chunk = 'null' if phase.chunk_frames is None else phase.chunk_frames
    clips = f'for clips of {phase.clip_frames} frames'
    other = f'chunk_frames of the phase (now {chunk}, {clips}), {sizes}'
    return ', or '.join(same), other


def _next_accumulate(settings: TrainSettings, world_size: int) -> int | None:
    """The next number of parts that divides the share of a process in every phase."""
    shares = [phase.batch_size // world_size for phase in settings.phases]
    return next(
        (
            parts
            for parts in range(settings.accumulate + 1, max(shares) + 1)
            if not any(share % parts for share in shares)
        ),
        None,
    )


def _after_full_disk(error: Exception, settings: TrainSettings, trainer: Trainer) -> str:
    return (
        f'{settings.out} cannot be written at step {trainer.global_step}, the disk is full: '
        f'{_short(error)}. {_last_checkpoint(settings)} Make room (keep_checkpoints=1 takes '
        f'less, now {settings.keep_checkpoints}), and go on with --resume.'
    )


def _going_on(settings: TrainSettings) -> str:
    return f'{_last_checkpoint(settings)} Go on with --resume.'


def _last_checkpoint(settings: TrainSettings) -> str:
    saved = find_checkpoints(Path(settings.out) / FOLDER)
    if not saved:
        return 'There is no checkpoint yet.'
    return f'The last checkpoint is whole: {next(iter(saved.values()))}.'


def _say(text: str, trainer: Trainer) -> None:
    if trainer.is_global_zero:
        logger.warning(text)


def _listed(values: Sequence[object]) -> str:
    return ', '.join(map(str, values))


def _short(error: Exception) -> str:
    """The first sentence or so: torch tells of its allocator at length."""
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f'{text[:197]}...'
