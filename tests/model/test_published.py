"""Published weights, in case VIDEOMT_WEIGHTS names a folder that holds some of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from videomt_ros.model import load_model
from videomt_ros.model.presets import find_preset

FOLDER = Path(os.environ.get('VIDEOMT_WEIGHTS') or 'VIDEOMT_WEIGHTS')
SOURCES = sorted(
    [*FOLDER.rglob('*.pth'), *(path.parent for path in FOLDER.rglob('config.json'))]
) or [FOLDER]


@pytest.mark.weights
@pytest.mark.parametrize('source', SOURCES, ids=lambda path: path.name)
@torch.inference_mode()
def test_a_published_file_loads_and_steps(source):
    preset = find_preset(file=source.name) or find_preset(converted=source.name)
    assert preset, f'{source}: expected a published file under its own name'
    net = load_model(source)
    assert net.config == preset.config()
    side = 14 * net.config.size_divisor
    outputs, state = net.step(torch.zeros(1, 3, side, side), net.initial_state())
    count = net.config.num_queries
    assert outputs.class_logits.shape == (1, count, net.config.num_classes + 1)
    assert outputs.mask_logits.shape == (1, count, side // 4, side // 4)
    assert state.shape == (1, count, net.config.embed_dim)
    for values in (outputs.class_logits, outputs.mask_logits, state):
        assert values.isfinite().all()
