"""One model of things and stuff, in each task; and a device that is not there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

from tests.ros.node_process import NodeProcess, Peer, new_domain, pixels, save_random_model

pytestmark = pytest.mark.ros
IMAGE = np.random.default_rng(6).integers(0, 256, (90, 120, 3), np.uint8)
THINGS = (True, True, False, False)
EAGER = {'score_threshold': 0.0, 'mask_threshold': 0.3, 'overlap_threshold': 0.0}


@pytest.fixture(scope='module')
def live(tmp_path_factory):
    """A segmenter that waits to be configured."""
    folder, domain = tmp_path_factory.mktemp('tasks'), new_domain()
    model = save_random_model(
        folder / 'random.safetensors',
        class_names=('person', 'car', 'sky', 'road'),
        thing_classes=THINGS,
        task='panoptic',
    )
    settings = {**EAGER, 'confirm_frames': 1, 'min_area': 1, 'input_reliability': 'reliable'}
    process = NodeProcess(folder / 'log', domain, model=model, autostart=False, **settings)
    peer = Peer(domain)
    try:
        assert peer.state() == 'unconfigured'
        yield process, peer
        assert process.is_alive(), process.log()
    finally:
        peer.close()
        process.kill()


@pytest.fixture
def ask(live):
    """Processes one image in a task; the node is unconfigured before and after."""
    _, peer = live

    def ask_(task: str):
        assert peer.set_parameters(task=task)[0].successful
        assert peer.change_state('configure')
        peer.subscribe('tracks', 'instances', 'semantic')
        assert peer.change_state('activate')
        peer.wait_until_heard()
        return peer.ask(IMAGE)

    yield ask_
    peer.unsubscribe()
    assert peer.change_state('deactivate')
    assert peer.change_state('cleanup')


@pytest.mark.parametrize('task', ['panoptic', 'semantic'])
def test_stuff_has_ids_and_labels_like_things(ask, task):
    tracks, instances, semantic = ask(task)
    ids, labels = pixels(instances), pixels(semantic)
    stuff = [track for track in tracks.tracks if not track.is_thing]
    assert stuff
    assert set(np.unique(ids)) - {0} == {track.id for track in tracks.tracks}
    for track in tracks.tracks:
        assert track.is_thing == THINGS[track.class_id]
        assert (labels[ids == track.id] == track.class_id).all()
    if task == 'semantic':
        assert ids.all()  # no pixel without a label
        assert all(track.id == track.class_id + 1 for track in tracks.tracks)
    stuff_classes = [track.class_id for track in stuff]
    assert len(stuff_classes) == len(set(stuff_classes))


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_device_that_is_not_there_is_named_in_one_line(live):
    process, peer = live
    assert peer.set_parameters(device='cuda')[0].successful
    assert not peer.change_state('configure')
    assert peer.state() == 'unconfigured'
    assert peer.set_parameters(device='auto')[0].successful
    (line,) = [line for line in process.log().splitlines() if 'Not configured' in line]
    assert 'cuda' in line
    assert 'Traceback' not in process.log()
