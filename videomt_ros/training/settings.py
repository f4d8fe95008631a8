"""One training run as typed settings, read from a run file in `config/`."""

from __future__ import annotations

import itertools
import math
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
import yaml

from videomt_ros.datasets.synthetic_wall import check_hidden_frames
from videomt_ros.model.config import VidEoMTConfig
from videomt_ros.training.criterion import LossWeights
from videomt_ros.training.data_settings import Augmentation, DataSource
from videomt_ros.training.ranges import check_range

MAY_CHANGE = ('out', 'device', 'threads', 'workers', 'checkpoint_every', 'log_every')
"""Settings with which a run may be resumed: they say where and how it runs, not what it learns."""


@dataclass(frozen=True)
class Stage:
    """A part of a run with clips of one length; the first stage often sees single images."""

    steps: int
    clip_frames: int
    """T; 1 trains the image model."""
    batch_size: int
    max_stride: int = 1
    """Largest distance between neighbouring frames of a clip; each clip draws its own."""
    supersample: int = 1
    """Scenes are drawn so many times larger, and reduced as a camera's image would be."""
    hidden_frames: tuple[int, int] | None = None
    """Fewest and most frames for which shapes of synthetic scenes vanish behind a wall, again and
    again; null: there is no wall."""
    chunk_frames: int | None = None
    """Truncated query propagation: frames that are learned from at a time, 2 or more, with the
    memory of as many; the queries pass on from chunk to chunk, their gradient does not. null: the
    whole clip. Published for clips of 15 frames: 5."""

    def __post_init__(self) -> None:
        check_range(self, 'steps clip_frames batch_size max_stride supersample', 1)
        check_hidden_frames(self.hidden_frames)
        # A single frame teaches nothing about what it hands on.
        if self.chunk_frames is not None:
            check_range(self, 'chunk_frames', 2)


@dataclass(frozen=True)
class TrainSettings:
    """All settings of a run. A run file lists only what differs from these defaults."""

    network: VidEoMTConfig
    stages: tuple[Stage, ...]
    """In order; step numbers and schedules run on through all of them."""
    out: str = 'out/train'
    """Folder of checkpoints, log and the final weights."""
    seed: int = 0
    data: tuple[DataSource, ...] = ()
    """What to train on, mixed by weight; none: synthetic scenes alone."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Of annotated videos."""
    image_sizes: tuple[tuple[int, int], ...] = ((128, 160),)
    """(height, width) of synthetic scenes in pixels; each batch has one of them, and among other
    data each scene."""
    learning_rate: float = 1e-4
    layer_decay: float = 1.0
    """Factor of the learning rate from a block of the ViT to the one below it; 1 for a network
    from scratch, 0.6 in the published recipe, which starts from a pretrained one."""
    weight_decay: float = 0.05
    decay_all: bool = False
    """Weight decay for norms, biases, layer scales, prefix tokens and queries too."""
    warmup_steps: int = 500
    """Steps over which the learning rate rises from 0."""
    vit_warmup_steps: int | None = None
    """Steps over which that of the ViT rises, once the rest has risen; null: with the rest.
    1000 in the published recipe."""
    decay_power: float = 0.9
    """Of the polynomial decay to 0 that follows."""
    grad_clip_norm: float = 1.0
    """Largest norm of the gradient of all parameters together."""
    masked_attention_until: float = 0.0
    """Share of all steps over which masked attention fades from always to never; 0: none."""
    ema_decay: float | None = 0.999
    """Of the running mean of the weights, which is what the run delivers; null: it delivers the
    last weights, and keeps no mean."""
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
        if not self.stages:
            raise ValueError('Expected stages, one or more, got none.')
        if not self.image_sizes:
            raise ValueError('Expected image_sizes, one (height, width) or more, got none.')
        for height, width in self.image_sizes:
            patch = self.network.patch_size
            if min(height, width) < 8 or height % patch or width % patch:
                raise ValueError(
                    'Expected image_sizes of 8 pixels or more, in multiples of the patch '
                    f'{patch}, got {height} x {width}.'
                )
        check_range(self.network, 'num_queries', 1)
        check_range(self, 'seed', 0, 2**31 - 1)  # shifted by 32 bits, it still is a seed of torch
        check_range(self, 'learning_rate grad_clip_norm', 0, open_=True)
        check_range(self, 'weight_decay warmup_steps decay_power workers', 0)
        check_range(self, 'masked_attention_until', 0, 1)
        check_range(self, 'layer_decay', 0, 1, open_=True)
        if self.vit_warmup_steps is not None:
            check_range(self, 'vit_warmup_steps', 0)
        check_range(self, 'threads checkpoint_every log_every', 1)
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f'Expected ema_decay in 0..1, 1 excluded, got {self.ema_decay}.')
        try:
            torch.device(self.device)
        except RuntimeError as error:
            raise ValueError(
                f'Expected a torch device such as cpu, cuda or cuda:1, got {self.device!r}.'
            ) from error

    @property
    def total_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """The stage that a step is part of."""
        ends = itertools.accumulate(stage.steps for stage in self.stages)
        return next(s for s, end in zip(self.stages, ends, strict=True) if step < end)

    def deciding(self) -> dict[str, Any]:
        """What a run and its resumption must agree on: plain values by dotted name."""
        values = {k: v for k, v in asdict(self).items() if k not in MAY_CHANGE}
        # The folder may be another on another machine.
        values['data'] = [
            {k: v for k, v in source.items() if k != 'root'} for source in values['data']
        ]
        for part in ('network', 'losses', 'augmentation'):
            values |= {f'{part}.{name}': value for name, value in values.pop(part).items()}
        return values


def load_settings(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> TrainSettings:
    """Read a run file.

    Args:
        path: a YAML file whose keys are fields of TrainSettings.
        overrides: `key=value` each, the value in YAML; `losses.num_points=512` reaches inside.

    Raises:
        ValueError: an unknown or missing key, or a value of the wrong type or range; names it.
        OSError: the file cannot be read.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
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
        try:
            place[leaf] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f'Expected a value in YAML in {override!r}: {error}.') from error
    return build_settings(TrainSettings, values)


def build_settings(kind: Any, values: Any, where: str = '') -> Any:
    """Build a dataclass of settings, and those within it, from plain values.

    Args:
        kind: the dataclass.
        values: its fields by name.
        where: what to put before a field's name in errors.

    Raises:
        ValueError: a field is unknown or missing, or its value has the wrong type or range.
    """
    if not isinstance(values, dict):
        place = where.rstrip('.') or 'the run file'
        raise ValueError(f'Expected keys and values in {place}, got {values!r}.')
    hints = get_type_hints(kind)
    known = {item.name for item in fields(kind)}
    unknown = sorted(str(name) for name in set(values) - known)
    if unknown:
        raise ValueError(
            f'Unknown settings: {", ".join(where + name for name in unknown)}. '
            f'Expected some of: {", ".join(sorted(known))}.'
        )
    missing = [
        where + item.name
        for item in fields(kind)
        if item.name not in values and item.default is item.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f'Missing settings: {", ".join(missing)}.')
    return kind(
        **{name: _convert(hints[name], value, where + name) for name, value in values.items()}
    )


def _convert(hint: Any, value: Any, name: str) -> Any:
    """A value of a run file as the type that its field has.

    Raises:
        ValueError: it is of another type; says which setting.
    """
    if get_origin(hint) is UnionType:  # a setting that may be null
        if value is None:
            return None
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))
    if is_dataclass(hint):
        return build_settings(hint, value, f'{name}.')
    if get_origin(hint) is tuple:
        return _convert_list(hint, value, name)
    if hint is float:
        # In YAML 1.1 a number such as 1e-4, without a point, is a text.
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f'Expected {name} to be a number, got {value!r}.')
        return number
    for kind, meaning in (
        (bool, 'true or false'), (int, 'a whole number'), (str, 'a text')
    ):  # fmt: skip
        if hint is kind and type(value) is not kind:
            raise ValueError(f'Expected {name} to be {meaning}, got {value!r}.')
    if get_origin(hint) is Literal and value not in get_args(hint):
        raise ValueError(
            f'Expected {name} to be one of {", ".join(get_args(hint))}, got {value!r}.'
        )
    return value


def _convert_list(hint: Any, value: Any, name: str) -> tuple[Any, ...]:
    """The same for a tuple, of any length or of a fixed one."""
    kinds = get_args(hint)
    any_length = kinds[-1] is Ellipsis
    if not isinstance(value, (list, tuple)) or not (any_length or len(value) == len(kinds)):
        length = '' if any_length else f' of {len(kinds)}'
        raise ValueError(f'Expected {name} to be a list{length}, got {value!r}.')
    if any_length:
        kinds = (kinds[0],) * len(value)
    return tuple(
        _convert(kind, item, f'{name}.{i}')
        for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )
