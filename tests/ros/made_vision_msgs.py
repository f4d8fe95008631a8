"""The messages of vision_msgs, which PyPI lacks: built once from `tests/ros/vision_msgs`.

Where the real package is installed, it is used instead. The built one is on no path by itself, so
that a node is tested with it and without it.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import os
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name('vision_msgs')
BUILT = ROOT / 'build' / 'vision_msgs'
PREFIX = BUILT / 'install' / 'vision_msgs'
LIBRARIES = ('generator_c', 'typesupport_fastrtps_c', 'typesupport_introspection_c')
LIBRARIES += ('typesupport_c', 'generator_py')  # after those that they need


def is_installed() -> bool:
    """Whether this machine has the real package."""
    spec = find_spec('vision_msgs')
    return spec is not None and BUILT not in Path(spec.origin or '').parents


def vision_msgs_environment() -> dict[str, str]:
    """The variables with which another process finds vision_msgs, built now if need be."""
    if is_installed():
        return {}
    _build()
    added = {
        'AMENT_PREFIX_PATH': PREFIX,
        'LD_LIBRARY_PATH': PREFIX / 'lib',
        'PYTHONPATH': _site_packages(),
    }
    return {
        name: os.pathsep.join(filter(None, (str(path), os.environ.get(name))))
        for name, path in added.items()
    }


def import_vision_msgs() -> ModuleType:
    """`vision_msgs.msg` in this process, built now if need be."""
    if not is_installed():
        _build()
        # The loader reads LD_LIBRARY_PATH only at the start of a process, but knows a library by
        # its name once it is loaded.
        for name in LIBRARIES:
            ctypes.CDLL(str(PREFIX / 'lib' / f'libvision_msgs__rosidl_{name}.so'))
        if str(_site_packages()) not in sys.path:
            sys.path.append(str(_site_packages()))
            importlib.invalidate_caches()
    return importlib.import_module('vision_msgs.msg')


def _site_packages() -> Path:
    return next((PREFIX / 'lib').glob('python3.*/site-packages'))


def _build() -> None:
    """Build the package where what it is made from has changed; other processes wait."""
    sources = [*sorted(SOURCE.rglob('*.*')), ROOT / 'requirements' / 'ros.txt']
    key = sysconfig.get_paths()['include'] + ''.join(path.read_text() for path in sources)
    stamp = BUILT / 'built'
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / 'lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.is_file() and stamp.read_text() == key:
            return
        stamp.unlink(missing_ok=True)
        command = [sys.executable, '-m', 'colcon', '--log-base', 'log', 'build']
        command += ['--base-paths', str(SOURCE), '--cmake-clean-cache', '--cmake-args']
        command += ['-DBUILD_TESTING=OFF', f'-DPython3_EXECUTABLE={sys.executable}']
        done = subprocess.run(command, capture_output=True, text=True, cwd=BUILT)
        assert not done.returncode, done.stdout + done.stderr
        stamp.write_text(key)
