"""The clips of a run, as Lightning takes them: one epoch that holds every step, loaded ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Dataset

from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.training.clips import Batch
from videomt_ros.training.mixture import Mixture
from videomt_ros.training.run_settings import TrainSettings
from videomt_ros.training.step_clips import StepClips
from videomt_ros.training.stopping import end_with_parent

Batches = tuple[Batch, ...]
"""The parts of a step."""


class _FaultsAsValues(Dataset[Batches | DatasetError]):
    """Batches, or a fault of the files as a value: a worker's exception would lose its words."""

    def __init__(self, clips: Dataset[Batches]) -> None:
        self._clips = clips

    def __getitem__(self, index: int) -> Batches | DatasetError:
        try:
            return self._clips[index]
        except DatasetError as error:
            return error


def load_batches(
    clips: Dataset[Batches], steps: Sequence[int], workers: int, pin_memory: bool = False
) -> Iterator[Batches]:
    """Load the batches of steps in order, ahead of their use.

    Args:
        clips: where they come from; see `StepClips`.
        steps: of the run.
        workers: processes; 0: in this one.
        pin_memory: for the copy to a GPU.

    Raises:
        DatasetError: an image or a mask is damaged; names the file.
    """
    loader = DataLoader(
        _FaultsAsValues(clips),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=end_with_parent,
    )
    for parts in loader:
        if isinstance(parts, DatasetError):
            raise parts
        # Pinning turns tuples into lists.
        yield tuple(batch._replace(origins=tuple(batch.origins)) for batch in parts)


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

    def __iter__(self) -> Iterator[Batches]:
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
        self, batch: Batches, device: torch.device, dataloader_idx: int
    ) -> Batches:
        """Leave it on the host: the device needs no more than a chunk's frames at a time."""
        return batch
