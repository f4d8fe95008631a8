"""Weights into a network, strictly, and out of it.

`load_model` takes the original `.pth` files, a folder of transformers, our own file, a hub name
or a name from `models/`. What a file is, is read off its content; sizes are read off its tensors.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from videomt_ros.labels import ClassList, LabelsError, benchmarks, load_classes
from videomt_ros.model.config import VidEoMTConfig
from videomt_ros.model.keymap import OWN, TRANSFORMERS
from videomt_ros.model.network import VidEoMT
from videomt_ros.model.presets import SIZES, Preset, readable_presets
from videomt_ros.model.sources import FORMAT, VERSION, Checkpoint, read_checkpoint
from videomt_ros.model.weight_files import CheckpointError

logger = logging.getLogger(__name__)


def load_model(source: str | Path, **overrides: Any) -> VidEoMT:
    """Build a network and load its weights; nothing in a file is executed.

    Args:
        source: a name from `models/` (`videomt models` lists them); if there is none such, the
            path of an original `.pth`, of a folder with config.json and safetensors, or of our
            own `.safetensors`; if nothing lies there, a hub name, 'owner/name'. A Path is only
            ever a path.
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


def save_model(net: VidEoMT, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write our own file: weights, and the configuration with class names in its metadata.

    The file appears whole or not at all.

    Args:
        net: the network; its own weights keep their type.
        path: where to, ending in .safetensors.
        dtype: type on disk, such as torch.float16; None: the weights' own.

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
    config = json.dumps(net.config.to_dict())
    metadata = {'format': FORMAT, 'version': VERSION, 'config': config}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix='.part')
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def build_config(checkpoint: Checkpoint, overrides: dict[str, Any]) -> VidEoMTConfig:
    """Join what caller, file and preset say of a network; the first of them that speaks wins.

    So a preset adds only what the file can't tell: where it disagrees with the tensors about a
    size, they win and a warning says so. The names and the order of the classes are the
    exception, in which a preset wins over the file.

    Raises:
        CheckpointError: something that the tensors can't tell is said by nobody, or the file
            itself says what no network can be.
        ValueError: an override is out of range.
    """
    settings = dict(checkpoint.settings)
    preset = checkpoint.preset
    if preset:
        _add_preset(checkpoint, settings, preset)
    elif checkpoint.layout is not OWN:
        _add_defaults(checkpoint, settings, overrides)
    settings['name'] = checkpoint.name
    kept = dict(settings)
    if 'num_classes' in overrides:
        # They describe the classes that were replaced.
        for key in ('class_names', 'thing_classes'):
            kept.pop(key, None)
    try:
        return VidEoMTConfig(**_complete(kept | overrides))
    except ValueError as error:
        message = f'{checkpoint.origin}: {error}'
        if overrides and _is_sound(settings):
            raise ValueError(message) from error
        raise CheckpointError(message) from error


def _complete(settings: dict[str, Any]) -> dict[str, Any]:
    """Add what has no default that suits every network."""
    patch_size = settings.get('patch_size', 16)
    if 'size_divisor' not in settings and patch_size in range(1, 1024) and 32 % patch_size:
        settings['size_divisor'] = patch_size  # 32, as published, holds no whole patches
    settings.setdefault('num_classes', 1)  # its tensor is missing, which fit_tensors will say
    return settings


def _is_sound(settings: dict[str, Any]) -> bool:
    """True if these settings alone, without the caller's, are those of a network."""
    try:
        VidEoMTConfig(**_complete(dict(settings)))
    except ValueError:
        return False
    return True


def _add_preset(checkpoint: Checkpoint, settings: dict[str, Any], preset: Preset) -> None:
    """Add a preset to settings, which come from the tensors."""
    claims = preset.settings
    sure = ('family', 'embed_dim', 'num_classes')
    wrong = [key for key in sure if settings.get(key, claims[key]) != claims[key]]
    if wrong:
        raise CheckpointError(
            f'{checkpoint.origin}: expected the weights of {preset.name}, with '
            f'{_list(wrong, claims)}, got {_list(wrong, settings)}. If it is another model, give '
            'it a name of its own.'
        )
    known = ('depth', 'num_queries', 'num_query_blocks', 'table_size', 'propagation')
    for key in known:
        if key in claims and settings.get(key, claims[key]) != claims[key]:
            logger.warning(
                '%s: %s of %s is %s, the weights say %s, which is used.',
                checkpoint.origin,
                key,
                preset.name,
                claims[key],
                settings[key],
            )
    told = set(settings) - {'class_names'}
    settings.update((key, value) for key, value in claims.items() if key not in told)


def _list(keys: Iterable[str], settings: Mapping[str, Any]) -> str:
    return ', '.join(f'{key} = {settings[key]}' for key in keys)


def _add_defaults(
    checkpoint: Checkpoint, settings: dict[str, Any], overrides: Mapping[str, Any]
) -> None:
    """Settle what tensors can't tell, for a file that no preset describes.

    The published sizes have heads of 64 channels, and 3 or 4 query blocks by depth.
    """
    size = next(
        (
            sizes
            for sizes in SIZES.values()
            if all(settings.get(key) == sizes[key] for key in ('embed_dim', 'depth'))
        ),
        None,
    )
    if size:
        settings.setdefault('num_heads', size['num_heads'])
        settings.setdefault('num_query_blocks', 4 if size['depth'] == 24 else 3)
    _name_classes(checkpoint, settings, overrides)
    needed = ['num_heads', 'num_query_blocks', 'propagation']
    if settings['family'] == 'dinov3':
        # Its published VIPSeg and VSPW models propagate after the norm, the others before it.
        needed.append('norm_queries')
    if _may_hold_stuff({**settings, **overrides}):
        # The defaults, instance at 448, are those of the other published models.
        needed += ['task', 'test_size']
    open_ = [key for key in needed if key not in settings and key not in overrides]
    if open_:
        arguments = ', '.join(f'{key}=...' for key in open_)
        raise CheckpointError(
            f'{checkpoint.origin}: the tensors do not tell {", ".join(open_)}; '
            f'give them: load_model(..., {arguments}). save_model keeps them in a file.'
        )


def _may_hold_stuff(settings: Mapping[str, Any]) -> bool:
    """True for what looks like VIPSeg or VSPW: their count of classes or size of table, or stuff.

    A model trained further from one of theirs shares at least one of these with it.
    """
    return (
        settings.get('num_classes') == 124
        or settings.get('table_size') == 1280
        or not all(settings.get('thing_classes', ()))
    )


def _name_classes(
    checkpoint: Checkpoint, settings: dict[str, Any], overrides: Mapping[str, Any]
) -> None:
    """Find the benchmark that the classes belong to, if exactly one fits."""
    if 'class_names' in overrides:
        return
    names, count = settings.get('class_names'), settings.get('num_classes')
    lists = {classes.class_names: classes for classes in _class_lists()}
    fitting = [
        classes
        for classes in lists.values()
        if len(classes.class_names) == count and names in (None, classes.class_names)
    ]
    if len(fitting) == 1:
        settings['class_names'] = fitting[0].class_names
        settings['thing_classes'] = fitting[0].thing_classes
        logger.info('%s: classes of %s.', checkpoint.origin, fitting[0].name)
        if checkpoint.layout is TRANSFORMERS and fitting[0].name == 'vspw':
            # The converted VIPSeg model lists its names in this order too, its head has another.
            logger.warning(
                '%s: the classes are taken to be those of VSPW. For VIPSeg give the folder the '
                'name of its repository, or load it by name.',
                checkpoint.origin,
            )
    elif not names:
        like = [
            preset.name
            for preset in readable_presets()
            if preset.settings.get('num_classes') == count
        ]
        logger.warning(
            '%s: the names of its %s classes are not known, they are called class_0 and so on. '
            'Give class_names=[...]%s.',
            checkpoint.origin,
            count,
            f', or load it by name if it is one of {", ".join(like)}' if like else '',
        )


def _class_lists() -> Iterator[ClassList]:
    for name in benchmarks():
        try:
            yield load_classes(name)
        except LabelsError as error:
            logger.warning('A damaged class list is passed over: %s', error)


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
