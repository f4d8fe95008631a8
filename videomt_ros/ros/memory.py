"""Return the memory of a network; torch is not imported for it."""

from __future__ import annotations

import ctypes
import gc
import sys


def return_memory() -> None:
    """Return the memory of a network without references to the device and the system."""
    gc.collect()
    if 'torch' in sys.modules:  # else there was no network yet
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if sys.platform == 'linux':
        # glibc would keep the memory of all weights for later allocations.
        trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
        if trim is not None:
            trim(0)
