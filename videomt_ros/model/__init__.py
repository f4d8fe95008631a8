"""The networks and their checkpoints; torch and timm only.

torch and timm, which take seconds to import, are imported with the first name that needs them:
`model.config` and `model.presets`, which the command line reads, do without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from videomt_ros.model.config import NetworkConfig
from videomt_ros.model.weight_files import CheckpointError

if TYPE_CHECKING:
    from videomt_ros.model.build import build_network
    from videomt_ros.model.checkpoint import load_model, save_model
    from videomt_ros.model.network import Outputs, VideoNetwork
    from videomt_ros.model.pmt import PMT
    from videomt_ros.model.shared import NetworkGroup, load_models
    from videomt_ros.model.videomt import VidEoMT

__all__ = [
    'PMT',
    'CheckpointError',
    'NetworkConfig',
    'NetworkGroup',
    'Outputs',
    'VidEoMT',
    'VideoNetwork',
    'build_network',
    'load_model',
    'load_models',
    'save_model',
]

_HOMES = {
    'load_model': 'checkpoint',
    'load_models': 'shared',
    'NetworkGroup': 'shared',
    'save_model': 'checkpoint',
    'build_network': 'build',
    'Outputs': 'network',
    'VideoNetwork': 'network',
    'VidEoMT': 'videomt',
    'PMT': 'pmt',
}
"""Module of each name that needs torch."""


def __getattr__(name: str) -> Any:
    """Import a name of `_HOMES` when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_HOMES[name]}'), name)
