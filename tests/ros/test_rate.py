"""The limit of a camera's rate."""

from __future__ import annotations

import numpy as np
import pytest

from videomt_ros.ros.rate import RateLimit

SECOND = 1_000_000_000


def allowed(stamps_ns, max_rate_hz):
    limit = RateLimit()
    return [n for n, ns in enumerate(stamps_ns) if limit.allows(int(ns), max_rate_hz)]


def test_without_a_limit_everything_passes():
    assert allowed(range(5), 0.0) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ('camera_hz', 'max_hz'), [(30, 10), (30, 15), (30, 12), (60, 7), (10, 30)]
)
def test_the_mean_rate_is_the_limit_or_the_cameras_own(camera_hz, max_hz):
    stamps = np.arange(20 * camera_hz) * SECOND // camera_hz
    jitter = np.random.default_rng(0).normal(0, 0.02 * SECOND / camera_hz, len(stamps))
    count = len(allowed(stamps + jitter.astype(np.int64) + SECOND, max_hz))
    assert count == pytest.approx(20 * min(camera_hz, max_hz), abs=2)


def test_every_third_of_30_hz_is_10_hz():
    assert allowed(np.arange(12) * 33_333_333, 10.0) == [0, 3, 6, 9]


def test_images_out_of_order_earn_none():
    stamps = np.arange(60).reshape(-1, 2)[:, ::-1].ravel() * 33_333_333
    assert len(allowed(stamps, 10.0)) == 20


def test_a_pause_earns_no_burst_and_a_step_back_does_not_block():
    stamps = [0, 100 * SECOND, 100 * SECOND + 1, 100 * SECOND + 2, 5 * SECOND, 5 * SECOND + 1]
    assert allowed(stamps, 10.0) == [0, 1, 4]
