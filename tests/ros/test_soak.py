"""A long life with four cameras: memory stays flat, no id comes back, all ends well."""

from __future__ import annotations

import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

from tests.ros.node_process import save_random_model
from tests.ros.soak import SIZES, Report, soak

pytestmark = pytest.mark.ros


def check(report: Report) -> None:
    assert report.growth < 0.02, report
    assert report.end_threads == report.warm_threads, report
    assert report.repeated == []
    assert report.exit_code == 0
    assert set(report.ids) == set(SIZES)
    assert min(report.ids.values()) > 0, report.ids
    assert sum(report.ids.values()) > 40, report.ids
    assert len(report.events) == 6, report.events


def test_thousands_of_frames(tmp_path):
    model = save_random_model(tmp_path / 'random.safetensors')
    report = soak(tmp_path, str(model), 4000, score_threshold=0.15)
    assert report.frames >= 4000
    check(report)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_twenty_thousand_frames_of_the_demo_model(tmp_path):
    report = soak(tmp_path, 'demo', 20_000)
    assert report.frames >= 20_000
    check(report)
