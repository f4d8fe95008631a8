"""Reading weight files, local or from the hub: tensors and plain records, never code.

What a file is, is decided by its first bytes. Everything that can be wrong with it ends in one
CheckpointError of one line: what was expected, what came, what to do.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor


class CheckpointError(ValueError):
    """Weights that can't be loaded; the message is one line and names every key at fault."""


TRAINED = 'videomt_ros'
"""Key of a training checkpoint under which lies what our own files have as metadata."""
NETWORK = 'net.'
"""What the names of the network's tensors start with in a training checkpoint."""

INDEX = 'model.safetensors.index.json'
"""Beside weights that are split over several files: which tensor lies in which file."""

# First bytes of what people save by accident instead of weights.
_WRONG_KINDS = (
    (b'version https://git-lfs', 'a git-lfs pointer; run `git lfs pull` to get the file itself'),
    (b'<!doctype html', 'an HTML page; download the file itself, not the page that shows it'),
    (b'<html', 'an HTML page; download the file itself, not the page that shows it'),
    (b'\x89png', 'a PNG image'),
    (b'\xff\xd8\xff', 'a JPEG image'),
    (b'\x1f\x8b', 'a gzip archive; unpack it first'),
)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a `.pth`, `.ckpt` or `.safetensors` file; its content decides which it is.

    Returns:
        Tensors on the CPU by their names in the file, and the metadata of one of our own files.

    Raises:
        CheckpointError: the file is something else, damaged, or holds more than tensors.
    """
    try:
        size = path.stat().st_size
        with path.open('rb') as file:
            head = file.read(256)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}.") from error
    if not size:
        raise CheckpointError(f'{path}: expected weights, the file is empty. Download it again.')
    if head.startswith(b'PK\x03\x04'):
        return _read_zip(path)
    if head[:1] == b'\x80' and head[1:2] in b'\x02\x03\x04\x05':
        return _read_pickle(path, mmap=False)
    if head[8:9] == b'{':
        return _read_safetensors(path, int.from_bytes(head[:8], 'little'), size)
    raise CheckpointError(f'{path}: expected .pth or .safetensors weights, got {_kind(head)}.')


def _kind(head: bytes) -> str:
    for start, kind in _WRONG_KINDS:
        if head.lstrip().lower().startswith(start):
            return kind
    try:
        # The last character may have been cut in the middle.
        text = head.decode('utf-8', errors='strict' if len(head) < 256 else 'ignore')
    except UnicodeDecodeError:
        text = ''
    if text and all(letter.isprintable() or letter.isspace() for letter in text):
        return f'text that starts with {" ".join(text.split())[:40]!r}'
    return f'a file that starts with bytes {head[:8].hex(" ")}'


def _read_zip(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A `.pth` of today is a zip archive with a pickle and the tensors' bytes."""
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f'{path}: expected a whole .pth file, its end is missing. Download it again.'
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # as below: a damaged directory can fail in any way
        raise CheckpointError(
            f'{path}: expected a whole .pth file, its table of contents is damaged '
            f'({_one_line(str(error)) or type(error).__name__}). Download it again.'
        ) from None
    if not any(Path(name).name == 'data.pkl' for name in names):
        raise CheckpointError(
            f'{path}: expected .pth weights, got a zip archive of {len(names)} other files.'
        )
    return _read_pickle(path, mmap=True)


def _read_pickle(path: Path, mmap: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged pickle can fail in any way inside the reader
        text = str(error)
        foreign = re.search(r'GLOBAL ([\w.]+)', text)
        if foreign:
            raise CheckpointError(
                f'{path}: expected tensors alone, the file also holds {foreign[1]}, which is '
                'not loaded because it could run code. Ask for a file with tensors only.'
            ) from None
        raise CheckpointError(
            f'{path}: expected .pth weights, the file is damaged or of another kind '
            f'({_one_line(text) or type(error).__name__}). Download it again.'
        ) from None
    metadata: dict[str, str] = {}
    if isinstance(content, dict) and isinstance(content.get(TRAINED), dict):
        metadata = content[TRAINED]
        content = _network_of(content.get('state_dict'))
    elif isinstance(content, dict) and isinstance(content.get('model'), dict):
        content = content['model']
    if not isinstance(content, dict) or not content:
        raise CheckpointError(
            f"{path}: expected tensors by name, or under the key 'model', "
            f'got {_describe(content)}.'
        )
    wrong = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if wrong:
        raise CheckpointError(
            f"{path}: expected tensors by name, or under the key 'model'; "
            f'these are none: {", ".join(wrong)}.'
        )
    return {str(key): value for key, value in content.items()}, metadata


def _network_of(tensors: Any) -> Any:
    """The network's tensors, among those of all that was trained with it."""
    if not isinstance(tensors, dict):
        return tensors
    named = {str(key): value for key, value in tensors.items()}
    return {k[len(NETWORK) :]: v for k, v in named.items() if k.startswith(NETWORK)}


def _describe(content: Any) -> str:
    return 'nothing' if content == {} else type(content).__name__


def _one_line(text: str) -> str:
    return ' '.join(text.split())[:120].rstrip('. ')


def _read_safetensors(
    path: Path, header: int, size: int
) -> tuple[dict[str, Tensor], dict[str, str]]:
    if 8 + header > size:
        raise CheckpointError(
            f'{path}: expected a whole .safetensors file, its end is missing. Download it again.'
        )
    try:
        with safe_open(path, framework='pt', device='cpu') as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f'{path}: expected a whole .safetensors file, it is damaged '
            f'({_one_line(str(error))}). Download it again.'
        ) from None


def read_metadata(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file, without its tensors.

    Raises:
        CheckpointError: the file is missing or of another kind.
    """
    try:
        with safe_open(path, framework='pt') as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f'{path}: expected a .safetensors file ({_one_line(str(error))}).'
        ) from None


def read_folder(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a Hugging Face folder: config.json and safetensors, in one file or several.

    Returns:
        Tensors by their names in the files, and config.json.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    if not (folder / 'config.json').is_file():
        raise CheckpointError(
            f'{folder}: expected a folder with config.json and model.safetensors, config.json '
            'is missing. For a .pth or .safetensors file give the path of the file.'
        )
    config = _read_json(folder / 'config.json')
    names = weight_names(folder)
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise CheckpointError(
            f'{folder}: expected weights beside config.json, missing: {", ".join(absent)}. '
            'Download the folder again.'
        )
    tensors: dict[str, Tensor] = {}
    for name in names:
        tensors.update(read_tensors(folder / name)[0])
    return tensors, config


def weight_names(folder: Path) -> list[str]:
    """Names of the weight files that a Hugging Face folder should hold.

    Raises:
        CheckpointError: the index of weights in several files is damaged.
    """
    if not (folder / INDEX).is_file():
        return ['model.safetensors']
    shards = _read_json(folder / INDEX).get('weight_map')
    # A shard lies beside the index; a path that leads elsewhere is no file of this folder.
    if (
        not isinstance(shards, dict)
        or not shards
        or not all(isinstance(name, str) and Path(name).name == name for name in shards.values())
    ):
        raise CheckpointError(f'{folder / INDEX}: expected a weight_map of file names.')
    return sorted(set(shards.values()))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: can't be read as JSON: {_one_line(str(error))}. Download it again."
        ) from None
    if not isinstance(values, dict):
        raise CheckpointError(f'{path}: expected an object, got {type(values).__name__}.')
    return values
