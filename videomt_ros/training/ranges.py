"""Checks of numbers that a user sets."""

from __future__ import annotations

import math
from typing import Any


def check_range(
    settings: Any, names: str, lowest: float, highest: float = math.inf, *, open_: bool = False
) -> None:
    """Check fields of a record of settings.

    Args:
        settings: the record.
        names: of the fields, separated by spaces.
        lowest: smallest value allowed.
        highest: largest value allowed.
        open_: the lowest value itself is not allowed.

    Raises:
        ValueError: a value is outside, or no number; names the field.
    """
    for name in names.split():
        value = getattr(settings, name)
        if lowest <= value <= highest and not (open_ and value == lowest) and math.isfinite(value):
            continue
        limits = f'above {lowest}' if open_ else f'of {lowest} or more'
        if highest < math.inf:
            limits = f'above {lowest}, up to {highest}' if open_ else f'from {lowest} to {highest}'
        raise ValueError(f'Expected {name} {limits}, got {value}.')
