"""Pretrained ViTs of timm in our backbone, compared with timm's own models on the same files."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file

from videomt_ros.model.backbone import Backbone, timm_name
from videomt_ros.model.checkpoint import load_vit
from videomt_ros.model.config import NetworkConfig
from videomt_ros.model.weight_files import CheckpointError

SIZES = {'embed_dim': 32, 'depth': 2, 'num_heads': 2}
TINY = NetworkConfig(
    num_classes=1, **SIZES, table_size=64, num_queries=0, num_query_blocks=1, patch_size=16
)
CONFIGS = {family: replace(TINY, family=family) for family in ('dinov2', 'dinov3', 'eva02')}
OPENAI = {
    'pixel_mean': (122.771, 116.746, 104.094), 'pixel_std': (68.501, 66.632, 70.323),
}  # fmt: skip


def random_vit(name, **arguments):
    """Build a model of timm at a tiny size, with random weights in every tensor."""
    torch.manual_seed(0)
    vit = timm.create_model(name, num_classes=0, dynamic_img_size=True, **SIZES, **arguments)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return vit.eval()


def written(tmp_path, tensors, name='vit.safetensors'):
    path = tmp_path / name
    if path.suffix == '.safetensors':
        save_file({key: value.detach().contiguous() for key, value in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return path


def loaded(config, path, name=''):
    backbone = Backbone(config).eval()
    load_vit(backbone.vit, config, name or timm_name(config), path)
    return backbone


def same_features(backbone, vit, side=64):
    frames = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = backbone(frames), vit.forward_features(frames)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ('family', 'patch_size'),
    [('dinov2', 14), ('dinov2', 16), ('dinov3', 16), ('eva02', 14), ('eva02', 16)],
)
def test_features_are_those_of_timm_on_the_same_file(tmp_path, family, patch_size):
    config = CONFIGS[family]
    name = timm_name(config)
    source = random_vit(name, img_size=7 * patch_size, patch_size=patch_size, global_pool='')
    path = written(tmp_path, source.state_dict())
    theirs = timm.create_model(
        name,
        pretrained=True,
        pretrained_cfg_overlay={'file': str(path)},
        img_size=64,
        patch_size=16,
        num_classes=0,
        global_pool='',
        **SIZES,
    ).eval()
    backbone = loaded(config, path)
    same_features(backbone, theirs)
    if patch_size == 16:  # what needs no resampling is the source itself
        taken, given = backbone.vit.state_dict(), source.state_dict()
        for key in given.keys() - {'pos_embed'}:
            assert torch.equal(taken[key], given[key]), key


def test_a_file_of_the_authors_of_dinov2_is_read_as_well(tmp_path):
    vit = random_vit('vit_small_patch14_reg4_dinov2', img_size=64, patch_size=16, global_pool='')
    tensors = dict(vit.state_dict())
    # The authors have one table for class token and patches, and a token for masked patches.
    of_class = torch.randn(1, 1, 32)
    tensors['cls_token'] = tensors['cls_token'] - of_class
    tensors['pos_embed'] = torch.cat([of_class, tensors['pos_embed']], dim=1)
    tensors['register_tokens'] = tensors.pop('reg_token')
    tensors['mask_token'] = torch.zeros(1, 32)
    path = written(tmp_path, tensors, 'dinov2_vits14_reg4_pretrain.pth')
    same_features(loaded(CONFIGS['dinov2'], path), vit)


def test_eva02_keeps_the_norm_that_timm_places_after_pooling(tmp_path):
    vit = random_vit('eva02_small_patch14_224', img_size=64, patch_size=16)  # pools by itself
    assert 'norm.weight' not in vit.state_dict()
    backbone = loaded(CONFIGS['eva02'], written(tmp_path, vit.state_dict()))
    assert torch.equal(backbone.vit.norm.weight, vit.fc_norm.weight)


def test_dinov3_without_biases_has_zeros_there(tmp_path):
    name = 'vit_small_patch16_dinov3'
    vit = random_vit(name, img_size=64, global_pool='')
    assert not any('q_bias' in key for key in vit.state_dict())
    path = written(tmp_path, vit.state_dict())
    config = CONFIGS['dinov3']
    same_features(loaded(config, path, name), vit)
    with pytest.raises(CheckpointError, match=r'missing \(4\): blocks.0.attn.q_bias, '):
        loaded(config, path)


def test_a_classifier_is_left_out(tmp_path):
    vit = random_vit('vit_small_patch14_reg4_dinov2', img_size=64, patch_size=16, global_pool='')
    tensors = vit.state_dict() | {'head.weight': torch.ones(5, 32), 'head.bias': torch.ones(5)}
    same_features(loaded(CONFIGS['dinov2'], written(tmp_path, tensors)), vit)


@pytest.mark.parametrize(
    ('name', 'changes', 'message'),
    [
        ('vit_base_patch14_reg4_dinov2', {}, r'vit_small_patch14_reg4_dinov2.*got those of vit_b'),
        ('eva02_small_patch14_224', {}, r'like vit_small_patch14.*got those of eva02_small'),
        (
            'vit_smal_patch14_reg4_dinov2',
            {},
            'timm, which has no vit_smal_p.* Nearest: vit_small_patch14_reg4_dinov2, .* like vit_',
        ),
        ('qqq.lvd142m', {}, r'timm, which has no qqq\. The network is built like vit_small'),
        ('resnet18', {}, 'got those of resnet18'),
        (
            'vit_small_patch14_reg4_dinov2',
            {'embed_dim': 384, 'depth': 12, 'num_heads': 12},
            "num_heads 12 .*'num_heads': 6",
        ),
        ('vit_small_patch14_reg4_dinov2.none', {}, "Try .'vit_small_patch14_reg4_dinov2.lvd142m'"),
    ],
)
def test_a_model_that_does_not_fit_is_named(name, changes, message):
    config = replace(TINY, **changes)
    with pytest.raises(ValueError, match=message):
        load_vit(torch.nn.Identity(), config, name)


def test_a_file_that_does_not_fit_is_named_with_its_tensors(tmp_path):
    config = CONFIGS['dinov2']
    with pytest.raises(CheckpointError, match=r'none\.pth: expected the weights .* no such file'):
        loaded(config, tmp_path / 'none.pth')
    tensors = random_vit(timm_name(config), img_size=64, patch_size=16).state_dict()
    tensors['norm.weight'] = torch.ones(31)
    tensors['stranger'] = tensors.pop('cls_token')
    with pytest.raises(
        CheckpointError,
        match=r'missing \(1\): cls_token; unknown \(1\): stranger; '
        r'misshapen \(1\): norm.weight \(expected 32, got 31\)',
    ):
        loaded(config, written(tmp_path, tensors))


def test_without_a_network_the_way_round_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    config = CONFIGS['dinov2']
    with pytest.raises(
        CheckpointError,
        match=r'of timm/vit_small_.* hub is out of reach.* goes in as timm:vit_small.*:FILE\.$',
    ):
        load_vit(Backbone(config).vit, config, timm_name(config))


def test_weights_of_the_hub_are_looked_for_in_its_cache(tmp_path, monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    config = CONFIGS['dinov2']
    vit = random_vit(timm_name(config), img_size=64, patch_size=16, global_pool='')
    folder = tmp_path / 'models--timm--vit_small_patch14_reg4_dinov2.lvd142m'
    (folder / 'refs').mkdir(parents=True)
    (folder / 'refs' / 'main').write_text('1' * 40)
    (folder / 'snapshots' / ('1' * 40)).mkdir(parents=True)
    written(folder / 'snapshots' / ('1' * 40), vit.state_dict(), 'model.safetensors')
    same_features(loaded(config, None), vit)


def test_images_of_another_mean_are_told_of(tmp_path, caplog):
    for family, changes, told in (
        ('eva02', {}, True), ('eva02', OPENAI, False), ('dinov2', {}, False)
    ):  # fmt: skip
        config = replace(CONFIGS[family], **changes)
        vit = random_vit(timm_name(config), img_size=64, patch_size=16, global_pool='')
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger='videomt_ros'):
            loaded(config, written(tmp_path, vit.state_dict()))
        assert ('normalised by mean [122.771' in caplog.text) == told


def test_weights_of_a_vit_that_are_no_numbers_are_named(tmp_path):
    config = CONFIGS['dinov2']
    tensors = random_vit(timm_name(config), img_size=64, patch_size=16).state_dict()
    tensors['norm.bias'][2] = float('nan')
    with pytest.raises(CheckpointError, match=r'not finite numbers \(1\): norm.bias'):
        loaded(config, written(tmp_path, tensors))
