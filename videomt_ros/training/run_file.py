"""Reads a run file and the overrides of the command line into TrainSettings.

Errors name the setting at fault by its dotted name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from videomt_ros.model.presets import load_preset
from videomt_ros.resources import resource
from videomt_ros.training.run_settings import TrainSettings


def load_settings(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> TrainSettings:
    """Read a run file.

    Args:
        path: a YAML file whose keys are fields of TrainSettings.
        overrides: texts `key=value` with a value in YAML; keys may be dotted, such as
            `losses.num_points=512` and `phases.0.steps=9`.

    Raises:
        ValueError: an unknown or missing key, or a value of the wrong type or range; names it.
        OSError: the file cannot be read.
    """
    values = _fill_in_preset(read_run_file(path, overrides))
    network = values.get('network')
    if not isinstance(network, dict):
        network = {}  # build_settings raises the error
    if network.get('task') == 'panoptic' and 'thing_classes' not in network:
        raise ValueError(  # by default all classes are things, and a floor would be tracked
            'Expected network.thing_classes for task panoptic, got none. Say for each class, '
            'in the order of class_names, true for things, false for stuff.'
        )
    return build_settings(TrainSettings, _keep_single_frames(values))


def _fill_in_preset(values: dict[str, Any]) -> dict[str, Any]:
    """Replace `network.preset`, the name of a published model, by the settings of its network.

    Other keys of `network` override those of the model.

    Raises:
        ValueError: there is no such model, or its settings are only known from its file.
    """
    network = values.get('network')
    if not isinstance(network, dict) or 'preset' not in network:
        return values
    ours = {name: value for name, value in network.items() if name != 'preset'}
    preset = load_preset(str(network['preset']))
    if preset.path is not None:
        raise ValueError(
            f'Expected network.preset to be the name of a published model, got {preset.name}, '
            'whose file alone tells its network. Write the network out; init_from takes weights.'
        )
    theirs = dict(preset.settings)
    if 'num_classes' in ours or 'class_names' in ours:
        # Names and kinds of the classes of the model do not fit other classes.
        theirs = {k: v for k, v in theirs.items() if k not in ('class_names', 'thing_classes')}
    return values | {'network': theirs | ours}


def _keep_single_frames(values: dict[str, Any]) -> dict[str, Any]:
    """For stage image, set single frames and a network that propagates no queries."""
    network, phases = values.get('network'), values.get('phases')
    if values.get('stage') != 'image' or not isinstance(network, dict):
        return values
    if not isinstance(phases, list) or not all(isinstance(phase, dict) for phase in phases):
        return values  # build_settings raises the error
    single = {'clip_frames': 1, 'chunk_frames': None, 'max_stride': 1, 'frame_range': None}
    # Masked attention ends where it does in EoMT's runs with 4 query blocks.
    return (
        {'masked_attention_until': 5 / 6}
        | values
        | {
            'network': network | {'propagation': 'none'},
            'phases': [phase | single for phase in phases],
        }
    )


def read_run_file(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML file of keys and values, and apply overrides.

    Args:
        path: the YAML file.
        overrides: see `load_settings`.

    Raises:
        ValueError: there is no such file, or it or an override has another form.
        OSError: the file cannot be read.
    """
    if not Path(path).is_file():
        what = f'{path} is a folder' if Path(path).is_dir() else f'there is no {path}'
        known = sorted(str(file) for file in resource('config').glob('train_*.yaml'))
        by_name = {Path(file).stem: file for file in known}
        near = get_close_matches(Path(path).stem, by_name, 1)
        hint = (
            f'Did you mean {by_name[near[0]]}?' if near else f'Some are in {resource("config")}.'
        )
        raise ValueError(f'Expected a YAML run file, but {what}. {hint}')
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
        place: Any = values
        for depth, parent in enumerate(parents):
            place = place.setdefault(parent, {}) if isinstance(place, dict) else place[int(parent)]
            name = [*parents, leaf][depth + 1]
            is_entry = isinstance(place, list) and name in map(str, range(len(place)))
            if not (is_entry or isinstance(place, dict)):
                where = '.'.join(parents[: depth + 1])
                raise ValueError(
                    f'Expected {name} inside {where} for {override!r}, it has none. '
                    f'Give it as a whole: {where}=...'
                )
        try:
            place[leaf if isinstance(place, dict) else int(leaf)] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f'Expected a value in YAML in {override!r}: {error}.') from error
    return values


def build_settings(kind: Any, values: Any, where: str = '') -> Any:
    """Build a dataclass of settings, and the dataclasses in its fields, from plain values.

    Args:
        kind: the dataclass.
        values: values of the fields by name.
        where: prefix of the names of fields in errors.

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
            f'Unknown settings: {", ".join(where + name for name in unknown)}.'
            f'{_meant(kind, unknown, where)} Expected some of: {", ".join(sorted(known))}.'
        )
    missing = [
        where + item.name
        for item in fields(kind)
        if item.name not in values and item.default is item.default_factory is MISSING
    ]
    if missing:
        raise ValueError(
            f'Missing settings: {", ".join(missing)}. Give them in the run file or as key=value; '
            f'{kind.__module__}.{kind.__name__} says what they mean.'
        )
    converted = {
        name: _convert(hints[name], value, where + name) for name, value in values.items()
    }
    try:
        return kind(**converted)
    except ValueError as error:
        # The dataclass does not know which one of several phases or data sets it is.
        raise ValueError(f'{where.rstrip(".")}: {error}' if where else str(error)) from error


def _meant(kind: Any, unknown: Sequence[str], where: str) -> str:
    """Suggest known names similar to unknown ones, for an error."""
    # The outermost of several fields with the same name is suggested.
    names = {name.rpartition('.')[2]: name for name in reversed([*_dotted_names(kind)])}
    near = [
        where + names[match] for name in unknown for match in get_close_matches(name, names, 1)
    ]
    return f' Did you mean {", ".join(near)}?' if near else ''


def _dotted_names(kind: Any) -> Iterator[str]:
    """List the fields of a dataclass, then those of the dataclasses in its fields and lists."""
    hints = get_type_hints(kind)
    yield from hints
    for name, hint in hints.items():
        place = f'{name}.0' if get_origin(hint) is tuple else name
        for part in (hint, *get_args(hint)):
            if is_dataclass(part):
                yield from (f'{place}.{inner}' for inner in _dotted_names(part))


def _convert(hint: Any, value: Any, name: str) -> Any:
    """Convert a value of a run file to the type of its field.

    Raises:
        ValueError: the value has another type; names the setting.
    """
    if get_origin(hint) is UnionType:  # the setting may be null
        if value is None:
            return None
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))
    if is_dataclass(hint):
        return build_settings(hint, value, f'{name}.')
    if get_origin(hint) is tuple:
        return _convert_list(hint, value, name)
    if hint is float:
        # In YAML 1.1, 1e-4 without a decimal point is a text.
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
    """Convert a list of a run file to a tuple of any or of a fixed length; see `_convert`."""
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
