"""Parameter groups: how deep each parameter lies, and what that makes of its learning rate."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from videomt_ros.model import VidEoMT, VidEoMTConfig
from videomt_ros.training.optimiser import (
    check_groups,
    depth_of,
    group_table,
    parameter_groups,
    set_learning_rates,
)


def located(net: VidEoMT, *arguments) -> dict[str, dict]:
    """The group of each parameter, by the parameter's name."""
    groups = parameter_groups(net, *arguments)
    group_of = {id(parameter): group for group in groups for parameter in group['params']}
    return {name: group_of[id(parameter)] for name, parameter in net.named_parameters()}


def test_factors_of_a_vit_s_by_hand():
    with torch.device('meta'):
        net = VidEoMT(VidEoMTConfig(num_classes=2))  # ViT-S: 12 blocks, 3 of them with queries
    found = located(net, 0.05, 0.5)
    # 11 blocks below the last: 2^-11 for the first and what is in front of it.
    expected = {
        'backbone.vit.patch_embed.proj.weight': 1 / 2048,
        'backbone.vit.patch_embed.proj.bias': 1 / 2048,
        'backbone.vit.pos_embed': 1 / 2048,
        'backbone.vit.cls_token': 1 / 2048,
        'backbone.vit.reg_token': 1 / 2048,
        'backbone.vit.blocks.0.norm1.weight': 1 / 2048,
        'backbone.vit.blocks.1.attn.qkv.weight': 1 / 1024,
        'backbone.vit.blocks.8.mlp.fc2.bias': 1 / 8,
        'backbone.vit.blocks.9.mlp.fc1.weight': 1 / 4,  # the first that sees queries
        'backbone.vit.blocks.10.ls2.gamma': 1 / 2,
        'backbone.vit.blocks.11.attn.proj.weight': 1,
        'backbone.vit.norm.weight': 1,
        'q.weight': 1,
        'query_updater.weight': 1,
        'class_head.bias': 1,
        'mask_head.4.weight': 1,
        'upscale.1.conv2.weight': 1,
    }
    assert {name: found[name]['lr_factor'] for name in expected} == expected
    assert {group['part'] for name, group in found.items() if 'backbone' in name} == {'vit'}
    assert {group['part'] for name, group in found.items() if 'backbone' not in name} == {'new'}
    published = located(net, 0.05, 0.6)
    assert published['backbone.vit.pos_embed']['lr_factor'] == pytest.approx(0.6**11)


@pytest.mark.parametrize('propagation', ['fusion', 'gru'])
@pytest.mark.parametrize('family', ['dinov2', 'dinov3', 'eva02'])
def test_each_parameter_of_each_family_has_its_depth(tiny_config, family, propagation):
    net = VidEoMT(replace(tiny_config, family=family, propagation=propagation))
    for name, group in located(net, 0.05, 0.1).items():
        block = re.search(r'blocks\.(\d)\.', name)
        if block:
            depth = int(block[1])
        else:
            front = ('patch_embed', 'pos_embed', 'cls_token', 'reg_token')
            depth = 0 if any(part in name for part in front) else 2
        assert group['lr_factor'] == pytest.approx(0.1 ** (2 - depth)), name
    groups = parameter_groups(net, 0.05)
    assert sum(len(group['params']) for group in groups) == len(list(net.parameters()))
    assert {group['lr_factor'] for group in groups} == {1.0}


@pytest.mark.parametrize('family', ['dinov2', 'dinov3', 'eva02'])
def test_vectors_prefix_tokens_and_queries_do_not_decay(tiny_config, family):
    net = VidEoMT(replace(tiny_config, family=family))
    decay = {name: group['weight_decay'] for name, group in located(net, 0.03).items()}
    assert set(decay.values()) == {0.03, 0.0}
    for name, value in decay.items():
        vector = name.endswith(('.bias', '_bias', 'norm.weight', 'norm1.weight', 'norm2.weight'))
        scale = '.gamma' in name
        token = name.endswith('_token') or name == 'q.weight'
        assert (value == 0) == (vector or scale or token), name
    everything = located(net, 0.03, 1.0, True).values()
    assert {group['weight_decay'] for group in everything} == {0.03}


def test_a_part_of_the_vit_that_is_not_known_is_named(tiny_net):
    assert depth_of('backbone.vit.blocks.11.ls1.gamma', 24) == 12
    tiny_net.backbone.vit.pooling = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r'got backbone\.vit\.pooling\.weight'):
        parameter_groups(tiny_net, 0.05)


def test_groups_with_gaps_or_twins_are_refused():
    net = nn.Linear(2, 3)
    check_groups(net, [{'params': [net.weight]}, {'params': [net.bias]}])
    with pytest.raises(ValueError, match='got bias in 0.'):
        check_groups(net, [{'params': [net.weight]}])
    with pytest.raises(ValueError, match='got weight in 2.'):
        check_groups(net, [{'params': [net.weight]}, {'params': [net.bias, net.weight]}])
    with pytest.raises(ValueError, match='got 1 of another network.'):
        check_groups(net, [{'params': [net.weight, net.bias, nn.Parameter(torch.ones(1))]}])


def test_the_table_shows_every_group():
    net = nn.Linear(1000, 3)
    groups = [
        {'name': 'vit block 0', 'params': [net.weight], 'lr_factor': 0.6**2, 'weight_decay': 0.05},
        {'name': 'new, no decay', 'params': [net.bias], 'lr_factor': 1.0, 'weight_decay': 0.0},
    ]
    assert group_table(groups).splitlines() == [
        'group          parameters  lr factor  weight decay',
        'vit block 0         3,000       0.36          0.05',
        'new, no decay           3          1             0',
    ]


def test_groups_have_telling_names(tiny_net):
    names = [group['name'] for group in parameter_groups(tiny_net, 0.05)]
    assert names == [
        'vit embedding', 'vit embedding, no decay',
        'vit block 0', 'vit block 0, no decay',
        'vit block 1', 'vit block 1, no decay',
        'vit block 2', 'vit block 2, no decay',
        'vit norm, no decay', 'new', 'new, no decay',
    ]  # fmt: skip


def test_rates_are_base_times_depth_times_part(tiny_net):
    optimizer = torch.optim.AdamW(parameter_groups(tiny_net, 0.05, 0.5), lr=1.0)
    set_learning_rates(optimizer, 0.8, {'vit': 0.5, 'new': 0.25})
    rates = {group['name']: group['lr'] for group in optimizer.param_groups}
    assert rates['vit embedding'] == pytest.approx(0.8 * 0.5 / 4)
    assert rates['vit block 1'] == pytest.approx(0.8 * 0.5 / 2)
    assert rates['vit block 2, no decay'] == pytest.approx(0.8 * 0.5)
    assert rates['vit norm, no decay'] == pytest.approx(0.8 * 0.5)
    assert rates['new'] == pytest.approx(0.8 * 0.25)
