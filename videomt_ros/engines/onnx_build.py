"""The engine onnxruntime of an ONNX file, or of a network, which is exported once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from videomt_ros.engines import onnx_export
from videomt_ros.engines.cache import cache_folder, code_digest
from videomt_ros.engines.engine import Engine, EngineError
from videomt_ros.engines.guarded import GuardedEngine
from videomt_ros.engines.onnx_engine import OnnxEngine
from videomt_ros.engines.onnx_providers import PROVIDERS, choose_providers, import_onnxruntime
from videomt_ros.model.network import VideoNetwork
from videomt_ros.model.onnx_files import read_onnx_metadata
from videomt_ros.model.weight_files import CheckpointError
from videomt_ros.resources import package_version

logger = logging.getLogger(__name__)

DTYPES = tuple(onnx_export.TOLERANCES)
"""Number formats in which ONNX files are exported and run."""


def build_onnx_engine(
    source: VideoNetwork | Path,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    providers: str | Sequence[str] = 'auto',
) -> Engine:
    """Build the engine onnxruntime of a model.

    Where TensorRT is the first provider, the engine is guarded: it runs on the next provider, and
    an ERROR says so, if TensorRT computes something else.

    Args:
        source: an ONNX file of `videomt export`, or a network, which is exported into the cache
            unless it is there.
        device: device of the frames, the state and the outputs; None: that of the network, or the
            CPU for a file.
        dtype: float32 or float16; None: that of the network or of the file.
        providers: see `choose_providers`.

    Raises:
        CheckpointError: the file can't be read, or is no such file.
        EngineError: a package is not installed, a provider was not taken, the file has another
            number format, or the network can't be exported.
    """
    if device is None:
        device = source.device if isinstance(source, VideoNetwork) else torch.device('cpu')
    chosen = choose_providers(providers, device)
    import_onnxruntime()
    if isinstance(source, VideoNetwork):
        path = export_once(source, source.dtype if dtype is None else dtype)
    else:
        path = source
    engine = OnnxEngine(path, device, providers)
    if dtype is not None and engine.dtype != dtype:
        raise EngineError(
            f'{path} holds {engine.dtype}, expected {dtype}. Choose the precision auto, or export '
            'it with another --precision.'
        )
    if chosen[0] != PROVIDERS['tensorrt']:
        return engine
    short = {full: name for name, full in PROVIDERS.items()}
    trusted = OnnxEngine(path, device, [short[name] for name in chosen[1:]] or ['cuda'])
    return GuardedEngine(engine, trusted, (engine.providers[0], trusted.providers[0]))


def export_once(net: VideoNetwork, dtype: torch.dtype) -> Path:
    """Export a network into the cache, unless it is there; it is checked when it is written.

    Args:
        net: the network.
        dtype: float32 or float16.

    Returns:
        Path of the file, which takes any number of frames of any size: on a CPU that takes no
        longer than one size.

    Raises:
        EngineError: the network can't be exported.
    """
    if dtype not in DTYPES:
        raise EngineError(
            f'The engine onnxruntime runs float32 and float16, got {dtype}. Choose the precision '
            'fp32 or fp16, or another engine.'
        )
    number_format = str(dtype).removeprefix('torch.')
    code = code_digest('', onnx_export.__file__)
    path = cache_folder('onnx') / f'{net.digest()}-{number_format}-{code}.onnx'
    if path.is_file():
        try:
            read_onnx_metadata(path)  # at its end, so that no part of the file is missing
            return path
        except CheckpointError as error:
            logger.warning('The exported file is damaged, and is written anew: %s', error)
    missing = [module for module in ('onnx', 'onnxscript') if find_spec(module) is None]
    if missing:
        raise EngineError(
            f'The engine onnxruntime needs the Python modules {" and ".join(missing)} to export '
            'the model once: pip install onnx onnxscript. Or export it elsewhere with `videomt '
            'export`, and give the file as the model; or choose the engine eager.'
        )
    logger.info('Exporting %s to %s, once; this takes a minute or more.', net.config.name, path)
    divisor = net.config.size_divisor
    side = -(-net.config.test_size // divisor) * divisor
    onnx_export.export_onnx(net, path, (side, side), dtype, ('batch', 'size'), package_version())
    return path
