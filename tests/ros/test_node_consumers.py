"""What other packages take from the segmenter, over DDS, against its tracks of the same stamp."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo

from tests.ros.made_vision_msgs import is_installed, vision_msgs_environment
from tests.ros.node_process import (
    BEST_EFFORT,
    NodeProcess,
    Peer,
    new_domain,
    pixels,
    wait_for,
)
from videomt_ros.datasets.synthetic.scene import ALL_NAMES, CLASS_NAMES, Scene
from videomt_ros.ros.conversions import JPEG_QUALITY, stamp_to_msg

# Shapes before sky, ground and a wall, which the panoptic demo model tells apart.
SCENE = Scene(700, height=192, width=240, num_frames=1, num_objects=3, stuff=True)
IMAGE = next(iter(SCENE.frames()))[0]
IMAGES = ('instances', 'semantic', 'confidence', 'mask')
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
SETTINGS = {'model': 'demo_panoptic', 'input_reliability': 'reliable', 'input_depth': 100}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('node')


@pytest.fixture(scope='module')
def peer(vision_msgs, folder):
    """A peer that hears all of a segmenter that has vision_msgs."""
    domain = new_domain()
    environment = vision_msgs_environment()
    process = NodeProcess(
        folder / 'log', domain, environment=environment, confirm_frames=1, **SETTINGS
    )
    peer = Peer(domain)
    try:
        peer.wait_for_state('active')
        peer.wait_until_heard()
        peer.subscribe('tracks', *IMAGES, 'overlay', 'overlay/compressed')
        peer.subscribe('detections', kind=vision_msgs.Detection2DArray)
        yield peer
        assert process.is_alive(), process.log()
        assert 'Not offered' not in process.log()
    finally:
        peer.close()
        process.kill()


@pytest.fixture(autouse=True)
def defaults(request):
    if 'peer' in request.fixturenames:
        peer = request.getfixturevalue('peer')
        for result in peer.set_parameters(mask_classes=[], instance_encoding='mono16'):
            assert result.successful, result.reason


def assert_header(msg, stamp_ns: int) -> None:
    assert (msg.header.stamp.sec, msg.header.stamp.nanosec) == divmod(stamp_ns, 10**9)
    assert msg.header.frame_id == 'camera_optical'


def test_pixels_and_detections_agree_with_the_tracks(peer):
    stamp_ns = peer.send(IMAGE)
    messages = peer.results(stamp_ns, 'tracks', *IMAGES, 'overlay', 'detections')
    for msg in messages:
        assert_header(msg, stamp_ns)
    tracks, *images, overlay, detections = messages
    ids, labels, confidence, mask = map(pixels, images)
    assert [msg.encoding for msg in images] == ['mono16', 'mono8', 'mono8', 'mono8']
    assert {track.is_thing for track in tracks.tracks} == {True, False}
    expected = np.zeros_like(confidence)
    things = np.zeros_like(ids, bool)
    for track in tracks.tracks:
        expected[ids == track.id] = round(track.score * 255)
        things |= (ids == track.id) & track.is_thing
    np.testing.assert_array_equal(confidence, expected)
    np.testing.assert_array_equal(mask, np.where(things, 255, 0))
    assert ((confidence == 0) | (labels != 255)).all()
    assert [detection.id for detection in detections.detections] == [
        str(track.id) for track in tracks.tracks
    ]
    for detection, track in zip(detections.detections, tracks.tracks, strict=True):
        assert detection.header == tracks.header
        box, center = track.box, detection.bbox.center
        assert center.position.x - detection.bbox.size_x / 2 == box.x_offset
        assert center.position.y - detection.bbox.size_y / 2 == box.y_offset
        assert (detection.bbox.size_x, detection.bbox.size_y) == (box.width, box.height)
        (result,) = detection.results
        assert result.hypothesis.class_id == track.class_name
        assert result.hypothesis.score == pytest.approx(track.score, abs=1e-6)

    (compressed,) = peer.results(stamp_ns, 'overlay/compressed')
    assert_header(compressed, stamp_ns)
    assert compressed.format == 'rgb8; jpeg compressed bgr8'
    quality = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
    _, expected = cv2.imencode('.jpg', pixels(overlay)[..., ::-1], quality)
    assert bytes(compressed.data) == expected.tobytes()


@pytest.mark.parametrize('names', [['sky'], ['ground', *CLASS_NAMES]])
def test_the_mask_has_the_classes_that_are_set(peer, names):
    (result,) = peer.set_parameters(mask_classes=names)
    assert result.successful, result.reason
    mask, labels = map(pixels, peer.ask(IMAGE, 'mask', 'semantic'))
    wanted = [ALL_NAMES.index(name) for name in names]
    np.testing.assert_array_equal(mask, np.where(np.isin(labels, wanted), 255, 0))
    assert len(np.unique(mask)) == 2


def test_unknown_classes_of_the_mask_and_encodings_are_refused(peer):
    (result,) = peer.set_parameters(mask_classes=['circl'])
    assert not result.successful
    assert "mask_classes a class of the model, got 'circl'. The nearest is 'circle'" in (
        result.reason
    )
    (result,) = peer.set_parameters(instance_encoding='8UC1')
    assert not result.successful
    assert 'mono16, 32SC1' in result.reason


def test_instances_may_carry_their_classes(peer):
    (result,) = peer.set_parameters(instance_encoding='32SC1')
    assert result.successful, result.reason
    instances, semantic, tracks = peer.ask(IMAGE, 'instances', 'semantic', 'tracks')
    assert (instances.encoding, instances.step) == ('32SC1', 4 * instances.width)
    numbers, labels = pixels(instances), pixels(semantic)
    inside = numbers != 0
    np.testing.assert_array_equal(inside, labels != 255)
    np.testing.assert_array_equal((numbers >> 16)[inside], labels[inside])
    assert set(np.unique(numbers & 0xFFFF)) - {0} == {track.id for track in tracks.tracks}


def test_camera_info_has_the_stamp_of_each_result(peer):
    infos = peer.node.create_publisher(CameraInfo, 'camera_info', 100)
    wait_for(infos.get_subscription_count, 'the subscriber of camera_info')
    peer.subscribe('camera_info')
    other = CameraInfo(width=1)
    other.header.frame_id = 'lens'
    other.header.stamp.sec = 1

    def is_published() -> bool:
        infos.publish(other)  # best effort, so that one may be lost
        peer.results(peer.send(IMAGE), 'tracks')
        return bool(peer.received['camera_info'])

    wait_for(is_published, 'the camera_info')

    def newest_width() -> int:
        """Width in the info of an image that has none of its own."""
        stamp_ns = peer.send(IMAGE)
        (msg,) = peer.results(stamp_ns, 'camera_info')
        assert_header(msg, stamp_ns)
        return msg.width

    assert newest_width() == 1
    # Infos of three images to come, not in their order.
    begin_ns = peer.send(IMAGE) + 2_000_000_000
    stamps = {width: begin_ns + width * 33_000_000 for width in (3, 2, 4)}
    for width, stamp_ns in stamps.items():
        own = CameraInfo(width=width, k=[float(width)] * 9)
        own.header.stamp = stamp_to_msg(stamp_ns)

        def is_newest(own=own) -> bool:
            infos.publish(own)
            return newest_width() == own.width

        wait_for(is_newest, 'the newest camera_info')
    for width in (2, 3, 4):
        peer.send(IMAGE, stamps[width])
        (msg,) = peer.results(stamps[width], 'camera_info')
        assert_header(msg, stamps[width])
        assert (msg.width, list(msg.k)) == (width, [float(width)] * 9)
    peer.set_parameters(publish_camera_info=False)
    wait_for(lambda: not infos.get_subscription_count(), 'the end of the subscription')
    peer.set_parameters(publish_camera_info=True)
    wait_for(infos.get_subscription_count, 'the subscription')


def test_names_of_the_classes_are_there_for_who_comes_late(peer, vision_msgs):
    heard = []
    topic = 'segmentation/label_info'
    peer.node.create_subscription(vision_msgs.LabelInfo, topic, heard.append, LATCHED)
    wait_for(lambda: heard, 'the names')
    assert [(label.class_id, label.class_name) for label in heard[0].class_map] == [
        *enumerate(ALL_NAMES),
        (255, 'UNLABELED'),
    ]
    assert heard[0].threshold == 0.5
    (info,) = peer.node.get_publishers_info_by_topic(f'/{topic}')
    assert info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    peer.set_parameters(score_threshold=0.25)
    wait_for(lambda: heard[-1].threshold == 0.25, 'the other threshold')
    peer.set_parameters(score_threshold=0.5)


@pytest.mark.skipif(is_installed(), reason='this machine has vision_msgs')
def test_a_node_without_vision_msgs_says_so_once_and_runs(folder):
    domain = new_domain()
    words = ('-r', 'front/image_raw:=/robot/color/image')
    settings = {'cameras': '[front, rear]', **SETTINGS}
    process = NodeProcess(folder / 'without', domain, *words, **settings)
    peer = Peer(domain, camera='rear')
    try:
        peer.wait_for_state('active')
        peer.wait_until_heard()
        peer.subscribe('mask', 'confidence', qos=BEST_EFFORT)
        peer.ask(IMAGE)
        topics = [name for name, _ in peer.node.get_topic_names_and_types()]
        assert not [name for name in topics if name.endswith(('detections', 'label_info'))]
        log = process.log()
        # The infos are beside the images, also where these were remapped.
        assert peer.node.count_subscribers('/rear/camera_info') == 1
        assert peer.node.count_subscribers('/robot/color/camera_info') == 1
        assert log.count('vision_msgs is not installed: segmentation/detections') == 1
    finally:
        peer.close()
        process.kill()
