"""One image topic: subscription -> mailbox -> VideoStream -> publishers."""

from __future__ import annotations

import threading
import time
from collections.abc import Set
from dataclasses import dataclass

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import Image

from videomt_ros.datasets.stream_clock import StreamClock
from videomt_ros.inference import VideoStream
from videomt_ros.model import VidEoMT
from videomt_ros.ros.conversions import FrameError, image_from_msg, stamp_from_msg
from videomt_ros.ros.diagnostics import Health
from videomt_ros.ros.outputs import OutputTopics
from videomt_ros.ros.parameters import NodeParameters
from videomt_ros.ros.worker import Worker

SILENCE_S = 5.0
"""Without an image for so long, a line in the log says where the node listens."""


@dataclass(frozen=True)
class _Received:
    """An image, and when it came."""

    msg: Image
    clock_ns: int
    """By the node's clock, which is the simulation's under use_sim_time."""
    monotonic_s: float
    resets: int
    """How often a reset had been asked for by then."""


def best_reliability(
    present: ReliabilityPolicy, offers: Set[ReliabilityPolicy], may_rise: bool
) -> ReliabilityPolicy:
    """The reliability to ask the cameras for.

    A reliable subscription hears reliable cameras alone, and loses no image of theirs; the other
    hears all. Each change loses images, so one that hears somebody is kept.

    Args:
        present: what is asked for now.
        offers: what the cameras on the topic offer; empty where there are none yet.
        may_rise: whether best effort may become reliable where all cameras are.
    """
    if present == ReliabilityPolicy.RELIABLE:
        hears_somebody = not offers or ReliabilityPolicy.RELIABLE in offers
        return present if hears_somebody else ReliabilityPolicy.BEST_EFFORT
    all_reliable = offers == {ReliabilityPolicy.RELIABLE}
    return ReliabilityPolicy.RELIABLE if all_reliable and may_rise else present


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
        self._topic: str = node.resolve_topic_name('image_raw')
        self._subscription: Subscription | None = None
        self._reliability = ReliabilityPolicy.BEST_EFFORT
        self._was_lowered = False
        self._worker: Worker[_Received] | None = None
        self._active_since_s = 0.0
        # Results go out under this lock, so that none of the old stream follows a reset's reply.
        self._publishing = threading.Lock()
        self._resets = 0
        self._resets_done = 0

    @property
    def is_active(self) -> bool:
        """Whether images are processed."""
        return self._subscription is not None

    def activate(self) -> None:
        """Subscribe, and process what comes."""
        self._active_since_s = time.monotonic()
        self._reliability, self._was_lowered = ReliabilityPolicy.BEST_EFFORT, False
        self._worker = Worker(self._process, self._failed, name='inference')
        self._subscribe(self._wanted_reliability(is_silent=True))

    def deactivate(self, timeout_s: float | None = None) -> None:
        """Unsubscribe, and wait for the image that is being processed, at most so long."""
        self._unsubscribe()
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

    def look_after_input(self) -> None:
        """Follow the cameras' QoS, and if no image has come for a while, say where it listens."""
        if self._subscription is None:
            return
        silent_s = time.monotonic() - self._active_since_s
        since_image = self._health.seconds_since_image()
        if since_image is not None:
            silent_s = min(silent_s, since_image)
        is_silent = silent_s >= SILENCE_S
        reliability = self._wanted_reliability(is_silent)
        if reliability != self._reliability:
            self._was_lowered = reliability == ReliabilityPolicy.BEST_EFFORT
            self._unsubscribe()
            self._subscribe(reliability)
        if not is_silent:
            return
        publishers = ', '.join(
            f'{info.node_name} ({info.topic_type}, {info.qos_profile.reliability.name.lower()})'
            for info in self._publishers()
        )
        self._logger.warning(
            f'No image for {silent_s:.0f} s on {self._topic}, whose publishers are: '
            f'{publishers or "none. Is the topic remapped, and the camera running?"}',
            throttle_duration_sec=10.0,
        )

    def _publishers(self) -> list[TopicEndpointInfo]:
        return self._node.get_publishers_info_by_topic(self._topic)

    def _wanted_reliability(self, is_silent: bool) -> ReliabilityPolicy:
        setting = self._parameters.input_reliability
        if setting != 'auto':
            return ReliabilityPolicy[setting.upper()]
        offers = {info.qos_profile.reliability for info in self._publishers()}
        return best_reliability(self._reliability, offers, is_silent or not self._was_lowered)

    def _subscribe(self, reliability: ReliabilityPolicy) -> None:
        self._reliability = reliability
        qos = QoSProfile(depth=self._parameters.input_depth, reliability=reliability)
        self._subscription = self._node.create_subscription(Image, 'image_raw', self._receive, qos)
        self._logger.info(f'Listening to {self._topic}, {reliability.name.lower()}.')

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

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
