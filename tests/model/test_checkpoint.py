"""Where weights are looked for, what a loaded network is, and what is saved."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch

from tests.model.layout_files import build, dinov2_names, one_line, outputs
from videomt_ros.model import CheckpointError, VidEoMT, load_model, save_model


def test_a_local_path_wins_over_a_hub_name(net, tmp_path, monkeypatch):
    (tmp_path / 'owner').mkdir()
    torch.save(dinov2_names(net), tmp_path / 'owner' / 'name')
    monkeypatch.chdir(tmp_path)
    assert load_model('owner/name', num_heads=2).config.name == 'name'


@pytest.mark.parametrize(
    ('source', 'fault'),
    [
        ('./no/such.pth', 'no such file or folder'),
        ('such.safetensors', 'no such file or folder'),
        ('a/b/c', 'no such file or folder'),
        (Path('demo'), 'no such file or folder'),
        ('videomt-dinov2-smal-ytvis2019', 'Nearest: videomt-dinov2-small-ytvis2019'),
        ('resnet', '`videomt models` lists them all'),
        ('out/train', 'There is no file or folder out/train here either.'),
        ('tue-mps/videomt-dinov2-smal-ovis', 'Nearest: videomt-dinov2-large-ovis'),
    ],
)
def test_a_source_that_is_not_there(source, fault, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load_model(source)
    assert fault in one_line(caught)


@pytest.mark.parametrize('family', ['dinov2', 'dinov3', 'eva02'])
def test_a_loaded_network_is_a_built_one(tmp_path, tiny_config, clip, family):
    """Loading skips the random weights, but what no file holds must be computed all the same."""
    config = replace(tiny_config, family=family)
    net = build(config)
    save_model(net, tmp_path / 'mine.safetensors')
    loaded = load_model(tmp_path / 'mine.safetensors')
    built = VidEoMT(config).eval()
    built.load_state_dict(net.state_dict())
    for kind in ('named_parameters', 'named_buffers'):
        expected, found = dict(getattr(built, kind)()), dict(getattr(loaded, kind)())
        assert list(expected) == list(found)
        for key, value in expected.items():
            assert torch.equal(value, found[key]), key
            assert value.requires_grad == found[key].requires_grad
    for ours, theirs in zip(outputs(built, clip), outputs(loaded, clip), strict=True):
        assert torch.equal(ours, theirs)
    loaded.half().float()  # timm restores the angles after each change of type
    loaded.train()(clip).mask_logits.sum().backward()


def test_a_loaded_network_does_not_need_its_file_any_more(tmp_path, net, clip):
    path = tmp_path / 'mine.pth'
    torch.save(dinov2_names(net), path)
    loaded = load_model(path, num_heads=2)
    path.write_bytes(b'another')
    for ours, theirs in zip(outputs(net, clip), outputs(loaded, clip), strict=True):
        assert torch.equal(ours, theirs)


def test_half_precision_on_disk_loads_as_float32(tmp_path, net):
    save_model(net, tmp_path / 'full.safetensors')
    save_model(net, tmp_path / 'half.safetensors', torch.float16)
    sizes = [(tmp_path / f'{n}.safetensors').stat().st_size for n in ('full', 'half')]
    assert sizes[1] < 0.6 * sizes[0]
    for key, value in load_model(tmp_path / 'half.safetensors').state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, net.state_dict()[key].half().float())
    assert next(net.parameters()).dtype == torch.float32


def test_a_save_that_fails_leaves_the_old_file(tmp_path, net):
    path = tmp_path / 'mine.safetensors'
    save_model(net, path)
    before = path.read_bytes()
    with torch.no_grad():
        net.class_head.bias[0] = 1e6  # finite, but not in half precision
    with pytest.raises(ValueError, match='not: class_head.bias'):
        save_model(net, path, torch.float16)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match=r'ends in \.safetensors, got .*mine\.pth'):
        save_model(net, tmp_path / 'mine.pth')


def test_a_saved_file_outlasts_a_power_cut(tmp_path, net, monkeypatch):
    synced = []
    monkeypatch.setattr(os, 'fsync', lambda handle: synced.append(handle))
    save_model(net, tmp_path / 'mine.safetensors')
    assert len(synced) == 2  # the file and its folder
