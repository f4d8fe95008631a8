"""Device and precision of a network, from the names that users write."""

from __future__ import annotations

import torch

PRECISIONS = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
"""Number formats by the names that users write."""


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
        name: auto (fp16 on a GPU, fp32 on a CPU) or a key of PRECISIONS.
        device: device that the network runs on, which decides auto.

    Raises:
        ValueError: there is no such format.
    """
    if name == 'auto':
        return torch.float16 if device.type == 'cuda' else torch.float32
    if name not in PRECISIONS:
        raise ValueError(f'Expected the precision auto, {", ".join(PRECISIONS)}, got {name!r}.')
    return PRECISIONS[name]
