"""The status on `/diagnostics`: its level, and the age of the last error."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip('diagnostic_msgs.msg', reason='needs ROS')

from diagnostic_msgs.msg import DiagnosticStatus

from videomt_ros.ros import diagnostics
from videomt_ros.ros.diagnostics import ERROR_SHOWN_S, Health

pytestmark = pytest.mark.ros


def status_of(health, *troubles):
    """Level, message and values of a report."""
    msg = health.to_msg('segmenter: frames', 'cpu', 'active', troubles)
    return msg.level, msg.message, {item.key: item.value for item in msg.values}


def test_an_error_has_an_age_and_ends_to_be_current(monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr(diagnostics, 'time', SimpleNamespace(monotonic=lambda: now_s[0]))
    health = Health()
    level, _, values = status_of(health)
    assert (level, values['last_error']) == (DiagnosticStatus.OK, '')
    assert 'seconds_since_error' not in values
    health.count_rejected('no pixels')
    level, _, values = status_of(health)
    assert (level, values['last_error']) == (DiagnosticStatus.WARN, 'no pixels')
    now_s[0] += 2.5
    level, _, values = status_of(health)
    assert (level, values['last_error']) == (DiagnosticStatus.OK, 'no pixels')
    assert values['seconds_since_error'] == '2.5'
    now_s[0] += ERROR_SHOWN_S
    _, _, values = status_of(health)
    assert values['last_error'] == ''
    assert values['seconds_since_error'] == '62.5'


def test_troubles_warn_until_they_are_over():
    health = Health()
    level, message, _ = status_of(health, 'No image.', 'Two nodes.')
    assert level == DiagnosticStatus.WARN
    assert message == f'No image. Two nodes. {health.summary()}'
    assert status_of(health)[:2] == (DiagnosticStatus.OK, health.summary())
