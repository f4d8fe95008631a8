"""Files of differences to pretrained weights are refused, and whole ones never are."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tests.model.conftest import ORIGINALS
from tests.model.layout_files import ENCODER, build, one_line, original_names
from videomt_ros.model import CheckpointError, load_model, save_model
from videomt_ros.model.backbone import timm_name
from videomt_ros.model.checkpoint import load_vit
from videomt_ros.resources import resource


def trained(config, gamma=1e-5):
    """Build a network whose encoder looks trained: norms about 1, some channels of them at 0."""
    net = build(config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for key, value in net.backbone.named_parameters():
            if re.search(r'norm[12]?\.weight', key):
                value.copy_(torch.rand(value.shape, generator=generator) * 1.2)
                value[::3] = 0
            elif 'gamma' in key:
                value.fill_(gamma)
    return net


def less_pretrained(tensors, step):
    """Take what a ViT was pretrained with from a file, so that steps of training are left."""
    generator = torch.Generator().manual_seed(6)
    return {
        key: step * torch.randn(value.shape, generator=generator)
        if key.startswith(ENCODER)
        else value
        for key, value in tensors.items()
    }


@pytest.mark.parametrize('step', [0.02, 1e-6, 0])  # 0: the encoder was frozen
@pytest.mark.parametrize('layout', ORIGINALS)
def test_differences_are_refused_in_every_layout(tmp_path, tiny_config, layout, step):
    config = replace(tiny_config, **ORIGINALS[layout])
    tensors = original_names(trained(config))
    path = tmp_path / 'mine.pth'
    torch.save({'model': tensors}, path)
    load_model(path, num_heads=2, norm_queries=False)
    torch.save({'model': less_pretrained(tensors, step)}, path)
    with pytest.raises(CheckpointError, match='differences to pretrained ones') as caught:
        load_model(path, num_heads=2, norm_queries=False)
    message = one_line(caught)
    assert str(path) in message
    assert timm_name(config).replace('_qkvb', '') in message
    assert 'timm/vit_small_patch1' in message


def test_a_buffer_of_zeros_tells_differences_too(tmp_path, tiny_config):
    tensors = original_names(trained(replace(tiny_config, family='dinov3')))
    for value in (1.0, 0.0):
        tensors['backbone.encoder.pixel_std'] = torch.full((1, 3, 1, 1), value)
        torch.save({'model': tensors}, tmp_path / 'mine.pth')
        if value:
            load_model(tmp_path / 'mine.pth', num_heads=2, norm_queries=False)
    with pytest.raises(CheckpointError, match='its pixel_std is 0'):
        load_model(tmp_path / 'mine.pth', num_heads=2, norm_queries=False)


def test_a_file_of_ours_that_was_made_of_differences_is_refused(tmp_path, tiny_config):
    net = trained(tiny_config)
    for value in net.backbone.parameters():
        torch.nn.init.normal_(value, std=0.01)
    save_model(net, tmp_path / 'mine.safetensors')
    with pytest.raises(CheckpointError, match='differences to pretrained ones'):
        load_model(tmp_path / 'mine.safetensors')


def test_a_vit_of_differences_starts_no_training(tmp_path, tiny_config):
    net = trained(tiny_config)
    vit, name = net.backbone.vit, 'vit_small_patch14_reg4_dinov2'
    tensors = {key: value.clone() for key, value in vit.state_dict().items()}
    save_file(tensors, tmp_path / 'vit.safetensors')
    load_vit(vit, tiny_config, name, tmp_path / 'vit.safetensors')
    save_file({k: 0.01 * v for k, v in tensors.items()}, tmp_path / 'vit.safetensors')
    with pytest.raises(CheckpointError, match='differences to pretrained ones') as caught:
        load_vit(vit, tiny_config, name, tmp_path / 'vit.safetensors')
    assert f'timm: {name})' in one_line(caught)
    assert torch.equal(vit.state_dict()['norm.weight'], tensors['norm.weight'])


def test_the_lines_in_the_docs_add_pretrained_weights(tmp_path, tiny_config, monkeypatch):
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    pretrained = DINOv3ViTModel(
        DINOv3ViTConfig(
            hidden_size=tiny_config.embed_dim,
            num_hidden_layers=tiny_config.depth,
            num_attention_heads=tiny_config.num_heads,
            intermediate_size=4 * tiny_config.embed_dim,
            num_register_tokens=4,
            patch_size=tiny_config.patch_size,
        )
    )
    monkeypatch.chdir(tmp_path)
    pretrained.save_pretrained('facebook/dinov3-vitl16-pretrain-lvd1689m')
    config = replace(tiny_config, family='dinov3')
    tensors = original_names(trained(config))
    torch.save({'model': less_pretrained(tensors, 0.01)}, 'differences.pth')
    text = resource('models').parent.joinpath('docs', 'troubleshooting.md').read_text()
    (lines,) = re.findall(
        r'## Differences to pretrained weights\n.*?```python\n(.*?)```', text, re.DOTALL
    )
    exec(lines, {})
    vit = load_model('whole.pth', num_heads=2, norm_queries=False).backbone.vit
    found, theirs = vit.state_dict(), pretrained.state_dict()
    assert not found['norm.weight'].equal(theirs['norm.weight'])
    for ours, name in (
        ('norm.weight', 'norm.weight'),
        ('reg_token', 'embeddings.register_tokens'),
    ):
        torch.testing.assert_close(found[ours], theirs[name], atol=0.05, rtol=0)
    (weight,) = (theirs[key] for key in theirs if key.endswith('.1.attention.k_proj.weight'))
    ours = found['blocks.1.attn.qkv.weight'].chunk(3)[1]
    torch.testing.assert_close(ours, weight, atol=0.05, rtol=0)
