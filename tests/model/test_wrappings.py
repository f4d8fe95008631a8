"""Tensors below keys of records and below starts of names, as training frameworks write them."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tests.model.layout_files import build, dinov2_names, one_line, original_names
from tests.model.test_pretrained import CONFIGS, loaded, random_vit
from videomt_ros.model import CheckpointError, load_model


def started(start, tensors):
    return {f'{start}{key}': value for key, value in tensors.items()}


def halved(tensors):
    return {key: value / 2 for key, value in tensors.items()}


def eomt_names(tensors):
    """Name tensors as the code of EoMT does, which has no `backbone.` before them."""
    return {key.removeprefix('backbone.'): value for key, value in tensors.items()}


def compiled_names(tensors):
    """Name tensors as torch does where the blocks are compiled one by one."""
    return {key.replace('.attn.', '.attn._orig_mod.'): v for key, v in tensors.items()}


FILES = {
    'Lightning': lambda t: {
        'state_dict': started('network.', t) | {'criterion.weight': torch.ones(2)},
        'hyper_parameters': {'lr': 1e-4},
        'pytorch-lightning_version': '2.6.0',
    },
    'Lightning, a name of its own': lambda t: {
        'state_dict': started('my_segmenter.', t) | {'loss.weight': torch.ones(2)}
    },
    'a name of its own between others': lambda t: started('module.segmenter._orig_mod.model.', t),
    'EoMT': lambda t: {
        'state_dict': started('network.', eomt_names(t))
        | {'network.encoder.pixel_std': torch.ones(1, 3, 1, 1), 'metric.total': torch.ones(1)}
    },
    'EoMT, bare': eomt_names,
    'DistributedDataParallel': lambda t: {'model': started('module.', t)},
    'a module of a module': lambda t: {'state_dict': started('module.model.', t)},
    'compiled': lambda t: started('_orig_mod.', t),
    'compiled blocks': compiled_names,
    'DDP of a compiled network': lambda t: {'model_state_dict': started('module._orig_mod.', t)},
    'a record in a record': lambda t: {'checkpoint': 1, 'state_dict': {'model': t, 'epoch': 2}},
    'averaged by torch': lambda t: started('module.', t) | {'n_averaged': torch.tensor(3)},
    'DINO': lambda t: {'teacher': t, 'student': halved(t)},
    'timm': lambda t: {'state_dict': halved(t), 'state_dict_ema': t, 'arch': 'vit'},
    'detectron2': lambda t: {'model': halved(t), 'ema_state': t, 'iteration': 7},
    'a mean in a record': lambda t: {'model': halved(t), 'ema': {'decay': 0.9, 'module': t}},
    'a mean without tensors': lambda t: {'model': t, 'ema': {'decay': 0.9, 'updates': 3}},
    'a mean beside in names': lambda t: {
        'state_dict': started('model.', halved(t)) | started('model_ema.', t)
    },
}


@pytest.mark.parametrize('kind', FILES)
def test_tensors_are_found_below_what_wraps_them(tmp_path, net, kind):
    torch.save(FILES[kind](dinov2_names(net)), tmp_path / 'mine.pth')
    found = load_model(tmp_path / 'mine.pth', num_heads=2).state_dict()
    for key, value in net.state_dict().items():
        assert torch.equal(value, found[key]), key


@pytest.mark.parametrize('architecture', ['videomt', 'pmt'])
@pytest.mark.parametrize('family', ['dinov2', 'dinov3'])
def test_starts_of_names_are_taken_off_in_safetensors_of_every_layout(
    tmp_path, tiny_config, architecture, family
):
    net = build(replace(tiny_config, architecture=architecture, family=family))
    tensors = started('module.', original_names(net))
    save_file({key: value.clone() for key, value in tensors.items()}, tmp_path / 'm.safetensors')
    found = load_model(tmp_path / 'm.safetensors', num_heads=2, norm_queries=False).state_dict()
    for key, value in net.state_dict().items():
        assert torch.equal(value, found[key]), key


def test_the_log_names_the_mean_and_what_is_left_out(tmp_path, net, caplog):
    caplog.set_level(logging.INFO)
    path, tensors = tmp_path / 'mine.pth', dinov2_names(net)
    torch.save({'model': tensors, 'model_ema': tensors}, path)
    load_model(path, num_heads=2)
    assert f"{path}: the weights under 'model_ema' are taken, not those under 'model'." in (
        caplog.messages
    )
    torch.save(FILES['Lightning'](tensors), path)
    load_model(path, num_heads=2)
    assert (
        f'{path}: the {len(tensors)} tensors below network. are taken, the other 1 are left'
        in (caplog.text)
    )


def test_names_of_another_network_are_shown_as_they_are(tmp_path):
    torch.save({'state_dict': started('module.', {'conv.weight': torch.ones(1)})}, tmp_path / 'a')
    with pytest.raises(CheckpointError, match=r'got module\.conv\.weight') as caught:
        load_model(tmp_path / 'a')
    one_line(caught)


@pytest.mark.parametrize('start', ['', 'module.', 'backbone.'])
def test_the_teacher_of_a_pretraining_starts_a_vit(tmp_path, start):
    vit = random_vit('vit_small_patch14_reg4_dinov2', img_size=64, patch_size=16, global_pool='')
    tensors = started(start, vit.state_dict())
    if start:
        tensors['dino_head.last_layer.weight'] = torch.ones(3)
    torch.save({'teacher': tensors, 'student': halved(tensors)}, tmp_path / 'vit.pth')
    found = loaded(CONFIGS['dinov2'], tmp_path / 'vit.pth').vit.state_dict()
    for key, value in vit.state_dict().items():
        assert torch.equal(value, found[key]), key
