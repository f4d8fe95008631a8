"""Tell of a camera whose images arrive and are all dropped by a parameter that judges stamps."""

from __future__ import annotations

from videomt_ros.ros.health import CameraHealth
from videomt_ros.ros.parameters import NodeParameters

_REASONS = (
    (
        'stale',
        'stale_after_s',
        'Their stamps are too old by the clock of the node: do both have the same clock? For a '
        'bag or a simulation set use_sim_time.',
    ),
    ('rate', 'max_rate_hz', 'It goes by their stamps: do these advance?'),
)
"""Why all images may be dropped: the reason, the parameter that does it, and what to do."""


def explain_withheld(
    health: CameraHealth, parameters: NodeParameters, silent_s: float | None
) -> str:
    """Say why images arrive and none is processed, and what to do; empty if that is not so.

    Args:
        health: counts of the camera.
        parameters: parameters of the camera; `warn_silence_s` says after how long it is told.
        silent_s: time in seconds for which no image came; None while none is expected.
    """
    limit_s = parameters.warn_silence_s
    dropped, since_s = health.withheld()
    if not limit_s or silent_s is None or silent_s >= limit_s:
        return ''
    for reason, setting, remedy in _REASONS:
        value = getattr(parameters, setting)
        # Two periods of a rate that is as slow as that.
        patience_s = max(limit_s, 2 / value) if reason == 'rate' and value else limit_s
        if value and dropped.get(reason) and since_s >= patience_s:
            return (
                f'No result for {since_s:.0f} s: {dropped[reason]} images were dropped by '
                f'{setting} = {value:g}. {remedy}'
            )
    return ''
