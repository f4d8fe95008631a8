"""How images arrive: raw, or compressed as image_transport publishes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image

IMAGE_TYPE = 'sensor_msgs/msg/Image'
COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'
AnyImage: TypeAlias = Image | CompressedImage

_KINDS = {IMAGE_TYPE: Image, COMPRESSED_TYPE: CompressedImage}


class Channel(NamedTuple):
    """A topic with the type of its messages."""

    topic: str
    """Full name of the topic."""
    type_name: str
    """IMAGE_TYPE or COMPRESSED_TYPE."""

    @property
    def kind(self) -> type:
        """Class of the messages."""
        return _KINDS[self.type_name]

    def publishers(self, node: Node) -> list[TopicEndpointInfo]:
        """List the publishers of images; others may have the topic with another type."""
        listed = node.get_publishers_info_by_topic(self.topic)
        return [info for info in listed if info.topic_type == self.type_name]


def channels(topic: str, transport: str) -> list[Channel]:
    """List the channels on which images may arrive, the preferred one first.

    Compressed images are on the topic with `/compressed` at its end, as image_transport has it,
    or on the topic itself where a user remapped it there.

    Args:
        topic: full name of the image topic.
        transport: value of the parameter `transport`: auto, raw or compressed.
    """
    compressed = [Channel(topic, COMPRESSED_TYPE)]
    if not topic.endswith('/compressed'):
        compressed.insert(0, Channel(f'{topic}/compressed', COMPRESSED_TYPE))
    return {
        'raw': [Channel(topic, IMAGE_TYPE)],
        'compressed': compressed,
        'auto': [Channel(topic, IMAGE_TYPE), *compressed],
    }[transport]


def choose_channel(
    node: Node, choices: Sequence[Channel], present: Channel, is_heard: bool, is_silent: bool
) -> Channel:
    """Choose the channel to listen to: the first one that is published.

    One that is heard is kept. In silence another one is chosen if a node publishes it that does
    not publish the present one: a camera that is paused offers all of its transports. Several are
    tried in turn, as a node that was killed is listed for a while.

    Args:
        node: node that knows the graph of topics.
        choices: channels by preference, at least one.
        present: channel that is listened to now.
        is_heard: whether an image has come on it.
        is_silent: whether no image came for a while, in which the present one was listened to.
    """
    owners = {
        choice: {(info.node_namespace, info.node_name) for info in choice.publishers(node)}
        for choice in choices
    }
    published = [choice for choice in choices if owners[choice]]
    if present in published:
        place = choices.index(present)
        in_turn = (*choices[place + 1 :], *choices[:place])
        others = [choice for choice in in_turn if owners[choice] - owners[present]]
        return others[0] if is_silent and others else present
    may_return = is_heard and not is_silent  # a camera that restarts
    return published[0] if published and not may_return else present
