"""Schedules are worked out by hand, and then by a clock that ticks every nanosecond."""

from __future__ import annotations

import numpy as np
import pytest

from videomt_ros.evaluation.latency import NewestWins, Schedule, arrivals, schedule


def test_no_frames():
    assert schedule([], 10) == Schedule((), (), 0)


def test_no_latency_shows_every_frame_its_own_result():
    assert schedule([0, 10, 20], 0) == Schedule((0, 1, 2), (0, 1, 2), 0)


def test_a_first_frame_has_no_result_yet():
    assert schedule([0], 1) == Schedule((0,), (None,), 0)


def test_faster_than_the_camera_every_frame_sees_the_one_before():
    # Ready at 4, 14, 24.
    assert schedule([0, 10, 20], 4) == Schedule((0, 1, 2), (None, 0, 1), 0)


def test_exactly_as_fast_as_the_camera_the_result_is_ready_at_the_next_frame():
    # Ready at 10, 20, 30: at the very moment counts as ready, and nobody ever waits.
    assert schedule([0, 10, 20, 30], 10) == Schedule((0, 1, 2, 3), (None, 0, 1, 2), 0)


def test_half_as_fast_an_image_that_comes_at_the_moment_of_taking_replaces_the_older():
    # 0 is ready at 20. 1 waits from 10, and is replaced by 2 at 20, which is taken there.
    assert schedule([0, 10, 20, 30, 40], 20) == Schedule((0, 2, 4), (None, None, 0, 0, 2), 2)


def test_the_image_that_waits_is_taken_when_the_one_before_is_ready():
    # 0: 0..15; 1 waits and goes 15..30; 2 waits from 20, is replaced by 3 at 30; 3: 30..45;
    # 4 waits from 40 and goes 45..60, ready for nobody.
    assert schedule([0, 10, 20, 30, 40, 50], 15) == Schedule(
        (0, 1, 3, 4), (None, None, 0, 1, 1, 3), 1
    )


def test_a_pause_lets_the_segmenter_catch_up():
    # 0: 0..25. 1 is replaced by 2, which goes 25..50. At 1000 all is done, and 3 begins.
    assert schedule([0, 10, 20, 1000], 25) == Schedule((0, 2, 3), (None, None, None, 2), 1)


def test_slower_than_the_whole_video():
    assert schedule([0, 10, 20], 500) == Schedule((0,), (None, None, None), 1)


def test_each_frame_has_its_own_time():
    # 0: 0..5, 1: 10..35, 2 waits from 20 and is replaced by 3 at 30, which goes 35..36.
    assert schedule([0, 10, 20, 30, 40], [5, 25, 99, 1, 7]) == Schedule(
        (0, 1, 3, 4), (None, 0, 0, 0, 3), 1
    )


def test_frames_of_one_moment():
    # The first is taken, the second waits, and the third replaces it.
    assert schedule([0, 0, 0], 10) == Schedule((0,), (None, None, None), 1)
    assert schedule([0, 0, 0], 0) == Schedule((0, 1, 2), (0, 1, 2), 0)


def test_arrivals_count_from_the_first_and_scale():
    assert list(arrivals([1_000, 1_100, 1_400])) == [0, 100, 400]
    assert list(arrivals([1_000, 1_100, 1_400], 2)) == [0, 50, 200]
    assert list(arrivals([1_000, 1_100, 1_400], 0.5)) == [0, 200, 800]
    assert list(arrivals([])) == []


def test_a_stamp_that_steps_back_arrives_after_the_one_before():
    assert list(arrivals([100, 200, 150, 300])) == [0, 100, 100, 200]


@pytest.mark.parametrize('factor', [0.0, -1.0, float('nan'), float('inf')])
def test_impossible_factors(factor):
    with pytest.raises(ValueError, match='real-time factor above 0'):
        list(arrivals([0, 1], factor))


def test_a_negative_time_is_refused():
    with pytest.raises(ValueError, match='0 or more, got -1 ns'):
        schedule([0], -1)


def test_only_what_is_taken_is_processed():
    asked = []

    def process(name):
        asked.append(name)
        return name.upper(), 15

    worker = NewestWins(process)
    seen = [worker.arrive(name, time) for name, time in (('a', 0), ('b', 10), ('c', 14))]
    assert (asked, seen) == (['a'], [None, None, None])
    job = worker.arrive('d', 100)  # c was taken at 15 and ready at 30
    assert job is not None
    assert (job.item, job.result, job.start_ns, job.ready_ns) == ('c', 'C', 15, 30)
    assert asked == ['a', 'c', 'd']
    assert (worker.num_arrived, worker.num_taken, worker.num_dropped) == (4, 3, 1)


def by_ticks(times, durations):
    """Simulate every nanosecond: arrivals, results that are ready, images that are taken."""
    slot, working, until, newest = None, None, 0, None
    taken, seen, dropped = [], {}, 0
    for now in range(max(times) + 1):
        here = [i for i, time in enumerate(times) if time == now]
        # Frames of one moment come one after the other.
        for frame in here or [None]:
            if frame is not None:
                dropped += slot is not None
                slot = frame
            while True:
                if working is not None and until == now:
                    newest, working = working, None
                if working is None and slot is not None:
                    working, until, slot = slot, now + durations[slot], None
                    taken.append(working)
                if working is None or until > now:
                    break
            if frame is not None:
                seen[frame] = newest
    return Schedule(tuple(taken), tuple(seen[i] for i in range(len(times))), dropped)


@pytest.mark.parametrize('seed', range(200))
def test_agrees_with_a_clock_that_ticks(seed):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.integers(0 if seed % 2 else 1, 12, rng.integers(1, 30))).tolist()
    durations = rng.integers(0, rng.integers(1, 40) + 1, len(times)).tolist()
    assert schedule(times, durations) == by_ticks(times, durations)
