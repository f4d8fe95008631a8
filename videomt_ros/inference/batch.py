"""Frames of several streams of one network, which step together as a batch.

A pipeline starts frames before it finishes those before, so that a GPU and the host work at once:

    started = start_together(frames)
    if before is not None:
        results = before.finish()
    before = started
"""

from __future__ import annotations

import logging
import traceback
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.inference.continuity import Moment
from videomt_ros.inference.pending import PendingFrame
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.inference.timing import DeviceClock
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
class BegunFrame:
    """A frame whose stream has begun it."""

    prepared: PreparedFrame
    state: Tensor
    """State that enters the frame, (1, Q, C)."""
    now_ns: int
    """Time of the video, in nanoseconds."""
    starts_anew: bool
    """Whether this is the initial state because the video, or the network after an error, starts
    anew."""


@dataclass(frozen=True)
class _Member:
    """A frame of a batch."""

    place: int
    """Index among the frames of the call."""
    stream: VideoStream
    begun: BegunFrame


class StartedFrames:
    """Frames that the network was given together, and whose results are not complete."""

    def __init__(self) -> None:
        """Start without frames."""
        self._pending: dict[int, PendingFrame] = {}
        self.errors: dict[int, Exception] = {}
        """Errors of the frames that are not processed, by their place."""

    def add(self, place: int, frame: PendingFrame) -> None:
        """Add a frame at its place in the call."""
        self._pending[place] = frame

    def finish(self) -> list[Segments | Exception]:
        """Wait for the results.

        The device computes the contests of some frames while the host chooses those of the others.

        Returns:
            The result or the error of each frame, in the order of the frames.
        """
        for frame in self._pending.values():
            frame.choose()
        results: dict[int, Segments | Exception] = {**self.errors}
        results |= {place: frame.result() for place, frame in self._pending.items()}
        return [results[place] for place in range(len(results))]


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
    return start_together(frames).finish()


@torch.inference_mode()
def start_together(frames: Sequence[StreamFrame]) -> StartedFrames:
    """Begin what `push_together` does; `finish` of what it returns is the rest.

    A GPU is given all that needs no decision of the host, and works while the host finishes other
    frames. Frames of one stream may be started before those before are finished; the results are
    the same. A CPU has run the network when this returns, so nothing is gained there.

    See `push_together` for arguments and errors.
    """
    if not frames:
        return StartedFrames()
    streams = {id(frame.stream) for frame in frames}
    if len(streams) < len(frames) or len({id(frame.stream.net) for frame in frames}) > 1:
        raise ValueError('Expected at most one frame of each stream, and streams of one network.')
    started = StartedFrames()
    batches: dict[tuple[int, int], list[_Member]] = defaultdict(list)
    for place, (stream, image, stamp_ns, arrival_s, is_stamped) in enumerate(frames):
        try:
            prepared = stream.prepare(image, stamp_ns, arrival_s, is_stamped)
            begun = stream.begin(prepared)
            batches[prepared.geometry.padded_size].append(_Member(place, stream, begun))
        except Exception as error:
            started.errors[place] = error
    for batch in batches.values():
        _start(batch, started)
    return started


def _start(batch: list[_Member], started: StartedFrames) -> None:
    """Give the frames of one batch to the network, and keep what becomes of each."""
    try:
        outputs, states, network = _step(batch)
    except Exception as error:
        if len(batch) == 1:
            # Those who keep the error must not keep the tensors of the failed step.
            traceback.clear_frames(error.__traceback__)
            batch[0].stream.lose_state()
            started.errors[batch[0].place] = error
            return
        _logger.warning(
            'The network failed on a batch of %d frames, which it now processes one by one: %s',
            len(batch),
            error,
        )
    else:
        for n, member in enumerate(batch):
            try:
                own, state = _of_frame(outputs, states, n)
                pending = member.stream.start(member.begun, own, state, network)
                started.add(member.place, pending)
            except Exception as error:  # no memory
                member.stream.lose_state()
                started.errors[member.place] = error
        return
    # Outside of the handler, since the exception keeps the tensors of the failed step alive.
    for member in batch:
        _start([member], started)


def _step(batch: list[_Member]) -> tuple[Outputs, Tensor, DeviceClock]:
    """Run the network: its outputs (B, ...), the next states (B, Q, C), and its marks."""
    net = batch[0].stream.net
    network = DeviceClock(net.device)
    network.mark()
    if len(batch) == 1:
        inputs, states = batch[0].begun.prepared.input, batch[0].begun.state
    else:
        inputs = torch.cat([member.begun.prepared.input for member in batch])
        states = torch.cat([member.begun.state for member in batch])
    outputs, states = net.step(inputs, states)
    network.mark()
    return outputs, states, network


def _of_frame(outputs: Outputs, states: Tensor, n: int) -> tuple[Outputs, Tensor]:
    """Get the outputs and the next state of one frame of a batch, each with B = 1."""
    if len(outputs.class_logits) == 1:
        return outputs, states
    # Copies, so that a stream that waits for its next frame does not keep those of others.
    own = Outputs(
        outputs.class_logits[n, None].clone(),
        outputs.mask_logits[n, None].clone(),
        outputs.embeddings[n, None].clone(),
    )
    return own, states[n, None].clone()
