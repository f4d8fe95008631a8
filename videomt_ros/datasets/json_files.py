"""Reads JSON files, shows their values in errors, and writes them whole."""

from __future__ import annotations

import codecs
import json
import re
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.files import whole_file

_WHITESPACE = re.compile(r'[ \t\n\r]*')
_CHUNK = 1 << 20
"""Number of bytes that `stream_objects` reads at once."""


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


def stream_objects(
    file: BinaryIO, object_hook: Callable[[dict[str, Any]], Any] | None = None
) -> Iterator[dict[str, Any]]:
    """Parse a JSON list of objects one by one, in the memory of a few of them.

    Raises:
        ValueError: it is something else, in another encoding than UTF-8, or broken; `parse_json`
            accepts it or tells what is wrong.
    """
    # The same code as that of json.loads, from the first bracket of an object to its last.
    parse = json.JSONDecoder(object_hook=object_hook).raw_decode
    decode = codecs.getincrementaldecoder('utf-8')().decode
    text, place, is_first, is_at_end = '', 0, True, False

    def next_character() -> str:
        nonlocal place
        while True:
            place = _WHITESPACE.match(text, place).end()  # type: ignore[union-attr]
            if place < len(text):
                return text[place]
            if is_at_end:
                return ''
            read_more()

    def read_more() -> None:
        nonlocal text, place, is_at_end
        # At least as much as is there, or a long object would be parsed again and again.
        data = file.read(max(_CHUNK, len(text) - place))
        is_at_end = not data
        text, place = text[place:] + decode(data, is_at_end), 0

    if next_character() != '[':
        raise ValueError('Expected a list.')
    place += 1
    while (character := next_character()) != ']':
        if not is_first:
            if character != ',':
                raise ValueError('Expected a comma or the end of the list.')
            place += 1
            character = next_character()
        if character != '{':
            raise ValueError('Expected an object.')
        while True:
            try:
                record, place = parse(text, place)
                break
            except ValueError:  # most likely the object is longer than what has been read
                if is_at_end:
                    raise
                read_more()
        yield record
        is_first = False
    place += 1
    if next_character():
        raise ValueError('Expected the end of the file.')


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Write a JSON file whole or not at all; makes its folder.

    Raises:
        ValueError: the content holds NaN or an infinity, which JSON cannot express.
    """
    with whole_file(path) as file:
        file.write(json.dumps(content, indent=indent, allow_nan=False).encode())


def as_whole(value: Any) -> Any:
    """Return a float without a fraction as the whole number that it is, and all else as it is.

    >>> as_whole(3.0), as_whole(3.5), as_whole('3')
    (3, 3.5, '3')
    """
    return int(value) if type(value) is float and value.is_integer() else value


def shown(value: Any) -> str:
    """Format a value of a JSON for an error, shortened to a readable length."""
    if isinstance(value, dict) and isinstance(value.get('counts'), array):
        value = {**value, 'counts': value['counts'].tolist()}  # see `rle.pack_runs`
    text = repr(value.tolist() if isinstance(value, array) else value)
    return text if len(text) <= 60 else f'{text[:57]}...'
