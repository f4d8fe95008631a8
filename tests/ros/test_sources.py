"""Why no image arrives, as the publishers on a topic tell."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Image

from videomt_ros.ros.sources import SOURCE_TIMEOUT_S, SourceFilter, explain_silence
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


def heard_of(numbers: list[int | None], has_several: bool = True) -> list[bool]:
    subject = SourceFilter()
    return [subject.accepts(Image(), lambda: has_several, 10.0, number) for number in numbers]


def test_like_images_are_told_by_the_numbers_of_their_messages():
    # The second publisher is behind, far ahead, and of equal numbers.
    assert heard_of([50, 3, 51, 4, 53]) == [True, False, True, False, True]
    assert heard_of([3, 5000, 4, 5001, 5]) == [True, False, True, False, True]
    assert heard_of([1, 1, 2, 2, 3, 3]) == [True, False] * 3
    # One that is a little ahead wins once, and stays.
    assert heard_of([1, 5, 2, 6, 3, 7]) == [True, True, False, True, False, True]


def test_the_numbers_of_a_single_publisher_may_begin_again():
    assert all(heard_of([50, 1, 2, 900, 3], has_several=False))
    assert all(heard_of([None, 1, None, 1]))


def test_another_publisher_is_heard_after_a_silence():
    subject = SourceFilter()
    assert subject.accepts(Image(), lambda: True, 10.0, 500)
    assert not subject.accepts(Image(), lambda: True, 10.1, 3)
    assert subject.accepts(Image(), lambda: True, 10.0 + SOURCE_TIMEOUT_S, 4)
    assert not subject.accepts(Image(), lambda: True, 12.1, 502)
