"""How far the outputs of one engine are from those of another, over a few random frames."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from videomt_ros.model.network import Outputs

OUTPUTS = ('class_logits', 'mask_logits', 'embeddings', 'query_out')
"""Names of what a step returns, the next state last."""


TOLERANCE = {torch.float32: 0.05, torch.float16: 0.05, torch.bfloat16: 0.2}
"""Largest difference of an output over its largest value, by number format.

The order of sums changes 1e-5 of it in float32, 3e-3 in fp16 and 3e-2 in bf16; a network that lost
its values differs by as much as these are."""


class Runner(Protocol):
    """The part of an engine that `compare` needs."""

    @property
    def device(self) -> torch.device:
        """Device of the frames, the state and the outputs."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the frames, the state and the outputs."""

    def initial_state(self, batch_size: int = 1) -> Tensor:
        """Return the queries that enter a first frame, (B, Q, C)."""

    def step(self, frames: Tensor, state: Tensor) -> tuple[Outputs, Tensor]:
        """Advance B videos by one frame each."""


class Difference(NamedTuple):
    """How far one output of an engine is from that of a trusted one."""

    largest: float = 0.0
    """Largest absolute difference."""
    scale: float = 0.0
    """Largest absolute value of the trusted engine's output."""

    def relative(self) -> float:
        """Return the largest difference as a fraction of the largest value."""
        if self.largest == 0:
            return 0.0
        return self.largest / self.scale if self.scale else math.inf

    def joined(self, other: Difference) -> Difference:
        """Return the difference over the frames of both."""
        return Difference(max(self.largest, other.largest), max(self.scale, other.scale))

    def __str__(self) -> str:
        return f'{self.largest:.2g} of {self.scale:.3g}'


@torch.inference_mode()
def compare(
    engine: Runner, trusted: Runner, num_frames: int, batch_size: int, height: int, width: int
) -> dict[str, Difference]:
    """Run two engines over the same frames, each with its own state.

    Args:
        engine: engine to be compared.
        trusted: engine of the same network; its number format and device may be others.
        num_frames: number of frames in time.
        batch_size: number of videos.
        height: height of the frames.
        width: their width.

    Returns:
        The largest difference of each of `OUTPUTS`. NaN in either is infinitely far.
    """
    generator = torch.Generator().manual_seed(0)
    own, state = engine.initial_state(batch_size), trusted.initial_state(batch_size)
    found = dict.fromkeys(OUTPUTS, Difference())
    for _ in range(num_frames):
        frames = torch.randn(batch_size, 3, height, width, generator=generator)
        outputs, own = engine.step(frames.to(engine.device, engine.dtype), own)
        expected, state = trusted.step(frames.to(trusted.device, trusted.dtype), state)
        for name, ours, theirs in zip(
            OUTPUTS,
            (outputs.class_logits, outputs.mask_logits, outputs.embeddings, own),
            (expected.class_logits, expected.mask_logits, expected.embeddings, state),
            strict=True,
        ):
            theirs = theirs.float()
            difference = (ours.to(theirs.device).float() - theirs).abs()
            largest = float(difference.nan_to_num(math.inf, math.inf).max())
            found[name] = found[name].joined(Difference(largest, float(theirs.abs().max())))
    return found


def find_wrong(differences: Mapping[str, Difference], tolerance: float) -> str:
    """Name the outputs whose relative difference exceeds a tolerance; empty if none does."""
    return '; '.join(
        f'{name} differ by {difference}'
        for name, difference in differences.items()
        if not difference.relative() <= tolerance
    )
