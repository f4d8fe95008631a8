"""Batches of clips from synthetic scenes."""

from __future__ import annotations

import numpy as np
import torch

from videomt_ros.datasets.synthetic import Scene
from videomt_ros.training.clips import (
    FIRST_TRAINING_SEED,
    Clip,
    SyntheticClips,
    clip_of_ids,
    collate,
)


def clips(**changes) -> SyntheticClips:
    values = {
        'seed': 3,
        'num_batches': 4,
        'batch_size': 2,
        'clip_frames': 3,
        'image_sizes': [(32, 40)],
        'max_stride': 2,
    }
    return SyntheticClips(**(values | changes))


def test_equal_seeds_give_equal_batches():
    first, second, other = clips()[1], clips()[1], clips(seed=4)[1]
    assert torch.equal(first.frames, second.frames)
    assert torch.equal(first.targets.masks, second.targets.masks)
    assert not torch.equal(first.frames, other.frames)
    assert first.frames.shape == (2, 3, 3, 32, 40)
    assert first.frames.dtype == torch.uint8


def test_truth_is_joined_over_clips():
    scenes = [Scene(seed, 32, 40) for seed in (0, 1)]
    parts = []
    for scene in scenes:
        frames = [scene.frame(t) for t in (0, 1)]
        images, ids = (np.stack(part) for part in zip(*frames, strict=True))
        parts.append((images, ids, scene.class_of))
    batch = collate([clip_of_ids(*part) for part in parts])
    n = 0
    for clip, (images, ids, class_of) in enumerate(parts):
        assert np.array_equal(batch.frames[clip].permute(0, 2, 3, 1).numpy(), images)
        for identity in np.unique(ids[ids > 0]):
            assert batch.targets.clip_of[n] == clip
            assert batch.targets.class_ids[n] == class_of[int(identity)]
            assert np.array_equal(batch.targets.masks[n].numpy(), ids == identity)
            n += 1
    assert n == len(batch.targets.class_ids)


def test_empty_clips_have_empty_truth():
    frames, ids = np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8), np.uint16)
    batch = collate([clip_of_ids(frames, ids, {})])
    assert batch.targets.masks.shape == (0, 2, 8, 8)
    assert batch.targets.class_ids.shape == (0,)


def test_smaller_clips_are_padded_right_and_bottom():
    small = Clip(
        np.full((1, 3, 5, 3), 9, np.uint8), np.array([2], np.int64), np.ones((1, 1, 3, 5), bool)
    )
    large = Clip(
        np.full((1, 6, 4, 3), 7, np.uint8), np.array([1], np.int64), np.ones((1, 1, 6, 4), bool)
    )
    batch = collate([small, large], divisor=4, fill=(1, 2, 3))
    assert batch.frames.shape == (2, 1, 3, 8, 8)  # 6 and 5 up to the next multiple of 4
    assert batch.targets.masks.shape == (2, 1, 8, 8)
    assert batch.targets.clip_of.tolist() == [0, 1]
    assert batch.targets.class_ids.tolist() == [2, 1]
    for number, (rows, columns, value) in enumerate([(3, 5, 9), (6, 4, 7)]):
        inside = torch.zeros(8, 8, dtype=torch.bool)
        inside[:rows, :columns] = True
        assert torch.equal(batch.targets.masks[number, 0], inside)
        assert (batch.frames[number, 0][:, inside] == value).all()
        padding = batch.frames[number, 0][:, ~inside]
        assert padding.unique(dim=1).flatten().tolist() == [1, 2, 3]


def test_masks_may_overlap():
    masks = np.zeros((2, 1, 2, 2), bool)
    masks[0, 0, 0], masks[1, 0, :, 0] = True, True
    clip = Clip(np.zeros((1, 2, 2, 3), np.uint8), np.array([0, 1], np.int64), masks)
    assert np.array_equal(collate([clip]).targets.masks.numpy(), masks)


def test_training_never_draws_a_scene_of_the_evaluation(monkeypatch):
    seeds = []

    class Watched(Scene):
        def __init__(self, seed: int, *arguments, **options) -> None:
            seeds.append(seed)
            super().__init__(seed, *arguments, **options)

    monkeypatch.setattr('videomt_ros.training.clips.Scene', Watched)
    data = clips(num_batches=8)
    for i in range(8):
        data[i]
    assert min(seeds) >= FIRST_TRAINING_SEED
    assert len(set(seeds)) == 16


def test_clips_are_frames_of_a_scene_at_a_stride(monkeypatch):
    drawn: list[tuple[Scene, list[int]]] = []

    class Watched(Scene):
        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments, **options)
            drawn.append((Scene(*arguments, **options), []))

        def frame(self, t: int):
            drawn[-1][1].append(t)
            return super().frame(t)

    monkeypatch.setattr('videomt_ros.training.clips.Scene', Watched)
    sizes = [(16, 24), (24, 16), (16, 16)]
    data = clips(num_batches=12, batch_size=1, clip_frames=8, image_sizes=sizes, max_stride=3)
    batches = [data[i] for i in range(len(data))]
    assert {tuple(batch.frames.shape[-2:]) for batch in batches} == set(sizes)
    strides = set()
    for batch, (scene, times) in zip(batches, drawn, strict=True):
        start, stride = times[0], times[1] - times[0]
        strides.add(stride)
        assert 0 <= start <= len(scene) - 1 - 7 * stride
        for i in range(8):
            image, _ = scene.frame(start + stride * i)
            assert np.array_equal(batch.frames[0, i].permute(1, 2, 0).numpy(), image)
    assert strides == {1, 2, 3}


def test_clips_of_walled_scenes_have_the_wall():
    plain, walled = (clips(batch_size=1, hidden_frames=limits)[0] for limits in (None, (10, 25)))
    assert not torch.equal(plain.frames, walled.frames)


def test_supersampled_clips_are_larger_scenes_made_smaller():
    plain, fine = (clips(batch_size=1, supersample=factor)[0] for factor in (1, 3))
    assert fine.frames.shape == plain.frames.shape
    assert fine.targets.masks.shape[1:] == plain.targets.masks.shape[1:]
    # The same scene: what is large in one lies in the same place in the other.
    for mask in plain.targets.masks[plain.targets.masks.flatten(1).sum(1) > 300]:
        overlap = [(mask & other).sum() / (mask | other).sum() for other in fine.targets.masks]
        assert max(overlap) > 0.6
    # Noise and edges are averaged.
    roughness = [batch.frames.float().diff(dim=-1).abs().mean() for batch in (plain, fine)]
    assert roughness[1] < roughness[0]
