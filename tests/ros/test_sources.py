"""Why no image arrives, as the publishers on a topic tell."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy

from videomt_ros.ros.sources import explain_silence


class Graph:
    """Stands for a node that sees these topics, each with a publisher."""

    def __init__(self, topics: dict[str, str]) -> None:
        self.topics = topics

    def resolve_topic_name(self, name: str) -> str:
        return f'/{name}'

    def get_topic_names_and_types(self) -> list[tuple[str, list[str]]]:
        return [(name, [kind]) for name, kind in self.topics.items()]

    def count_publishers(self, name: str) -> int:
        return 1


def explained(topics: dict[str, str], kinds: tuple[str, ...]) -> str:
    publishers: list[Any] = [
        SimpleNamespace(node_name='driver', node_namespace='/', topic_type=kind) for kind in kinds
    ]
    node = cast(Node, Graph(topics))
    return explain_silence(node, 'image_raw', publishers, ReliabilityPolicy.BEST_EFFORT)


@pytest.mark.parametrize(
    ('kind', 'transport'),
    [
        ('ffmpeg_image_transport_msgs/msg/FFMPEGPacket', 'ffmpeg'),
        ('foxglove_msgs/msg/CompressedVideo', 'foxglove'),
        ('theora_image_transport/msg/Packet', 'theora'),
    ],
)
def test_packets_of_a_video_are_named_with_what_decodes_them(kind, transport):
    text = explained({}, (kind,))
    assert f'/driver publishes {kind} on it, the packets of a video' in text
    assert f'in_transport:={transport} ' in text
    assert f'-r in/{transport}:=/image_raw ' in text


def test_compressed_depth_is_not_offered_as_an_image():
    kind = 'sensor_msgs/msg/CompressedImage'
    assert 'is published' not in explained({'/depth/image/compressedDepth': kind}, ())
    assert '/colour/image/compressed is published' in explained(
        {'/colour/image/compressed': kind, '/depth/image/compressedDepth': kind}, ()
    )
