"""One camera of the node: subscription -> mailbox -> VideoStream -> publishers."""

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
from videomt_ros.ros.logs import Throttle
from videomt_ros.ros.outputs import OutputTopics
from videomt_ros.ros.parameters import NodeParameters
from videomt_ros.ros.subscription import ImageSubscription
from videomt_ros.ros.worker import Worker


@dataclass(frozen=True)
class _Received:
    """An image message and the time at which it was received."""

    msg: Image
    clock_ns: int
    """Time of the node's clock, in nanoseconds; under use_sim_time that of the simulation."""
    monotonic_s: float
    """Time of the monotonic clock, in seconds, from which the latency is measured."""
    resets: int
    """Number of resets that had been requested when the image was received."""


class CameraStream:
    """Segments the images of one camera and publishes the results.

    Images are processed even without subscribers, since the state of the network must follow the
    video, so that a late subscriber gets established ids at once. A message, however, is built
    only for a topic that has subscribers.

    Only the worker's thread uses the VideoStream. The executor's thread stores new parameters and
    requests to reset, which the worker applies before its next image.
    """

    def __init__(
        self, node: LifecycleNode, net: VidEoMT, parameters: NodeParameters, health: Health
    ) -> None:
        """Create the stream and its publishers.

        Args:
            node: provides the clock, the logger and the life cycle.
            net: network, which cameras may share.
            parameters: the node's parameters; see `update`.
            health: counts what becomes of the images.
        """
        self._node = node
        self._logger = node.get_logger()
        self._throttle = Throttle()
        self._parameters = parameters
        self._applied = parameters  # those that the stream has; used by the worker alone
        self._stream = VideoStream(net, parameters.stream_task(), **parameters.stream_settings())
        self._clock = StreamClock()
        self._outputs = OutputTopics(node, net.config.name)
        self._health = health
        self._input = ImageSubscription(
            node,
            self._receive,
            self._ignore,
            parameters.input_reliability,
            parameters.input_depth,
        )
        self._worker: Worker[_Received] | None = None
        # Held while publishing, so that no earlier result is published after the reply to a reset.
        self._publishing = threading.Lock()
        self._resets = 0
        self._resets_done = 0

    @property
    def is_active(self) -> bool:
        """Whether images are processed."""
        return self._input.is_open

    def activate(self) -> None:
        """Subscribe, and process the images from now on."""
        self._worker = Worker(self._process, self._failed, name='inference')
        self._input.open()

    def deactivate(self, timeout_s: float | None = None) -> None:
        """Unsubscribe, and wait until the image that is being processed is finished.

        Args:
            timeout_s: longest time to wait; None: no limit.
        """
        self._input.close()
        if self._worker is not None:
            if self._worker.stop(timeout_s) is not None:
                self._health.count_dropped()
            self._worker = None

    def destroy(self, timeout_s: float | None = None) -> None:
        """Deactivate, and remove the publishers from the node.

        Args:
            timeout_s: longest time to wait for the image that is being processed; None: no limit.
                An image that takes longer is not published.
        """
        self.deactivate(timeout_s)
        with self._publishing:
            self._resets += 1
        self._outputs.destroy()

    def update(self, parameters: NodeParameters) -> None:
        """Use other parameters from the next image on; tracks and ids stay."""
        self._parameters = parameters

    def reset(self) -> None:
        """Reset the stream before the next image; no earlier result is published from now on."""
        with self._publishing:
            self._resets += 1
        if self._worker is not None and self._worker.clear() is not None:
            self._health.count_dropped()

    def follow_cameras(self) -> None:
        """Adopt the QoS of the publishers, and warn of what is wrong with them."""
        self._input.follow_cameras()

    @property
    def troubles(self) -> list[str]:
        """What is wrong with the publishers of the images, with the remedies."""
        return self._input.troubles

    def _ignore(self, msg: Image) -> None:
        """Count an image of a publisher that is not heard."""
        del msg
        self._health.count_received()
        self._health.count_dropped()

    def _receive(self, msg: Image) -> None:
        self._health.count_received()
        clock_ns = self._node.get_clock().now().nanoseconds
        received = _Received(msg, clock_ns, time.monotonic(), self._resets)
        if self._worker is None or self._worker.put(received) is not None:
            self._health.count_dropped()

    def _process(self, received: _Received) -> None:
        """Process and publish one image; runs in the worker's thread."""
        if received.resets != self._resets_done:
            self._stream.reset()
            self._resets_done = received.resets
        parameters = self._parameters
        if parameters is not self._applied:
            self._stream.update(**parameters.stream_settings())
            self._applied = parameters

        image = image_from_msg(received.msg)
        # For the stream only: the results carry the header of the image unchanged.
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
        """Count and log an image that could not be processed; runs in the worker's thread."""
        if not self._node.context.ok():
            return  # publishing failed because the process is ending
        if isinstance(error, FrameError):
            self._health.count_rejected(str(error))
            text = f'Image rejected: {error}'
            if self._throttle.allows(text):
                self._logger.warning(text)
        else:
            reason = f'{type(error).__name__}: {error}'
            self._health.count_failed(reason)
            text = f'Image not processed: {reason}'
            if self._throttle.allows(text):
                self._logger.error(text)
