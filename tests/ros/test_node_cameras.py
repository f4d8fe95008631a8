"""Several cameras on one segmenter: what each gets is what it would get alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from tests.ros.node_process import (
    BEST_EFFORT,
    RELIABLE,
    NodeProcess,
    Peer,
    ids_of,
    new_domain,
    pixels,
    wait_for,
)
from videomt_ros.datasets.synthetic.scene import Scene
from videomt_ros.inference import VideoStream
from videomt_ros.model import load_model

pytestmark = pytest.mark.ros
SIZES = {'front': (96, 128), 'rear': (96, 128), 'left': (128, 128), 'right': (150, 200)}
PERIODS = {'front': 1, 'rear': 2, 'left': 3, 'right': 1}
FRAMES = 12


@pytest.fixture(scope='module')
def live(tmp_path_factory):
    """A segmenter with four cameras, and a peer for each."""
    domain = new_domain()
    log = tmp_path_factory.mktemp('node') / 'log'
    cameras = f'[{", ".join(SIZES)}]'
    own = {'right.score_threshold': 0.7, 'left.input_reliability': 'best_effort'}
    qos = {'input_reliability': 'reliable', 'input_depth': 100}
    settings = {**qos, 'cameras': cameras, 'model': 'demo', 'precision': 'fp32', **own}
    process = NodeProcess(log, domain, **settings)
    peers = {}
    try:
        for name in SIZES:
            qos = BEST_EFFORT if name == 'left' else RELIABLE
            peers[name] = Peer(domain, qos, camera=name)
        for peer in peers.values():
            peer.wait_for_state('active')
            peer.wait_until_heard()
            peer.subscribe('tracks', 'instances')
        yield process, peers
        assert process.is_alive(), process.log()
    finally:
        for peer in peers.values():
            peer.close()
        process.kill()


def images_of(name: str, seed: int = 40) -> list[np.ndarray]:
    height, width = SIZES[name]
    scene = Scene(seed + list(SIZES).index(name), height, width, num_frames=FRAMES)
    return [image for image, _ in scene.frames()]


def is_due(name: str, tick: int) -> bool:
    """Whether a camera sends an image at a tick: each has another rate."""
    return tick % PERIODS[name] == 0


@pytest.fixture
def peers(live):
    """The peers; every camera is as new, but for its counts."""
    _, peers = live
    for peer in peers.values():
        assert peer.reset().success
    return peers


def test_every_camera_gets_what_it_would_get_alone(peers):
    images = {name: images_of(name) for name in SIZES}
    stamps_ns: dict[str, list[int]] = {name: [] for name in SIZES}
    for tick in range(FRAMES):
        # All that are due wait at the same moment, and are processed together.
        due = [name for name in SIZES if is_due(name, tick)]
        for name in due:
            stamps_ns[name].append(peers[name].send(images[name][tick]))
        for name in due:
            peers[name].results(stamps_ns[name][-1])
    net = load_model('demo')
    for name, peer in peers.items():
        alone = VideoStream(net, score_threshold=0.7 if name == 'right' else 0.5)
        seen = 0
        for image, ns in zip(
            [image for tick, image in enumerate(images[name]) if is_due(name, tick)],
            stamps_ns[name],
            strict=True,
        ):
            segments = alone.push(image, ns)
            tracks, instances = peer.results(ns, 'tracks', 'instances')
            ids = pixels(instances)
            # A batch of another size adds in another order: pixels on a border may differ.
            assert np.mean(ids != segments.ids) < 1e-3, name
            assert ids_of(tracks) == [s.track_id for s in segments.segments], name
            assert [t.class_name for t in tracks.tracks] == [
                s.class_name for s in segments.segments
            ]
            seen += len(tracks.tracks)
        assert seen > 3, name


def test_a_flood_from_one_camera_leaves_the_others_their_turn(peers):
    flood, calm = peers['right'], peers['front']
    before = {name: peers[name].counts() for name in ('right', 'front')}
    image = images_of('right')[0]
    for _ in range(20):
        for _ in range(10):
            flood.send(image)
        calm.ask(images_of('front')[0], 'tracks')
    calm.wait_for_rise(before['front'], 20, processed=20)
    rise = flood.wait_for_rise(before['right'], 200, rejected=0, failed=0)
    assert rise['dropped'] > 0


def test_what_one_camera_suffers_touches_no_other(peers):
    steady, wild = peers['front'], peers['rear']
    images = images_of('front')
    before = wild.counts()
    for n, image in enumerate(images):
        wild.send(images_of('rear')[n][: 60 + n])  # another size each time, so an outlier
        wild.send(Image(height=5, width=5, encoding='8UC7', step=35, data=bytes(175)))
        (tracks,) = steady.ask(image, 'tracks')
        if n == 5:
            assert wild.reset().success
    assert max(track.age for track in tracks.tracks) > FRAMES - 4
    wild.wait_for_rise(before, 2 * FRAMES)
    assert steady.counts()['rejected'] == 0


def test_a_camera_that_is_reset_begins_at_1_and_the_others_go_on(peers):
    front, rear = peers['front'], peers['rear']
    for image in images_of('front')[:4]:
        (first,) = front.ask(image, 'tracks')
        (other,) = rear.ask(image, 'tracks')
    assert ids_of(first)
    assert ids_of(first) == ids_of(other)
    assert rear.reset().success
    (later,) = front.ask(image, 'tracks')
    (anew,) = rear.ask(image, 'tracks')
    assert max(track.age for track in later.tracks) == 5
    assert ids_of(anew) == []  # tentative in its first frame
    # Without a name, all of them.
    front.call(Trigger, 'reset', Trigger.Request())
    assert ids_of(front.ask(image, 'tracks')[0]) == []


def test_a_cameras_own_value_changes_that_camera_alone(peers):
    front, rear = peers['front'], peers['rear']
    assert front.set_parameters(**{'rear.confirm_frames': 1})[0].successful
    image = images_of('front')[0]
    assert ids_of(front.ask(image, 'tracks')[0]) == []
    assert ids_of(rear.ask(image, 'tracks')[0])
    (refused,) = front.set_parameters(**{'rear.confirm_frames': 0})
    assert 'Camera rear: Expected confirm_frames from 1' in refused.reason
    (refused,) = front.set_parameters(**{'rear.input_depth': 3})
    assert 'clean it up first' in refused.reason
    # Not set again: the common value counts.
    assert front.set_parameters(**{'rear.confirm_frames': None})[0].successful
    rear.reset()
    assert ids_of(rear.ask(image, 'tracks')[0]) == []
    assert front.set_parameters(**{'rear.confirm_frames': 1})[0].successful  # and set again
    assert ids_of(rear.ask(image, 'tracks')[0])
    assert front.set_parameters(**{'rear.confirm_frames': None})[0].successful


def test_a_rate_limit_lets_evenly_spaced_images_through(peers):
    front = peers['front']
    assert front.set_parameters(**{'front.max_rate_hz': 10.0})[0].successful
    image = images_of('front')[0]
    before = front.counts()
    sent_ns = []
    for n in range(12):  # 30 Hz
        sent_ns.append(front.send(image, stamp_ns=2_000_000_000_000_000_000 + n * 33_333_333))
        if n % 3 == 0:
            front.results(sent_ns[-1], 'tracks')
    front.wait_for_rise(before, 12, processed=4, dropped=8)
    assert front.set_parameters(**{'front.max_rate_hz': None})[0].successful


def test_images_that_are_all_stale_are_told(peers):
    front = peers['front']
    limits = {'front.stale_after_s': 1.0, 'front.warn_silence_s': 2.0}
    assert all(result.successful for result in front.set_parameters(**limits))
    image = images_of('front')[0]
    stamps_ns = itertools.count(1_600_000_000 * 10**9, 33_000_000)

    def is_told():
        front.send(image, stamp_ns=next(stamps_ns))
        return front.is_warned and 'by stale_after_s = 1. Their stamps' in front.health_message

    wait_for(is_told, 'the warning')
    assert all(result.successful for result in front.set_parameters(**dict.fromkeys(limits)))
    assert front.reset().success
    assert front.ask(image, 'tracks')


def test_diagnostics_have_a_status_for_each_camera(peers):
    for name, peer in peers.items():
        peer.ask(images_of(name)[0], 'tracks')
        peer.counts()
        assert peer.health_name == f'/segmenter: {name} frames'
    # The one that is silent is told, and no other.
    silent = peers['left']
    for name in ('front', 'rear', 'right'):
        wait_for(lambda peer=peers[name], name=name: _is_told_alone(peer, silent, name), 'silence')


def _is_told_alone(peer: Peer, silent: Peer, name: str) -> bool:
    peer.ask(images_of(name)[0], 'tracks')
    silent.counts()
    told = 'No image for '
    is_told = told in silent.health_message and '/left/image_raw' in silent.health_message
    return silent.is_warned and is_told and told not in peer.health_message
