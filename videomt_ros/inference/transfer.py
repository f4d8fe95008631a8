"""Copies between the host and the network's device that do not make the host wait.

The pinned memory is that of torch's own pool, which hands none out again before the copies from or
to it are done, so a copy in flight is never overwritten.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_NUMPY_TYPES: dict[torch.dtype, Any] = {
    torch.bool: np.bool_,
    torch.uint8: np.uint8,
    torch.int16: np.int16,
    torch.int64: np.int64,
    torch.float32: np.float32,
}


class Arrays(Protocol):
    """Arrays that the host can use once it has waited for them."""

    def wait(self) -> list[NDArray[Any]]:
        """Wait until the arrays are on the host, and return them."""


class Ready:
    """Arrays that are on the host already."""

    def __init__(self, *arrays: NDArray[Any]) -> None:
        self._arrays = list(arrays)

    def wait(self) -> list[NDArray[Any]]:
        """See `Arrays`."""
        return self._arrays


class Download:
    """Tensors on their way to the host, in a single copy."""

    def __init__(self, *tensors: Tensor) -> None:
        """Queue the copy behind what the current stream of the device was given so far.

        Args:
            tensors: tensors of one device; on a CPU they are copied at once.
        """
        self._layout = [(tensor.shape, _NUMPY_TYPES[tensor.dtype]) for tensor in tensors]
        parts = [tensor.reshape(-1).view(torch.uint8) for tensor in tensors]
        packed = parts[0] if len(parts) == 1 else torch.cat(parts)
        is_cuda = packed.device.type == 'cuda'
        self._host = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=is_cuda)
        self._host.copy_(packed, non_blocking=True)
        self._end: torch.cuda.Event | None = None
        if is_cuda:
            self._end = torch.cuda.Event()
            self._end.record(torch.cuda.current_stream(packed.device))

    def wait(self) -> list[NDArray[Any]]:
        """Wait for the end of the copy.

        Returns:
            The tensors as arrays, which are views of the memory of the copy.
        """
        if self._end is not None:
            self._end.synchronize()
        host, arrays, start = self._host.numpy(), [], 0
        for shape, dtype in self._layout:
            stop = start + shape.numel() * np.dtype(dtype).itemsize
            arrays.append(host[start:stop].view(dtype).reshape(shape))
            start = stop
        return arrays


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device; on a CPU the tensor shares its memory where that is possible.

    Args:
        array: any strides, need not be writeable; it may be changed as soon as this returns,
            unless the device is a CPU.
        device: the copy is queued on its current stream.
    """
    if device.type == 'cuda':
        dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
        pinned = torch.empty(array.shape, dtype=dtype, pin_memory=True)
        np.copyto(pinned.numpy(), array)
        return pinned.to(device, non_blocking=True)
    if not array.flags.writeable:
        array = array.copy()  # torch warns of tensors that share read-only memory
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


class SideStream:
    """A queue of work of a GPU beside that of the network; on a CPU work is done at once.

    What is queued there runs while the network is busy with another frame.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == 'cuda':
            # Its kernels are short, and a result waits for them, so they go before the network's.
            self._stream = torch.cuda.Stream(device, priority=-1)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Queue here what is given to the device meanwhile."""
        if self._stream is None:
            yield
        else:
            with torch.cuda.stream(self._stream):
                yield

    def borrow(self, tensor: Tensor) -> None:
        """Keep the memory of a finished tensor of the network's queue while it is used here."""
        if self._stream is not None:
            tensor.record_stream(self._stream)

    def hand_over(self, tensor: Tensor) -> None:
        """Have the network's queue wait for a tensor of this one, and keep the tensor's memory."""
        if self._stream is not None:
            network = torch.cuda.current_stream(self._device)
            network.wait_stream(self._stream)
            tensor.record_stream(network)


@lru_cache(maxsize=16)
def side_stream(device: torch.device, purpose: Literal['input', 'result']) -> SideStream:
    """Get the queue of a device for the preparation of images, or for results."""
    del purpose  # which tells two queues of a device apart
    return SideStream(device)
