"""A step captured in a CUDA graph, which a GPU runs without waiting for the host to launch it."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

import torch
from torch import Tensor

from videomt_ros.engines.programs import Step
from videomt_ros.model.network import Outputs

_WARM_UP = 3
"""Number of steps before the capture, in which libraries choose kernels and take their memory."""


def capture(step: Step, frames: Tensor, state: Tensor) -> Step:
    """Capture a step for frames of one size.

    Args:
        step: a pure function of frames and state that never waits for the device.
        frames: frames of that size, (B, 3, H, W) on the GPU.
        state: a state of them, (B, Q, C).

    Returns:
        The step as one graph. It copies what it is given into the memory of the graph, and its
        results out of it, since the next run overwrites them.

    Raises:
        RuntimeError: the step cannot be captured, or the memory does not suffice.
    """
    with torch.cuda.device(frames.device):
        return _capture(step, frames, state)


def _capture(step: Step, frames: Tensor, state: Tensor) -> Step:
    """Capture a step on the current device; see `capture`."""
    inputs = frames.clone(), state.clone()
    current = torch.cuda.current_stream(frames.device)
    side = _capture_stream(frames.device)
    side.wait_stream(current)
    try:
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                step(*inputs)
    finally:
        current.wait_stream(side)
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    try:
        # Other threads may use the GPU meanwhile, such as one that loads a program.
        with (
            torch.cuda.stream(current),  # where a capture that fails does not return to it
            torch.cuda.graph(graph, pool, side, capture_error_mode='thread_local'),
        ):
            outputs, next_state = step(*inputs)
    except RuntimeError:
        # A capture that fails may stay open in torch's allocator, which then frees no memory that
        # two streams have used.
        with suppress(RuntimeError, AttributeError):
            torch._C._cuda_endAllocateToPool(frames.device.index, pool)
        raise

    def replay(frames: Tensor, state: Tensor) -> tuple[Outputs, Tensor]:
        for own, given in zip(inputs, (frames, state), strict=True):
            own.copy_(given)
        graph.replay()
        own_outputs = Outputs(
            outputs.class_logits.clone(), outputs.mask_logits.clone(), outputs.embeddings.clone()
        )
        return own_outputs, next_state.clone()

    return replay


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream of a device for captures: cuBLAS keeps 32 MB for each it has seen."""
    return torch.cuda.Stream(device)
