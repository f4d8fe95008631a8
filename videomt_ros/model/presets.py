"""The published checkpoints: one small YAML in `models/` each, and the shipped demo model.

A preset says where the weights lie and what their tensors can't say: classes in the head's order,
task, test size, whether queries are propagated before or after the final norm.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from videomt_ros.labels import load_classes
from videomt_ros.model.config import VidEoMTConfig
from videomt_ros.model.weight_files import CheckpointError
from videomt_ros.resources import resource

logger = logging.getLogger(__name__)

SHIPPED = 'shipped'
"""As `source`: the file lies in `models/` itself."""

SIZES = {
    'small': {'embed_dim': 384, 'depth': 12, 'num_heads': 6},
    'base': {'embed_dim': 768, 'depth': 12, 'num_heads': 12},
    'large': {'embed_dim': 1024, 'depth': 24, 'num_heads': 16},
}
"""ViT-S, B and L. EVA-02 and the DINO families agree on these."""

_ABOUT = ('source', 'file', 'converted', 'licence', 'published', 'size', 'classes')
_SETTINGS = (
    'family',
    'task',
    'table_size',
    'num_queries',
    'num_query_blocks',
    'propagation',
    'norm_queries',
    'test_size',
)


class PresetError(CheckpointError):
    """A preset that does not exist or can't be used; the message names the file."""


@dataclass(frozen=True)
class Preset:
    """One file of `models/`."""

    name: str
    """Name of the YAML file, which `load_model` takes."""
    source: str
    """Hub repository of the weights, or 'shipped'."""
    file: str
    """Path of the weights in that repository, or in `models/`."""
    licence: str
    converted: str = ''
    """Hub repository with the same weights in the layout of transformers; '' if there is none."""
    size: str = ''
    """small, base or large; '' where the file itself tells."""
    classes: str = ''
    """FamilyName whose class list the head follows; '' where the file itself tells."""
    published: dict[str, Any] = field(default_factory=dict)
    """Scores that its authors report; `benchmark` names the data they were measured on."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of VidEoMTConfig."""

    @property
    def path(self) -> Path | None:
        """Where a shipped file lies; None for a file of the hub."""
        return resource('models') / self.file if self.source == SHIPPED else None

    def config(self) -> VidEoMTConfig:
        """The network that the preset describes; not for a shipped file, which describes itself.

        Raises:
            ValueError: a setting is out of range.
        """
        return VidEoMTConfig(**self.settings, name=self.name)


def preset_names() -> tuple[str, ...]:
    """Names of all presets, sorted."""
    return tuple(path.stem for path in _preset_files())


def _preset_files() -> list[Path]:
    return sorted(resource('models').glob('*.yaml'), key=lambda path: path.stem)


def load_preset(name: str) -> Preset:
    """Load the preset of this name.

    Raises:
        PresetError: there is none, or its file is damaged.
    """
    names = preset_names()
    if name not in names:
        near = get_close_matches(name, names, n=3, cutoff=0.4)
        meant = f' Nearest: {", ".join(near)}.' if near else ''
        raise PresetError(
            f'Expected the name of a model, got {name!r}.{meant} `videomt models` lists them all.'
        )
    return read_preset(resource('models', f'{name}.yaml'))


def find_preset(*, file: str = '', converted: str = '') -> Preset | None:
    """The preset whose weights have this file name, or this converted repository's name.

    Only the last part of each path is compared, so that a file downloaded by hand is known again.

    Raises:
        PresetError: the preset is found, and is damaged.
    """
    for path in _preset_files():
        try:
            values = _read_fields(path)
        except PresetError as error:
            logger.warning('A damaged preset is passed over: %s', error)
            continue
        names = {'converted': converted, 'file': '' if values['source'] == SHIPPED else file}
        for key, name in names.items():
            if name and Path(values.get(key, '')).name == Path(name).name:
                return read_preset(path)
    return None


def readable_presets() -> Iterator[Preset]:
    """All presets, in the order of their names, without those that are damaged."""
    for path in _preset_files():
        try:
            yield read_preset(path)
        except PresetError as error:
            logger.warning('A damaged preset is passed over: %s', error)


def read_preset(path: Path) -> Preset:
    """Read one YAML of `models/`.

    Raises:
        PresetError: a field is missing or unknown, or has a value that no network can have.
    """
    values = _read_fields(path)
    preset = Preset(
        name=path.stem,
        settings={key: values[key] for key in _SETTINGS if key in values},
        **{key: values[key] for key in _ABOUT if key in values},
    )
    if preset.source == SHIPPED:
        return preset
    if preset.size not in SIZES:
        raise PresetError(
            f'{path}: expected size to be one of {", ".join(SIZES)}, got {preset.size!r}.'
        )
    try:
        classes = load_classes(preset.classes)
        preset.settings.update(
            SIZES[preset.size],
            num_classes=len(classes.class_names),
            class_names=classes.class_names,
            thing_classes=classes.thing_classes,
        )
        preset.config()
    except ValueError as error:
        raise PresetError(f'{path}: {error}') from error
    return preset


def _read_fields(path: Path) -> dict[str, Any]:
    """The fields of a preset: the right ones, and text where text belongs."""
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PresetError(
            f"{path}: can't be read as YAML: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(values, dict):
        raise PresetError(f'{path}: expected fields and values, got {type(values).__name__}.')
    unknown = sorted(str(key) for key in values if key not in _ABOUT + _SETTINGS)
    needed = {'source', 'file', 'licence'}
    if values.get('source') != SHIPPED:
        needed |= {'family', 'size', 'classes', 'task'}
    missing = sorted(needed - set(values))
    if unknown or missing:
        raise PresetError(
            f'{path}: missing fields: {", ".join(missing) or "none"}; '
            f'unknown fields: {", ".join(unknown) or "none"}. '
            f'Known are {", ".join(_ABOUT + _SETTINGS)}.'
        )
    for key in _ABOUT:
        if key != 'published' and not isinstance(values.get(key, ''), str):
            raise PresetError(f'{path}: expected {key} to be a text, got {values[key]!r}.')
    published = values.get('published', {})
    if not isinstance(published, dict) or (published and 'benchmark' not in published):
        raise PresetError(
            f'{path}: expected published to hold scores and their benchmark, got {published!r}.'
        )
    return values
