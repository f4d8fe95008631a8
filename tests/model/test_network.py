"""The networks: against transformers' port, against timm, and against themselves."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from timm.layers import RotaryEmbeddingDinoV3
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from videomt_ros.model import NetworkConfig, VidEoMT, VideoNetwork, build_network, load_model
from videomt_ros.model.backbone import RotaryPositions, run_block
from videomt_ros.model.network import attention_mask

TINY = NetworkConfig(
    num_classes=5,
    embed_dim=64,
    depth=4,
    num_heads=2,
    table_size=64,
    num_queries=7,
    num_query_blocks=2,
    size_divisor=16,
)
FAMILIES = ('dinov2', 'dinov3', 'eva02')
ARCHITECTURES = ('videomt', 'pmt')


def build(seed: int = 0, **changes) -> VideoNetwork:
    """Build a network in which every weight is random and matters."""
    torch.manual_seed(seed)
    net = build_network(replace(TINY, **changes)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in net.named_buffers():
            if 'running' in name:
                buffer.add_(torch.rand_like(buffer))
    return net


def random_clip(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_vit_s_agrees_with_transformers(tmp_path):
    transformers = pytest.importorskip('transformers')
    sizes = {
        'hidden_size': 384,
        'num_hidden_layers': 12,
        'num_attention_heads': 6,
        'image_size': 320,
        'num_blocks': 3,
        'num_queries': 200,
    }
    torch.manual_seed(0)
    config = transformers.VideomtConfig(**sizes, id2label={i: f'name {i}' for i in range(5)})
    port = transformers.VideomtForUniversalSegmentation(config).eval()
    with torch.no_grad():
        for parameter in port.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    port.save_pretrained(tmp_path)
    net = load_model(tmp_path)
    clip = random_clip(1, 3, 3, sizes['image_size'], sizes['image_size'])
    with torch.inference_mode():
        expected = port(pixel_values_videos=clip)
        outputs = net(clip)
    # The port joins batch and time.
    for ours, theirs in (
        (outputs.class_logits[0], expected.class_queries_logits),
        (outputs.mask_logits[0], expected.masks_queries_logits),
    ):
        assert ours.shape == theirs.shape
        assert theirs.abs().max() > 0.1  # not trivially equal
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize('family', FAMILIES)
def test_patch_tokens_are_timms_own_where_queries_cannot_reach(family):
    """Rotary positions on the wrong tokens would change the patch tokens."""
    net = build(family=family)
    backbone, num_queries = net.backbone, TINY.num_queries
    frames = random_clip(2, 3, 64, 96)
    bare = VidEoMT(replace(net.config, num_queries=0)).eval().backbone.vit
    bare.load_state_dict(backbone.vit.state_dict())
    with torch.inference_mode():
        expected = bare.forward_features(frames)
        tokens, rope = backbone.encode(frames)
        tokens = torch.cat([net.initial_state(2), tokens], dim=1)
        mask = torch.ones(2, 1, tokens.shape[1], tokens.shape[1], dtype=torch.bool)
        mask[:, :, num_queries:, :num_queries] = False  # patches do not look at queries
        for block in backbone.query_blocks:
            tokens = run_block(block, tokens, rope, mask)
        features = backbone.norm(tokens)[:, num_queries:]
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('family', FAMILIES)
def test_features_without_queries_are_timms_own(family):
    net = build(family=family, num_queries=0)
    frames = random_clip(2, 3, 64, 96)
    with torch.inference_mode():
        expected = net.backbone.vit.forward_features(frames)
        torch.testing.assert_close(net.backbone(frames), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('propagation', ['none', 'query', 'fusion', 'gru'])
@pytest.mark.parametrize(
    ('architecture', 'norm_queries'), [('videomt', False), ('videomt', True), ('pmt', False)]
)
@pytest.mark.parametrize('family', FAMILIES)
def test_steps_equal_the_clip(architecture, family, propagation, norm_queries):
    net = build(
        architecture=architecture,
        family=family,
        propagation=propagation,
        norm_queries=norm_queries,
    )
    clip = random_clip(2, 4, 3, 64, 96)
    with torch.inference_mode():
        whole = net(clip)
        state = net.initial_state(2)
        for t in range(4):
            outputs, state = net.step(clip[:, t], state)
            for one, all_frames in zip(outputs[:2], whole[:2], strict=True):
                torch.testing.assert_close(one, all_frames[:, t], atol=1e-4, rtol=1e-4)
    assert state.shape == (2, 7, 64)


@pytest.mark.parametrize('architecture', ARCHITECTURES)
@pytest.mark.parametrize('propagation', ['fusion', 'gru'])
def test_chunks_equal_the_clip(architecture, propagation):
    net = build(architecture=architecture, propagation=propagation)
    clip = random_clip(2, 5, 3, 64, 96)
    with torch.inference_mode():
        whole = net(clip)
        first, state = net(clip[:, :2], None, net.initial_state(2))
        second, _ = net(clip[:, 2:], None, state)
    for one, other, all_frames in zip(first[:2], second[:2], whole[:2], strict=True):
        joined = torch.cat([one, other], dim=1)
        torch.testing.assert_close(joined, all_frames, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_streams_do_not_disturb_each_other(architecture):
    net = build(architecture=architecture, propagation='gru')
    clips = random_clip(2, 4, 3, 64, 64)
    with torch.inference_mode():
        alone = [net(clips[i : i + 1]).mask_logits for i in range(2)]
        together = net(clips).mask_logits
        states = [net.initial_state(1), net.initial_state(1)]
        for t in range(4):
            for i in range(2):  # the streams take turns
                outputs, states[i] = net.step(clips[i : i + 1, t], states[i])
                torch.testing.assert_close(
                    outputs.mask_logits, alone[i][:, t], atol=1e-4, rtol=1e-4
                )
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_the_state_is_a_value(architecture):
    """A state that is stepped twice gives the same twice, and is not changed by it."""
    net = build(architecture=architecture)
    frame = random_clip(1, 3, 64, 64)
    with torch.inference_mode():
        _, state = net.step(frame, net.initial_state(1))
        before = state.clone()
        first, _ = net.step(frame, state)
        second, _ = net.step(frame, state)
    assert torch.equal(before, state)
    assert torch.equal(first.mask_logits, second.mask_logits)


@pytest.mark.parametrize(('architecture', 'blocks'), [('videomt', 3), ('pmt', 6)])
def test_vit_s_takes_a_frame_that_is_not_square(architecture, blocks):
    config = NetworkConfig(num_classes=40, architecture=architecture, num_query_blocks=blocks)
    net = build_network(config).eval()
    with torch.inference_mode():
        outputs, state = net.step(random_clip(1, 3, 448, 800), net.initial_state(1))
    assert outputs.class_logits.shape == (1, 200, 41)
    assert outputs.mask_logits.shape == (1, 200, 112, 200)
    assert state.shape == (1, 200, 384)


@pytest.mark.parametrize(
    ('size', 'family', 'parameters'),
    # Millions of parameters of the backbones without heads and queries, from the papers' tables.
    [(384, 'dinov2', 22), (768, 'dinov2', 86), (384, 'dinov3', 22), (384, 'eva02', 22)],
)
def test_backbones_have_the_published_sizes(size, family, parameters):
    heads = {384: 6, 768: 12}[size]
    config = NetworkConfig(num_classes=40, family=family, embed_dim=size, num_heads=heads)
    vit = VidEoMT(config).backbone.vit
    assert sum(p.numel() for p in vit.parameters()) / 1e6 == pytest.approx(parameters, rel=0.04)


@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_propagation_decides_what_enters_the_next_frame(architecture):
    frame = random_clip(1, 3, 64, 64)
    states = {}
    with torch.inference_mode():
        for propagation in ('none', 'query', 'fusion', 'gru'):
            net = build(architecture=architecture, propagation=propagation)
            reference = build(architecture=architecture, propagation='query')
            shared = {k: v for k, v in net.state_dict().items() if 'query_updater' not in k}
            reference.load_state_dict(shared)
            _, leaving = reference.step(frame, net.initial_state(1))  # o_0
            _, states[propagation] = net.step(frame, net.initial_state(1))
            q = net.q.weight[None]
            if propagation == 'none':
                expected = q
            elif propagation == 'query':
                expected = leaving
            elif propagation == 'fusion':
                updater = net.query_updater
                expected = leaving @ updater.weight.T + updater.bias + q
            else:
                expected = net.query_updater(leaving[0], q[0])[None]
            torch.testing.assert_close(states[propagation], expected, atol=1e-5, rtol=1e-5)
    named = list(states.items())
    for i, (name, state) in enumerate(named):
        for other_name, other in named[i + 1 :]:
            assert not torch.allclose(state, other, atol=1e-2), (name, other_name)


@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_autocast_does_not_round_the_memory_of_a_recurrent_updater(architecture):
    net, seen = build(architecture=architecture, propagation='gru'), []
    net.query_updater.register_forward_hook(lambda module, inputs, hidden: seen.extend(inputs))
    with torch.inference_mode():
        with torch.autocast('cpu', torch.bfloat16):
            _, state = net.step(random_clip(1, 3, 64, 64), net.initial_state(1))
        queries, before = (value.float() for value in seen)
        expected = net.query_updater(queries, before)
    assert state.dtype == torch.float32
    torch.testing.assert_close(state[0], expected, atol=1e-6, rtol=1e-6)


def test_norm_queries_propagates_after_the_norm():
    frame = random_clip(1, 3, 64, 64)
    before, after = (build(propagation='query', norm_queries=flag) for flag in (False, True))
    with torch.inference_mode():
        _, raw = before.step(frame, before.initial_state(1))
        _, normed = after.step(frame, after.initial_state(1))
        torch.testing.assert_close(before.backbone.norm(raw), normed, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(raw, normed, atol=1e-2)


@pytest.mark.parametrize('architecture', ARCHITECTURES)
@pytest.mark.parametrize('shape', [(1, 3, 60, 64), (3, 64, 64), (1, 1, 64, 64), (1, 3, 0, 64)])
def test_step_names_a_wrong_frame(architecture, shape):
    net = build(architecture=architecture)
    with pytest.raises(ValueError, match='Expected frames'):
        net.step(torch.zeros(shape), net.initial_state(1))
    with pytest.raises(ValueError, match='Expected frames'):
        net.encode(torch.zeros(shape))


@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_step_names_a_wrong_state(architecture):
    net = build(architecture=architecture)
    frames, message = torch.zeros(2, 3, 64, 64), r'state of shape \(2, 7, 64\), got \(1, 7, 64\)'
    with pytest.raises(ValueError, match=message):
        net.step(frames, net.initial_state(1))
    with pytest.raises(ValueError, match=message):
        net.decode(net.encode(frames), net.initial_state(1))


def test_forward_names_a_wrong_clip():
    with pytest.raises(ValueError, match='clip of shape'):
        build()(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_training_yields_the_outputs_before_each_query_block(architecture):
    net = build(architecture=architecture).train()
    outputs = net(random_clip(2, 3, 3, 64, 96))
    assert len(outputs.auxiliary) == TINY.num_query_blocks
    for level in outputs.auxiliary:
        assert level.class_logits.shape == outputs.class_logits.shape == (2, 3, 7, 6)
        assert level.mask_logits.shape == outputs.mask_logits.shape == (2, 3, 7, 16, 24)
    assert net.eval()(random_clip(1, 1, 3, 64, 64)).auxiliary == ()


def test_attention_mask_keeps_queries_inside_their_masks():
    logits = torch.full((1, 2, 8, 8), -5.0)
    logits[0, 0, :4, :4] = 5.0  # query 0: the upper left quarter; query 1: nowhere
    mask = attention_mask(logits, (2, 2), num_tokens=2 + 1 + 4, probability=1.0)
    assert mask.shape == (1, 1, 7, 7)
    assert mask[0, 0, 0, 3:].tolist() == [True, False, False, False]
    assert not mask[0, 0, 1, 3:].any()  # nothing is inside an empty mask
    assert mask[0, 0, 2:].all()
    assert mask[0, 0, :, :3].all()
    assert attention_mask(logits, (2, 2), 7, probability=0.0).all()


@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_masked_attention_changes_the_outputs(architecture):
    net = build(architecture=architecture).train()
    clip = random_clip(1, 2, 3, 64, 64)
    free, bound = net(clip), net(clip, masked_attention=[1.0, 1.0])
    torch.testing.assert_close(free.auxiliary[0].mask_logits[:, 0],
                               bound.auxiliary[0].mask_logits[:, 0])  # fmt: skip
    assert not torch.allclose(free.mask_logits, bound.mask_logits, atol=1e-3)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'family': 'resnet'}, 'family'),
        ({'propagation': 'magic'}, 'propagation'),
        ({'num_heads': 3}, 'multiple of num_heads'),
        ({'num_query_blocks': 9}, 'num_query_blocks'),
        ({'table_size': 65}, 'multiple of the patch size'),
        ({'class_names': ('a', 'b')}, '5 entries in class_names'),
        ({'num_classes': 0}, 'num_classes'),
        ({'num_classes': 5.0}, 'num_classes to be a whole number, got 5.0'),
        ({'depth': True}, 'depth to be a whole number, got True'),
        ({'num_heads': '2'}, "num_heads to be a whole number, got '2'"),
        ({'num_queries': -1}, 'num_queries to be 0 or more'),
        ({'num_queries': None}, 'num_queries to be a whole number, got None'),
        ({'num_query_blocks': 1.5}, 'num_query_blocks to be a whole number'),
        ({'patch_size': 0}, 'patch_size to be at least 1'),
        ({'test_size': 0}, 'test_size to be at least 1, got 0'),
        ({'test_size': -5}, 'test_size to be at least 1, got -5'),
        ({'size_divisor': 0}, 'size_divisor to be at least 1, got 0'),
        ({'size_divisor': -16}, 'size_divisor to be at least 1, got -16'),
        ({'mlp_ratio': 0}, 'mlp_ratio to be a number above 0, got 0'),
        ({'mlp_ratio': math.inf}, 'mlp_ratio to be a number above 0, got inf'),
        ({'mlp_ratio': True}, 'mlp_ratio to be a number above 0, got True'),
        ({'mlp_ratio': '4'}, "mlp_ratio to be a number above 0, got '4'"),
        ({'norm_queries': 'no'}, "norm_queries to be true or false, got 'no'"),
        ({'norm_queries': 1}, 'norm_queries to be true or false, got 1'),
        ({'family': ['dinov2']}, 'family to be a text'),
        ({'task': None}, 'task to be a text, got None'),
        ({'name': 5}, 'name to be a text, got 5'),
        ({'pixel_mean': 1.0}, 'pixel_mean to be a list, got 1.0'),
        ({'pixel_mean': (1.0,)}, 'pixel_mean to be 3 numbers'),
        ({'pixel_mean': (1.0, 1.0, math.nan)}, 'pixel_mean to be 3 numbers'),
        ({'pixel_std': (1, 1, '1')}, 'pixel_std to be 3 numbers'),
        ({'pixel_std': (1, 1, 0)}, 'pixel_std to be 3 numbers above 0'),
        ({'class_names': 'abcde'}, "class_names to be a list, got 'abcde'"),
        ({'class_names': {'a', 'b'}}, 'class_names to be a list'),
        ({'class_names': ('a', 'b', 'c', 'd', 5)}, 'class_names to be texts, got 5 among them'),
        ({'thing_classes': (1, 0, 1, 0, 1)}, 'thing_classes to be true or false, got 1 among'),
        ({'thing_classes': (True, False)}, '5 entries in thing_classes'),
    ],
)
def test_config_names_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


def test_config_survives_plain_values():
    config = replace(TINY, name='here')
    assert NetworkConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match='Unknown settings of a network: embed'):
        NetworkConfig.from_dict({'num_classes': 3, 'embed': 1})
    with pytest.raises(ValueError, match='num_classes'):
        NetworkConfig.from_dict({})


class _OnCpu(TorchDispatchMode):
    """Names of the operations that give a tensor on the CPU."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if any(x.device.type == 'cpu' for x in tree_leaves(result) if isinstance(x, Tensor)):
            self.names.append(func.name())
        return result


@pytest.mark.parametrize('architecture', ARCHITECTURES)
@pytest.mark.parametrize('family', FAMILIES)
def test_a_step_on_a_device_computes_nothing_on_the_cpu(architecture, family):
    """A GPU would wait for the copy, and a CUDA graph cannot hold it."""
    net = build(architecture=architecture, family=family).to('meta')
    with torch.inference_mode(), _OnCpu() as found:
        net.step(torch.empty(2, 3, 64, 96, device='meta'), net.initial_state(2))
    assert not found.names


@pytest.mark.gpu
@pytest.mark.parametrize('architecture', ARCHITECTURES)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_follows_float32(architecture, dtype):
    net = build(architecture=architecture, propagation='gru').cuda()
    clip = random_clip(1, 3, 3, 64, 64).cuda()
    with torch.inference_mode():
        expected = net(clip)
        outputs = net.to(dtype)(clip.to(dtype))
    error = (outputs.mask_logits.float() - expected.mask_logits).abs().max()
    assert error < 0.1 * expected.mask_logits.abs().max()


def test_embeddings_are_the_query_tokens_after_the_final_norm():
    torch.manual_seed(0)
    net = VidEoMT(TINY).eval()
    with torch.no_grad():
        outputs = net(random_clip(2, 3, 3, 64, 96))
        assert outputs.embeddings.shape == (2, 3, TINY.num_queries, TINY.embed_dim)
        torch.testing.assert_close(net.class_head(outputs.embeddings), outputs.class_logits)


@pytest.mark.parametrize('changes', [{}, {'propagation': 'gru'}, {'norm_queries': True}])
def test_heads_that_run_once_for_a_clip_give_what_they_give_frame_by_frame(changes):
    net = build(**changes).train()
    clip = random_clip(2, 3, 3, 48, 64)
    results = []
    for masked_attention in (None, [0.0, 0.0]):  # with masks, frame by frame
        net.zero_grad()
        outputs, state = net(clip, masked_attention, net.initial_state(2))
        leaves = [leaf for leaf in tree_leaves((outputs, state)) if leaf is not None]
        sum(leaf.float().square().mean() for leaf in leaves).backward()
        gradients = [parameter.grad for parameter in net.parameters()]
        results.append((leaves, gradients))
    (together, gradients), (each, gradients_each) = results
    assert len(together) == 3 * (1 + TINY.num_query_blocks) + 1
    for one, other in zip(together, each, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for one, other in zip(gradients, gradients_each, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('shape', [(1, 1), (3, 7), (40, 40), (45, 80)])
def test_rotary_tables_are_timms_and_are_built_on_the_device(shape):
    positions = RotaryPositions(64).eval()
    expected = RotaryEmbeddingDinoV3(64).eval().get_embed(shape)
    assert torch.equal(positions.get_embed(shape), expected)
    assert positions.to('meta').get_embed(shape).device.type == 'meta'
