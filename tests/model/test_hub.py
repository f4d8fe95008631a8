"""Downloads with the real huggingface_hub, from a local server that answers like the hub."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from tests.hub import save_tiny_model, serve
from videomt_ros.model import hub

LOAD = """
import json, logging, os, sys
from videomt_ros.model import load_model
if 'LOG' in os.environ:
    logging.basicConfig(level=logging.WARNING, format='%(message)s')
    logging.getLogger('videomt_ros').setLevel(logging.INFO)
for source in sys.argv[1:]:
    try:
        config = load_model(source).config
        print(json.dumps([config.name, config.class_names]))
    except ValueError as error:
        print(json.dumps(['error', str(error)]))
"""


def run(root, cache, *sources, offline=False, log=False):
    """Load models in a process of its own, since huggingface_hub reads its settings once."""
    with serve(root) as settings:
        settings['HF_HOME'] = str(cache)
        settings |= {'HF_HUB_OFFLINE': '1'} if offline else {}
        settings |= {'LOG': '1'} if log else {}
        done = subprocess.run(
            [sys.executable, '-c', LOAD, *sources],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert done.returncode == 0, done.stderr
    assert 'Retrying' not in done.stderr
    return done


def load(*arguments, **options):
    """Load models, and parse what was printed of each."""
    lines = run(*arguments, **options).stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith('[')]


@pytest.fixture
def root(tmp_path):
    port = save_tiny_model(tmp_path / 'hub', 'whole')
    port.save_pretrained(tmp_path / 'hub' / 'owner' / 'shards', max_shard_size='20KB')
    original = tmp_path / 'hub' / 'tue-mps' / 'VidEoMT'
    original.mkdir(parents=True)
    torch.save({'model': {'a': torch.ones(1)}}, original / 'ovis_vit_large_52.5.pth')
    return tmp_path / 'hub'


def test_downloads_are_real_cached_and_refused_in_one_line(root, tmp_path):
    sources = ['owner/whole', 'owner/shards', 'videomt-dinov2-large-ovis']
    closed = ['owner/gone', 'owner/gated', 'tue-mps/VidEoMT', 'videomt-dinov2-large-vspw']
    whole, shards, ovis, gone, gated, bare, vspw = load(root, tmp_path / 'home', *sources, *closed)
    assert whole == ['whole', ['circle', 'square']]
    assert shards == ['shards', ['circle', 'square']]
    assert 'expected weights of VidEoMT, PMT or LVMT' in ovis[1]  # the file was downloaded
    assert 'the hub has no such repository, or it is private' in gone[1]
    assert 'its owner gives access on request' in gated[1]
    assert 'has no config.json. Its files load by name: videomt-dinov2-base' in bare[1]
    assert 'the repository has no such file' in vspw[1]
    assert all('\n' not in answer[1] for answer in (ovis, gone, gated, bare, vspw))
    # A second time, without the hub.
    again = load(root, tmp_path / 'home', *sources, 'owner/new', offline=True)
    assert again[:3] == [whole, shards, ovis]
    assert 'not in the cache and the hub is out of reach' in again[3][1]


def test_one_set_of_weights_serves_both_names_of_a_model(tmp_path):
    """The hub has the converted weights alone; then the cache has them."""
    name = 'videomt-dinov2-large-ovis'
    save_tiny_model(tmp_path / 'hub', name)
    (tmp_path / 'hub' / 'owner').rename(tmp_path / 'hub' / 'tue-mps')
    for offline in (False, True):
        sources = [name, f'tue-mps/{name}']
        for answer in load(tmp_path / 'hub', tmp_path / 'home', *sources, offline=offline):
            # The small network has two classes, so the preset refuses it once it is read.
            assert f'expected the weights of {name}, with' in answer[1]


def test_a_download_is_told_in_lines_with_its_size(tmp_path):
    folder = tmp_path / 'hub' / 'owner' / 'large'
    save_tiny_model(tmp_path / 'hub', 'large')
    save_file({'a': torch.zeros(25_000_000, dtype=torch.uint8)}, folder / 'model.safetensors')
    told = run(tmp_path / 'hub', tmp_path / 'home', 'owner/large', log=True).stderr.splitlines()
    assert told[0] == 'Downloading owner/large from the Hugging Face hub.'
    assert told[-1] == 'owner/large: 25.0 MB of 25.0 MB (100 %)'
    assert all(re.fullmatch(r'owner/large: [\d.]+ MB of 25\.0 MB \(\d+ %\)', t) for t in told[1:])
    quiet = run(tmp_path / 'hub', tmp_path / 'home', 'owner/large', log=True).stderr
    assert not quiet  # it is in the cache


def test_a_download_that_is_cut_is_not_taken_and_says_what_to_do(tmp_path):
    save_tiny_model(tmp_path / 'hub', 'cut')
    (answer,) = load(tmp_path / 'hub', tmp_path / 'home', 'owner/cut')
    assert 'the download failed' in answer[1] and 'give its path' in answer[1]
    assert '\n' not in answer[1]
    left = [path.suffix for path in (tmp_path / 'home').rglob('*')]
    assert '.safetensors' not in left and '.incomplete' not in left


def test_a_damaged_index_in_the_cache_is_downloaded_again(root, tmp_path):
    name = 'model.safetensors.index.json'
    before = load(root, tmp_path / 'home', 'owner/shards')
    (index,) = (tmp_path / 'home').rglob(name)
    index.write_text('{"weight_')
    assert load(root, tmp_path / 'home', 'owner/shards') == before
    assert before == [['shards', ['circle', 'square']]]


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('tue-mps/videomt-dinov2-small-ytvis2019', True),
        ('owner/name_1.2', True),
        ('owner/name.pth', False),
        ('./name', False),
        ('../name', False),
        ('/etc/name', False),
        ('a/b/c', False),
        ('name', False),
        ('~/name', False),
        ('own er/name', False),
        ('owner/', False),
    ],
)
def test_what_counts_as_a_hub_name(text, expected):
    assert hub.is_hub_name(text) == expected
