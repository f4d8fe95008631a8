"""The configuration of a network to load, of which the tensors tell only a part.

The rest comes from the caller, from what the file states, from a preset, or from what the
published models have in common.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from videomt_ros.labels import ClassList, LabelsError, benchmarks, load_classes
from videomt_ros.model.config import VIT_SIZES, NetworkConfig
from videomt_ros.model.layouts import TRANSFORMERS, Layout
from videomt_ros.model.presets import Preset, readable_presets
from videomt_ros.model.weight_files import CheckpointError

logger = logging.getLogger(__name__)


class UntoldError(CheckpointError):
    """Raised where neither the tensors nor the user tell all settings of a network."""

    def __init__(self, origin: str, settings: Sequence[str]) -> None:
        """Name the settings, and how to give them in Python and on the command line."""
        untold = f'{origin}: the tensors do not tell {", ".join(settings)}'
        arguments = ', '.join(f'{name}=...' for name in settings)
        super().__init__(
            f'{untold}; give them: load_model(..., {arguments}). save_model keeps them in a file.'
        )
        options = ' '.join(f'--set {name}=...' for name in settings)
        file, saved = shlex.quote(origin), shlex.quote(f'{Path(origin).stem}.safetensors')
        self.command_text = (
            f'{untold}; give them once: `videomt models {file} {options} --save {saved}` writes a '
            'file that states them.'
        )


@dataclass
class Checkpoint:
    """Tensors with what is known about them, before a network is built."""

    origin: str
    """Place that the tensors came from, for messages."""
    name: str
    """Name of the network that is built."""
    tensors: dict[str, Tensor]
    """Tensors by their names in the file."""
    layout: Layout
    """Layout that these names follow."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of NetworkConfig that the file states or its tensors show."""
    preset: Preset | None = None
    """Preset that describes these weights; None if there is none."""

    def known(self) -> set[str]:
        """List the fields of NetworkConfig that the file or its preset has a value for."""
        return set(self.settings) | set(self.preset.settings if self.preset else ())


def build_config(checkpoint: Checkpoint, overrides: dict[str, Any]) -> NetworkConfig:
    """Join what caller, file and preset say of a network, in this order of precedence.

    A preset adds only what the file can't tell: where it disagrees with the tensors about a size,
    the tensors win and a warning says so. The names and the order of the classes are the
    exception, in which a preset wins over the file. A file of `save_model` states everything.

    Raises:
        CheckpointError: nobody states something that the tensors can't tell, or the file itself
            states what no network can have.
        ValueError: an override is out of range.
    """
    settings = dict(checkpoint.settings)
    if not checkpoint.layout.states_all:
        if checkpoint.preset:
            _add_preset(checkpoint.origin, settings, checkpoint.preset)
        else:
            _add_defaults(checkpoint, settings, overrides)
    elif checkpoint.preset:  # a shipped model, whose file may be older than a field
        settings = checkpoint.preset.settings | settings
    settings['name'] = checkpoint.name
    # The names in the file describe its own classes, not those that replace them.
    replaced = {'class_names', 'thing_classes'} if 'num_classes' in overrides else ()
    kept = {key: value for key, value in settings.items() if key not in replaced}
    try:
        return _config(kept | overrides)
    except ValueError as error:
        kind = ValueError if overrides and _is_sound(settings) else CheckpointError
        raise kind(f'{checkpoint.origin}: {error}') from error


def _config(settings: dict[str, Any]) -> NetworkConfig:
    """Build a configuration; add the fields whose default does not suit every network."""
    patch_size = settings.get('patch_size', 16)
    # 32, the divisor of the published models, may hold no whole number of patches.
    odd = patch_size in range(1, 1024) and 32 % patch_size
    # The number of classes is unknown if its tensor is missing, which fit_tensors reports.
    return NetworkConfig(
        **{'num_classes': 1} | ({'size_divisor': patch_size} if odd else {}) | settings
    )


def _is_sound(settings: dict[str, Any]) -> bool:
    """Tell whether settings without the overrides of the caller describe a possible network."""
    try:
        _config(settings)
    except ValueError:
        return False
    return True


def _add_preset(origin: str, settings: dict[str, Any], preset: Preset) -> None:
    """Add a preset to settings that come from the file."""
    claims = {'architecture': 'videomt'} | preset.settings
    differing = [key for key in claims if settings.get(key, claims[key]) != claims[key]]
    fixed = ('architecture', 'family', 'embed_dim', 'num_classes')
    wrong = [key for key in fixed if key in differing]
    if wrong:
        expected, got = (
            ', '.join(f'{key} = {values[key]}' for key in wrong) for values in (claims, settings)
        )
        raise CheckpointError(
            f'{origin}: expected the weights of {preset.name}, with {expected}, got {got}. If it '
            'is another model, give it a name of its own.'
        )
    for key in ('depth', 'num_queries', 'num_query_blocks', 'table_size', 'propagation'):
        if key in differing:
            logger.warning(
                '%s: %s of %s is %s, the weights say %s, which is used.',
                origin, key, preset.name, claims[key], settings[key],
            )  # fmt: skip
    if 'tap_blocks' not in claims:
        # As many as the published models have, so that what a file lacks of them is named.
        settings.pop('tap_blocks', None)
    stated = set(settings) - {'class_names'}
    settings.update((key, value) for key, value in claims.items() if key not in stated)


def _add_defaults(
    checkpoint: Checkpoint, settings: dict[str, Any], overrides: Mapping[str, Any]
) -> None:
    """Add what tensors can't tell, for a file that no preset describes.

    The published sizes have heads of 64 channels, and 3 or 4 query blocks by depth.
    """
    for size in VIT_SIZES.values():
        if all(settings.get(key) == size[key] for key in ('embed_dim', 'depth')):
            settings.setdefault('num_heads', size['num_heads'])
            if settings.get('architecture') != 'pmt':
                settings.setdefault('num_query_blocks', 4 if size['depth'] == 24 else 3)
    if 'class_names' not in overrides:
        _name_classes(checkpoint, settings)
    if (taps := settings.get('tap_blocks')) and 'tap_blocks' not in overrides:
        logger.warning(
            '%s: it has tensors for %d tapped blocks, where the published models have 4. Unless '
            'some are missing, they are taken to be %s; tap_blocks= says otherwise.',
            checkpoint.origin, len(taps), ', '.join(map(str, taps)),
        )  # fmt: skip
    needed = ['num_heads', 'num_query_blocks', 'propagation']
    if settings['family'] == 'dinov3':
        # Its published VIPSeg and VSPW models propagate after the norm, the others before it.
        needed.append('norm_queries')
    if _may_hold_stuff({**settings, **overrides}):
        # The defaults, instance at 448, are those of the other published models.
        needed += ['task', 'test_size']
    missing = [key for key in needed if key not in settings and key not in overrides]
    if missing:
        raise UntoldError(checkpoint.origin, missing)


def _may_hold_stuff(settings: Mapping[str, Any]) -> bool:
    """Tell whether a model looks like those of VIPSeg or VSPW, or like one trained from them.

    The latter shares at least their number of classes, their size of table or classes of stuff.
    """
    return (
        settings.get('num_classes') == 124
        or settings.get('table_size') == 1280
        or not all(settings.get('thing_classes', ()))
    )


def _name_classes(checkpoint: Checkpoint, settings: dict[str, Any]) -> None:
    """Find the benchmark that the classes belong to, if exactly one fits."""
    names, count = settings.get('class_names'), settings.get('num_classes')
    lists = {classes.class_names: classes for classes in _class_lists()}
    fitting = [
        classes
        for classes in lists.values()
        if len(classes.class_names) == count and names in (None, classes.class_names)
    ]
    if len(fitting) == 1:
        (found,) = fitting
        settings.update(class_names=found.class_names, thing_classes=found.thing_classes)
        logger.info('%s: classes of %s.', checkpoint.origin, found.name)
        if checkpoint.layout is TRANSFORMERS and found.name == 'vspw':
            # The converted VIPSeg model lists its names in this order too, its head has another.
            logger.warning(
                '%s: the classes are taken to be those of VSPW. For VIPSeg give the folder the '
                'name of its repository, or load it by name.',
                checkpoint.origin,
            )
    elif not names:
        presets = readable_presets()
        like = [each.name for each in presets if each.settings.get('num_classes') == count]
        logger.warning(
            '%s: the names of its %s classes are not known, they are called class_0 and so on. '
            '`videomt models %s --set "class_names=[...]" --save FILE` names them in a file%s.',
            checkpoint.origin,
            count,
            checkpoint.origin,
            f', or load it by name if it is one of {", ".join(like)}' if like else '',
        )


def _class_lists() -> Iterator[ClassList]:
    for name in benchmarks():
        try:
            yield load_classes(name)
        except LabelsError as error:
            logger.warning('A damaged class list is passed over: %s', error)
