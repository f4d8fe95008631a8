"""The execution providers of onnxruntime: which are asked for, with which options, and taken.

onnxruntime goes on with the CPU, without an error, where a provider can't be loaded: so what it
took is compared with what was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from videomt_ros.engines.cache import cache_folder
from videomt_ros.engines.engine import EngineError

PROVIDERS = {
    'cpu': 'CPUExecutionProvider',
    'cuda': 'CUDAExecutionProvider',
    'tensorrt': 'TensorrtExecutionProvider',
}
"""onnxruntime's names of execution providers, by the names that users write."""

_INSTALL = {
    'CUDAExecutionProvider': (
        'Install onnxruntime-gpu in the place of onnxruntime, for the CUDA of this machine, with '
        'its cuDNN'
    ),
    'TensorrtExecutionProvider': (
        'Install onnxruntime-gpu in the place of onnxruntime, and the TensorRT that it was built '
        'for'
    ),
}


def import_onnxruntime() -> Any:
    """Import onnxruntime.

    Raises:
        EngineError: it is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise EngineError(
            'The engine onnxruntime needs the Python module onnxruntime, which is not installed. '
            'Install it (pip install onnxruntime, or onnxruntime-gpu for a GPU), or choose the '
            'engine eager.'
        ) from None
    return onnxruntime


def choose_providers(wanted: str | Sequence[str], device: torch.device) -> list[str]:
    """Choose execution providers for a device.

    Args:
        wanted: auto (cuda on a GPU, else cpu), or some of cpu, cuda and tensorrt, the first
            preferred: a list, or a text with commas. What one of them does not support, the next
            one runs; the CPU comes last by itself.
        device: device of the frames.

    Returns:
        Names of onnxruntime.

    Raises:
        EngineError: a name is unknown, is given twice, or suits another device.
    """
    names = wanted.split(',') if isinstance(wanted, str) else list(wanted)
    names = [name.strip().lower() for name in names]
    if names == ['auto']:
        names = ['cuda' if device.type == 'cuda' else 'cpu']
    if not names or len(set(names)) < len(names) or not set(names) <= set(PROVIDERS):
        raise EngineError(
            f'Expected the providers auto, or some of {", ".join(PROVIDERS)}, each once, '
            f'got {", ".join(names) or "none"}.'
        )
    gpu = [name for name in names if name != 'cpu']
    if bool(gpu) != (device.type == 'cuda'):
        raise EngineError(
            f'Expected providers for the device {device}, got {", ".join(names)}: cuda and '
            'tensorrt run on a GPU (device: cuda), cpu alone on the CPU (device: cpu).'
        )
    return [PROVIDERS[name] for name in names if name != 'cpu' or not gpu]


def provider_options(name: str, device: torch.device, path: Path) -> dict[str, Any]:
    """Return the options of an execution provider for one file."""
    if name == PROVIDERS['cpu']:
        return {}
    options: dict[str, Any] = {'device_id': device.index or 0}
    if name == PROVIDERS['cuda']:
        options['use_tf32'] = False  # float32 stays float32, as in torch
    if name == PROVIDERS['tensorrt']:
        # Building an engine takes minutes: it is kept, and so are the timings of its kernels.
        # Where neither fp16 nor int8 is enabled, onnxruntime builds strongly typed networks: the
        # types are those of the file. TensorRT's own choice of fp16 is known to break DINO's ViTs.
        folder = cache_folder('tensorrt')
        folder.mkdir(parents=True, exist_ok=True)
        options |= {
            'trt_engine_cache_enable': True,
            'trt_engine_cache_path': str(folder),
            'trt_engine_cache_prefix': path.stem,
            'trt_timing_cache_enable': True,
            'trt_timing_cache_path': str(folder),
            'trt_fp16_enable': False,
        }
    return options


def check_taken(wanted: Sequence[str], taken: Sequence[str]) -> None:
    """Check that onnxruntime took the execution providers that it was asked for.

    Raises:
        EngineError: it left one out.
    """
    missing = [name for name in wanted if name not in taken]
    if missing:
        raise EngineError(
            f'Expected onnxruntime to run on {", ".join(wanted)}, it took {", ".join(taken)}. '
            f'{_INSTALL[missing[0]]}; its own log names the library that it lacks. Or choose '
            'other providers, or the engine eager.'
        )
