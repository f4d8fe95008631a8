"""The running mean of the weights."""

from __future__ import annotations

from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


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
