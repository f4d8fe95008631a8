"""A wall across synthetic scenes, behind which shapes vanish for many frames and return.

A tracker that keeps a shape in memory gives it its identity back; one that forgets, a new one.

Lengths are fractions of the image's short side, times are frames, as in `synthetic`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_SHIFT = 4  # cv2 draws polygons on a grid of 1 / 2**_SHIFT pixel
_WIDTH = 0.42
_HEIGHT = 4.0  # beyond the view, however the camera turns
_PLANK = 0.09
RADII = (0.07, 0.11)
"""Smallest and largest radius of shapes that fit behind the wall."""
_SWAYS = (0.36, 0.44)
"""Amplitudes that show a whole shape and stay in a view whose short side is 1."""


def check_hidden_frames(hidden_frames: tuple[int, int] | None) -> None:
    """Raise ValueError unless these are None or the fewest and most frames behind the wall."""
    if hidden_frames is not None and not 2 <= hidden_frames[0] <= hidden_frames[1]:
        raise ValueError(
            'Expected hidden_frames as fewest and most, 2 or more, in this order, '
            f'got {hidden_frames}.'
        )


class Walk(NamedTuple):
    """Path behind the wall and back: x = centre + sway * sin(frequency * t + phase)."""

    centre: float
    sway: float
    frequency: float
    phase: float


def draw_walk(
    rng: np.random.Generator,
    left: float,
    right: float,
    hidden_frames: tuple[int, int],
    num_frames: int,
) -> Walk:
    """Draw a path that is hidden by the wall for a number of frames at a time.

    Args:
        rng: source of all random numbers.
        left: reach of the shape from its middle to the left, 0 or less.
        right: reach of the shape from its middle to the right, 0 or more.
        hidden_frames: fewest and most frames of a passage.
        num_frames: length of the scene; the first passage is near its start, if it has the time.
    """
    shortest, longest = hidden_frames
    # A time of L frames contains L - 1 to L + 1 whole frames.
    duration = rng.uniform(shortest, max(shortest, longest - 1))
    half = (_WIDTH - (right - left)) / 2  # of the way on which nothing shows
    sway = rng.uniform(*_SWAYS)
    frequency = 2 * np.arcsin(half / sway) / duration
    # The middles of two passages are half a period apart.
    soonest, latest = duration / 2 + 3, min(np.pi / frequency, num_frames - duration / 2 - 3)
    middle = rng.uniform(soonest, max(soonest, latest))
    turned = np.pi * rng.integers(2)
    return Walk(-(left + right) / 2, sway, frequency, turned - frequency * middle)


@dataclass(frozen=True)
class Wall:
    """An upright wall in the middle of the world."""

    colours: NDArray[np.float64]
    """Colours of the planks in turns, (2, 3) RGB, 0..255."""

    def paint(
        self,
        canvas: NDArray[np.uint8],
        ids: NDArray[np.uint16],
        camera: NDArray[np.float64],
        identity: int = 0,
    ) -> None:
        """Draw the wall over image (H, W, 3) and truth (H, W), in place.

        Args:
            canvas: RGB image.
            ids: identity per pixel; those behind the wall become the wall's.
            camera: affine matrix from world to image, (2, 3).
            identity: identity of the wall; 0: background.
        """
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [_WIDTH / 2, _HEIGHT / 2]
        corners = corners @ camera[:, :2].T + camera[:, 2]
        cover = np.zeros(ids.shape, np.uint8)
        polygon = np.round(corners * 2**_SHIFT).astype(np.int32)
        cv2.fillPoly(cover, [polygon], 255, lineType=cv2.LINE_AA, shift=_SHIFT)
        ids[cover > 127] = identity
        _, (across, down) = np.linalg.inv(camera[:, :2]).astype(np.float32)
        x = (np.arange(ids.shape[1]) - camera[0, 2]).astype(np.float32)
        y = (np.arange(ids.shape[0]) - camera[1, 2]).astype(np.float32)[:, None]
        second = np.floor((across * x + down * y) / np.float32(_PLANK)) % 2 > 0
        colour = np.take(self.colours.astype(np.uint8), second.view(np.uint8), axis=0)
        cv2.copyTo(colour, (cover == 255).view(np.uint8), canvas)
        border = (cover > 0) & (cover < 255)
        alpha = cover[border][:, None] / np.float32(255)
        tones = self.colours.astype(np.float32)[second[border].view(np.uint8)]
        canvas[border] = (canvas[border] * (1 - alpha) + tones * alpha).astype(np.uint8)
