"""What the text that names a model stands for, found without torch."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from videomt_ros.model import hub, presets
from videomt_ros.model.weight_files import FORMAT, CheckpointError, read_metadata

_SUFFIXES = ('.pth', '.pt', '.bin', '.ckpt', '.safetensors', '.onnx')


def find_source(source: str | Path) -> presets.Preset | Path | str:
    """Find what `load_model` reads for a source; nothing is downloaded.

    Args:
        source: as for `load_model`.

    Returns:
        A preset, the path of a file or folder that exists, or the name of a hub repository. The
        folder of a training run stands for the weights in it.

    Raises:
        CheckpointError: it is none of these.
    """
    text = str(source)
    if isinstance(source, str) and text in presets.preset_names():
        return presets.load_preset(text)
    path = Path(text).expanduser()
    if path.exists():
        return weights_of_run(path) or path
    bare = text
    if isinstance(source, str):
        if known := presets.find_name(text):
            return presets.load_preset(known)
        bare = presets.bare_name(text)
        if hub.is_hub_name(bare):
            return bare
    if '://' in bare:
        raise CheckpointError(
            f'Expected a model name, a file, or a repository of the Hugging Face hub, got {text}. '
            'Download the file, and give its path.'
        )
    if isinstance(source, Path) or len(path.parts) > 1 or path.suffix in _SUFFIXES:
        raise CheckpointError(f'{path}: expected weights, there is no such file or folder.')
    return presets.load_preset(text)  # fails, and lists similar names


def weights_of_run(folder: Path) -> Path | None:
    """Find the weights that the folder of a training run stands for.

    Returns:
        The best weights by the run's own scores; without any, those of its end, and while it has
        not ended, its newest checkpoint. None for a folder of another kind.
    """
    if not folder.is_dir() or (folder / 'config.json').exists():
        return None
    for name in ('best.safetensors', 'model.safetensors'):
        if (folder / name).is_file() and _is_ours(folder / name):
            return folder / name
    steps = {
        int(found[1]): path
        for path in (*folder.glob('checkpoints/*.ckpt'), *folder.glob('*.ckpt'))
        if (found := re.fullmatch(r'step=(\d+)\.ckpt', path.name))
    }
    return steps[max(steps)] if steps else None


def _is_ours(file: Path) -> bool:
    """Tell whether a run wrote a file; transformers writes some of the same name."""
    try:
        return read_metadata(file).get('format') == FORMAT
    except CheckpointError:
        return True  # which says what is wrong with it when it is read


def find_preset_file(preset: presets.Preset) -> Path | None:
    """Find the weights of a preset on this machine: the file, or the folder of converted ones.

    Returns:
        None where they would be downloaded, or are missing from the package.
    """
    if preset.path is not None:
        return preset.path if preset.path.is_file() else None
    found = hub.cached_file(preset.source, preset.file)
    return found or (hub.cached_folder(preset.converted) if preset.converted else None)


def fetch_preset(preset: presets.Preset) -> Path:
    """Find the weights of a preset; download them if they are not on this machine.

    Raises:
        CheckpointError: they are out of reach.
    """
    if found := preset.path or find_preset_file(preset):
        return found
    try:
        return hub.fetch_file(preset.source, preset.file)
    except hub.NotOnHubError:
        # The same weights in another layout.
        with contextlib.suppress(hub.NotOnHubError):
            if preset.converted:
                return hub.fetch_folder(preset.converted)
        raise
