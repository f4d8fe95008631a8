"""One training run as typed settings, read from a run file in `config/`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from videomt_ros.model.config import VidEoMTConfig
from videomt_ros.training.criterion import LossWeights


@dataclass(frozen=True)
class Stage:
    """A part of a run with clips of one length; the first stage often sees single images."""

    steps: int
    clip_frames: int
    """T; 1 trains the image model."""
    batch_size: int
    max_stride: int = 1
    """Largest distance between neighbouring frames of a clip; each clip draws its own."""


@dataclass(frozen=True)
class TrainSettings:
    """All settings of a run. A run file lists only what differs from these defaults."""

    network: VidEoMTConfig
    stages: tuple[Stage, ...]
    """In order; step numbers and schedules run on through all of them."""
    out: str = 'out/train'
    """Folder of checkpoints, log and the final weights."""
    seed: int = 0
    image_sizes: tuple[tuple[int, int], ...] = ((128, 160),)
    """(height, width) in pixels; each batch has one of them."""
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    warmup_steps: int = 500
    """Steps over which the learning rate rises from 0."""
    decay_power: float = 0.9
    """Of the polynomial decay to 0 that follows."""
    grad_clip_norm: float = 1.0
    """Largest norm of the gradient of all parameters together."""
    masked_attention_until: float = 0.0
    """Share of all steps over which masked attention fades from always to never; 0: none."""
    ema_decay: float = 0.999
    """Of the running mean of the weights, which is what the run delivers."""
    losses: LossWeights = field(default_factory=LossWeights)
    device: str = 'cpu'
    """A torch device. On a GPU the network runs under bfloat16 autocast."""
    threads: int = 2
    """CPU threads of torch."""
    workers: int = 1
    """Processes that draw clips ahead."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""
    log_every: int = 25

    def __post_init__(self) -> None:
        if not self.stages or any(
            min(stage.steps, stage.clip_frames, stage.batch_size, stage.max_stride) < 1
            for stage in self.stages
        ):
            raise ValueError(
                'Expected stages, each of 1 or more steps, clip_frames, batch_size and max_stride.'
            )
        for height, width in self.image_sizes:
            if height % self.network.patch_size or width % self.network.patch_size:
                raise ValueError(
                    f'Expected image sizes in multiples of the patch {self.network.patch_size}, '
                    f'got {height} x {width}.'
                )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f'Expected ema_decay in 0..1, 1 excluded, got {self.ema_decay}.')

    @property
    def total_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)


def load_settings(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> TrainSettings:
    """Read a run file.

    Args:
        path: a YAML file whose keys are fields of TrainSettings.
        overrides: `key=value` each, the value in YAML; `losses.num_points=512` reaches inside.

    Raises:
        ValueError: unknown key, or a value out of range; names it.
        OSError: the file cannot be read.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'Expected a YAML run file, {path} is none: {error}.') from error
    if not isinstance(values, dict):
        raise ValueError(f'Expected keys and values in {path}, see config/train_demo.yaml.')
    for override in overrides:
        key, separator, value = override.partition('=')
        if not separator:
            raise ValueError(f'Expected an override as key=value, got {override!r}.')
        *parents, leaf = key.split('.')
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ValueError(f'{key!r}: {parent} has no settings inside.')
        place[leaf] = yaml.safe_load(value)
    return build_settings(TrainSettings, values)


def build_settings(kind: Any, values: Any, where: str = '') -> Any:
    """Build a dataclass of settings, and those within it, from plain values; names a wrong key."""
    if not isinstance(values, dict):
        raise ValueError(f'Expected keys and values in {where or "the run file"}, got {values!r}.')
    hints = get_type_hints(kind)
    known = {item.name for item in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(
            f'Unknown settings: {", ".join(where + name for name in unknown)}. '
            f'Expected some of: {", ".join(sorted(known))}.'
        )
    built = dict(values)
    for name, value in values.items():
        if is_dataclass(hints[name]):
            built[name] = build_settings(hints[name], value, f'{where}{name}.')
        elif name == 'stages':
            built[name] = tuple(build_settings(Stage, stage, 'stages.') for stage in value)
        elif name == 'image_sizes':
            built[name] = tuple((int(height), int(width)) for height, width in value)
    try:
        return kind(**built)
    except TypeError as error:
        raise ValueError(f'{where or "run file"}: {error}.') from error
