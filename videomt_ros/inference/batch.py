"""Frames of several streams, which step together as a batch of each network.

Networks that share an encoder, as those of `load_models`, encode a frame once for all of them.

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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.inference.continuity import Moment
from videomt_ros.inference.pending import PendingFrame
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.inference.timing import DeviceClock
from videomt_ros.model.network import Encoded, Outputs, VideoNetwork, join_encoded
from videomt_ros.structures import Segments

if TYPE_CHECKING:
    from videomt_ros.inference.stream import VideoStream

_logger = logging.getLogger(__name__)

_Result = TypeVar('_Result')


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
    """Process the next frame of several streams.

    Frames whose inputs have the same padded size are one batch of their network. Where networks
    share an encoder, and their streams are given one image at one input size, it is prepared and
    encoded once. The results are those of `VideoStream.push` on each frame alone, up to the
    rounding of the batch's arithmetic.

    An error concerns its own frame: the place of a frame holds the exception that `push` would
    have raised, and the other frames are processed. If a network fails on a batch of several
    frames, as when the memory of a GPU does not suffice for it, it processes them one by one.

    Args:
        frames: one frame each of some streams, whose networks may differ.

    Returns:
        The result or the error of each frame, in the order of the frames.

    Raises:
        ValueError: a stream has several frames; nothing was processed.
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
    if len({id(frame.stream) for frame in frames}) < len(frames):
        raise ValueError('Expected at most one frame of each stream.')
    started = StartedFrames()
    prepared: dict[tuple[object, ...], PreparedFrame] = {}
    batches: dict[tuple[int, tuple[int, int]], list[_Member]] = defaultdict(list)
    for place, frame in enumerate(frames):
        try:
            own = _prepare(frame, prepared)
            member = _Member(place, frame.stream, frame.stream.begin(own))
            batches[_encoder_id(member), own.geometry.padded_size].append(member)
        except Exception as error:
            started.errors[place] = error
    for batch in batches.values():
        _start(batch, started)
    return started


def _prepare(frame: StreamFrame, known: dict[tuple[object, ...], PreparedFrame]) -> PreparedFrame:
    """Prepare a frame, or take over the input of one that has the same image and becomes alike."""
    stream, image, stamp_ns, arrival_s, is_stamped = frame
    key = (id(image), *stream.input_key)
    if key not in known:
        known[key] = stream.prepare(image, stamp_ns, arrival_s, is_stamped)
    size = known[key].geometry.image_size
    return replace(known[key], moment=Moment(stamp_ns, size, arrival_s, is_stamped))


def _encoder_id(member: _Member) -> int:
    """Return what is the same for networks that share an encoder; others share nothing."""
    net = member.stream.net
    return id(net.encoder if isinstance(net, VideoNetwork) else net)


def _start(batch: list[_Member], started: StartedFrames) -> None:
    """Give the frames of one batch to their networks, and keep what becomes of each."""
    members_of: dict[int, list[_Member]] = defaultdict(list)
    for member in batch:
        members_of[id(member.stream.net)].append(member)
    network = DeviceClock(batch[0].stream.net.device)
    network.mark()
    encoded = _encode_once(batch) if len(members_of) > 1 else None
    results = [
        (members, _attempt(partial(_step, members, encoded))) for members in members_of.values()
    ]
    network.mark()
    del encoded  # whose memory a second attempt may need
    for members, result in results:
        if not isinstance(result, Exception):
            _start_results(members, *result, network, started)
        elif len(members) == 1:
            members[0].stream.lose_state()
            started.errors[members[0].place] = result
        else:
            _logger.warning(
                'The network failed on a batch of %d frames, which it now processes one by one: '
                '%s',
                len(members),
                result,
            )
            for member in members:
                _start([member], started)


def _start_results(
    members: list[_Member],
    outputs: Outputs,
    states: Tensor,
    network: DeviceClock,
    started: StartedFrames,
) -> None:
    """Start the results of frames of one network, from its outputs (B, ...) and next states."""
    for n, member in enumerate(members):
        try:
            own, state = _of_frame(outputs, states, n)
            started.add(member.place, member.stream.start(member.begun, own, state, network))
        except Exception as error:  # no memory
            member.stream.lose_state()
            started.errors[member.place] = error


def _attempt(compute: Callable[[], _Result]) -> _Result | Exception:
    """Compute something; the error, if there is one, does not keep the tensors that led to it."""
    try:
        return compute()
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        return error


class _EncodedOnce(NamedTuple):
    """Frames of a batch as an encoder sees them, each image once."""

    encoded: Encoded
    rows: dict[int, int]
    """Place of each input in it, by the input's id."""

    def of(self, members: list[_Member]) -> Encoded:
        """Get the frames of some members, in their order."""
        rows = [self.rows[id(member.begun.prepared.input)] for member in members]
        if rows == list(range(len(self.rows))):
            return self.encoded
        return join_encoded([self.encoded.part(slice(row, row + 1)) for row in rows])


def _encode_once(batch: list[_Member]) -> _EncodedOnce | None:
    """Encode the frames of several networks; None if that fails, so that each does it alone."""
    inputs = {id(member.begun.prepared.input): member.begun.prepared.input for member in batch}
    net = batch[0].stream.net
    assert isinstance(net, VideoNetwork)
    encoded = _attempt(partial(net.encode, _joined(inputs.values())))
    if isinstance(encoded, Exception):
        _logger.warning(
            'The networks failed to encode %d frames together, which each now does alone: %s',
            len(inputs),
            encoded,
        )
        return None
    return _EncodedOnce(encoded, {key: row for row, key in enumerate(inputs)})


def _step(members: list[_Member], encoded: _EncodedOnce | None) -> tuple[Outputs, Tensor]:
    """Run the network of all these frames: its outputs (B, ...) and the next states (B, Q, C)."""
    net = members[0].stream.net
    states = _joined([member.begun.state for member in members])
    if encoded is not None and isinstance(net, VideoNetwork):
        return net.decode(encoded.of(members), states)
    return net.step(_joined([member.begun.prepared.input for member in members]), states)


def _joined(tensors: Iterable[Tensor]) -> Tensor:
    """Join tensors along the first axis; a single one is not copied."""
    first, *others = tensors
    return torch.cat([first, *others]) if others else first


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
