"""The labels of the models, which their topics begin with."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='needs ROS')

from videomt_ros.ros.models import label_models

pytestmark = pytest.mark.ros


def labels(config, *models, task=None):
    engines = [
        SimpleNamespace(config=replace(config, name=name, task=own)) for name, own in models
    ]
    found = label_models(engines, task)
    assert [model.engine for model in found] == engines
    return [model.label for model in found]


def test_models_are_told_apart_by_their_tasks_or_else_by_their_names(tiny_config):
    a, b = ('lvmt-ovis', 'instance'), ('lvmt.vipseg 2', 'panoptic')
    assert labels(tiny_config, a) == ['']
    assert labels(tiny_config, a, b) == ['instance', 'panoptic']
    assert labels(tiny_config, a, b, task='semantic') == ['lvmt_ovis', 'lvmt_vipseg_2']
    again = [a, a, ('4', 'instance'), ('', 'instance')]
    assert labels(tiny_config, *again) == ['lvmt_ovis', 'lvmt_ovis_2', 'model_4', 'model']
