"""The machine and the libraries that measurements come from, in words."""

from __future__ import annotations

import os
import platform
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def header(device: torch.device | None, *modules: str) -> dict[str, str]:
    """Describe the machine and the libraries of a measurement.

    Args:
        device: device of the network; None for a measurement that needs no torch.
        modules: names of the modules whose versions matter.

    Returns:
        `hardware` and `versions`, as text.
    """
    machine = f'{cpu_name()}, {os.cpu_count()} processors' if device is None else hardware(device)
    return {'hardware': machine, 'versions': versions(*modules)}


def engine_modules(engine: str) -> list[str]:
    """List the modules besides torch that an engine computes with, if they are installed."""
    return ['onnxruntime'] if engine == 'onnxruntime' and find_spec('onnxruntime') else []


def hardware(device: torch.device) -> str:
    """Name the processor, the number of its threads, and the GPU if the device is one."""
    import torch

    threads = torch.get_num_threads()
    cpu = f'{cpu_name()}, {threads} thread{"s" if threads > 1 else ""}'
    return f'{torch.cuda.get_device_name(device)}; {cpu}' if device.type == 'cuda' else cpu


def cpu_name(cpuinfo: Path = Path('/proc/cpuinfo')) -> str:
    """Name the processor, or its architecture if the system does not say more."""
    lines = cpuinfo.read_text(encoding='utf-8').splitlines() if cpuinfo.is_file() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()


def versions(*names: str) -> str:
    """List the versions of these modules and of Python."""
    # torch.__version__ names the build, such as +cu132, which its package does not.
    found = [getattr(import_module(name), '__version__', None) or version(name) for name in names]
    named = ', '.join(f'{name} {value}' for name, value in zip(names, found, strict=True))
    return f'{named}, Python {platform.python_version()}'
