"""Where weights come from: a name, a path or the hub -> tensors and what is known about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from videomt_ros.model import hub
from videomt_ros.model.config import VidEoMTConfig
from videomt_ros.model.layouts import OWN, Layout, detect_layout, read_sizes
from videomt_ros.model.presets import (
    Preset,
    find_preset,
    load_preset,
    preset_names,
    readable_presets,
)
from videomt_ros.model.weight_files import (
    CheckpointError,
    read_folder,
    read_metadata,
    read_tensors,
)

FORMAT = 'videomt_ros'
"""Metadata `format` of our own files."""
VERSION = '1'

# config.json of transformers -> our field. Only what a network is built from.
_CONFIG_FIELDS = {
    'hidden_size': 'embed_dim',
    'num_hidden_layers': 'depth',
    'num_attention_heads': 'num_heads',
    'mlp_ratio': 'mlp_ratio',
    'patch_size': 'patch_size',
    'image_size': 'table_size',
    'num_queries': 'num_queries',
    'num_blocks': 'num_query_blocks',
}
# What this network computes in one way only; another value would load and then be wrong.
_CONFIG_FIXED = {
    'hidden_act': 'gelu',
    'use_swiglu_ffn': False,
    'num_channels': 3,
    'num_register_tokens': 4,
    'layer_norm_eps': 1e-6,
}


@dataclass
class Checkpoint:
    """Tensors with what is known about them, before a network is built."""

    origin: str
    """Where they came from, for messages."""
    name: str
    tensors: dict[str, Tensor]
    layout: Layout
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of VidEoMTConfig that the file states or its tensors show."""
    preset: Preset | None = None


def read_config(path: Path) -> VidEoMTConfig:
    """The configuration that one of our own files carries, without loading its weights.

    Raises:
        CheckpointError: the file is missing, or not one of ours.
    """
    return _own_config(path, read_metadata(path))


def read_checkpoint(source: str | Path) -> Checkpoint:
    """Find a checkpoint and read it; see `load_model` for what a source can be.

    Raises:
        CheckpointError: the weights can't be found or read.
    """
    text = str(source)
    if isinstance(source, str) and text in preset_names():
        return _read_preset(load_preset(text))
    path = Path(text).expanduser()
    if path.is_dir():
        return _read_folder(path, path.resolve().name)
    if path.exists():
        return _read_file(path, find_preset(file=path.name))
    if isinstance(source, str) and hub.is_hub_name(text):
        return _read_hub(text)
    suffixes = ('.pth', '.pt', '.bin', '.ckpt', '.safetensors')
    if isinstance(source, Path) or len(path.parts) > 1 or path.suffix in suffixes:
        raise CheckpointError(f'{path}: expected weights, there is no such file or folder.')
    return _read_preset(load_preset(text))


def _read_preset(preset: Preset) -> Checkpoint:
    path = preset.path or hub.fetch_file(preset.source, preset.file)
    if not path.is_file():
        raise CheckpointError(f'{path}: the weights of {preset.name} are missing.')
    return _read_file(path, preset)


def _read_hub(repository: str) -> Checkpoint:
    try:
        folder = hub.fetch_folder(repository)
    except CheckpointError as error:
        # Just as well it was meant as a path, with a slip of the pen.
        raise CheckpointError(
            f'{error} There is no file or folder {repository} here either.'
        ) from None
    if not (folder / 'config.json').is_file():
        names = [preset.name for preset in readable_presets() if preset.source == repository]
        instead = f' Its files load by name: {", ".join(names)}.' if names else ''
        raise CheckpointError(
            f'Expected config.json and model.safetensors in {repository}, the repository has no '
            f'config.json.{instead}'
        )
    return _read_folder(folder, repository.split('/')[1])


def _read_file(path: Path, preset: Preset | None) -> Checkpoint:
    tensors, metadata = read_tensors(path)
    origin = str(path)
    if metadata.get('format') == FORMAT:
        config = _own_config(path, metadata)
        name = config.name or (preset.name if preset else path.stem)
        return Checkpoint(origin, name, tensors, OWN, config.to_dict())
    if path.name == 'model.safetensors' and (path.parent / 'config.json').is_file():
        return _read_folder(path.parent, path.parent.resolve().name)
    layout, sizes = _recognise(origin, tensors)
    name = preset.name if preset else path.stem
    return Checkpoint(origin, name, tensors, layout, sizes, preset)


def _recognise(origin: str, tensors: Mapping[str, Tensor]) -> tuple[Layout, dict[str, Any]]:
    """The layout of a file's tensors, and the sizes that they tell."""
    layout = detect_layout(tensors.keys())
    if layout is None:
        raise CheckpointError(
            f'{origin}: expected weights of VidEoMT (keys such as '
            'backbone.encoder.backbone.blocks.0.attn.qkv.weight or '
            'layers.0.attention.q_proj.weight), got '
            f'{", ".join(list(tensors)[:3]) or "no tensors"}.'
        )
    try:
        return layout, read_sizes(layout, tensors)
    except ValueError as error:
        raise CheckpointError(f'{origin}: {error}') from None


def _read_folder(folder: Path, name: str) -> Checkpoint:
    tensors, config = read_folder(folder)
    origin = str(folder)
    stated = _transformers_settings(folder / 'config.json', config)
    layout, sizes = _recognise(origin, tensors)
    settings = sizes | stated
    preset = find_preset(converted=name)
    return Checkpoint(origin, preset.name if preset else name, tensors, layout, settings, preset)


def _transformers_settings(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of VidEoMTConfig that a config.json of transformers states."""
    if config.get('model_type') != 'videomt':
        raise CheckpointError(
            f"{path}: expected model_type 'videomt', got {config.get('model_type')!r}."
        )
    missing = [key for key in ('hidden_size', 'num_attention_heads') if key not in config]
    if missing:
        raise CheckpointError(f'{path}: missing fields: {", ".join(missing)}.')
    for key, expected in _CONFIG_FIXED.items():
        if config.get(key, expected) != expected:
            raise CheckpointError(
                f'{path}: expected {key} to be {expected}, got {config[key]}; '
                'this network has no other.'
            )
    settings: dict[str, Any] = {}
    for key, ours in _CONFIG_FIELDS.items():
        value = config.get(key)
        if isinstance(value, list) and value and all(entry == value[0] for entry in value):
            value = value[0]  # sizes may be written as [height, width]
        if value is None:
            continue
        if type(value) is not int and not (ours == 'mlp_ratio' and type(value) is float):
            kind = 'number' if ours == 'mlp_ratio' else 'whole number'
            raise CheckpointError(f'{path}: expected {key} to be one {kind}, got {value!r}.')
        settings[ours] = value
    names = config.get('id2label')
    if isinstance(names, dict) and all(str(key).isdecimal() for key in names):
        ordered = tuple(str(names[key]) for key in sorted(names, key=int))
        settings['num_classes'] = len(ordered)
        # transformers fills in LABEL_0, LABEL_1, ... where nobody gave names.
        if ordered != tuple(f'LABEL_{i}' for i in range(len(ordered))):
            settings['class_names'] = ordered
    return settings


def _own_config(path: Path, metadata: Mapping[str, str]) -> VidEoMTConfig:
    if metadata.get('format') != FORMAT or metadata.get('version') != VERSION:
        raise CheckpointError(
            f'{path}: expected a file of save_model, version {VERSION}, got format '
            f'{metadata.get("format")!r}, version {metadata.get("version")!r}.'
        )
    try:
        return VidEoMTConfig.from_dict(json.loads(metadata.get('config', '')))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: its configuration can't be used: {error}") from error
