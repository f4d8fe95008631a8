"""What tensors can't tell of a network, joined from the caller, the file and a preset."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from videomt_ros.labels import ClassList, LabelsError, benchmarks, load_classes
from videomt_ros.model.config import VidEoMTConfig
from videomt_ros.model.layouts import OWN, TRANSFORMERS
from videomt_ros.model.presets import SIZES, Preset, readable_presets
from videomt_ros.model.sources import Checkpoint
from videomt_ros.model.weight_files import CheckpointError

logger = logging.getLogger(__name__)


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
