"""What an ONNX file of `videomt export` says of its network, read without onnx and without torch.

ONNX is one protobuf message, `ModelProto` of onnx.proto. Only its outermost fields are visited:
the graph with the weights is skipped, so that a file of a gigabyte takes a millisecond.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from videomt_ros.model.config import NetworkConfig
from videomt_ros.model.weight_files import FORMAT, CheckpointError

SUFFIX = '.onnx'
"""Ending of the files' names."""

VERSION = '1'
"""Version of the metadata and of the graph's inputs and outputs."""

_GRAPH = 7
_METADATA = 14
"""Numbers of fields of `ModelProto`."""


def is_onnx(source: str | Path) -> bool:
    """Tell whether a model is an ONNX file, which is no `VidEoMT` but an engine by itself."""
    return Path(source).suffix == SUFFIX


def read_onnx_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of an ONNX file that `videomt export` wrote.

    Returns:
        Texts by name: format, version, config (JSON), initial_queries, package.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, of another program, or of
            a newer version of this one.
    """
    try:
        with path.open('rb') as file:
            metadata = _read_entries(file, path.stat().st_size)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise CheckpointError(
            f'{path}: expected a whole ONNX file, it is cut short, damaged or of another kind '
            f'({error}). Export it again.'
        ) from None
    if metadata.get('format') != FORMAT:
        raise CheckpointError(
            f'{path}: expected an ONNX file that `videomt export` wrote, this one is of another '
            'program: it lacks the configuration of the network and the queries of a first frame.'
        )
    missing = [key for key in ('version', 'config', 'initial_queries') if key not in metadata]
    if missing and metadata.get('version', VERSION) == VERSION:
        raise CheckpointError(
            f'{path}: expected metadata of `videomt export`, missing: {", ".join(missing)}. '
            'Export it again.'
        )
    if metadata.get('version') != VERSION:
        raise CheckpointError(
            f'{path}: expected version {VERSION} of exported files, got '
            f'{metadata.get("version")}, written by videomt_ros {metadata.get("package")}. '
            'Export it again, or install that version.'
        )
    return metadata


def read_onnx_config(path: Path) -> NetworkConfig:
    """Read the configuration of the network in an ONNX file.

    Raises:
        CheckpointError: as for `read_onnx_metadata`, or the configuration fits no network.
    """
    return onnx_config(path, read_onnx_metadata(path))


def onnx_config(path: Path, metadata: dict[str, str]) -> NetworkConfig:
    """Build the configuration from the metadata of an ONNX file.

    Raises:
        CheckpointError: the configuration fits no network.
    """
    try:
        values = json.loads(metadata['config'])
        if not isinstance(values, dict):
            raise ValueError(f'Expected an object, got {type(values).__name__}.')
        return NetworkConfig.from_dict(values)
    except ValueError as error:
        raise CheckpointError(f'{path}: the configuration of the network: {error}') from None


def _read_entries(file: BinaryIO, size: int) -> dict[str, str]:
    """Read the entries of a model's metadata; its other fields are skipped."""
    entries: dict[str, str] = {}
    has_graph = False
    for number, length in _fields(file, size):
        has_graph |= number == _GRAPH
        if number == _METADATA:
            texts = {1: '', 2: ''}  # key and value
            for which, part in _fields(file, file.tell() + length):
                texts[which] = file.read(part).decode()
            entries[texts[1]] = texts[2]
    if not has_graph:
        raise ValueError('it has no graph')
    return entries


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Visit the fields of a protobuf message that are texts or messages themselves.

    Yields:
        Number and length of each; the file stands at its first byte, and the caller may read it.
    """
    while file.tell() < end:
        number, kind = divmod(_read_varint(file), 8)
        if kind == 0:
            _read_varint(file)
            continue
        if kind != 2:
            raise ValueError(f'a field of wire type {kind}')
        length = _read_varint(file)
        begin = file.tell()
        if begin + length > end:
            raise ValueError(f'expected {begin + length} bytes or more, got {end}')
        yield number, length
        file.seek(begin + length)


def _read_varint(file: BinaryIO) -> int:
    """Read a number of 7 bits per byte, lowest first."""
    number = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError('it ends within a number')
        number |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return number
    raise ValueError('a number of more than 10 bytes')
