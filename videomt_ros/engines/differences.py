"""How far the outputs of one engine are from those of another, over a few random frames."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from videomt_ros.engines.engine import Engine

OUTPUTS = ('class_logits', 'mask_logits', 'query_out')
"""Names of what a step returns, the next state last."""


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
    engine: Engine, trusted: Engine, num_frames: int, batch_size: int, size: tuple[int, int]
) -> dict[str, Difference]:
    """Run two engines over the same frames, each with its own state.

    Args:
        engine: engine to be compared.
        trusted: engine of the same network; its number format and device may be others.
        num_frames: number of frames in time.
        batch_size: number of videos.
        size: height and width of the frames.

    Returns:
        The largest difference of each of `OUTPUTS`. NaN in either is infinitely far.
    """
    generator = torch.Generator().manual_seed(0)
    own, state = engine.initial_state(batch_size), trusted.initial_state(batch_size)
    found = dict.fromkeys(OUTPUTS, Difference())
    for _ in range(num_frames):
        frames = torch.randn(batch_size, 3, *size, generator=generator)
        outputs, own = engine.step(frames.to(engine.device, engine.dtype), own)
        expected, state = trusted.step(frames.to(trusted.device, trusted.dtype), state)
        for name, ours, theirs in zip(
            OUTPUTS,
            (outputs.class_logits, outputs.mask_logits, own),
            (expected.class_logits, expected.mask_logits, state),
            strict=True,
        ):
            theirs = theirs.float()
            difference = (ours.to(theirs.device).float() - theirs).abs()
            largest = float(difference.nan_to_num(math.inf, math.inf).max())
            found[name] = found[name].joined(Difference(largest, float(theirs.abs().max())))
    return found
