"""What is read of an ONNX file without onnx: of real files, and of damaged and foreign ones."""

from __future__ import annotations

import json

import onnx
import pytest
from onnx import TensorProto, helper

from videomt_ros.model import CheckpointError, load_model
from videomt_ros.model.checkpoint import load_config
from videomt_ros.model.onnx_files import read_onnx_config, read_onnx_metadata


@pytest.fixture
def metadata(tiny_config):
    return {
        'format': 'videomt_ros',
        'version': '1',
        'package': '9.8.7',
        'config': json.dumps(tiny_config.to_dict()),
        'initial_queries': 'AAAA',
    }


def write(path, metadata):
    """Write a small model of the onnx package with such metadata."""
    tensor = helper.make_tensor('w', TensorProto.FLOAT, [300], [0.5] * 300)
    place = helper.make_tensor_value_info('y', TensorProto.FLOAT, [300])
    graph = helper.make_graph(
        [helper.make_node('Identity', ['w'], ['y'])], 'g', [], [place], [tensor]
    )
    model = helper.make_model(graph, producer_name='somebody', doc_string='about')
    helper.set_model_props(model, metadata)
    onnx.save_model(model, path)
    return path


def test_the_metadata_are_those_that_onnx_wrote(tmp_path, metadata, tiny_config):
    metadata['note'] = 'ä' * 5000  # a length of several bytes
    path = write(tmp_path / 'robot.onnx', metadata)
    assert read_onnx_metadata(path) == metadata
    assert read_onnx_config(path) == tiny_config


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'format': None}, 'of another program'),
        ({'version': '2'}, 'version 1 of exported files, got 2, written by videomt_ros 9.8.7'),
        ({'config': None, 'initial_queries': None}, 'missing: config, initial_queries'),
        ({'config': '{'}, 'the configuration'),
        ({'config': '[]'}, 'expected an object, got list'),
        ({'config': '{"num_classes": 3, "num_rays": 2}'}, 'Unknown settings.*num_rays'),
    ],
)
def test_foreign_and_newer_files_are_named(tmp_path, metadata, change, words):
    entries = {key: value for key, value in (metadata | change).items() if value is not None}
    path = write(tmp_path / 'robot.onnx', entries)
    with pytest.raises(CheckpointError, match=f'(?i){words}') as error:
        read_onnx_config(path)
    assert str(error.value).startswith(str(path))


def test_a_cut_file_is_named_wherever_the_cut_is(tmp_path, metadata):
    whole = write(tmp_path / 'whole.onnx', metadata).read_bytes()
    path = tmp_path / 'cut.onnx'
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match='cut.onnx: .*(whole ONNX file|missing|program)'):
            read_onnx_metadata(path)


@pytest.mark.parametrize(
    'content', [b'', b'<!doctype html>', b'PK\x03\x04' + bytes(50), b'\xff' * 50, b'\x0a\x05\xff']
)
def test_other_files_are_named(tmp_path, content):
    path = tmp_path / 'robot.onnx'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match='expected a whole ONNX file'):
        read_onnx_metadata(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match='No such file'):
        read_onnx_metadata(tmp_path / 'robot.onnx')


def test_torch_alone_does_not_load_it(tmp_path, metadata, tiny_config):
    """The error names the engine that does; the configuration is known to all."""
    path = write(tmp_path / 'robot.onnx', metadata)
    assert load_config(path) == load_config(str(path)) == tiny_config
    with pytest.raises(CheckpointError, match='engine onnxruntime'):
        load_model(path)
    with pytest.raises(CheckpointError, match='no such file'):
        load_model('folder/robot.onnx')
