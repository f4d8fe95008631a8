"""What is published, and that no message is built without a subscriber."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

import rclpy
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from tests.ros.node_process import new_domain, wait_for
from videomt_ros.msg import TrackArray
from videomt_ros.ros.outputs import OutputTopics
from videomt_ros.ros.parameters import NodeParameters
from videomt_ros.structures import Segments

pytestmark = pytest.mark.ros
KINDS = {'tracks': TrackArray, 'instances': Image, 'semantic': Image, 'overlay': Image}
IMAGE = np.zeros((4, 6, 3), np.uint8)


@pytest.fixture
def node():
    context = Context()
    rclpy.init(context=context, domain_id=new_domain())
    node = LifecycleNode('segmenter', context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


def build(outputs: OutputTopics, num_classes: int = 3, **switches: bool) -> dict[str, object]:
    """Messages by the last part of their topic."""
    segments = Segments(0, np.zeros((4, 6), np.uint16), (), num_classes)
    messages = outputs.build(IMAGE, Header(), segments, NodeParameters(**switches))
    return {publisher.topic_name.split('/')[-1]: message for publisher, message in messages}


@pytest.mark.parametrize('listened', [[], *([name] for name in KINDS), list(KINDS)])
def test_only_what_somebody_listens_to_is_built(node, listened):
    outputs = OutputTopics(node, '', 'random')
    subscriptions = [
        node.create_subscription(KINDS[name], f'segmentation/{name}', lambda msg: None, 1)
        for name in listened
    ]
    wait_for(lambda: len(build(outputs)) == len(subscriptions), 'the subscribers')
    assert set(build(outputs)) == set(listened)
    for name in listened:
        assert name not in build(outputs, **{f'publish_{name}': False})


def test_many_classes_need_a_wider_label_image(node):
    outputs = OutputTopics(node, '', 'random')
    node.create_subscription(Image, 'segmentation/semantic', lambda msg: None, 1)
    wait_for(lambda: build(outputs), 'the subscriber')
    assert build(outputs, 254)['semantic'].encoding == 'mono8'
    wide = build(outputs, 255)['semantic']
    assert wide.encoding == 'mono16'
    assert set(np.frombuffer(wide.data, np.uint16)) == {65535}


def test_destroying_takes_the_topics_away(node):
    outputs = OutputTopics(node, '', 'random')
    topics = [f'/segmentation/{name}' for name in KINDS]
    assert all(node.count_publishers(topic) == 1 for topic in topics)
    outputs.destroy()
    wait_for(lambda: not any(node.count_publishers(topic) for topic in topics), 'the end')
