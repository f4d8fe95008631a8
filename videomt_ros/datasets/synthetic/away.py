"""Paths on which shapes of synthetic scenes leave the view through a side and return.

Unlike a wall, the edge of the image hides a shape where nothing in the image tells of it.

Lengths are fractions of the image's short side, times are frames, as in `synthetic`.
"""

from __future__ import annotations

import numpy as np

from videomt_ros.datasets.synthetic.wall import Walk

_FASTEST = 0.05
"""Largest distance that a shape moves in one frame, if its time away allows it."""
_LEVELS = np.linspace(0.3, 0.99, 70)
"""Parts of the amplitude at which the edge of the image may lie. The larger the part, the slower
is a shape that is away for a given time, and the more of its time it is in view."""


def check_away_frames(away_frames: tuple[int, int] | None) -> None:
    """Raise ValueError unless these are None or the fewest and most frames out of view."""
    if away_frames is not None and not 2 <= away_frames[0] <= away_frames[1]:
        raise ValueError(
            'Expected away_frames as fewest and most, 2 or more, in this order, '
            f'got {away_frames}.'
        )


def draw_way_out(
    rng: np.random.Generator,
    left: float,
    right: float,
    half_width: float,
    away_frames: tuple[int, int],
    num_frames: int,
) -> Walk:
    """Draw a path that leaves the view for a number of frames at a time.

    In between, the path crosses the view to its other side and shows the whole shape.

    Args:
        rng: source of all random numbers.
        left: reach of the shape from its middle to the left, 0 or less.
        right: reach of the shape from its middle to the right, 0 or more.
        half_width: half the width of the view, whose middle is at 0.
        away_frames: fewest and most frames of an absence.
        num_frames: length of the scene; the first absence is near its start, if it has the time.
    """
    shortest, longest = away_frames
    # A time of L frames contains L - 1 to L + 1 whole frames.
    duration = rng.uniform(shortest, max(shortest, longest - 1))
    # At one end of its way the shape touches a side of the view from within, and 2 * half_width
    # from there it has just left the view through the other side.
    sways = 2 * half_width / (1 + _LEVELS)
    frequencies = (np.pi - 2 * np.arcsin(_LEVELS)) / duration
    slow = np.flatnonzero(sways * frequencies <= _FASTEST)
    first = int(slow[0]) if len(slow) else len(_LEVELS) - 1
    chosen = int(rng.integers(first, len(_LEVELS)))
    sway, frequency = float(sways[chosen]), float(frequencies[chosen])
    period = 2 * np.pi / frequency
    soonest, latest = duration / 2 + 3, min(period, num_frames - duration / 2 - 3)
    middle = rng.uniform(soonest, max(soonest, latest))
    phase = np.pi / 2 - frequency * middle
    if rng.integers(2):
        return Walk(sway - half_width - left, sway, frequency, phase)  # leaves to the right
    return Walk(half_width - right - sway, -sway, frequency, phase)
