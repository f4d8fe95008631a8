"""The clock of the measurements, which waits for the device."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def now_s(device: torch.device) -> float:
    """Wait until the device is idle and return the host's time in seconds."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return time.perf_counter()


def synchronised_ms(work: Callable[[], object], device: torch.device) -> float:
    """Do some work on an idle device, wait for its end, and return the milliseconds it took."""
    start_s = now_s(device)
    work()
    return (now_s(device) - start_s) * 1e3


def wall_and_cpu_ms(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Do some work like `synchronised_ms`.

    Returns:
        Milliseconds by the clock, and of the processor on all threads of this process, in which
        other load on the machine does not count.
    """
    start_cpu_s = time.process_time()
    milliseconds = synchronised_ms(work, device)
    return milliseconds, (time.process_time() - start_cpu_s) * 1e3
