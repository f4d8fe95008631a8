"""Engines by the names that users write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from videomt_ros.engines.compiled import CompiledEngine
from videomt_ros.engines.engine import Engine, EngineError
from videomt_ros.engines.onnx_build import build_onnx_engine
from videomt_ros.engines.programs import Size
from videomt_ros.model import VideoNetwork, load_model
from videomt_ros.model.device import choose_precision
from videomt_ros.model.onnx_files import is_onnx


def load_engine(
    model: str, name: str, device: torch.device, precision: str, *, providers: str = 'auto'
) -> Engine:
    """Load a model and build its engine, which waits for programs.

    Args:
        model: what `load_model` takes, or an ONNX file of `videomt export`.
        name: a key of `ENGINES`.
        device: device on which it runs.
        precision: see `choose_precision`; auto is that of an ONNX file.
        providers: see `build_onnx_engine`.

    Raises:
        ValueError: the model cannot be loaded, or the engine not be built; says what to do.
        OSError: a file cannot be read.
    """
    if is_onnx(model):
        return load_onnx(model, name, device, precision, providers)
    net = load_model(model).to(device, choose_dtype(precision, device, name))
    return build_engine(net, name, providers=providers)


def choose_dtype(precision: str, device: torch.device, name: str) -> torch.dtype:
    """Choose the number format of a precision, as `choose_precision` does, for an engine.

    The engine onnxruntime computes in float32 where another one would in bf16.
    """
    dtype = choose_precision(precision, device)
    is_free = precision == 'auto' and name == 'onnxruntime' and dtype is torch.bfloat16
    return torch.float32 if is_free else dtype


def load_onnx(
    model: str, name: str, device: torch.device, precision: str, providers: str = 'auto'
) -> Engine:
    """Load an ONNX file of `videomt export`; see `load_engine`.

    Raises:
        EngineError: another engine was chosen, or it cannot be built.
        CheckpointError: the file cannot be read.
    """
    if name != 'onnxruntime':
        raise EngineError(
            f'Expected the engine onnxruntime for an ONNX file, got {name}. Choose it, or give '
            'the checkpoint that was exported.'
        )
    dtype = None if precision == 'auto' else choose_precision(precision, device)
    return build_onnx_engine(Path(model).expanduser(), device, dtype, providers)


def build_engine(
    net: VideoNetwork,
    name: str,
    sizes: Sequence[Size] = (),
    *,
    waits: bool = True,
    providers: str = 'auto',
) -> Engine:
    """Build the engine of a name.

    Args:
        net: network on its device, in evaluation mode.
        name: a key of `ENGINES`.
        sizes: sizes of the frames that are expected, for which it is made ready at once.
        waits: see `CompiledEngine`.
        providers: see `build_onnx_engine`.

    Raises:
        EngineError: there is no such engine, or it cannot be built on this machine.
    """
    if name not in ENGINES:
        raise EngineError(f'Expected the engine {", ".join(ENGINES)}, got {name!r}.')
    return ENGINES[name](net, sizes, waits, providers)


def _eager(net: VideoNetwork, sizes: Sequence[Size], waits: bool, providers: str) -> Engine:
    del sizes, waits, providers
    return net


def _compiled(net: VideoNetwork, sizes: Sequence[Size], waits: bool, providers: str) -> Engine:
    del providers
    engine = CompiledEngine(net, waits)
    for size in sizes:
        engine.prepare(size)
    return engine


def _onnxruntime(net: VideoNetwork, sizes: Sequence[Size], waits: bool, providers: str) -> Engine:
    del sizes, waits  # the exported file takes all sizes
    return build_onnx_engine(net, providers=providers)


ENGINES: dict[str, Callable[[VideoNetwork, Sequence[Size], bool, str], Engine]] = {
    'eager': _eager,
    'compiled': _compiled,
    'onnxruntime': _onnxruntime,
}
