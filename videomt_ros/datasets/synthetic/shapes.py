"""Moving shapes of synthetic scenes: their outlines, textures and paths.

Lengths are fractions of the image's short side. A shape is drawn from a unit shape within the unit
circle, whose places are (u, v).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SHIFT = 4  # cv2 draws polygons on a grid of 1 / 2**_SHIFT pixel


Outline = list[NDArray[np.float64]]
"""Contours (n, 2) of a unit shape; even-odd filling makes holes."""


def _polygon(angles: Any, radii: Any) -> NDArray[np.float64]:
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def ring(hole: float) -> Outline:
    """Return the outline of a ring whose hole has this radius, 0..1."""
    return [_polygon(_CIRCLE, 1.0), _polygon(_CIRCLE, hole)]


def star(notch: float) -> Outline:
    """Return the outline of a star with five points and this radius between them, 0..1."""
    return [_polygon(-np.pi / 2 + np.arange(10) * np.pi / 5, np.tile([1.15, notch], 5))]


def cross(arm: float) -> Outline:
    """Return the outline of a cross whose bars have this half width, 0..1."""
    corners = [(arm, arm), (1, arm), (1, -arm), (arm, -arm), (arm, -1), (-arm, -1)]
    corners += [(-x, -y) for x, y in corners]
    return [np.array(corners, dtype=np.float64)]


_CIRCLE = np.linspace(0, 2 * np.pi, 40, endpoint=False)
OUTLINES: dict[str, Outline] = {
    'circle': [_polygon(_CIRCLE, 0.9)],
    'square': [_polygon(np.pi / 4 + np.arange(4) * np.pi / 2, 1.1)],
    'triangle': [_polygon(-np.pi / 2 + np.arange(3) * 2 * np.pi / 3, 1.15)],
    'star': star(0.45),
    'ring': ring(0.5),
    'cross': cross(0.32),
}
"""Outline of the ordinary unit shape of each class."""

_Places = NDArray[np.float32]
_TEXTURES: dict[str, Callable[[_Places, _Places, float, float, float], NDArray[np.bool_]]] = {
    'circle': lambda u, v, pitch, a, b: np.sin(2 * np.pi * (np.hypot(u, v) - a) / pitch) > 0,
    'square': lambda u, v, pitch, a, b: (
        (np.floor(2 * (u - a) / pitch) + np.floor(2 * (v - b) / pitch)) % 2 > 0
    ),
    'triangle': lambda u, v, pitch, a, b: np.sin(2 * np.pi * (u - a) / pitch) > 0,
    'star': lambda u, v, pitch, a, b: np.zeros_like(u, bool),
    'ring': lambda u, v, pitch, a, b: np.sin(8 * np.arctan2(v, u) - 2 * np.pi * a) > 0,
    'cross': lambda u, v, pitch, a, b: (
        np.sin(2 * np.pi * (u - a) / pitch) * np.sin(2 * np.pi * (v - b) / pitch) > 0.35
    ),
}
"""Pattern of each class, as the places that have the second tone: rings around the middle, checks,
stripes, none, sectors, spots. It is moved by a along u and by b along v; rings move outwards, and
sectors turn."""


@dataclass(frozen=True)
class Shape:
    """One shape; lengths are in short sides of the image, times in frames, angles in radians."""

    name: str
    """Class of the shape, a key of OUTLINES."""
    radius: float
    centre: NDArray[np.float64]
    """Middle of the path (x, y), relative to the middle of the image."""
    sway: NDArray[np.float64]
    """Amplitudes (2, 2) of two oscillations in x and y."""
    frequency: NDArray[np.float64]
    """Frequencies (2, 2) of the oscillations in radians per frame."""
    phase: NDArray[np.float64]
    """Phases (2, 2) of the oscillations."""
    spin: tuple[float, float]
    """Angle at frame 0 and turn per frame."""
    birth: int
    """First frame in which the shape exists; it grows to its size within `GROWTH` frames."""
    colours: NDArray[np.float64]
    """Two tones of the texture, (2, 3) RGB, 0..255."""
    pitch: float
    """Length of one period of the texture, in radii."""
    outline: Outline
    """Outline of the unit shape."""
    slide: tuple[float, float] = (0.0, 0.0)
    """Movement of the texture over the shape in radii per frame; see `_TEXTURES`."""
    in_view: bool = False
    """Whether the path is relative to the view, however the camera moves, and not to the world."""

    GROWTH = 3

    def position(self, t: float) -> NDArray[np.float64]:
        """Return the position (x, y) at frame t."""
        return self.centre + (self.sway * np.sin(self.frequency * t + self.phase)).sum(axis=0)

    def reach(self) -> tuple[float, float]:
        """Return how far the shape at frame 0 reaches from its middle along x, (left, right)."""
        angle = self.spin[0]
        x = np.concatenate(self.outline) @ [np.cos(angle), -np.sin(angle)]
        return float(self.radius * x.min()), float(self.radius * x.max())

    def paint(
        self,
        canvas: NDArray[np.uint8],
        ids: NDArray[np.uint16],
        camera: NDArray[np.float64],
        identity: int,
        t: int,
    ) -> None:
        """Draw the shape over image (H, W, 3) and truth (H, W), in place.

        Args:
            canvas: RGB image.
            ids: identity per pixel; those behind the shape become the shape's.
            camera: affine matrix from world to image, (2, 3).
            identity: identity of the shape.
            t: frame number, not before the birth.
        """
        growth = min(1.0, (t - self.birth + 1) / self.GROWTH) if self.birth else 1.0
        angle = self.spin[0] + self.spin[1] * t
        axes = (
            self.radius
            * growth
            * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        )
        to_image = camera[:, :2] @ axes  # unit shape -> pixels
        middle = camera[:, :2] @ self.position(t) + camera[:, 2]
        reach = 1.2 * np.abs(to_image).sum(axis=1)
        x0, y0 = np.maximum(np.floor(middle - reach), 0).astype(int)
        x1, y1 = np.minimum(np.ceil(middle + reach) + 1, ids.shape[::-1]).astype(int)
        if x0 >= x1 or y0 >= y1:
            return
        corner = np.array([x0, y0])
        contours = [
            np.round((outline @ to_image.T + middle - corner) * 2**_SHIFT).astype(np.int32)
            for outline in self.outline
        ]
        cover = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(cover, contours, 255, lineType=cv2.LINE_AA, shift=_SHIFT)
        # Truth and image agree: a pixel belongs to the shape that covers more than half of it.
        ids[y0:y1, x0:x1][cover > 127] = identity
        to_unit = np.linalg.inv(to_image).astype(np.float32)
        x = (np.arange(x0, x1) - middle[0]).astype(np.float32)
        y = (np.arange(y0, y1) - middle[1]).astype(np.float32)[:, None]
        u, v = (across * x + down * y for across, down in to_unit)
        moved = self.slide[0] * t, self.slide[1] * t
        second = _TEXTURES[self.name](u, v, self.pitch, *moved)
        colour = np.take(self.colours.astype(np.uint8), second.view(np.uint8), axis=0)
        region = canvas[y0:y1, x0:x1]
        cv2.copyTo(colour, (cover == 255).view(np.uint8), region)
        border = (cover > 0) & (cover < 255)
        alpha = cover[border][:, None] / np.float32(255)
        tones = self.colours.astype(np.float32)[second[border].view(np.uint8)]
        region[border] = (region[border] * (1 - alpha) + tones * alpha).astype(np.uint8)
