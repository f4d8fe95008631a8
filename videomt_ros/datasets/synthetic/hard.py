"""What makes synthetic scenes harder: thin and alike shapes, moving textures, a shaking camera.

Lengths are fractions of the image's short side, times are frames, as in `synthetic`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.synthetic.shapes import Shape, cross, ring, star

NUM_OBJECTS = (5, 9)
"""Fewest and most shapes of a hard scene."""
_KIN = 0.7
"""Share of scenes in which some shapes are of one class."""
_TWINS = 0.4
"""Share of these in which they also look alike."""
_THIN = 0.4
"""Share of shapes that are thin."""
_SLIDING = 0.6
"""Share of shapes whose texture moves."""
_ANYWHERE = 0.5
"""Share of shapes whose paths are not kept apart, so that they cover one another."""
_SHAKING = 0.6
"""Share of scenes with a shaking camera."""


def harden(
    rng: np.random.Generator, items: list[Shape], half_view: NDArray[np.float64]
) -> list[Shape]:
    """Make the shapes of a scene harder to tell apart and to follow.

    Args:
        rng: source of all random numbers.
        items: shapes of an ordinary scene.
        half_view: half the width and height of the view.
    """
    items = [_harden(rng, item, half_view) for item in items]
    if rng.random() < _KIN:
        number = min(len(items), int(rng.integers(2, 5)))
        first, *others = rng.permutation(len(items))[:number].tolist()
        twins = rng.random() < _TWINS
        for other in others:
            items[other] = (
                liken(items[other], items[first])
                if twins
                else replace(items[other], name=items[first].name, outline=items[first].outline)
            )
    return items


def _harden(rng: np.random.Generator, item: Shape, half_view: NDArray[np.float64]) -> Shape:
    outline = item.outline
    if rng.random() < _THIN:
        if item.name == 'ring':
            outline = ring(rng.uniform(0.6, 0.78))
        elif item.name == 'cross':
            outline = cross(rng.uniform(0.16, 0.26))
        elif item.name == 'star':
            outline = star(rng.uniform(0.3, 0.4))
        else:
            squeeze = [1.0, rng.uniform(0.35, 0.6)]
            outline = [contour * squeeze for contour in outline]
    slide = (0.0, 0.0)
    if rng.random() < _SLIDING:
        slide = (rng.uniform(-0.12, 0.12), rng.uniform(-0.12, 0.12))
    centre = item.centre
    if rng.random() < _ANYWHERE:
        centre = rng.uniform(-0.8, 0.8, 2) * half_view
    return replace(
        item, radius=item.radius * rng.uniform(0.65, 1.1), outline=outline, slide=slide,
        centre=centre,
    )  # fmt: skip


def liken(item: Shape, model: Shape) -> Shape:
    """Return the shape with the class and the look of another, on its own path."""
    return replace(
        item, name=model.name, outline=model.outline, radius=model.radius, colours=model.colours,
        pitch=model.pitch, slide=model.slide,
    )  # fmt: skip


class Shake:
    """Sudden movements of a camera that is held in a hand or drives over rough ground."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw how strongly the camera shakes, which may be not at all."""
        strength = rng.uniform(0.3, 1) if rng.random() < _SHAKING else 0.0
        self._sway = strength * rng.uniform(-1, 1, (3, 4)) * [0.012, 0.012, 0.012, 0.008]
        # Periods of 2 to 6 frames.
        self._frequency = rng.uniform(1.0, 3.0, (3, 4))
        self._phase = rng.uniform(0, 2 * np.pi, (3, 4))

    def at(self, t: float) -> NDArray[np.float64]:
        """Return x, y, turn and zoom of the camera in addition to its course, (4,)."""
        moved: NDArray[np.float64] = self._sway * np.sin(self._frequency * t + self._phase)
        return moved.sum(axis=0)
