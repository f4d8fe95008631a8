"""`videomt export`: from a checkpoint to a file that is a model by itself."""

from __future__ import annotations

import re

import pytest
import torch

from videomt_ros.cli import export, main
from videomt_ros.engines.onnx_engine import OnnxEngine
from videomt_ros.model import save_model
from videomt_ros.model.onnx_files import read_onnx_metadata
from videomt_ros.resources import package_version


@pytest.fixture
def checkpoint(tmp_path, tiny_net):
    save_model(tiny_net, tmp_path / 'tiny.safetensors')
    return str(tmp_path / 'tiny.safetensors')


def test_a_file_is_a_model_by_itself(checkpoint, tiny_net, tmp_path, capsys):
    path = tmp_path / 'new' / 'robot.onnx'
    line = f'export --model {checkpoint} --image-size 160x90 --input-size 48 --out {path}'
    assert main(line.split()) == 0
    text = capsys.readouterr().out
    assert 'takes one frame of 48 x 96 pixels (height x width), for images of 160 x 90' in text
    for name in ('class_logits', 'mask_logits', 'embeddings', 'query_out'):
        assert re.search(rf'{name}: [\d.e-]+ of [\d.]+, the largest value', text), name

    engine = OnnxEngine(path)
    assert (engine.fixed_batch, engine.fixed_size) == (1, (48, 96))
    assert engine.config.test_size == 48, 'so that images get the size that it takes'
    assert engine.config.class_names == tiny_net.config.class_names
    assert torch.equal(engine.initial_state(), tiny_net.initial_state().detach())
    assert read_onnx_metadata(path)['package'] == package_version() != 'unknown'
    assert str(tmp_path).encode() not in path.read_bytes(), 'no paths of this machine'
    assert b'videomt_ros/model' not in path.read_bytes()


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ('--out a.onnx', '--dynamic size'),
        ('--out a.pt --image-size 64x64', 'end in .onnx'),
        ('--out a.onnx --image-size 64x64 --input-size 50', 'input_size'),
    ],
)
def test_wrong_options_are_named(checkpoint, capsys, options, words):
    assert main(f'export --model {checkpoint} {options}'.split()) == 1
    assert words in capsys.readouterr().err


def test_what_is_not_installed_is_named(checkpoint, capsys, monkeypatch):
    monkeypatch.setattr(export, 'find_spec', lambda name: None if name == 'onnxscript' else name)
    assert main(f'export --model {checkpoint} --image-size 64x64 --out a.onnx'.split()) == 1
    error = capsys.readouterr().err
    assert 'onnxscript, which is not installed. It comes with the extra [export]' in error
