"""Make a virtual environment that holds ROS wheels usable as an ament prefix.

Run it with the Python of that environment, after every installation; a second run changes nothing.

1. The CMake files in the wheels name the Python of the machine that built them, as
   `/opt/python/cp311-cp311/...`. They are rewritten to this Python and this numpy.
2. colcon chains `install/setup.sh` to the prefixes below it by sourcing their `local_setup.sh`,
   which the wheels lack. It is written here, so that `. install/setup.sh` is all a shell needs.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

import numpy as np

LOCAL_SETUP = """\
# Written by requirements/prepare_ros.py; sourced by install/setup.sh.
_prefix='{prefix}'
export AMENT_PREFIX_PATH="$_prefix${{AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}}"
export CMAKE_PREFIX_PATH="$_prefix${{CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}}"
export LD_LIBRARY_PATH="{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
export PATH="$_prefix/bin:$PATH"
# A .pth file of the wheels restarts every Python once to set LD_LIBRARY_PATH, unless this is set.
export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
export ROS_DISTRO=jazzy ROS_VERSION=2 ROS_PYTHON_VERSION=3
unset _prefix
"""


def fix_cmake_files(prefix: Path) -> int:
    """Replace the building machine's paths in `share/**/*.cmake`.

    Returns:
        How many files changed.
    """
    rules = (
        (r'/opt/python/cp[^/]+/include/python3\.\d+', sysconfig.get_paths()['include']),
        (r'/opt/python/cp[^;"\s]*?/numpy/(_core|core)/include', np.get_include()),
        (r'/opt/python/cp\d+-cp\d+', str(prefix)),
    )
    changed = 0
    for path in sorted((prefix / 'share').rglob('*.cmake')):
        text = fixed = path.read_text(encoding='utf-8')
        if '/opt/python/cp' not in text:
            continue
        for pattern, replacement in rules:
            fixed = re.sub(pattern, lambda _, value=replacement: value, fixed)
        path.write_text(fixed, encoding='utf-8')
        changed += fixed != text
    return changed


def write_local_setup(prefix: Path) -> None:
    """Write `local_setup.sh`, and the same for bash, which colcon's setup.bash asks for."""
    libraries = [str(prefix / 'lib')]
    libraries += sorted(map(str, Path(sysconfig.get_paths()['purelib']).glob('ros_*.libs')))
    text = LOCAL_SETUP.format(prefix=prefix, libraries=':'.join(libraries))
    for name in ('local_setup.sh', 'local_setup.bash', 'local_setup.zsh'):
        (prefix / name).write_text(text, encoding='utf-8')


if __name__ == '__main__':
    if sys.prefix == sys.base_prefix:
        sys.exit('Run this with the Python of a virtual environment, such as .venv/bin/python.')
    print(f'{fix_cmake_files(Path(sys.prefix))} CMake files of the ROS wheels adapted')
    write_local_setup(Path(sys.prefix))
