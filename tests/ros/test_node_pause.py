"""Cameras that are paused and resumed, and a simulated clock that jumps back."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rosgraph_msgs.msg import Clock

from tests.ros.node_process import (
    NodeProcess,
    Peer,
    ids_of,
    new_domain,
    save_random_model,
    wait_for,
)

pytestmark = pytest.mark.ros
IMAGE = np.random.default_rng(6).integers(0, 256, (60, 80, 3), np.uint8)
SETTINGS = {
    'input_reliability': 'reliable',
    'score_threshold': 0.0,
    'mask_threshold': 0.3,
    'confirm_frames': 1,
    'min_area': 1,
}
SECOND_NS = 1_000_000_000


@pytest.fixture
def start(tmp_path):
    """Starts a segmenter, and a peer for each of its cameras."""
    model = save_random_model(tmp_path / 'random.safetensors')
    open_ = []

    def start_(*cameras: str, **parameters: object) -> list[Peer]:
        domain = new_domain()
        names = {'cameras': f'[{", ".join(cameras)}]'} if cameras else {}
        settings = {**SETTINGS, **names, **parameters}
        open_.append(NodeProcess(tmp_path / 'log', domain, model=model, **settings))
        peers = [Peer(domain, camera=camera) for camera in cameras or ('',)]
        open_.extend(peers)
        for peer in peers:
            peer.wait_for_state('active')
            peer.wait_until_heard()
            peer.subscribe('tracks')
        return peers

    yield start_
    for entry in open_:
        entry.kill() if isinstance(entry, NodeProcess) else entry.close()


def state_of(peer: Peer) -> str:
    peer.counts()
    return peer.health['state']


def wait_until_unheard(peer: Peer) -> None:
    wait_for(lambda: not peer.images.get_subscription_count(), 'the end of the subscription')


def test_a_camera_is_paused_alone_and_its_ids_go_on(start):
    front, rear = start('front', 'rear')
    before = ids_of(front.ask(IMAGE)[0])
    assert before
    assert front.enable(False, 'front').success
    wait_until_unheard(front)
    assert state_of(front) == 'disabled'
    assert front.statuses['/segmenter: front frames'].level == DiagnosticStatus.OK
    assert state_of(rear) == 'active'
    rear.ask(IMAGE)

    assert front.enable(True, 'front').success
    front.wait_until_heard()
    assert ids_of(front.ask(IMAGE)[0]) == before  # by their stamps, nothing has been missed
    assert state_of(front) == 'active'
    assert front.health['missing'] == '0'


def test_all_cameras_are_paused_over_a_deactivation(start):
    peers = start('front', 'rear')
    for peer in peers:
        peer.ask(IMAGE)
    assert peers[0].enable(False).success
    for peer in peers:
        wait_until_unheard(peer)
    assert peers[0].change_state('deactivate')
    assert peers[0].change_state('activate')
    assert [state_of(peer) for peer in peers] == ['disabled', 'disabled']
    assert not any(peer.images.get_subscription_count() for peer in peers)
    assert peers[0].enable(True).success
    for peer in peers:
        peer.wait_until_heard()
        peer.ask(IMAGE)


def test_a_jump_of_the_clock_begins_a_new_video(start):
    (peer,) = start(use_sim_time=True)
    clock = peer.node.create_publisher(Clock, '/clock', 10)
    times_s = []
    peer.node.create_subscription(
        DiagnosticArray, '/diagnostics', lambda msg: times_s.append(msg.header.stamp.sec), 10
    )

    def set_clock(time_s: int) -> None:
        def is_set() -> bool:
            # The subscription is best effort, so a single message may be lost.
            msg = Clock()
            msg.clock.sec = time_s
            clock.publish(msg)
            return times_s[-1:] == [time_s]

        wait_for(is_set, f'the time {time_s} in the diagnostics')

    set_clock(1000)
    stamp_ns = 1000 * SECOND_NS
    (first,) = peer.ask(IMAGE, stamp_ns=stamp_ns)
    set_clock(1001)
    (second,) = peer.ask(IMAGE)
    assert (first.resets, second.resets) == (0, 0)
    assert ids_of(first) == ids_of(second)

    set_clock(900)
    (third,) = peer.ask(IMAGE)
    assert third.resets == 1
    assert min(ids_of(third)) > max(ids_of(second))
    (fourth,) = peer.ask(IMAGE)
    assert (fourth.resets, ids_of(fourth)) == (1, ids_of(third))
    peer.counts()
    assert peer.health['resets_clock_jump'] == '1'

    # Stamps that go back before the clock does are one reset, not two.
    before = peer.counts()
    peer.send(IMAGE, stamp_ns=800 * SECOND_NS)
    peer.wait_for_rise(before, 1, dropped=1)  # an outlier, as far as one image shows
    (fifth,) = peer.ask(IMAGE)
    assert fifth.resets == 2
    set_clock(800)
    (sixth,) = peer.ask(IMAGE)
    assert (sixth.resets, ids_of(sixth)) == (2, ids_of(fifth))
