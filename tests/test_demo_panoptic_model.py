"""The panoptic demo model as it is shipped: it loads, names every region and follows shapes."""

from __future__ import annotations

import numpy as np
import pytest

from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.synthetic.scene import ALL_NAMES, CLASS_NAMES, Scene
from videomt_ros.datasets.synthetic.writing import write_dataset
from videomt_ros.evaluation.evaluator import evaluate
from videomt_ros.inference.stream import VideoStream
from videomt_ros.model import VidEoMT, load_model
from videomt_ros.resources import resource


@pytest.fixture(scope='module')
def net() -> VidEoMT:
    return load_model('demo_panoptic')


def test_the_panoptic_demo_reaches_what_its_card_says(net, tmp_path):
    """A little below the card's figures, on scenes that neither training nor card has seen."""
    root = tmp_path / 'data'
    write_dataset('vipseg', root, 3, num_frames=12, seed=900, size=(192, 240), stuff=True)
    metrics = evaluate(open_dataset('vipseg', root), net, tmp_path / 'out')
    assert metrics is not None
    for mode in ('live', 'published'):
        scores = metrics[mode]['figures']
        assert scores['VPQ'] > 0.7
        assert scores['VPQ_th'] > 0.6
        assert scores['VPQ_st'] > 0.8
        assert scores['STQ'] > 0.5


def test_a_stream_tells_things_from_stuff(net):
    assert net.config.task == 'panoptic'
    assert net.config.class_names == ALL_NAMES
    assert net.config.thing_classes == (True,) * len(CLASS_NAMES) + (False,) * 3
    stream = VideoStream(net)
    scene = Scene(905, num_frames=12, stuff=True)
    images, truth = zip(*scene.frames(), strict=True)
    segments = [stream.push(image, t * 100_000_000) for t, image in enumerate(images)][-1]
    names = [ALL_NAMES[segment.class_id] for segment in segments.segments]
    assert {'sky', 'ground'} <= set(names)
    for segment in segments.segments:
        assert segment.is_thing == (ALL_NAMES[segment.class_id] in CLASS_NAMES)
    stuff = [name for name in names if name not in CLASS_NAMES]
    assert len(stuff) == len(set(stuff))  # stuff of one class is one segment
    classes = {segment.track_id: segment.class_id for segment in segments.segments}
    found = np.vectorize(lambda i: classes.get(i, -1))(segments.ids)
    true = np.vectorize(scene.class_of.get)(truth[-1])
    assert (found == true).mean() > 0.85


def test_the_weights_stay_small():
    path = resource('models', 'demo_panoptic', 'demo_panoptic.safetensors')
    assert path.stat().st_size <= 12e6
