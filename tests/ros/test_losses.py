"""Images that never arrived: what the middleware tells, and what gaps in the stamps tell."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from tests.ros.node_process import new_domain, wait_for
from videomt_ros.ros import losses
from videomt_ros.ros.health import CameraHealth
from videomt_ros.ros.losses import Losses, StampGaps

pytestmark = pytest.mark.ros
INTERVAL_NS = 33_333_333
START_NS = 1_700_000_000_123_456_789


def missing(times: np.ndarray | list[float]) -> int:
    """Estimate of the images that are missing among those of these times, in intervals."""
    gaps = StampGaps()
    rises = sum(gaps.add(START_NS + round(time * INTERVAL_NS)) for time in times)
    assert rises == gaps.missing
    return rises


def camera(seed: int, jitter: float, loss: float, images: int = 2000) -> tuple[np.ndarray, int]:
    """Times of the images that arrive from a camera, and the number of the others."""
    random = np.random.default_rng(seed)
    times = np.sort(np.arange(images) + random.normal(0, jitter, images))
    arrives = random.random(images) >= loss
    arrives[[0, -1]] = True
    return times[arrives], int((~arrives).sum())


def test_an_interval_of_n_times_the_usual_one_counts_as_n_minus_1():
    assert missing([*range(10), *range(11, 20)]) == 1
    assert missing([*range(10), *range(14, 20)]) == 4
    assert missing([*range(10), 12, 13, 16, 17, 18, 20, 21]) == 2 + 2 + 1
    assert missing(range(1000)) == 0
    assert missing([]) == missing([0]) == missing([0, 7]) == 0


def test_it_is_counted_once_an_interval_of_the_usual_length_follows():
    gaps = StampGaps()
    counted = [gaps.add(START_NS + n * INTERVAL_NS) for n in (*range(8), 9, 11, 12, 13)]
    assert counted == [0] * 10 + [2, 0]


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('jitter', [0.0, 0.03, 0.1])
@pytest.mark.parametrize('loss', [0.0, 0.02, 0.1, 0.3])
def test_the_estimate_is_within_15_percent_with_jitter_and_random_losses(loss, jitter, seed):
    times, lost = camera(seed, jitter, loss)
    assert missing(times) == pytest.approx(lost, rel=0.15, abs=2)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('jitter', [0.2, 0.3])
@pytest.mark.parametrize('loss', [0.05, 0.3])
def test_with_more_jitter_it_is_rather_too_small(jitter, loss, seed):
    times, lost = camera(seed, jitter, loss)
    assert missing(times) < 1.4 * lost


@pytest.mark.parametrize('factor', [0.3, 0.5, 1.3, 2.0, 3.0, 10.0])
def test_another_rate_is_no_loss(factor):
    first = np.arange(100)
    second = first[-1] + factor * np.arange(1, 100)
    assert missing([*first, *second]) == 0
    # And back again; losses are still seen afterwards, in intervals of the new rate.
    third = second[-1] + np.delete(np.arange(1, 100), [50, 51])
    assert missing([*first, *second, *third]) == 2


def test_a_camera_of_varying_rate_loses_nothing():
    slow_and_fast = np.cumsum(1.5 + np.sin(np.arange(500) / 20))
    assert missing(slow_and_fast) == 0
    random = np.random.default_rng(0)
    assert missing(np.cumsum(random.uniform(1, 3, 500))) < 10


def test_a_pause_is_no_loss():
    assert missing([*range(50), *range(100, 150), *range(10**9, 10**9 + 50)]) == 0
    assert missing([*range(50), 10**9, *range(50, 100)]) == 0  # one stamp far ahead


def test_a_bag_that_begins_again_is_no_loss():
    assert missing([*range(100), *range(100)]) == 0
    assert missing([*range(100), *range(-500, -400)]) == 0


def test_duplicates_and_late_images_are_no_loss():
    assert missing(np.repeat(np.arange(100), 2)) == 0
    assert missing([*range(50), 51, 50, *range(52, 100)]) == 0
    # Every 7th stamp is wrong, and every 10th image lost.
    late = [n if n % 7 or not n else n - 10 for n in range(140)]
    assert missing(late) == 0
    assert missing([n for n in late if n % 10 != 4]) in range(9, 15)


def test_images_without_a_stamp_tell_nothing():
    gaps = StampGaps()
    assert sum(gaps.add(0) for _ in range(100)) == 0
    for n in (*range(10), 12, 13):
        gaps.add(START_NS + n * INTERVAL_NS)
        gaps.add(0)
    assert gaps.missing == 2


def test_losses_are_told_while_they_are_many():
    health = CameraHealth()
    counted = Losses(health)
    assert counted.explain(0.05) == ''
    stamps = [n for n in range(300) if n % 10]
    for n in stamps:
        counted.heard(START_NS + n * INTERVAL_NS)
    text = counted.explain(0.05)
    assert 'of about 299 ' in text  # 270 heard, 29 between them
    assert '0 by the report of the middleware and 29 by gaps' in text
    assert (health.missing, health.lost) == (29, 0)
    for n in range(300, 330):
        counted.heard(START_NS + n * INTERVAL_NS)
        text = counted.explain(0.05)
    assert text == ''


def test_losses_are_told_above_the_share_that_is_set():
    counted = Losses(CameraHealth())
    for n in range(300):
        if n % 10:
            counted.heard(START_NS + n * INTERVAL_NS)
    assert [bool(counted.explain(share)) for share in (0.0, 0.2, 0.05)] == [False, False, True]


def test_a_single_loss_is_counted_but_not_told():
    health = CameraHealth()
    counted = Losses(health)
    for n in (*range(10), *range(11, 20)):
        counted.heard(START_NS + n * INTERVAL_NS)
    assert health.missing == 1
    assert counted.explain(0.05) == ''


@pytest.mark.parametrize('knows_events', [True, False])
def test_a_middleware_that_cannot_tell_of_losses_delivers_all_the_same(knows_events):
    created = []

    def create_subscription(*arguments, event_callbacks=None):
        if event_callbacks is not None and not knows_events:
            raise losses.UnsupportedEventTypeError('no such event')
        created.append(event_callbacks)

    health = CameraHealth()
    node = SimpleNamespace(create_subscription=create_subscription)
    Losses(health).subscribe(node, Image, 'image_raw', print, QoSProfile(depth=1))
    (events,) = created
    assert (events is not None) == knows_events
    if events is not None:
        events.message_lost(SimpleNamespace(total_count=7, total_count_change=3))
        assert health.lost == 3


PUBLISHER = """
import array, time
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node('camera')
qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
publisher = node.create_publisher(Image, 'image_raw', qos)
data = array.array('B', bytes(1920 * 1080 * 3))
while True:
    publisher.publish(Image(height=1080, width=1920, step=5760, encoding='rgb8', data=data))
    time.sleep(0.02)
"""


def test_what_is_lost_over_dds_is_counted():
    # By default an image of 6 MB has no room in the shared memory.
    domain = new_domain()
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node('listener', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    health = CameraHealth()
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    Losses(health).subscribe(node, Image, 'image_raw', lambda msg, number: None, qos)
    plain = {name: value for name, value in os.environ.items() if 'PROFILES_FILE' not in name}
    process = subprocess.Popen(
        [sys.executable, '-c', PUBLISHER], env={**plain, 'ROS_DOMAIN_ID': str(domain)}
    )
    try:
        wait_for(lambda: executor.spin_once(timeout_sec=0.1) or health.lost, 'a loss')
    finally:
        process.kill()
        process.wait()
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()
