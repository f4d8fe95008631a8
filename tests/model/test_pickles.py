"""What lies beside tensors in files of training scripts, and what must never run."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import functools
import os
import pathlib
import pickle
import subprocess
import threading
import types

import numpy as np
import pytest
import torch

from tests.model.layout_files import dinov2_names, one_line
from videomt_ros.model import CheckpointError, load_model
from videomt_ros.model.pickles import is_harmless


class Settings(collections.UserDict):
    """A class that no allow-list knows."""


def optimiser():
    return torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])


def scheduler():
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser(), 10)


def counts():
    found = collections.defaultdict(list)
    found['a'].append(np.float64(1))
    return found


BESIDE = {
    'a scalar of numpy': lambda: np.float64(0.5),
    'arrays of numpy': lambda: [np.arange(3), np.array(['a']), np.array([None], object)],
    'a record of numpy': lambda: np.zeros(2, [('a', 'f4')]),
    'a type of numpy': lambda: np.dtype('f4'),
    'random states': lambda: [np.random.get_state(), np.random.default_rng(0), torch.get_rng_state()],  # noqa: E501, NPY002
    'an optimiser': optimiser,
    'a scheduler': scheduler,
    'states of both': lambda: [optimiser().state_dict(), scheduler().state_dict()],
    'a function, as in schedulers of torch 1': lambda: {
        'anneal_func': torch.optim.lr_scheduler.OneCycleLR._annealing_cos
    },
    'a recipe': lambda: functools.partial(torch.optim.AdamW, lr=1e-4),
    'a scaler': lambda: torch.amp.GradScaler('cpu'),
    'a version': lambda: torch.__version__,
    'arguments': lambda: argparse.Namespace(lr=1e-4, out=pathlib.Path('a')),
    'a namespace': lambda: types.SimpleNamespace(a=1),
    'containers': lambda: [counts(), collections.deque([1, 2], maxlen=3), frozenset([1]), {1, 2}],
    'times and numbers': lambda: [datetime.datetime(2026, 1, 1), decimal.Decimal('0.1'), slice(3)],
}  # fmt: skip


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('kind', BESIDE)
def test_harmless_things_beside_the_tensors_are_passed_over(tmp_path, net, kind, zipped):
    path, beside = tmp_path / 'mine.pth', BESIDE[kind]()
    content = {'model': dinov2_names(net), 'epoch': 3, 'beside': beside, 'more': [{'a': beside}]}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    loaded = load_model(path, num_heads=2)
    for key, value in net.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key]), key
    assert not any(isinstance(each, tuple) for each in torch.serialization.get_safe_globals())


def test_plain_values_among_the_tensors_are_passed_over(tmp_path, net):
    torch.save({**dinov2_names(net), 'epoch': 3, 'best': np.float64(1)}, tmp_path / 'mine.pth')
    load_model(tmp_path / 'mine.pth', num_heads=2)


def test_another_class_is_named_with_what_to_do(tmp_path, net):
    torch.save({'model': dinov2_names(net), 'settings': Settings()}, tmp_path / 'mine.pth')
    with pytest.raises(CheckpointError, match=r'also holds .*Settings, which is not') as caught:
        load_model(tmp_path / 'mine.pth')
    assert 'save the tensors alone' in one_line(caught)


def test_a_whole_module_is_named_with_what_to_do(tmp_path, net):
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / 'mine.pth')
    with pytest.raises(CheckpointError, match=r'holds torch\.nn\.modules\.container\.Seq'):
        load_model(tmp_path / 'mine.pth')


@pytest.mark.parametrize('protocol', [3, 4, 5])
def test_another_protocol_loads_or_says_so(tmp_path, net, protocol):
    path = tmp_path / 'mine.pth'
    torch.save({'model': dinov2_names(net)}, path, pickle_protocol=protocol)
    if protocol == 3:
        load_model(path, num_heads=2)
        return
    with pytest.raises(CheckpointError, match='without pickle_protocol=') as caught:
        load_model(path, num_heads=2)
    one_line(caught)


class Call:
    """An object that calls a function when an ordinary unpickler reads it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class State:
    """An object whose state an ordinary unpickler gives to a harmless class."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return argparse.Namespace, (), {'a': Call(os.mkdir, self.mark)}


MALICIOUS = {
    'a command': lambda mark: Call(os.system, f'touch {mark}'),
    'a process': lambda mark: Call(subprocess.check_call, ['touch', mark]),
    'an expression': lambda mark: Call(eval, f'open({mark!r}, "w")'),
    'an attribute': lambda mark: Call(getattr, [], 'append'),
    'what an attribute is': lambda mark: Call(pathlib.Path.touch, pathlib.Path(mark)),
    'a part': lambda mark: functools.partial(os.mkdir, mark),
    'a file of numpy': lambda mark: Call(np.savetxt, mark, [1]),
    'a pickle in a pickle': lambda mark: Call(pickle.loads, pickle.dumps(Call(os.mkdir, mark))),
    'a state': State,
    'a path': lambda mark: Call(pathlib.Path(mark).mkdir),
    'a thread': lambda mark: Call(threading.Thread, None, os.mkdir, None, (mark,)),
}


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('kind', MALICIOUS)
def test_nothing_is_executed_whatever_it_pretends_to_be(tmp_path, net, kind, zipped):
    mark, path = tmp_path / 'executed', tmp_path / 'mine.pth'
    content = {'model': dinov2_names(net), 'hook': MALICIOUS[kind](str(mark))}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    before = {each.name for each in tmp_path.iterdir()}
    try:
        load_model(path, num_heads=2)
    except CheckpointError as error:
        assert 'could run code' in str(error)
    else:  # a function led to a stand-in
        assert kind in ('a file of numpy', 'an attribute')
    assert {each.name for each in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('numpy._core.multiarray.scalar', True),
        ('numpyro.load', False),
        ('builtins.dict', True),
        ('builtins.eval', False),
        ('torch.optim.adamw.AdamW', True),
        ('torch.hub.load', False),
        ('typing.Any', True),
        ('argparse.FileType', False),
    ],
)
def test_what_is_harmless(name, expected):
    assert is_harmless(name) == expected
