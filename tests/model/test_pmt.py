"""PMT and LVMT: against plain code, the folded batch norms, and how they train."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.model.layout_files import build, pmt_names
from tests.model.plain_pmt import PlainPmt
from videomt_ros.model import PMT, NetworkConfig, load_model
from videomt_ros.model.network import Encoded, join_encoded
from videomt_ros.model.token_norm import TokenNorm

CONFIG = NetworkConfig(
    num_classes=4,
    architecture='pmt',
    embed_dim=32,
    depth=8,
    num_heads=2,
    table_size=64,
    num_queries=6,
    num_query_blocks=6,
    propagation='gru',
)


def random_clip(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('family', ['dinov2', 'dinov3'])
@pytest.mark.parametrize('propagation', ['fusion', 'gru'])
def test_a_file_computes_what_the_formulas_say(tmp_path, family, propagation):
    net = build(replace(CONFIG, family=family, propagation=propagation))
    torch.save({'model': pmt_names(net)}, tmp_path / 'mine.pth')
    loaded = load_model(tmp_path / 'mine.pth', num_heads=2)
    plain = PlainPmt(pmt_names(net), heads=2, taps=[1, 3, 5, 7])
    clip = random_clip(4, 3, 48, 80)
    state = loaded.initial_state(1)
    with torch.inference_mode():
        for frame in clip:
            class_logits, mask_logits = plain.step(frame)
            outputs, state = loaded.step(frame[None], state)
            for ours, theirs in (
                (outputs.class_logits[0], class_logits),
                (outputs.mask_logits[0], mask_logits),
                (state[0], plain.queries),
            ):
                error = (ours - theirs).abs().max() / theirs.abs().max()
                assert error < 5e-6


@pytest.mark.parametrize('family', ['dinov2', 'dinov3', 'eva02'])
def test_folded_batch_norms_change_nothing(family):
    """Where gradients are recorded, the batch norms run as they are."""
    net = build(replace(CONFIG, family=family)).double()
    clip = random_clip(2, 3, 3, 48, 80).double()
    plain = net(clip)
    assert plain.mask_logits.requires_grad
    with torch.no_grad():
        folded = net(clip)
    for ours, theirs in zip(folded[:2], plain[:2], strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-10)


def test_folding_loses_no_digits_where_the_mean_is_large():
    """Some channels of DINO have a mean of a hundred standard deviations."""
    net = build(CONFIG)
    frames = random_clip(2, 3, 48, 80)
    with torch.no_grad():
        net.backbone.vit.norm.bias[:4] = 100
        net.backbone.vit.norm.weight[:4] = 0.3
        for norm, tokens in zip(net.bn, net.encode(frames).tokens, strict=True):
            norm.running_mean.copy_(tokens.mean((0, 1)))
            norm.running_var.copy_(tokens.var((0, 1)))
        encoded = net.encode(frames)
        folded = net.lateral(net, encoded)
        levels = tuple(tokens.double() for tokens in encoded.tokens)
        exact = net.double().lateral(net, encoded._replace(tokens=levels))
    error = (folded - exact).abs().max() / exact.abs().max()
    assert error < 5e-6


def test_a_token_norm_is_torchs_batch_norm():
    """In training and outside, with the running statistics and the gradients."""
    torch.manual_seed(0)
    ours, theirs = TokenNorm(8).double(), nn.BatchNorm1d(8).double()
    state = {key: 1 + torch.rand(8).double() for key in ours.state_dict()}
    ours.load_state_dict(state)
    theirs.load_state_dict(state | {'num_batches_tracked': torch.tensor(0)})
    for training in (True, True, False):
        ours.train(training)
        theirs.train(training)
        x = (3 + torch.randn(3, 5, 8).double()).requires_grad_()
        y = x.detach().clone().requires_grad_()
        results = ours(x), theirs(y.transpose(1, 2)).transpose(1, 2)
        torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)
        for result in results:
            (result**3).sum().backward()
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    for name in ('running_mean', 'running_var'):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
    by_hand = (x - ours.running_mean) * ours.scale() + ours.bias
    torch.testing.assert_close(by_hand, results[0], rtol=1e-10, atol=1e-12)


def _train_once(net: PMT) -> None:
    net.train()(random_clip(1, 2, 3, 48, 80))
    net.eval()


def _load(net: PMT) -> None:
    net.load_state_dict({key: value + 0.1 for key, value in net.state_dict().items()})


def _assign(net: PMT) -> None:
    weights = {key: value + 0.1 for key, value in net.state_dict().items()}
    net.load_state_dict(weights, assign=True)


def _change_in_place(net: PMT) -> None:
    with torch.no_grad():
        net.lateral_projections[2][0].weight.mul_(2)


def _give_other_values(net: PMT) -> None:
    net.bn[1].bias.data = net.bn[1].bias + 1


def _convert(net: PMT) -> None:
    net.scalers[0].data.mul_(3)  # which torch counts as no change
    net.float().double()


@pytest.mark.parametrize(
    'change', [_train_once, _load, _assign, _change_in_place, _give_other_values, _convert]
)
def test_folded_weights_follow_the_network(change):
    torch.manual_seed(3)
    net = build(CONFIG).double()
    frame = random_clip(1, 3, 48, 80).double()
    if change is _train_once:
        net = net.float()
        frame = frame.float()
    with torch.no_grad():
        before = net.step(frame, net.initial_state(1))[0]
    change(net)
    fresh = copy.deepcopy(net)
    with torch.no_grad():
        after, expected = (each.step(frame, each.initial_state(1))[0] for each in (net, fresh))
    assert torch.equal(after.mask_logits, expected.mask_logits)
    assert not torch.allclose(after.mask_logits, before.mask_logits, rtol=1e-3)


@torch.inference_mode()
def test_folded_weights_follow_a_network_that_was_made_in_inference_mode():
    net = copy.deepcopy(build(CONFIG))
    frame = random_clip(1, 3, 48, 80)
    before = net.step(frame, net.initial_state(1))[0]
    net.bn[0].weight.mul_(2)
    after, expected = (
        each.step(frame, each.initial_state(1))[0] for each in (net, copy.deepcopy(net))
    )
    assert torch.equal(after.mask_logits, expected.mask_logits)
    assert not torch.allclose(after.mask_logits, before.mask_logits, rtol=1e-3)


def test_a_network_that_has_run_can_be_copied():
    net = build(CONFIG)
    frame = random_clip(1, 3, 48, 80)
    with torch.inference_mode():
        expected = net.step(frame, net.initial_state(1))[0].mask_logits
    copied = copy.deepcopy(net)
    with torch.no_grad():
        copied.scalers[0].mul_(2)
        own = copied.step(frame, copied.initial_state(1))[0].mask_logits
        assert torch.equal(net.step(frame, net.initial_state(1))[0].mask_logits, expected)
    assert not torch.allclose(own, expected, rtol=1e-3)


def test_the_encoder_does_not_train():
    net = build(CONFIG).train()
    before = {key: value.clone() for key, value in net.backbone.state_dict().items()}
    assert not any(module.training for module in net.backbone.modules())
    assert all(norm.training for norm in net.bn)
    outputs = net(random_clip(2, 2, 3, 48, 80))
    levels = (outputs, *outputs.auxiliary)
    sum(level.mask_logits.sum() + level.class_logits.sum() for level in levels).backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == name.startswith('backbone.'), name
        assert parameter.requires_grad != name.startswith('backbone.'), name
    for key, value in net.backbone.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_batch_statistics_are_those_of_all_frames_of_a_pass():
    net = build(CONFIG).train()
    clip = random_clip(2, 3, 3, 48, 80)
    with torch.no_grad():
        tokens = net.encode(clip.flatten(0, 1)).tokens[1].flatten(0, 1)
    before = net.bn[1].running_mean.clone()
    net(clip)
    expected = 0.9 * before + 0.1 * tokens.mean(0)
    torch.testing.assert_close(net.bn[1].running_mean, expected, rtol=1e-5, atol=1e-5)


def test_encoded_frames_can_be_split_and_joined():
    net = build(CONFIG)
    frames = random_clip(3, 3, 48, 80)
    with torch.inference_mode():
        encoded = net.encode(frames)
        parts = [encoded.part(slice(n, n + 1)) for n in range(3)]
        joined = join_encoded(parts[::-1])
        expected, state = net.step(frames, net.initial_state(3))
        for n, part in enumerate(parts):
            assert isinstance(part, Encoded)
            outputs, _ = net.decode(part, net.initial_state(1))
            torch.testing.assert_close(
                outputs.mask_logits[0], expected.mask_logits[n], rtol=1e-4, atol=1e-4
            )
        outputs, _ = net.decode(joined, net.initial_state(3))
    torch.testing.assert_close(outputs.mask_logits.flip(0), expected.mask_logits, rtol=1e-4,
                               atol=1e-4)  # fmt: skip


def test_half_precision_follows_float32():
    net = build(CONFIG)
    clip = random_clip(1, 3, 3, 64, 64)
    with torch.inference_mode():
        expected = net(clip).mask_logits
        outputs = net.to(torch.bfloat16)(clip.to(torch.bfloat16))
    assert (outputs.mask_logits.float() - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'norm_queries': True}, 'norm_queries to be false with the architecture pmt'),
        ({'num_query_blocks': 0}, 'num_query_blocks to be at least 1, got 0'),
        ({'tap_blocks': (1, 8)}, 'rising numbers from 0 to 7, one less than depth'),
        ({'tap_blocks': (3, 1)}, r'rising numbers from 0 to 7, .*, got \[3, 1\]'),
        ({'tap_blocks': (1, 1)}, 'rising numbers'),
        ({'tap_blocks': (True,)}, 'rising numbers'),
        ({'tap_blocks': 3}, 'tap_blocks to be a list'),
        ({'decoder_mlp_ratio': 0}, 'decoder_mlp_ratio to be a number above 0, got 0'),
        ({'num_heads': 16}, 'heads of a multiple of 4 channels'),
        ({'architecture': 'eomt'}, "architecture to be one of videomt, pmt, got 'eomt'"),
        ({'architecture': 'videomt', 'tap_blocks': (1,)}, 'tap_blocks with the architecture pmt'),
        ({'architecture': 'videomt', 'decoder_mlp_ratio': 2.0}, 'decoder_mlp_ratio with the arch'),
    ],
)
def test_config_names_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


@pytest.mark.parametrize(
    ('depth', 'taps'),
    [(24, (5, 11, 17, 23)), (12, (2, 5, 8, 11)), (6, (0, 2, 3, 5)), (3, (0, 1, 2)), (1, (0,))],
)
def test_blocks_are_tapped_at_equal_distances(depth, taps):
    assert replace(CONFIG, depth=depth).taps == taps
    assert replace(CONFIG, depth=24, tap_blocks=(2, 20)).taps == (2, 20)
