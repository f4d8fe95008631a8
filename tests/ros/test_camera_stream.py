"""Which reliability the subscription has."""

from __future__ import annotations

import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

from rclpy.qos import ReliabilityPolicy

from videomt_ros.ros.camera_stream import best_reliability

pytestmark = pytest.mark.ros
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


@pytest.mark.parametrize(
    ('present', 'offers', 'may_rise', 'wanted'),
    [
        # The node is there first, then the camera.
        (BEST_EFFORT, set(), True, BEST_EFFORT),
        (BEST_EFFORT, {RELIABLE}, True, RELIABLE),
        (BEST_EFFORT, {BEST_EFFORT}, True, BEST_EFFORT),
        (BEST_EFFORT, {BEST_EFFORT, RELIABLE}, True, BEST_EFFORT),
        # A reliable camera, then a second one, then that one alone.
        (RELIABLE, {BEST_EFFORT, RELIABLE}, True, RELIABLE),
        (RELIABLE, {BEST_EFFORT}, True, BEST_EFFORT),
        # A best-effort camera, then a reliable one beside it, then that one alone.
        (BEST_EFFORT, {BEST_EFFORT, RELIABLE}, False, BEST_EFFORT),
        (BEST_EFFORT, {RELIABLE}, False, BEST_EFFORT),
        # The camera restarts.
        (RELIABLE, set(), True, RELIABLE),
    ],
)
def test_reliability_follows_the_cameras(present, offers, may_rise, wanted):
    assert best_reliability(present, offers, may_rise) == wanted
