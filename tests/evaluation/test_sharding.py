"""Tests of how a process reads its environment; tests/cli/test_evaluate.py runs several."""

from __future__ import annotations

import socket
from datetime import timedelta

import pytest
import torch

from videomt_ros.evaluation import sharding
from videomt_ros.evaluation.run_folder import ShardNumber
from videomt_ros.evaluation.sharding import Shard, joined_group, own_device


@pytest.mark.parametrize('size', [None, '', ' ', '0', '1'])
def test_a_process_alone_has_all_of_the_work(monkeypatch, size):
    monkeypatch.delenv('WORLD_SIZE', raising=False)
    if size is not None:
        monkeypatch.setenv('WORLD_SIZE', size)
    with joined_group() as shard:
        assert shard == Shard(0, 1)
        assert shard.is_first
        done = []
        shard.all_do(lambda: done.append(True))
        assert done == [True]


def test_the_error_of_the_first_process_is_its_own():
    def fail():
        raise ValueError('no room')

    with pytest.raises(ValueError, match='no room'):
        Shard().first_does(fail)
    with pytest.raises(ValueError, match='no room'):
        Shard().all_do(fail)


def test_processes_share_the_gpus_of_a_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    found = []
    for rank in range(4):
        monkeypatch.setenv('LOCAL_RANK', str(rank))
        found.append(own_device(torch.device('cuda')).index or 0)
        assert own_device(torch.device('cuda:1')) == torch.device('cuda:1')
        assert own_device(torch.device('cpu')) == torch.device('cpu')
    assert found == [0, 1, 0, 1]
    monkeypatch.setenv('LOCAL_RANK', '')
    assert own_device(torch.device('cuda')) == torch.device('cuda')


@pytest.mark.parametrize('rank', ['0', '1'])
def test_processes_that_do_not_come_end_the_wait(monkeypatch, caplog, rank):
    monkeypatch.setattr(sharding, 'MEETING_TIME', timedelta(seconds=1))
    monkeypatch.setattr(sharding, '_SILENCE_S', 0.0)
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'x')
    world = {'WORLD_SIZE': '2', 'RANK': rank, 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port}
    for name, value in world.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r'WORLD_SIZE=2 .* did not meet'), joined_group():
        pass
    assert f'waiting for 1 other processes at 127.0.0.1:{port}' in caplog.text


def test_processes_share_a_numbered_shard():
    """The second of three shards has the videos 1, 4, 7, ..., which two processes take in turn."""
    number = ShardNumber(2, 3)
    found = [list(Shard(rank, 2, number=number).positions(12)) for rank in range(2)]
    assert found == [[1, 7], [4, 10]]
    whole = [list(Shard(rank, 2).positions(5)) for rank in range(2)]
    assert whole == [[0, 2, 4], [1, 3]]
    every = [n for k in (1, 2, 3) for n in Shard(number=ShardNumber(k, 3)).positions(8)]
    assert sorted(every) == list(range(8))
