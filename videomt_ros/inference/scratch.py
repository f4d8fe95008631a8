"""Memory that each thread uses again from frame to frame."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


class Scratch:
    """Memory that is used again: new pages cost more time than the arithmetic on them."""

    def __init__(self) -> None:
        """Start without memory."""
        # Arrays, since tensors that are made in inference mode cannot be changed outside of it.
        self._parts: dict[str, NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Get a part as an array of any content; the last one of this name is lost."""
        length = math.prod(shape) * np.dtype(dtype).itemsize
        part = self._parts.get(name)
        if part is None or len(part) < length:
            part = self._parts[name] = np.empty(length, np.uint8)
        return part[:length].view(dtype).reshape(shape)

    def take(self, name: str, size: tuple[int, int]) -> Tensor:
        """Get a part as a tensor of any content, float32; the last one of this name is lost."""
        import torch  # not above: the node imports run lengths, which need arrays alone, at once

        return torch.from_numpy(self.array(name, size, np.float32))


class _Memory(threading.local):
    """Memory of one thread, which grows with the largest image."""

    def __init__(self) -> None:
        self.scratch = Scratch()


_memory = _Memory()


def own_scratch() -> Scratch:
    """Get the memory of the calling thread."""
    return _memory.scratch
