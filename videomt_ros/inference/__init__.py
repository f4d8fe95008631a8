"""Inference on video streams: images in, segments with lasting track ids out.

torch, which takes seconds to import, is imported with the first name that needs it: settings and
drawing, which the node has from its start, do without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from videomt_ros.inference.continuity import OutlierError
from videomt_ros.inference.draw import draw
from videomt_ros.inference.stream_settings import StreamSettings

if TYPE_CHECKING:
    from videomt_ros.inference.batch import (
        StartedFrames,
        StreamFrame,
        push_together,
        start_together,
    )
    from videomt_ros.inference.stream import VideoStream

__all__ = [
    'OutlierError',
    'StartedFrames',
    'StreamFrame',
    'StreamSettings',
    'VideoStream',
    'draw',
    'push_together',
    'start_together',
]

_HOMES = {
    'StartedFrames': 'batch',
    'StreamFrame': 'batch',
    'VideoStream': 'stream',
    'push_together': 'batch',
    'start_together': 'batch',
}
"""Module of each name that needs torch."""


def __getattr__(name: str) -> Any:
    """Import a name of `_HOMES` when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_HOMES[name]}'), name)
