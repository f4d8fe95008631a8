"""Trails: what is remembered, and for how long."""

from __future__ import annotations

import numpy as np

from videomt_ros.inference.trails import Trails

SECOND = 1_000_000_000


def test_positions_come_oldest_first_and_end_with_their_age():
    trails = Trails(duration_s=2.0)
    for t in range(5):
        trails.update(t * SECOND, {7: (t, 10.0 * t)})
    assert trails.of(7).tolist() == [[2, 20], [3, 30], [4, 40]]
    assert trails.of(8).shape == (0, 0)


def test_a_track_that_ended_is_forgotten_and_one_that_returns_goes_on():
    trails = Trails(duration_s=2.0)
    trails.update(0, {1: (0, 0), 2: (5, 5)})
    trails.update(SECOND, {})
    trails.update(2 * SECOND, {1: (2, 2)})
    assert trails.of(1).tolist() == [[0, 0], [2, 2]]
    trails.update(3 * SECOND, {1: (3, 3)})
    assert not len(trails.of(2))


def test_a_reset_forgets_all_but_the_new_frame():
    trails = Trails()
    trails.update(5 * SECOND, {1: (0, 0), 2: (5, 5)}, resets=0)
    trails.update(0, {1: (9, 9)}, resets=1)  # the stamps begin anew as well
    assert trails.of(1).tolist() == [[9, 9]]
    assert not len(trails.of(2))
    trails.update(SECOND, {1: (8, 8)}, resets=1)
    assert len(trails.of(1)) == 2
    trails.clear()
    assert not len(trails.of(1))


def test_memory_is_bounded_with_stamps_that_stand_still_or_step_back():
    trails = Trails(duration_s=2.0, max_points=10)
    for t in range(100):
        trails.update(SECOND - t, {1: (t, 0)})
    assert trails.of(1)[:, 0].tolist() == list(range(90, 100))


def test_positions_may_have_any_dimension():
    trails = Trails()
    trails.update(0, {1: np.array([1.0, 2.0, 3.0])})
    assert trails.of(1).shape == (1, 3)
