"""The subscription to the images, whose QoS follows what the cameras offer."""

from __future__ import annotations

import time
from collections.abc import Callable, Set

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

from videomt_ros.ros.conversions import stamp_from_msg
from videomt_ros.ros.health import ImageCounts
from videomt_ros.ros.logs import Throttle
from videomt_ros.ros.losses import Losses
from videomt_ros.ros.parameters import NodeParameters
from videomt_ros.ros.sources import SourceFilter, explain_silence
from videomt_ros.ros.transports import AnyImage, channels, choose_channel

SILENCE_S = 5.0
"""Time without an image, in seconds, after which another reliability or transport is tried."""
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
        receive: Callable[[AnyImage], None],
        ignore: Callable[[AnyImage], None],
        parameters: NodeParameters,
        health: ImageCounts,
    ) -> None:
        """Describe the subscription; `open` creates it.

        Args:
            node: node on which it is created.
            topic: name of the topic, which a user may have remapped.
            receive: called with each image of the publisher that is heard.
            ignore: called with each image of the others.
            parameters: parameters of the camera: `transport` and the QoS.
            health: counts the images that were lost before they arrived.
        """
        self._node = node
        self._logger = node.get_logger()
        self._receive = receive
        self._ignore = ignore
        self._parameters = parameters
        self._name = topic
        topic = node.resolve_topic_name(topic)
        self._channels = channels(topic, parameters.transport)
        self._channel = self._channels[0]
        self._chosen_s = 0.0  # when the channel was chosen
        self._subscription: Subscription | None = None
        self._reliability = ReliabilityPolicy.BEST_EFFORT
        self._was_lowered = False
        self._is_heard = False
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
        self._silent_since_s = self._chosen_s = time.monotonic()
        self._reliability, self._was_lowered = ReliabilityPolicy.BEST_EFFORT, False
        self._sources = SourceFilter()
        self._losses.start()
        self._is_heard = False
        self._channel = choose_channel(
            self._node, self._channels, self._channels[0], is_heard=False, is_silent=False
        )
        self._list_publishers()
        self._subscribe(self._wanted_reliability(is_silent=False))

    def close(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
        self.troubles = []

    def follow_publishers(self, warn_silence_s: float, warn_lost_share: float) -> None:
        """Adopt transport and QoS of the publishers, and look for what is wrong with them.

        Args:
            warn_silence_s: time in seconds without an image after which this is told; 0: never.
            warn_lost_share: share of images, 0..1, above which losses are told; 0: never.
        """
        if self._subscription is None:
            return
        now_s = time.monotonic()
        silent_s = now_s - self._silent_since_s
        is_silent = silent_s >= SILENCE_S
        was_tried = is_silent and now_s - self._chosen_s >= SILENCE_S
        channel = choose_channel(
            self._node, self._channels, self._channel, self._is_heard, was_tried
        )
        is_other = channel != self._channel
        if is_other:
            self._chosen_s = now_s
            self._channel, self._sources, self._is_heard = channel, SourceFilter(), False
            self._reliability, self._was_lowered = ReliabilityPolicy.BEST_EFFORT, False
        self._list_publishers()
        reliability = self._wanted_reliability(is_silent)
        if is_other or reliability != self._reliability:
            self._was_lowered = not is_other and reliability == ReliabilityPolicy.BEST_EFFORT
            self._node.destroy_subscription(self._subscription)
            self._subscribe(reliability)
        several = self._sources.explain(self._channel.topic, self._publishers)
        losses = self._losses.explain(warn_lost_share)
        self.troubles = [text for text in (several, losses) if text]
        if warn_silence_s and silent_s >= warn_silence_s:
            reason = explain_silence(self._node, self._name, self._channel, self._reliability)
            self.troubles.append(
                f'No image for {silent_s:.0f} s on {self._channel.topic}: {reason}'
            )
        for trouble in self.troubles:
            if self._throttle.allows(trouble):
                self._logger.warning(trouble)

    def _list_publishers(self) -> None:
        self._publishers = self._channel.publishers(self._node)

    def _has_several(self) -> bool:
        self._list_publishers()  # the newest camera may be the second
        return len(self._publishers) > 1

    def _wanted_reliability(self, is_silent: bool) -> ReliabilityPolicy:
        setting = self._parameters.input_reliability
        if setting != 'auto':
            return ReliabilityPolicy[setting.upper()]
        offers = {info.qos_profile.reliability for info in self._publishers}
        return best_reliability(self._reliability, offers, is_silent, self._was_lowered)

    def _subscribe(self, reliability: ReliabilityPolicy) -> None:
        self._reliability = reliability
        qos = QoSProfile(depth=self._parameters.input_depth, reliability=reliability)
        topic, kind = self._channel.topic, self._channel.kind
        self._subscription = self._losses.subscribe(self._node, kind, topic, self._take, qos)
        self._logger.info(f'Listening to {topic}, {reliability.name.lower()}.')

    def _take(self, msg: AnyImage, number: int | None = None) -> None:
        """Take an image, with its number among those of its publisher where that is known."""
        now_s = time.monotonic()
        self._silent_since_s, self._is_heard = now_s, True
        if self._sources.accepts(msg, self._has_several, now_s, number):
            self._losses.heard(stamp_from_msg(msg.header.stamp))
            self._receive(msg)
        else:
            self._ignore(msg)
