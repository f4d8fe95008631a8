"""One segmenter under all that peers can do to it at once; good images are still answered."""

from __future__ import annotations

import itertools
import signal
import time

import cv2
import numpy as np
import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image

from tests.ros.malformed import odd_compressed, odd_images
from tests.ros.node_process import (
    BEST_EFFORT,
    KINDS,
    RELIABLE,
    NodeProcess,
    Peer,
    new_domain,
    save_random_model,
    wait_for,
)

pytestmark = pytest.mark.ros
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.fixture(scope='module')
def live(tmp_path_factory):
    """A segmenter with a raw camera and a compressed one, and a peer for each."""
    folder, domain = tmp_path_factory.mktemp('node'), new_domain()
    process = NodeProcess(
        folder / 'log',
        domain,
        model=save_random_model(folder / 'random.safetensors'),
        cameras='[raw, packed]',
        input_reliability='reliable',
        input_depth=100,
        **{'packed.transport': 'compressed'},
    )
    peers = [Peer(domain, camera='raw'), Peer(domain, camera='packed')]
    packed = peers[1]
    packed.node.destroy_publisher(packed.images)
    packed.images = packed.node.create_publisher(
        CompressedImage, 'packed/image_raw/compressed', RELIABLE
    )
    try:
        for peer in peers:
            peer.wait_for_state('active')
            peer.wait_until_heard()
            peer.subscribe('tracks')
        yield process, *peers
    finally:
        for peer in peers:
            peer.close()
        process.kill()


def good(peer: Peer) -> Image | CompressedImage:
    """An image that the camera of this peer may send."""
    if peer.images.msg_type is Image:
        data = IMAGE.tobytes()
        return Image(height=48, width=64, step=192, encoding='rgb8', data=data)
    return CompressedImage(format='png', data=cv2.imencode('.png', IMAGE)[1].tobytes())


def test_500_odd_messages_are_counted_and_good_ones_between_them_are_answered(live):
    process, *peers = live
    kinds = (odd_images(1, 250), odd_compressed(2, 250))
    befores = [peer.counts() for peer in peers]
    sent = [0, 0]
    for number, odd in enumerate(zip(*kinds, strict=True)):
        for k, (peer, msg) in enumerate(zip(peers, odd, strict=True)):
            # Some have stamps of their own, some none, and some continue the video.
            if number % 3:
                seconds = (0, -1, 5, 2**31 - 1)[number % 4]
                msg.header.stamp.sec, msg.header.stamp.nanosec = seconds, number * 7
                peer.images.publish(msg)
            else:
                peer.send(msg)
            time.sleep(0.005)  # so that most are read, and not replaced by the next
            # An odd one that is readable after all may begin another video, with its stamp.
            stamps_ns = [peer.send(good(peer)) for _ in range(3)]
            peer.results(stamps_ns[-1])
            sent[k] += 4
    for peer, before, total in zip(peers, befores, sent, strict=True):
        rise = peer.wait_for_rise(before, total, failed=0)
        assert rise['rejected'] > 50, rise
        assert rise['processed'] >= 250
    assert 'Traceback' not in process.log()


def test_parameters_change_at_50_hz_while_images_stream(live):
    process, peer, _ = live
    client = peer.node.create_client(SetParameters, 'segmenter/set_parameters')
    wait_for(client.service_is_ready, 'the service')
    values = {
        'score_threshold': itertools.cycle([0.1, 0.5, 0.9]),
        'raw.min_area': itertools.cycle([0, 16]),
        'publish_tracks': itertools.cycle([True]),
        'gap_s': itertools.cycle([0.0, 1.0]),
        'raw.speck_share': itertools.cycle([0.0, 0.1]),
    }
    futures, begin_s = [], time.monotonic()
    for number in range(150):
        time.sleep(max(0.0, begin_s + number / 50 - time.monotonic()))
        changes = [Parameter(name, value=next(value)) for name, value in values.items()]
        request = SetParameters.Request(parameters=[c.to_parameter_msg() for c in changes])
        futures.append(client.call_async(request))
        peer.send(good(peer))
    wait_for(lambda: all(future.done() for future in futures), 'all answers')
    for future in futures:
        assert [result.reason for result in future.result().results] == [''] * len(values)
    peer.node.destroy_client(client)
    peer.ask(good(peer))
    assert 'Traceback' not in process.log()


def test_subscribers_come_and_go_while_images_stream(live):
    process, peer, _ = live
    for number in range(30):
        quality = (RELIABLE, BEST_EFFORT)[number % 2]
        visitors = [
            peer.node.create_subscription(
                kind, f'raw/segmentation/{name}', lambda msg: None, quality
            )
            for name, kind in list(KINDS.items())[number % 3 :]
        ]
        peer.send(good(peer))
        peer.ask(good(peer), 'tracks')
        for visitor in visitors:
            peer.node.destroy_subscription(visitor)
    peer.subscribe('overlay', 'instances')
    peer.ask(good(peer), 'tracks', 'overlay', 'instances')
    assert 'Traceback' not in process.log()


def test_fifty_cycles_of_the_life_cycle_end_as_they_began(live):
    process, peer, packed = live
    threads, memory_mb = [], []
    for _ in range(50):
        for transition in ('deactivate', 'cleanup', 'configure', 'activate'):
            peer.send(good(peer))  # at any moment
            assert peer.change_state(transition), process.log()
        threads.append(process.num_threads())
        memory_mb.append(process.memory_mb())
    assert threads[-1] <= max(threads[:5]), threads
    assert memory_mb[-1] < memory_mb[9] + 30, memory_mb
    for each in (peer, packed):
        each.wait_until_heard()
        wait_for(
            lambda each=each: each.node.count_publishers(f'{each._prefix}segmentation/tracks'),
            'the tracks topic',
        )
        wait_for(lambda each=each: is_answered(each), 'results')
    assert 'Traceback' not in process.log()


def is_answered(peer: Peer) -> bool:
    """Whether a result has come; the publishers may not yet know of the subscriptions."""
    stamp_ns = peer.send(good(peer))
    time.sleep(0.05)
    return stamp_ns in peer.received['tracks']


def test_sigterm_under_load_ends_it_without_an_error(live):
    process, *peers = live
    assert peers[0].state() == 'active'
    for _ in range(100):
        for peer in peers:
            peer.send(good(peer))
    process.process.send_signal(signal.SIGTERM)
    for _ in range(20):
        peers[0].send(good(peers[0]))
    assert process.exit_code() == 0, process.log()
    assert 'Traceback' not in process.log()
