"""The engine onnxruntime of a model, whatever the model is; and the cache of exported files."""

from __future__ import annotations

import logging

import pytest
import torch

from videomt_ros.engines.engine import EngineError
from videomt_ros.engines.guarded import GuardedEngine
from videomt_ros.engines.onnx_build import build_onnx_engine, export_once
from videomt_ros.engines.onnx_engine import OnnxEngine
from videomt_ros.model import CheckpointError, VidEoMT


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    """A cache of this file's own."""
    folder = tmp_path_factory.mktemp('cache')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(folder))
        yield folder / 'videomt_ros' / 'onnx'


def test_a_network_is_exported_once(cache, tiny_net, caplog):
    with caplog.at_level(logging.INFO):
        engine = build_onnx_engine(tiny_net)
        (path,) = cache.iterdir()
        assert path.name.startswith(f'{tiny_net.digest()}-float32-')
        written = path.stat().st_mtime_ns
        again = build_onnx_engine(tiny_net)
    assert caplog.text.count('Exporting tiny') == 1
    assert path.stat().st_mtime_ns == written
    assert engine.digest() == again.digest()
    assert isinstance(engine, OnnxEngine)
    assert engine.fixed_size is None and engine.fixed_batch is None
    frames = torch.randn(2, 3, 48, 80)
    with torch.inference_mode():
        expected, _ = tiny_net.step(frames, tiny_net.initial_state(2))
    outputs, _ = engine.step(frames, engine.initial_state(2))
    torch.testing.assert_close(outputs.mask_logits, expected.mask_logits, atol=1e-4, rtol=1e-5)


def test_a_damaged_file_of_the_cache_is_written_anew(cache, tiny_net, caplog):
    path = export_once(tiny_net, torch.float32)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert export_once(tiny_net, torch.float32) == path
    assert 'written anew' in caplog.text
    OnnxEngine(path)


def test_a_file_is_run_as_it_is(cache, tiny_net):
    path = export_once(tiny_net, torch.float32)
    engine = build_onnx_engine(path, dtype=torch.float32)
    assert engine.config == tiny_net.config
    assert engine.device == torch.device('cpu')
    with pytest.raises(EngineError, match='holds torch.float32, expected torch.float16'):
        build_onnx_engine(path, dtype=torch.float16)
    with pytest.raises(CheckpointError, match='No such file'):
        build_onnx_engine(path.with_name('other.onnx'))


def test_other_number_formats_are_named(cache, tiny_net):
    with pytest.raises(EngineError, match='float32 and float16, got torch.bfloat16'):
        build_onnx_engine(tiny_net.to(torch.bfloat16))


def test_what_is_not_installed_is_named(cache, tiny_net, monkeypatch):
    monkeypatch.setitem(build_onnx_engine.__globals__, 'find_spec', lambda name: None)
    with torch.no_grad():
        tiny_net.class_head.bias.add_(1)  # another network, which is not in the cache
    with pytest.raises(EngineError, match='onnx and onnxscript.*videomt export'):
        build_onnx_engine(tiny_net)


def test_a_network_that_cannot_be_exported_is_an_engine_error(cache, tiny_net):
    with torch.no_grad():
        tiny_net.class_head.bias.fill_(1e6)
    with pytest.raises(EngineError, match='range of torch.float16'):
        build_onnx_engine(tiny_net, dtype=torch.float16)


def test_two_files_guard_each_other(cache, tiny_net, tiny_config, tmp_path, caplog):
    """As TensorRT and CUDA do on a GPU: here two sessions, of equal and of other weights."""
    right = OnnxEngine(export_once(tiny_net, torch.float32))
    frames = torch.randn(1, 3, 64, 64)
    agreeing = GuardedEngine(OnnxEngine(right.path), right, ('a', 'b'))
    agreeing.step(frames, agreeing.initial_state())
    assert agreeing.running is not right

    torch.manual_seed(7)
    wrong = OnnxEngine(export_once(VidEoMT(tiny_config).eval(), torch.float32))
    guarded = GuardedEngine(wrong, right, ('the other one', 'the right one'))
    outputs, state = guarded.step(frames, right.initial_state())
    expected, expected_state = right.step(frames, right.initial_state())
    assert guarded.running is right
    assert torch.equal(outputs.mask_logits, expected.mask_logits)
    assert torch.equal(state, expected_state)
    assert 'Expected the other one to compute what the right one does' in caplog.text
