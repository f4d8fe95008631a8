"""Segmenters and peers that end with the test that started them."""

from __future__ import annotations

import pytest

from tests.ros.node_process import NodeProcess, Peer, new_domain, return_domains


@pytest.fixture(scope='module', autouse=True)
def domains():
    """Returns the domains of a file once all of its nodes have ended."""
    yield
    return_domains()


@pytest.fixture
def domain():
    return new_domain()


@pytest.fixture
def start(tmp_path, domain):
    """Starts segmenters, and ends them with the test."""
    processes = []

    def start_(*arguments: str, **parameters: object) -> NodeProcess:
        process = NodeProcess(tmp_path / f'log{len(processes)}', domain, *arguments, **parameters)
        processes.append(process)
        return process

    yield start_
    for process in processes:
        process.kill()


@pytest.fixture
def make_peer(domain):
    """Makes peers, and closes them with the test."""
    peers = []

    def make(*words: object, **arguments: object) -> Peer:
        peers.append(Peer(domain, *words, **arguments))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()
