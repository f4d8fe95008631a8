"""The segmenter's life: start, transitions, what it needs, and its end."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

from tests.ros.node_process import (
    BEST_EFFORT,
    RELIABLE,
    save_random_model,
    wait_for,
)

pytestmark = pytest.mark.ros
IMAGE = np.random.default_rng(6).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp('model') / 'random.safetensors')


def test_cycles_give_the_memory_back(start, make_peer, tmp_path):
    # 58 MB of weights: one copy that stayed behind would show.
    large = save_random_model(tmp_path / 'large.safetensors', embed_dim=768, depth=2, num_heads=12)
    process = start(autostart=False, model='no/such/model.pth', input_reliability='reliable')
    peer = make_peer()
    assert peer.state() == 'unconfigured'

    # A model that is not there leaves the node as it was, with one line that says why.
    assert not peer.change_state('configure')
    assert peer.state() == 'unconfigured'
    (line,) = [line for line in process.log().splitlines() if 'Not configured' in line]
    assert 'no/such/model.pth' in line
    assert peer.set_parameters(model=str(large))[0].successful

    freed_mb, left_mb, threads = [], [], []
    for cycle in range(5):
        assert peer.change_state('configure')
        assert peer.state() == 'inactive'
        if cycle == 0:
            peer.subscribe('tracks')
        assert peer.change_state('activate')
        peer.wait_until_heard()
        wait_for(
            lambda: peer.node.count_publishers('segmentation/tracks') == 1, 'the tracks topic'
        )
        # Ids begin at 1 again, and consumers learn it.
        assert peer.ask(IMAGE)[0].resets == cycle
        assert peer.change_state('deactivate')
        wait_for(lambda: not peer.images.get_subscription_count(), 'the end of the subscription')
        loaded_mb = process.memory_mb()
        assert peer.change_state('cleanup')
        left_mb.append(process.memory_mb())
        freed_mb.append(loaded_mb - left_mb[-1])
        threads.append(process.num_threads())
    assert min(freed_mb) > 40, freed_mb
    assert left_mb[-1] < left_mb[0] + 30, left_mb
    assert threads[-1] <= threads[0], threads
    assert process.end() == 0
    assert 'Traceback' not in process.log()


def test_signals_end_it_cleanly(start, make_peer, model):
    signals = {'/interrupted': signal.SIGINT, '/terminated': signal.SIGTERM}
    # Both start at once: most of a start is imports.
    processes = {name: start('-r', f'__ns:={name}', model=model) for name in signals}
    for name, process in processes.items():
        peer = make_peer(RELIABLE, name)
        peer.wait_for_state('active')
        peer.wait_until_heard()
        # In the middle of work, and twice, as a terminal and a launch file do it.
        for _ in range(5):
            peer.send(IMAGE)
        process.process.send_signal(signals[name])
        assert process.end(signals[name]) == 0, process.log()
        assert 'Traceback' not in process.log()


def test_the_end_leaves_no_shared_memory(start, model):
    # Without a peer, whose segments the node would map too.
    process = start(model=model)
    process.wait_for_log('Listening')
    maps = Path('/proc', str(process.process.pid), 'maps').read_text()
    segments = {Path(name) for name in re.findall(r'/dev/shm/fastrtps_(?!port)\w+', maps)}
    if not segments:
        pytest.skip('the middleware uses no shared memory here')
    assert process.end() == 0
    assert not [path for path in segments if path.exists()]


def test_a_signal_ends_a_load(start, model):
    process = start(model=model)
    process.wait_for_log('Loading')
    assert process.end() == 0
    assert 'Traceback' not in process.log()


@pytest.mark.parametrize('library', ['rclpy', 'torch'])
def test_a_signal_ends_the_imports(start, model, library):
    """Those before the node is up, and those of its first configure."""
    process = start(model=model)
    folder = importlib.util.find_spec(library).origin.removesuffix('__init__.py')
    # Once one of its own libraries is mapped, its import is under way.
    maps = Path('/proc', str(process.process.pid), 'maps')
    wait_for(lambda: folder in maps.read_text(), f'the import of {library}')
    assert process.end() == 0
    assert 'Traceback' not in process.log()


def test_what_it_cannot_do_ends_it_with_one_line(start, model, tmp_path):
    others = tmp_path / 'others.yaml'
    others.write_text('segmentor:\n  ros__parameters:\n    score_threshold: 0.9\n')
    processes = {
        "'scoer_threshold'. The nearest is 'score_threshold'": start(
            '--params-file', str(others), model=model, scoer_threshold=0.9
        ),
        'Expected a model': start(),
        '/no/such/model.pth': start(model='/no/such/model.pth'),
        'score_threshold': start(score_threshold=2.0),
        'zebra': start(model=model, class_filter='[zebra]'),
    }
    for reason, process in processes.items():
        assert process.exit_code() == 1
        log = process.log()
        assert 'Traceback' not in log
        (line,) = [line for line in log.splitlines() if 'ERROR' in line or 'FATAL' in line]
        assert reason in line
    log = next(iter(processes.values())).log()
    assert 'others.yaml has no section for the node /segmenter, only for /segmentor.' in log
    (values,) = (
        line.partition('Parameters: ')[2] for line in log.splitlines() if 'Parameters: ' in line
    )
    assert json.loads(values)['score_threshold'] == 0.5


def test_a_manager_learns_of_a_misspelt_parameter(start, make_peer):
    start(autostart=False, scoer_threshold=0.9)
    peer = make_peer()
    peer.wait_for_warning("'scoer_threshold'. The nearest is 'score_threshold'")
    assert not peer.change_state('configure')
    assert peer.state() == 'unconfigured'


def test_other_cameras_are_served_after_a_parameter_named_them(start, make_peer, model):
    start(model=model, cameras='[front, rear]', autostart=False)
    peer = make_peer(RELIABLE, '', 'left')
    assert peer.set_parameters(cameras=['rear', 'left'])[0].successful
    (refused, accepted) = peer.set_parameters(**{'front.min_area': 5, 'left.confirm_frames': 1})
    assert 'undeclared' in refused.reason
    assert accepted.successful
    assert peer.change_state('configure')
    assert peer.change_state('activate')
    peer.wait_until_heard()
    peer.subscribe('tracks')
    assert peer.ask(IMAGE)


def test_names_namespaces_and_remappings(start, make_peer, model):
    start('-r', '__ns:=/robot', '-r', 'image_raw:=/image_raw', model=model)
    peer = make_peer()
    peer.wait_until_heard()
    # Topics and services become known one after the other.
    topic, service = '/robot/segmentation/tracks', '/robot/segmenter/reset'
    wait_for(lambda: topic in dict(peer.node.get_topic_names_and_types()), topic)
    kinds = wait_for(lambda: dict(peer.node.get_service_names_and_types()).get(service), service)
    assert kinds == ['std_srvs/srv/Trigger']


def test_any_reliability_is_heard_and_a_mismatch_is_not_silent(start, make_peer, model):
    # Beside the other from the start, since it takes seconds to complain.
    picky = start('-r', '__ns:=/picky', model=model, input_reliability='reliable')
    picky_peer = make_peer(BEST_EFFORT, '/picky')
    start(model=model)
    for qos in (RELIABLE, BEST_EFFORT):
        peer = make_peer(qos)
        peer.wait_for_state('active')
        peer.wait_until_heard()
        peer.subscribe('tracks', qos=qos)
        # Best effort may lose an image, so the camera goes on until one has come through.
        wait_for(
            lambda peer=peer: peer.send(IMAGE) and peer.received['tracks'],
            f'tracks of a camera with {qos.reliability}',
        )
        peer.close()
    picky.wait_for_log('incompatible QoS')
    reason = 's on /picky/image_raw: its QoS is incompatible: input_reliability is reliable'
    picky.wait_for_log(reason)
    picky_peer.wait_for_warning(reason, '/picky/peer (best_effort)')
