"""Downloads with the real huggingface_hub, from a local server that answers like the hub."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from videomt_ros.model import hub

COMMIT = '1' * 40
REFUSED = {'gone': (404, 'RepoNotFound'), 'gated': (403, 'GatedRepo')}


class Hub(BaseHTTPRequestHandler):
    """Serves the folders below `root`, one per repository, as the hub does."""

    root = None
    busy_for = 2
    """Number of requests for a file of tue-mps to refuse; the client warns of the second."""

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.split('?')[0].strip('/')
        listing = path.startswith('api/models/')
        owner, name, *rest = path.removeprefix('api/models/').split('/')
        folder = self.root / owner / name
        if name in REFUSED or not folder.is_dir():
            return self.send(*REFUSED.get(name, (404, 'RepoNotFound')))
        if listing:
            files = sorted(p.relative_to(folder) for p in folder.rglob('*') if p.is_file())
            if rest[0] == 'tree':
                entries = [
                    {'type': 'file', 'path': str(p), 'size': (folder / p).stat().st_size}
                    | {'oid': digest(folder / p)}
                    for p in files
                ]
                return self.send(200, content=json.dumps(entries).encode(), body=body)
            siblings = [{'rfilename': str(p)} for p in files]
            record = {'id': f'{owner}/{name}', 'sha': COMMIT, 'siblings': siblings}
            return self.send(200, content=json.dumps(record).encode(), body=body)
        if owner == 'tue-mps' and self.busy_for:
            type(self).busy_for -= 1
            return self.send(503)
        file = folder.joinpath(*rest[2:])  # resolve/<revision>/<file>
        if not file.is_file():
            return self.send(404, 'EntryNotFound')
        return self.send(200, content=file.read_bytes(), body=body, etag=digest(file))

    def send(self, status, code='', content=b'', body=False, etag=''):
        self.send_response(status)
        if code:
            self.send_header('X-Error-Code', code)
        self.send_header('X-Repo-Commit', COMMIT)
        self.send_header('ETag', f'"{etag}"')
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


def digest(path):
    return hashlib.sha1(path.read_bytes()).hexdigest()


LOAD = """
import json, sys
from videomt_ros.model import load_model
for source in sys.argv[1:]:
    try:
        config = load_model(source).config
        print(json.dumps([config.name, config.class_names]))
    except ValueError as error:
        print(json.dumps(['error', str(error)]))
"""


def load(root, cache, *sources, offline=False):
    """Load models in a process of its own, since huggingface_hub reads its settings once."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), type('Here', (Hub,), {'root': root}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    settings = {'HF_ENDPOINT': f'http://127.0.0.1:{server.server_port}', 'HF_HOME': str(cache)}
    if offline:
        settings['HF_HUB_OFFLINE'] = '1'
    try:
        done = subprocess.run(
            [sys.executable, '-c', LOAD, *sources],
            env={**os.environ, **settings, 'HF_HUB_DISABLE_XET': '1'},
            capture_output=True,
            text=True,
            timeout=240,
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert done.returncode == 0, done.stderr
    assert 'Retrying' not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('[')]


@pytest.fixture
def root(tmp_path):
    from transformers import VideomtConfig, VideomtForUniversalSegmentation

    port = VideomtForUniversalSegmentation(
        VideomtConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=64,
            num_blocks=1,
            num_queries=4,
            id2label={0: 'circle', 1: 'square'},
        )
    )
    port.save_pretrained(tmp_path / 'hub' / 'owner' / 'whole')
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
    assert 'expected weights of VidEoMT' in ovis[1]  # the file was downloaded
    assert 'the hub has no such repository, or it is private' in gone[1]
    assert 'its owner gives access on request' in gated[1]
    assert 'has no config.json. Its files load by name: videomt-dinov2-base' in bare[1]
    assert 'the repository has no such file' in vspw[1]
    assert all('\n' not in answer[1] for answer in (ovis, gone, gated, bare, vspw))
    # A second time, without the hub.
    again = load(root, tmp_path / 'home', *sources, 'owner/new', offline=True)
    assert again[:3] == [whole, shards, ovis]
    assert 'not in the cache and the hub is out of reach' in again[3][1]


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
