"""Initial weights of a run tensor by tensor, and blocks that are prepared for training."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partialmethod

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from tests.model.layout_files import build, original_names
from tests.training.runs import TINY_SIZES
from videomt_ros.model import NetworkConfig, VidEoMT, hub, load_model, save_model
from videomt_ros.model.weight_files import CheckpointError
from videomt_ros.training.initial import configure_blocks, load_initial
from videomt_ros.training.run_settings import Phase, TrainSettings

TINY = NetworkConfig(
    **{**TINY_SIZES, 'num_queries': 5}, num_classes=3, class_names=('cat', 'dog', 'owl')
)
IMAGE = replace(TINY, propagation='none', name='image')


def settings(network=TINY, **changes) -> TrainSettings:
    return TrainSettings(network=network, phases=(Phase(1, 1, 1),), **changes)


def random_net(config: NetworkConfig, seed: int = 5) -> VidEoMT:
    torch.manual_seed(seed)
    return VidEoMT(config)


@pytest.fixture
def start(tmp_path, caplog):
    """Start a network from the saved weights of another; returns both and the log."""

    def start_from(theirs, ours=TINY, **changes):
        source = random_net(theirs)
        path = tmp_path / 'weights.safetensors'
        save_model(source, path)
        caplog.clear()
        with caplog.at_level(logging.INFO, logger='videomt_ros'):
            net = load_initial(settings(ours, init_from=str(path), **changes))
        return net, source, caplog.text

    return start_from


def differing(net, source):
    ours, theirs = net.state_dict(), source.state_dict()
    assert all(value.dtype == torch.float32 for value in ours.values())
    return {
        key.split('.')[0]
        for key in ours.keys() | theirs.keys()
        if key not in ours or key not in theirs or not torch.equal(ours[key], theirs[key])
    }


def test_a_video_run_takes_all_of_an_image_model(start):
    net, source, said = start(IMAGE)
    assert net.config == replace(TINY, drawn_only=True) and net.training  # there is no data
    assert differing(net, source) == {'query_updater'}
    assert 'hands queries on is new: propagation none' in said and 'class head' not in said


def test_the_same_network_is_taken_whole(start):
    for config in (TINY, IMAGE, replace(TINY, propagation='gru')):
        net, source, said = start(config, config)
        assert differing(net, source) == set()
        assert 'new' not in said


def test_half_precision_is_widened(tmp_path):
    source = random_net(TINY)
    save_model(source, tmp_path / 'half.safetensors', dtype=torch.float16)
    net = load_initial(settings(init_from=str(tmp_path / 'half.safetensors')))
    assert net.q.weight.dtype == torch.float32
    assert torch.equal(net.q.weight, source.q.weight.half().float())


@pytest.mark.parametrize(
    ('names', 'said_of_them'),
    [
        (('cat', 'dog', 'cow'), '3 classes, the network 3; new among them: cow.'),
        (('cat', 'dog', 'cow', 'elk'), 'the network 4; new among them: cow, elk.'),
        (('cat', 'dog'), 'the network 2; new among them: none, but the order.'),
        (('dog', 'cat', 'owl'), 'new among them: none, but the order.'),
    ],
)
def test_other_classes_bring_a_new_class_head(start, names, said_of_them):
    ours = replace(
        TINY, num_classes=len(names), class_names=names, thing_classes=(True,) * len(names)
    )
    net, source, said = start(TINY, ours)
    assert differing(net, source) == {'class_head'}
    assert said_of_them in said
    assert not torch.equal(net.class_head.bias[:2], source.class_head.bias[:2])


def test_another_propagation_brings_a_new_updater(start):
    for ours in (
        replace(TINY, propagation='gru'), replace(TINY, norm_queries=True)
    ):  # fmt: skip
        net, source, said = start(TINY, ours)
        assert differing(net, source) == {'query_updater'}
        assert 'hands queries on is new' in said
    net, source, _ = start(TINY, replace(TINY, propagation='query'))
    assert differing(net, source) == {'query_updater'}  # gone
    # Without an updater on either side there is nothing to be new.
    norm = replace(IMAGE, norm_queries=True)
    assert 'new' not in start(IMAGE, norm)[2]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'embed_dim': 48, 'depth': 4}, 'with embed_dim 32, depth 3; .* has embed_dim 48, dep'),
        ({'patch_size': 16}, 'with patch_size 8; .* has patch_size 16'),
        ({'family': 'dinov3'}, 'with family dinov2; .* has family dinov3'),
        ({'num_query_blocks': 1}, 'with num_query_blocks 2; .* has num_query_blocks 1'),
        ({'num_queries': 6}, 'with num_queries 5; .* has num_queries 6'),
        ({'num_heads': 4}, 'with num_heads 2; .* has num_heads 4'),
        ({'mlp_ratio': 2.0}, 'with mlp_ratio 4.0; .* has mlp_ratio 2.0'),
    ],
)
def test_a_network_of_another_design_is_named(start, changes, message):
    theirs = replace(TINY, size_divisor=16, **changes)
    with pytest.raises(ValueError, match=message):
        start(theirs)


@pytest.mark.parametrize(('family', 'prefix'), [('dinov2', 0), ('eva02', 1)])
def test_positions_of_another_size_are_resampled(start, family, prefix):
    theirs = replace(TINY, family=family, table_size=32)
    net, source, said = start(theirs, replace(theirs, table_size=56))
    old, new = source.backbone.vit.pos_embed, net.backbone.vit.pos_embed
    assert new.shape == (1, prefix + 49, 32)
    assert torch.equal(old[:, :prefix], new[:, :prefix])
    grid = old[:, prefix:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, (7, 7), mode='bicubic', antialias=True)
    torch.testing.assert_close(new[:, prefix:].unflatten(1, (7, 7)).permute(0, 3, 1, 2), expected)
    assert 'positions' in said and '4 x 4, is resampled to 7 x 7' in said
    assert differing(net, source) == {'backbone'}  # the table alone
    net.backbone.vit.pos_embed = source.backbone.vit.pos_embed
    assert differing(net, source) == set()


def test_images_of_another_mean_are_told_of(start):
    assert 'pixel_mean' in start(replace(TINY, pixel_mean=(1.0, 2.0, 3.0)))[2]


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(CheckpointError, match='gone.safetensors'):
        load_initial(settings(init_from=str(tmp_path / 'gone.safetensors')))


def test_an_original_file_needs_no_more_than_the_run_knows(tmp_path):
    """The tensors of an image model determine neither the number of heads nor the propagation."""
    source = random_net(IMAGE)
    ours = 'backbone.vit.'
    tensors = {
        'backbone.' + (f'encoder.backbone.{k.removeprefix(ours)}' if k.startswith(ours) else k): v
        for k, v in source.state_dict().items()
    }
    tensors['backbone.attn_mask_probs'] = torch.ones(2)
    torch.save({'model': tensors}, tmp_path / 'eomt.pth')
    net = load_initial(settings(init_from=str(tmp_path / 'eomt.pth')))
    # Its classes have no names.
    assert differing(net, source) == {'query_updater', 'class_head'}


def test_from_scratch_the_seed_decides():
    def weights(seed):
        return load_initial(settings(seed=seed)).state_dict()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not torch.equal(first['q.weight'], other['q.weight'])
    assert first['backbone.vit.blocks.0.ls1.gamma'].unique().tolist() == [1.0]


def test_a_new_updater_hands_queries_on():
    torch.manual_seed(0)
    leaving, entered = torch.randn(7, 32), torch.randn(7, 32)
    net = load_initial(settings())
    torch.testing.assert_close(net.query_updater(leaving), 0.3 * leaving)
    net = load_initial(settings(replace(TINY, propagation='gru')))
    kept = 1 / (1 + torch.tensor(-8.0).exp())
    assert 0.9996 < kept < 0.9997
    expected = kept * entered + (1 - kept) * leaving.tanh()
    torch.testing.assert_close(net.query_updater(leaving, entered), expected)
    net.query_updater(leaving, entered).square().sum().backward()
    moved = net.query_updater.weight_ih.grad.unflatten(0, (3, 32)).abs().amax(dim=(1, 2))
    assert moved[1] > 0 and moved[2] > 0  # update gate and candidate learn from the first step


def test_a_pretrained_vit_brings_itself_alone(tmp_path):
    network = replace(TINY, patch_size=16, table_size=64, size_divisor=16)
    torch.manual_seed(3)
    vit = timm.create_model(
        'vit_small_patch14_reg4_dinov2', img_size=28, embed_dim=32, depth=3, num_heads=2
    )
    path = tmp_path / 'vit.safetensors'
    save_file(vit.state_dict(), path)
    net = load_initial(settings(network, init_from=f'timm:vit_small_patch14_reg4_dinov2:{path}'))
    assert net.training
    own = load_initial(settings(network))
    assert differing(net, own) == {'backbone'}
    for name in ('blocks.2.mlp.fc1.weight', 'reg_token', 'norm.weight'):
        assert torch.equal(net.backbone.vit.state_dict()[name], vit.state_dict()[name]), name
    # 2 x 2 patches of 14 pixels became 4 x 4 of 16.
    assert net.backbone.vit.pos_embed.shape == (1, 16, 32)
    with pytest.raises(ValueError, match='got those of vit_base_patch14_reg4_dinov2'):
        load_initial(settings(network, init_from='timm:vit_base_patch14_reg4_dinov2'))


def learnt(net, masked=None):
    """Compute a made-up loss on two clips, and the gradient of every weight."""
    net.zero_grad()
    torch.manual_seed(9)
    outputs = net(torch.randn(2, 2, 3, 32, 40), masked)
    levels = [outputs, *outputs.auxiliary]
    loss = sum(level.class_logits.square().mean() for level in levels)
    loss = loss + sum(level.mask_logits.tanh().mean() for level in levels)
    loss.backward()
    return loss.detach(), {name: weight.grad for name, weight in net.named_parameters()}


def same_learning(net, other, masked=None):
    (loss, grads), (other_loss, other_grads) = learnt(net, masked), learnt(other, masked)
    torch.testing.assert_close(other_loss, loss)
    assert grads.keys() == other_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(other_grads[name], grad, msg=name, atol=1e-5, rtol=1e-4)


def kept_for_backward(net):
    """Count the numbers that a forward pass keeps for the backward pass."""
    sizes = []

    def keep(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(torch.zeros(1, 2, 3, 64, 64))
    return sum(sizes)


@pytest.mark.parametrize('family', ['dinov2', 'dinov3'])
def test_checkpointed_blocks_learn_the_same_from_less_memory(family):
    network = replace(TINY, family=family)
    plain, saving = load_initial(settings(network)), load_initial(settings(network))
    configure_blocks(plain, settings(network))
    configure_blocks(saving, settings(network, activation_checkpointing=True))
    same_learning(plain, saving, masked=[0.5, 0.5])
    assert kept_for_backward(saving) < 0.6 * kept_for_backward(plain)


def test_dinov3_learns_at_positions_of_many_scales():
    network = replace(TINY, family='dinov3')
    net = load_initial(settings(network))
    configure_blocks(net, settings(network))
    frame = torch.zeros(2, 3, 32, 32)
    _, fixed = net.eval().backbone.encode(frame)
    assert torch.equal(net.backbone.encode(frame)[1], fixed)
    net.train()  # the slowest angle of the first patch, whose sine grows with the scale
    sines = torch.stack([net.backbone.encode(frame)[1][0, 3] for _ in range(200)])
    factors = sines.asin() / fixed[0, 3].asin()
    assert 0.5 <= factors.min() < 0.55 and 1.8 < factors.max() <= 2.0
    assert abs(factors.log().mean()) < 0.1  # log-uniform: three standard errors are 0.085


def test_compiled_blocks_learn_the_same_and_keep_their_names(tmp_path, monkeypatch):
    # All of torch.compile but the last step, which takes half a minute for this tiny network.
    eager = partialmethod(torch.nn.Module.compile, backend='eager')
    monkeypatch.setattr(torch.nn.Module, 'compile', eager)
    torch._dynamo.reset()
    plain, fast = load_initial(settings()), load_initial(settings())
    configure_blocks(fast, settings(compile=True, activation_checkpointing=True))
    assert plain.state_dict().keys() == fast.state_dict().keys()
    before = torch._dynamo.utils.counters['stats']['unique_graphs']
    same_learning(plain, fast)
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] > before
    save_model(fast, tmp_path / 'fast.safetensors')
    assert differing(load_model(tmp_path / 'fast.safetensors'), plain) == set()


LVMT = replace(TINY, architecture='pmt', propagation='gru', depth=4)


@pytest.mark.parametrize('family', ['dinov2', 'dinov3'])
@pytest.mark.parametrize('theirs', ['none', 'fusion'])
def test_lvmt_starts_from_a_segmenter(tmp_path, caplog, family, theirs):
    """A file of the original's layout, with the query updater of PMT or with none."""
    ours = replace(LVMT, family=family)
    source = build(replace(ours, propagation=theirs))
    path = tmp_path / 'ovis_segmenter.pth'
    torch.save({'model': original_names(source)}, path)
    with caplog.at_level(logging.INFO):
        net = load_initial(settings(ours, init_from=str(path)))
    # Its classes have no names.
    assert net.training and differing(net, source) == {'query_updater', 'class_head'}
    assert 'hands queries on is new' in caplog.text
    for other, message in (
        (
            replace(ours, decoder_mlp_ratio=2.0),
            'with decoder_mlp_ratio 2.0; .* has decoder_mlp_ra',
        ),
        (replace(ours, tap_blocks=(1, 3)), r'with taps \(1, 3\); .* has taps \(0, 1, 2, 3\)'),
        (replace(ours, num_query_blocks=3), 'with num_query_blocks 3; .* has num_query_blocks 2'),
        (
            replace(TINY, depth=4, family=family),
            'with architecture videomt; .* has architecture p',
        ),
    ):
        with pytest.raises(ValueError, match=message):
            load_initial(settings(other, init_from=str(path)))


def test_lvmt_starts_from_the_image_model_of_its_own_first_run(tmp_path):
    image = build(replace(LVMT, propagation='none'))
    save_model(image, tmp_path / 'image.safetensors')
    net = load_initial(settings(LVMT, init_from=str(tmp_path / 'image.safetensors')))
    assert differing(net, image) == {'query_updater'}
    kept = 1 / (1 + torch.tensor(-8.0).exp())
    leaving, entered = torch.randn(2, 7, 32)
    expected = kept * entered + (1 - kept) * leaving.tanh()
    torch.testing.assert_close(net.query_updater(leaving, entered), expected)


def test_lvmt_starts_from_the_pretrained_vit_that_fits(tmp_path, monkeypatch):
    """`timm` alone names it; a file may follow."""
    network = replace(
        LVMT, depth=3, family='dinov3', patch_size=16, table_size=64, size_divisor=16
    )
    torch.manual_seed(3)
    vit = timm.create_model(
        'vit_small_patch16_dinov3_qkvb', img_size=32, embed_dim=32, depth=3, num_heads=2
    )
    path = tmp_path / 'vit.safetensors'
    save_file(vit.state_dict(), path)
    fetched = []

    def fetch(repository, name):
        fetched.append((repository, name))
        return path

    monkeypatch.setattr(hub, 'fetch_file', fetch)
    for source in (f'timm::{path}', 'timm'):
        net = load_initial(settings(network, init_from=source))
        for name, value in vit.state_dict().items():
            assert torch.equal(net.backbone.vit.state_dict()[name], value), name
        assert differing(net, load_initial(settings(network))) == {'backbone'}
    assert fetched == [('timm/vit_small_patch16_dinov3_qkvb.lvd1689m', 'model.safetensors')]


@pytest.mark.parametrize('family', ['dinov2', 'dinov3'])
def test_the_positions_of_decoder_and_encoder_have_one_scale(family):
    network = replace(LVMT, family=family)
    net = load_initial(settings(network))
    frame = torch.zeros(1, 3, 32, 40)
    fixed = net.eval().encode(frame)
    configure_blocks(net, settings(network))
    assert torch.equal(net.encode(frame).rope, fixed.rope)
    net.train()
    drawn = [net.encode(frame) for _ in range(2)]
    assert not torch.equal(drawn[0].rope, drawn[1].rope)
    changed = not torch.equal(drawn[0].tokens[3], drawn[1].tokens[3])
    assert changed == (family == 'dinov3')  # DINOv2 has a table of positions
    assert not any(
        module.training
        for name, module in net.backbone.named_modules()
        if name not in ('vit.rope', '') and module is not net.backbone
    )
