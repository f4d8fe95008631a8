"""Networks that share an encoder compute what each does alone, and share only what is equal."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import pytest
import torch

from videomt_ros.model import (
    CheckpointError,
    NetworkConfig,
    NetworkGroup,
    build_network,
    load_model,
    load_models,
    save_model,
)

CONFIG = NetworkConfig(
    num_classes=3,
    architecture='pmt',
    propagation='gru',
    family='dinov3',
    embed_dim=32,
    depth=4,
    num_heads=2,
    table_size=64,
    num_queries=6,
    num_query_blocks=2,
    test_size=64,
    size_divisor=16,
    name='instances',
)
OTHER = replace(
    CONFIG,
    num_classes=5,
    class_names=(),
    thing_classes=(),
    propagation='fusion',
    num_queries=9,
    num_query_blocks=3,
    task='panoptic',
    name='stuff',
)
"""Another decoder for the same encoder: everything differs that may."""


def make(config: NetworkConfig, seed: int, encoder=None):
    """A network with random weights, all of which count; with the encoder weights of another."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build_network(config).eval()
        with torch.no_grad():
            for name, value in net.state_dict().items():
                value.copy_(0.2 * torch.randn_like(value))
                if name.endswith('running_var'):
                    value.abs_().add_(0.1)
    if encoder is not None:
        net.backbone.load_state_dict(encoder.backbone.state_dict())
    return net


@pytest.fixture
def files(tmp_path):
    """Files of two decoders with equal encoders."""
    first = make(CONFIG, 1)
    paths = [tmp_path / 'instances.safetensors', tmp_path / 'stuff.safetensors']
    for path, net in zip(paths, (first, make(OTHER, 2, first)), strict=True):
        save_model(net, path)
    return paths


def count_passes(group) -> list[torch.Size]:
    """The sizes of the frames that enter an encoder from now on."""
    passes: list[torch.Size] = []
    for vit in {id(net.backbone.vit): net.backbone.vit for net in group}.values():
        vit.patch_embed.register_forward_pre_hook(lambda _, inputs: passes.append(inputs[0].shape))
    return passes


def check_equal(one, other) -> None:
    """Fail unless two results of a step are the same, but for the order of sums.

    Tensors that lie differently in memory are added up in another order.
    """
    (outputs, state), (others, other_state) = one, other
    for value, expected in zip((*outputs[:3], state), (*others[:3], other_state), strict=True):
        scale = expected.abs().max().item()
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-6 * max(1.0, scale))


@torch.inference_mode()
@pytest.mark.parametrize('family', ['dinov2', 'dinov3', 'eva02'])
def test_each_network_computes_what_it_does_alone(tmp_path, family):
    first = make(replace(CONFIG, family=family), 1)
    alone = [first, make(replace(OTHER, family=family), 2, first)]
    paths = [tmp_path / f'{n}.safetensors' for n in range(2)]
    for net, path in zip(alone, paths, strict=True):
        save_model(net, path)
    group = load_models(paths)
    assert group.num_encoders == 1
    assert not group.apart
    passes = count_passes(group)
    torch.manual_seed(0)
    # Two pairs of streams in turns, one of them two videos at once; none is square.
    sizes = [(1, 48, 80), (2, 64, 32)]
    states = [group.initial_states(batch) for batch, *_ in sizes]
    expected = [[net.initial_state(batch) for net in alone] for batch, *_ in sizes]
    for turn in range(6):
        batch, height, width = sizes[turn % 2]
        frames = torch.randn(batch, 3, height, width)
        together = group.step(frames, states[turn % 2])
        for place, net in enumerate(alone):
            own = net.step(frames, expected[turn % 2][place])
            check_equal(together[place], own)
            expected[turn % 2][place] = own[1]
        states[turn % 2] = [state for _, state in together]
    assert len(passes) == 6


def test_the_encoder_is_in_memory_once(files):
    group = load_models(files)
    singles = [load_model(path) for path in files]
    own = {id(value) for net in group for value in net.parameters()}
    encoder = len(list(singles[0].backbone.parameters()))
    assert len(own) == sum(len(list(net.parameters())) for net in singles) - encoder
    group.to(torch.float64)
    assert {value.dtype for net in group for value in net.parameters()} == {torch.float64}
    assert group.num_encoders == 1


def test_a_network_of_a_group_works_alone(files):
    group = load_models(files)
    frames = torch.randn(1, 3, 32, 64)
    with torch.inference_mode():
        for net, path in zip(group, files, strict=True):
            alone = load_model(path)
            state = alone.initial_state()
            check_equal(net.step(frames, state), alone.step(frames, state))
    assert [net.config.name for net in group] == ['instances', 'stuff']
    assert group[1].digest() == load_model(files[1]).digest()


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'family': 'eva02'}, 'family is dinov3 and eva02'),
        ({'num_heads': 4}, 'num_heads is 2 and 4'),
        ({'tap_blocks': (0, 3)}, r'taps is \(0, 1, 2, 3\) and \(0, 3\)'),
        ({'pixel_mean': (0.0, 0.0, 0.0)}, r'pixel_mean is \(123'),
        ({'architecture': 'videomt'}, r'stuff was trained with its decoder \(architecture'),
    ],
)  # fmt: skip
def test_networks_that_differ_run_an_encoder_each(tmp_path, caplog, change, words):
    nets = [make(CONFIG, 1), make(replace(OTHER, **change), 2)]
    paths = [tmp_path / f'{n}.safetensors' for n in range(2)]
    for net, path in zip(nets, paths, strict=True):
        save_model(net, path)
    with caplog.at_level(logging.WARNING, 'videomt_ros'):
        group = load_models(paths)
    assert group.num_encoders == 2
    assert list(group.apart) == [1]
    (record,) = caplog.records  # told once
    assert re.search(f'instances and stuff do not share an encoder.*{words}', record.message)
    frames = [torch.randn(1, 3, 32, 48) for _ in nets]
    with torch.inference_mode():
        for own, net, state, result in zip(
            frames,
            nets,
            group.initial_states(),
            group.step(frames, group.initial_states()),
            strict=True,
        ):
            check_equal(result, net.step(own, state))
    assert not caplog.records[1:]


def test_one_changed_weight_of_an_encoder_is_enough(tmp_path, files, caplog):
    changed = load_model(files[1])
    with torch.no_grad():
        changed.backbone.vit.blocks[2].mlp.fc2.bias[5] += 1e-3
    save_model(changed, tmp_path / 'changed.safetensors')
    # The third has the encoder of the first.
    group = load_models([files[0], tmp_path / 'changed.safetensors', files[1]])
    assert group.num_encoders == 2
    assert list(group.apart) == [1]
    assert 'its weights differ' in group.apart[1]
    assert group[2].backbone is group[0].backbone
    frames, states = torch.randn(2, 3, 32, 32), group.initial_states(2)
    with torch.inference_mode():
        results = group.step(frames, states)
        for net, state, result in zip(group, states, results, strict=True):
            check_equal(result, net.step(frames, state))


def test_a_different_test_size_is_told_and_one_for_all_is_taken(tmp_path, files, caplog):
    large = tmp_path / 'large.safetensors'
    net = load_model(files[1], test_size=128)
    save_model(net, large)
    with caplog.at_level(logging.WARNING, 'videomt_ros'):
        group = load_models([files[0], large])
    assert group.num_encoders == 1
    assert 'test_size is 64 and 128' in caplog.text
    caplog.clear()
    group = load_models([files[0], large], test_size=96)
    assert [net.config.test_size for net in group] == [96, 96]
    assert not caplog.records


def test_wrong_inputs_are_named(tmp_path, files):
    group = load_models(files)
    states = group.initial_states()
    frames = torch.randn(1, 3, 32, 32)
    with pytest.raises(ValueError, match='Expected 2 states, one per network, got 1'):
        group.step(frames, states[:1])
    with pytest.raises(ValueError, match='Expected 2 tensors of frames, one per network, got 3'):
        group.step([frames] * 3, states)
    with pytest.raises(ValueError, match='Expected a state of shape'):
        group.step(frames, states[::-1])
    with pytest.raises(ValueError, match='multiples of the patch size'):
        group.step(frames[..., 1:], states)
    with pytest.raises(ValueError, match='Expected one network or more'):
        load_models([])
    with pytest.raises(ValueError, match='Expected a list of sources, got demo'):
        load_models('demo')
    with pytest.raises(CheckpointError, match='none'):
        load_models([files[0], tmp_path / 'none.safetensors'])
    bright = NetworkGroup([make(CONFIG, 1), make(replace(OTHER, pixel_std=(1.0, 1.0, 1.0)), 2)])
    with pytest.raises(
        ValueError, match='one tensor of frames for each network, since pixel_std is'
    ):
        bright.step(frames, bright.initial_states())
