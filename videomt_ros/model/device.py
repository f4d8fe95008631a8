"""Device and precision of a network, from the names that users write."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

PRECISIONS = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
"""Number formats by the names that users write."""

_CPU_INFO = Path('/proc/cpuinfo')
_FAST_BF16 = {'amx_bf16', 'avx512_bf16'}


def choose_device(name: str) -> torch.device:
    """Choose the torch device of a name.

    Args:
        name: auto (a GPU if there is one), cpu, cuda or cuda:n.

    Raises:
        ValueError: there is no such device.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == 'auto':
        return torch.device('cuda' if available else 'cpu')
    kind, separator, index = name.partition(':')
    if kind not in ('cpu', 'cuda') or (separator and not index.isdecimal()):
        raise ValueError(f'Expected the device auto, cpu, cuda or cuda:n, got {name!r}.')
    device = torch.device(name)
    if kind == 'cuda' and (device.index or 0) >= available:
        raise ValueError(
            f'Expected device {name} of {available} CUDA devices that torch {torch.__version__} '
            'sees. Choose cpu or auto, or install a torch for this GPU.'
        )
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Choose the torch number format of a name.

    Args:
        name: a key of PRECISIONS, or auto: fp16 on a GPU, bf16 on a CPU that computes with it
            faster, else fp32.
        device: device that the network runs on, which decides auto.

    Raises:
        ValueError: there is no such format.
    """
    if name == 'auto':
        if device.type == 'cuda':
            return torch.float16
        return torch.bfloat16 if has_fast_bf16() else torch.float32
    if name not in PRECISIONS:
        raise ValueError(f'Expected the precision auto, {", ".join(PRECISIONS)}, got {name!r}.')
    return PRECISIONS[name]


@cache
def cpu_features() -> frozenset[str]:
    """List the features of the CPU as Linux names them, such as avx2; none where not known."""
    return frozenset(_cpu_entry('flags').split())


def cpu_vendor() -> str:
    """Name the maker of the CPU as Linux does, such as GenuineIntel; empty where not known."""
    return _cpu_entry('vendor_id')


def _cpu_entry(name: str) -> str:
    """Read what Linux says of the first processor under a name; empty where not known."""
    try:
        lines = _CPU_INFO.read_text(encoding='ascii', errors='replace').splitlines()
    except OSError:
        return ''
    line = next((line for line in lines if line.startswith(name)), '')
    return line.partition(':')[2].strip()


def has_fast_bf16() -> bool:
    """Tell whether the CPU multiplies matrices of bf16 faster than those of float32.

    It does if it has AMX or AVX512_BF16. Without them torch computes in float32 and converts,
    which gains nothing.
    """
    return not _FAST_BF16.isdisjoint(cpu_features())
