"""A step captured in a CUDA graph, which a GPU runs without waiting for the host to launch it."""

from __future__ import annotations

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
    """
    inputs = frames.clone(), state.clone()
    current = torch.cuda.current_stream(frames.device)
    side = torch.cuda.Stream(frames.device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            step(*inputs)
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the GPU meanwhile, such as one that loads a program.
    with torch.cuda.graph(graph, stream=side, capture_error_mode='thread_local'):
        outputs, next_state = step(*inputs)

    def replay(frames: Tensor, state: Tensor) -> tuple[Outputs, Tensor]:
        for own, given in zip(inputs, (frames, state), strict=True):
            own.copy_(given)
        graph.replay()
        own_outputs = Outputs(outputs.class_logits.clone(), outputs.mask_logits.clone())
        return own_outputs, next_state.clone()

    return replay
