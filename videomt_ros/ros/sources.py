"""The publishers on the image topic: why none is heard, and which of several is heard."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence

from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage

from videomt_ros.ros.transports import (
    COMPRESSED_TYPE,
    IMAGE_TYPE,
    AnyImage,
    Channel,
)

SOURCE_TIMEOUT_S = 2.0
"""Time in seconds without an image of the source that is heard, after which another one may be."""
_MAX_LOST = 100
"""Largest step of the numbers of messages of one publisher; others in between were lost."""
_READABLE_BY = {IMAGE_TYPE: 'raw', COMPRESSED_TYPE: 'compressed'}
_VIDEO_TRANSPORTS = {
    'ffmpeg_image_transport_msgs/msg/FFMPEGPacket': 'ffmpeg',
    'foxglove_msgs/msg/CompressedVideo': 'foxglove',
    'theora_image_transport/msg/Packet': 'theora',
}
"""Types of packets of a video, and the transport of image_transport that decodes each."""
_TOPICS_NAMED = 5
"""Largest number of topics that a message lists."""


def publisher_name(info: TopicEndpointInfo) -> str:
    """Get the full name of a publisher's node, which is not known in its first moments."""
    if 'UNKNOWN' in info.node_name:
        return 'a node of unknown name'
    return f'{info.node_namespace.rstrip("/")}/{info.node_name}'


def explain_silence(
    node: Node,
    name: str,
    channel: Channel,
    reliability: ReliabilityPolicy,
) -> str:
    """Say why no image arrives, and what to do.

    Args:
        node: node that knows the graph of topics.
        name: name of the image topic, before it is remapped.
        channel: topic and type that the subscription has.
        reliability: reliability that the subscription requests.
    """
    publishers = node.get_publishers_info_by_topic(channel.topic)
    readable = channel.publishers(node)
    if not publishers:
        return f'nobody publishes it. {_other_topics(node, name, channel)}'
    if not readable:
        wrong = ', '.join(f'{publisher_name(info)} ({info.topic_type})' for info in publishers)
        return (
            f'expected {channel.type_name} on it, got {wrong}. '
            f'{_remedy(publishers[0], channel) or _other_topics(node, name, channel)}'
        )
    named = ', '.join(
        f'{publisher_name(info)} ({info.qos_profile.reliability.name.lower()})'
        for info in readable
    )
    offers = {info.qos_profile.reliability for info in readable}
    if reliability == ReliabilityPolicy.RELIABLE and offers == {ReliabilityPolicy.BEST_EFFORT}:
        return (
            f'its QoS is incompatible: input_reliability is reliable, and its publishers are not: '
            f'{named}. Set input_reliability to auto or best_effort.'
        )
    return (
        f'its publishers are silent: {named}. Is the camera paused or dead? If `ros2 topic hz` '
        'counts images, they are too large for the shared memory of the middleware: see "Large '
        'images" in docs/images.md.'
    )


def _remedy(publisher: TopicEndpointInfo, channel: Channel) -> str:
    """Say how messages of another type can be read; empty if they cannot."""
    kind = publisher.topic_type
    if kind in _READABLE_BY:
        return f'Set transport to auto or {_READABLE_BY[kind]}.'
    if kind in _VIDEO_TRANSPORTS:
        transport = _VIDEO_TRANSPORTS[kind]
        return (
            'These are the packets of a video. Decompress it: `ros2 run image_transport republish '
            f'--ros-args -p in_transport:={transport} -p out_transport:=raw '
            f'-r in/{transport}:={channel.topic} -r out:={channel.topic}/raw`, and have image_raw '
            f'be {channel.topic}/raw.'
        )
    return ''


def _other_topics(node: Node, name: str, channel: Channel) -> str:
    """Say where images are published instead, and how to listen there."""
    topic = node.resolve_topic_name(name)
    found: dict[str, list[str]] = {IMAGE_TYPE: [], COMPRESSED_TYPE: []}
    for other, types in sorted(node.get_topic_names_and_types()):
        is_result = '/segmentation/' in other
        if other == channel.topic or is_result or not node.count_publishers(other):
            continue
        if other.endswith('/compressedDepth'):
            continue
        for kind, topics in found.items():
            if kind in types:
                topics.append(other)
    if f'{topic}/compressed' in found[COMPRESSED_TYPE] and channel.type_name == IMAGE_TYPE:
        return f'But {topic}/compressed is published: set transport to auto or compressed.'
    if topic in found[IMAGE_TYPE]:
        return f'But {topic} is published: set transport to auto or raw.'
    found[COMPRESSED_TYPE] = [t.removesuffix('/compressed') for t in found[COMPRESSED_TYPE]]
    images = sorted({*found[IMAGE_TYPE], *found[COMPRESSED_TYPE]})
    if images:
        named = ', '.join(images[:_TOPICS_NAMED])
        only_compressed = images[0] not in found[IMAGE_TYPE]
        hint = ', with transport auto or compressed' if only_compressed else ''
        return (
            f'Images are published on {named}: remap {name} (`image:={images[0]}` for the '
            f'launch file, `-r {name}:={images[0]}` for the node){hint}.'
        )
    if node.count_publishers(channel.topic):  # of another type
        return f'Remap {name} to a topic of images.'
    return 'Is the camera running, on this ROS_DOMAIN_ID?'


class SourceFilter:
    """Hears one of several publishers: the one whose images were heard before.

    rclpy does not tell which publisher sent a message. So images count as of one source that are
    alike in frame_id, size and encoding (compressed ones: in frame_id and format), and whose
    numbers follow on those heard before: DDS counts the messages of each publisher.
    """

    def __init__(self) -> None:
        self._source: tuple[str, str] | None = None
        self._number: int | None = None
        self._heard_s = 0.0

    def accepts(
        self,
        msg: AnyImage,
        has_several: Callable[[], bool],
        now_s: float,
        number: int | None = None,
    ) -> bool:
        """Whether to process an image.

        Args:
            msg: the image.
            has_several: tells whether the topic has several publishers; a single one may change
                its size at any time. Called only for an image of another source.
            now_s: time of the monotonic clock.
            number: number of the message among those of its publisher; None: not known.
        """
        if isinstance(msg, CompressedImage):
            source = (msg.header.frame_id, msg.format)
        else:
            source = (msg.header.frame_id, f'{msg.width} x {msg.height} {msg.encoding}')
        is_heard = source == self._source and self._follows(number)
        is_heard |= now_s - self._heard_s >= SOURCE_TIMEOUT_S
        if not is_heard and has_several():
            return False
        self._source, self._number, self._heard_s = source, number, now_s
        return True

    def _follows(self, number: int | None) -> bool:
        """Whether a message may be of the publisher of the newest one, by its number."""
        if number is None or self._number is None:
            return True
        return 0 < number - self._number <= _MAX_LOST

    def explain(self, topic: str, publishers: Sequence[TopicEndpointInfo]) -> str:
        """Say which of several publishers is heard; empty if there are not several."""
        names = sorted(map(publisher_name, publishers))
        if len(names) < 2:
            return ''
        heard = ''
        if self._source is not None:
            frame_id, what = map(reprlib.repr, self._source)
            heard = f' (now frame_id {frame_id}, {what})'
        twins = len(set(names)) < len(names)
        alike = '' if self._number is not None else ', and those alike in all three make one video'
        return (
            f'{len(names)} publishers on {topic}: {", ".join(names)}. Only the source whose image '
            f'came first is heard{heard}; images of others, told by frame_id, size, encoding and '
            f'the number of the message, are dropped until it is silent for '
            f'{SOURCE_TIMEOUT_S:.0f} s{alike}. Leave one publisher on the topic.'
            + (' (A publisher that was killed is listed for 20 s or so.)' if twins else '')
        )
