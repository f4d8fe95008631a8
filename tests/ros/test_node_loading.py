"""A segmenter whose model comes from a hub that does not answer, until the test lets it."""

from __future__ import annotations

import signal

import numpy as np
import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

from lifecycle_msgs.srv import GetAvailableTransitions

from tests.hub import Gate, save_tiny_model, serve
from tests.ros.node_process import save_random_model, wait_for

pytestmark = pytest.mark.ros
IMAGE = np.random.default_rng(6).integers(0, 256, (60, 80, 3), np.uint8)
NAMES = ('one', 'two', 'three', 'four')


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """Stands before the weights of owner/one, owner/two and so on."""
    save_tiny_model(tmp_path / 'hub', *NAMES)
    gate = Gate(*NAMES)
    with serve(tmp_path / 'hub', gate) as settings:
        for name, value in {**settings, 'HF_HOME': str(tmp_path / 'home')}.items():
            monkeypatch.setenv(name, value)
        yield gate


def begin_to_load(peer, gate, name):
    assert peer.set_parameters(model=f'owner/{name}')[0].successful
    reply = peer.begin_transition('configure')
    wait_for(lambda: name in gate.asked, f'the download of {name}')
    return reply


def test_it_answers_while_it_loads(gate, start, make_peer):
    process, peer = start(autostart=False, input_reliability='reliable'), make_peer()
    reply = begin_to_load(peer, gate, 'one')
    assert peer.state() == 'configuring'
    peer.counts()
    assert peer.health['state'] == 'configuring'
    status = peer.statuses['/segmenter: model']
    values = {item.key: item.value for item in status.values}
    assert values['state'] == 'configuring'
    assert float(values['seconds_in_state']) > 0
    assert status.message == 'No model, configuring.'

    eager = {'score_threshold': 0.0, 'confirm_frames': 1, 'min_area': 1, 'mask_threshold': 0.1}
    assert all(result.successful for result in peer.set_parameters(**eager))
    (refusal,) = peer.set_parameters(model='demo')
    assert not refusal.successful
    assert 'model cannot change while a model is being loaded' in refusal.reason

    for transition in ('configure', 'activate', 10, 30, 99):
        assert not peer.change_state(transition)
    assert not peer.change_state(0, 'transition_success')
    process.wait_for_log("Transition 'activate' refused: the node is configuring. Ask again")
    kind = GetAvailableTransitions
    listed = peer.call(kind, 'get_available_transitions', kind.Request()).available_transitions
    assert {(x.transition.label, x.goal_state.label) for x in listed} == {
        ('cleanup', 'unconfigured'),
        ('deactivate', 'unconfigured'),
        ('shutdown', 'finalized'),
    }
    assert peer.state() == 'configuring'
    assert not reply.done()

    gate.open('one')
    wait_for(reply.done, 'the end of the load')
    assert reply.result().success
    assert peer.state() == 'inactive'
    assert peer.change_state('activate')
    peer.wait_until_heard()
    peer.subscribe('tracks')
    assert peer.ask(IMAGE)[0].tracks  # none has the score or the age of the defaults


def test_a_request_ends_the_load(gate, start, make_peer, tmp_path):
    process, peer = start(autostart=False), make_peer()
    for transition, name in (('cleanup', 'one'), ('deactivate', 'two')):
        reply = begin_to_load(peer, gate, name)
        assert peer.change_state(transition)
        wait_for(reply.done, 'the end of configure')
        assert not reply.result().success
        assert peer.state() == 'unconfigured'

    # The abandoned downloads still wait, and disturb nothing.
    model = save_random_model(tmp_path / 'random.safetensors')
    assert peer.set_parameters(model=str(model))[0].successful
    assert peer.change_state('configure')
    gate.open('one', 'two')
    assert peer.change_state('activate')
    assert peer.change_state('deactivate')
    assert peer.change_state('cleanup')

    reply = begin_to_load(peer, gate, 'three')
    assert peer.change_state('shutdown')
    wait_for(reply.done, 'the end of configure')
    assert not reply.result().success
    assert peer.state() == 'finalized'
    assert process.end() == 0
    log = process.log()
    assert 'Traceback' not in log
    assert 'Not configured' not in log


def test_autostart_answers_too_and_ends_as_it_is_told(gate, start, make_peer):
    processes, peers = {}, {}
    for name in NAMES:
        namespace = f'/{name}'
        arguments = ['-r', f'__ns:={namespace}']
        processes[name] = start(*arguments, model=f'owner/{name}')
        peers[name] = make_peer(namespace=namespace)
    wait_for(lambda: gate.asked == set(NAMES), 'the downloads')
    for peer in peers.values():
        assert peer.state() == 'configuring'

    assert peers['one'].change_state('shutdown')
    assert peers['one'].state() == 'finalized'
    assert processes['one'].end() == 0

    for name, number in (('two', signal.SIGTERM), ('three', signal.SIGINT)):
        assert processes[name].end(number) == 0

    gate.open('four')
    peers['four'].wait_for_state('active')
    assert processes['four'].end() == 0
    for process in processes.values():
        assert 'Traceback' not in process.log()
