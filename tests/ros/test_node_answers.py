"""The node in this process, where a test may hold its network back and read its counts at once."""

from __future__ import annotations

import threading

import numpy as np
import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

import rclpy
from rclpy.signals import SignalHandlerOptions

from tests.ros.malformed import malformed_images
from tests.ros.node_process import Peer, new_domain, save_random_model, wait_for
from videomt_ros.ros.guards import GuardedExecutor
from videomt_ros.ros.node import SegmenterNode

pytestmark = pytest.mark.ros
IMAGE = np.random.default_rng(6).integers(0, 256, (60, 80, 3), np.uint8)


class SlowNetwork:
    """Makes a node's network wait in each step until it is let through."""

    def __init__(self, node: SegmenterNode) -> None:
        self.begun, self.gate = threading.Semaphore(0), threading.Semaphore(0)
        (model,) = node._models
        self._step = model.engine.step
        model.engine.step = self.step

    def step(self, *args):
        self.begun.release()
        self.gate.acquire()
        return self._step(*args)

    def has_begun(self) -> bool:
        return self.begun.acquire(blocking=False)


@pytest.fixture
def node(tmp_path):
    """A segmenter in this process, spun by one thread as its own main function does."""
    model = save_random_model(tmp_path / 'random.safetensors')
    arguments = ['--ros-args', '-r', '__ns:=/left', '-p', f'model:={model}']
    arguments += ['-p', 'input_reliability:=reliable']
    rclpy.init(
        args=arguments, domain_id=new_domain(), signal_handler_options=SignalHandlerOptions.NO
    )
    node = SegmenterNode()
    executor = GuardedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield node
    executor.shutdown()
    thread.join()
    node.close()
    rclpy.shutdown()


@pytest.fixture
def peer(node):
    peer = Peer(node.context.get_domain_id(), namespace='/left')
    peer.wait_for_state('active')
    peer.wait_until_heard()
    peer.subscribe('tracks')
    yield peer
    peer.close()


def test_it_answers_before_the_image_in_work_is_done(node, peer):
    network = SlowNetwork(node)
    stamp_ns = peer.send(IMAGE)
    wait_for(network.has_begun, 'the image to be in work')
    assert peer.state() == 'active'
    assert peer.set_parameters(score_threshold=0.25)[0].successful
    assert stamp_ns not in peer.received['tracks']
    network.gate.release()
    peer.results(stamp_ns)

    stamp_ns = peer.send(IMAGE)
    wait_for(network.has_begun, 'the image to be in work')
    before = peer.counts()
    assert peer.reset().success
    network.gate.release()
    # Its result belongs to the stream before the reset.
    wait_for(lambda: peer.counts()['dropped'] == before['dropped'] + 1, 'the end of the image')
    assert stamp_ns not in peer.received['tracks']

    # The process can end though the network does not.
    peer.send(IMAGE)
    wait_for(network.has_begun, 'the image to be in work')
    node._cameras.destroy(timeout_s=0.01)
    network.gate.release()


def test_an_image_in_work_is_not_published_after_a_pause(node, peer):
    network = SlowNetwork(node)
    stamp_ns = peer.send(IMAGE)
    wait_for(network.has_begun, 'the image to be in work')
    before = peer.counts()
    assert peer.enable(False).success
    network.gate.release()
    wait_for(lambda: peer.counts()['dropped'] == before['dropped'] + 1, 'the end of the image')
    assert stamp_ns not in peer.received['tracks']
    assert peer.enable(True).success


def test_it_answers_while_it_waits_for_the_image_in_work(node, peer):
    network = SlowNetwork(node)
    stamp_ns = peer.send(IMAGE)
    wait_for(network.has_begun, 'the image to be in work')
    deactivated = peer.begin_transition('deactivate')
    peer.wait_for_state('deactivating')
    assert not peer.change_state('deactivate')
    assert peer.set_parameters(score_threshold=0.25)[0].successful
    assert peer.reset().success
    shut_down = peer.begin_transition('shutdown')
    assert peer.state() == 'deactivating'
    assert not deactivated.done()
    network.gate.release()
    wait_for(shut_down.done, 'the end of the shutdown')
    assert deactivated.result().success
    assert shut_down.result().success
    assert peer.state() == 'finalized'
    assert stamp_ns not in peer.received['tracks']  # because of the reset


def test_diagnostics_name_the_node_in_full(node, peer):
    peer.counts()
    assert peer.health_name == '/left/segmenter: frames'


def test_malformed_images_are_counted_and_the_stream_goes_on(node, peer, capfd):
    eager = {'score_threshold': 0.0, 'mask_threshold': 0.3, 'confirm_frames': 1, 'min_area': 1}
    assert all(result.successful for result in peer.set_parameters(**eager))
    images = malformed_images()
    assert len(images) == 20
    before = peer.counts()
    for number, msg in enumerate(images.values(), 1):
        peer.send(msg)
        # Or the next one could take its place in the mailbox; the reports come once a second.
        wait_for(
            lambda number=number: (
                sum(node._reporter.health_of('', '').rejected.values()) == number
            ),
            f'{number} rejections',
        )
    peer.wait_for_rise(before, 20, rejected=20)
    assert peer.health['last_error'].startswith('Expected an encoding of rgb8')
    assert '32FC1' in peer.health['last_error']
    # Each reason has been logged, though they came within one second.
    log = capfd.readouterr().err
    for reason in (
        "got 'no_such_encoding'",
        'with pixels, got',
        'bytes of data',
        'It is an image',
    ):
        assert any('Image rejected: ' in x and reason in x for x in log.splitlines()), reason
    assert peer.ask(IMAGE)[0].tracks
