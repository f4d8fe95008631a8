"""The batches of a run by its steps, each process with its share of every batch.

Each clip of each step is drawn from a seed of its own, so neither the number of processes and
parts, nor that of workers, nor a resume changes which clips a run sees. Clips of several sizes are
padded to the largest of their part, which does depend on who is in it.
"""

from __future__ import annotations

import numpy as np
from torch.utils.data import Dataset

from videomt_ros.training.clips import Batch, Clip, collate
from videomt_ros.training.mixture import Mixture
from videomt_ros.training.run_settings import TrainSettings
from videomt_ros.training.sampling import ClipSource


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
