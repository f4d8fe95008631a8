"""VideoStream: segments and tracks the video of one camera.

    stream = VideoStream(load_model('demo'))
    for image, stamp_ns in camera:
        segments = stream.push(image, stamp_ns)

The network keeps no state between calls, so any number of streams can share one.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.engines.engine import Engine
from videomt_ros.inference.batch import (
    BegunFrame,
    PreparedFrame,
    StreamFrame,
    push_together,
)
from videomt_ros.inference.continuity import RESET_REASONS, Continuity, Moment, ResetReason
from videomt_ros.inference.first_outputs import find_fault, measure_outputs
from videomt_ros.inference.input_size import check_input_size
from videomt_ros.inference.pending import FrameClocks, Labels, PendingFrame
from videomt_ros.inference.preprocess import Preprocessor
from videomt_ros.inference.semantic import ClassSegments
from videomt_ros.inference.stream_settings import StreamSettings
from videomt_ros.inference.timing import DeviceClock, StageTimes
from videomt_ros.inference.track_segments import TrackSegments
from videomt_ros.inference.tracker_constants import TrackerConstants
from videomt_ros.inference.transfer import Download, side_stream
from videomt_ros.model.config import Task
from videomt_ros.model.network import Outputs
from videomt_ros.structures import Segments

_logger = logging.getLogger(__name__)


class VideoStream:
    """Segments and tracks one video, frame by frame; results depend on past frames only.

    The task decides what the segments are:

    - instance: one segment per object; all other pixels are 0.
    - panoptic: one segment per object, and one per class of stuff, each with its own id.
    - semantic: one segment per class in view, confirmed at once, with track id = class id + 1.
      The scores are those of the frame; every pixel is labelled (before min_area and
      class_filter).
    """

    def __init__(
        self,
        net: Engine,
        task: Task | None = None,
        *,
        input_size: int | None = None,
        hold_outliers: bool = False,
        name: str = '',
        constants: TrackerConstants = TrackerConstants(),  # noqa: B008 (it is frozen)
        **settings: Any,
    ) -> None:
        """Start a stream.

        Args:
            net: network in evaluation mode; the stream runs on its device and in its dtype. Call
                `reset` after moving it.
            task: kind of results; None: the task that the network was trained for.
            input_size: short side in pixels to which images are resized for the network, a
                multiple of its patch size; None: the size that it was tested with. A smaller one
                takes less time and finds fewer small objects.
            hold_outliers: whether a lone frame whose stamp or size does not continue the video is
                dropped (`push` raises OutlierError), as suits live cameras; else it begins a new
                video at once.
            name: name of the camera, which log lines begin with; empty: none.
            constants: constants of the tracker; docs/identity.md says what each is worth.
            settings: fields of StreamSettings that differ from the defaults.

        Raises:
            ValueError: the task is unknown, the network does not take the input size, or a
                setting is unknown or out of range.
        """
        self.net = net
        self.task = net.config.task if task is None else task
        if self.task not in get_args(Task):
            raise ValueError(
                f'Expected a task from {", ".join(get_args(Task))}, got {self.task!r}.'
            )
        self.settings = StreamSettings().changed(settings, net.config.class_names)
        self.resets_by_reason: dict[ResetReason, int] = dict.fromkeys(RESET_REASONS, 0)
        """Number of times that a new video began, by reason."""
        if input_size is not None:
            check_input_size(input_size, net.config)
        self._input_size = input_size
        self._hold_outliers = hold_outliers
        self._constants = constants
        self._log_prefix = f'Camera {name}: ' if name else ''
        self._start()

    def update(self, **settings: Any) -> None:
        """Change settings while running; tracks and ids stay.

        Args:
            settings: fields of StreamSettings; those not named keep their value.

        Raises:
            ValueError: a setting is unknown or out of range; nothing was changed.
        """
        changed = self.settings.changed(settings, self.net.config.class_names)
        self._complete()
        self.settings = changed
        self._memory.update(self.settings)

    @property
    def resets(self) -> int:
        """Number of times that a new video began, for any reason, after the first one."""
        return sum(self.resets_by_reason.values())

    def reset(self) -> None:
        """Forget the video; ids start at 1 again."""
        self._complete()
        self.resets_by_reason['requested'] += 1
        self._start()

    def restart(self, reason: ResetReason) -> None:
        """Begin a new video with the next frame; ids go on.

        The stream does so by itself where the stamps or sizes of the frames ask for it.

        Args:
            reason: what `resets_by_reason` counts it as.
        """
        self._continuity = Continuity(self._hold_outliers)
        self._begin_anew(reason)

    def _start(self) -> None:
        """Start without a video."""
        self._preprocess = Preprocessor(
            self.net.config, self.net.device, self.net.dtype, self._input_size
        )
        self._continuity = Continuity(self._hold_outliers)
        self._memory = self._new_memory(next_id=1)
        self._pending: PendingFrame | None = None
        self._state: Tensor | None = None
        self._state_was_finite = True
        self.outputs: Outputs | None = None
        """Raw outputs of the newest frame, (1, Q, ...) on the network's device."""
        self.next_state: Tensor | None = None
        """State after the newest frame, (1, Q, C), even if it is not finite and was dropped."""
        self.state_norm: float | None = None
        """Norm (L2) of a query in the state after the newest frame, the mean of all queries; None
        before the first frame. It is the same for hours unless the state drifts."""
        self.started_anew = True
        """Whether the network processed the newest frame as the first of a video."""
        self.times: StageTimes | None = None
        """Durations of the stages of the newest frame."""

    def _begin_anew(self, reason: ResetReason) -> None:
        """Forget the tracks and the network's state, and count the reset; ids go on."""
        self._complete()
        self.resets_by_reason[reason] += 1
        self._memory = self._new_memory(self._memory.next_id)
        self._state, self._state_was_finite = None, True

    def _new_memory(self, next_id: int) -> TrackSegments | ClassSegments:
        """Create what is remembered of the frames of a video, besides the network's state."""
        if self.task == 'semantic':
            return ClassSegments(self.net.config, self.settings)
        return TrackSegments(self.net.config, self.task, self.settings, next_id, self._constants)

    def push(
        self, image: NDArray[np.uint8], stamp_ns: int, arrival_s: float | None = None
    ) -> Segments:
        """Process the next frame; `push_together` does so for several streams.

        A frame whose stamp or size does not continue the video begins another one: the state and
        the tracks are forgotten, ids go on, and a warning is logged. `Continuity` has the rules.
        A small step back of the stamps counts as no step, and frames of equal stamps as taken at
        the same time.

        The network alone starts again from its initial state, while tracks stay, after a frame
        that left infinite values or NaNs in the state, and after an error of the network.

        Args:
            image: RGB, (H, W, 3) uint8; any strides, need not be writeable.
            stamp_ns: time at which the image was taken, in nanoseconds of any clock.
            arrival_s: time at which it arrived, in seconds of a clock that never jumps; it tells
                a pause of the camera from a wrong stamp. None: not known.

        Returns:
            The segments, in pixels of the image, with the stamp as given.

        Raises:
            ValueError: the image has another shape or type; the stream is as it was before.
            OutlierError: the frame does not continue the video, and outliers are held; the
                stream is as it was before.
        """
        (result,) = push_together([StreamFrame(self, image, stamp_ns, arrival_s)])
        if isinstance(result, Exception):
            raise result
        return result

    @property
    def input_key(self) -> tuple[object, ...]:
        """What decides how an image becomes the network's input; see `Preprocessor.key`."""
        return self._preprocess.key

    def prepare(
        self,
        image: NDArray[np.uint8],
        stamp_ns: int,
        arrival_s: float | None = None,
        is_stamped: bool = True,
    ) -> PreparedFrame:
        """Prepare a frame for the network; the stream stays as it is. See StreamFrame."""
        device = self._preprocess.device
        clock, side = DeviceClock(device), side_stream(device, 'input')
        with side.active():
            clock.mark()
            frame, geometry = self._preprocess(image)
            clock.mark()
        side.hand_over(frame)
        moment = Moment(stamp_ns, geometry.image_size, arrival_s, is_stamped)
        return PreparedFrame(frame, geometry, moment, clock)

    def begin(self, frame: PreparedFrame) -> BegunFrame:
        """Begin a frame; `start` or `lose_state` must follow before the next one.

        Raises:
            OutlierError: the frame is dropped; see `push`.
        """
        if self._pending is not None and self._pending.is_complete:
            self._pending = None  # an error would keep memory of the device
        max_gap_s = max(self.settings.max_gap_s, self.settings.gap_s)
        found = self._continuity.judge(frame.moment, max_gap_s)
        if found is not None:
            _logger.warning(
                '%s%s: the stream starts anew, and ids go on.', self._log_prefix, found.text
            )
            self._begin_anew(found.reason)
        starts_anew = self._state is None
        if self._state is None:
            self._state = self.net.initial_state(1)
        return BegunFrame(frame, self._state, self._continuity.now_ns, starts_anew)

    def lose_state(self) -> None:
        """Start the network's state anew with the next frame; tracks and ids stay."""
        self._state = None

    def start(
        self, frame: BegunFrame, outputs: Outputs, next_state: Tensor, network: DeviceClock
    ) -> PendingFrame:
        """Start the result of the frame that was begun; the next frame may begin at once.

        Args:
            frame: the frame.
            outputs: what the network makes of it, with class_logits (1, Q, K + 1) and mask_logits
                (1, Q, h, w).
            next_state: the network's next state, (1, Q, C).
            network: marks around the step of the network.
        """
        self.outputs, self.next_state = outputs, next_state
        prepared, stamp_ns = frame.prepared, frame.prepared.moment.stamp_ns
        # Infinities and NaNs would spread to all later frames. The device decides, since the host
        # may begin the next frame before it can know.
        is_finite = torch.isfinite(next_state).all()
        norm = torch.linalg.vector_norm(next_state.float(), dim=-1).mean()
        self._state = torch.where(is_finite, next_state, self.net.initial_state(1).to(next_state))

        def build(labels: Labels, times: StageTimes) -> Segments:
            self.times = times
            return Segments(stamp_ns, *labels, self.net.config.num_classes, self.resets)

        measured = measure_outputs(self.net, outputs, prepared.input, prepared.geometry)
        figures = norm[None] if measured is None else torch.cat([norm[None], measured])
        self._pending = PendingFrame(
            self._memory.label(outputs, prepared.geometry, frame.now_ns),
            Download(figures, is_finite),
            FrameClocks(prepared.clock, network, DeviceClock(self.net.device)),
            self._pending,
            partial(self._note_state, frame.starts_anew),
            build,
        )
        return self._pending

    def _note_state(self, started_anew: bool, state: list[NDArray[Any]]) -> None:
        """Note how a frame started, and of the state that it left its norm and if it was dropped.

        Args:
            started_anew: whether the stream gave it the initial state.
            state: the mean norm of the queries in the state, with what `measure_outputs` has
                measured behind it, and whether the state is finite.
        """
        (norm, *measured), is_finite = state[0].tolist(), bool(state[1])
        fault = find_fault(self.net, measured) if measured else ''
        if fault and is_finite:  # else the state is what a warning is about
            _logger.warning('%s%s', self._log_prefix, fault)
        self.state_norm = norm
        self.started_anew = started_anew or not self._state_was_finite
        if not is_finite and self._state_was_finite:  # a network that always overflows warns once
            _logger.warning(
                '%sThe state of the network is not finite: it starts anew, and the tracks '
                'stay. If this comes again, use another precision.',
                self._log_prefix,
            )
        self._state_was_finite = is_finite

    def _complete(self) -> None:
        """Complete the frames that are pending, before what they depend on changes."""
        if self._pending is not None:
            self._pending.result()
