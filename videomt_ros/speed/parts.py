"""The parts of a step of the network, told apart by hooks, and the time that each takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch
from torch import Tensor, nn

from videomt_ros.model import PMT, VideoNetwork
from videomt_ros.speed.clock import now_s

ENCODER, LATERAL, QUERIES = 'encoder blocks', 'lateral path', 'query blocks'
UPSCALE, PRODUCT, HEADS = 'upscale', 'mask product', 'heads, patch embedding'
PARTS = (ENCODER, LATERAL, QUERIES, UPSCALE, PRODUCT, HEADS)
"""Parts of a step. The lateral path leads from the encoder of PMT to its decoder; other networks
have none. The mask product includes what lies between the others: positions, the final norm,
concatenations."""


@contextmanager
def watch_parts(net: VideoNetwork, leave: Callable[[str], None]) -> Iterator[None]:
    """Tell when a part of a step ends, as long as the block runs.

    A part comes several times in a step, and another one may begin within it.

    Args:
        net: network whose `step` is called in the block.
        leave: called with the name of the part that has run until now, at each change.
    """
    running = [PRODUCT]

    def enter_hook(part: str) -> Callable[..., None]:
        def enter(*_: object) -> None:
            leave(running[-1])
            running.append(part)

        return enter

    def leave_hook(*_: object) -> None:
        leave(running.pop())

    handles = []
    for part, modules in _modules(net).items():
        for module in modules:
            handles.append(module.register_forward_pre_hook(enter_hook(part)))
            handles.append(module.register_forward_hook(leave_hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        leave(running[-1])


def _modules(net: VideoNetwork) -> dict[str, list[nn.Module]]:
    """Find the modules of each part."""
    backbone = net.backbone
    heads = [backbone.vit.patch_embed, net.class_head, net.mask_head]
    if net.config.propagation in ('fusion', 'gru'):
        heads.append(net.query_updater)
    return {
        ENCODER: list(backbone.vit.blocks[: backbone.num_encoder_blocks]),
        LATERAL: [net.lateral] if isinstance(net, PMT) else [],
        QUERIES: list(net.query_blocks),
        UPSCALE: [net.upscale],
        HEADS: heads,
    }


@torch.inference_mode()
def time_parts(
    net: VideoNetwork, frames: Tensor, repeats: int, warm_up: int = 2
) -> dict[str, float]:
    """Time the parts of a step, with the device synchronised at each change of part.

    Args:
        net: network, run as it is.
        frames: input (B, 3, H, W) on the device and in the type of the network.
        repeats: number of timed steps.
        warm_up: number of steps before them.

    Returns:
        Median milliseconds of each part of a step.
    """
    samples: dict[str, list[float]] = {part: [] for part in PARTS}
    state = net.initial_state(len(frames))
    for n in range(warm_up + repeats):
        sums = dict.fromkeys(PARTS, 0.0)
        since_s = now_s(frames.device)

        def leave(part: str, sums: dict[str, float] = sums) -> None:
            nonlocal since_s
            until_s = now_s(frames.device)
            sums[part] += (until_s - since_s) * 1e3
            since_s = until_s

        with watch_parts(net, leave):
            net.step(frames, state)
        if n >= warm_up:
            for part, milliseconds in sums.items():
                samples[part].append(milliseconds)
    return {part: median(values) for part, values in samples.items()}
