"""The examples in docstrings, run as they stand."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import videomt_ros

PACKAGE = Path(videomt_ros.__file__).parent
MODULES = [
    '.'.join(('videomt_ros', *path.relative_to(PACKAGE).with_suffix('').parts))
    for path in sorted(PACKAGE.rglob('*.py'))
    if '>>>' in path.read_text(encoding='utf-8')
]


@pytest.mark.parametrize('name', MODULES)
def test_examples_run(name):
    result = doctest.testmod(import_module(name))
    assert result.attempted
    assert not result.failed


def test_there_are_examples():
    assert 'videomt_ros.training.optimiser' in MODULES
