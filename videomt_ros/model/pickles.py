"""Reads pickles of torch, with all that training scripts put into them, and executes nothing.

torch's reader with `weights_only` builds tensors and plain containers, and otherwise only what is
on a list. Here that list grows by the names of harmless things as a file asks for them: numbers of
numpy, optimisers, schedulers, settings. None of them is imported or built: each name leads to a
stand-in that ignores what it is given, so that not even the code of numpy runs. Anything else ends
the reading with its name.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.serialization import safe_globals

_GETATTR = 'builtins.getattr'

HARMLESS = (
    # Numbers, arrays and plain values
    'numpy', 'collections', 'datetime', 'decimal', 'enum', 'fractions', 'pathlib', 'typing',
    'types.SimpleNamespace', 'uuid', 'copyreg._reconstructor',
    *(f'builtins.{name}' for name in (
        'bool', 'bytes', 'complex', 'dict', 'float', 'frozenset', 'int', 'list', 'object', 'range',
        'slice', 'str', 'tuple',
    )),
    # Optimisers, schedulers and scalers; older OneCycleLR keep a function, which getattr finds
    _GETATTR, 'functools.partial',
    'apex', 'timm', 'torch.amp', 'torch.cuda.amp', 'torch.optim', 'torch.torch_version',
    # Settings, and records of training frameworks
    'accelerate', 'addict', 'argparse.Namespace', 'detectron2', 'easydict', 'fvcore', 'hydra',
    'lightning', 'lightning_fabric', 'lightning_utilities', 'ml_collections', 'mmcv', 'mmengine',
    'munch', 'omegaconf', 'pytorch_lightning', 'torchmetrics', 'transformers', 'yacs',
)  # fmt: skip
"""Names and packages of what may lie beside tensors."""

_LOCK = threading.Lock()
"""Held while torch's list, which all threads share, has names of ours."""


class ForeignObjectError(Exception):
    """Raised for an object that is not harmless; the text is the name of its class."""


class _Ignored:
    """Stands for an object whose content nobody needs."""

    def __init__(self, *arguments: Any) -> None:
        """Ignore the arguments."""

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""


class _Mapping:
    """Stands for the class of a dict of some kind, whose instance is a plain one."""

    def __new__(cls, *arguments: Any) -> Any:
        """Make an empty dict; torch's reader fills no other kinds."""
        return OrderedDict()


class _Sequence:
    """Stands for the class of a list of some kind, whose instance is a plain one."""

    def __new__(cls, *arguments: Any) -> Any:
        """Make an empty list; torch's reader fills no other kind."""
        return []


def load_pickle(path: Path, mmap: bool) -> Any:
    """Read what `torch.save` wrote, with tensors on the CPU and stand-ins for harmless objects.

    Args:
        path: path of the file.
        mmap: whether tensors stay in the file until they are used, for files in zip archives.

    Raises:
        ForeignObjectError: it holds an object of another class.
        Exception: any, where the file is damaged.
    """
    known: dict[str, type] = {}
    while True:
        allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]]
        allowed = [(_stand_in(name, kind), name) for name, kind in known.items()]
        try:
            with _LOCK, safe_globals(allowed), warnings.catch_warnings():
                # Either torch reads another protocol than 2 all the same, or an error says so.
                warnings.filterwarnings('ignore', message='Detected pickle protocol')
                return torch.load(path, map_location='cpu', weights_only=True, mmap=mmap)
        except Exception as error:
            if _learn(str(error), known):
                continue
            if 'unrecognized function' in str(error) and _GETATTR in known:
                raise ForeignObjectError(_GETATTR) from None  # what it finds would be called
            raise


def _learn(fault: str, known: dict[str, type]) -> bool:
    """Learn from an error of torch what else the file holds; false if it tells no such thing.

    Args:
        fault: text of the error.
        known: kind of stand-in by name, which grows.

    Raises:
        ForeignObjectError: it is not harmless.
    """
    if found := re.search(r"Can only (\w+) .*got <class '([\w.]+)'>", fault):
        is_list, name = found[1] in ('append', 'extend'), found[2]
        if known.get(name) is not _Ignored:
            return False
        known[name] = _Sequence if is_list else _Mapping
        return True
    if found := re.search(r'GLOBAL ([\w.]+)', fault):
        # torch leaves the module of built-in names out.
        name = found[1] if '.' in found[1] else f'builtins.{found[1]}'
        if name in known or not is_harmless(name):
            raise ForeignObjectError(name) from None
        known[name] = _Ignored
        return True
    return False


def is_harmless(name: str) -> bool:
    """Tell whether a class or function of this name may lie beside tensors."""
    return any(name == known or name.startswith(f'{known}.') for known in HARMLESS)


@cache
def _stand_in(name: str, kind: type) -> type:
    """Make a class that torch's errors call by the name it stands for."""
    module, _, own = name.rpartition('.')
    return type(own, (kind,), {'__module__': module, '__qualname__': own})
