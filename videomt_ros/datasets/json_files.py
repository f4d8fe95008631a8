"""Reads JSON files, shows their values in errors, and writes them whole."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.files import whole_file


def load_json(path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Read a JSON file.

    Args:
        path: file to read.
        object_hook: function for each object, as in `json.loads`.

    Raises:
        DatasetError: there is no such file, or it is no JSON; says at which line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(path, [f'Expected a JSON file, got: {error.strerror}.']) from error
    return parse_json(data, path, object_hook)


def parse_json(
    data: bytes, path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None
) -> Any:
    """Parse JSON as `load_json` does; `path` is the file that errors name."""
    try:
        return json.loads(data, object_hook=object_hook)
    except json.JSONDecodeError as error:
        fault = (
            f'Expected JSON, but it breaks at line {error.lineno}, column {error.colno}: '
            f'{error.msg}. Is the file complete ({len(data)} bytes)?'
        )
        raise DatasetError(path, [fault]) from error
    except UnicodeDecodeError as error:
        fault = f'Expected JSON, but byte {error.start} is no text in {error.encoding}.'
        raise DatasetError(path, [fault]) from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, 10,000 brackets
        raise DatasetError(path, [f'Expected JSON of a usual kind, but {error}.']) from error


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Write a JSON file whole or not at all; makes its folder.

    Raises:
        ValueError: the content holds NaN or an infinity, which JSON cannot express.
    """
    with whole_file(path) as file:
        file.write(json.dumps(content, indent=indent, allow_nan=False).encode())


def shown(value: Any) -> str:
    """Format a value of a JSON for an error, shortened to a readable length."""
    if isinstance(value, dict) and isinstance(value.get('counts'), array):
        value = {**value, 'counts': value['counts'].tolist()}  # see `rle.pack_runs`
    text = repr(value.tolist() if isinstance(value, array) else value)
    return text if len(text) <= 60 else f'{text[:57]}...'
