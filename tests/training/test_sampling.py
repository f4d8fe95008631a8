"""Which frames make a clip."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np

from videomt_ros.training.labelled_clips import frame_times


def draw_times(num_frames: int, clip_frames: int, max_stride: int, draws: int = 2000) -> Counter:
    rng = np.random.default_rng(0)
    return Counter(
        tuple(frame_times(rng, num_frames, clip_frames, max_stride)) for _ in range(draws)
    )


def test_every_window_is_reached_the_last_one_too():
    assert set(draw_times(5, 3, 1)) == {(0, 1, 2), (1, 2, 3), (2, 3, 4)}
    assert set(draw_times(4, 4, 1)) == {(0, 1, 2, 3)}
    assert set(draw_times(3, 1, 2)) == {(0,), (1,), (2,)}


def test_windows_of_a_stride_are_equally_likely_and_so_are_strides():
    counts = draw_times(6, 3, 5, draws=6000)
    # (6 - 1) / (3 - 1) leaves strides 1 and 2: four windows of the one, two of the other.
    assert set(counts) == {(0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 2, 4), (1, 3, 5)}
    for times, count in counts.items():
        expected = 6000 / 2 / (4 if times[1] - times[0] == 1 else 2)
        assert abs(count - expected) < 5 * expected**0.5


def test_short_videos_are_played_to_their_end_and_back():
    assert set(draw_times(3, 6, 2)) == {(0, 1, 2, 1, 0, 1)}
    assert set(draw_times(2, 3, 1)) == {(0, 1, 0)}
    assert set(draw_times(1, 4, 3)) == {(0, 0, 0, 0)}


def test_frames_of_any_clip_exist():
    draw = random.Random(0)
    rng = np.random.default_rng(0)
    for _ in range(500):
        num_frames, clip_frames = draw.randint(1, 12), draw.randint(1, 12)
        max_stride = draw.randint(1, 6)
        times = frame_times(rng, num_frames, clip_frames, max_stride)
        assert len(times) == clip_frames
        assert all(type(t) is int and 0 <= t < num_frames for t in times)
        steps = {abs(b - a) for a, b in zip(times, times[1:], strict=False)}
        if num_frames >= clip_frames > 1:
            assert len(steps) == 1
            assert 1 <= steps.pop() <= max_stride
