"""The clips of a run, as Lightning takes them: one epoch that holds every step, loaded ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.datasets.synthetic.scene import CLASS_NAMES
from videomt_ros.datasets.synthetic.stuff import STUFF_NAMES
from videomt_ros.training.clips import Batch, Clip, collate
from videomt_ros.training.labelled_clips import ClipSource, LabelledVideos, VideoClips, open_source
from videomt_ros.training.run_settings import SYNTHETIC, Phase, TrainSettings
from videomt_ros.training.scene_clips import SceneClips, scene_table
from videomt_ros.training.stopping import end_with_parent


class Mixture:
    """The sources of a run, open."""

    def __init__(self, settings: TrainSettings) -> None:
        """Open all of them; reads annotations, and no image.

        Raises:
            ValueError: a data set has nothing that the network could learn; names the setting.
            DatasetError: the files of one cannot be used; names file and record of every fault.
        """
        self._settings = settings
        self._videos: dict[int, LabelledVideos] = {}
        self._scenes: dict[int, list[int | None]] = {}
        names = settings.network.class_names
        if not settings.data:
            # Shapes alone are the network's classes whatever their names; stuff goes by its name.
            has_stuff = not set(STUFF_NAMES).isdisjoint(names)
            self._scenes[0] = (
                scene_table('network', names) if has_stuff else [*range(len(CLASS_NAMES))]
            )
        for number, source in enumerate(settings.data):
            where = f'data.{number}'
            if source.dataset == SYNTHETIC:
                self._scenes[number] = scene_table(where, names, source.renamed)
            else:
                self._videos[number] = open_source(where, source, names)

    def sources(self, phase: Phase, image_sizes: Sequence[tuple[int, int]]) -> list[ClipSource]:
        """Where the clips of a phase come from.

        Args:
            phase: of the run.
            image_sizes: (height, width) of synthetic scenes, one chosen at random per clip.
        """
        settings = self._settings
        return [
            VideoClips(self._videos[number], settings.augmentation)
            if number in self._videos
            else SceneClips(
                self._scenes[number],
                image_sizes,
                phase.supersample,
                settings.data[number].weight if settings.data else 1.0,
                phase.hidden_frames,
            )
            for number in range(max(1, len(settings.data)))
        ]


def check_folders(settings: TrainSettings) -> None:
    """See that all data sets of a run have a folder, before any of them is read.

    Raises:
        ValueError: one has none; names its setting.
    """
    roots = {f'data.{number}.root': source.root for number, source in enumerate(settings.data)}
    if settings.validation is not None:
        roots['validation.root'] = settings.validation.root
    for name, root in roots.items():
        if root and not Path(root).is_dir():
            raise ValueError(
                f'Expected {name} to be the folder of a data set, there is none at '
                f'{Path(root).absolute()}. Set {name}=...'
            )


class StepClips(Dataset[tuple[Batch, ...]]):
    """Clips of this process, in parts, by step of the run: 0, 1, ... over all phases."""

    def __init__(
        self, settings: TrainSettings, mixture: Mixture, rank: int = 0, world: int = 1
    ) -> None:
        """Prepare.

        Args:
            settings: of the run; `accumulate` is the number of parts.
            mixture: its sources.
            rank: of this process, 0 .. world - 1.
            world: processes.

        Raises:
            ValueError: see `check_shares`.
        """
        self._settings = settings
        self._mixture = mixture
        self._rank = rank
        check_shares(settings, world)
        self._shares = world * settings.accumulate
        # As near to the mean, which the network sees as 0, as whole numbers come.
        self._fill = [min(255, max(0, round(mean))) for mean in settings.network.pixel_mean]

    def __len__(self) -> int:
        return self._settings.total_steps

    def __getitem__(self, step: int) -> tuple[Batch, ...]:
        """The parts of a step, `accumulate` of them.

        Raises:
            DatasetError: an image or a mask is damaged; names the file.
        """
        if not 0 <= step < len(self):
            raise IndexError(f'Expected a step from 0 to {len(self) - 1}, got {step}.')
        settings = self._settings
        number, step_in_phase = settings.phase_at(step)
        phase = settings.phases[number]
        seed = (settings.seed, number, step_in_phase)
        sizes, divisor = settings.image_sizes, settings.network.size_divisor
        if not settings.data:  # scenes of one size, which need no padding
            sizes = (sizes[np.random.default_rng(seed).integers(len(sizes))],)
            divisor = 1
        sources = self._mixture.sources(phase, sizes)
        size = phase.batch_size // self._shares
        first = self._rank * settings.accumulate * size
        parts = []
        for start in range(first, first + settings.accumulate * size, size):
            # From 1: a 0 at the end of a seed changes nothing, and would be the step's.
            rngs = [np.random.default_rng((*seed, 1 + j)) for j in range(start, start + size)]
            clips = [_draw(rng, sources, phase.clip_frames, phase.max_stride) for rng in rngs]
            parts.append(collate(clips, divisor, self._fill))
        return tuple(parts)


def check_shares(settings: TrainSettings, world: int) -> None:
    """See that each of `world` processes has as many clips of every batch, in as many parts.

    Raises:
        ValueError: processes and parts cannot share the batches of a phase; names it.
    """
    shares = world * settings.accumulate
    for number, phase in enumerate(settings.phases):
        if phase.batch_size % shares:
            raise ValueError(
                f'Expected phases.{number}.batch_size to be a multiple of {shares}, for {world} '
                f'processes with accumulate={settings.accumulate} parts each, got '
                f'{phase.batch_size}. Change batch_size, accumulate, or devices and nodes.'
            )


def _draw(
    rng: np.random.Generator, sources: list[ClipSource], clip_frames: int, max_stride: int
) -> Clip:
    """A clip of one of the sources, by weight. It may hold no object, as a stream may."""
    weights = np.array([source.weight for source in sources], np.float64)
    source = sources[rng.choice(len(sources), p=weights / weights.sum())]
    return source.draw(rng, clip_frames, max_stride)


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
