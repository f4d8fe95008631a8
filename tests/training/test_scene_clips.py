"""Clips of synthetic scenes: which ones, at which size, and of which classes."""

from __future__ import annotations

import numpy as np
import pytest

from videomt_ros.datasets.synthetic.scene import ALL_NAMES, CLASS_NAMES, Scene
from videomt_ros.model import load_model
from videomt_ros.resources import resource
from videomt_ros.training.clips import Clip
from videomt_ros.training.data import Mixture, StepClips
from videomt_ros.training.initial import load_initial
from videomt_ros.training.run_file import load_settings
from videomt_ros.training.run_settings import TrainSettings
from videomt_ros.training.scene_clips import FIRST_TRAINING_SEED, SceneClips, draw_scene


def drawn(seed: int = 3, size: tuple[int, int] = (32, 40), **changes) -> Clip:
    values = {'clip_frames': 3, 'max_stride': 2, 'supersample': 1}
    return draw_scene(np.random.default_rng(seed), size, **(values | changes))


def test_equal_seeds_give_equal_clips():
    first, second, other = drawn(), drawn(), drawn(seed=4)
    for one, same in zip(first, second, strict=True):
        assert np.array_equal(one, same)
    assert not np.array_equal(first.frames, other.frames)
    assert first.frames.shape == (3, 32, 40, 3)
    assert first.frames.dtype == np.uint8


def test_training_never_draws_a_scene_of_the_evaluation():
    seeds = [int(drawn(seed).origin.split()[2].rstrip(',')) for seed in range(16)]
    assert min(seeds) >= FIRST_TRAINING_SEED
    assert len(set(seeds)) == 16


def test_clips_are_frames_of_a_scene_at_a_stride():
    strides = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        number = int(rng.integers(FIRST_TRAINING_SEED, 2**31))
        scene = Scene(number, 16, 24, num_objects=int(rng.integers(3, 9)))
        clip = drawn(seed, (16, 24), clip_frames=8, max_stride=3)
        name, frames = clip.origin.split(', frames ')
        times = [int(t) for t in frames.split()]
        assert name == f'synthetic scene {number}'
        assert 0 <= times[0] < times[-1] < len(scene)
        strides |= set(np.diff(times).tolist())
        images, ids = zip(*[scene.frame(t) for t in times], strict=True)
        assert np.array_equal(clip.frames, np.stack(images))
        assert np.array_equal(clip.masks.any(axis=0), np.stack(ids) > 0)
    assert strides == {1, 2, 3}


def test_every_start_of_a_scene_is_reached():
    starts = {int(drawn(seed, (8, 8), clip_frames=1).origin.split()[-1]) for seed in range(600)}
    assert starts == set(range(60))


def test_clips_of_walled_scenes_have_the_wall():
    plain, walled = (drawn(hidden_frames=limits) for limits in (None, (10, 25)))
    assert not np.array_equal(plain.frames, walled.frames)


@pytest.mark.parametrize('share', [0.0, 0.5, 1.0])
def test_a_share_of_the_clips_has_the_wall_and_hard_scenes(share):
    """Clips of one generator differ from those without only where they have the share."""
    plain = SceneClips([*range(6)], [(24, 32)])
    walled = SceneClips([*range(6)], [(24, 32)], 1, 1.0, (10, 25), hidden_share=share)
    hard = SceneClips([*range(6)], [(24, 32)], hard_share=share)
    for changed in (walled, hard):
        same = [
            np.array_equal(
                *(each.draw(np.random.default_rng(n), 2, 1).frames for each in (plain, changed))
            )
            for n in range(30)
        ]
        assert 0.2 < np.mean(same) < 0.8 if share == 0.5 else np.mean(same) == 1 - share


def test_supersampled_clips_are_larger_scenes_made_smaller():
    plain, fine = (drawn(supersample=factor) for factor in (1, 3))
    assert fine.frames.shape == plain.frames.shape
    assert fine.masks.shape[1:] == plain.masks.shape[1:]
    # The same scene: what is large in one lies in the same place in the other.
    for mask in plain.masks[plain.masks.sum(axis=(1, 2, 3)) > 300]:
        overlap = [(mask & other).sum() / (mask | other).sum() for other in fine.masks]
        assert max(overlap) > 0.6
    # Noise and edges are averaged.
    roughness = [np.abs(np.diff(clip.frames.astype(int), axis=2)).mean() for clip in (plain, fine)]
    assert roughness[1] < roughness[0]


def test_scenes_leave_out_the_classes_that_the_network_does_not_know():
    rng = np.random.default_rng(0)
    seen = set()
    source = SceneClips([None, 7, 8, None, None, None], [(24, 32)])
    for _ in range(20):
        clip = source.draw(rng, 1, 1)
        assert len(clip.class_ids) == len(clip.masks)
        seen |= set(clip.class_ids.tolist())
        assert clip.origin.startswith('synthetic scene ')
    assert seen == {7, 8}


SHORT = ['phases=[{steps: 2, clip_frames: 2, batch_size: 4}]', 'image_sizes=[[48, 64]]']


def run(*overrides: str) -> TrainSettings:
    path = resource('config', 'train_demo_panoptic.yaml')
    return load_settings(path, [*SHORT, *overrides])


def first_batch(settings: TrainSettings):
    [batch] = StepClips(settings, Mixture(settings))[0]
    return batch


@pytest.mark.parametrize('data', ['data=[]', 'data=[{dataset: synthetic}]'])
def test_every_pixel_of_a_clip_with_stuff_has_one_class(data):
    targets = first_batch(run(data)).targets
    for clip in range(4):
        mine = targets.clip_of == clip
        assert (targets.masks[mine].sum(dim=0) == 1).all()
        names = [ALL_NAMES[k] for k in targets.class_ids[mine].tolist()]
        stuff = [name for name in names if name not in CLASS_NAMES]
        assert {'sky', 'ground'} <= set(stuff)
        assert len(stuff) == len(set(stuff))  # all walls are one segment
    assert ALL_NAMES.index('wall') in targets.class_ids


@pytest.mark.parametrize('data', ['data=[]', 'data=[{dataset: synthetic}]'])
def test_classes_go_by_the_names_of_the_network(data):
    changed = (*ALL_NAMES[6:], *ALL_NAMES[:6])
    names = f'network.class_names=[{", ".join(changed)}]'
    ours, theirs = (first_batch(run(data, *more)) for more in ([], [names]))
    assert np.array_equal(ours.frames, theirs.frames)
    named = [[ALL_NAMES[k] for k in ours.targets.class_ids.tolist()]]
    named += [[changed[k] for k in theirs.targets.class_ids.tolist()]]
    assert named[0] == named[1]


def test_scenes_without_a_class_for_stuff_have_none():
    clips = [
        SceneClips(class_of, [(48, 64)]).draw(np.random.default_rng(0), 1, 1)
        for class_of in ([*range(6)], [*range(6), None, None, None], [*range(9)])
    ]
    assert np.array_equal(clips[0].frames, clips[1].frames)
    assert not np.array_equal(clips[0].frames, clips[2].frames)
    assert clips[0].origin == clips[2].origin
    assert not clips[0].masks.all(axis=0).all()


def test_the_panoptic_demo_starts_from_the_demo_but_for_its_class_head():
    net, demo = load_initial(run()), load_model('demo').state_dict()
    changed = {
        name
        for name, value in net.state_dict().items()
        if value.shape != demo[name].shape or not np.allclose(value, demo[name])
    }
    assert changed == {'class_head.weight', 'class_head.bias'}
