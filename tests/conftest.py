"""What several tests share: the tiny network, a domain of its own, and what machines may lack."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest

from videomt_ros.rig.processes import domain_of, hold_free_domain

# Before anything imports torch: every core has a process of tests, whose networks are tiny.
os.environ.setdefault('OMP_NUM_THREADS', '1')

# Nodes of this process hear neither other machines nor other processes of tests on this one. Set
# here and not in a fixture, so that no test can forget it; child processes inherit it.
DOMAIN_LOCK = hold_free_domain()
os.environ['ROS_DOMAIN_ID'] = str(domain_of(DOMAIN_LOCK))
if os.environ.get('ROS_DISTRO') == 'humble':
    os.environ['ROS_LOCALHOST_ONLY'] = '1'
else:
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'

# A shell that starts the tests in the background has them ignore SIGINT, and their children too.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROS_TESTS = tuple(Path(__file__).parent / folder for folder in ('ros', 'rig'))
"""Everything in these needs ROS, from its imports on."""


MAX_WORKERS = 8
"""More processes than this have too few files to share, and import torch once each."""

SLOW = (
    'engines',
    'rig',
    'ros/test_node_engine.py',
    'ros/test_node_life.py',
    'ros/test_node_consumers.py',
    'ros/test_node_restarts.py',
    'ros/test_node_stress.py',
    'ros/test_node_loading.py',
    'ros/test_node_cameras.py',
    'ros/test_node_models.py',
    'cli',
    'ros',
    'training',
    'test_fine_tuning.py',
    'model',
)
"""Files and folders that start first, so that no process has them left when the others end."""


def missing(marker: str) -> str | None:
    """Say what a test with this marker lacks on this machine.

    Returns:
        The reason to skip it, or None if it can run.
    """
    if marker == 'gpu':
        import torch

        return None if torch.cuda.is_available() else 'no CUDA device'
    if marker == 'ros':
        for module in ('rclpy', 'videomt_ros.msg'):
            if find_spec(module) is None:
                return f'{module} cannot be imported: build the messages and source install/'
        return None
    if os.environ.get('VIDEOMT_WEIGHTS') and Path(os.environ['VIDEOMT_WEIGHTS']).is_dir():
        return None
    return 'VIDEOMT_WEIGHTS names no folder'


def pytest_configure() -> None:
    """Where all was installed on purpose, ROS must not be left out in silence."""
    reason = missing('ros')
    if reason and os.environ.get('VIDEOMT_REQUIRE_ROS'):
        raise pytest.UsageError(f'VIDEOMT_REQUIRE_ROS is set, but {reason}.')


def pytest_report_header() -> str | None:
    """Say it once where a whole folder is left out."""
    reason = missing('ros')
    return f'tests/ros and tests/rig are left out: {reason}' if reason else None


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Do not import tests of ROS where there is none."""
    return True if collection_path in ROS_TESTS and missing('ros') else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Make it one process for each core that this one may use."""
    return min(len(os.sched_getaffinity(0)), MAX_WORKERS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what is slow; skip what this machine cannot run, with the reason."""
    items.sort(key=_place)
    for item in items:
        if not set(ROS_TESTS).isdisjoint(item.path.parents):
            item.add_marker('ros')
    if 'soak' not in config.getoption('markexpr'):
        skip = pytest.mark.skip(reason='takes half an hour: ask for it by -m soak')
        for item in items:
            if item.get_closest_marker('soak'):
                item.add_marker(skip)
    for marker in ('gpu', 'ros', 'weights'):
        marked = [item for item in items if item.get_closest_marker(marker)]
        reason = missing(marker) if marked else None
        for item in marked if reason else ():
            item.add_marker(pytest.mark.skip(reason=reason))


def _place(item: pytest.Item) -> int:
    """Find the place of a test's file in SLOW; the end if it is not there."""
    path = item.path.relative_to(Path(__file__).parent)
    names = (path.as_posix(), *(parent.as_posix() for parent in path.parents))
    return next((place for place, name in enumerate(SLOW) if name in names), len(SLOW))


@pytest.fixture
def ros_domain() -> int:
    """The ROS_DOMAIN_ID of this run, 1..101, which this process and its children have set."""
    return int(os.environ['ROS_DOMAIN_ID'])


@pytest.fixture(scope='session')
def vision_msgs():
    """The module vision_msgs.msg, real or built for the tests."""
    from tests.ros.made_vision_msgs import import_vision_msgs

    return import_vision_msgs()


@pytest.fixture
def tiny_config():
    """Sizes of a network that takes milliseconds, with every part of a real one."""
    from videomt_ros.model import NetworkConfig

    return NetworkConfig(
        num_classes=3,
        embed_dim=32,
        depth=3,
        num_heads=2,
        patch_size=16,
        table_size=64,
        num_queries=6,
        num_query_blocks=2,
        test_size=64,
        size_divisor=16,
        class_names=('circle', 'square', 'sky'),
        thing_classes=(True, True, False),
        name='tiny',
    )


@pytest.fixture
def tiny_net(tiny_config):
    """A network of these sizes with the same random weights each time, in eval mode."""
    import torch

    from videomt_ros.model import VidEoMT

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VidEoMT(tiny_config).eval()


@pytest.fixture(scope='session')
def demo():
    """The demo model, in float32."""
    from videomt_ros.model import load_model

    return load_model('demo')


@pytest.fixture(scope='session')
def cache(tmp_path_factory):
    """The user's cache of this process and its children, in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp('cache')
        patch.setenv('XDG_CACHE_HOME', str(folder))
        yield folder


@pytest.fixture(scope='session')
def compiled(demo, cache):
    """The demo model compiled for one frame of 64 x 96, which takes a minute."""
    from videomt_ros.engines.compiled import CompiledEngine
    from videomt_ros.engines.programs import Size

    engine = CompiledEngine(demo, waits=True)
    engine.prepare(Size(1, 64, 96))
    return engine
