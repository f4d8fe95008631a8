"""The subscription: which reliability it has, and what it says in silence."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from tests.ros.node_process import new_domain, wait_for
from videomt_ros.ros import subscription
from videomt_ros.ros.subscription import ImageSubscription, best_reliability

pytestmark = pytest.mark.ros
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


@pytest.mark.parametrize(
    ('present', 'offers', 'may_rise', 'wanted'),
    [
        # The node is there first, then the camera.
        (BEST_EFFORT, set(), True, BEST_EFFORT),
        (BEST_EFFORT, {RELIABLE}, True, RELIABLE),
        (BEST_EFFORT, {BEST_EFFORT}, True, BEST_EFFORT),
        (BEST_EFFORT, {BEST_EFFORT, RELIABLE}, True, BEST_EFFORT),
        # A reliable camera, then a second one, then that one alone.
        (RELIABLE, {BEST_EFFORT, RELIABLE}, True, RELIABLE),
        (RELIABLE, {BEST_EFFORT}, True, BEST_EFFORT),
        # A best-effort camera, then a reliable one beside it, then that one alone.
        (BEST_EFFORT, {BEST_EFFORT, RELIABLE}, False, BEST_EFFORT),
        (BEST_EFFORT, {RELIABLE}, False, BEST_EFFORT),
        # The camera restarts.
        (RELIABLE, set(), True, RELIABLE),
    ],
)
def test_reliability_follows_the_cameras(present, offers, may_rise, wanted):
    assert best_reliability(present, offers, may_rise) == wanted


@pytest.fixture
def node():
    context = Context()
    rclpy.init(context=context, domain_id=new_domain())
    node = LifecycleNode('segmenter', context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


@pytest.fixture
def pass_time(monkeypatch):
    """Moves the clock of the subscription forward."""
    now_s = [100.0]
    monkeypatch.setattr(subscription, 'time', SimpleNamespace(monotonic=lambda: now_s[0]))
    return lambda seconds: now_s.__setitem__(0, now_s[0] + seconds)


class Log:
    """Keeps what is logged."""

    def __init__(self):
        self.infos, self.warnings = [], []

    def info(self, text):
        self.infos.append(text)

    def warning(self, text, throttle_duration_sec):
        assert throttle_duration_sec > 1
        self.warnings.append(text)


def build_subscription(node, monkeypatch, reliability='auto', receive=lambda msg: None):
    log = Log()
    monkeypatch.setattr(node, 'get_logger', lambda: log)
    return ImageSubscription(node, receive, reliability, depth=5), log


def wait_for_cameras(node, count):
    wait_for(lambda: node.count_publishers('image_raw') == count, f'{count} cameras')


def offered(node):
    """Reliabilities of the subscriptions on the topic."""
    infos = node.get_subscriptions_info_by_topic('/image_raw')
    return [info.qos_profile.reliability for info in infos]


def test_it_follows_the_cameras_and_rises_again_only_in_silence(node, monkeypatch, pass_time):
    subject, log = build_subscription(node, monkeypatch)
    assert not subject.is_open
    subject.follow_cameras()  # nothing to do yet
    subject.open()
    assert subject.is_open
    camera = node.create_publisher(Image, 'image_raw', QoSProfile(depth=1, reliability=RELIABLE))
    wait_for_cameras(node, 1)
    subject.follow_cameras()
    node.destroy_publisher(camera)
    wait_for_cameras(node, 0)
    subject.follow_cameras()  # the camera restarts
    camera = node.create_publisher(
        Image, 'image_raw', QoSProfile(depth=1, reliability=BEST_EFFORT)
    )
    wait_for_cameras(node, 1)
    subject.follow_cameras()
    node.destroy_publisher(camera)
    node.create_publisher(Image, 'image_raw', QoSProfile(depth=1, reliability=RELIABLE))
    wait_for(
        lambda: (
            [i.qos_profile.reliability for i in node.get_publishers_info_by_topic('image_raw')]
            == [RELIABLE]
        ),
        'the reliable camera alone',
    )
    subject.follow_cameras()
    words = [line.rpartition(', ')[2] for line in log.infos]
    assert words == ['best_effort.', 'reliable.', 'best_effort.']
    assert not log.warnings
    pass_time(subscription.SILENCE_S)
    subject.follow_cameras()
    assert log.infos[-1] == 'Listening to /image_raw, reliable.'
    assert len(offered(node)) == 1
    subject.close()
    assert not subject.is_open


@pytest.mark.parametrize(('setting', 'expected'), [('reliable', RELIABLE), ('auto', BEST_EFFORT)])
def test_it_opens_as_it_is_told(node, monkeypatch, setting, expected):
    subject, _ = build_subscription(node, monkeypatch, setting)
    subject.open()
    wait_for(lambda: offered(node) == [expected], 'the subscription')
    subject.follow_cameras()
    assert offered(node) == [expected]


def test_silence_is_told_until_an_image_comes(node, monkeypatch, pass_time):
    images = []
    subject, log = build_subscription(node, monkeypatch, receive=images.append)
    subject.open()
    pass_time(subscription.SILENCE_S)
    subject.follow_cameras()
    assert log.warnings == [
        'No image for 5 s on /image_raw, whose publishers are: none. Is the topic remapped, and '
        'the camera running?'
    ]
    camera = node.create_publisher(Image, 'image_raw', 5)
    wait_for(camera.get_subscription_count, 'the subscription')
    subject.follow_cameras()
    assert 'segmenter (sensor_msgs/msg/Image, reliable)' in log.warnings[-1]
    wait_for(camera.get_subscription_count, 'the reliable subscription')
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)

    def image_came():
        camera.publish(Image())
        executor.spin_once(timeout_sec=0.1)
        return images

    monkeypatch.undo()
    wait_for(image_came, 'an image')
    executor.shutdown()
    subject.follow_cameras()
    assert len(log.warnings) == 2
