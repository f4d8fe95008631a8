"""Errors for files of other kinds, cut short, damaged or with code inside."""

from __future__ import annotations

import os
import pickle
import zipfile

import pytest
import torch

from tests.model.layout_files import assert_refused, dinov2_names, one_line
from videomt_ros.model import CheckpointError, load_model, save_model


def test_the_file_in_a_transformers_folder_stands_for_the_folder(folder):
    net = load_model(folder / 'model.safetensors')
    assert net.config.class_names == ('circle', 'square', 'sky')


def test_a_damaged_table_of_contents_says_so(tmp_path, net):
    path = tmp_path / 'mine.pth'
    torch.save(dinov2_names(net), path)
    path.write_bytes(path.read_bytes().replace(b'PK\x01\x02', b'XXXX', 1))
    with pytest.raises(CheckpointError, match=r'damaged .*Download it again') as caught:
        load_model(path, num_heads=2)
    assert str(path) in one_line(caught)


def text(content):
    return lambda path: path.write_bytes(content)


def other_zip(path):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('readme.txt', 'hello')


def saved(content, **options):
    return lambda path: torch.save(content, path, **options)


def cut(path, keep):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


NO_WEIGHTS = {
    'empty': (text(b''), 'the file is empty'),
    'text': (text(b'hello there, no weights here'), "got text that starts with 'hello there"),
    'html': (text(b'\n<!DOCTYPE html><html></html>'), 'got an HTML page'),
    'lfs': (text(b'version https://git-lfs.github.com/spec/v1\n'), 'git lfs pull'),
    'png': (text(b'\x89PNG\r\n\x1a\n' + bytes(64)), 'got a PNG image'),
    'jpeg': (text(b'\xff\xd8\xff\xe0' + bytes(64)), 'got a JPEG image'),
    'gzip': (text(b'\x1f\x8b\x08' + bytes(64)), 'gzip archive'),
    'zeros': (text(bytes(300)), 'bytes 00 00 00'),
    'json': (text(b'{"a": 1, "b": {"c": 2}}'), 'got text that starts with'),
    'zip': (other_zip, 'a zip archive of 1 other files'),
    'list': (saved([1, 2]), 'got list'),
    'nothing': (saved({'model': {}}), 'got nothing'),
    'numbers': (saved({'model': {'a.b': 3, 'c.d': torch.ones(1)}}), 'these are none: a.b'),
    'other network': (saved({'conv1.weight': torch.ones(1)}), 'got conv1.weight'),
    'broken pickle': (text(b'\x80\x02garbage' + bytes(64)), 'damaged or of another kind'),
    'broken header': (text((20).to_bytes(8, 'little') + b'{"a": nonsense, 123}'), 'damaged'),
}


@pytest.mark.parametrize('kind', NO_WEIGHTS)
def test_a_file_of_another_kind_says_what_it_is(tmp_path, kind):
    write, fault = NO_WEIGHTS[kind]
    path = tmp_path / 'mine.pth'
    write(path)
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    message = one_line(caught)
    assert fault in message
    assert str(path) in message


@pytest.mark.parametrize('keep', [0.02, 0.99])
@pytest.mark.parametrize('kind', ['zip', 'pickle', 'own', 'transformers'])
def test_a_truncated_file_says_so(tmp_path, net, folder, kind, keep):
    path = tmp_path / 'mine.file'
    if kind == 'own':
        path = path.with_suffix('.safetensors')
        save_model(net, path)
    elif kind == 'transformers':
        path = folder / 'model.safetensors'
    else:
        zipped = kind == 'zip'
        torch.save(dinov2_names(net), path, _use_new_zipfile_serialization=zipped)
    cut(path, keep)
    with pytest.raises(CheckpointError, match='Download it again') as caught:
        load_model(folder if kind == 'transformers' else path, num_heads=2)
    assert str(path) in one_line(caught)


class Payload:
    """An object that runs a command when an ordinary unpickler reads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


@pytest.mark.parametrize('kind', ['zip', 'old', 'bare'])
def test_nothing_in_a_file_is_executed(tmp_path, net, kind):
    mark, path = tmp_path / 'executed', tmp_path / 'mine.pth'
    content = {'model': dinov2_names(net), 'hook': Payload(mark)}
    if kind == 'bare':
        path.write_bytes(pickle.dumps(content['hook'], protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == 'zip')
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    message = one_line(caught)
    assert not mark.exists()
    assert kind == 'bare' or 'posix.system' in message


INDEX = 'model.safetensors.index.json'


BAD_FOLDERS = {
    'no config': (lambda f: (f / 'config.json').unlink(), 'config.json is missing'),
    'no json': (lambda f: (f / 'config.json').write_text('{'), "can't be read as JSON"),
    'a list': (lambda f: (f / 'config.json').write_text('[]'), 'expected an object, got list'),
    'no weights': (lambda f: (f / 'model.safetensors').unlink(), 'missing: model.safetensors'),
    'no shard': (
        lambda f: (f / INDEX).write_text('{"weight_map": {"a": "model-1.safetensors"}}'),
        'missing: model-1.safetensors',
    ),
    'a shard elsewhere': (
        lambda f: (f / INDEX).write_text('{"weight_map": {"a": "../port/model.safetensors"}}'),
        'expected a weight_map of file names',
    ),
    'no map': (lambda f: (f / INDEX).write_text('{}'), 'expected a weight_map of file names'),
}


@pytest.mark.parametrize('kind', BAD_FOLDERS)
def test_a_damaged_folder_says_what_is_wrong(folder, kind):
    change, fault = BAD_FOLDERS[kind]
    change(folder)
    assert_refused(folder, fault)
