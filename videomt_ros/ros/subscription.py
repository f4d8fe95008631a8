"""The subscription to the images, whose QoS follows what the cameras offer."""

from __future__ import annotations

import time
from collections.abc import Callable, Set

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import Image

SILENCE_S = 5.0
"""Time without an image, in seconds, after which the log lists the publishers on the topic."""


def best_reliability(
    present: ReliabilityPolicy, offers: Set[ReliabilityPolicy], may_rise: bool
) -> ReliabilityPolicy:
    """Choose the reliability to request from the cameras.

    A reliable subscription is matched with reliable publishers only, and loses none of their
    images; a best-effort one is matched with all publishers. Each change loses images, so a
    subscription that is matched with at least one publisher is kept.

    Args:
        present: the reliability requested now.
        offers: reliabilities that the publishers on the topic offer; empty if there are none yet.
        may_rise: whether best effort may become reliable if all publishers are.
    """
    if present == ReliabilityPolicy.RELIABLE:
        is_matched = not offers or ReliabilityPolicy.RELIABLE in offers
        return present if is_matched else ReliabilityPolicy.BEST_EFFORT
    all_reliable = offers == {ReliabilityPolicy.RELIABLE}
    return ReliabilityPolicy.RELIABLE if all_reliable and may_rise else present


class ImageSubscription:
    """The subscription to `image_raw`, which is reliable if all cameras are."""

    def __init__(
        self, node: LifecycleNode, receive: Callable[[Image], None], reliability: str, depth: int
    ) -> None:
        """Describe the subscription; `open` creates it.

        Args:
            node: node on which it is created.
            receive: called with each image.
            reliability: value of the parameter `input_reliability`: auto, best_effort or reliable.
            depth: number of images that may wait in the middleware.
        """
        self._node = node
        self._logger = node.get_logger()
        self._receive = receive
        self._setting = reliability
        self._depth = depth
        self._topic: str = node.resolve_topic_name('image_raw')
        self._subscription: Subscription | None = None
        self._reliability = ReliabilityPolicy.BEST_EFFORT
        self._was_lowered = False
        self._silent_since_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether images are received."""
        return self._subscription is not None

    def open(self) -> None:
        """Subscribe, with the reliability that suits the present publishers."""
        self._silent_since_s = time.monotonic()
        self._reliability, self._was_lowered = ReliabilityPolicy.BEST_EFFORT, False
        self._subscribe(self._wanted_reliability(is_silent=True))

    def close(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def follow_cameras(self) -> None:
        """Adopt the QoS of the publishers, and warn if no image came for a while."""
        if self._subscription is None:
            return
        silent_s = time.monotonic() - self._silent_since_s
        is_silent = silent_s >= SILENCE_S
        reliability = self._wanted_reliability(is_silent)
        if reliability != self._reliability:
            self._was_lowered = reliability == ReliabilityPolicy.BEST_EFFORT
            self.close()
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
        if self._setting != 'auto':
            return ReliabilityPolicy[self._setting.upper()]
        offers = {info.qos_profile.reliability for info in self._publishers()}
        # Once lowered, it rises again only if no image comes, since each change loses images.
        return best_reliability(self._reliability, offers, is_silent or not self._was_lowered)

    def _subscribe(self, reliability: ReliabilityPolicy) -> None:
        self._reliability = reliability
        qos = QoSProfile(depth=self._depth, reliability=reliability)
        self._subscription = self._node.create_subscription(Image, 'image_raw', self._take, qos)
        self._logger.info(f'Listening to {self._topic}, {reliability.name.lower()}.')

    def _take(self, msg: Image) -> None:
        self._silent_since_s = time.monotonic()
        self._receive(msg)
