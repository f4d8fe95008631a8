"""Types of values, and the options that several verbs of the command line have."""

from __future__ import annotations

import argparse
import math
from dataclasses import fields
from typing import Any

from videomt_ros.engines import ENGINE_NAMES


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


def image_size(text: str) -> tuple[int, int]:
    """Parse a size such as 640x480 as (width, height)."""
    width, _, height = text.partition('x')
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 8):
        raise argparse.ArgumentTypeError(
            f'expected width x height of at least 8 pixels each, such as 640x480, got {text!r}'
        )
    return int(width), int(height)


def stream_setting(text: str) -> tuple[str, Any]:
    """Parse the name and value of a stream setting; lists are separated by commas."""
    from videomt_ros.inference.stream_settings import StreamSettings

    name, separator, value = text.partition('=')
    if not name or not separator:
        raise argparse.ArgumentTypeError(f'expected NAME=VALUE, got {text!r}')
    if name in ('grey_low', 'grey_high'):
        option = f'--{name.replace("_", "-")} {value}'
        raise argparse.ArgumentTypeError(
            f'expected a setting of the live score, got {name}, which both scores share: {option}'
        )
    default = {item.name: item.default for item in fields(StreamSettings)}.get(name)
    if isinstance(default, tuple):
        return name, tuple(item.strip() for item in value.split(',') if item.strip())
    if isinstance(default, str):
        return name, value
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected a number for {name}, got {value!r}') from None


def add_stream_settings(parser: argparse.ArgumentParser, use: str) -> None:
    """Declare `--set` for parameters of the node; its help says what they are for by `use`."""
    parser.add_argument(
        '--set',
        type=stream_setting,
        action='append',
        default=[],
        metavar='NAME=VALUE',
        help=f'a parameter of the node, {use}; may be repeated',
    )


def add_skip_bad(parser: argparse.ArgumentParser) -> None:
    """Declare the option that leaves out bad records."""
    parser.add_argument(
        '--skip-bad',
        action='store_true',
        help='leave out the records of annotations and results that cannot be used, and list '
        'them; default: each is an error',
    )


def add_device_options(parser: argparse.ArgumentParser, engine: bool = True) -> None:
    """Declare the options of a verb that runs a network.

    Args:
        parser: parser that gets `--device` and `--precision`.
        engine: whether it gets `--engine`, too.
    """
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda[:n]; default: auto')
    parser.add_argument(
        '--precision',
        choices=('auto', 'fp32', 'fp16', 'bf16'),
        default='auto',
        help='auto is fp16 on a GPU, bf16 on a CPU that computes with it faster (AMX or '
        'AVX512_BF16), else fp32; default: auto',
    )
    if engine:
        add_engine_option(parser)


def add_engine_option(parser: argparse.ArgumentParser) -> None:
    """Declare `--engine`."""
    parser.add_argument(
        '--engine',
        choices=ENGINE_NAMES,
        default='eager',
        help='what runs the network; compiled makes a program for each size of images, which '
        'takes a minute once, onnxruntime exports the model once; default: eager',
    )


def add_grey_options(parser: argparse._ActionsContainer) -> None:
    """Declare the options for 16-bit images, which are the parameters of the node."""
    parser.add_argument(
        '--grey-low',
        type=whole_number,
        metavar='N',
        help='value of a 16-bit image that becomes black, as grey_low of the node; default: 0',
    )
    parser.add_argument(
        '--grey-high',
        type=whole_number,
        metavar='N',
        help='value of a 16-bit image that becomes white, as grey_high of the node, such as 4095 '
        'for a camera of 12 bits; default: 65535',
    )


def grey_range_of(args: argparse.Namespace) -> tuple[int, int] | None:
    """Return the values of --grey-low and --grey-high; None if neither was given.

    Raises:
        ValueError: they are no range of 16 bits.
    """
    if args.grey_low is None and args.grey_high is None:
        return None
    low = 0 if args.grey_low is None else args.grey_low
    high = 65535 if args.grey_high is None else args.grey_high
    if not low < high <= 65535:
        raise ValueError(
            f'Expected --grey-low below --grey-high, up to 65535, got {low} and {high}.'
        )
    return low, high


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
