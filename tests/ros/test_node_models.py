"""Several models on one segmenter: what each gives is what it gives alone."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

from diagnostic_msgs.msg import DiagnosticStatus
from std_srvs.srv import Trigger

from tests.ros.node_process import (
    NodeProcess,
    Peer,
    ids_of,
    new_domain,
    pixels,
    save_random_model,
    save_random_pair,
    wait_for,
)
from tests.ros.test_node_failures import NETWORK, take_memory
from videomt_ros.datasets.synthetic.scene import Scene
from videomt_ros.inference import VideoStream
from videomt_ros.model import load_model

pytestmark = pytest.mark.ros
EAGER = {
    'score_threshold': 0.0,
    'mask_threshold': 0.3,
    'overlap_threshold': 0.0,
    'confirm_frames': 1,
    'min_area': 1,
}
RELIABLE = {'input_reliability': 'reliable', 'input_depth': 100, 'precision': 'fp32'}
SETTINGS = {**EAGER, **RELIABLE}
OWN = {'rear.mask_threshold': 0.45}
TASKS = ('instance', 'panoptic')


@pytest.fixture(scope='module')
def live(tmp_path_factory):
    """A segmenter with two cameras and two models on one encoder, and a peer for each camera."""
    folder, domain = tmp_path_factory.mktemp('models'), new_domain()
    paths = save_random_pair(folder)
    process = NodeProcess(
        folder / 'log',
        domain,
        models=f'[{paths[0]}, {paths[1]}]',
        cameras='[front, rear]',
        **SETTINGS,
        **OWN,
    )
    peers = [Peer(domain, camera=name) for name in ('front', 'rear')]
    try:
        for peer in peers:
            peer.wait_for_state('active')
            peer.wait_until_heard()
            for task in TASKS:
                peer.subscribe('tracks', 'instances', model=task)
        yield process, peers, [load_model(path) for path in paths]
        assert process.is_alive(), process.log()
    finally:
        for peer in peers:
            peer.close()
        process.kill()


@pytest.fixture
def peers(live):
    """The peers; the streams are as new, but for their counts."""
    _, peers, _ = live
    assert peers[0].call(Trigger, 'reset', Trigger.Request()).success
    return peers


def images(seed: int, height: int, width: int, number: int = 6) -> list[np.ndarray]:
    return [image for image, _ in Scene(seed, height, width, num_frames=number).frames()]


def check(messages, segments) -> int:
    """Compare what was published with the result of a stream; gives the number of tracks."""
    tracks, instances = messages
    # Sums of another order may move pixels of a border.
    assert np.mean(pixels(instances) != segments.ids) < 1e-3
    assert ids_of(tracks) == [s.track_id for s in segments.segments]
    assert [t.class_name for t in tracks.tracks] == [s.class_name for s in segments.segments]
    return len(tracks.tracks)


def values_of(peer: Peer, name: str) -> dict[str, str]:
    return {item.key: item.value for item in peer.statuses[name].values}


def test_each_model_publishes_for_each_camera_what_it_gives_alone(live, peers):
    process, _, nets = live
    assert '2 models run 1 encoder' in process.log()
    assert 'on panoptic/segmentation/...' in process.log()
    videos = [images(1, 96, 128), images(2, 80, 60)]
    thresholds = [EAGER, {**EAGER, 'mask_threshold': 0.45}]
    alone = [
        [VideoStream(net, hold_outliers=True, **settings) for net in nets]
        for settings in thresholds
    ]
    seen = 0
    for both in zip(*videos, strict=True):
        stamps = [peer.send(image) for peer, image in zip(peers, both, strict=True)]
        for peer, image, ns, streams in zip(peers, both, stamps, alone, strict=True):
            for task, stream in zip(TASKS, streams, strict=True):
                messages = peer.results(ns, f'{task}/tracks', f'{task}/instances')
                assert messages[0].model == stream.net.config.name
                seen += check(messages, stream.push(image, ns))
    assert seen > 20
    for peer, name, streams in zip(peers, ('front', 'rear'), alone, strict=True):
        for task, stream in zip(TASKS, streams, strict=True):
            status = f'/segmenter: {name} {task} frames'
            expected = f'{stream.state_norm:.2f}'
            wait_for(
                lambda peer=peer, status=status, expected=expected: (
                    status in peer.statuses
                    and values_of(peer, status).get('state_norm') == expected
                ),
                f'the norm {expected} of {status}',
            )
            values = values_of(peer, status)
            assert values['processed'] == values['received']
            assert float(values['state_norm_start']) > 0
    for task, net in zip(TASKS, nets, strict=True):
        values = values_of(peers[0], f'/segmenter: {task} model')
        assert (values['encoder'], values['model']) == ('shared', net.config.name)
        assert float(values['network_p50_ms']) > 0


def test_a_reset_begins_every_model_anew(peers):
    front, rear = peers
    videos = images(1, 96, 128), images(2, 80, 60)
    for k in range(3):
        first = front.ask(videos[0][k], 'instance/tracks', 'panoptic/tracks')
        other = rear.ask(videos[1][k], 'panoptic/tracks')
    assert all(map(ids_of, (*first, *other)))
    assert front.reset().success
    again = front.ask(videos[0][0], 'instance/tracks', 'panoptic/tracks')
    for old, new in zip(first, again, strict=True):
        assert new.resets == old.resets + 1
        assert {track.age for track in new.tracks} == {1}
        assert min(ids_of(new)) == 1
    (rest,) = rear.ask(videos[1][0], 'panoptic/tracks')
    assert rest.resets == other[0].resets


def test_a_class_of_one_model_filters_it_and_silences_the_other(peers):
    front, _ = peers
    image = images(1, 96, 128)[0]
    before = front.ask(image, 'instance/tracks', 'panoptic/tracks')
    assert all(tracks.tracks for tracks in before)
    (refused,) = front.set_parameters(class_filter=['cat'])
    assert not refused.successful
    assert "got 'cat'" in refused.reason
    try:
        assert front.set_parameters(class_filter=['sky', 'road'])[0].successful
        objects, stuff = front.ask(image, 'instance/tracks', 'panoptic/tracks')
        assert not objects.tracks
        assert {track.class_name for track in stuff.tracks} <= {'sky', 'road'}
    finally:
        assert front.set_parameters(class_filter=[])[0].successful
    assert all(tracks.tracks for tracks in front.ask(image, 'instance/tracks', 'panoptic/tracks'))


def test_models_that_share_nothing_run_side_by_side(tmp_path, start, make_peer):
    paths = [
        save_random_model(tmp_path / 'a.safetensors', architecture='pmt'),
        save_random_model(tmp_path / 'b.safetensors', num_queries=7),
    ]
    process, peer = start(models=f'[{paths[0]}, {paths[1]}]', **SETTINGS), make_peer()
    peer.wait_for_state('active')
    peer.wait_until_heard()
    labels = ('random', 'random_2')  # one task, one name
    for label in labels:
        peer.subscribe('tracks', 'instances', model=label)
    assert process.log().count('do not share an encoder, since that of random was trained') == 1
    streams = [VideoStream(load_model(path), **EAGER) for path in paths]
    for image in images(3, 64, 96, 3):
        ns = peer.send(image)
        for label, stream in zip(labels, streams, strict=True):
            messages = peer.results(ns, f'{label}/tracks', f'{label}/instances')
            assert check(messages, stream.push(image, ns))
    wait_for(lambda: '/segmenter: random_2 model' in peer.statuses, 'the status of the model')
    assert values_of(peer, '/segmenter: random_2 model')['encoder'] == 'own'


def test_a_bad_second_model_is_named_and_nothing_runs(tmp_path, start):
    path = save_random_model(tmp_path / 'a.safetensors')
    bad = tmp_path / 'b.safetensors'
    bad.write_bytes(path.read_bytes()[:1000])
    process = start(models=f'[{path}, {bad}]')
    assert process.exit_code() == 1
    (line,) = [line for line in process.log().splitlines() if 'Not configured' in line]
    assert f"Model '{bad}': " in line


def test_a_model_that_fails_leaves_the_other_its_results(tmp_path, start, make_peer):
    small = save_random_model(tmp_path / 'a.safetensors')
    large = save_random_model(tmp_path / 'b.safetensors', task='panoptic', **NETWORK)
    process = start(models=f'[{small}, {large}]', max_failures=2, **RELIABLE)
    peer = make_peer()
    peer.wait_for_state('active')
    peer.wait_until_heard()
    peer.subscribe('tracks', model='instance')
    image = images(3, 64, 64, 1)[0]
    frames = '/segmenter: panoptic frames'
    for n in range(6):
        if n == 2:
            take_memory(process)
        peer.ask(image, 'instance/tracks')
    wait_for(lambda: int(values_of(peer, frames)['failed']) >= 4, 'the failures')
    values = values_of(peer, frames)
    assert (values['processed'], values['received']) == ('2', '6')
    wait_for(
        lambda: values_of(peer, '/segmenter: instance frames')['processed'] == '6', 'the results'
    )
    assert 'Camera (panoptic): Image not processed' in process.log()
    assert peer.state() == 'active'
    assert peer.statuses['/segmenter: instance frames'].level != DiagnosticStatus.ERROR


def test_other_models_are_configured_after_a_cleanup(tmp_path, start, make_peer):
    one, two = save_random_pair(tmp_path)
    process, peer = start(models=f'[{one}, {two}]', **SETTINGS), make_peer()
    peer.wait_for_state('active')
    peer.wait_until_heard()
    image = images(3, 64, 96, 1)[0]
    for task in TASKS:
        peer.subscribe('tracks', 'instances', model=task)
    peer.ask(image, 'instance/tracks', 'panoptic/tracks')
    (refused,) = peer.set_parameters(models=[str(two)])
    assert not refused.successful
    assert 'cannot change while a model is loaded' in refused.reason
    # The last of these has two models of one file.
    for models, labels in (([two], ['']), ([one, one], ['objects/', 'objects_2/'])):
        assert peer.change_state('deactivate')
        assert peer.change_state('cleanup')
        assert peer.set_parameters(models=[str(path) for path in models])[0].successful
        assert peer.change_state('configure')
        assert peer.change_state('activate')
        peer.wait_until_heard()
        for label in labels:
            peer.subscribe('tracks', 'instances', model=label.strip('/'))
        ns = peer.send(image)
        for path, label in zip(models, labels, strict=True):
            messages = peer.results(ns, f'{label}tracks', f'{label}instances')
            assert check(messages, VideoStream(load_model(path), **EAGER).push(image, ns))
    assert 'Traceback' not in process.log()
    peer.statuses.clear()
    wait_for(lambda: '/segmenter: objects_2 model' in peer.statuses, 'the status of the model')
    assert '/segmenter: panoptic model' not in peer.statuses
