"""What this machine can do at best: its fastest matrix product and its memory bandwidth.

Both are measured, on the device that runs the network, rather than looked up: figures of data
sheets hold for clocks that a card under power limits does not reach.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from videomt_ros.model.cpu_kernels import faster_inference
from videomt_ros.speed.clock import synchronised_ms, wall_and_cpu_ms

_ENOUGH_MS = {'cpu': 50.0, 'cuda': 5.0}
"""A matrix product that takes so long is large enough to reach the peak."""
_COPIED_BYTES = {'cpu': 2**28, 'cuda': 2**31}
"""Size of the copied buffer, larger than any cache."""
_REPEATS = 10


@dataclass(frozen=True)
class Peaks:
    """Peaks of a device in one number format."""

    tflops: float
    """Operations per second of a large square matrix product, in TFLOP/s; the best of several."""
    matrix_side: int
    """Side of these matrices."""
    gigabytes_per_s: float
    """Bytes read and written per second by a copy of a large buffer, in GB/s; the best of
    several."""


@torch.inference_mode()
def measure_peaks(device: torch.device, dtype: torch.dtype) -> Peaks:
    """Measure the peaks of a device.

    Args:
        device: device to measure.
        dtype: number format of the matrices.
    """
    side, elapsed_ms = 256, 0.0
    while True:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        with faster_inference(a):  # the form that the network takes on this machine
            elapsed_ms = _best_product_ms(partial(F.linear, a, b), device)
        if elapsed_ms >= _ENOUGH_MS[device.type] or side >= 16384:
            break
        side *= 2
    num_bytes = _COPIED_BYTES[device.type]
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    copy_ms = _best_ms(lambda: target.copy_(source), device)
    return Peaks(2 * side**3 / elapsed_ms / 1e9, side, 2 * num_bytes / copy_ms / 1e6)


def _best_product_ms(work: Callable[[], object], device: torch.device) -> float:
    """Time a product of matrices; on a CPU, other load on the machine counts little.

    All threads compute in such a product, so that their processor time is that of an idle machine.
    """
    work()
    threads = torch.get_num_threads()
    times = [wall_and_cpu_ms(work, device) for _ in range(_REPEATS)]
    if device.type == 'cuda':
        return min(wall_ms for wall_ms, _ in times)
    return min(min(wall_ms, cpu_ms / threads) for wall_ms, cpu_ms in times)


def _best_ms(work: Callable[[], object], device: torch.device) -> float:
    work()
    return min(synchronised_ms(work, device) for _ in range(_REPEATS))
