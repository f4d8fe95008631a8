"""Faster linear layers and attention on a CPU, against torch's own in float64."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from videomt_ros.model import NetworkConfig, VideoNetwork, build_network, cpu_kernels
from videomt_ros.model.cpu_kernels import attention, faster_inference, faster_program, linear

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, '_linear_pointwise'), reason='this torch has no oneDNN'
)
DTYPES = [torch.float32]
if getattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', lambda: False)():
    DTYPES.append(torch.bfloat16)
TINY = NetworkConfig(
    num_classes=5, embed_dim=64, depth=4, num_heads=2, table_size=64, num_queries=7,
    num_query_blocks=2, size_divisor=16,
)  # fmt: skip


@pytest.fixture
def everywhere(monkeypatch):
    """Use the faster forms on any CPU that can run them."""
    monkeypatch.setattr(cpu_kernels, 'onednn_is_faster', lambda dtype: dtype in DTYPES)


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch):
    """Use the faster attention for any number of tokens."""
    monkeypatch.setattr(cpu_kernels, 'MIN_TOKENS', 0)


def random_heads(layout: str, shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """Draw query, key and value (B, H, N, D) as layers leave them in memory."""
    generator = torch.Generator().manual_seed(0)
    batch_size, num_heads, num_tokens, head_size = shape
    if layout == 'one layer':  # q, k and v of one linear layer, as in DINOv2
        joint = torch.randn(batch_size, num_tokens, 3, num_heads, head_size, generator=generator)
        heads = joint.permute(2, 0, 3, 1, 4).unbind(0)
    elif layout == 'three layers':  # as in EVA-02
        parts = torch.randn(3, batch_size, num_tokens, num_heads, head_size, generator=generator)
        heads = parts.transpose(2, 3).unbind(0)
    else:  # contiguous, as after rotary positions
        heads = torch.randn(3, *shape, generator=generator).unbind(0)
    return [part.to(dtype) for part in heads]


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('layout', ['one layer', 'three layers', 'contiguous'])
@pytest.mark.parametrize(
    'shape', [(1, 6, 301, 64), (2, 3, 77, 32), (3, 2, 1, 16), (1, 1, 1100, 64), (2, 4, 64, 24)]
)
def test_attention_is_torchs_own(dtype, layout, shape):
    heads = random_heads(layout, shape, dtype)
    before = [part.clone() for part in heads]
    expected = F.scaled_dot_product_attention(*(part.double() for part in heads))
    with torch.inference_mode():
        averages = attention(*heads)
    assert averages.dtype == dtype
    # bf16 has 8 bits, of the scores too; float32 has 24.
    tolerance = 4e-6 if dtype == torch.float32 else 0.06
    torch.testing.assert_close(averages.double(), expected, atol=tolerance, rtol=0)
    rms = (averages.double() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert rms < (1e-6 if dtype == torch.float32 else 0.012)
    assert all(torch.equal(part, copy) for part, copy in zip(heads, before, strict=True))


def test_large_scores_do_not_overflow():
    query, key, value = (30 * part for part in random_heads('contiguous', (1, 2, 50, 64),
                                                            torch.float32))  # fmt: skip
    expected = F.scaled_dot_product_attention(*(t.double() for t in (query, key, value)))
    torch.testing.assert_close(attention(query, key, value).double(), expected, atol=0.1, rtol=0)


def test_attention_with_a_mask_is_left_to_torch():
    heads = random_heads('one layer', (1, 2, 9, 32), torch.float32)
    mask = torch.rand(1, 1, 9, 9) > 0.5
    mask[..., 0] = True
    expected = F.scaled_dot_product_attention(*heads, attn_mask=mask)
    assert torch.equal(attention(*heads, attn_mask=mask), expected)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('transposed', [True, False])
def test_linear_is_torchs_own(dtype, bias, transposed):
    torch.manual_seed(0)
    x = torch.randn(2, 40, 33).to(dtype)[:, 5:]  # a part of the tokens
    weight = torch.randn(33, 50).t().to(dtype) if transposed else torch.randn(50, 33).to(dtype)
    offsets = torch.randn(50).to(dtype) if bias else None
    expected = F.linear(x.double(), weight.double(), None if offsets is None else offsets.double())
    tolerance = 1e-5 if dtype == torch.float32 else 0.2
    with torch.inference_mode():
        ours = linear(x, weight, offsets)
        strided = linear(x, weight.repeat(1, 2)[:, :33], offsets)
    torch.testing.assert_close(ours.double(), expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(strided.double(), expected, atol=tolerance, rtol=0)


def build(**changes) -> VideoNetwork:
    torch.manual_seed(0)
    net = build_network(replace(TINY, **changes)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


@pytest.mark.parametrize('family', ['dinov2', 'dinov3', 'eva02'])
@pytest.mark.parametrize('propagation', ['fusion', 'gru'])
@pytest.mark.parametrize('architecture', ['videomt', 'pmt'])
def test_the_network_computes_the_same(architecture, family, propagation, everywhere):
    net = build(architecture=architecture, family=family, propagation=propagation)
    clip = torch.randn(2, 2, 3, 64, 96)
    with torch.enable_grad():  # torch's own forms
        expected = net(clip)
    with torch.inference_mode():
        outputs = net(clip)
        for ours, theirs in zip(outputs[:2], expected[:2], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        state = net.initial_state(2)
        for t in range(2):
            one, state = net.step(clip[:, t], state)
            torch.testing.assert_close(
                one.mask_logits, expected.mask_logits[:, t], atol=1e-5, rtol=1e-5
            )


@pytest.mark.skipif(torch.bfloat16 not in DTYPES, reason='this CPU does not multiply bf16')
@pytest.mark.parametrize('architecture', ['videomt', 'pmt'])
def test_bf16_is_as_near_to_float32_as_torchs_own(architecture, everywhere):
    net = build(architecture=architecture)
    frames = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        exact = net.step(frames, net.initial_state(1))[0].mask_logits
        net.bfloat16()
        frames = frames.bfloat16()
        ours = net.step(frames, net.initial_state(1))[0].mask_logits
    with torch.enable_grad():
        theirs = net.step(frames, net.initial_state(1))[0].mask_logits
    ours_error, error = ((x.float() - exact).square().mean().sqrt() for x in (ours, theirs))
    assert ours_error < 1.25 * error


def test_nothing_changes_where_gradients_are_recorded(everywhere):
    """oneDNN's products have no gradient."""
    net = build()
    outputs, _ = net.step(torch.randn(1, 3, 64, 64), net.initial_state(1))
    outputs.mask_logits.sum().backward()
    assert all(block.attn.qkv.weight.grad is not None for block in net.backbone.vit.blocks)


class Masks(torch.nn.Module):
    """The masks of a step, as a module that can be exported."""

    def __init__(self, net: VideoNetwork) -> None:
        super().__init__()
        self.net = net

    def forward(self, frames: Tensor, state: Tensor) -> Tensor:
        return self.net.step(frames, state)[0].mask_logits


@pytest.mark.parametrize(('architecture', 'blocks'), [('videomt', 0), ('pmt', 2)])
@pytest.mark.parametrize('family', ['dinov2', 'dinov3', 'eva02'])
def test_programs_call_the_faster_attention(architecture, blocks, family, everywhere):
    net = build(architecture=architecture, family=family)
    inputs = torch.randn(1, 3, 64, 64), net.initial_state(1).clone()
    with torch.no_grad():
        with faster_program(torch.device('cpu'), torch.float32):
            program = torch.export.export(Masks(net), inputs)
        names = [str(node.target) for node in program.graph.nodes]
        assert names.count('videomt_ros.attention.default') == TINY.depth + blocks
        expected = net.step(*inputs)[0].mask_logits
        torch.testing.assert_close(program.module()(*inputs), expected, atol=1e-5, rtol=1e-5)


def test_exporters_see_torchs_own_forms(everywhere):
    net = build()
    with torch.no_grad():
        program = torch.export.export(
            Masks(net), (torch.randn(1, 3, 64, 64), net.initial_state(1).clone())
        )
    names = {str(node.target) for node in program.graph.nodes}
    assert any('scaled_dot_product_attention' in name for name in names)
    assert not any('mkldnn' in name for name in names)


@pytest.mark.parametrize('architecture', ['videomt', 'pmt'])
def test_autocast_and_other_precisions_are_left_to_torch(architecture, everywhere):
    net = build(architecture=architecture)
    frames = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        with torch.autocast('cpu', torch.bfloat16):
            outputs, _ = net.step(frames, net.initial_state(1))
        assert outputs.mask_logits.dtype == torch.bfloat16
        assert not isinstance(faster_inference(frames.double()), cpu_kernels._Replacing)
        assert isinstance(faster_inference(frames), cpu_kernels._Replacing)


@pytest.mark.parametrize('few', [0, 1000])
def test_the_operation_of_programs_keeps_its_promises(few, monkeypatch):
    """A program relies on the shape and the order in memory that the operation announces."""
    monkeypatch.setattr(cpu_kernels, 'MIN_TOKENS', few)
    heads = random_heads('one layer', (2, 3, 40, 32), torch.float32)
    with torch.no_grad():
        torch.library.opcheck(torch.ops.videomt_ros.attention.default, tuple(heads))


def test_a_torch_before_2_4_computes_in_its_own_forms(monkeypatch):
    """It has neither custom operations nor an argument of `is_autocast_enabled`."""
    monkeypatch.delattr(torch.library, 'custom_op')
    monkeypatch.setattr(torch, 'is_autocast_enabled', lambda: False)
    spec = spec_from_file_location('cpu_kernels_of_an_old_torch', cpu_kernels.__file__)
    old = module_from_spec(spec)
    spec.loader.exec_module(old)
    frames = torch.zeros(1, 3, 64, 64)
    with torch.inference_mode():
        assert not old.is_cpu_inference(frames)
        assert not isinstance(old.faster_inference(frames), old._Replacing)
