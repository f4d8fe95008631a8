"""An engine that is guarded by another one: two real ones, of equal or other weights."""

from __future__ import annotations

import logging

import pytest
import torch

from videomt_ros.engines.differences import Difference, compare
from videomt_ros.engines.guarded import GuardedEngine
from videomt_ros.model import VidEoMT

SIZE = (64, 96)
NAMES = ('TensorRT', 'CUDA')


@pytest.fixture
def nets(tiny_config):
    """Two networks of other weights."""
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(VidEoMT(tiny_config).eval())
    return found


class Copy(VidEoMT):
    """The same network as an object of its own, which counts its steps and may fail."""

    def __init__(self, net, error=None):
        super().__init__(net.config)
        self.load_state_dict(net.state_dict())
        self.eval()
        self.steps, self.error = 0, error

    def step(self, frames, state):
        self.steps += 1
        if self.error:
            raise self.error
        return super().step(frames, state)


@torch.inference_mode()
def test_an_engine_that_agrees_runs(nets, caplog):
    fast, trusted = Copy(nets[0]), Copy(nets[0])
    engine = GuardedEngine(fast, trusted, NAMES)
    assert engine.digest() == fast.digest()
    assert (engine.device, engine.dtype) == (fast.device, fast.dtype)
    state = engine.initial_state(1)
    for _ in range(4):
        outputs, state = engine.step(torch.randn(1, 3, *SIZE), state)
    assert outputs.mask_logits.shape == (1, 6, 16, 24)
    assert engine.running is fast
    assert trusted.steps == 3 and fast.steps == 3 + 4
    engine.step(torch.randn(2, 3, *SIZE), engine.initial_state(2))
    assert trusted.steps == 6, 'another batch is another size'
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@torch.inference_mode()
def test_an_engine_of_other_weights_is_replaced_before_its_first_result(nets, caplog):
    engine = GuardedEngine(nets[1], nets[0], NAMES)
    frames = torch.randn(1, 3, *SIZE)
    outputs, _ = engine.step(frames, engine.initial_state(1))
    expected, _ = nets[0].step(frames, nets[1].initial_state(1))
    assert torch.equal(outputs.mask_logits, expected.mask_logits)
    engine.step(frames, engine.initial_state(1))
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert 'mask_logits differ by' in record.getMessage()
    assert 'Expected TensorRT to compute what CUDA does' in record.getMessage()
    assert '64 x 96' in record.getMessage()


@torch.inference_mode()
@pytest.mark.parametrize('kind', [RuntimeError, Exception])  # those of onnxruntime are the latter
def test_an_engine_that_fails_is_replaced(nets, caplog, kind):
    engine = GuardedEngine(Copy(nets[0], kind('no kernel\nimage')), nets[0], NAMES)
    engine.step(torch.randn(1, 3, *SIZE), engine.initial_state(1))
    assert engine.running is nets[0]
    assert 'no kernel image' in caplog.text


@torch.inference_mode()
def test_differences_are_found_in_every_output(nets):
    same = compare(nets[0], Copy(nets[0]), 2, 2, *SIZE)
    assert {difference.largest for difference in same.values()} == {0.0}
    other = compare(nets[1], nets[0], 2, 1, *SIZE)
    assert all(difference.relative() > 0.1 for difference in other.values())
    broken = Copy(nets[0])
    with torch.no_grad():
        broken.class_head.bias[0] = float('nan')
    found = compare(broken, nets[0], 1, 1, *SIZE)
    assert found['class_logits'].relative() == float('inf') > found['mask_logits'].relative()


def test_a_difference_is_relative_to_the_largest_value():
    assert Difference(0.5, 2.0).relative() == 0.25
    assert Difference(0.0, 0.0).relative() == 0.0
    assert Difference(1.0, 0.0).relative() == float('inf')
    assert Difference(1.0, 5.0).joined(Difference(2.0, 3.0)) == Difference(2.0, 5.0)
