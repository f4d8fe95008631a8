"""The subscription to the images, whose QoS follows what the cameras offer."""

from __future__ import annotations

import time
from collections.abc import Callable, Set

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import Image

from videomt_ros.ros.conversions import stamp_from_msg
from videomt_ros.ros.health import CameraHealth
from videomt_ros.ros.logs import Throttle
from videomt_ros.ros.losses import Losses
from videomt_ros.ros.sources import IMAGE_TYPE, SourceFilter, explain_silence

SILENCE_S = 5.0
"""Time without an image, in seconds, after which another reliability is tried."""
WARNING_PERIOD_S = 10.0
"""Shortest time, in seconds, between two warnings of one kind."""


def best_reliability(
    present: ReliabilityPolicy,
    offers: Set[ReliabilityPolicy],
    is_silent: bool,
    was_lowered: bool = False,
) -> ReliabilityPolicy:
    """Choose the reliability to request from the cameras.

    A reliable subscription is matched with reliable publishers only, and loses none of their
    images; a best-effort one is matched with all publishers. Each change loses images, so a
    subscription that hears a publisher is kept.

    Args:
        present: the reliability requested now.
        offers: reliabilities that the publishers on the topic offer; empty if there are none yet.
        is_silent: whether no image came for a while. A reliable publisher may then be idle, or
            dead and still listed, beside a best-effort camera.
        was_lowered: whether it was reliable before. It then becomes so again only in silence.
    """
    if present == ReliabilityPolicy.RELIABLE:
        is_deaf = ReliabilityPolicy.RELIABLE not in offers or is_silent
        has_others = ReliabilityPolicy.BEST_EFFORT in offers
        return ReliabilityPolicy.BEST_EFFORT if has_others and is_deaf else present
    all_reliable = offers == {ReliabilityPolicy.RELIABLE}
    may_rise = is_silent or not was_lowered
    return ReliabilityPolicy.RELIABLE if all_reliable and may_rise else present


class ImageSubscription:
    """The subscription to the images of one camera, which is reliable if all publishers are."""

    def __init__(
        self,
        node: LifecycleNode,
        topic: str,
        receive: Callable[[Image], None],
        ignore: Callable[[Image], None],
        reliability: str,
        depth: int,
        health: CameraHealth,
    ) -> None:
        """Describe the subscription; `open` creates it.

        Args:
            node: node on which it is created.
            topic: name of the topic, which a user may have remapped.
            receive: called with each image of the publisher that is heard.
            ignore: called with each image of the others.
            reliability: value of the parameter `input_reliability`: auto, best_effort or reliable.
            depth: number of images that may wait in the middleware.
            health: counts the images that were lost before they arrived.
        """
        self._node = node
        self._logger = node.get_logger()
        self._receive = receive
        self._ignore = ignore
        self._setting = reliability
        self._depth = depth
        self._name = topic
        self._topic: str = node.resolve_topic_name(topic)
        self._subscription: Subscription | None = None
        self._reliability = ReliabilityPolicy.BEST_EFFORT
        self._was_lowered = False
        self._silent_since_s = 0.0
        self._sources = SourceFilter()
        self._losses = Losses(health)
        self._publishers: list[TopicEndpointInfo] = []
        self._throttle = Throttle(WARNING_PERIOD_S)
        self.troubles: list[str] = []
        """What is wrong with the publishers, one sentence or more each, with the remedy."""

    @property
    def is_open(self) -> bool:
        """Whether images are received."""
        return self._subscription is not None

    @property
    def silent_s(self) -> float | None:
        """Time in seconds for which no image came; None without a subscription."""
        return time.monotonic() - self._silent_since_s if self.is_open else None

    def open(self) -> None:
        """Subscribe, with the reliability that suits the present publishers."""
        self._silent_since_s = time.monotonic()
        self._reliability, self._was_lowered = ReliabilityPolicy.BEST_EFFORT, False
        self._sources = SourceFilter()
        self._list_publishers()
        self._subscribe(self._wanted_reliability(is_silent=False))

    def close(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
        self.troubles = []

    def follow_publishers(self, warn_silence_s: float) -> None:
        """Adopt the QoS of the publishers, and look for what is wrong with them.

        Args:
            warn_silence_s: time in seconds without an image after which this is told; 0: never.
        """
        if self._subscription is None:
            return
        silent_s = time.monotonic() - self._silent_since_s
        is_silent = silent_s >= SILENCE_S
        self._list_publishers()
        reliability = self._wanted_reliability(is_silent)
        if reliability != self._reliability:
            self._was_lowered = reliability == ReliabilityPolicy.BEST_EFFORT
            self._node.destroy_subscription(self._subscription)
            self._subscribe(reliability)
        several = self._sources.explain(self._topic, self._publishers)
        self.troubles = [text for text in (several, self._losses.explain()) if text]
        if warn_silence_s and silent_s >= warn_silence_s:
            listed = self._node.get_publishers_info_by_topic(self._topic)
            reason = explain_silence(self._node, self._name, listed, self._reliability)
            self.troubles.append(f'No image for {silent_s:.0f} s on {self._topic}: {reason}')
        for trouble in self.troubles:
            if self._throttle.allows(trouble):
                self._logger.warning(trouble)

    def _list_publishers(self) -> None:
        """List the publishers of images; others may have the topic with another type."""
        listed = self._node.get_publishers_info_by_topic(self._topic)
        self._publishers = [info for info in listed if info.topic_type == IMAGE_TYPE]

    def _has_several(self) -> bool:
        self._list_publishers()  # the newest camera may be the second
        return len(self._publishers) > 1

    def _wanted_reliability(self, is_silent: bool) -> ReliabilityPolicy:
        if self._setting != 'auto':
            return ReliabilityPolicy[self._setting.upper()]
        offers = {info.qos_profile.reliability for info in self._publishers}
        return best_reliability(self._reliability, offers, is_silent, self._was_lowered)

    def _subscribe(self, reliability: ReliabilityPolicy) -> None:
        self._reliability = reliability
        qos = QoSProfile(depth=self._depth, reliability=reliability)
        self._subscription = self._losses.subscribe(self._node, Image, self._name, self._take, qos)
        self._logger.info(f'Listening to {self._topic}, {reliability.name.lower()}.')

    def _take(self, msg: Image) -> None:
        now_s = time.monotonic()
        self._silent_since_s = now_s
        if self._sources.accepts(msg, self._has_several, now_s):
            self._losses.heard(stamp_from_msg(msg.header.stamp))
            self._receive(msg)
        else:
            self._ignore(msg)
