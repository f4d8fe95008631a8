"""The clips of a run, as Lightning takes them: one epoch that holds every step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch

from videomt_ros.training.clips import Batch
from videomt_ros.training.mixture import Mixture
from videomt_ros.training.sampling import load_batches
from videomt_ros.training.settings import TrainSettings
from videomt_ros.training.step_clips import StepClips


class RunLoader:
    """The batches from a step on.

    Its length is that of the whole run: Lightning counts in what came before a resume.
    """

    def __init__(self, clips: StepClips, first_step: int, workers: int, pin_memory: bool) -> None:
        """Prepare.

        Args:
            clips: of this process, by step.
            first_step: where to start.
            workers: see `load_batches`.
            pin_memory: see `load_batches`.
        """
        self._clips = clips
        self._first_step = first_step
        self._workers = workers
        self._pin_memory = pin_memory

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[tuple[Batch, ...]]:
        steps = range(self._first_step, len(self))
        return load_batches(self._clips, steps, self._workers, self._pin_memory)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the number of the step says where it stands."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load; with it, Lightning knows that a resume is exact."""


class RunData(pl.LightningDataModule):
    """The share of this process in every batch of a run."""

    def __init__(self, settings: TrainSettings, mixture: Mixture) -> None:
        super().__init__()
        self.settings = settings
        self.mixture = mixture

    def train_dataloader(self) -> RunLoader:
        """Batches from the step on that the run has come to."""
        trainer = self.trainer
        assert trainer is not None
        clips = StepClips(self.settings, self.mixture, trainer.global_rank, trainer.world_size)
        on_gpu = trainer.strategy.root_device.type == 'cuda'
        return RunLoader(clips, trainer.global_step, self.settings.workers, on_gpu)

    def transfer_batch_to_device(
        self, batch: tuple[Batch, ...], device: torch.device, dataloader_idx: int
    ) -> tuple[Batch, ...]:
        """Leave it on the host: the device needs no more than a chunk's frames at a time."""
        return batch
