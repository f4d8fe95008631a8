"""`videomt models` with one model: a name, a file or the folder of a run."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest
import torch

from tests.model.layout_files import build, dinov3_names
from videomt_ros.cli import main as command
from videomt_ros.model import load_model, save_model
from videomt_ros.model.presets import SHIPPED, load_preset, preset_names


@pytest.mark.parametrize('name', preset_names())
def test_the_licence_of_each_model_is_told_with_where_to_look(capsys, name):
    assert command(['models', name]) == 0
    lines = dict(line.split(': ', 1) for line in capsys.readouterr().out.splitlines())
    licence = lines['licence']
    preset = load_preset(name)
    if preset.source == SHIPPED:
        assert licence == 'Apache-2.0'
        return
    encoder = {'dinov2': 'DINOv2, Apache-2.0', 'dinov3': "DINOv3, Meta's DINOv3 License"}
    assert licence.startswith(f'code MIT; encoder {encoder[lines["family"]]}; weights: ')
    assert licence.endswith(f'see the model card, https://huggingface.co/{preset.source}')
    assert lines['size'].startswith('about ') or lines['here'] != 'no'
    assert len(lines['class_names'].split(', ')) == int(lines['num_classes'])
    assert lines['published'] and lines['test_size']


def test_no_preset_repeats_the_licence_of_all_published_models():
    from videomt_ros.resources import resource

    for path in resource('models').glob('*.yaml'):
        text = path.read_text()
        assert ('licence:' in text) == ('source: shipped' in text), path


@pytest.fixture
def untold(tmp_path, monkeypatch, tiny_config):
    """Write a file whose tensors do not tell two settings."""
    monkeypatch.chdir(tmp_path)
    config = replace(tiny_config, family='dinov3', norm_queries=True)
    torch.save({'model': dinov3_names(build(config))}, 'my file.pth')
    return config


def test_what_a_file_does_not_tell_is_given_and_kept_on_the_command_line(untold, capsys):
    assert command(['models', 'my file.pth']) == 1
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'load_model' not in error
    # The advice itself, with values in it, is a command that works.
    advice = error.partition('`')[2].partition('`')[0]
    assert advice.startswith(
        "videomt models 'my file.pth' --set num_heads=... --set norm_queries="
    )
    words = shlex.split(
        advice.replace('heads=...', 'heads=2').replace('queries=...', 'queries=on')
    )
    assert command(words[1:]) == 0
    out = capsys.readouterr().out
    assert 'norm_queries: True\n' in out and out.endswith('Written: my file.safetensors\n')
    net = load_model('my file.safetensors')
    assert (net.config.num_heads, net.config.norm_queries) == (2, True)
    assert net.config.name == 'my file'


def test_names_of_classes_are_given_on_the_command_line(untold, capsys):
    settings = ['--set', 'num_heads=2', '--set', 'norm_queries=true']
    names = ['--set', 'class_names=[cat, dog, sky]']
    assert command(['models', 'my file.pth', *settings, *names]) == 0
    assert 'class_names: cat, dog, sky\n' in capsys.readouterr().out


def test_the_folder_of_a_run_is_shown(tmp_path, tiny_net, capsys):
    save_model(tiny_net, tmp_path / 'best.safetensors')
    assert command(['models', str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f'source: {tmp_path}/best.safetensors\n' in out
    assert f'num_queries: {tiny_net.config.num_queries}\n' in out


@pytest.mark.parametrize(
    ('words', 'fault', 'code'),
    [
        (['--set', 'num_heads=2'], 'name it, or give its file', 1),
        (['--save', 'a.safetensors'], 'name it, or give its file', 1),
        (['demo', '--save', 'a.pth'], 'ends in .safetensors, got a.pth', 1),
        (['demo', '--set', 'num_heads'], "expected NAME=VALUE, got 'num_heads'", 2),
        (['demo', '--set', 'heads=2'], 'Unknown settings of a network: heads', 2),
        (['demo', '--set', 'num_heads=['], 'expected NAME=VALUE with a value of YAML, got', 2),
        (['demo', '--set', 'test_size=-1'], 'test_size to be at least 1, got -1', 1),
    ],
)
def test_wrong_settings_are_named(capsys, tmp_path, monkeypatch, words, fault, code):
    monkeypatch.chdir(tmp_path)
    if code == 2:
        with pytest.raises(SystemExit) as ended:
            command(['models', *words])
        assert ended.value.code == 2
    else:
        assert command(['models', *words]) == 1
    assert fault in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
