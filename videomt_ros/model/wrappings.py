"""What training frameworks put around the tensors of a network: records, and parts of names.

A file may hold several sets of tensors, such as the weights and their running mean (EMA). The mean
is taken, since it is what the authors of such files test with; a line in the log says so.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

logger = logging.getLogger(__name__)

MEANS = (
    'model_ema', 'ema_model', 'state_dict_ema', 'ema_state_dict', 'ema_state', 'module_ema',
    'ema', 'teacher',
)  # fmt: skip
"""Keys of a running mean of the weights, which DINO calls the teacher."""

SETS = (
    *MEANS, 'model', 'state_dict', 'model_state_dict', 'model_state', 'module', 'network', 'net',
    'weights', 'params', 'student', 'shadow',
)  # fmt: skip
"""Keys under which frameworks keep the tensors of a network, the preferred first."""

_OUTER = (*(f'{key}.' for key in SETS), '_forward_module.', 'backbone.')
"""Starts of names that modules around the network give its tensors, the preferred first."""

_INSERTED = re.compile(
    r'(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.'
)
"""Parts that torch inserts into names where it wraps or compiles a module."""

_EOMT = 'encoder.backbone.'
"""Start of the names in the code of EoMT, where those of VidEoMT and PMT have one part more."""


def find_tensors(content: Mapping[Any, Any]) -> tuple[str, Mapping[Any, Any]]:
    """Find the tensors of the network in the record that a file holds.

    Args:
        content: the record.

    Returns:
        Keys that lead to the tensors, joined by dots and empty for none, and the record there. It
        holds other things too, or no tensor, if that is all there is.
    """
    inner = [(key, content[key]) for key in SETS if isinstance(content.get(key), Mapping)]
    for key, record in inner:
        path, found = find_tensors(record)
        if _has_tensors(found):
            return f'{key}.{path}'.rstrip('.'), found
    if inner and not _has_tensors(content):
        return inner[0]
    return '', content


def other_sets(content: Mapping[Any, Any], taken: str) -> list[str]:
    """List the keys of further sets of tensors beside the one that was taken."""
    return [
        key
        for key in SETS
        if key != taken.partition('.')[0]
        and isinstance(content.get(key), Mapping)
        and _has_tensors(find_tensors(content[key])[1])
    ]


def unwrap_names(
    tensors: dict[str, Tensor], is_known: Callable[[dict[str, Tensor]], bool], origin: str
) -> dict[str, Tensor]:
    """Take off what modules around a network put before the names of its tensors.

    Args:
        tensors: tensors by name.
        is_known: tells whether names are those of a network, to which nothing is done.
        origin: place that the tensors came from, for the log.

    Returns:
        The tensors of the network; if there is none, all of them as they are.
    """
    bare = {_INSERTED.sub('', key): value for key, value in tensors.items()}
    unwrapped = _unwrap(bare, is_known, '')
    if unwrapped is None:
        return tensors
    start, found = unwrapped
    if len(found) < len(tensors):
        logger.info(
            '%s: the %d tensors below %s are taken, the other %d are left out.',
            origin, len(found), start, len(tensors) - len(found),
        )  # fmt: skip
    return found


def _unwrap(
    tensors: dict[str, Tensor],
    is_known: Callable[[dict[str, Tensor]], bool],
    start: str,
    is_own: bool = False,
) -> tuple[str, dict[str, Tensor]] | None:
    """Find a start of names below which there is a network, and its tensors without it.

    One part of the start may be a name of the user's own, as of an attribute of a LightningModule;
    `is_own` says that there is one already.
    """
    if is_known(tensors):
        return start, tensors
    if any(key.startswith(_EOMT) for key in tensors):
        longer = {f'backbone.{k}': v for k, v in tensors.items() if not k.startswith('criterion.')}
        return (start, longer) if is_known(longer) else None
    own = dict.fromkeys(f'{key.partition(".")[0]}.' for key in tensors if '.' in key)
    outers = [*_OUTER, *(name for name in own if not is_own and name not in _OUTER)]
    for outer in outers:
        inner = {k.removeprefix(outer): v for k, v in tensors.items() if k.startswith(outer)}
        if inner and (
            found := _unwrap(inner, is_known, start + outer, is_own or outer not in _OUTER)
        ):
            return found
    return None


def _has_tensors(record: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in record.values())
