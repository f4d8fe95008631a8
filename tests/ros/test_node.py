"""The segmenter as a user meets it: its own process, real messages over DDS."""

from __future__ import annotations

import array
import time

import numpy as np
import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

import rclpy
from lifecycle_msgs.srv import GetAvailableStates, GetAvailableTransitions
from pycocotools import mask as coco_mask
from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from tests.ros.node_process import (
    NodeProcess,
    Peer,
    ids_of,
    new_domain,
    pixels,
    save_random_model,
    wait_for,
)
from videomt_ros.msg import TrackArray

pytestmark = pytest.mark.ros
RNG = np.random.default_rng(5)
HEIGHT, WIDTH = 90, 120
# The random network is unsure of everything; with these it publishes what it sees at once.
EAGER = {'score_threshold': 0.0, 'mask_threshold': 0.3, 'confirm_frames': 1, 'min_area': 1}


def noise(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope='module')
def live(tmp_path_factory):
    """A segmenter that is up, and a peer that hears all of its outputs."""
    folder, domain = tmp_path_factory.mktemp('node'), new_domain()
    model = save_random_model(folder / 'random.safetensors')
    # So that every image reaches the node, and what it drops are its own drops.
    qos = {'input_reliability': 'reliable', 'input_depth': 100}
    process = NodeProcess(folder / 'log', domain, model=model, **qos)
    peer = Peer(domain)
    try:
        peer.wait_for_state('active')
        peer.wait_until_heard()
        peer.subscribe('tracks', 'instances', 'semantic', 'overlay')
        yield process, peer
        assert process.is_alive(), process.log()
    finally:
        peer.close()
        process.kill()


@pytest.fixture
def peer(live):
    """The peer; the segmenter is as new, but for its counts."""
    _, peer = live
    defaults = {'score_threshold': 0.5, 'mask_threshold': 0.5, 'confirm_frames': 3, 'min_area': 16}
    for result in peer.set_parameters(**defaults, class_filter=[]):
        assert result.successful, result.reason
    assert peer.reset().success
    return peer


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'mono8'])
def test_outputs_carry_the_images_header_and_agree(peer, encoding):
    peer.set_parameters(**EAGER)
    image = noise() if encoding != 'mono8' else noise()[..., 0]
    stamp_ns = peer.send(image, encoding=encoding)
    tracks, instances, semantic, overlay = peer.results(stamp_ns)
    for msg in (tracks, instances, semantic, overlay):
        assert (msg.header.stamp.sec, msg.header.stamp.nanosec) == divmod(stamp_ns, 10**9)
        assert msg.header.frame_id == 'camera_optical'
        assert (msg.height, msg.width) == (HEIGHT, WIDTH)
    assert [msg.encoding for msg in (instances, semantic, overlay)] == ['mono16', 'mono8', 'rgb8']
    assert tracks.model == 'random'
    assert tracks.tracks
    ids, labels = pixels(instances), pixels(semantic)
    assert set(np.unique(ids)) - {0} == set(ids_of(tracks))
    assert (labels[ids == 0] == 255).all()
    for track in tracks.tracks:
        size = [track.mask.height, track.mask.width]
        decoded = coco_mask.decode({'size': size, 'counts': track.mask.counts.encode()})
        np.testing.assert_array_equal(decoded, ids == track.id)
        assert (labels[ids == track.id] == track.class_id).all()
        assert track.area == decoded.sum()
        assert track.class_name == ('circle', 'square', 'star', 'cross')[track.class_id]
        assert (track.state, track.age) == (track.CONFIRMED, 1)
        rows, columns = np.nonzero(decoded)
        box = track.box
        assert (box.x_offset, box.y_offset) == (columns.min(), rows.min())
        assert (box.width, box.height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)


def test_the_overlay_is_drawn_on_the_image_in_its_own_colours(peer):
    peer.set_parameters(score_threshold=1.0)
    image = noise()
    (overlay,) = peer.ask(image[..., ::-1], 'overlay', encoding='bgr8')
    np.testing.assert_array_equal(pixels(overlay), image)


def test_nothing_in_view_is_an_empty_list_and_not_silence(peer):
    peer.set_parameters(score_threshold=1.0)
    tracks, instances, semantic, _ = peer.ask(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert ids_of(tracks) == []
    assert not pixels(instances).any()
    assert (pixels(semantic) == 255).all()


def test_reset_starts_ids_and_ages_anew(peer):
    peer.set_parameters(**EAGER)
    image = noise()
    first = peer.ask(image, 'tracks')[0]
    for _ in range(3):
        later = peer.ask(image, 'tracks')[0]
    assert max(track.age for track in later.tracks) == 4
    reply = peer.reset()
    assert reply.success
    assert reply.message
    again = peer.ask(image, 'tracks')[0]
    assert ids_of(again) == ids_of(first)
    assert {track.age for track in again.tracks} == {1}


def test_a_bag_that_starts_over_starts_a_new_video_and_its_ids_go_on(peer, live):
    peer.set_parameters(**EAGER)
    image = noise()
    for second in range(3):
        before = peer.ask(image, 'tracks', stamp_ns=(100 + second) * 10**9)[0]
    counts = peer.counts()
    # A single image of an earlier time is dropped; the next one shows that it was no accident.
    peer.send(image, stamp_ns=50 * 10**9)
    peer.wait_for_rise(counts, 1, dropped=1)
    again = peer.ask(image, 'tracks', stamp_ns=51 * 10**9)[0]
    assert {track.age for track in again.tracks} == {1}
    assert not set(ids_of(again)) & set(ids_of(before))
    assert again.resets == before.resets + 1
    live[0].wait_for_log('the stream starts anew')
    peer.wait_for_rise(counts, 2, processed=1, dropped=1)
    resets = int(peer.health['resets_stamp_back'])
    assert int(peer.health['dropped_outlier']) >= 1
    # Without another image of its time, it changes nothing.
    peer.send(image, stamp_ns=10 * 10**9)
    peer.wait_for_rise(counts, 3, dropped=2)
    unstamped = peer.ask(image, 'tracks', stamp_ns=0)[0]
    lone = peer.ask(image, 'tracks', stamp_ns=52 * 10**9)[0]
    assert ids_of(unstamped) == ids_of(lone) == ids_of(again)
    assert unstamped.resets == lone.resets == again.resets
    peer.wait_for_rise(counts, 5, processed=3, dropped=2)
    assert int(peer.health['resets_stamp_back']) == resets
    # Asked for, ids begin at 1 again, and consumers are told.
    assert peer.reset().success
    anew = peer.ask(image, 'tracks')[0]
    assert 1 in ids_of(anew)
    assert anew.resets > lone.resets


def test_a_camera_that_pauses_loses_no_image_and_its_video_begins_anew(peer):
    results = peer.set_parameters(**EAGER, gap_s=0.1, max_gap_s=0.5)
    assert all(result.successful for result in results)
    image = noise()
    for _ in range(2):
        before_ns = peer.send(image)
        before = peer.results(before_ns, 'tracks')[0]
    time.sleep(1.0)
    after = peer.ask(image, 'tracks', stamp_ns=before_ns + 1_000_000_000)[0]
    assert after.resets == before.resets + 1
    assert {track.age for track in after.tracks} == {1}
    assert not set(ids_of(after)) & set(ids_of(before))
    peer.counts()
    assert int(peer.health['resets_gap']) >= 1
    assert peer.set_parameters(gap_s=1.0, max_gap_s=5.0)[0].successful


@pytest.mark.parametrize('size', [(1, 1), (1, 500), (700, 2), (33, 47)])
def test_odd_sizes_are_no_trouble(peer, size):
    tracks, instances = peer.ask(noise(*size), 'tracks', 'instances')
    assert (tracks.height, tracks.width) == size
    assert pixels(instances).shape == size


def test_a_padded_step_is_read_as_the_image_it_holds(peer):
    peer.set_parameters(**EAGER)
    image = noise()
    plain = pixels(peer.ask(image, 'instances')[0])
    peer.reset()
    padded = np.concatenate((image, noise(HEIGHT, 3)), axis=1)
    stamp_ns = peer.send(_with_width(padded, WIDTH))
    np.testing.assert_array_equal(pixels(peer.results(stamp_ns, 'instances')[0]), plain)


def test_every_image_is_accounted_for(peer):
    before = peer.counts()
    image = noise(240, 320)
    for _ in range(60):
        last = peer.send(image)
    peer.results(last, 'tracks')
    rise = peer.wait_for_rise(before, 60, rejected=0, failed=0)
    assert rise['dropped'] > 0
    assert float(peer.health['latency_p95_ms']) >= float(peer.health['latency_p50_ms']) > 0
    assert peer.health['state'] == 'active'


def test_thresholds_and_filter_change_while_running(peer):
    peer.set_parameters(**EAGER)
    image = noise()
    before = peer.ask(image, 'tracks')[0]
    name = before.tracks[0].class_name
    assert peer.set_parameters(class_filter=[name])[0].successful
    filtered = peer.ask(image, 'tracks')[0]
    assert {track.class_name for track in filtered.tracks} == {name}
    assert peer.set_parameters(class_filter=[])[0].successful
    # The change restarted nothing: ids and ages go on.
    after = peer.ask(image, 'tracks')[0]
    assert max(track.age for track in after.tracks) == 3


def test_an_output_can_be_switched_off(peer):
    assert peer.set_parameters(publish_overlay=False)[0].successful
    stamp_ns = peer.send(noise())
    peer.results(stamp_ns, 'tracks', 'semantic')
    peer.set_parameters(publish_overlay=True)
    peer.ask(noise(), 'overlay')
    assert stamp_ns not in peer.received['overlay']


@pytest.mark.parametrize(
    ('values', 'reason'),
    [
        ({'score_threshold': 1.5}, '1.5'),
        ({'gap_s': 1}, 'DOUBLE'),
        ({'confirm_frames': 0}, 'confirm_frames'),
        ({'track_states': ['confirmed', 'asleep']}, 'asleep'),
        ({'class_filter': ['circel']}, "nearest is 'circle'"),
        ({'class_filter': [1, 2]}, 'list of strings'),
        ({'model': 'demo'}, 'clean it up first'),
        ({'device': 'cuda'}, 'clean it up first'),
        ({'precision': 'fp16'}, 'clean it up first'),
        ({'autostart': False}, 'read-only'),
    ],
)
def test_wrong_parameters_are_refused_with_a_reason(peer, values, reason):
    (result,) = peer.set_parameters(**values)
    assert not result.successful
    assert reason in result.reason


@pytest.mark.parametrize(
    'transition', ['configure', 'activate', 'cleanup', 0, 5, 6, 9, 10, 30, 61, 99, 255]
)
def test_a_transition_that_the_state_does_not_have_is_refused(live, peer, transition):
    process, _ = live
    assert not peer.change_state(transition)
    process.wait_for_log('refused: the node is active, where the transitions are ')
    assert peer.state() == 'active'


def test_a_transition_of_an_unknown_label_is_refused(live, peer):
    process, _ = live
    assert not peer.change_state(0, 'no_such_label')
    process.wait_for_log("Transition 'no_such_label' refused")
    assert not peer.change_state(0, 'x' * 100_000)
    process.wait_for_log("Transition 'xxx")
    assert 'x' * 100 not in process.log()
    assert peer.state() == 'active'


def test_a_parameter_of_an_unknown_type_is_refused_and_the_others_are_set(live, peer):
    process, _ = live
    good = Parameter('min_area', value=99).to_parameter_msg()
    strange = ParameterMsg(name='gap_s', value=ParameterValue(type=99))
    request = SetParameters.Request(parameters=[strange, good])
    results = peer.call(SetParameters, 'set_parameters', request).results
    assert [result.successful for result in results] == [False, True]
    assert '99' in results[0].reason
    process.wait_for_log('set_parameters refused: ')
    request = SetParametersAtomically.Request(parameters=[strange, good])
    reply = peer.call(SetParametersAtomically, 'set_parameters_atomically', request)
    assert not reply.result.successful
    assert '99' in reply.result.reason


def test_questions_about_what_there_is_not_are_answered(live, peer):
    names = ['', 'no_such_parameter', 'x' * 300, '\N{SNOWMAN}']
    for kind, name in (
        (DescribeParameters, 'describe_parameters'),
        (GetParameters, 'get_parameters'),
        (GetParameterTypes, 'get_parameter_types'),
    ):
        peer.call(kind, name, kind.Request(names=names))
    request = ListParameters.Request(prefixes=names, depth=2**64 - 1)
    assert not peer.call(ListParameters, 'list_parameters', request).result.names
    for kind, name in (
        (GetAvailableStates, 'get_available_states'),
        (GetAvailableTransitions, 'get_available_transitions'),
    ):
        peer.call(kind, name, kind.Request())
    strange = {'': 1, 'no_such_parameter': 1, 'use_sim_time': 'yes'}
    for result in peer.set_parameters(**strange):
        assert not result.successful
    assert peer.state() == 'active'


def test_messages_that_rclpy_cannot_handle_are_logged_and_the_stream_goes_on(live, peer):
    process, _ = live
    assert peer.set_parameters(use_sim_time=True)[0].successful
    clock = peer.node.create_publisher(Clock, '/clock', 10)
    wait_for(clock.get_subscription_count, 'the subscription to /clock')
    msg = Clock()
    msg.clock.sec = -1
    told = 'Ignored what could not be handled, from /clock: '

    def is_told() -> bool:
        # The subscription is best effort, so a single message may be lost.
        clock.publish(msg)
        return told in process.log()

    wait_for(is_told, f'{told!r} in the log')
    peer.node.destroy_publisher(clock)
    assert peer.set_parameters(use_sim_time=False)[0].successful

    # A text that is not UTF-8, and messages cut short.
    raw = serialize_message(Image(encoding='rgb8', data=bytes(40)))
    for data in (raw.replace(b'rgb8', b'\xff\xfe\xfd\xfc'), raw[:30], raw[:-20], raw[:4]):
        peer.images.publish(data)
    peer.ask(noise())


def test_a_second_camera_and_a_second_segmenter_are_told(live, peer):
    process, _ = live
    domain = peer.node.context.get_domain_id()
    second = Peer(domain, namespace='/rear')
    camera = second.node.create_publisher(Image, '/image_raw', 10)
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    twin = rclpy.create_node('segmenter', context=context)
    other = rclpy.create_node('other_segmenter', context=context)
    try:
        other.create_publisher(TrackArray, 'segmentation/tracks', 10)
        peer.wait_for_warning(
            '2 publishers on /image_raw: /peer, /rear/peer.',
            '2 nodes are named /segmenter:',
            '/other_segmenter publishes /segmentation/tracks too.',
        )
        process.wait_for_log('2 publishers on /image_raw: /peer, /rear/peer.')
        process.wait_for_log('2 nodes are named /segmenter:')
    finally:
        second.node.destroy_publisher(camera)
        second.close()
        twin.destroy_node()
        other.destroy_node()
        context.try_shutdown()
    peer.ask(noise())
    peer.wait_for_warning()


def _with_width(pixels_: np.ndarray, width: int):
    """A message that shows the first columns of these pixels, and has the rest as padding."""
    data = array.array('B', pixels_.tobytes())
    return Image(
        height=len(pixels_), width=width, step=3 * pixels_.shape[1], encoding='rgb8', data=data
    )
