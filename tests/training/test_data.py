"""The batches of a run by its steps: who draws what, how sources mix, and faults on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.runs import TINY_SIZES
from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.model import VidEoMTConfig
from videomt_ros.training.clips import Batch, Clip
from videomt_ros.training.data import Mixture, StepClips, load_batches
from videomt_ros.training.labelled_clips import ClipSource
from videomt_ros.training.run_settings import DataSource, Phase, TrainSettings

NETWORK = VidEoMTConfig(
    **{**TINY_SIZES, 'size_divisor': 16},
    name='tiny',
    num_classes=6,
    pixel_mean=(10.0, 20.4, 300.0),
)
PHASES = (Phase(3, clip_frames=1, batch_size=12), Phase(2, clip_frames=3, batch_size=6))
SIZES = ((16, 24), (24, 16))


def scenes(rank: int = 0, world: int = 1, **changes) -> StepClips:
    values = {'network': NETWORK, 'phases': PHASES, 'image_sizes': SIZES, 'seed': 3}
    settings = TrainSettings(**(values | changes))
    return StepClips(settings, Mixture(settings), rank, world)


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
            f'colour {self.colour}',
        )


class Broken(Fixed):
    """Clips that cannot be read."""

    def draw(self, rng: np.random.Generator, clip_frames: int, max_stride: int) -> Clip:
        raise DatasetError(Path('a/b.png'), ['Expected an image.', 'Got a page.'])


class Colours(Mixture):
    """A mixture of such sources in place of files."""

    def __init__(self, *sources: ClipSource) -> None:
        self._sources = list(sources)

    def sources(self, phase: Phase, image_sizes: Sequence[tuple[int, int]]) -> list[ClipSource]:
        return self._sources


def colours(*sources: ClipSource, steps: int = 2, batch_size: int = 1) -> StepClips:
    phases = (Phase(steps, clip_frames=2, batch_size=batch_size),)
    data = (DataSource('synthetic'),)  # not that: whatever the mixture has
    return StepClips(TrainSettings(network=NETWORK, phases=phases, data=data), Colours(*sources))


def assert_equal(one: Batch, other: Batch) -> None:
    assert torch.equal(one.frames, other.frames)
    for ours, theirs in zip(one.targets[:4], other.targets[:4], strict=True):
        assert torch.equal(ours, theirs)
    assert one.targets.num_clips == other.targets.num_clips
    assert one.origins == other.origins


def test_steps_run_on_through_the_phases():
    clips = scenes()
    assert len(clips) == 5
    shapes = [tuple(batch.frames.shape[:3]) for step in range(5) for batch in clips[step]]
    assert shapes == [(12, 1, 3)] * 3 + [(6, 3, 3)] * 2
    for step in (-1, 5):
        with pytest.raises(IndexError, match=f'step from 0 to 4, got {step}'):
            clips[step]


def test_no_clip_comes_twice():
    clips = scenes()
    seen = Counter(name for step in range(5) for name in clips[step][0].origins)
    assert len(seen) == 3 * 12 + 2 * 6
    # Phases draw from seeds of their own: steps of one number show other scenes.
    first, second = ({name.split(',')[0] for name in clips[i][0].origins} for i in (0, 3))
    assert not first & second
    assert not set(seen) & {name for step in range(5) for name in scenes(seed=9)[step][0].origins}


@pytest.mark.parametrize(('world', 'accumulate'), [(1, 3), (2, 1), (3, 2), (6, 1)])
@pytest.mark.parametrize('step', [0, 2, 4])
def test_processes_and_parts_share_the_clips_of_one(world, accumulate, step):
    [whole] = scenes()[step]
    parts = [
        part for rank in range(world) for part in scenes(rank, world, accumulate=accumulate)[step]
    ]
    assert len(parts) == world * accumulate
    assert {len(part.frames) for part in parts} == {len(whole.frames) // len(parts)}
    assert torch.equal(torch.cat([part.frames for part in parts]), whole.frames)
    assert sum((part.origins for part in parts), ()) == whole.origins
    assert torch.equal(torch.cat([part.targets.masks for part in parts]), whole.targets.masks)
    size = len(whole.frames) // len(parts)
    clip_of = [part.targets.clip_of + i * size for i, part in enumerate(parts)]
    assert torch.equal(torch.cat(clip_of), whole.targets.clip_of)


@pytest.mark.parametrize(
    ('world', 'accumulate', 'fault'),
    [
        (
            4,
            1,
            r'phases\.1\.batch_size .* multiple of 4, for 4 processes with accumulate=1 .* 6\.',
        ),
        (1, 5, r'phases\.0\.batch_size .* multiple of 5, for 1 processes .*accumulate=5 .* 12\.'),
        (24, 1, r'phases\.0\.batch_size .* multiple of 24'),
    ],
)
def test_a_batch_that_cannot_be_shared_is_named(world, accumulate, fault):
    with pytest.raises(ValueError, match=fault):
        scenes(0, world, accumulate=accumulate)


def test_scenes_alone_have_one_size_a_step_and_no_padding():
    phases = (Phase(12, clip_frames=1, batch_size=2),)
    sizes = set()
    for step in range(12):
        one, other = (scenes(rank, 2, phases=phases)[step][0].frames for rank in (0, 1))
        assert one.shape == other.shape
        sizes.add(tuple(one.shape[3:]))
    assert sizes == set(SIZES)


def test_scenes_among_other_data_have_each_their_size():
    names = ('circle', 'square', 'triangle', 'star', 'ring', 'cross')
    config = VidEoMTConfig(**{**NETWORK.__dict__, 'class_names': names})
    clips = scenes(network=config, data=(DataSource('synthetic'),))
    [batch] = clips[0]
    assert batch.frames.shape == (12, 1, 3, 32, 32)  # 16 x 24 and 24 x 16, in steps of 16
    # What the network sees as 0, in whole numbers that a pixel can have.
    assert batch.frames[:, 0, :, 31, 31].unique(dim=0).tolist() == [[10, 20, 255]]
    filled = (batch.frames[:, 0] == torch.tensor([10, 20, 255])[:, None, None]).all(dim=1)
    assert set(filled[:, 20, 4].tolist()) == {True, False}


def test_sources_mix_by_weight():
    clips = colours(Fixed(1, 6.0), Fixed(2, 3.0), Fixed(3, 1.0), steps=1000, batch_size=4)
    counts = Counter(name for step in range(1000) for name in clips[step][0].origins)
    # Of 4000 clips; five standard deviations are 160, 145 and 95.
    assert abs(counts['colour 1'] - 2400) < 160
    assert abs(counts['colour 2'] - 1200) < 145
    assert abs(counts['colour 3'] - 400) < 95


def test_a_clip_without_an_object_is_kept():
    empty = Fixed(1, 1.0, is_empty=True)
    [batch] = colours(empty)[0]
    assert empty.draws == 1
    assert batch.targets.masks.shape == (0, 2, 16, 16)
    assert batch.targets.num_clips == 1


@pytest.mark.parametrize('workers', [1, 2])
def test_batches_are_equal_whatever_the_number_of_workers(workers):
    clips = scenes(1, 2, accumulate=3)
    alone, helped = (list(load_batches(clips, range(1, 5), number)) for number in (0, workers))
    assert len(alone) == len(helped) == 4
    for ours, theirs in zip(alone, helped, strict=True):
        assert len(ours) == len(theirs) == 3
        for one, other in zip(ours, theirs, strict=True):
            assert_equal(one, other)


@pytest.mark.gpu
def test_batches_are_pinned_and_keep_their_form():
    clips = scenes()
    [parts] = load_batches(clips, range(1), 0, pin_memory=True)
    assert parts[0].targets.masks.is_pinned() and parts[0].frames.is_pinned()
    assert_equal(parts[0], clips[0][0])


@pytest.mark.parametrize('workers', [0, 1])
def test_a_fault_of_a_file_keeps_its_words_on_the_way_from_a_worker(workers):
    with pytest.raises(DatasetError) as caught:
        list(load_batches(colours(Broken(1, 1.0)), range(2), workers))
    assert str(caught.value) == ('a/b.png: 2 faults: (1) Expected an image. (2) Got a page.')
