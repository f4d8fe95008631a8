"""The pretrained checkpoints: one small YAML in `models/` each, and the shipped demo models.

A preset says where the weights lie and what their tensors can't say: classes in the head's order,
task, test size, whether queries are propagated before or after the final norm.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from videomt_ros.errors import one_line
from videomt_ros.labels import load_classes
from videomt_ros.model.config import VIT_SIZES, NetworkConfig
from videomt_ros.model.layouts import OWN
from videomt_ros.model.weight_files import CheckpointError, WeightFile, read_metadata
from videomt_ros.resources import resource

logger = logging.getLogger(__name__)

OWNER = 'tue-mps'
"""Owner of the repositories of all published models."""

_HUB = re.compile(r'^(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)')
"""Start of addresses of the Hugging Face hub."""

SHIPPED = 'shipped'
"""Value of `source` for a file that lies in `models/` itself."""

CODE_LICENCE = 'MIT'
"""Licence of the code that all published models come from."""

ENCODER_LICENCES = {
    'dinov2': 'DINOv2, Apache-2.0',
    'dinov3': "DINOv3, Meta's DINOv3 License",
}
"""Licence of the pretrained encoder that a published model started from, by family."""

_TEXTS = ('source', 'file', 'converted', 'licence', 'size', 'classes')
_SETTINGS = (
    'architecture', 'family', 'task', 'table_size', 'num_queries', 'num_query_blocks',
    'propagation', 'norm_queries', 'test_size', 'drawn_only',
)  # fmt: skip
_NUMBERS = ('fps', 'parameters')
_FIELDS = (*_TEXTS, *_NUMBERS, 'published', *_SETTINGS)


class PresetError(CheckpointError):
    """A preset does not exist or can't be used; the message names its file."""


@dataclass(frozen=True)
class Preset:
    """Content of one YAML in `models/`."""

    name: str
    """Name of the YAML file, which `load_model` takes."""
    source: str
    """Hub repository of the weights, or 'shipped'."""
    file: str
    """Path of the weights in that repository, or in `models/`."""
    licence: str
    """What is known of the licence of the weights."""
    converted: str = ''
    """Hub repository with the same weights in the layout of transformers; '' if there is none."""
    size: str = ''
    """Key of VIT_SIZES; '' for a shipped file, which states its sizes."""
    classes: str = ''
    """Benchmark whose class list the head follows; '' for a shipped file, which states it."""
    paper_score: dict[str, Any] = field(default_factory=dict)
    """Scores from the paper (`published` in the YAML); `benchmark` names their data set."""
    fps: int = 0
    """Images per second that the authors report, on an H100 with torch.compile, one at a time; 0
    where they report none."""
    parameters: int = 0
    """Number of parameters of the network; 0 for a shipped file, which has them itself."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of NetworkConfig with their values."""

    @property
    def path(self) -> Path | None:
        """Path of a shipped file; None for a file of the hub."""
        return resource('models') / self.file if self.source == SHIPPED else None

    def config(self) -> NetworkConfig:
        """Build the configuration that the preset describes, or that its shipped file states.

        Raises:
            CheckpointError: the shipped file is missing or damaged.
            ValueError: a setting is out of range.
        """
        if self.path is not None:
            file = WeightFile(self.path, {}, read_metadata(self.path))
            return NetworkConfig(**(self.settings | OWN.read_settings(file)))
        return NetworkConfig(**self.settings, name=self.name)


def preset_names() -> tuple[str, ...]:
    """List the names of all presets, sorted."""
    return tuple(sorted(path.stem for path in resource('models').glob('*.yaml')))


def find_name(text: str) -> str:
    """Find the name of the model that a text means; '' if it means none.

    A published model is known by its name, by the repository of its converted weights, by the
    repository and the path of its file, and by the addresses of both; capitals do not matter.
    """
    names, bare = preset_names(), bare_name(text)
    if bare in names:
        return bare
    owner, _, rest = bare.lower().rpartition('/')
    if owner in ('', OWNER) and rest in names:
        return rest
    if bare.count('/') < 2:
        return ''
    wanted = bare.lower()
    known = (p for p in readable_presets() if f'{p.source}/{p.file}'.lower() == wanted)
    return next((preset.name for preset in known), '')


def bare_name(text: str) -> str:
    """Reduce the address of a repository or file of the hub to `owner/name` and its path."""
    text = text.strip()
    bare = re.sub(_HUB, '', text)
    if bare != text:
        bare = re.sub(r'/(?:tree|blob|resolve|raw)/[^/?#]+|[?#].*', '', bare)
    return bare.rstrip('/') or text


def load_preset(name: str) -> Preset:
    """Load the preset of this name, or of another one that `find_name` knows.

    Raises:
        PresetError: there is none, or its file is damaged.
    """
    names = preset_names()
    name = find_name(name) or name
    if name not in names:
        raise PresetError(
            f'Expected the name of a model, got {name!r}.{nearest(name)} `videomt models` lists '
            'them all.'
        )
    return read_preset(resource('models', f'{name}.yaml'))


def nearest(name: str) -> str:
    """Name the models whose names are like this one, as a sentence after a space; may be empty."""
    near = get_close_matches(name, preset_names(), n=3, cutoff=0.4)
    return f' Nearest: {", ".join(near)}.' if near else ''


def find_preset(*, file: str = '', converted: str = '') -> Preset | None:
    """Find the preset whose weights have this file name, or this converted repository's name.

    Only the last part of each path is compared, so that a file downloaded by hand is known again.

    Raises:
        PresetError: the preset is found, and is damaged.
    """
    wanted = Path(converted or file).name
    for name in preset_names():
        path = resource('models', f'{name}.yaml')
        try:
            values = _read_fields(path)
        except PresetError as error:
            logger.warning('A damaged preset is passed over: %s', error)
            continue
        known = values.get('converted' if converted else 'file', '')
        is_shipped_file = values['source'] == SHIPPED and not converted
        if Path(known).name == wanted != '' and not is_shipped_file:
            return read_preset(path)
    return None


def readable_presets() -> Iterator[Preset]:
    """Read all presets, in the order of their names, except those that are damaged."""
    for name in preset_names():
        try:
            yield load_preset(name)
        except PresetError as error:
            logger.warning('A damaged preset is passed over: %s', error)


def read_preset(path: Path) -> Preset:
    """Read one YAML of `models/`.

    Raises:
        PresetError: a field is missing or unknown, or has a value that no network can have.
    """
    values = _read_fields(path)
    if 'licence' not in values:
        values['licence'] = _published_licence(values)
    preset = Preset(
        name=path.stem,
        paper_score=values.get('published', {}),
        settings={key: values[key] for key in _SETTINGS if key in values},
        **{key: values[key] for key in (*_TEXTS, *_NUMBERS) if key in values},
    )
    if preset.source == SHIPPED:
        return preset
    if preset.size not in VIT_SIZES:
        raise PresetError(
            f'{path}: expected size to be one of {", ".join(VIT_SIZES)}, got {preset.size!r}.'
        )
    try:
        classes = load_classes(preset.classes)
        preset.settings.update(
            VIT_SIZES[preset.size],
            num_classes=len(classes.class_names),
            class_names=classes.class_names,
            thing_classes=classes.thing_classes,
        )
        preset.config()
    except ValueError as error:
        raise PresetError(f'{path}: {error}') from error
    return preset


def _published_licence(values: dict[str, Any]) -> str:
    """Say what is known of the licence of published weights, and where to look."""
    encoder = ENCODER_LICENCES.get(values['family'], f'{values["family"]}, not known')
    return (
        f'code {CODE_LICENCE}; encoder {encoder}; weights: what their authors state was not seen '
        f'here, see the model card, https://huggingface.co/{values["source"]}'
    )


def _read_fields(path: Path) -> dict[str, Any]:
    """Read the fields of a preset, and check their names and those that no network has."""
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PresetError(f"{path}: can't be read as YAML: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise PresetError(f'{path}: expected fields and values, got {type(values).__name__}.')
    unknown = sorted(str(key) for key in values if key not in _FIELDS)
    needed, source = {'source', 'file'}, str(values.get('source'))
    if not source.startswith(f'{OWNER}/'):
        needed.add('licence')
    if source != SHIPPED:
        needed |= {'family', 'size', 'classes', 'task'}
    missing = sorted(needed - set(values))
    if unknown or missing:
        raise PresetError(
            f'{path}: missing fields: {", ".join(missing) or "none"}; '
            f'unknown fields: {", ".join(unknown) or "none"}. Known are {", ".join(_FIELDS)}.'
        )
    for key in _TEXTS:
        if not isinstance(values.get(key, ''), str):
            raise PresetError(f'{path}: expected {key} to be a text, got {values[key]!r}.')
    for key in _NUMBERS:
        if type(values.get(key, 0)) is not int:
            raise PresetError(f'{path}: expected {key} to be a whole number, got {values[key]!r}.')
    scores = values.get('published', {})
    is_sound = isinstance(scores, dict) and all(
        isinstance(scores[key], str if key == 'benchmark' else (int, float)) for key in scores
    )
    if not is_sound or (scores and 'benchmark' not in scores):
        raise PresetError(
            f'{path}: expected published to hold scores and their benchmark, got {scores!r}.'
        )
    return values
