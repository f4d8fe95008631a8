"""Camera, segmenter and listener are killed and come back, in every order and with every QoS."""

from __future__ import annotations

import itertools
import time

import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

from tests.ros.node_process import NodeProcess, new_domain, save_random_model, wait_for
from tests.ros.peer_process import PeerProcess

pytestmark = pytest.mark.ros
PAIRS = tuple(itertools.product(('reliable', 'best_effort'), repeat=2))
"""Reliability of the camera and of the listener."""
ORDERS = tuple(itertools.permutations(('camera', 'segmenter', 'listener')))


class Parts:
    """The three processes on one domain."""

    def __init__(self, folder, model):
        self._folder, self._model = folder, model
        self._domain = new_domain()
        self._running = {}
        self._starts = 0

    def start(self, part, reliability=''):
        assert part not in self._running
        self._starts += 1
        if part == 'segmenter':
            log = self._folder / f'{self._starts}.log'
            started = NodeProcess(log, self._domain, model=self._model)
        else:
            started = PeerProcess(self._domain, part, reliability)
        self._running[part] = started

    def kill(self, part):
        self._running.pop(part).kill()

    def end(self, part):
        self._running.pop(part).end()

    def wait_for_results(self, what):
        """Wait until the listener hears of an image that was taken after now."""
        now_ns = time.time_ns()
        wait_for(lambda: self._running['listener'].newest_ns > now_ns, f'results after {what}')

    def close(self):
        while self._running:
            self.kill(next(iter(self._running)))


@pytest.fixture
def parts(tmp_path):
    model = save_random_model(tmp_path / 'random.safetensors')
    parts = Parts(tmp_path, model)
    yield parts
    parts.close()


def test_all_are_killed_and_come_back_in_every_order(parts):
    # What was killed stays listed for 20 s or so, and so do the killed of several rounds.
    for number, order in enumerate(ORDERS):
        camera, listener = PAIRS[number % len(PAIRS)]
        for part in order:
            parts.start(part, {'camera': camera, 'listener': listener}.get(part, ''))
        parts.wait_for_results(f'starting {order}, camera {camera}, listener {listener}')
        for part in order[number % 3 :] + order[: number % 3]:
            parts.kill(part)


def test_peers_are_killed_or_end_and_come_back_with_every_qos(parts):
    parts.start('segmenter')
    parts.start('camera', 'reliable')
    parts.start('listener', 'reliable')
    parts.wait_for_results('the start')
    for number, (camera, listener) in enumerate(PAIRS):
        leave = (parts.kill, parts.end)[number % 2]
        leave('listener')
        parts.start('listener', listener)
        parts.wait_for_results(f'a new listener, {listener}')
        leave('camera')
        parts.start('camera', camera)
        parts.wait_for_results(f'a new camera, {camera}')
    for order in (('camera', 'listener'), ('listener', 'camera')):
        parts.kill(order[1])
        parts.kill(order[0])
        for part in order:
            parts.start(part, 'best_effort')
        parts.wait_for_results(f'new {order}')
