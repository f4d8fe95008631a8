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
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from tests.ros.node_process import new_domain, wait_for
from videomt_ros.ros import subscription
from videomt_ros.ros.health import CameraHealth
from videomt_ros.ros.parameters import NodeParameters
from videomt_ros.ros.sources import SOURCE_TIMEOUT_S
from videomt_ros.ros.subscription import ImageSubscription, best_reliability

pytestmark = pytest.mark.ros
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


@pytest.mark.parametrize(
    ('present', 'offers', 'is_silent', 'was_lowered', 'wanted'),
    [
        # The node is there first, then the camera.
        (BEST_EFFORT, set(), False, False, BEST_EFFORT),
        (BEST_EFFORT, {RELIABLE}, False, False, RELIABLE),
        (BEST_EFFORT, {BEST_EFFORT}, False, False, BEST_EFFORT),
        (BEST_EFFORT, {BEST_EFFORT, RELIABLE}, False, False, BEST_EFFORT),
        # A reliable camera, then a second one, then that one alone.
        (RELIABLE, {BEST_EFFORT, RELIABLE}, False, False, RELIABLE),
        (RELIABLE, {BEST_EFFORT}, False, False, BEST_EFFORT),
        # An idle reliable publisher, alone or beside a best-effort camera.
        (RELIABLE, {RELIABLE}, True, False, RELIABLE),
        (RELIABLE, {BEST_EFFORT, RELIABLE}, True, False, BEST_EFFORT),
        # A best-effort camera, then a reliable one beside it, then that one alone.
        (BEST_EFFORT, {BEST_EFFORT, RELIABLE}, True, True, BEST_EFFORT),
        (BEST_EFFORT, {RELIABLE}, False, True, BEST_EFFORT),
        (BEST_EFFORT, {RELIABLE}, True, True, RELIABLE),
        # The camera restarts.
        (RELIABLE, set(), True, False, RELIABLE),
    ],
)
def test_reliability_follows_the_cameras(present, offers, is_silent, was_lowered, wanted):
    assert best_reliability(present, offers, is_silent, was_lowered) == wanted


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

    def warning(self, text):
        self.warnings.append(text)


def build_subscription(
    node,
    monkeypatch,
    reliability='auto',
    receive=lambda msg: None,
    ignore=lambda msg: None,
    transport='raw',
):
    log = Log()
    monkeypatch.setattr(node, 'get_logger', lambda: log)
    parameters = NodeParameters(input_reliability=reliability, transport=transport)
    health = CameraHealth()
    return ImageSubscription(node, 'image_raw', receive, ignore, parameters, health), log


@pytest.fixture
def named_node(node):
    """Makes nodes as of other processes, where a topic may have another type."""
    nodes = []

    def make(name):
        context = Context()
        rclpy.init(context=context, domain_id=node.context.get_domain_id())
        nodes.append(rclpy.create_node(name, context=context))
        return nodes[-1]

    yield make
    for other in nodes:
        other.destroy_node()
        other.context.try_shutdown()


def publish_images(node, reliability, topic='image_raw', kind=Image):
    return node.create_publisher(kind, topic, QoSProfile(depth=1, reliability=reliability))


def receive_one(node, publisher, images, msg):
    """Publish an image until one came to the node."""
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    before = len(images)

    def came():
        publisher.publish(msg)
        executor.spin_once(timeout_sec=0.1)
        return len(images) > before

    wait_for(came, 'an image')
    executor.shutdown()


def wait_for_cameras(node, count):
    wait_for(lambda: node.count_publishers('image_raw') == count, f'{count} cameras')


def offered(node):
    """Reliabilities of the subscriptions on the topic."""
    infos = node.get_subscriptions_info_by_topic('/image_raw')
    return [info.qos_profile.reliability for info in infos]


def test_it_follows_the_cameras_and_rises_again_only_in_silence(node, monkeypatch, pass_time):
    subject, log = build_subscription(node, monkeypatch)
    assert not subject.is_open
    subject.follow_publishers(5.0, 0.05)  # nothing to do yet
    subject.open()
    assert subject.is_open
    camera = node.create_publisher(Image, 'image_raw', QoSProfile(depth=1, reliability=RELIABLE))
    wait_for_cameras(node, 1)
    subject.follow_publishers(5.0, 0.05)
    node.destroy_publisher(camera)
    wait_for_cameras(node, 0)
    subject.follow_publishers(5.0, 0.05)  # the camera restarts
    camera = node.create_publisher(
        Image, 'image_raw', QoSProfile(depth=1, reliability=BEST_EFFORT)
    )
    wait_for_cameras(node, 1)
    subject.follow_publishers(5.0, 0.05)
    node.destroy_publisher(camera)
    node.create_publisher(Image, 'image_raw', QoSProfile(depth=1, reliability=RELIABLE))
    wait_for(
        lambda: (
            [i.qos_profile.reliability for i in node.get_publishers_info_by_topic('image_raw')]
            == [RELIABLE]
        ),
        'the reliable camera alone',
    )
    subject.follow_publishers(5.0, 0.05)
    words = [line.rpartition(', ')[2] for line in log.infos]
    assert words == ['best_effort.', 'reliable.', 'best_effort.']
    assert not log.warnings
    pass_time(subscription.SILENCE_S)
    subject.follow_publishers(5.0, 0.05)
    assert log.infos[-1] == 'Listening to /image_raw, reliable.'
    assert len(offered(node)) == 1
    subject.close()
    assert not subject.is_open


@pytest.mark.parametrize(('setting', 'expected'), [('reliable', RELIABLE), ('auto', BEST_EFFORT)])
def test_it_opens_as_it_is_told(node, monkeypatch, setting, expected):
    subject, _ = build_subscription(node, monkeypatch, setting)
    subject.open()
    wait_for(lambda: offered(node) == [expected], 'the subscription')
    subject.follow_publishers(5.0, 0.05)
    assert offered(node) == [expected]


def test_an_idle_reliable_publisher_does_not_keep_it_deaf(
    node, named_node, monkeypatch, pass_time
):
    images = []
    subject, log = build_subscription(node, monkeypatch, receive=images.append)
    idle = publish_images(named_node('paused_bag'), RELIABLE)
    wait_for_cameras(node, 1)
    subject.open()
    assert log.infos == ['Listening to /image_raw, reliable.']
    camera = publish_images(named_node('camera'), BEST_EFFORT)
    wait_for_cameras(node, 2)
    subject.follow_publishers(5.0, 0.05)
    assert len(log.infos) == 1
    pass_time(subscription.SILENCE_S)
    subject.follow_publishers(5.0, 0.05)
    assert log.infos[1:] == ['Listening to /image_raw, best_effort.']
    receive_one(node, camera, images, Image())
    subject.follow_publishers(5.0, 0.05)
    assert len(log.infos) == 2
    # Best effort hears the reliable publisher as well.
    pass_time(SOURCE_TIMEOUT_S)
    receive_one(node, idle, images, Image())


def test_of_two_publishers_one_is_heard_and_both_are_named(
    node, named_node, monkeypatch, pass_time
):
    images, ignored = [], []
    subject, log = build_subscription(
        node, monkeypatch, receive=images.append, ignore=ignored.append
    )
    front = publish_images(named_node('front'), RELIABLE)
    wait_for_cameras(node, 1)
    subject.open()
    # A single camera may change its size.
    for width in (4, 6):
        receive_one(node, front, images, Image(width=width))
        assert images[-1].width == width
    rear = publish_images(named_node('rear'), RELIABLE)
    wait_for(rear.get_subscription_count, 'the subscription')
    wait_for_cameras(node, 2)
    # From the first image on, before the publishers are looked at.
    count = len(images)
    receive_one(node, rear, ignored, Image(width=8))
    assert len(images) == count
    assert not subject.troubles
    words = '2 publishers on /image_raw: /front, /rear. Only the source'

    def are_named():
        subject.follow_publishers(5.0, 0.05)
        return words in subject.troubles[0]

    wait_for(are_named, words)
    subject.follow_publishers(5.0, 0.05)
    assert [words in warning for warning in log.warnings].count(True) == 1
    receive_one(node, front, images, Image(width=6))
    pass_time(SOURCE_TIMEOUT_S)
    receive_one(node, rear, images, Image(width=8))
    receive_one(node, front, ignored, Image(width=6))
    rear.destroy()
    wait_for_cameras(node, 1)
    subject.follow_publishers(5.0, 0.05)
    assert not subject.troubles


def test_of_two_publishers_of_like_images_one_is_heard(node, named_node, monkeypatch, pass_time):
    heard, ignored = [], []
    subject, _ = build_subscription(node, monkeypatch, receive=heard.append, ignore=ignored.append)
    front = publish_images(named_node('front'), RELIABLE)
    rear = publish_images(named_node('rear'), RELIABLE)
    wait_for_cameras(node, 2)
    subject.open()
    for publisher in (front, rear):
        wait_for(publisher.get_subscription_count, 'the subscription')
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)

    def send(publisher, side):
        count = len(heard) + len(ignored)
        publisher.publish(Image(height=4, width=4, data=bytes([side])))
        wait_for(
            lambda: executor.spin_once(timeout_sec=0.1) or len(heard) + len(ignored) > count,
            'an image',
        )

    try:
        for _ in range(4):
            send(front, 1)
            send(rear, 2)
        assert {msg.data[0] for msg in heard} == {1}
        assert {msg.data[0] for msg in ignored} == {2}
        subject.follow_publishers(5.0, 0.05)
        (trouble,) = subject.troubles
        assert 'one video' not in trouble
        pass_time(SOURCE_TIMEOUT_S)
        send(rear, 2)
        send(front, 1)
        assert [msg.data[0] for msg in heard[-2:]] == [1, 2]
    finally:
        executor.shutdown()


def test_silence_is_told_with_its_reason_until_an_image_comes(
    node, named_node, monkeypatch, pass_time
):
    images = []
    subject, log = build_subscription(node, monkeypatch, 'reliable', receive=images.append)
    subject.open()
    subject.follow_publishers(5.0, 0.05)
    assert not subject.troubles
    pass_time(subscription.SILENCE_S)

    def wait_for_reason(*words):
        def is_told():
            subject.follow_publishers(5.0, 0.05)
            (trouble,) = subject.troubles
            assert trouble.startswith('No image for 5 s on /image_raw: ')
            return all(word in trouble for word in words)

        wait_for(is_told, str(words))

    wait_for_reason('nobody publishes it. Is the camera running, on this ROS_DOMAIN_ID?')
    assert log.warnings == subject.troubles

    driver = named_node('driver')
    publish_images(node, RELIABLE, 'segmentation/overlay')
    elsewhere = publish_images(driver, RELIABLE, '/eye/image')
    wait_for_reason('Images are published on /eye/image: remap image_raw (`image:=/eye/image`')
    compressed = publish_images(driver, RELIABLE, '/image_raw/compressed', CompressedImage)
    wait_for_reason('But /image_raw/compressed is published: set transport to auto or compressed')
    elsewhere.destroy()
    compressed.destroy()

    wrong = publish_images(driver, RELIABLE, 'image_raw', CompressedImage)
    wait_for_reason(
        'got /driver (sensor_msgs/msg/CompressedImage). Set transport to auto or compressed.'
    )
    wrong.destroy()
    # A participant keeps to the first type that it gave a topic.
    driver = named_node('wrong_driver')
    wrong = publish_images(driver, RELIABLE, 'image_raw', String)
    wait_for_reason(
        'expected sensor_msgs/msg/Image on it, got /wrong_driver (std_msgs/msg/String)'
    )
    wrong.destroy()
    driver = named_node('quick_driver')
    publisher = publish_images(driver, BEST_EFFORT)
    wait_for_reason('/quick_driver (best_effort). Set input_reliability to auto or best_effort.')
    publisher.destroy()
    publisher = publish_images(driver, RELIABLE)
    wait_for_reason('its publishers are silent: /quick_driver (reliable). Is the camera paused')
    receive_one(node, publisher, images, Image())
    subject.follow_publishers(5.0, 0.05)
    assert not subject.troubles


@pytest.mark.parametrize('topic', ['image_raw/compressed', 'image_raw'])
def test_auto_hears_compressed_images_where_there_are_no_raw_ones(
    node, named_node, monkeypatch, pass_time, topic
):
    images = []
    subject, log = build_subscription(
        node, monkeypatch, receive=images.append, transport='auto', reliability='best_effort'
    )
    subject.open()  # before any camera
    assert log.infos == ['Listening to /image_raw, best_effort.']
    camera = publish_images(named_node('camera'), RELIABLE, topic, CompressedImage)

    def is_chosen():
        subject.follow_publishers(5.0, 0.05)
        return f'Listening to /{topic}, best_effort.' in log.infos[1:]

    wait_for(is_chosen, 'the other transport')
    receive_one(node, camera, images, CompressedImage(format='jpeg'))
    # It is heard, so a raw camera that comes beside it does not end it.
    raw = publish_images(named_node('raw_camera'), RELIABLE, 'other_raw')
    count = len(log.infos)
    subject.follow_publishers(5.0, 0.05)
    assert len(log.infos) == count
    raw.destroy()


def test_a_paused_camera_of_both_transports_is_not_tried_in_turns(
    node, named_node, monkeypatch, pass_time
):
    subject, log = build_subscription(node, monkeypatch, transport='auto')
    camera = named_node('camera')
    publish_images(camera, RELIABLE)
    publish_images(camera, RELIABLE, 'image_raw/compressed', CompressedImage)
    wait_for(lambda: node.count_publishers('image_raw/compressed'), 'the compressed topic')
    wait_for_cameras(node, 1)
    wait_for(
        lambda: 'UNKNOWN' not in node.get_publishers_info_by_topic('/image_raw')[0].node_name,
        'its name',
    )
    wait_for(
        lambda: (
            'UNKNOWN'
            not in node.get_publishers_info_by_topic('/image_raw/compressed')[0].node_name
        ),
        'its name',
    )
    subject.open()
    for _ in range(3):
        pass_time(subscription.SILENCE_S)
        subject.follow_publishers(5.0, 0.05)
    assert log.infos == ['Listening to /image_raw, reliable.']
    # Another camera, of compressed images alone, is heard in the silence of the first.
    other = publish_images(named_node('other'), RELIABLE, 'image_raw/compressed', CompressedImage)

    def is_chosen():
        subject.follow_publishers(5.0, 0.05)
        return log.infos[-1].startswith('Listening to /image_raw/compressed')

    wait_for(is_chosen, 'the other camera')
    # It is silent too: each is listened to for a while, in turn.
    pass_time(subscription.SILENCE_S - 1.0)
    count = len(log.infos)
    subject.follow_publishers(5.0, 0.05)
    assert len(log.infos) == count
    other.destroy()


def test_of_silent_transports_each_is_tried_in_turn(node, named_node, monkeypatch, pass_time):
    subject, log = build_subscription(node, monkeypatch, transport='auto')
    channels = (('image_raw', Image), ('image_raw/compressed', CompressedImage))
    topics = [(*channel, named_node(f'camera_{n}')) for n, channel in enumerate(channels)]
    topics.append(('image_raw', CompressedImage, named_node('camera_2')))
    for topic, kind, camera in topics:
        publish_images(camera, RELIABLE, topic, kind)

    def are_known():
        infos = [
            info
            for topic in ('/image_raw', '/image_raw/compressed')
            for info in node.get_publishers_info_by_topic(topic)
        ]
        return len(infos) == 3 and not any('UNKNOWN' in info.node_name for info in infos)

    wait_for(are_known, 'the cameras')
    subject.open()
    tried = [subject._channel]
    for _ in range(4):
        pass_time(subscription.SILENCE_S)
        subject.follow_publishers(0.0, 0.05)
        tried.append(subject._channel)
    first = subject._channels
    assert tried == [first[0], first[1], first[2], first[0], first[1]]
    assert len(log.infos) == 5
