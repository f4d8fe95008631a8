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


class StepClips:
    """Batches by the step of the run, each in one part."""

    def __init__(self, settings: TrainSettings, mixture: Mixture, rank: int, world: int) -> None:
        self.settings = settings
        self.clips = [mixture.clips(index) for index in range(len(settings.phases))]

    def __getitem__(self, step: int) -> tuple[Batch, ...]:
        for phase, clips in zip(self.settings.phases, self.clips, strict=True):
            if step < phase.steps:
                return (clips[step],)
            step -= phase.steps
        raise IndexError(step)


class RunLoader:
    """The batches from a step on.

    Its length is that of the whole run: Lightning counts in what came before a resume.
    """

    def __init__(self, clips: Any, first_step: int, total_steps: int, workers: int, pin: bool):
        self.clips = clips
        self.first_step = first_step
        self.total_steps = total_steps
        self.workers = workers
        self.pin_memory = pin

    def __len__(self) -> int:
        return self.total_steps

    def __iter__(self) -> Iterator[tuple[Batch, ...]]:
        steps = range(self.first_step, self.total_steps)
        return load_batches(self.clips, steps, self.workers, self.pin_memory)

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
        settings = self.settings
        clips = StepClips(settings, self.mixture, trainer.global_rank, trainer.world_size)
        on_gpu = trainer.strategy.root_device.type == 'cuda'
        return RunLoader(
            clips, trainer.global_step, settings.total_steps, settings.workers, on_gpu
        )

    def transfer_batch_to_device(
        self, batch: tuple[Batch, ...], device: torch.device, dataloader_idx: int
    ) -> tuple[Batch, ...]:
        """Leave it on the host: the device needs no more than a chunk's frames at a time."""
        return batch
