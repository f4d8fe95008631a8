"""A local server that answers like the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = '1' * 40
REFUSED = {'gone': (404, 'RepoNotFound'), 'gated': (403, 'GatedRepo')}


class Hub(BaseHTTPRequestHandler):
    """Serves the folders below `root`, one per repository, as the hub does.

    Weights of a repository named `cut` end halfway, whenever they are asked for.
    """

    root = None
    gate = None
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
        if self.gate is not None and body and file.suffix == '.safetensors':
            self.gate.wait(name)
        cut = name == 'cut' and file.suffix == '.safetensors'
        return self.send(200, content=file.read_bytes(), body=body, etag=digest(file), cut=cut)

    def send(self, status, code='', content=b'', body=False, etag='', cut=False):
        self.send_response(status)
        if code:
            self.send_header('X-Error-Code', code)
        self.send_header('X-Repo-Commit', COMMIT)
        self.send_header('ETag', f'"{etag}"')
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = True


def digest(path):
    return hashlib.sha1(path.read_bytes()).hexdigest()


class Gate:
    """Holds the weights of some repositories back until they are let through."""

    def __init__(self, *names: str) -> None:
        self._opened = {name: threading.Event() for name in names}
        self.asked: set[str] = set()
        """Names of the repositories whose weights a client has asked for."""

    def wait(self, name: str) -> None:
        if name in self._opened:
            self.asked.add(name)
            self._opened[name].wait()

    def open(self, *names: str) -> None:
        """Let the weights of these repositories through; without names, all."""
        for name in names or self._opened:
            self._opened[name].set()


@contextmanager
def serve(root: Path, gate: Gate | None = None) -> Iterator[dict[str, str]]:
    """Serve the repositories of a folder; gives the environment in which a client finds them."""
    handler = type('Here', (Hub,), {'root': root, 'gate': gate})
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield {
            'HF_ENDPOINT': f'http://127.0.0.1:{server.server_port}',
            'HF_HUB_DISABLE_XET': '1',
            'HF_HUB_DOWNLOAD_TIMEOUT': '600',
        }
    finally:
        if gate is not None:
            gate.open()
        server.shutdown()
        thread.join()
        server.server_close()


def save_tiny_model(root: Path, *names: str) -> Any:
    """Write a small network with random weights to repositories of `owner`, and return it."""
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
    for name in names:
        port.save_pretrained(root / 'owner' / name)
    return port
