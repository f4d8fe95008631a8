"""Truncated query propagation: learn from a long clip with the memory of a short one.

A clip passes the network in chunks. The queries enter a chunk as values, without their gradient,
so that what one chunk kept for its backward pass is free before the next begins; the gradients of
all chunks add up to one step of the optimiser (LVMT, the successor of VidEoMT, trains on clips of
15 frames in chunks of 5).

Letters: B batch, T frames, Q queries, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from videomt_ros.model.network import Outputs
from videomt_ros.training.criterion import Criterion, Targets

Forward = Callable[[Tensor, Tensor], tuple[Outputs, Tensor]]
"""The network on a chunk: frames (B, t, 3, H, W) and state (B, Q, C) -> outputs, next state."""


def chunk_losses(
    forward: Forward,
    cut_gradient: Callable[[Tensor], Tensor],
    criterion: Criterion,
    state: Tensor,
    frames: Tensor,
    targets: Targets,
    chunk_frames: int,
    totals: Tensor,
) -> Iterator[dict[str, Tensor]]:
    """Yield the losses of one chunk after the other.

    Call `backward` on the sum of each before asking for the next. What the chunks yield adds up
    to the losses of the whole clips, but for frames before an object's first sight, of which
    `LossWeights.expected_from` tells; an object keeps the query it was matched to, in whichever
    chunk that was.

    Args:
        forward: the network. A chunk of frames may wait on the host until then.
        cut_gradient: of the network; see VidEoMT.cut_gradient.
        criterion: what the outputs are compared by.
        state: queries that enter the first frame, (B, Q, C).
        frames: of whole clips, (B, T, 3, H, W), as `forward` takes them.
        targets: truth of the whole clips.
        chunk_frames: frames per chunk; the last chunk has what is left.
        totals: what the losses are divided by; see Criterion.chunk.
    """
    query_of = None
    for start in range(0, frames.shape[1], chunk_frames):
        outputs, state = forward(frames[:, start : start + chunk_frames], state)
        losses, query_of = criterion.chunk(outputs, targets, totals, start, query_of)
        state = cut_gradient(state)
        del outputs  # or they would lie beside those of the next chunk
        yield losses
