"""What a C++ compiler needs to build a program for a GPU, where torch does not find it by itself.

torch looks for CUDA above the folder of `nvcc`, which may be a script elsewhere, and in
/usr/local/cuda. Its wheels bring all headers along, but torch does not look there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

_HEADER = 'cuda_runtime_api.h'
_CCCL_HEADER = 'nv/target'
"""Header of the CUDA core libraries, which that of half precision includes."""


def compiler_environment(folder: Path) -> dict[str, str]:
    """Return the environment variables with which torch finds CUDA's headers and driver.

    Args:
        folder: where a link to the driver may be made, which must exist while a compiler runs.
    """
    values = {}
    home = next((path for path in _homes() if (path / 'include' / _HEADER).is_file()), None)
    if home is not None:
        values['CUDA_HOME'] = str(home)
        if not (home / 'include' / _CCCL_HEADER).is_file():
            others = (path / 'include' / 'cccl' for path in (home, *_wheels()))
            found = next((path for path in others if (path / _CCCL_HEADER).is_file()), None)
            if found is not None:
                values['CUDA_INC_PATH'] = str(found)
    driver = _driver()
    if driver is not None:
        # Drivers in containers may lack the name without a version, which a linker looks for.
        (folder / 'libcuda.so').symlink_to(driver)
        paths = (str(folder), os.environ.get('LIBRARY_PATH', ''))
        values['LIBRARY_PATH'] = os.pathsep.join(path for path in paths if path)
    return values


def _homes() -> Iterator[Path]:
    """List the folders in which CUDA may be, the user's choice first."""
    for name in ('CUDA_HOME', 'CUDA_PATH'):
        if value := os.environ.get(name):
            yield Path(value)
    if compiler := shutil.which('nvcc'):
        yield Path(compiler).resolve().parents[1]
    yield Path('/usr/local/cuda')
    spec = find_spec('triton')
    for folder in (spec and spec.submodule_search_locations) or ():
        yield Path(folder) / 'backends' / 'nvidia'


def _wheels() -> Iterator[Path]:
    """List the folders of NVIDIA's wheels."""
    spec = find_spec('nvidia')
    for folder in (spec and spec.submodule_search_locations) or ():
        yield from sorted(Path(folder).iterdir())


def _driver() -> Path | None:
    """Return the driver's library that this process has loaded; None if there is none."""
    try:
        lines = Path('/proc/self/maps').read_text(encoding='utf-8').splitlines()
    except OSError:  # not Linux
        return None
    paths = (Path(line.split(maxsplit=5)[-1]) for line in lines if '/libcuda.so.' in line)
    return next(paths, None)
