"""A small network, and files of each layout that hold one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model.layout_files import build, original_names
from videomt_ros.model import load_model, save_model


@pytest.fixture
def net(tiny_config):
    return build(tiny_config)


@pytest.fixture
def clip():
    return torch.randn(1, 3, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope='session')
def port():
    """Build a tiny network of transformers with random weights."""
    from transformers import VideomtConfig, VideomtForUniversalSegmentation

    config = VideomtConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
        num_blocks=2,
        num_queries=6,
        id2label={0: 'circle', 1: 'square', 2: 'sky'},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = VideomtForUniversalSegmentation(config).eval()
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return net


@pytest.fixture
def folder(port, tmp_path):
    port.save_pretrained(tmp_path / 'port')
    return tmp_path / 'port'


ORIGINALS = {
    'original DINOv2': {'family': 'dinov2'},
    'original DINOv3': {'family': 'dinov3'},
    'original PMT, DINOv2': {'family': 'dinov2', 'architecture': 'pmt'},
    'original LVMT, DINOv3': {'family': 'dinov3', 'architecture': 'pmt', 'propagation': 'gru'},
}
"""Kind of network in each layout of the released code."""


@pytest.fixture(params=[*ORIGINALS, 'transformers', 'own', 'own LVMT'])
def breakable(request, tmp_path, tiny_config):
    """Write a file of each layout; return its tensors and a function to save and load them."""
    layout = request.param
    if layout == 'transformers':
        folder = request.getfixturevalue('folder')
        tensors = load_file(folder / 'model.safetensors')

        def load():
            save_file(tensors, folder / 'model.safetensors', {'format': 'pt'})
            return load_model(folder)
    elif layout.startswith('own'):
        kind = ORIGINALS['original LVMT, DINOv3'] if layout == 'own LVMT' else {}
        own_config = replace(tiny_config, **kind)
        save_model(build(own_config), tmp_path / 'mine.safetensors')
        tensors = load_file(tmp_path / 'mine.safetensors')

        def load():
            config = json.dumps(own_config.to_dict())
            metadata = {'format': 'videomt_ros', 'version': '1', 'config': config}
            save_file(tensors, tmp_path / 'mine.safetensors', metadata)
            return load_model(tmp_path / 'mine.safetensors')
    else:
        tensors = original_names(build(replace(tiny_config, **ORIGINALS[layout])))

        def load():
            torch.save({'model': tensors}, tmp_path / 'mine.pth')
            return load_model(tmp_path / 'mine.pth', num_heads=2, norm_queries=False)

    load()
    return tensors, load
