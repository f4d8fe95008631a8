"""One image topic: subscription -> mailbox -> VideoStream -> publishers."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image

from videomt_ros.datasets.stream_clock import StreamClock
from videomt_ros.inference import VideoStream
from videomt_ros.model import VidEoMT
from videomt_ros.ros.conversions import FrameError, image_from_msg, stamp_from_msg
from videomt_ros.ros.diagnostics import Health
from videomt_ros.ros.outputs import OutputTopics
from videomt_ros.ros.parameters import NodeParameters
from videomt_ros.ros.subscription import ImageSubscription
from videomt_ros.ros.worker import Worker


@dataclass(frozen=True)
class _Received:
    """An image, and when it came."""

    msg: Image
    clock_ns: int
    """By the node's clock, which is the simulation's under use_sim_time."""
    monotonic_s: float
    resets: int
    """How often a reset had been asked for by then."""


class CameraStream:
    """One camera of the node.

    The network steps with or without subscribers, since its state must follow the video: whoever
    subscribes late finds ids that last. Outputs alone are left out while nobody listens.

    The stream belongs to the worker's thread. The executor's thread never touches it: it leaves
    new parameters and requests to reset, which the worker obeys before its next image.
    """

    def __init__(
        self, node: LifecycleNode, net: VidEoMT, parameters: NodeParameters, health: Health
    ) -> None:
        """Create the stream and its publishers.

        Args:
            node: whose clock, logger and life cycle it follows.
            net: may be shared with other channels.
            parameters: as they are now; see `update`.
            health: hears what became of each image.
        """
        self._node = node
        self._logger = node.get_logger()
        self._parameters = parameters
        self._applied = parameters
        self._stream = VideoStream(net, parameters.stream_task(), **parameters.stream_settings())
        self._clock = StreamClock()
        self._outputs = OutputTopics(node, net.config.name)
        self._health = health
        self._input = ImageSubscription(
            node, self._receive, parameters.input_reliability, parameters.input_depth
        )
        self._worker: Worker[_Received] | None = None
        # Results go out under this lock, so that none of the old stream follows a reset's reply.
        self._publishing = threading.Lock()
        self._resets = 0
        self._resets_done = 0

    @property
    def is_active(self) -> bool:
        """Whether images are processed."""
        return self._input.is_open

    def activate(self) -> None:
        """Subscribe, and process what comes."""
        self._worker = Worker(self._process, self._failed, name='inference')
        self._input.open()

    def deactivate(self, timeout_s: float | None = None) -> None:
        """Unsubscribe, and wait for the image that is being processed, at most so long."""
        self._input.close()
        if self._worker is not None:
            if self._worker.stop(timeout_s) is not None:
                self._health.count_dropped()
            self._worker = None

    def destroy(self, timeout_s: float | None = None) -> None:
        """Deactivate, and remove the publishers from the node.

        Args:
            timeout_s: wait so long for the image that is being processed; what comes out of it
                later is not published.
        """
        self.deactivate(timeout_s)
        with self._publishing:
            self._resets += 1
        self._outputs.destroy()

    def update(self, parameters: NodeParameters) -> None:
        """Use these parameters from the next image on; tracks go on."""
        self._parameters = parameters

    def reset(self) -> None:
        """Start afresh with the next image; nothing of the stream before is published any more."""
        with self._publishing:
            self._resets += 1
        if self._worker is not None and self._worker.clear() is not None:
            self._health.count_dropped()

    def follow_cameras(self) -> None:
        """Adopt the cameras' QoS, and log where the node listens if no image came for a while."""
        self._input.follow_cameras()

    def _receive(self, msg: Image) -> None:
        self._health.count_received()
        clock_ns = self._node.get_clock().now().nanoseconds
        received = _Received(msg, clock_ns, time.monotonic(), self._resets)
        if self._worker is None or self._worker.put(received) is not None:
            self._health.count_dropped()

    def _process(self, received: _Received) -> None:
        """One image, in the worker's thread."""
        if received.resets != self._resets_done:
            self._stream.reset()
            self._resets_done = received.resets
        parameters = self._parameters
        if parameters is not self._applied:
            self._stream.update(**parameters.stream_settings())
            self._applied = parameters

        image = image_from_msg(received.msg)
        # The header that goes out is untouched.
        stamp_ns = self._clock.time_of(
            stamp_from_msg(received.msg.header.stamp), received.clock_ns, received.monotonic_s
        )
        segments = self._stream.push(image, stamp_ns)
        messages = self._outputs.build(image, received.msg.header, segments, parameters)
        with self._publishing:
            if received.resets != self._resets:
                self._health.count_dropped()
                return
            for publisher, message in messages:
                publisher.publish(message)
        self._health.count_processed((time.monotonic() - received.monotonic_s) * 1e3)

    def _failed(self, received: _Received, error: Exception) -> None:
        """An image that could not be processed, in the worker's thread."""
        if not self._node.context.ok():
            return  # the process is being ended, and publishing with it
        if isinstance(error, FrameError):
            self._health.count_rejected(str(error))
            self._logger.warning(f'Image rejected: {error}', throttle_duration_sec=5.0)
        else:
            reason = f'{type(error).__name__}: {error}'
            self._health.count_failed(reason)
            self._logger.error(f'Image not processed: {reason}', throttle_duration_sec=5.0)
