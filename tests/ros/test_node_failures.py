"""A segmenter that runs out of memory: its process may take no more than it has."""

from __future__ import annotations

import numpy as np
import psutil
import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import TransitionEvent

from tests.ros.node_process import NodeProcess, Peer, new_domain, save_random_model, wait_for

pytestmark = pytest.mark.ros
RNG = np.random.default_rng(6)
IMAGE = RNG.integers(0, 256, (64, 64, 3), np.uint8)
NETWORK = {'num_queries': 4000, 'patch_size': 16, 'test_size': 512, 'size_divisor': 16}
"""All masks that it makes of this image take 250 MiB in one piece."""
SPARE_BYTES = 2**27
"""What the process may take beside what it has between two images."""


@pytest.fixture
def run(tmp_path):
    """Starts a segmenter with little memory, and a peer that hears its tracks."""
    model = save_random_model(tmp_path / 'random.safetensors', **NETWORK)
    open_ = []

    def run_(**parameters: object) -> tuple[NodeProcess, Peer]:
        domain = new_domain()
        qos = {'input_reliability': 'reliable', 'input_depth': 100}
        process = NodeProcess(
            tmp_path / f'log{len(open_)}', domain, model=model, **qos, **parameters
        )
        open_.append(process)
        peer = Peer(domain)
        open_.append(peer)
        peer.transitions = []
        peer.node.create_subscription(
            TransitionEvent,
            'segmenter/transition_event',
            lambda msg: peer.transitions.append(msg.goal_state.label),
            10,
        )
        peer.errors = []
        peer.node.create_subscription(
            DiagnosticArray,
            '/diagnostics',
            lambda msg: peer.errors.extend(
                (status.name, status.message)
                for status in msg.status
                if status.level == DiagnosticStatus.ERROR
            ),
            10,
        )
        wait_for(peer.state, 'the node')
        return process, peer

    yield run_
    for entry in open_:
        entry.kill() if isinstance(entry, NodeProcess) else entry.close()


def take_memory(process: NodeProcess) -> None:
    """Let the process have little more memory than it has."""
    handle = psutil.Process(process.process.pid)
    limit = handle.memory_info().vms + SPARE_BYTES
    handle.rlimit(psutil.RLIMIT_AS, (limit, psutil.RLIM_INFINITY))


def give_memory(process: NodeProcess) -> None:
    handle = psutil.Process(process.process.pid)
    handle.rlimit(psutil.RLIMIT_AS, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))


def fail_once(peer: Peer) -> None:
    """Send an image, and wait until it has failed."""
    before = peer.counts()
    peer.send(IMAGE)
    peer.wait_for_rise(before, 1, failed=1)


def test_a_lack_of_memory_is_told_and_the_next_image_is_tried(run):
    process, peer = run(max_failures=2)
    peer.wait_for_state('active')
    peer.wait_until_heard()
    peer.subscribe('tracks')
    peer.ask(IMAGE)
    for _ in range(2):  # never two in a row
        take_memory(process)
        fail_once(peer)
        assert 'memory' in peer.health['last_error']
        assert float(peer.health['seconds_since_error']) >= 0
        # One report alone has this level; the failure is not new in those after it.
        name, message = wait_for(lambda: peer.errors and peer.errors.pop(), 'an error')
        assert name == '/segmenter: frames'
        assert 'Image not processed: RuntimeError' in message
        give_memory(process)
        peer.ask(IMAGE)
    assert peer.state() == 'active'
    process.wait_for_log('Image not processed: RuntimeError')
    assert process.end() == 0


def test_failures_in_a_row_lead_through_the_error_state(run):
    process, peer = run(max_failures=2, autostart=False)
    assert peer.change_state('configure')
    assert peer.change_state('activate')
    peer.wait_until_heard()
    peer.subscribe('tracks')
    peer.ask(IMAGE)
    take_memory(process)
    fail_once(peer)
    peer.send(IMAGE)
    peer.wait_for_state('unconfigured')
    wait_for(lambda: peer.transitions[-1:] == ['unconfigured'], 'the events of the transitions')
    assert peer.transitions[-3:] == ['deactivating', 'errorprocessing', 'unconfigured']
    process.wait_for_log('Inference failed on 2 images in a row (max_failures is 2), at last with')
    peer.counts()
    status = peer.statuses['/segmenter: model']
    assert status.level == DiagnosticStatus.ERROR
    assert 'Inference failed on 2 images in a row' in status.message

    # A manager may go on from there.
    give_memory(process)
    assert peer.change_state('configure')
    assert peer.change_state('activate')
    peer.wait_until_heard()
    peer.ask(IMAGE)
    peer.counts()
    assert peer.statuses['/segmenter: model'].level == DiagnosticStatus.OK
    assert process.end() == 0


def test_a_node_that_starts_itself_ends_with_an_error(run):
    process, peer = run(max_failures=1)
    peer.wait_for_state('active')
    peer.wait_until_heard()
    take_memory(process)
    peer.send(IMAGE)
    assert process.exit_code() == 1
    assert 'Inference failed on 1 images in a row' in process.log()
    assert 'Traceback' not in process.log()
