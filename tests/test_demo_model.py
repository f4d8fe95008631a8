"""The demo model as it is shipped: it loads, and it does what its card says."""

from __future__ import annotations

from videomt_ros.datasets.synthetic.scene import CLASS_NAMES
from videomt_ros.evaluation.scenes import measure_scenes
from videomt_ros.model import load_model
from videomt_ros.resources import resource


def test_the_demo_model_finds_names_and_follows_shapes():
    """A little below the card's figures, on scenes that neither training nor card has seen."""
    net = load_model('demo')
    assert net.config.class_names == CLASS_NAMES
    scores = measure_scenes(net, range(900, 904), num_frames=50)
    assert scores.mean_iou > 0.75
    assert scores.found > 0.85
    assert scores.classes_right > 0.9
    assert scores.switches_per_100_frames < 3


def test_the_weights_stay_small():
    assert resource('models', 'demo', 'demo.safetensors').stat().st_size <= 12e6
