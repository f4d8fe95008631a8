"""The publishers on the image topic: why none is heard, and which of several is heard."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence

from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import Image

SOURCE_TIMEOUT_S = 2.0
"""Time in seconds without an image of the source that is heard, after which another one may be."""
IMAGE_TYPE = 'sensor_msgs/msg/Image'
COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'
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
    publishers: Sequence[TopicEndpointInfo],
    reliability: ReliabilityPolicy,
) -> str:
    """Say why no image arrives, and what to do.

    Args:
        node: node that knows the graph of topics.
        name: name of the image topic, before it is remapped.
        publishers: publishers on the topic, of any type.
        reliability: reliability that the subscription requests.
    """
    topic = node.resolve_topic_name(name)
    if not publishers:
        return f'nobody publishes it. {_other_topics(node, name)}'
    readable = [info for info in publishers if info.topic_type == IMAGE_TYPE]
    if not readable:
        compressed = [info for info in publishers if info.topic_type == COMPRESSED_TYPE]
        if compressed:
            return (
                f'{publisher_name(compressed[0])} publishes {COMPRESSED_TYPE} on it, which this '
                f'node does not read. {_republish(topic, f"{topic}/raw")}'
            )
        for info in publishers:
            if transport := _VIDEO_TRANSPORTS.get(info.topic_type):
                return (
                    f'{publisher_name(info)} publishes {info.topic_type} on it, the packets of a '
                    f'video. {_republish(topic, f"{topic}/raw", transport)}'
                )
        wrong = ', '.join(f'{publisher_name(info)} ({info.topic_type})' for info in publishers)
        return f'expected {IMAGE_TYPE} on it, got {wrong}. {_other_topics(node, name)}'
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
        'images" in docs/node.md.'
    )


def _other_topics(node: Node, name: str) -> str:
    """Say where images are published instead, and how to listen there."""
    topic = node.resolve_topic_name(name)
    images, compressed = [], []
    for other, types in sorted(node.get_topic_names_and_types()):
        is_result = '/segmentation/' in other
        if other == topic or is_result or not node.count_publishers(other):
            continue
        if IMAGE_TYPE in types:
            images.append(other)
        elif COMPRESSED_TYPE in types and not other.endswith('/compressedDepth'):
            compressed.append(other)
    if f'{topic}/compressed' in compressed:
        return f'But {topic}/compressed is published. {_republish(f"{topic}/compressed", topic)}'
    if images:
        named = ', '.join(images[:_TOPICS_NAMED])
        return (
            f'Images are published on {named}: remap {name} (`image:={images[0]}` for the '
            f'launch file, `-r {name}:={images[0]}` for the node).'
        )
    if compressed:
        return f'But {compressed[0]} is published. {_republish(compressed[0], topic)}'
    return 'Is the camera running, on this ROS_DOMAIN_ID?'


def _republish(source: str, raw: str, transport: str = 'compressed') -> str:
    return (
        'Decompress it: `ros2 run image_transport republish --ros-args -p in_transport:='
        f'{transport} -p out_transport:=raw -r in/{transport}:={source} -r out:={raw}`, and '
        f'have image_raw be {raw}.'
    )


class SourceFilter:
    """Hears one of several publishers: the one whose images were heard before.

    rclpy does not tell which publisher sent a message. So images count as of one source that are
    alike in frame_id, size and encoding.
    """

    def __init__(self) -> None:
        self._source: tuple[str, int, int, str] | None = None
        self._heard_s = 0.0

    def accepts(self, msg: Image, has_several: Callable[[], bool], now_s: float) -> bool:
        """Whether to process an image.

        Args:
            msg: the image.
            has_several: tells whether the topic has several publishers; a single one may change
                its size at any time. Called only for an image of another source.
            now_s: time of the monotonic clock.
        """
        source = (msg.header.frame_id, msg.width, msg.height, msg.encoding)
        is_heard = source == self._source or now_s - self._heard_s >= SOURCE_TIMEOUT_S
        if not is_heard and has_several():
            return False
        self._source, self._heard_s = source, now_s
        return True

    def explain(self, topic: str, publishers: Sequence[TopicEndpointInfo]) -> str:
        """Say which of several publishers is heard; empty if there are not several."""
        names = sorted(map(publisher_name, publishers))
        if len(names) < 2:
            return ''
        heard = ''
        if self._source is not None:
            frame_id, width, height, encoding = self._source
            heard = (
                f' (now frame_id {reprlib.repr(frame_id)}, {width} x {height}, '
                f'{reprlib.repr(encoding)})'
            )
        twins = len(set(names)) < len(names)
        return (
            f'{len(names)} publishers on {topic}: {", ".join(names)}. Only the source whose image '
            f'came first is heard{heard}; images of another frame_id, size or encoding are '
            f'dropped until it is silent for {SOURCE_TIMEOUT_S:.0f} s, and those alike in all '
            'three make one video. Leave one publisher on the topic.'
            + (' (A publisher that was killed is listed for 20 s or so.)' if twins else '')
        )
