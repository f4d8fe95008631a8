"""A node with a pipeline over real DDS: nothing is lost, and the results are the same."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

from tests.ros.node_process import NodeProcess, Peer, ids_of, new_domain, pixels, wait_for
from videomt_ros.datasets.synthetic.scene import Scene
from videomt_ros.inference import VideoStream
from videomt_ros.model import load_model
from videomt_ros.ros.cameras import gains_from_pipeline

pytestmark = pytest.mark.ros
CAMERAS = ('front', 'rear')
SIZE = (96, 128)


@pytest.fixture(scope='module')
def live(tmp_path_factory):
    """A segmenter with two cameras, and a peer for each."""
    domain = new_domain()
    process = NodeProcess(
        tmp_path_factory.mktemp('node') / 'log',
        domain,
        module='tests.ros.pipelined_node',
        model='demo',
        cameras=f'[{", ".join(CAMERAS)}]',
        pipeline_depth=2,
        precision='fp32',
        input_reliability='reliable',
        input_depth=100,
    )
    peers = [Peer(domain, camera=name) for name in CAMERAS]
    try:
        for peer in peers:
            peer.wait_for_state('active')
            peer.wait_until_heard()
            peer.subscribe('tracks', 'instances')
        yield process, peers
        assert process.is_alive(), process.log()
    finally:
        for peer in peers:
            peer.close()
        process.kill()


@pytest.fixture
def peers(live):
    """The peers; every camera is as new, but for its counts."""
    _, peers = live
    for peer in peers:
        assert peer.reset().success
    return peers


def test_a_cpu_does_one_batch_after_the_other_and_the_log_says_so(start):
    process = start(model='demo', pipeline_depth=2)
    process.wait_for_log('pipeline_depth has no effect')


@pytest.mark.parametrize(
    ('device', 'engine', 'gains'),
    [('cuda:0', 'eager', True), ('cuda:0', 'onnxruntime', False), ('cpu', 'eager', False)],
)
def test_a_pipeline_is_for_networks_that_run_without_the_host(device, engine, gains):
    net = SimpleNamespace(device=torch.device(device), engine_name=engine)
    assert gains_from_pipeline(net) == gains


def frames(seed: int, number: int = 30) -> list[np.ndarray]:
    return [image for image, _ in Scene(seed, *SIZE, num_frames=number).frames()]


def test_a_lone_image_does_not_wait_for_the_next_one(peers):
    for image in frames(40, 5):
        (tracks,) = peers[0].ask(image, 'tracks')
    assert tracks.tracks


def test_images_that_wait_begin_early_and_the_results_are_the_same(live, peers):
    process, _ = live
    before = [peer.counts() for peer in peers]
    sent = [[] for _ in peers]
    for images in zip(*(frames(40 + k) for k in range(len(peers))), strict=True):
        for peer, own, image in zip(peers, sent, images, strict=True):
            own.append((peer.send(image), image))
        for peer, own in zip(peers, sent, strict=True):  # one is in progress, and one waits
            due_ns = own[-2:][0][0] if len(own) > 1 else 0
            tracks = peer.received['tracks']
            wait_for(lambda t=tracks, ns=due_ns: any(n >= ns for n in [*t]) or not ns, 'a result')
    counts = [peer.wait_for_rise(b, 30) for peer, b in zip(peers, before, strict=True)]
    assert 'OVERLAP' in process.log()
    net = load_model('demo')
    for peer, images, rise in zip(peers, sent, counts, strict=True):
        alone, processed = VideoStream(net), 0
        received = list(peer.received['tracks'])
        for stamp_ns, image in images:
            if stamp_ns not in received:
                continue  # replaced by a newer one
            segments = alone.push(image, stamp_ns)
            tracks, instances = peer.results(stamp_ns, 'tracks', 'instances')
            # A batch of another size adds in another order: pixels on a border may differ.
            assert np.mean(pixels(instances) != segments.ids) < 1e-3
            assert ids_of(tracks) == [s.track_id for s in segments.segments]
            processed += 1
        assert processed == rise['processed'] > 10
        assert received == sorted(received)  # the order in which they came


@pytest.mark.parametrize('seed', range(3))
def test_deactivation_in_mid_flight_loses_nothing(peers, seed):
    before = [peer.counts() for peer in peers]
    received = peers[0].received['tracks']
    number = len(received)
    for image in frames(seed, 10):
        for peer in peers:
            peer.send(image)
    wait_for(lambda: len(received) > number, 'a result')
    assert peers[0].change_state('deactivate')
    for peer, b in zip(peers, before, strict=True):
        rise = {name: number - b[name] for name, number in peer.counts().items()}
        assert rise['received'] == rise['processed'] + rise['dropped']  # each has an end
    assert peers[0].change_state('activate')
    for peer in peers:
        peer.wait_until_heard()
        peer.ask(frames(seed, 1)[0], 'tracks')


def test_resets_while_images_are_in_progress(peers):
    for image in frames(44, 10):
        peers[0].send(image)
        peers[1].send(image)
    assert peers[0].reset().success
    (tracks,) = peers[0].ask(frames(45, 1)[0], 'tracks')
    for image in frames(45, 6)[1:]:
        (tracks,) = peers[0].ask(image, 'tracks')
    ids = ids_of(tracks)
    assert ids and max(ids) <= len(ids) + 2  # they began at 1 again
