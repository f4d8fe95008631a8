"""Weights into a network, strictly, and out of it.

`load_model` takes the original `.pth` files, a folder of transformers, our own file, a checkpoint
of `videomt train`, a hub name or a name from `models/`. What a file is, is read off its content;
sizes are read off its tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from videomt_ros.files import whole_file
from videomt_ros.model.config import VidEoMTConfig
from videomt_ros.model.config_completion import build_config
from videomt_ros.model.network import VidEoMT
from videomt_ros.model.sources import FORMAT, VERSION, Checkpoint, read_checkpoint
from videomt_ros.model.weight_files import CheckpointError


def load_model(source: str | Path, **overrides: Any) -> VidEoMT:
    """Build a network and load its weights; nothing in a file is executed.

    Args:
        source: a name from `models/` (`videomt models` lists them); if there is none such, the
            path of an original `.pth`, of a folder with config.json and safetensors, of our own
            `.safetensors`, or of a run's `.ckpt`, whose averaged weights are taken if it has some;
            if nothing lies there, a hub name, 'owner/name'. A Path is only ever a path.
        overrides: fields of VidEoMTConfig; each wins over what file and preset say.

    Returns:
        The network on the CPU in float32 (whatever the file holds), in eval mode.

    Raises:
        CheckpointError: the weights can't be found or read, or don't fit; the message is one line
            and names every missing, unknown and misshapen key.
        ValueError: an override is unknown or out of range.
    """
    known = [entry.name for entry in fields(VidEoMTConfig)]
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise ValueError(
            f'Unknown settings of a network: {", ".join(unknown)}. '
            f'Expected some of: {", ".join(known)}.'
        )
    checkpoint = read_checkpoint(source)
    config = build_config(checkpoint, overrides)
    net = build_empty(config)
    net.load_state_dict(fit_tensors(checkpoint, net), assign=True)
    assert not any(value.is_meta for value in (*net.parameters(), *net.buffers()))
    return net.eval()


def build_empty(config: VidEoMTConfig) -> VidEoMT:
    """Build a network without room for its weights: those are assigned to it.

    Random weights that the file's replace at once would take most of the loading time.

    Returns:
        The network with weights on the meta device, and whatever no file holds ready on the CPU.
    """
    with torch.device('meta'):
        net = VidEoMT(config)
    module: Any
    for module in net.modules():
        if module._non_persistent_buffers_set:
            # Angles and key biases, which timm computes; reset_parameters is its way to say so.
            module.to_empty(device='cpu', recurse=False)
            module.reset_parameters()
    return net


def save_model(
    net: VidEoMT,
    path: str | Path,
    dtype: torch.dtype | None = None,
    about: Mapping[str, str] | None = None,
) -> None:
    """Write our own file: weights, and the configuration with class names in its metadata.

    The file appears whole or not at all.

    Args:
        net: the network; its own weights keep their type.
        path: where to, ending in .safetensors.
        dtype: type on disk, such as torch.float16; None: the weights' own.
        about: more for the metadata, which `load_model` passes over.

    Raises:
        ValueError: the path ends otherwise, or a weight is not finite in this type.
    """
    path = Path(path)
    if path.suffix != '.safetensors':
        raise ValueError(f'Expected a path that ends in .safetensors, got {path}.')
    tensors = {
        key: value.detach().to('cpu', dtype).contiguous()
        for key, value in net.state_dict().items()
    }
    bad = [key for key, value in tensors.items() if not torch.isfinite(value).all()]
    if bad:
        raise ValueError(f'Expected finite weights to save, these are not: {", ".join(bad)}.')
    metadata = {**(about or {}), **describe(net.config)}
    # Not with save_file, whose error for a full disk has no errno.
    with whole_file(path, durable=True) as file:
        file.write(save(tensors, metadata))


def describe(config: VidEoMTConfig) -> dict[str, str]:
    """What our own files hold beside the tensors, to build the network from."""
    return {'format': FORMAT, 'version': VERSION, 'config': json.dumps(config.to_dict())}


def fit_tensors(checkpoint: Checkpoint, net: VidEoMT) -> dict[str, Tensor]:
    """Move the tensors of a checkpoint to the network's names, all of them float32.

    Each leaves the checkpoint as it is copied, so that a large model is not held twice. The
    copies do not lie in the file any more, which may change or go away after this.

    Raises:
        CheckpointError: one line that names every key that is missing, unknown, misshapen, of
            another type or not finite, as the file calls it.
    """
    layout, tensors = checkpoint.layout, checkpoint.tensors
    targets = net.state_dict()
    sources = {key: layout.file_keys(key) for key in targets}
    shapes: dict[str, tuple[int, ...]] = {}
    for key, parts in sources.items():
        first, *rest = targets[key].shape
        if layout.flat_positions and key.endswith('.pos_embed'):
            first, *rest = rest
        shapes.update((part, (first // len(parts), *rest)) for part in parts)
    found = {key: value for key, value in tensors.items() if key not in layout.dead}
    missing = [key for key in shapes if key not in found]
    unknown = [key for key in found if key not in shapes]
    misshapen = [
        f'{key} (expected {_size(shape)}, got {_size(found[key].shape)})'
        for key, shape in shapes.items()
        if key in found and tuple(found[key].shape) != shape
    ]
    blocks = tensors.get(layout.query_blocks)
    if blocks is not None and tuple(blocks.shape) != (net.config.num_query_blocks,):
        misshapen.append(
            f'{layout.query_blocks} (expected {net.config.num_query_blocks}, '
            f'got {_size(blocks.shape)})'
        )
    used = {key: found[key] for key in shapes if key in found}
    whole = [
        f'{key} ({str(value.dtype).removeprefix("torch.")})'
        for key, value in used.items()
        if not value.is_floating_point()
    ]
    not_finite = [
        key for key, value in used.items() if value.is_floating_point() and not _is_finite(value)
    ]
    faults = [
        f'{what} ({len(keys)}): {", ".join(keys)}'
        for what, keys in (
            ('missing', missing),
            ('unknown', unknown),
            ('misshapen', misshapen),
            ('of a type that is no floating-point number', whole),
            ('not finite numbers', not_finite),
        )
        if keys
    ]
    if faults:
        raise CheckpointError(
            f'{checkpoint.origin}: the weights ({layout.name} layout) do not fit the network: '
            f'{"; ".join(faults)}.'
        )
    return {
        key: torch.cat([tensors.pop(part).float() for part in parts]).reshape(targets[key].shape)
        for key, parts in sources.items()
    }


def _is_finite(values: Tensor) -> bool:
    """True without NaN and infinity; the sum shows both, and is quick."""
    if values.element_size() == 1:  # 8-bit floats have no arithmetic of their own
        values = values.float()
    total = values.sum(dtype=torch.float32)
    return bool(total.isfinite()) or bool(values.isfinite().all())


def _size(shape: tuple[int, ...] | torch.Size) -> str:
    return ' x '.join(map(str, shape)) or 'a single number'
