"""A network that knows sky, ground or walls trains on scenes that have them."""

from __future__ import annotations

import numpy as np
import pytest

from videomt_ros.datasets.synthetic.scene import ALL_NAMES, CLASS_NAMES
from videomt_ros.model import load_model
from videomt_ros.resources import resource
from videomt_ros.training.data import Mixture, StepClips
from videomt_ros.training.initial import load_initial
from videomt_ros.training.run_file import load_settings
from videomt_ros.training.run_settings import TrainSettings
from videomt_ros.training.scene_clips import SceneClips

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
