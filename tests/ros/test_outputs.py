"""What is published, and that no message is built without a subscriber."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from tests.ros.node_process import KINDS, new_domain, wait_for
from videomt_ros.inference import draw
from videomt_ros.inference.depth import Intrinsics
from videomt_ros.resources import resource
from videomt_ros.ros import outputs as outputs_module
from videomt_ros.ros.depth import DepthView
from videomt_ros.ros.outputs import OUTPUTS, find_type, missing_outputs
from videomt_ros.ros.parameters import NodeParameters
from videomt_ros.ros.publishers import LabelTopic, OutputTopics
from videomt_ros.structures import Segment, Segments, TrackState

pytestmark = pytest.mark.ros
NAMES = {output.topic: name for name, output in OUTPUTS.items()}
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
IMAGE = np.zeros((4, 6, 3), np.uint8)
DEPTH = DepthView(np.ones((4, 6), np.float32), Intrinsics(5.0, 5.0, 2.5, 1.5))
EVERYTHING = {f'publish_{name}': True for name in OUTPUTS}


@pytest.fixture
def node():
    context = Context()
    rclpy.init(context=context, domain_id=new_domain())
    node = LifecycleNode('segmenter', context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


def build(outputs: OutputTopics, num_classes: int = 3, **switches: bool) -> dict[str, object]:
    """Messages by their topic below `segmentation/`."""
    segments = Segments(0, np.zeros((4, 6), np.uint16), (), num_classes)
    parameters = NodeParameters(**{**EVERYTHING, **switches})
    messages = outputs.build(IMAGE, Header(), segments, parameters, CameraInfo(), lambda: DEPTH)
    return {publisher.topic_name[len('/segmentation/') :]: msg for publisher, msg in messages}


@pytest.mark.parametrize('listened', [[], *([topic] for topic in NAMES), list(NAMES)])
def test_only_what_somebody_listens_to_is_built(node, vision_msgs, listened):
    outputs = OutputTopics(node, '', 'random')
    subscriptions = [
        node.create_subscription(
            find_type(OUTPUTS[NAMES[topic]].kind), f'segmentation/{topic}', lambda msg: None, 1
        )
        for topic in listened
    ]
    wait_for(lambda: len(build(outputs)) == len(subscriptions), 'the subscribers')
    assert set(build(outputs)) == set(listened)
    for name in listened:
        assert name not in build(outputs, **{f'publish_{NAMES[name]}': False})
    for topic, message in build(outputs).items():
        assert type(message) is find_type(OUTPUTS[NAMES[topic]].kind)


def test_nothing_is_published_for_an_image_without_camera_info(node):
    outputs = OutputTopics(node, '', 'random')
    node.create_subscription(CameraInfo, 'segmentation/camera_info', lambda msg: None, 1)
    segments = Segments(0, np.zeros((4, 6), np.uint16), (), 3)
    wait_for(lambda: build(outputs), 'the subscriber')
    assert outputs.build(IMAGE, Header(), segments, NodeParameters()) == []


def test_the_depth_is_looked_for_once_and_only_if_a_message_needs_it(node, vision_msgs):
    outputs = OutputTopics(node, '', 'random')
    parameters = NodeParameters(**EVERYTHING)
    segments = Segments(0, np.zeros((4, 6), np.uint16), (), 3)
    looked = []

    def topics(depth: DepthView | None) -> set[str]:
        looked.clear()
        find = lambda: looked.append(1) or depth  # noqa: E731
        messages = outputs.build(IMAGE, Header(), segments, parameters, None, find)
        return {publisher.topic_name[len('/segmentation/') :] for publisher, _ in messages}

    node.create_subscription(Image, 'segmentation/instances', lambda msg: None, 1)
    wait_for(lambda: topics(DEPTH), 'the subscriber')
    assert not looked
    names = ('tracks', 'points', 'markers', 'detections3d')
    for name in names:
        kind = find_type(OUTPUTS[name].kind)
        node.create_subscription(kind, f'segmentation/{name}', lambda msg: None, 1)
    wait_for(lambda: topics(DEPTH) == {'instances', *names}, 'the subscribers')
    assert looked == [1]
    # Without depth there are no points; the others say that there is nothing.
    assert topics(None) == {'instances', *names} - {'points'}
    assert looked == [1]
    parameters = NodeParameters()
    assert topics(DEPTH) == {'instances', 'tracks'}


def test_the_overlay_is_drawn_once_for_both_topics(node, monkeypatch):
    drawn = []
    real = outputs_module.draw
    monkeypatch.setattr(outputs_module, 'draw', lambda *a, **k: drawn.append(a) or real(*a, **k))
    outputs = OutputTopics(node, '', 'random')
    topics = ('overlay', 'overlay/compressed')
    for topic in topics:
        node.create_subscription(KINDS[topic], f'segmentation/{topic}', lambda msg: None, 1)
    wait_for(lambda: len(build(outputs)) == 2, 'the subscribers')
    drawn.clear()
    assert set(build(outputs)) == set(topics)
    assert len(drawn) == 1


def test_the_overlay_has_the_warning_of_the_model_unless_images_are_drawn(node):
    outputs = OutputTopics(node, '', 'demo', 'demo knows drawn shapes alone')
    node.create_subscription(Image, 'segmentation/overlay', lambda msg: None, 1)
    wait_for(lambda: build(outputs), 'the subscriber')
    image = np.full((120, 400, 3), 150, np.uint8)
    segments = Segments(0, np.zeros(image.shape[:2], np.uint16), (), 3)

    def overlay(**parameters: bool) -> np.ndarray:
        ((_, msg),) = outputs.build(image, Header(), segments, NodeParameters(**parameters))
        return np.frombuffer(msg.data, np.uint8).reshape(image.shape)

    np.testing.assert_array_equal(overlay(drawn_images=True), image)
    expected = draw(image, segments, note='demo knows drawn shapes alone')
    np.testing.assert_array_equal(overlay(), expected)
    assert (expected != image).any()


def test_the_overlay_has_the_trails_of_the_images_before(node):
    outputs = OutputTopics(node, '', 'random')
    node.create_subscription(Image, 'segmentation/overlay', lambda msg: None, 1)
    wait_for(lambda: build(outputs), 'the subscriber')
    image = np.zeros((120, 400, 3), np.uint8)

    def overlay(x: int, stamp_ns: int, resets: int = 0) -> np.ndarray:
        ids = np.zeros(image.shape[:2], np.uint16)
        ids[60:80, x : x + 20] = 1
        segment = Segment(
            1, 0, 'cat', True, 1.0, TrackState.CONFIRMED, 1, stamp_ns, (x, 60, x + 20, 80), 400
        )
        segments = Segments(stamp_ns, ids, (segment,), 3, resets)
        ((_, msg),) = outputs.build(image, Header(), segments, NodeParameters())
        return np.frombuffer(msg.data, np.uint8).reshape(image.shape)

    # The row through the centres, between the two places.
    between = np.s_[70, 40:280]
    assert not overlay(10, 0)[between].any()
    assert overlay(300, 10**9)[between].any(axis=-1).all()
    assert not overlay(10, 2 * 10**9, resets=1)[between].any()


def test_names_of_the_classes_wait_for_late_subscribers(node, vision_msgs):
    labels = LabelTopic(node, 'front/', ['cat', 'dog'])
    for threshold in (0.5, 0.5, 0.25):
        labels.publish(threshold)
    heard = []
    topic = 'front/segmentation/label_info'
    node.create_subscription(vision_msgs.LabelInfo, topic, heard.append, LATCHED)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)

    def newest():
        executor.spin_once(0.1)
        return heard

    wait_for(newest, 'the names')
    assert [(c.class_id, c.class_name) for c in heard[0].class_map] == [
        (0, 'cat'),
        (1, 'dog'),
        (255, 'UNLABELED'),
    ]
    assert heard[0].threshold == 0.25
    labels.publish(0.25)
    labels.publish(0.75)
    wait_for(lambda: newest() and heard[-1].threshold == 0.75, 'the other threshold')
    assert len(heard) == 2
    executor.shutdown()
    labels.destroy()
    wait_for(lambda: not node.count_publishers(topic), 'the end')


def test_without_vision_msgs_the_rest_is_offered(node, monkeypatch):
    monkeypatch.setattr(outputs_module, 'has_vision_msgs', lambda: False)
    outputs = OutputTopics(node, '', 'random')
    labels = LabelTopic(node, '', ['cat'])
    labels.publish(0.5)
    missing = missing_outputs(NodeParameters(**EVERYTHING))
    assert missing == [
        f'segmentation/{topic}' for topic in ('detections', 'detections3d', 'label_info')
    ]
    assert missing_outputs(NodeParameters(publish_detections=False)) == missing[2:]
    offered = [topic for topic in NAMES if node.count_publishers(f'segmentation/{topic}')]
    assert offered == [topic for topic in NAMES if f'segmentation/{topic}' not in missing]
    assert not node.count_publishers('segmentation/label_info')
    outputs.destroy()
    labels.destroy()


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


def test_the_overlay_shows_the_way_of_a_track_until_a_reset(node):
    outputs = OutputTopics(node, '', 'random')
    node.create_subscription(Image, 'segmentation/overlay', lambda msg: None, 1)
    wait_for(lambda: build(outputs), 'the subscriber')
    image = np.zeros((120, 160, 3), np.uint8)

    def overlay(left: int, stamp_ms: int, resets: int) -> np.ndarray:
        ids = np.zeros((120, 160), np.uint16)
        ids[60:80, left : left + 10] = 1
        box = (left, 60, left + 10, 80)
        track = Segment(1, 0, 'cat', True, 0.9, TrackState.CONFIRMED, 5, 0, box, 200)
        segments = Segments(stamp_ms * 1_000_000, ids, (track,), 3, resets)
        ((_, message),) = outputs.build(image, Header(), segments, NodeParameters())
        return np.frombuffer(message.data, np.uint8).reshape(120, 160, 3)

    assert not overlay(20, 0, 0)[66:76, 40:].any()
    assert overlay(120, 500, 0)[70, 40:110].any(1).all()
    assert not overlay(130, 600, 1)[66:76, :100].any()


def test_rviz_and_foxglove_show_topics_that_there_are():
    topics = {f'segmentation/{output.topic}' for output in OUTPUTS.values()}
    rviz = resource('config', 'segmenter.rviz').read_text()
    shown = set(re.findall(r'Value: ((?:segmentation/|image_raw).*)', rviz))
    assert {'segmentation/overlay', 'segmentation/markers'} <= shown <= {*topics, 'image_raw'}
    foxglove = resource('config', 'segmenter.foxglove.json').read_text()
    found = set(re.findall(r'"/(segmentation/[a-z_/]+)', foxglove))
    assert 'segmentation/overlay/compressed' in found and found <= topics
