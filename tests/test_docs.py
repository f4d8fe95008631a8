"""What the README and the pages of docs/ state: links, commands, tables and examples."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml

from videomt_ros.cli import find_verbs
from videomt_ros.cli.models import ADVICE
from videomt_ros.datasets.formats.ytvis import load_ytvis
from videomt_ros.datasets.rle import encode
from videomt_ros.model import build_network, save_model
from videomt_ros.model.presets import SHIPPED, Preset, load_preset, preset_names

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding='utf-8')
    for pattern in ('*.md', 'docs/*.md', 'docker/*.md', 'models/*/README.md')
    for path in sorted(ROOT.glob(pattern))
}
FENCED = re.compile(r'^```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language, in order."""
    return [text for name, text in FENCED.findall(PAGES[page]) if name == language]


def commands(page: str) -> list[list[str]]:
    """The words of each `videomt` command in a block of the page, without `videomt` itself."""
    shell = '\n'.join(blocks(page, 'sh')).splitlines()
    shell += re.findall(r'^    (.+)', FENCED.sub('', PAGES[page]), re.MULTILINE)
    lines = '\n'.join(shell).replace('\\\n', ' ').splitlines()
    lines = [re.sub(r'^torchrun .* -m videomt_ros ', 'videomt ', line) for line in lines]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith('videomt ')]


def rows(page: str, first_head: str) -> list[list[str]]:
    """The cells of the table whose heading begins with this column."""
    (table,) = tables(page, first_head)
    return table


def tables(page: str, first_head: str) -> list[list[list[str]]]:
    """The cells of all tables whose headings begin with this column."""
    found = []
    for start in re.finditer(rf'^\| {first_head} \|.*\n\|[-:|]+\n', PAGES[page], re.MULTILINE):
        lines = PAGES[page][start.end() :].partition('\n\n')[0].splitlines()
        found.append([[cell.strip() for cell in line.strip('|').split(' | ')] for line in lines])
    return found


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    heads = re.findall(r'^#+ (.+)$', FENCED.sub('', text), re.MULTILINE)
    return {re.sub(r'[^\w -]', '', head).strip().lower().replace(' ', '-') for head in heads}


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_to_files_and_headings_of_the_tree(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', PAGES[page]):
        if target.startswith('https://'):
            continue
        file, _, anchor = target.partition('#')
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.read_text(encoding='utf-8')), target


def test_every_page_of_docs_is_linked_from_the_readme():
    for page in PAGES:
        if page.startswith('docs/'):
            assert f'({page})' in PAGES['README.md'], page


@pytest.mark.parametrize('page', PAGES)
def test_commands_have_options_that_exist(page):
    for verb, *words in commands(page):
        assert verb in find_verbs(), verb
        parser = argparse.ArgumentParser()
        import_module(f'videomt_ros.cli.{verb}').add_arguments(parser)
        parser.parse_args(words)  # exits where it cannot
        for word in words:
            if re.fullmatch(r'config/train_\w+\.yaml', word):
                assert (ROOT / word).is_file(), word


def test_commands_are_found_on_the_pages():
    for page in ('evaluate', 'fleet', 'train', 'fine_tuning', 'performance'):
        assert len(commands(f'docs/{page}.md')) > 2, page


@pytest.mark.parametrize(
    ('language', 'variable', 'first'),
    [('bash', 'SLURM_ARRAY_TASK_ID', 1), ('yaml', 'JOB_COMPLETION_INDEX', 0)],
)
def test_jobs_of_clusters_evaluate_every_shard(tmp_path, language, variable, first):
    [script] = blocks('docs/fleet.md', language)
    if language == 'yaml':
        spec = yaml.safe_load(script)['spec']
        assert (spec['completionMode'], spec['completions']) == ('Indexed', 8)
        [container] = spec['template']['spec']['containers']
        *shell, script = container['command']
        assert shell == ['bash', '-c']
    else:
        assert '#SBATCH --array=1-8\n' in script
    # A command of the same name prints what it was given.
    (tmp_path / 'videomt').write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / 'videomt').chmod(0o755)
    found = []
    for index in range(first, first + 8):
        env = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', variable: str(index)}
        done = subprocess.run(
            ['bash', '-c', script], env=env, capture_output=True, text=True, check=True
        )
        verb, *words = done.stdout.splitlines()
        parser = argparse.ArgumentParser()
        import_module(f'videomt_ros.cli.{verb}').add_arguments(parser)
        found.append(str(parser.parse_args(words).shard))
    assert found == [f'{number}/8' for number in range(1, 9)]


def test_node_page_lists_every_parameter_with_its_default():
    text = (ROOT / 'config/segmenter.yaml').read_text(encoding='utf-8')
    defaults = yaml.safe_load(text)['/**']['ros__parameters']
    shown = {name.strip('`*+ '): default for name, default, _ in rows('docs/node.md', 'parameter')}
    expected = {
        name: yaml.safe_dump(value, default_flow_style=True).partition('\n')[0]
        for name, value in defaults.items()
    }
    assert shown == {**expected, 'model': '(required)'}
    for name, default, _ in rows('README.md', 'parameter'):
        for part in re.findall(r'`(\w+)`', name):
            assert default.strip('`') == shown[part], part


def test_every_published_model_is_listed_with_its_task_size_and_score():
    shown = [row for group in tables('docs/models.md', 'name') for row in group]
    names = [name for name in preset_names() if load_preset(name).source != SHIPPED]
    assert sorted(row[0] for row in shown) == sorted(f'`{name}`' for name in names)
    for name, *cells in shown:
        preset = load_preset(name.strip('`'))
        parameters = f'{preset.parameters / 1e6:.0f} M'
        assert cells == [*model_cells(preset), str(preset.fps or '-'), parameters], name


def test_the_readme_advises_what_the_command_advises():
    advised = {name: job for job, name in ADVICE}
    assert f'lists {len(preset_names())} models' in PAGES['README.md']
    *published, shipped = rows('README.md', 'name')
    assert {row[0].strip('`') for row in published} == advised.keys()
    for name, _, *cells in published:
        assert cells == model_cells(load_preset(name.strip('`'))), name
    for name in preset_names():
        if load_preset(name).source == SHIPPED:
            assert f'`{name}`' in shipped[0] and f'models/{name}/README.md' in shipped[1]
    for name in advised:
        assert f'`{name}`' in PAGES['docs/models.md']


def model_cells(preset: Preset) -> list[str]:
    """Format task, number of classes, test size and paper score of a model."""
    config = preset.config()
    scores = [f'{k} {v}' for k, v in preset.paper_score.items() if k != 'benchmark']
    return [config.task, str(config.num_classes), str(config.test_size), ', '.join(scores)]


def test_library_example_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path('out/demo').mkdir(parents=True)
    video = cv2.VideoWriter('out/demo/overlay.mp4', cv2.VideoWriter_fourcc(*'mp4v'), 10, (120, 96))
    for _ in range(3):
        video.write(np.zeros((96, 120, 3), np.uint8))
    video.release()
    stream, network = blocks('README.md', 'python')
    names = {'batch_size': 2, 'frames': torch.zeros(2, 3, 128, 160)}
    exec(stream, names)
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert cv2.imread('out/last.png').shape == (96, 120, 3)
    exec(network, names)
    assert names['state'].shape == names['net'].initial_state(2).shape
    assert names['outputs'].class_logits.shape[:2] == names['outputs'].mask_logits.shape[:2]


def test_library_example_of_the_engines_page_runs(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    names = {}
    exec(blocks('docs/engines.md', 'python')[0], names)
    assert names['engine'].engine_name == 'onnxruntime'
    names['stream'].push(np.zeros((96, 120, 3), np.uint8), stamp_ns=0)


def test_example_of_two_models_runs(tmp_path, monkeypatch, tiny_config):
    """With small files in place of those that it names."""
    monkeypatch.chdir(tmp_path)
    (example,) = blocks('docs/models.md', 'python')
    found = re.findall(r"'(lvmt-[\w-]+)'", example)
    first = build_network(replace(tiny_config, architecture='pmt', propagation='gru')).eval()
    for name in found:
        preset = load_preset(name)
        net = build_network(replace(first.config, task=preset.config().task, name=name)).eval()
        net.backbone.load_state_dict(first.backbone.state_dict())
        save_model(net, f'{name}.safetensors')
        example = example.replace(f"'{name}'", f"'{name}.safetensors'")
    images = [(np.zeros((96, 120, 3), np.uint8), n * 10**8) for n in range(2)]
    names = {'images': images}
    exec(example.replace('test_size=544', 'test_size=64'), names)
    assert names['nets'].num_encoders == 1
    assert [net.config.task for net in names['nets']] == ['instance', 'panoptic']
    for result in (names['objects'], names['scene']):
        assert result.ids.shape == (96, 120)


def test_labels_of_the_page_on_bags_load(tmp_path):
    path = tmp_path / 'labels.json'
    path.write_text(blocks('docs/fleet.md', 'json')[0])
    truth = load_ytvis(path)
    (track,) = truth.tracks(1)
    assert track.masks[0]['size'] == [384, 480] and track.masks[1] is None


def test_mask_example_of_the_node_page_reads_a_mask():
    mask = np.eye(3, 4, dtype=bool)
    counts = encode(mask)['counts'].decode()
    message = SimpleNamespace(height=3, width=4, counts=counts)
    names = {}
    exec(blocks('docs/node.md', 'python')[0], names)
    assert np.array_equal(names['to_array'](message), mask)
