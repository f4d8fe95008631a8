"""Types of numbers for the options of the command line."""

from __future__ import annotations

import argparse
import math


def whole_number(text: str) -> int:
    """Parse a whole number of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'expected a whole number of 0 or more, got {text!r}')
    return int(text)


def count(text: str) -> int:
    """Parse a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number of 1 or more, got {text!r}')
    return int(text)


def number_from_zero(text: str) -> float:
    """Parse a number of 0 or more."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f'expected a number of 0 or more, got {text!r}')
    return value


def positive_number(text: str) -> float:
    """Parse a number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f'expected a number above 0, got {text!r}')
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
