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
