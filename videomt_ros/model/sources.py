"""What the text that names a model stands for, found without torch."""

from __future__ import annotations

from pathlib import Path

from videomt_ros.model import hub, presets
from videomt_ros.model.weight_files import CheckpointError

_SUFFIXES = ('.pth', '.pt', '.bin', '.ckpt', '.safetensors', '.onnx')


def find_source(source: str | Path) -> presets.Preset | Path | str:
    """Find what `load_model` reads for a source; nothing is downloaded.

    Args:
        source: as for `load_model`.

    Returns:
        A preset, the path of a file or folder that exists, or the name of a hub repository.

    Raises:
        CheckpointError: it is none of these.
    """
    text = str(source)
    if isinstance(source, str) and text in presets.preset_names():
        return presets.load_preset(text)
    path = Path(text).expanduser()
    if path.exists():
        return path
    if isinstance(source, str) and hub.is_hub_name(text):
        return text
    if isinstance(source, Path) or len(path.parts) > 1 or path.suffix in _SUFFIXES:
        raise CheckpointError(f'{path}: expected weights, there is no such file or folder.')
    return presets.load_preset(text)  # fails, and lists similar names
