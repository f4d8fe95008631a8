"""A segmenter whose network is run by another engine, or by one that cannot be built."""

from __future__ import annotations

import signal
import time

import numpy as np
import psutil
import pytest
import torch

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

from tests.ros.node_process import wait_for
from videomt_ros.datasets.synthetic.scene import Scene
from videomt_ros.engines.onnx_export import export_onnx
from videomt_ros.inference import VideoStream
from videomt_ros.model import load_model

pytestmark = pytest.mark.ros
SETTINGS = {
    'input_reliability': 'reliable',
    'input_size': 64,
    'image_width': 144,
    'image_height': 96,
    'precision': 'fp32',
}
FRAMES = [image for image, _ in Scene(3, height=96, width=144, num_frames=4).frames()]


def assert_results_are_those_of_the_network(peer):
    """The ids of every frame are those that a stream of the network gives."""
    peer.wait_for_state('active')
    peer.wait_until_heard()
    peer.subscribe('instances')
    stream = VideoStream(load_model('demo'), input_size=64)
    seen = 0
    for image in FRAMES:
        stamp_ns = peer.send(image)
        (message,) = peer.results(stamp_ns, 'instances')
        expected = stream.push(image, stamp_ns)
        ids = np.frombuffer(message.data, np.uint16).reshape(expected.ids.shape)
        assert np.array_equal(ids, expected.ids)
        seen += len(expected.segments)
    assert seen


def engine_told(peer):
    """The name of the engine in the diagnostics of the model."""
    peer.counts()
    values = peer.statuses['/segmenter: model'].values
    return {item.key: item.value for item in values}['engine']


@pytest.mark.usefixtures('compiled')  # so that the node finds the program, as after a start
def test_a_compiled_network_gives_its_ids_and_other_sizes_go_on(start, make_peer):
    process = start(model='demo', engine='compiled', **SETTINGS)
    peer = make_peer()
    assert_results_are_those_of_the_network(peer)
    assert engine_told(peer) == 'compiled'

    node = psutil.Process(process.process.pid)
    assert not node.children()
    peer.received['instances'].clear()

    def goes_on():
        # A first frame of another size may be an outlier, until a second one follows.
        peer.send(np.zeros((96, 96, 3), np.uint8))
        time.sleep(0.2)
        return peer.received['instances']

    wait_for(goes_on, 'results of another size')
    (compiler, *_) = wait_for(node.children, 'the process that compiles')
    for _ in range(3):
        peer.results(peer.send(np.zeros((96, 96, 3), np.uint8)), 'instances')
    assert process.end(signal.SIGINT) == 0
    wait_for(lambda: not compiler.is_running() or compiler.status() == 'zombie', 'its end')


def test_a_network_that_cannot_be_compiled_runs_as_it_is(start, make_peer, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('CXX', '/nowhere/g++')
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path / 'inductor'))
    process = start(model='demo', engine='compiled', **SETTINGS)
    peer = make_peer()
    assert_results_are_those_of_the_network(peer)
    assert engine_told(peer) == 'eager'
    assert 'could not be compiled for frames of 1 x 64 x 96' in process.log()
    assert 'apt install g++' in process.log()


def test_an_onnx_file_is_a_model(start, make_peer, tmp_path):
    path = tmp_path / 'robot.onnx'
    export_onnx(load_model('demo'), path, (64, 96), torch.float32)
    start(model=path, engine='onnxruntime', **SETTINGS)
    peer = make_peer()
    assert_results_are_those_of_the_network(peer)
    assert engine_told(peer) == 'onnxruntime'


def test_an_onnx_file_needs_its_engine(start, make_peer, tmp_path):
    (tmp_path / 'robot.onnx').write_bytes(b'')
    process = start(model=tmp_path / 'robot.onnx', autostart=True)
    assert process.exit_code() == 1
    assert 'Expected the engine onnxruntime for an ONNX file, got eager' in process.log()


def test_a_provider_that_is_not_there_is_told(start, make_peer):
    process = start(model='demo', engine='onnxruntime', providers='cuda', **SETTINGS)
    make_peer().wait_for_state('active')
    assert 'Expected providers for the device cpu, got cuda' in process.log()
