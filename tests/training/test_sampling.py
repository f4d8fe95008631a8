"""Which frames make a clip, and how sources mix."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.training.clips import Clip
from videomt_ros.training.sampling import (
    MAX_DRAWS,
    MixedClips,
    SceneClips,
    frame_times,
    load_batches,
)


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


class Fixed:
    """Clips of one colour, with an object or none."""

    def __init__(self, colour: int, weight: float, is_empty: bool = False) -> None:
        self.colour, self.weight, self.is_empty = colour, weight, is_empty
        self.draws = 0

    def draw(self, rng: np.random.Generator, clip_frames: int, max_stride: int) -> Clip:
        self.draws += 1
        count = 0 if self.is_empty else 1
        return Clip(
            np.full((clip_frames, 4, 4, 3), self.colour, np.uint8),
            np.zeros(count, np.int64),
            np.ones((count, clip_frames, 4, 4), bool),
        )


def mixed(*sources, **changes) -> MixedClips:
    values = {
        'seed': 1,
        'num_batches': 100,
        'batch_size': 4,
        'clip_frames': 2,
        'max_stride': 1,
        'divisor': 8,
        'fill': (0, 0, 0),
    }
    return MixedClips(sources=sources, **(values | changes))


def test_sources_mix_by_weight():
    sources = [Fixed(1, 6.0), Fixed(2, 3.0), Fixed(3, 1.0)]
    data = mixed(*sources, num_batches=1000)
    counts = Counter(
        colour for i in range(1000) for colour in data[i].frames[:, 0, 0, 0, 0].tolist()
    )
    # Of 4000 clips; five standard deviations are 160, 145 and 95.
    assert abs(counts[1] - 2400) < 160
    assert abs(counts[2] - 1200) < 145
    assert abs(counts[3] - 400) < 95


def test_a_clip_without_an_object_is_drawn_again_and_kept_at_last():
    empty = Fixed(1, 1.0, is_empty=True)
    batch = mixed(empty, batch_size=1)[0]
    assert empty.draws == MAX_DRAWS
    assert batch.targets.masks.shape == (0, 2, 8, 8)
    full = Fixed(1, 1.0)
    assert len(mixed(full, batch_size=1)[0].targets.class_ids) == 1
    assert full.draws == 1


@pytest.mark.parametrize('workers', [1, 2])
def test_batches_are_equal_whatever_the_number_of_workers(workers):
    data = mixed(SceneClips([0, None, 2, 3, 4, 5], [(16, 24), (24, 16)]), num_batches=5)
    alone, helped = (list(load_batches(data, range(1, 5), number)) for number in (0, workers))
    assert len(alone) == 4
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one.frames, other.frames)
        assert all(torch.equal(*pair) for pair in zip(one.targets, other.targets, strict=True))
    assert not torch.equal(alone[0].frames[0], alone[1].frames[0])


def test_scenes_leave_out_the_classes_that_the_network_does_not_know():
    rng = np.random.default_rng(0)
    seen = set()
    source = SceneClips([None, 7, 8, None, None, None], [(24, 32)])
    for _ in range(20):
        clip = source.draw(rng, 1, 1)
        assert len(clip.class_ids) == len(clip.masks)
        seen |= set(clip.class_ids.tolist())
    assert seen == {7, 8}


class Broken(Fixed):
    """Clips that cannot be read."""

    def draw(self, rng: np.random.Generator, clip_frames: int, max_stride: int) -> Clip:
        raise DatasetError(Path('a/b.png'), ['Expected an image.', 'Got a page.'])


@pytest.mark.parametrize('workers', [0, 1])
def test_a_fault_of_a_file_keeps_its_words_on_the_way_from_a_worker(workers):
    with pytest.raises(DatasetError) as caught:
        list(load_batches(mixed(Broken(1, 1.0)), range(2), workers))
    assert str(caught.value) == ('a/b.png: 2 faults: (1) Expected an image. (2) Got a page.')
