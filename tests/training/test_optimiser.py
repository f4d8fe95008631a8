"""Groups of parameters by depth, and schedules at their corners, worked out by hand."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from videomt_ros.model import NetworkConfig, VidEoMT
from videomt_ros.training.optimiser import (
    check_groups,
    depth_of,
    group_table,
    learning_rate_factor,
    learning_rate_factors,
    masked_attention_probabilities,
    parameter_groups,
    set_learning_rates,
)


def located(net: VidEoMT, *arguments) -> dict[str, dict]:
    """Find the group of each parameter by its name."""
    groups = parameter_groups(net, *arguments)
    group_of = {id(parameter): group for group in groups for parameter in group['params']}
    return {name: group_of[id(parameter)] for name, parameter in net.named_parameters()}


def test_factors_of_a_vit_s_by_hand():
    with torch.device('meta'):
        net = VidEoMT(NetworkConfig(num_classes=2))  # ViT-S: 12 blocks, 3 of them with queries
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


def test_schedules_start_turn_and_end_where_they_should():
    rates = [learning_rate_factor(step, 10, 110, 0.9) for step in range(111)]
    assert rates[0] == 0 and rates[10] == 1 and rates[110] == 0
    assert all(a < b for a, b in zip(rates[:10], rates[1:11], strict=True))
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert rates[60] == pytest.approx(0.5**0.9)


@pytest.mark.parametrize(
    ('step', 'vit', 'new'),
    [
        (0, 0, 0),
        (500, 0, 1),  # what is new has risen, the ViT begins
        (1000, 1 / 2, (39_000 / 39_500) ** 0.9),
        (1500, 1, (38_500 / 39_500) ** 0.9),  # decays from here, from its own top
        (20_750, (1 / 2) ** 0.9, (19_250 / 39_500) ** 0.9),
        (39_999, (1 / 38_500) ** 0.9, (1 / 39_500) ** 0.9),
        (40_000, 0, 0),  # both end together
    ],
)
def test_the_two_stages_of_the_published_recipe(step, vit, new):
    factors = learning_rate_factors(step, 500, 1000, 40_000, 0.9)
    assert factors == {'vit': pytest.approx(vit), 'new': pytest.approx(new)}


def test_without_a_second_stage_all_rise_together():
    for step in (0, 250, 500, 5000, 10_000):
        factor = learning_rate_factor(step, 500, 10_000, 0.9)
        assert learning_rate_factors(step, 500, None, 10_000, 0.9) == {
            'vit': factor,
            'new': factor,
        }


def test_stages_of_no_steps():
    assert learning_rate_factors(0, 0, 0, 10, 1.0) == {'vit': 1.0, 'new': 1.0}
    assert learning_rate_factors(3, 4, 0, 8, 1.0) == {'vit': 0.0, 'new': 3 / 4}
    assert learning_rate_factors(4, 4, 0, 8, 1.0) == {'vit': 1.0, 'new': 1.0}
    assert learning_rate_factors(0, 0, 2, 8, 1.0) == {'vit': 0.0, 'new': 1.0}


def test_a_run_that_ends_within_its_warm_up_only_rises():
    assert learning_rate_factors(5, 4, 8, 6, 0.9)['vit'] == 1 / 8
    assert learning_rate_factors(5, 10, 8, 6, 0.9) == {'vit': 0.0, 'new': 1 / 2}


def test_masked_attention_of_all_blocks_fades_along_a_line():
    fading = [masked_attention_probabilities(step, 100, 0.5, 3) for step in (0, 25, 50, 99)]
    assert fading == [[1.0] * 3, [0.5] * 3, [0.0] * 3, [0.0] * 3]


@pytest.mark.parametrize(
    ('step', 'expected'),
    [
        # EoMT-L on COCO for 88,692 steps: block i fades from 14,782 (i + 1) to 14,782 (i + 2).
        (0, [1, 1, 1, 1]),
        (14_782 + 7_391, [(1 / 2) ** 0.9, 1, 1, 1]),
        (29_564, [0, 1, 1, 1]),
        (73_910 - 1_478, [0, 0, 0, (1_478 / 14_782) ** 0.9]),
        (73_910, [0, 0, 0, 0]),
    ],
)
def test_masked_attention_of_an_image_model_fades_block_by_block(step, expected):
    found = masked_attention_probabilities(step, 88_692, 5 / 6, 4, in_turn=True)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ('step', 'expected'),
    [
        # EoMT-B on COCO for 88,692 steps: blocks begin at 14,782, 36,955 and 59,128 and end at
        # 29,564, 51,737 and 73,910. EoMT-S the same, with twice the steps.
        (29_564, [0, 1, 1]),
        (36_955, [0, 1, 1]),
        (36_955 + 7_391, [0, (1 / 2) ** 0.9, 1]),
        (59_128, [0, 0, 1]),
        (59_128 + 7_391, [0, 0, (1 / 2) ** 0.9]),
    ],
)
def test_three_blocks_fade_with_pauses_between(step, expected):
    found = masked_attention_probabilities(step, 88_692, 5 / 6, 3, in_turn=True)
    assert found == pytest.approx(expected)


def test_a_single_block_fades_last():
    found = [masked_attention_probabilities(s, 60, 5 / 6, 1, in_turn=True) for s in (40, 45, 50)]
    assert found == [[1.0], pytest.approx([(1 / 2) ** 0.9]), [0.0]]


def test_without_masked_attention_no_block_has_any():
    for in_turn in (False, True):
        assert masked_attention_probabilities(0, 100, 0.0, 2, in_turn) == [0.0, 0.0]
