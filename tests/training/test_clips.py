"""Batches of clips: one truth for them all, and padding."""

from __future__ import annotations

import numpy as np
import torch

from videomt_ros.datasets.synthetic.scene import Scene
from videomt_ros.training.clips import Clip, collate, objects_of_ids


def clip_of(frames: np.ndarray, class_ids: list[int], masks: np.ndarray, origin: str = '') -> Clip:
    return Clip(frames, np.array(class_ids, np.int64), masks, origin)


def test_truth_is_joined_over_clips():
    scenes = [Scene(seed, 32, 40) for seed in (0, 1)]
    parts = []
    for scene in scenes:
        frames = [scene.frame(t) for t in (0, 1)]
        images, ids = (np.stack(part) for part in zip(*frames, strict=True))
        parts.append((images, ids, scene.class_of))
    clips = [
        Clip(images, *objects_of_ids(ids, class_of), f'scene {n}')
        for n, (images, ids, class_of) in enumerate(parts)
    ]
    batch = collate(clips)
    assert batch.origins == ('scene 0', 'scene 1')
    assert batch.targets.num_clips == 2
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
    batch = collate([Clip(frames, *objects_of_ids(ids, {}), '')])
    assert batch.targets.first.shape == (0,)
    assert batch.targets.num_clips == 1
    assert batch.targets.masks.shape == (0, 2, 8, 8)
    assert batch.targets.class_ids.shape == (0,)


def test_smaller_clips_are_padded_right_and_bottom():
    small = clip_of(np.full((1, 3, 5, 3), 9, np.uint8), [2], np.ones((1, 1, 3, 5), bool))
    large = clip_of(np.full((1, 6, 4, 3), 7, np.uint8), [1], np.ones((1, 1, 6, 4), bool))
    batch = collate([small, large], divisor=4, fill=(1, 2, 3))
    assert batch.frames.shape == (2, 1, 3, 8, 8)  # 6 and 5 up to the next multiple of 4
    assert batch.targets.masks.shape == (2, 1, 8, 8)
    assert batch.targets.clip_of.tolist() == [0, 1]
    assert batch.targets.class_ids.tolist() == [2, 1]
    assert batch.targets.extents.tolist() == [[5 / 8, 3 / 8], [4 / 8, 6 / 8]]
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
    clip = clip_of(np.zeros((1, 2, 2, 3), np.uint8), [0, 1], masks)
    assert np.array_equal(collate([clip]).targets.masks.numpy(), masks)


def test_the_first_sight_of_each_object_is_known():
    masks = np.zeros((3, 4, 2, 2), bool)
    masks[0, 2:], masks[1, 0] = True, True
    batch = collate([clip_of(np.zeros((4, 2, 2, 3), np.uint8), [0, 1, 2], masks)])
    assert batch.targets.first.tolist() == [2, 0, 4]
