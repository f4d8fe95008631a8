"""Reading weight files, local or from the hub: tensors and plain records, never code.

The first bytes of a file decide what it is. Everything that can be wrong with it ends in one
CheckpointError of one line: what was expected, what came, what to do. torch is imported only where
tensors are read.
"""

from __future__ import annotations

import json
import logging
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from videomt_ros.errors import one_line

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """Weights can't be loaded; the message is one line and names every key at fault."""


FORMAT = 'videomt_ros'
"""Value of `format` in our own metadata, which a training checkpoint holds under this key."""

INDEX = 'model.safetensors.index.json'
"""Name of the file that says which tensor lies in which of several weight files."""

_NETWORK = 'net.'
"""Start of the names of the network's tensors in a training checkpoint."""

# First bytes of what people save by accident instead of weights.
_WRONG_KINDS = (
    (b'version https://git-lfs', 'a git-lfs pointer; run `git lfs pull` to get the file itself'),
    (b'<!doctype html', 'an HTML page; download the file itself, not the page that shows it'),
    (b'<html', 'an HTML page; download the file itself, not the page that shows it'),
    (b'\x89png', 'a PNG image'),
    (b'\xff\xd8\xff', 'a JPEG image'),
    (b'\x1f\x8b', 'a gzip archive; unpack it first'),
)


@dataclass(frozen=True)
class WeightFile:
    """Content of a weight file, or of a Hugging Face folder."""

    path: Path
    """Path of the file or of the folder."""
    tensors: dict[str, Tensor]
    """Tensors on the CPU by their names in the file."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Metadata of a safetensors file or of a training checkpoint."""
    config: dict[str, Any] | None = None
    """Content of the folder's config.json; None for a single file."""


def read_weights(path: Path) -> WeightFile:
    """Read a `.pth`, `.ckpt` or `.safetensors` file, or a Hugging Face folder.

    A `model.safetensors` beside a config.json stands for their folder.

    Raises:
        CheckpointError: the file is something else, damaged, or holds more than tensors; or a
            file of the folder is missing.
    """
    if path.is_dir():
        return _read_folder(path)
    weights = _read_file(path)
    in_folder = path.name == 'model.safetensors' and (path.parent / 'config.json').is_file()
    if in_folder and weights.metadata.get('format') != FORMAT:
        return _read_folder(path.parent)
    return weights


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file, without its tensors and without torch.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
    """
    head = _read_head(path)
    if head[8:9] != b'{':
        raise CheckpointError(f'{path}: expected .safetensors weights, got {_kind(head)}.')
    try:
        with safe_open(path, framework='np') as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def weight_names(folder: Path) -> list[str]:
    """List the weight files that a Hugging Face folder should hold.

    Raises:
        CheckpointError: the index of weights in several files is damaged.
    """
    if not (folder / INDEX).is_file():
        return ['model.safetensors']
    shards = _read_json(folder / INDEX).get('weight_map')
    # A shard lies beside the index; a path that leads elsewhere is no file of this folder.
    names = list(shards.values()) if isinstance(shards, dict) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CheckpointError(f'{folder / INDEX}: expected a weight_map of file names.')
    return sorted(set(names))


def _read_folder(folder: Path) -> WeightFile:
    if not (folder / 'config.json').is_file():
        raise CheckpointError(
            f'{folder}: expected a folder with config.json and model.safetensors, config.json '
            'is missing. For a .pth or .safetensors file give the path of the file.'
        )
    weights = WeightFile(folder, {}, config=_read_json(folder / 'config.json'))
    names = weight_names(folder)
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise CheckpointError(
            f'{folder}: expected weights beside config.json, missing: {", ".join(absent)}. '
            'Download the folder again.'
        )
    for name in names:
        weights.tensors.update(_read_file(folder / name).tensors)
    return weights


def _read_file(path: Path) -> WeightFile:
    head = _read_head(path)
    if path.suffix == '.onnx':
        raise CheckpointError(
            f'{path} is an ONNX file, which the engine onnxruntime runs: choose it, or give the '
            'checkpoint that was exported.'
        )
    if head.startswith(b'PK\x03\x04'):
        _check_zip(path)
        return _read_pickle(path, mmap=True)
    if head[:1] == b'\x80' and head[1:2] in b'\x02\x03\x04\x05':
        return _read_pickle(path, mmap=False)
    if head[8:9] == b'{':
        return _read_safetensors(path)
    raise CheckpointError(f'{path}: expected .pth or .safetensors weights, got {_kind(head)}.')


def _read_head(path: Path) -> bytes:
    """Read the first bytes of a file, which say what it is."""
    try:
        with path.open('rb') as file:
            head = file.read(256)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}.") from error
    if not head:
        raise CheckpointError(f'{path}: expected weights, the file is empty. Download it again.')
    return head


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


def _check_zip(path: Path) -> None:
    """Check that a zip archive is complete and was written by torch."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # a damaged table of contents can fail in any way
        raise CheckpointError(
            f'{path}: expected a whole .pth file, the table of contents at its end is missing or '
            f'damaged ({one_line(error, 120)}). Download it again.'
        ) from None
    if not any(Path(name).name == 'data.pkl' for name in names):
        raise CheckpointError(
            f'{path}: expected .pth weights, got a zip archive of {len(names)} other files.'
        )


def _read_pickle(path: Path, mmap: bool) -> WeightFile:
    import torch

    from videomt_ros.model.pickles import ForeignObjectError, load_pickle

    try:
        content = load_pickle(path, mmap)
    except ForeignObjectError as error:
        raise CheckpointError(
            f'{path}: expected tensors and plain records, the file also holds {error}, which is '
            'not loaded because it could run code. Where that class is known, save the tensors '
            "alone: torch.save({'model': net.state_dict()}, FILE); or ask for such a file."
        ) from None
    except Exception as error:  # a damaged pickle can fail in any way inside the reader
        if 'Unsupported operand 149' in str(error):  # the first of protocols 4 and 5
            raise CheckpointError(
                f'{path}: expected a pickle of protocol 2, as torch.save writes it, got a newer '
                'one. Save it again without pickle_protocol=.'
            ) from None
        raise CheckpointError(
            f'{path}: expected .pth weights, the file is damaged or of another kind '
            f'({one_line(error, 120)}). Download it again.'
        ) from None
    metadata: dict[str, str] = {}
    if isinstance(content, dict) and isinstance(content.get(FORMAT), dict):
        metadata, content = content[FORMAT], content.get('state_dict')
        if isinstance(content, dict):  # also holds what was trained beside the network
            named = {str(key): value for key, value in content.items()}
            content = {k[len(_NETWORK) :]: v for k, v in named.items() if k.startswith(_NETWORK)}
    elif isinstance(content, dict):
        content = _find_tensors(path, content)
    expected = f"{path}: expected tensors by name, or under a key such as 'model'"
    if not isinstance(content, dict) or not content:
        got = 'nothing' if content == {} else type(content).__name__
        raise CheckpointError(f'{expected}, got {got}.')
    wrong = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise CheckpointError(f'{expected}; these are none: {", ".join(wrong)}.')
    return WeightFile(path, {str(key): value for key, value in content.items()}, metadata)


def _find_tensors(path: Path, content: dict[Any, Any]) -> dict[Any, Any]:
    """Find the record of tensors; one without a dot in its name is beside them if no tensor."""
    import torch

    from videomt_ros.model.wrappings import find_tensors, other_sets

    taken, found = find_tensors(content)
    others = other_sets(content, taken)
    if others:
        logger.info('%s: the weights under %r are taken, not those under %s.',
                    path, taken, ', '.join(map(repr, others)))  # fmt: skip
    if not any(isinstance(value, torch.Tensor) for value in found.values()):
        return dict(found)
    return {
        key: value
        for key, value in found.items()
        if isinstance(value, torch.Tensor) or '.' in str(key)
    }


def _read_safetensors(path: Path) -> WeightFile:
    try:
        with safe_open(path, framework='pt', device='cpu') as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return WeightFile(path, tensors, file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f'{path}: expected a whole .safetensors file, it is cut short or damaged '
        f'({one_line(error, 120)}). Download it again.'
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: can't be read as JSON: {one_line(error, 120)}. Download it again."
        ) from None
    if not isinstance(values, dict):
        raise CheckpointError(f'{path}: expected an object, got {type(values).__name__}.')
    return values
