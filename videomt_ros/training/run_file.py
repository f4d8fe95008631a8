"""A run file in `config/` and what is said on the command line -> TrainSettings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from videomt_ros.model.presets import load_preset
from videomt_ros.training.run_settings import TrainSettings
from videomt_ros.training.settings_file import build_settings, read_run_file


def load_settings(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> TrainSettings:
    """Read a run file.

    Args:
        path: a YAML file whose keys are fields of TrainSettings.
        overrides: `key=value` each, the value in YAML; `losses.num_points=512` reaches inside, and
            so does `phases.0.steps=9`.

    Raises:
        ValueError: an unknown or missing key, or a value of the wrong type or range; names it.
        OSError: the file cannot be read.
    """
    values = _fill_in_preset(read_run_file(path, overrides))
    network = values.get('network')
    if not isinstance(network, dict):
        network = {}  # build_settings says what is wrong
    if network.get('task') == 'panoptic' and 'thing_classes' not in network:
        raise ValueError(  # a floor would be a thing, and tracked
            'Expected network.thing_classes for task panoptic, got none. Say for each class, '
            'in the order of class_names, true for things, false for stuff.'
        )
    return build_settings(TrainSettings, _keep_single_frames(values))


def _fill_in_preset(values: dict[str, Any]) -> dict[str, Any]:
    """For `network.preset`, the name of a published model: its network, but for what else is said.

    Raises:
        ValueError: there is no such model, or only its file tells what it is like.
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
        # What it says of its own classes says nothing of others.
        theirs = {k: v for k, v in theirs.items() if k not in ('class_names', 'thing_classes')}
    return values | {'network': theirs | ours}


def _keep_single_frames(values: dict[str, Any]) -> dict[str, Any]:
    """For stage image: single frames of the same run, and a network that passes nothing on."""
    network, phases = values.get('network'), values.get('phases')
    if values.get('stage') != 'image' or not isinstance(network, dict):
        return values
    if not isinstance(phases, list) or not all(isinstance(phase, dict) for phase in phases):
        return values  # build_settings says what is wrong
    single = {'clip_frames': 1, 'chunk_frames': None, 'max_stride': 1}
    # Where EoMT's runs with 4 query blocks end it.
    return (
        {'masked_attention_until': 5 / 6}
        | values
        | {
            'network': network | {'propagation': 'none'},
            'phases': [phase | single for phase in phases],
        }
    )
