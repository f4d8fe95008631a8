"""Frames of several streams of one network, which step together as a batch."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.inference.continuity import Moment
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.inference.timing import DeviceClock, StageClock
from videomt_ros.model.network import Outputs
from videomt_ros.structures import Segments

if TYPE_CHECKING:
    from videomt_ros.inference.stream import VideoStream

_logger = logging.getLogger(__name__)


class StreamFrame(NamedTuple):
    """The next frame of one stream."""

    stream: VideoStream
    """Stream to which the frame belongs."""
    image: NDArray[np.uint8]
    """RGB, (H, W, 3) uint8; any strides, need not be writeable."""
    stamp_ns: int
    """Time at which the image was taken, in nanoseconds of any clock."""
    arrival_s: float | None = None
    """Time at which the image arrived, in seconds of a clock that never jumps; None: not known."""
    is_stamped: bool = True
    """Whether the stamp is the camera's; else it was made up so that the video goes on."""


@dataclass(frozen=True)
class PreparedFrame:
    """A frame that is ready for the network."""

    input: Tensor
    """Input of the network, (1, 3, Hp, Wp) on its device and in its dtype."""
    geometry: Geometry
    """Sizes of the frame."""
    moment: Moment
    """When the frame was taken and arrived."""
    clock: DeviceClock
    """Marks of the start and the end of the preparation."""


@dataclass(frozen=True)
class _Begun:
    """A frame whose stream has begun it."""

    place: int
    """Index among the frames of the call."""
    stream: VideoStream
    frame: PreparedFrame
    state: Tensor
    """State that enters the frame, (1, Q, C)."""


@torch.inference_mode()
def push_together(frames: Sequence[StreamFrame]) -> list[Segments | Exception]:
    """Process the next frame of several streams of one network.

    Frames whose inputs have the same padded size are one batch of the network. The results are
    those of `VideoStream.push` on each frame alone, up to the rounding of the batch's arithmetic.

    An error concerns its own frame: the place of a frame holds the exception that `push` would
    have raised, and the other frames are processed. If the network fails on a batch of several
    frames, as when the memory of a GPU does not suffice for it, it processes them one by one.

    Args:
        frames: one frame each of some streams.

    Returns:
        The result or the error of each frame, in the order of the frames.

    Raises:
        ValueError: the streams have different networks, or a stream has several frames; nothing
            was processed.
    """
    if not frames:
        return []
    streams = {id(frame.stream) for frame in frames}
    if len(streams) < len(frames) or len({id(frame.stream.net) for frame in frames}) > 1:
        raise ValueError('Expected at most one frame of each stream, and streams of one network.')
    clock = StageClock(frames[0].stream.net.device)
    results: dict[int, Segments | Exception] = {}
    batches: dict[tuple[int, int], list[_Begun]] = defaultdict(list)
    for place, (stream, image, stamp_ns, arrival_s, is_stamped) in enumerate(frames):
        try:
            prepared = stream.prepare(image, stamp_ns, arrival_s, is_stamped)
            clock.queue(prepared.clock)
            state = stream.begin(prepared)
            begun = _Begun(place, stream, prepared, state)
            batches[prepared.geometry.padded_size].append(begun)
        except Exception as error:
            results[place] = error
    for batch in batches.values():
        results |= _process(batch, clock)
    return [results[place] for place in range(len(frames))]


def _process(batch: list[_Begun], clock: StageClock) -> dict[int, Segments | Exception]:
    """Step the frames of one batch, and finish each; the results by place."""
    try:
        outputs, states, network = _step(batch, clock)
    except Exception as error:
        if len(batch) == 1:
            batch[0].stream.lose_state()
            return {batch[0].place: error}
        _logger.warning(
            'The network failed on a batch of %d frames, which it now processes one by one: %s',
            len(batch),
            error,
        )
    else:
        return _finish(batch, outputs, states, network, clock)
    # Outside of the handler, since the exception keeps the tensors of the failed step alive.
    results: dict[int, Segments | Exception] = {}
    for begun in batch:
        results |= _process([begun], clock)
    return results


def _step(batch: list[_Begun], clock: StageClock) -> tuple[Outputs, Tensor, DeviceClock]:
    """Run the network: its outputs (B, ...), the next states (B, Q, C), and its marks."""
    network = DeviceClock(clock.device)
    network.mark()
    if len(batch) == 1:
        inputs, states = batch[0].frame.input, batch[0].state
    else:
        inputs = torch.cat([begun.frame.input for begun in batch])
        states = torch.cat([begun.state for begun in batch])
    outputs, states = batch[0].stream.net.step(inputs, states)
    network.mark()
    clock.queue(network)
    return outputs, states, network


def _finish(
    batch: list[_Begun],
    outputs: Outputs,
    states: Tensor,
    network: DeviceClock,
    clock: StageClock,
) -> dict[int, Segments | Exception]:
    """Compute the results of a batch, by place."""
    results: dict[int, Segments | Exception] = {}
    for n, begun in enumerate(batch):
        try:
            own, state = _of_frame(outputs, states, n)
        except Exception as error:  # no memory
            begun.stream.lose_state()
            results[begun.place] = error
            continue
        try:
            results[begun.place] = begun.stream.finish(begun.frame, own, state)
            begun.stream.times = clock.times(begun.frame.clock, network)
        except Exception as error:
            results[begun.place] = error
    return results


def _of_frame(outputs: Outputs, states: Tensor, n: int) -> tuple[Outputs, Tensor]:
    """Get the outputs and the next state of one frame of a batch, each with B = 1."""
    if len(outputs.class_logits) == 1:
        return outputs, states
    # Copies, so that a stream that waits for its next frame does not keep those of others.
    own = Outputs(outputs.class_logits[n, None].clone(), outputs.mask_logits[n, None].clone())
    return own, states[n, None].clone()
