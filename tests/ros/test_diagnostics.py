"""The statuses on `/diagnostics`: their levels, and the age of the last error."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip('diagnostic_msgs.msg', reason='needs ROS')

from videomt_ros.ros import health as health_module
from videomt_ros.ros.diagnostics import (
    ERROR,
    ERROR_SHOWN_S,
    OK,
    WARN,
    CameraDiagnostics,
    model_status,
)
from videomt_ros.ros.health import DROP_REASONS, CameraHealth, ModelHealth, Rate
from videomt_ros.ros.parameters import NodeParameters
from videomt_ros.ros.withheld import explain_withheld

pytestmark = pytest.mark.ros


class Camera:
    """The counts of a camera and its reports."""

    def __init__(self, **thresholds: float) -> None:
        self.health = CameraHealth()
        self._diagnostics = CameraDiagnostics(self.health)
        self._parameters = NodeParameters(**thresholds)

    def report(self, *troubles: str, silent_s: float = 0.1):
        """Level, message and values of a status."""
        msg = self._diagnostics.to_msg(
            'segmenter: frames', 'cpu', 'active', self._parameters, troubles, silent_s
        )
        return msg.level, msg.message, {item.key: item.value for item in msg.values}


@pytest.fixture
def now_s(monkeypatch):
    """The time in seconds, which a test may move."""
    now_s = [100.0]
    monkeypatch.setattr(health_module, 'time', SimpleNamespace(monotonic=lambda: now_s[0]))
    return now_s


def test_an_error_has_an_age_and_ends_to_be_current(now_s):
    camera = Camera()
    level, _, values = camera.report()
    assert (level, values['last_error']) == (OK, '')
    assert 'seconds_since_error' not in values
    camera.health.count_rejected('data', 'no pixels')
    level, _, values = camera.report()
    assert (level, values['last_error'], values['rejected_data']) == (WARN, 'no pixels', '1')
    now_s[0] += 2.5
    level, _, values = camera.report()
    assert (level, values['last_error']) == (OK, 'no pixels')
    assert values['seconds_since_error'] == '2.5'
    now_s[0] += ERROR_SHOWN_S
    _, _, values = camera.report()
    assert values['last_error'] == ''
    assert values['seconds_since_error'] == '62.5'


def test_images_that_a_parameter_drops_for_long_are_told(now_s):
    health, rate = CameraHealth(), NodeParameters(max_rate_hz=0.1)
    stale = NodeParameters(stale_after_s=2.0)
    health.count_dropped('stale')
    assert not explain_withheld(health, stale, 0.1)
    now_s[0] += 6.0
    assert 'No result for 6 s: 1 images were dropped by stale_after_s = 2.' in explain_withheld(
        health, stale, 0.1
    )
    assert not explain_withheld(health, stale, None)  # not active
    assert not explain_withheld(health, stale, 9.0)  # silent, which is told elsewhere
    assert not explain_withheld(health, NodeParameters(), 0.1)  # switched off since
    health.count_processed(5.0)
    assert not explain_withheld(health, stale, 0.1)
    health.count_dropped('rate')
    now_s[0] += 15.0
    assert not explain_withheld(health, rate, 0.1)  # one result in 10 s was asked for
    now_s[0] += 6.0
    assert 'max_rate_hz = 0.1' in explain_withheld(health, rate, 0.1)


def test_the_norm_of_the_state_is_told_beside_that_at_the_start():
    camera = Camera()
    assert 'state_norm' not in camera.report()[2]
    for norm, started_anew in ((20.0, True), (21.5, False), (22.25, False)):
        camera.health.keep_state_norm(norm, started_anew)
    values = camera.report()[2]
    assert (values['state_norm'], values['state_norm_start']) == ('22.25', '20.00')
    camera.health.keep_state_norm(float('nan'), False)
    assert camera.report()[2]['state_norm'] == 'nan'
    camera.health.keep_state_norm(19.0, True)
    values = camera.report()[2]
    assert (values['state_norm'], values['state_norm_start']) == ('19.00', '19.00')


def test_troubles_warn_until_they_are_over():
    camera = Camera()
    level, message, _ = camera.report('No image.', 'Two nodes.')
    assert level == WARN
    assert message == f'No image. Two nodes. {camera.health.summary()}'
    assert camera.report()[:2] == (OK, camera.health.summary())


def test_a_failure_is_an_error_with_its_text():
    camera = Camera()
    camera.health.count_failed('RuntimeError: out of memory')
    level, message, _ = camera.report()
    assert level == ERROR
    assert message.startswith('Image not processed: RuntimeError: out of memory ')
    assert camera.report()[0] == OK


def test_each_threshold_has_its_level():
    camera = Camera(warn_latency_ms=50.0, error_latency_ms=80.0, error_silence_s=9.0)
    camera.health.count_received()
    camera.health.count_processed(40.0)
    assert camera.report()[0] == OK
    camera.health.count_processed(70.0)
    level, message, _ = camera.report()
    assert level == WARN
    assert message.startswith('Latency p95: 68.5 ms, above warn_latency_ms = 50.')
    camera.health.count_processed(500.0)
    assert camera.report()[0] == ERROR
    silent = Camera(error_silence_s=9.0)
    assert silent.report(silent_s=8.0)[0] == OK
    level, message, _ = silent.report('No image for 10 s on /a: it is paused.', silent_s=10.0)
    assert level == ERROR
    assert 'No image for 10 s, above error_silence_s = 9.' in message


def test_a_low_rate_is_told_once_the_camera_is_under_way(now_s):
    camera = Camera(warn_rate_hz=4.0)
    for _ in range(60):
        camera.health.count_received()
        camera.health.count_processed(1.0)
        now_s[0] += 0.5
        if now_s[0] < 109.0:
            assert camera.report()[0] == OK
    level, message, values = camera.report()
    assert level == WARN
    assert 'Rate of results: 2.0 Hz, below warn_rate_hz = 4.' in message
    assert values['processed_hz'] == '2.00'


def test_a_rate_falls_once_nothing_comes(now_s):
    rate = Rate()
    assert rate.hz() == 0.0
    for _ in range(20):
        rate.count()
        now_s[0] += 0.1
    assert rate.hz() == pytest.approx(10.0)
    now_s[0] += 3.0
    assert rate.hz() == pytest.approx(4.0)
    now_s[0] += 10.0
    assert rate.hz() == 0.0


def test_dropped_images_are_counted_by_reason():
    camera = Camera()
    for number, reason in enumerate(DROP_REASONS):
        for _ in range(number):
            camera.health.count_dropped(reason)
    _, _, values = camera.report()
    counts = {reason: int(values[f'dropped_{reason}']) for reason in DROP_REASONS}
    assert counts == {reason: number for number, reason in enumerate(DROP_REASONS)}
    assert int(values['dropped']) == sum(counts.values())


def test_tracks_ever_counts_ids_and_begins_again_with_them():
    health = CameraHealth()
    for ids, requested in (((1, 2), 0), ((2, 3), 0), ((), 0), ((1,), 1), ((1, 2), 1)):
        health.keep_tracks(ids, {'requested': requested, 'size': 2})
    assert (health.tracks_alive, health.tracks_ever) == (2, 5)


def test_the_model_tells_its_stages_and_that_it_is_stuck(now_s):
    health = ModelHealth()
    status = model_status(
        'segmenter: model', health, 'active', {'model': 'demo', 'device': 'cpu'}, 5.0
    )
    assert (status.level, status.message, status.hardware_id) == (OK, 'demo, active.', 'cpu')
    for network_ms in (10.0, 20.0, 40.0):
        health.begin_batch(2)
        health.count(decode=1.0, network=network_ms)
        health.end_batch()
    health.begin_batch(2)
    now_s[0] += 6.0
    for error_stall_s in (0.0, 7.0):
        status = model_status('segmenter: model', health, 'active', {}, error_stall_s)
        assert status.level == OK
    status = model_status('segmenter: model', health, 'active', {'model': 'demo'}, 5.0)
    values = {item.key: item.value for item in status.values}
    assert status.level == ERROR
    assert 'busy with one batch for 6 s' in status.message
    assert values['network_p50_ms'] == '20.0'
    assert values['network_max_ms'] == '40.0'
    assert values['batch_size_mean'] == '2.00'
    assert 'publish_p50_ms' not in values
