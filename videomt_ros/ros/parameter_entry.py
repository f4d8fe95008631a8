"""One entry of the table of parameters: how it is written, described and checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import Field, field
from typing import Any


def parameter(
    default: Any,
    meaning: str,
    *,
    range: tuple[float, float] | None = None,
    choices: Sequence[str] = (),
    pattern: str = '',
    per_camera: bool = False,
    dynamic: bool = False,
    read_only: bool = False,
) -> Any:
    """Build one entry of the table.

    Args:
        default: default value, whose type is the parameter's; a tuple is an array of strings.
        meaning: description, which `ros2 param describe` shows.
        range: least and largest value, both allowed.
        choices: allowed values of a string, or of each string of an array.
        pattern: regular expression that a string, or each string of an array, must match.
        per_camera: whether a camera may have a value of its own.
        dynamic: whether it may change while a model is loaded; the next image uses it.
        read_only: whether it is fixed once the node has started.
    """
    metadata = {
        'meaning': meaning,
        'range': range,
        'choices': tuple(choices),
        'pattern': pattern,
        'per_camera': per_camera,
        'dynamic': dynamic,
        'read_only': read_only,
    }
    return field(default=default, metadata=metadata)


def constraint(entry: Field[Any]) -> str:
    """Say which values an entry of the table takes, and when it may change; may be empty."""
    limits = entry.metadata
    words = []
    if limits['range']:
        words.append(f'From {limits["range"][0]} to {limits["range"][1]}.')
    if limits['choices']:
        kind = 'Any' if isinstance(entry.default, tuple) else 'One'
        words.append(f'{kind} of {", ".join(limits["choices"])}.')
    if limits['read_only']:
        words.append('Fixed at the start.')
    elif not limits['dynamic']:
        words.append('Takes effect when the node is configured.')
    return ' '.join(words)


def check_value(entry: Field[Any], value: Any) -> None:
    """Check a value.

    Raises:
        ValueError: the value is not of the entry's type or not in its range.
    """
    limits = entry.metadata
    wanted: type = type(entry.default)
    # isinstance would accept True for an int.
    fits = isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
    if wanted is tuple:
        fits = fits and all(isinstance(word, str) for word in value)
    if not fits:
        kind = 'list of strings' if wanted is tuple else wanted.__name__
        hint = f' Write it as [{value}].' if wanted is tuple and isinstance(value, str) else ''
        raise ValueError(f'Expected {entry.name} to be a {kind}, got {value!r}.{hint}')
    if limits['range'] and not limits['range'][0] <= value <= limits['range'][1]:
        low, high = limits['range']
        raise ValueError(f'Expected {entry.name} from {low} to {high}, got {value}.')
    for word in value if wanted is tuple else (value,):
        if limits['choices'] and word not in limits['choices']:
            raise ValueError(
                f'Expected {entry.name} of {", ".join(limits["choices"])}, got {word!r}.'
            )
        if limits['pattern'] and not re.fullmatch(limits['pattern'], word):
            raise ValueError(
                f'Expected {entry.name} of the form {limits["pattern"]}, got {word!r}.'
            )
