"""Checkpoints of a run: how they are written, which are kept, and which one a resume takes."""

from __future__ import annotations

import logging
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from videomt_ros.files import whole_file
from videomt_ros.training.run_settings import TrainSettings
from videomt_ros.training.stopping import StopSignals

logger = logging.getLogger(__name__)

FOLDER = 'checkpoints'
"""Name of their folder in the folder of a run."""


class AtomicIO(TorchCheckpointIO):
    """Lightning's reader and writer of checkpoints, with files that are complete or absent."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint; after a crash, a kill or a full disk it is complete or absent."""
        with whole_file(Path(path), durable=True) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint to the CPU without executing any code in it."""
        return torch.load(path, map_location='cpu', weights_only=True)


class KeepCheckpoints(Checkpoint):
    """Saves every few steps, at each best score and at the end; keeps the latest and the best.

    Lightning's ModelCheckpoint may save before a step of manual optimisation is complete.
    """

    def __init__(
        self, folder: Path, every: int, keep: int, best_step: Callable[[], int | None]
    ) -> None:
        """Set up the callback; writes nothing yet.

        Args:
            folder: folder for the checkpoints.
            every: number of steps between checkpoints.
            keep: number of latest checkpoints to keep, beside the best.
            best_step: returns the step with the best score so far, the same in all processes.
        """
        self.folder = folder
        self.every = every
        self.keep = keep
        self.best_step = best_step
        self._signals = StopSignals()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that all processes resume from the same step.

        Raises:
            ValueError: they do not, since they do not share the folder.
        """
        if trainer.world_size == 1:
            return
        names: list[str] = [''] * trainer.world_size
        path = trainer.ckpt_path
        dist.all_gather_object(names, Path(path).name if path else 'no checkpoint')
        if len(set(names)) > 1:
            raise ValueError(
                f'Expected all processes to go on from the same checkpoint in {self.folder}, they '
                f'found, by rank: {", ".join(names)}. Let out=... be a folder that all machines '
                'share, or copy the checkpoints to each.'
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From now on, let Ctrl-C and SIGTERM wait for a checkpoint."""
        self._signals.watch()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save a checkpoint if one is due.

        Raises:
            KeyboardInterrupt: a process of the run received Ctrl-C.
            SIGTERMException: a process of the run received SIGTERM.
        """
        step, stop = trainer.global_step, self._signals.wanted(trainer)
        is_last = batch[0].step + 1 >= trainer.max_steps  # a step of the plan
        if not (step % self.every == 0 or step == self.best_step() or is_last or stop is not None):
            return
        trainer.save_checkpoint(self.folder / f'step={step}.ckpt')
        if trainer.is_global_zero:
            self._clear(step)
        if stop is not None and not is_last:
            trainer.strategy.barrier()  # launchers end the other processes as soon as one ends
            raise stop

    def _clear(self, step: int) -> None:
        """Delete old checkpoints after one was saved."""
        saved, best = find_checkpoints(self.folder), self.best_step()
        # Checkpoints of later steps could not be read when the run was resumed. They are renamed
        # and not deleted, since the reading may have been at fault.
        past = [number for number in saved if number <= step]
        for number in past[self.keep :]:
            if number != best:
                saved[number].unlink()
        for number in saved.keys() - set(past):
            spoilt = saved[number].with_name(f'{saved[number].name}.damaged')
            saved[number].replace(spoilt)
            logger.warning('What could not be resumed from is now %s.', spoilt)


def find_checkpoints(folder: Path) -> dict[int, Path]:
    """Find the checkpoints in a folder, by step and latest first."""
    found = {}
    for path in folder.glob('step=*.ckpt'):
        if match := re.fullmatch(r'step=(\d+)\.ckpt', path.name):
            found[int(match[1])] = path
    return dict(sorted(found.items(), reverse=True))


def newest_checkpoint(
    folder: Path, settings: TrainSettings, weights: Mapping[str, Tensor]
) -> Path | None:
    """Find the latest checkpoint that is undamaged.

    Args:
        folder: folder of checkpoints.
        settings: settings of the run to resume.
        weights: weights of its module, to compare names and shapes.

    Returns:
        Path of the checkpoint; None if there are no checkpoints.

    Raises:
        ValueError: all are damaged, or the latest undamaged one has other settings; names them.
    """
    saved = find_checkpoints(folder)
    for path in saved.values():
        content = _read(path)
        if content is not None:
            _check_settings(path, content['settings'], settings.deciding())
            found = content['state_dict']
            if {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in weights.items()}:
                return path
        logger.warning('%s is damaged or of another kind: trying an older one.', path)
    if saved:
        raise ValueError(
            f'Expected a checkpoint of videomt train, {next(iter(saved.values()))} is damaged or '
            'of another kind, and so is every older one. Choose another folder with out=..., or '
            f'delete {folder} to start anew.'
        )
    return None


def _read(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint; None if it is damaged or lacks something that a resume needs."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not notice a flipped bit
            if archive.testzip() is not None:
                return None
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
        names = ('settings', 'state_dict', 'optimizer_states', 'loops', 'callbacks')
        dict(content['settings'])
        return {name: content[name] for name in names}
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged file may raise any exception in the reader
        if 'allocate memory' in str(error):  # torch lacks memory, and the file may be undamaged
            raise
        return None


def _check_settings(path: Path, saved: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    differing = sorted(
        name for name in ours.keys() | saved.keys() if ours.get(name) != saved.get(name)
    )
    if differing:
        raise ValueError(
            f'{path} is of a run with other settings: {", ".join(differing)}. '
            'Resume with the settings it was started with, or choose another folder '
            'with out=...'
        )
