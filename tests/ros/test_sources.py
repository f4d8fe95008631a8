"""Why no image arrives, as the publishers on a topic tell."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy

from videomt_ros.ros.sources import explain_silence
from videomt_ros.ros.transports import COMPRESSED_TYPE, IMAGE_TYPE, Channel


class Graph:
    """Stands for a node that sees these topics, each with a publisher."""

    def __init__(self, topics: dict[str, str]) -> None:
        self.topics = topics

    def resolve_topic_name(self, name: str) -> str:
        return f'/{name}'

    def get_topic_names_and_types(self) -> list[tuple[str, list[str]]]:
        return [(name, [kind]) for name, kind in self.topics.items()]

    def get_publishers_info_by_topic(self, name: str) -> list[Any]:
        kinds = [self.topics[name]] if name in self.topics else []
        names = {'node_name': 'driver', 'node_namespace': '/'}
        return [SimpleNamespace(**names, topic_type=kind) for kind in kinds]

    def count_publishers(self, name: str) -> int:
        return 1


def explained(topics: dict[str, str]) -> str:
    channel = Channel('/image_raw', IMAGE_TYPE)
    node = cast(Node, Graph(topics))
    return explain_silence(node, 'image_raw', channel, ReliabilityPolicy.BEST_EFFORT)


@pytest.mark.parametrize(
    ('kind', 'transport'),
    [
        ('ffmpeg_image_transport_msgs/msg/FFMPEGPacket', 'ffmpeg'),
        ('foxglove_msgs/msg/CompressedVideo', 'foxglove'),
        ('theora_image_transport/msg/Packet', 'theora'),
    ],
)
def test_packets_of_a_video_are_named_with_what_decodes_them(kind, transport):
    text = explained({'/image_raw': kind})
    assert f'got /driver ({kind}). These are the packets of a video' in text
    assert f'in_transport:={transport} ' in text
    assert f'-r in/{transport}:=/image_raw ' in text


def test_compressed_depth_is_not_offered_as_an_image():
    assert 'published on' not in explained({'/depth/image/compressedDepth': COMPRESSED_TYPE})
    text = explained(
        {
            '/colour/image/compressed': COMPRESSED_TYPE,
            '/depth/image/compressedDepth': COMPRESSED_TYPE,
        }
    )
    assert 'Images are published on /colour/image: remap image_raw' in text
    assert text.endswith('with transport auto or compressed.')
