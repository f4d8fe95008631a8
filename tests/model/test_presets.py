"""The shipped presets, and weights that load by name from a cache that the test writes."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.model.layout_files import write_original
from videomt_ros.cli import main as command
from videomt_ros.cli.models import ADVICE
from videomt_ros.model import (
    CheckpointError,
    build_network,
    load_model,
    presets,
    save_model,
)
from videomt_ros.model.checkpoint import fit_tensors, read_checkpoint
from videomt_ros.model.config_completion import Checkpoint, build_config
from videomt_ros.model.layouts import TRANSFORMERS
from videomt_ros.model.presets import (
    SHIPPED,
    PresetError,
    find_preset,
    load_preset,
    preset_names,
    read_preset,
)
from videomt_ros.resources import resource

PUBLISHED = [name for name in preset_names() if load_preset(name).source != SHIPPED]
COMMIT = '0' * 40


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Empty the hub's cache and cut off the hub; return what makes the folder of a repository."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)

    def repository(name: str) -> Path:
        home = tmp_path / f'models--{name.replace("/", "--")}'
        (home / 'refs').mkdir(parents=True)
        (home / 'refs' / 'main').write_text(COMMIT)
        folder = home / 'snapshots' / COMMIT
        folder.mkdir(parents=True)
        return folder

    return repository


def test_every_published_checkpoint_has_a_preset():
    vis = ['ytvis2019', 'ytvis2021', 'ytvis2022']
    large = [f'videomt-dinov2-large-{name}' for name in (*vis, 'ovis', 'vipseg', 'vspw')]
    small = [f'videomt-dinov2-{size}-ytvis2019' for size in ('small', 'base')]
    third = [f'videomt-dinov3-large-{name}' for name in (*vis, 'vipseg', 'vspw')]
    lvmt = [f'lvmt-dinov3-{size}-ovis' for size in ('small', 'base')]
    for family in ('dinov2', 'dinov3'):
        lvmt += [f'lvmt-{family}-large-{name}' for name in (*vis, 'ovis', 'vipseg', 'vspw')]
    pmt = [f'pmt-dinov3-large-{name}' for name in (*vis[:2], 'ovis', 'vipseg', 'vspw')]
    assert sorted(PUBLISHED) == sorted(large + small + third + lvmt + pmt)
    files = {(load_preset(name).source, load_preset(name).file) for name in PUBLISHED}
    assert len(files) == len(PUBLISHED)


@pytest.mark.parametrize('name', PUBLISHED)
def test_a_preset_says_what_its_network_is(name):
    preset = load_preset(name)
    config = preset.config()
    kind, family, size, benchmark = name.split('-')
    design = {'videomt': ('videomt', 'fusion'), 'pmt': ('pmt', 'fusion'), 'lvmt': ('pmt', 'gru')}
    assert (config.architecture, config.propagation) == design[kind]
    assert (config.family, preset.size) == (family, size)
    task = {'vipseg': 'panoptic', 'vspw': 'semantic'}.get(benchmark, 'instance')
    assert (config.task, config.num_queries) == (task, 200)
    vis = 480 if family == 'dinov3' else 448
    assert config.test_size == {'ovis': 544, 'vipseg': 720, 'vspw': 720}.get(benchmark, vis)
    with torch.device('meta'):
        net = build_network(config)
    assert preset.parameters == sum(parameter.numel() for parameter in net.parameters())
    # The names of most files end in the scores.
    stated = re.findall(r'_(\d\d\.\d)', preset.file)
    scores = [str(value) for key, value in preset.paper_score.items() if key != 'benchmark']
    if name == 'lvmt-dinov3-large-ovis':  # the paper has 56.7
        stated = ['56.7']
    assert stated == scores[: len(stated)] and stated


@pytest.mark.parametrize('name', PUBLISHED)
def test_a_published_checkpoint_loads_by_name(cache, name):
    preset = load_preset(name)
    told = preset.config()
    own = 4 if 'large' in name else 3
    assert told.num_query_blocks == (own if name.startswith('videomt') else 6)
    # A few blocks are enough, since the file tells how many it has; PMT reads 4 of the ViT.
    depth = 2 if told.architecture == 'videomt' else 4
    config = replace(told, depth=depth, num_query_blocks=1)
    write_original(cache(preset.source) / preset.file, config)
    checkpoint = read_checkpoint(name)
    loaded = build_config(checkpoint, {})
    assert loaded == config
    with torch.device('meta'):  # the large ones take seconds to build for real
        fit_tensors(checkpoint, build_network(loaded).state_dict(), loaded.num_query_blocks)
    assert loaded.name == name
    of_stuff = name.endswith(('vipseg', 'vspw'))
    assert loaded.norm_queries == (of_stuff and name.startswith('videomt-dinov3'))


@pytest.mark.parametrize('name', ['videomt-dinov2-small-ytvis2019', 'lvmt-dinov3-small-ovis'])
def test_a_full_vit_s_loads_by_name(cache, caplog, name):
    preset = load_preset(name)
    write_original(cache(preset.source) / preset.file, preset.config())
    assert load_model(name).config == preset.config()
    assert not caplog.text


def test_a_file_downloaded_by_hand_is_known_by_its_name(tmp_path):
    preset = load_preset('videomt-dinov3-large-vspw')
    config = replace(preset.config(), depth=2, num_query_blocks=1)
    path = tmp_path / Path(preset.file).name
    write_original(path, config)
    assert load_model(path).config == config
    other = replace(config, num_classes=7, class_names=(), thing_classes=())
    write_original(path, other)
    with pytest.raises(CheckpointError, match='num_classes = 124, got num_classes = 7') as caught:
        load_model(path)
    assert '\n' not in str(caught.value)


def test_a_preset_gives_way_to_the_tensors_and_says_so(cache, caplog):
    preset = load_preset('videomt-dinov2-small-ytvis2019')
    config = replace(preset.config(), depth=4, table_size=320)
    write_original(cache(preset.source) / preset.file, config)
    assert load_model(preset.name).config.table_size == 320
    assert (
        'table_size of videomt-dinov2-small-ytvis2019 is 640, the weights say 320' in caplog.text
    )


def test_a_converted_repository_loads_by_its_hub_name(cache):
    from transformers import VideomtConfig, VideomtForUniversalSegmentation

    preset = load_preset('videomt-dinov2-small-ytvis2019')
    port = VideomtForUniversalSegmentation(
        VideomtConfig(
            hidden_size=384,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_blocks=3,
            num_queries=200,
            num_labels=40,
        )
    )
    port.save_pretrained(cache(preset.converted))
    config = load_model(preset.converted).config
    assert config == replace(preset.config(), depth=4)


def test_the_classes_of_converted_vipseg_weights_come_from_the_preset():
    """Their config.json lists the names by data set id, but the head has things first."""
    preset = load_preset('videomt-dinov2-large-vipseg')
    settings = {**preset.settings, 'class_names': load_preset_classes('vspw')}
    del settings['thing_classes']
    checkpoint = Checkpoint('here', preset.name, {}, TRANSFORMERS, settings, preset)
    config = build_config(checkpoint, {})
    assert config.class_names == load_preset_classes('vipseg')
    assert config.thing_classes == (True,) * 58 + (False,) * 66


def load_preset_classes(benchmark):
    return load_preset(f'videomt-dinov2-large-{benchmark}').settings['class_names']


def test_a_cached_repository_with_a_damaged_index_is_not_taken_for_whole(cache):
    folder = cache('owner/name')
    (folder / 'config.json').write_text('{}')
    (folder / 'model.safetensors.index.json').write_text('{"weight_')
    with pytest.raises(CheckpointError, match=r"index\.json: can't be read as JSON") as caught:
        load_model('owner/name')
    assert '\n' not in str(caught.value)


def test_a_half_cached_repository_is_not_taken_for_whole(cache):
    folder = cache('owner/name')
    (folder / 'config.json').write_text('{}')
    with pytest.raises(CheckpointError, match='beside config.json, missing: model.safetensors'):
        load_model('owner/name')


@pytest.mark.parametrize('source', [PUBLISHED[0], 'tue-mps/VidEoMT', 'nobody/nothing'])
def test_without_a_network_one_line_says_so(cache, source):
    with pytest.raises(CheckpointError) as caught:
        load_model(source)
    message = str(caught.value)
    assert 'not in the cache and the hub is out of reach' in message
    assert '\n' not in message


def test_the_demo_model_is_a_shipped_file(tmp_path, monkeypatch, tiny_net):
    assert load_preset('demo').file == 'demo/demo.safetensors'
    models = tmp_path / 'models'
    (models / 'demo').mkdir(parents=True)
    shutil.copy(resource('models', 'demo.yaml'), models)
    monkeypatch.setattr(presets, 'resource', tmp_path.joinpath)
    assert load_preset('demo').source == SHIPPED
    with pytest.raises(CheckpointError, match='the weights of demo are missing') as caught:
        load_model('demo')
    assert '\n' not in str(caught.value)
    save_model(tiny_net, models / 'demo' / 'demo.safetensors', torch.float16)
    assert load_model('demo').config == tiny_net.config


def test_the_models_of_drawn_scenes_say_so(tmp_path):
    for name in preset_names():
        is_drawn = load_preset(name).source == SHIPPED
        assert load_preset(name).config().drawn_only == is_drawn
        assert bool(load_preset(name).config().warning) == is_drawn
    net = load_model('demo')
    assert net.config.warning == 'demo knows drawn shapes alone'
    save_model(net, tmp_path / 'mine.safetensors')  # the file itself carries it
    assert load_model(tmp_path / 'mine.safetensors').config.drawn_only


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Copy `models/`, so that a test can damage files in it."""
    shutil.copytree(resource('models'), tmp_path / 'shipped' / 'models')
    monkeypatch.setattr(presets, 'resource', (tmp_path / 'shipped').joinpath)
    return tmp_path / 'shipped' / 'models'


def test_a_damaged_preset_disturbs_no_other_model(models, tmp_path, tiny_config, caplog):
    (models / 'aaa.yaml').write_text('[')
    (models / 'bbb.yaml').write_text('source: a/b\nfile: 7\nlicence: d\n')
    write_original(tmp_path / 'mine.pth', replace(tiny_config, thing_classes=()))
    assert load_model(tmp_path / 'mine.pth', num_heads=2).config.name == 'mine'
    assert find_preset(converted='videomt-dinov2-large-vspw') is not None
    for name in ('aaa.yaml', 'bbb.yaml'):
        assert f'{models / name}: ' in caplog.text
    with pytest.raises(CheckpointError, match=r"aaa\.yaml: can't be read as YAML"):
        load_model('aaa')


def test_a_preset_that_is_found_and_damaged_says_so(models, tmp_path, tiny_config):
    preset = load_preset('videomt-dinov2-large-ovis')
    path = models / f'{preset.name}.yaml'
    path.write_text(path.read_text().replace('test_size: 544', 'test_size: 544.5'))
    write_original(tmp_path / preset.file, tiny_config)
    with pytest.raises(CheckpointError, match='test_size to be a whole number, got 544.5') as e:
        load_model(tmp_path / preset.file)
    assert str(path) in str(e.value)


def test_the_command_shows_damage_and_all_other_models(models, capsys, cache):
    (models / 'aaa.yaml').write_text('[')
    (models / 'demo').mkdir(exist_ok=True)
    (models / 'demo' / 'demo.safetensors').write_text('version https://git-lfs.github.com/spec/v1')
    assert command(['models']) == 0
    rows = {cells[0]: cells for cells in table(capsys.readouterr().out)}
    assert set(rows) == {'name', *preset_names()}
    damaged = [name for name, cells in rows.items() if cells[-1] == 'damaged']
    assert sorted(damaged) == ['aaa', 'demo']
    assert command(['models', 'demo']) == 1
    assert 'weights, got a git-lfs pointer; run `git lfs pull`' in capsys.readouterr().err


def test_a_preset_is_found_by_the_last_part_of_a_name():
    assert find_preset(file='/tmp/ovis_vit_large_52.5.pth').name == 'videomt-dinov2-large-ovis'
    found = find_preset(converted='videomt-dinov2-large-vspw')
    assert found.name == 'videomt-dinov2-large-vspw'
    assert find_preset(file='mine.pth') is None
    assert find_preset(converted='mine') is None


@pytest.mark.parametrize(
    ('text', 'fault'),
    [
        ('[', "can't be read as YAML"),
        ('- a', 'expected fields and values, got list'),
        (
            'source: shipped\nfile: a\nlicense: b',
            'missing fields: licence; unknown fields: license',
        ),
        ('source: a/b\nfile: c\nlicence: d', 'missing fields: classes, family, size, task'),
        ('SIZE huge', "expected size to be one of small, base, large, got 'huge'"),
        ('CLASSES coco', "got 'coco'"),
        ('FAMILY vgg', "got 'vgg'"),
        ('SIZE 3', 'expected size to be a text, got 3'),
        ('FPS fast', "expected fps to be a whole number, got 'fast'"),
        ('PUBLISHED 3', 'expected published to hold scores and their benchmark, got 3'),
        ('PUBLISHED {"AP":3}', 'expected published to hold scores and their benchmark'),
        ('PUBLISHED {"benchmark":"a","AP":"high"}', 'expected published to hold scores and'),
    ],
)
def test_a_damaged_preset_says_what_is_wrong(tmp_path, text, fault):
    path = tmp_path / 'mine.yaml'
    if text[:1].isupper():
        key, value = text.split()
        values = {'size': 'small', 'classes': 'ovis', 'family': 'dinov2', key.lower(): value}
        text = 'source: a/b\nfile: c\nlicence: d\ntask: instance\n'
        text += ''.join(f'{key}: {value}\n' for key, value in values.items())
    path.write_text(text)
    with pytest.raises(PresetError) as caught:
        read_preset(path)
    assert fault in str(caught.value)
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


def table(text: str) -> list[list[str]]:
    """Split the table that `videomt models` prints into cells, the header first."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith('name '))
    return [re.split(r' {2,}', line) for line in lines[start:] if line and line[0] != '#']


def test_the_command_groups_models_by_job_the_best_first(capsys, cache):
    assert command(['models']) == 0
    text = capsys.readouterr().out
    groups, benchmarks = [], []
    for part in text.split('\n# ')[1:]:
        heading, *lines = part.strip().splitlines()
        names = [line.split()[0] for line in lines]
        stated = {load_preset(name).paper_score.get('benchmark', '') for name in names}
        assert len(stated) == 1 and heading.endswith(*stated)
        main = next(
            key
            for key in ('AP', 'VPQ', 'mIoU', '')
            if key in load_preset(names[0]).paper_score or not key
        )
        scores = [load_preset(name).paper_score.get(main, 0) for name in names]
        assert scores == sorted(scores, reverse=True)
        groups.append(names)
        benchmarks += stated
    assert len(benchmarks) == len(set(benchmarks)) == 7
    # What is advised is the best of its group, or among the smallest of all.
    advised = dict(ADVICE)
    assert set(advised.values()) <= set(preset_names())
    small = {name for name in preset_names() if 'small' in name}
    best = {names[0] for names in groups}
    assert set(advised.values()) <= best | small
    assert advised['the fastest, such as for a CPU'] == min(
        small, key=lambda name: load_preset(name).parameters
    )
    for job, name in ADVICE:
        assert re.search(rf'^  {job} +{name}$', text, re.MULTILINE)


def test_the_command_lists_all_and_shows_one(capsys, cache):
    preset = load_preset('videomt-dinov2-large-ovis')
    write_original(cache(preset.source) / preset.file, replace(preset.config(), depth=5))
    assert command(['models']) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    head, *rows = table(text)
    assert sorted(row[0] for row in rows) == sorted(preset_names())
    rows = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    row = rows[preset.name]
    assert row.pop('here').endswith('MB')
    assert row == {
        'name': preset.name,
        'backbone': 'dinov2 L',
        'params': '318 M',
        'input': '544',
        'paper score': 'AP 52.5, AR10 57.5',
        'FPS': '115',
        'licence': '?',
    }
    assert rows['lvmt-dinov3-small-ovis']['here'] == 'no'
    assert rows['demo']['params'].endswith(' M') and rows['demo']['here'].endswith(' MB')
    assert command(['models', 'lvmt-dinov3-large-ovis']) == 0
    text = capsys.readouterr().out
    assert 'published: AP 56.7, AR10 61.6 (OVIS val)' in text and 'fps: 95 ' in text
    assert 'architecture: pmt' in text and 'parameters: 363250714' in text
    assert command(['models', 'videomt-dinov2-large-vspw']) == 0
    text = capsys.readouterr().out
    assert 'published: mVC16 95.0, mIoU 64.9 (VSPW val)' in text
    assert 'class_names: wall (stuff), ceiling (stuff), door,' in text
    assert command(['models', 'resnet']) == 1
    assert '`videomt models` lists them all' in capsys.readouterr().err
