"""Training data of a run: its sources, the batches of its steps, and their loading.

Each clip of each step is drawn from its own seed, so that the clips of a run depend neither on the
number of processes, parts and workers nor on a resume. Clips of several sizes are padded to the
largest clip of their part, which does depend on the number of processes and parts.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
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
from videomt_ros.training.pace import Pace
from videomt_ros.training.run_settings import SYNTHETIC, Phase, TrainSettings
from videomt_ros.training.scene_clips import SceneClips, scene_table
from videomt_ros.training.stopping import end_with_parent

Batches = tuple[Batch, ...]
"""Parts of the batch of a step."""


class Mixture:
    """The opened data sources of a run."""

    def __init__(self, settings: TrainSettings) -> None:
        """Open all sources; reads annotations, but no images.

        Raises:
            ValueError: a data set has no object that the network knows; names the setting.
            DatasetError: files cannot be used; names file and record of every fault.
        """
        self._settings = settings
        self.videos: dict[int, LabelledVideos] = {}
        """Annotated videos by the number of their source in `TrainSettings.data`."""
        self.scenes: dict[int, list[int | None]] = {}
        """Classes of synthetic scenes, see `scene_table`, by the number of their source."""
        names = settings.network.class_names
        if not settings.data:
            # Without stuff the classes are the shapes in order, whatever the network calls them.
            has_stuff = not set(STUFF_NAMES).isdisjoint(names)
            self.scenes[0] = (
                scene_table('network', names) if has_stuff else [*range(len(CLASS_NAMES))]
            )
        for number, source in enumerate(settings.data):
            where = f'data.{number}'
            if source.dataset == SYNTHETIC:
                self.scenes[number] = scene_table(where, names, source.renamed)
            else:
                self.videos[number] = open_source(where, source, names, settings.skip_bad)

    def sources(self, phase: Phase, image_sizes: Sequence[tuple[int, int]]) -> list[ClipSource]:
        """Return the sources of clips for a phase.

        Args:
            phase: phase of the run.
            image_sizes: (height, width) of synthetic scenes; each clip has one at random.
        """
        settings = self._settings
        return [
            VideoClips(self.videos[number], settings.augmentation, phase.frame_range)
            if number in self.videos
            else SceneClips(
                self.scenes[number],
                image_sizes,
                phase.supersample,
                settings.data[number].weight if settings.data else 1.0,
                phase.hidden_frames,
                phase.hidden_share,
                phase.hard_share,
            )
            for number in range(max(1, len(settings.data)))
        ]


def check_folders(settings: TrainSettings) -> None:
    """Check that the folders of all data sets exist, before any of them is read.

    Raises:
        ValueError: a folder does not exist; names its setting.
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
    """The clips that one process contributes to the batch of each step, over all phases.

    Item n is the share of step n, counted from 0.
    """

    def __init__(
        self, settings: TrainSettings, mixture: Mixture, rank: int = 0, world: int = 1
    ) -> None:
        """Set up the batches; draws none yet.

        Args:
            settings: settings of the run; `accumulate` is the number of parts of a share.
            mixture: sources of the clips.
            rank: number of this process, 0 .. world - 1.
            world: number of processes.

        Raises:
            ValueError: see `check_shares`.
        """
        self._settings = settings
        self._mixture = mixture
        self._rank = rank
        check_shares(settings, world)
        self._shares = world * settings.accumulate
        # The colour nearest to the mean, which the network sees as 0.
        self._fill = [min(255, max(0, round(mean))) for mean in settings.network.pixel_mean]

    def __len__(self) -> int:
        return self._settings.total_steps

    def __getitem__(self, step: int) -> tuple[Batch, ...]:
        """Draw the `accumulate` parts of a step.

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
        if not settings.data:  # all scenes have one size, which needs no padding
            sizes = (sizes[np.random.default_rng(seed).integers(len(sizes))],)
            divisor = 1
        sources = self._mixture.sources(phase, sizes)
        size = phase.batch_size // self._shares
        first = self._rank * settings.accumulate * size
        parts = []
        for start in range(first, first + settings.accumulate * size, size):
            # From 1, since a 0 at the end of a seed does not change it.
            rngs = [np.random.default_rng((*seed, 1 + j)) for j in range(start, start + size)]
            clips = [_draw(rng, sources, phase.clip_frames, phase.max_stride) for rng in rngs]
            parts.append(collate(clips, divisor, self._fill)._replace(step=step))
        return tuple(parts)


def check_shares(settings: TrainSettings, world: int) -> None:
    """Check that every batch divides evenly among `world` processes and their parts.

    Raises:
        ValueError: the batches of a phase do not; names it.
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
    """Draw a clip from one of the sources by weight; like a stream, it may show no object."""
    weights = np.array([source.weight for source in sources], np.float64)
    source = sources[rng.choice(len(sources), p=weights / weights.sum())]
    return source.draw(rng, clip_frames, max_stride)


class _FaultsAsValues(Dataset[Batches | DatasetError]):
    """Returns a DatasetError as a value: DataLoader would replace its message on the way."""

    def __init__(self, clips: Dataset[Batches]) -> None:
        self._clips = clips

    def __getitem__(self, index: int) -> Batches | DatasetError:
        try:
            return self._clips[index]
        except DatasetError as error:
            return error


def _as_they_are(parts: Any) -> Any:
    """Return batches without the conversion of DataLoader, which makes lists of tuples."""
    return parts


def load_batches(clips: Dataset[Batches], steps: Iterable[int], workers: int) -> Iterator[Batches]:
    """Load the batches of steps in order and ahead of their use.

    Args:
        clips: batches by step; see `StepClips`.
        steps: steps to load, each asked for when its loading begins.
        workers: number of processes that load; 0: this process loads.

    Raises:
        DatasetError: an image or a mask is damaged; names the file.
    """
    # Without pinned memory: pinning new batches took a sixth of the steps of a small network on a
    # GPU, and the copy of uint8 frames is short in any case.
    with warnings.catch_warnings():
        # More processes than cores are no fault: `videomt benchmark train` tells how many help.
        warnings.filterwarnings('ignore', message='This DataLoader will create')
        loader = DataLoader(
            _FaultsAsValues(clips),
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            collate_fn=_as_they_are,
            worker_init_fn=end_with_parent,
        )
        batches = iter(loader)
    for parts in batches:
        if isinstance(parts, DatasetError):
            raise parts
        yield parts


class RunLoader:
    """Loads the batches of the steps that a run makes from now on.

    Its length is that of the whole run, since Lightning counts the steps before a resume too.
    """

    def __init__(self, clips: StepClips, pace: Pace, workers: int) -> None:
        """Set up the loader; loads nothing yet.

        Args:
            clips: batches of this process by step.
            pace: chooses the steps.
            workers: see `load_batches`.
        """
        self._clips = clips
        self._pace = pace
        self._workers = workers

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[Batches]:
        return load_batches(self._clips, self._pace.steps(), self._workers)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the step of the trainer is the whole state."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing; Lightning takes a resume for exact if this method exists."""


class RunData(pl.LightningDataModule):
    """Lightning's view of the data: one epoch that holds all steps of the run."""

    def __init__(self, settings: TrainSettings, mixture: Mixture) -> None:
        super().__init__()
        self.settings = settings
        self.mixture = mixture
        limit = settings.max_minutes
        self.pace = Pace(settings.total_steps, None if limit is None else 60 * limit)

    def train_dataloader(self) -> RunLoader:
        """Return the batches from the current step of the run on."""
        trainer = self.trainer
        assert trainer is not None
        clips = StepClips(self.settings, self.mixture, trainer.global_rank, trainer.world_size)
        if self.settings.max_minutes is None:
            self.pace.next_step = trainer.global_step
        return RunLoader(clips, self.pace, self.settings.workers)

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the plan if the steps that were made do not tell it."""
        return {} if self.settings.max_minutes is None else self.pace.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a run was stopped."""
        self.pace.load_state_dict(state_dict)

    def transfer_batch_to_device(
        self, batch: Batches, device: torch.device, dataloader_idx: int
    ) -> Batches:
        """Leave the batch on the host; TrainModule moves the frames of one chunk at a time."""
        self.pace.next_step = batch[0].step + 1
        return batch
