"""The arithmetic of a step and the bytes that it must move, part by part.

The arithmetic is that of matrix products, convolutions and attention, by torch's own counter; one
multiply-add counts twice. All of it is counted on torch's meta device, which computes no values,
so that it takes neither time nor memory, and the answer does not depend on the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from videomt_ros.model import NetworkConfig, build_network
from videomt_ros.speed.parts import PARTS, watch_parts


@dataclass(frozen=True)
class Work:
    """Work of one part of a step."""

    flops: int
    """Floating point operations; a multiply-add is two."""
    num_bytes: int
    """Bytes of the operands and results of each matrix product, convolution and attention, each
    of which must be read or written once, however good the kernel is."""

    @property
    def intensity(self) -> float:
        """Arithmetic intensity: operations per byte."""
        return self.flops / self.num_bytes if self.num_bytes else 0.0

    def floor_ms(self, tflops: float, gigabytes_per_s: float) -> float:
        """Return the milliseconds that no machine with these peaks can undercut (its roofline)."""
        return max(self.flops / tflops / 1e9, self.num_bytes / gigabytes_per_s / 1e6)


def count_work(
    config: NetworkConfig, size: tuple[int, int], batch_size: int, dtype: torch.dtype
) -> dict[str, Work]:
    """Count the work of a step.

    Args:
        config: sizes of the network.
        size: (height, width) of its input.
        batch_size: number of frames that step together.
        dtype: type of weights and activations, which decides the bytes.

    Returns:
        The work of each of `parts.PARTS`.
    """
    totals = {part: [0, 0] for part in PARTS}
    # In inference mode, the modes below would see composite operations such as linear instead.
    with torch.device('meta'), torch.inference_mode(False), torch.no_grad():
        net = build_network(config).to(dtype).eval().requires_grad_(False)
        frames = torch.empty(batch_size, 3, *size, dtype=dtype)
        counter, traffic = FlopCounterMode(display=False), _Traffic()
        before = [0, 0]

        def leave(part: str) -> None:
            now = [counter.get_total_flops(), traffic.num_bytes]
            for n in range(2):
                totals[part][n] += now[n] - before[n]
            before[:] = now

        with counter, traffic, _Attention(traffic), watch_parts(net, leave):
            net.step(frames, net.initial_state(batch_size))
    return {part: Work(*total) for part, total in totals.items()}


def total(work: dict[str, Work]) -> Work:
    """Add up the work of several parts."""
    return Work(sum(w.flops for w in work.values()), sum(w.num_bytes for w in work.values()))


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of the operands and results of the operations that are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0
        self.is_paused = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry and not self.is_paused:
            self.add((args, kwargs, result))
        return result

    def add(self, values: object) -> None:
        """Add the bytes of all tensors in some nested values."""
        leaves = [value for value in tree_leaves(values) if isinstance(value, Tensor)]
        self.num_bytes += sum(value.numel() * value.element_size() for value in leaves)


class _Attention(TorchFunctionMode):
    """Takes attention for one operation that moves queries, keys, values and results alone.

    On the meta device it consists of products with the matrix of all scores, which the kernels of
    a real device never write to memory.
    """

    def __init__(self, traffic: _Traffic) -> None:
        super().__init__()
        self._traffic = traffic

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        self._traffic.is_paused = True
        try:
            result = func(*args, **kwargs)
        finally:
            self._traffic.is_paused = False
        self._traffic.add((args, kwargs, result))
        return result
