"""Callbacks of Lightning that average the weights, write the log and show the progress."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import TQDMProgressBar, WeightAveraging
from torch import Tensor

from videomt_ros.files import whole_file
from videomt_ros.training.data import RunData

logger = logging.getLogger(__name__)


class RunningMean(WeightAveraging):
    """Exponential moving average of the weights, with a smaller decay in the first steps.

    The decay at step s is min(decay, (1 + s) / (10 + s)), so that the random start is forgotten
    soon; after step 0 the mean equals the weights. A checkpoint holds the mean in `state_dict` and
    the weights that are trained in `current_model_state`. Frozen weights are their own mean: they
    exist once, in memory and in a checkpoint.
    """

    def __init__(self, decay: float) -> None:
        """Set the largest decay, 0..1."""
        super().__init__(use_buffers=False, multi_avg_fn=self._update)
        self.decay = decay

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Create the mean on the device of the run.

        Lightning would take the device where the module still is, the CPU, and copy all weights
        there in each step.
        """
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the mean share the frozen weights, which have reached their device by now."""
        for mean, weights in zip(self.module.parameters(), pl_module.parameters(), strict=True):
            if not weights.requires_grad:
                mean.data = weights.data

    @torch.no_grad()
    def _update(self, mean: Any, weights: Any, num_averaged: Tensor | int) -> None:
        step = int(num_averaged)
        kept = min(self.decay, (1 + step) / (10 + step))
        pairs = zip(mean, weights, strict=True)
        trained = [pair for pair in pairs if pair[0].data_ptr() != pair[1].data_ptr()]
        means, others = zip(*trained, strict=True)
        torch._foreach_lerp_(means, others, 1 - kept)

    @property
    def module(self) -> pl.LightningModule:
        """Copy of the TrainModule whose weights are the mean."""
        assert self._average_model is not None, 'the run has started'
        return cast(pl.LightningModule, self._average_model.module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do nothing, whereas Lightning would replace the weights of the module by the mean."""


class RunLog(pl.Callback):
    """Writes the losses of every few steps to a file, one JSON object per line."""

    def __init__(self, path: Path, every: int, in_words: bool) -> None:
        """Set up the log; opens no file yet.

        Args:
            path: the file to append to. A resumed run first drops the lines of later steps.
            every: number of steps between lines.
            in_words: also log a line for people, where there is no progress bar; after the first
                step as well, and after a long one.
        """
        self.path = path
        self.every = every
        self.in_words = in_words
        self._started = self._told = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, and drop lines of steps that are about to be repeated."""
        self._started, self._first_step = time.monotonic(), trainer.global_step
        if trainer.is_global_zero:
            cut_log(self.path, trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write a line every `every` steps."""
        step = trainer.global_step
        if not trainer.is_global_zero:
            return
        now = time.monotonic()
        pace = (now - self._started) / (step - self._first_step)
        losses = outputs['record']
        is_due = step % self.every == 0
        if self.in_words and (is_due or step == self._first_step + 1 or now >= self._told + 60):
            self._told = now
            self._tell(trainer, losses, batch[0].step + 1, pace)
        if not is_due:
            return
        line = {**losses, 'step': step, 'seconds_per_step': round(pace, 3)}
        with open(self.path, 'a', encoding='utf-8') as file:
            file.write(json.dumps(line) + '\n')
        scalars = {f'train/{name}': value for name, value in losses.items()}
        for each in trainer.loggers:
            each.log_metrics({**scalars, 'train/seconds_per_step': pace}, step)

    def _tell(
        self, trainer: pl.Trainer, losses: Mapping[str, float], done: int, pace: float
    ) -> None:
        """Log a line for people.

        Args:
            trainer: trainer of the run.
            losses: losses of the last step.
            done: number of steps in the plan of the run, of which some may have been left out.
            pace: seconds per step.
        """
        left = pace * (trainer.max_steps - done)
        if isinstance(data := getattr(trainer, 'datamodule', None), RunData):
            left = min(left, data.pace.left_s)
        logger.info(
            'step %d of %d, loss %.2f (class %.2f, mask %.2f, dice %.2f), '
            '%.2f s a step, %d min left',
            done, trainer.max_steps, losses['loss'], losses['class'],
            losses['mask'], losses['dice'], pace, left / 60,
        )  # fmt: skip


class StepBar(TQDMProgressBar):
    """Progress bar over all steps of the run; its pace counts from the last resume."""

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Set length and position, which Lightning loses when it resumes within an epoch."""
        super().on_train_start(trainer)
        bar = self.train_progress_bar
        bar.reset(trainer.max_steps)
        bar.initial = bar.n = trainer.global_step
        bar.refresh()

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Do nothing: a run is one epoch, whose bar `on_train_start` has drawn."""


def cut_log(path: Path, step: int) -> None:
    """Remove the lines after a step from a log, which is replaced in one piece."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding='utf-8').splitlines(keepends=True):
        try:
            if json.loads(line)['step'] <= step:
                kept.append(line)
        except ValueError:  # a crash may leave half a line
            continue
    with whole_file(path) as file:
        file.write(''.join(kept).encode())
