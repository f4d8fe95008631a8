"""One network, and one program of it, for all tests of engines."""

from __future__ import annotations

import pytest

from videomt_ros.engines.compiled import CompiledEngine
from videomt_ros.engines.programs import Size
from videomt_ros.model import load_model

SIZE = Size(1, 64, 96)


@pytest.fixture(scope='session')
def demo():
    return load_model('demo')


@pytest.fixture(scope='session')
def cache(tmp_path_factory):
    """Keep the cache of programs of this process in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp('cache')
        patch.setenv('XDG_CACHE_HOME', str(folder))
        yield folder


@pytest.fixture(scope='session')
def compiled(demo, cache):
    """The demo model compiled for `SIZE`, which takes a minute."""
    engine = CompiledEngine(demo, waits=True)
    engine.prepare(SIZE)
    return engine
