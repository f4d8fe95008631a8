"""One camera of the node: subscription -> mailbox -> the streams of its models -> publishers."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo

from videomt_ros.datasets.stream_clock import StreamClock
from videomt_ros.inference import StreamFrame
from videomt_ros.inference.continuity import STEP_BACK_NS, OutlierError
from videomt_ros.ros.camera_inputs import CameraInputs
from videomt_ros.ros.conversions import FrameError, image_from_msg, stamp_from_msg
from videomt_ros.ros.depth import DepthView
from videomt_ros.ros.health import CameraHealth, ModelHealth, SharedCounts
from videomt_ros.ros.logs import Throttle
from videomt_ros.ros.model_stream import ModelStream
from videomt_ros.ros.models import Model
from videomt_ros.ros.parameters import NodeParameters
from videomt_ros.ros.rate import RateLimit
from videomt_ros.ros.subscription import WARNING_PERIOD_S
from videomt_ros.ros.transports import AnyImage
from videomt_ros.ros.withheld import explain_withheld
from videomt_ros.ros.worker import Mailbox, Worker
from videomt_ros.structures import Segments

_OTHER_CLOCK_S = 600.0
"""Age of a stamp, in seconds, from which it counts as one of another clock, such as a bag's."""


@dataclass(frozen=True, eq=False)  # each is another jump, though several lead to one time
class ClockJump:
    """A jump back of the node's clock, as when a bag loops that a simulated clock follows."""

    clock_ns: int
    """Time after the jump, in nanoseconds."""


@dataclass(frozen=True)
class Received:
    """An image message of a camera, as it was received."""

    camera: CameraStream
    msg: AnyImage
    clock_ns: int
    """Time of the node's clock, in nanoseconds; under use_sim_time that of the simulation."""
    monotonic_s: float
    """Time of the monotonic clock, in seconds, from which the latency is measured."""
    resets: int
    """Number of resets that had been requested when the image was received."""
    clock_jump: ClockJump | None
    """The newest jump of the node's clock when the image was received."""


@dataclass(frozen=True)
class Frame:
    """An image of a camera that is ready for the network."""

    received: Received
    image: NDArray[np.uint8]
    """RGB, (H, W, 3); not to be written to."""
    stamp_ns: int
    """Time of the image on the clock of the stream, in nanoseconds."""
    clock: StreamClock
    """The clock of the stream, if the image is no outlier."""
    decode_ms: float
    """Time that it took to read the pixels from the message."""
    parameters: NodeParameters
    """Parameters of the camera when the network began with the image."""

    def for_streams(self) -> list[StreamFrame]:
        """Get the frame as the stream of each model takes it."""
        received = self.received
        is_stamped = bool(stamp_from_msg(received.msg.header.stamp))
        return [
            StreamFrame(
                part.stream, self.image, self.stamp_ns, received.monotonic_s, is_stamped=is_stamped
            )
            for part in received.camera.parts
        ]


class CameraStream:
    """Segments the images of one camera and publishes the results.

    Images are processed even without subscribers, since the state of the network must follow the
    video, so that a late subscriber gets established ids at once. A message, however, is built
    only for a topic that has subscribers.

    Only the worker's thread uses the streams: it calls `begin`, gives the frame to the networks
    beside those of other cameras, calls `note_start`, and calls `finish` with the results, perhaps
    after the networks were given the next frame. The executor's thread stores new
    parameters and requests to reset, which the worker applies before the next image.
    """

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        models: Sequence[Model],
        parameters: NodeParameters,
        health_of: Callable[[str, str], CameraHealth],
        model_health_of: Callable[[str], ModelHealth],
    ) -> None:
        """Create the streams and their publishers.

        Args:
            node: provides the clock, the logger and the life cycle.
            name: name of the camera, which its topics begin with; empty for the only camera.
            models: models, which all cameras share.
            parameters: the parameters of this camera; see `update`.
            health_of: finds the counts of a camera at a model, by its name and the model's label.
            model_health_of: finds the durations of the stages of a model by its label.
        """
        self.name = name
        """Name of the camera; empty for the only one."""
        self.parts = [
            ModelStream(
                node,
                name,
                model,
                parameters,
                health_of(name, model.label),
                model_health_of(model.label),
            )
            for model in models
        ]
        """The stream of each model."""
        self._counts = SharedCounts([part.health for part in self.parts])
        self._node = node
        self._logger = node.get_logger()
        self._throttle = Throttle()
        self._warnings = Throttle(WARNING_PERIOD_S)
        self._withheld_trouble = ''
        self._parameters = parameters
        self._applied = parameters  # those that the stream has; used by the worker alone
        self._clock = StreamClock()
        self._rate = RateLimit()
        prefix = f'{name}/' if name else ''
        self._inputs = CameraInputs(node, prefix, self._receive, parameters, self._counts)
        self._mailbox: Mailbox[Received] | None = None
        # Held while publishing, so that no earlier result is published after the reply to a reset.
        self._publishing = threading.Lock()
        self._resets = 0
        self._resets_done = 0
        self._clock_jump: ClockJump | None = None
        self._clock_jump_done: ClockJump | None = None
        self._newest_ns = 0  # time of the newest frame that continued the video
        self._is_enabled = True

    @property
    def is_active(self) -> bool:
        """Whether images are processed."""
        return self._inputs.is_open

    def activate(self, worker: Worker[Received]) -> None:
        """Subscribe, and have the worker process the images from now on."""
        self._counts.start()
        self._mailbox = worker.open()
        if self._is_enabled:
            self._listen()

    def deactivate(self) -> None:
        """Unsubscribe; an image that is being processed may still be published."""
        self._inputs.close()
        if self._mailbox is not None:
            if self._mailbox.close() is not None:
                self._counts.count_dropped('stopped')
            self._mailbox = None

    def destroy(self) -> None:
        """Deactivate, and remove the publishers from the node; no result is published any more."""
        self.deactivate()
        with self._publishing:
            self._resets += 1
        for part in self.parts:
            part.destroy()

    def update(self, parameters: NodeParameters) -> None:
        """Use other parameters from the next image on; tracks and ids stay."""
        self._parameters = parameters
        if self.is_active:
            self._follow_switches()

    def reset(self) -> None:
        """Reset the stream before the next image; no earlier result is published from now on."""
        with self._publishing:
            self._resets += 1
        if self._mailbox is not None and self._mailbox.clear() is not None:
            self._counts.count_dropped('stopped')

    @property
    def is_enabled(self) -> bool:
        """Whether images are processed while the node is active."""
        return self._is_enabled

    def enable(self, is_enabled: bool) -> None:
        """Pause the camera, so that it takes no processor time, or resume it.

        No earlier result is published once it is paused. When it is resumed, the video goes on, or
        begins anew if the pause was too long for the stream; in both cases ids go on.
        """
        with self._publishing:
            was_enabled, self._is_enabled = self._is_enabled, is_enabled
        if self._mailbox is None or was_enabled == is_enabled:
            return
        if is_enabled:
            self._listen()
            return
        self._inputs.close()
        if self._mailbox.clear() is not None:
            self._counts.count_dropped('stopped')

    def follow_clock_jump(self, clock_ns: int) -> None:
        """Begin a new video with the images that are received from now on; ids go on.

        Args:
            clock_ns: time of the node's clock, in nanoseconds, to which it has jumped back.
        """
        self._clock_jump = ClockJump(clock_ns)

    def follow_publishers(self) -> None:
        """Adopt the QoS of the publishers, and warn of what is wrong with them."""
        if self.is_active:
            self._follow_switches()
        self._inputs.follow_publishers(self._parameters)
        self._withheld_trouble = explain_withheld(
            self.parts[0].health, self._parameters, self.silent_s
        )
        if self._withheld_trouble and self._warnings.allows(self._withheld_trouble):
            prefix = f'Camera {self.name}: ' if self.name else ''
            self._logger.warning(f'{prefix}{self._withheld_trouble}')

    @property
    def troubles(self) -> list[str]:
        """What is wrong with the publishers of images and depth, with the remedies."""
        own = [self._withheld_trouble] if self._withheld_trouble else []
        return self._inputs.troubles + own

    @property
    def silent_s(self) -> float | None:
        """Time in seconds for which no image came; None while none is expected."""
        return self._inputs.silent_s

    def _listen(self) -> None:
        """Subscribe to what the camera publishes."""
        self._inputs.open()
        self._follow_switches()

    def _follow_switches(self) -> None:
        """Publish the labels and listen to camera_info and depth, where these are wanted."""
        parameters = self._parameters
        for part in self.parts:
            part.publish_labels(parameters)
        # Depth images are large, so they are received only while somebody uses them.
        wants_depth = parameters.depth and any(part.reads_depth(parameters) for part in self.parts)
        self._inputs.listen(parameters.publish_camera_info or wants_depth, wants_depth)

    def _receive(self, msg: AnyImage) -> None:
        self._counts.count_received()
        clock_ns = self._node.get_clock().now().nanoseconds
        stamp_ns = stamp_from_msg(msg.header.stamp) or clock_ns
        if not self._rate.allows(stamp_ns, self._parameters.max_rate_hz):
            self._counts.count_dropped('rate')
            return
        received = Received(self, msg, clock_ns, time.monotonic(), self._resets, self._clock_jump)
        if self._mailbox is None:
            self._counts.count_dropped('stopped')
        elif self._mailbox.put(received) is not None:
            self._counts.count_dropped('replaced')

    def begin(self, received: Received) -> Frame | None:
        """Make an image ready for the network; runs in the worker's thread.

        Returns:
            The frame; None if it is not to be processed, which has been counted.
        """
        if received.resets != self._resets_done:
            for part in self.parts:
                part.stream.reset()
            self._clock = StreamClock()
            self._resets_done = received.resets
        jump = received.clock_jump
        if jump is not None and jump is not self._clock_jump_done:
            self._clock_jump_done = jump
            self._clock = StreamClock()
            # Unless its stamps have gone back before the clock did, and it has begun anew by that.
            if self._newest_ns > jump.clock_ns + STEP_BACK_NS:
                for part in self.parts:
                    part.stream.restart('clock_jump')
        parameters = self._parameters
        if parameters is not self._applied:
            for part in self.parts:
                part.update(parameters)
            self._applied = parameters
        stamp_ns = stamp_from_msg(received.msg.header.stamp)
        if parameters.stale_after_s and stamp_ns:
            age_s = (self._node.get_clock().now().nanoseconds - stamp_ns) * 1e-9
            if age_s > parameters.stale_after_s:
                self._counts.count_dropped('stale')
                return None
        self._inputs.expect(received.msg.header)
        begin_s = time.perf_counter()
        try:
            image = image_from_msg(received.msg, parameters.grey_range())
        except FrameError as error:
            self.fail(error)
            return None
        # For the stream only: the results carry the header of the image unchanged.
        clock = copy.copy(self._clock)
        stamp_ns = clock.time_of(stamp_ns, received.clock_ns, received.monotonic_s)
        decode_ms = (time.perf_counter() - begin_s) * 1e3
        return Frame(received, image, stamp_ns, clock, decode_ms, parameters)

    def note_start(self, frame: Frame, errors: Sequence[Exception | None]) -> None:
        """Note that the networks were given a frame; runs in the worker's thread.

        Args:
            frame: the frame.
            errors: why the network of each model does not process it; None if it does.
        """
        if not all(isinstance(error, OutlierError) for error in errors):
            self._clock = frame.clock  # later images without stamps go on from this one
        if None in errors:
            self._newest_ns = frame.stamp_ns

    def finish(self, frame: Frame, results: Sequence[Segments | Exception]) -> None:
        """Publish the results of a frame, or count failures; runs in the worker's thread.

        Args:
            frame: the frame.
            results: what each model makes of it, or the error that it failed with.
        """
        header = frame.received.msg.header
        info = self._inputs.camera_info_of(header)
        size, tolerance_s = frame.image.shape[:2], frame.parameters.depth_tolerance_s
        # Looked for by the first message of any model that needs it, and only then.
        find_depth = cache(lambda: self._inputs.find_depth(header, size, info, tolerance_s))
        for part, result in zip(self.parts, results, strict=True):
            if isinstance(result, Exception):
                self._fail_at(part, result)
                continue
            try:
                self._publish(part, frame, result, info, find_depth)
            except Exception as error:  # of this model alone
                self._fail_at(part, error)

    def _publish(
        self,
        part: ModelStream,
        frame: Frame,
        segments: Segments,
        info: CameraInfo | None,
        find_depth: Callable[[], DepthView | None],
    ) -> None:
        """Publish the result of one model."""
        begin_s = time.perf_counter()
        received, parameters = frame.received, frame.parameters
        messages = part.build(
            frame.image,
            received.msg.header,
            segments,
            parameters,
            info if parameters.publish_camera_info else None,
            find_depth,
        )
        with self._publishing:
            if received.resets != self._resets or not self._is_enabled:
                part.health.count_dropped('stopped')
                return
            for publisher, message in messages:
                publisher.publish(message)
        # Not of a result before a reset, since ids begin again.
        part.note_result(segments, (time.monotonic() - received.monotonic_s) * 1e3)
        self._measure(part, frame, (time.perf_counter() - begin_s) * 1e3)

    def _measure(self, part: ModelStream, frame: Frame, publish_ms: float) -> None:
        """Keep the durations of the stages of a frame whose results were published."""
        durations_ms = {'decode': frame.decode_ms, 'publish': publish_ms}
        times = part.stream.times
        if times is not None:
            durations_ms['prepare'], durations_ms['network'], durations_ms['result'] = times
        stamp_ns = stamp_from_msg(frame.received.msg.header.stamp)
        age_s = (self._node.get_clock().now().nanoseconds - stamp_ns) * 1e-9
        if 0 <= age_s < _OTHER_CLOCK_S:
            durations_ms['stamp_to_result'] = age_s * 1e3
        part.model_health.count(**durations_ms)

    def fail(self, error: Exception) -> None:
        """Count and log an image that no model has processed; runs in the worker's thread."""
        if not self._node.context.ok():
            return  # publishing failed because the process is ending
        name = self.name
        if isinstance(error, FrameError):
            self._counts.count_rejected(error.kind, str(error))
            self._warn(name, f'Image rejected: {error}')
        else:
            self._counts.count_failed(f'{type(error).__name__}: {error}')
            self._log_failure(name, error)

    def _fail_at(self, part: ModelStream, error: Exception) -> None:
        """Count and log an image that one model has not processed."""
        if not self._node.context.ok():
            return
        if isinstance(error, OutlierError):
            part.health.count_dropped('outlier')
            self._warn(self.name, str(error))  # the same for all models
        else:
            part.health.count_failed(f'{type(error).__name__}: {error}')
            self._log_failure(part.name, error)

    def _warn(self, name: str, text: str) -> None:
        text = f'Camera {name}: {text}' if name else text
        if self._throttle.allows(text):
            self._logger.warning(text)

    def _log_failure(self, name: str, error: Exception) -> None:
        text = f'Image not processed: {type(error).__name__}: {error}'
        text = f'Camera {name}: {text}' if name else text
        if self._throttle.allows(text):
            self._logger.error(text)

    @property
    def failed_in_row(self) -> tuple[int, str]:
        """Number of images in a row on which all models failed, and the newest error."""
        health = min((part.health for part in self.parts), key=lambda one: one.failed_in_row)
        return health.failed_in_row, health.last_error
