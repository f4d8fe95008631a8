"""What the text that names a model stands for: names, addresses, files and folders of runs."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.model.layout_files import build
from videomt_ros.cli import main as command
from videomt_ros.cli.evaluate import find_preset
from videomt_ros.model import CheckpointError, load_model, save_model
from videomt_ros.model.checkpoint import load_config
from videomt_ros.model.presets import load_preset
from videomt_ros.model.sources import find_source
from videomt_ros.training.run_file import read_run_file

SMALL = 'videomt-dinov2-small-ytvis2019'
OVIS = 'lvmt-dinov2-large-ovis'


@pytest.mark.parametrize(
    ('text', 'name'),
    [
        (SMALL, SMALL),
        (f'tue-mps/{SMALL}', SMALL),
        (f'tue-mps/{SMALL}/', SMALL),
        (f'TUE-MPS/{SMALL.upper()}', SMALL),
        ('VidEoMT-DINOv2-Small-YTVIS2019', SMALL),
        (f'https://huggingface.co/tue-mps/{SMALL}', SMALL),
        (f'https://huggingface.co/tue-mps/{SMALL}/', SMALL),
        (f'https://www.huggingface.co/tue-mps/{SMALL}/tree/main', SMALL),
        (f'https://hf.co/tue-mps/{SMALL}?library=transformers', SMALL),
        (f'huggingface.co/tue-mps/{SMALL}', SMALL),
        (f'hf://tue-mps/{SMALL}', SMALL),
        (f' {SMALL}\n', SMALL),
        (f'tue-mps/{OVIS}', OVIS),  # it has no converted weights
        ('tue-mps/LVMT/Dinov2_online/ovis_dinov2_online_55.6.pth', OVIS),
        (
            'https://huggingface.co/tue-mps/LVMT/blob/main/Dinov2_online/'
            'ovis_dinov2_online_55.6.pth',
            OVIS,
        ),
        (
            'https://huggingface.co/tue-mps/LVMT/resolve/main/Dinov2_online/'
            'ovis_dinov2_online_55.6.pth?download=true',
            OVIS,
        ),
        ('Demo', 'demo'),
    ],
)
def test_all_names_of_a_model_are_one(text, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_source(text) == load_preset(text) == load_preset(name)


@pytest.mark.parametrize(
    ('text', 'repository'),
    [
        ('https://huggingface.co/owner/Name', 'owner/Name'),
        ('https://huggingface.co/owner/Name/tree/main/', 'owner/Name'),
        ('owner/Name/', 'owner/Name'),
        ('someone/videomt-dinov2-small-ytvis2019', 'someone/videomt-dinov2-small-ytvis2019'),
        ('tue-mps/VidEoMT', 'tue-mps/VidEoMT'),
    ],
)
def test_the_address_of_a_repository_is_its_name(text, repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_source(text) == repository


def test_another_address_says_what_to_do():
    with pytest.raises(CheckpointError, match='Download the file, and give its path') as caught:
        find_source('https://example.org/weights.pth')
    assert '\n' not in str(caught.value)


def test_a_path_wins_over_other_names_of_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in (f'tue-mps/{SMALL}', 'Demo'):
        Path(text).mkdir(parents=True)
        assert find_source(text) == Path(text)
    assert find_source(Path('Demo')) == Path('Demo')


def test_commands_and_run_files_take_all_names(tmp_path, capsys):
    assert command(['models', f'https://huggingface.co/tue-mps/{SMALL}']) == 0
    assert capsys.readouterr().out.startswith(f'name: {SMALL}\n')
    assert find_preset(SMALL) == load_preset(SMALL)
    run = tmp_path / 'run.yaml'
    run.write_text(f'network: {{preset: tue-mps/{SMALL}}}\n')
    values = read_run_file(run)
    assert values['network']['preset'].endswith(SMALL)


@pytest.fixture
def run(tmp_path, tiny_config):
    """Write the folder that a training run leaves; each file has its own test size."""
    folder = tmp_path / 'out' / 'run'
    (folder / 'checkpoints').mkdir(parents=True)
    for size, name in ((64, 'best'), (96, 'model')):
        net = build(replace(tiny_config, test_size=size, name=f'mine {name}'))
        save_model(net, folder / f'{name}.safetensors')
    for step in (9, 10):
        torch.save({'step': step}, folder / 'checkpoints' / f'step={step}.ckpt')
    return folder


def test_the_folder_of_a_run_means_its_best_weights_then_its_last(run, caplog):
    caplog.set_level(logging.INFO)
    assert load_config(f'{run}/').test_size == 64
    assert caplog.messages == [f'{run} is the folder of a run: its best.safetensors is loaded.']
    assert load_model(str(run)).config.test_size == load_model(run).config.test_size == 64
    (run / 'best.safetensors').unlink()
    assert load_model(run).config.test_size == 96
    (run / 'model.safetensors').unlink()
    newest = run / 'checkpoints' / 'step=10.ckpt'
    assert find_source(run) == find_source(run / 'checkpoints') == newest
    newest.unlink()
    (run / 'checkpoints' / 'step=9.ckpt').unlink()
    with pytest.raises(CheckpointError, match='config.json is missing'):
        load_model(run)


def test_a_folder_of_transformers_is_no_run(folder):
    assert find_source(folder) == folder
