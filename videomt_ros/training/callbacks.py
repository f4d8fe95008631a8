"""The log of a run: a line of JSON per so many steps, the loggers, and what the user sees."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import TQDMProgressBar, WeightAveraging
from torch import Tensor

from videomt_ros.files import whole_file


class RunningMean(WeightAveraging):
    """Exponential moving average that follows closely while it is young.

    After step s the mean keeps min(decay, (1 + s) / (10 + s)) of itself, or it would hold on to
    the random start; after step 0 it is the weights themselves. A checkpoint holds the mean in
    `state_dict`, and the weights that training goes on with in `current_model_state`.
    """

    def __init__(self, decay: float) -> None:
        """Keep the largest share, 0..1."""
        super().__init__(use_buffers=False, multi_avg_fn=self._update)
        self.decay = decay

    @torch.no_grad()
    def _update(self, mean: Any, weights: Any, num_averaged: Tensor | int) -> None:
        step = int(num_averaged)
        kept = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(mean, weights, 1 - kept)

    @property
    def module(self) -> pl.LightningModule:
        """A copy of the module that holds the mean."""
        assert self._average_model is not None, 'there is a mean once the run has begun'
        return cast(pl.LightningModule, self._average_model.module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the module the weights it has; Lightning would put the mean in their place."""


logger = logging.getLogger(__name__)


class RunLog(pl.Callback):
    """Write the losses of every `every` steps to `path`, one JSON object a line."""

    def __init__(self, path: Path, every: int, in_words: bool) -> None:
        """Prepare.

        Args:
            path: the file; it grows, and is cut where a resumed run starts.
            every: steps between lines.
            in_words: log a line for people as well, where no progress bar runs.
        """
        self.path = path
        self.every = every
        self.in_words = in_words
        self._started = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, and leave out of the file what is about to come again."""
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
        """Write a line, if it is time for one."""
        step = trainer.global_step
        if step % self.every or not trainer.is_global_zero:
            return
        pace = (time.monotonic() - self._started) / (step - self._first_step)
        losses = outputs['record']
        line = {**losses, 'step': step, 'seconds_per_step': round(pace, 3)}
        with open(self.path, 'a', encoding='utf-8') as file:
            file.write(json.dumps(line) + '\n')
        scalars = {f'train/{name}': value for name, value in losses.items()}
        for each in trainer.loggers:
            each.log_metrics({**scalars, 'train/seconds_per_step': pace}, step)
        if self.in_words:
            left = pace * (trainer.max_steps - step)
            logger.info(
                'step %d of %d, loss %.2f (class %.2f, mask %.2f, dice %.2f), '
                '%.2f s a step, %d min left',
                step, trainer.max_steps, losses['loss'], losses['class'],
                losses['mask'], losses['dice'], pace, left / 60,
            )  # fmt: skip


class StepBar(TQDMProgressBar):
    """A progress bar over the steps of the run, whose pace is that since a resume."""

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Draw it; Lightning's own forgets its length where an epoch goes on."""
        super().on_train_start(trainer)
        bar = self.train_progress_bar
        bar.reset(trainer.max_steps)
        bar.initial = bar.n = trainer.global_step
        bar.refresh()

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """There is but one epoch."""


def cut_log(path: Path, step: int) -> None:
    """Leave the lines up to a step; the file appears whole or not at all."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding='utf-8').splitlines(keepends=True):
        try:
            if json.loads(line)['step'] <= step:
                kept.append(line)
        except ValueError:  # a crash may cut a line in half
            continue
    with whole_file(path) as file:
        file.write(''.join(kept).encode())
