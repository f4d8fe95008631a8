"""Sky, ground and walls behind the shapes of synthetic scenes, with exact truth.

The ground ends at a horizon, straight or hilly, which moves with the camera; up to two walls stand
on it. Each class has its own textures, and in every scene other tones.

Lengths are fractions of the image's short side, as in `synthetic`; y points down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

STUFF_NAMES = ('sky', 'ground', 'wall')

_TONES = {
    # Lowest and highest hue (0..180), saturation and value (0..255) in OpenCV's ranges.
    'sky': ((95, 125), (20, 110), (130, 240)),
    'ground': ((8, 75), (20, 130), (45, 150)),
    'wall': ((0, 180), (10, 110), (60, 200)),
}
_ANY_HUE = 0.35
"""Share of skies and grounds that have any hue instead of a natural one."""
_DRAWS = 12
"""Number of tones to choose from; those farthest from the tones of the shapes are taken."""
_NOISE_CELLS = 192
_NOISE_SPAN = 3.2
"""Side of the part of the world that the noise covers, which is more than the camera sees."""
_TEXTURES = 3
"""Number of kinds of texture per class."""


class _Outline(NamedTuple):
    """Outline of a wall between left and right, from its foot up to a top that may slope."""

    left: float
    right: float
    foot: float
    top: float
    slope: float
    """Rise of the top per unit of length to the right."""

    def place(self, camera: NDArray[np.float64], size: tuple[int, int]) -> tuple[slice, slice]:
        """Return rows and columns of the image (H, W) that hold the wall and its smooth edges."""
        top = min(self.top, self.top - self.slope * (self.right - self.left))
        sides = [(x, y) for x in (self.left, self.right) for y in (top, self.foot)]
        corners = np.array(sides) @ camera[:, :2].T + camera[:, 2]
        low = np.floor(corners.min(axis=0)).astype(int) - 1
        high = np.ceil(corners.max(axis=0)).astype(int) + 2
        columns, rows = (
            slice(*np.clip((a, b), 0, n)) for a, b, n in zip(low, high, size[::-1], strict=True)
        )
        return rows, columns


@dataclass(frozen=True)
class Stuff:
    """Sky, ground and walls behind the shapes of one scene."""

    horizon: tuple[float, float, float, float, float]
    """Height and slope of the horizon, and amplitude, radians per length and phase of its wave."""
    walls: tuple[_Outline, ...]
    """Walls from back to front."""
    tones: NDArray[np.float64]
    """Two RGB tones, 0..255, of each of `STUFF_NAMES`, (3, 2, 3)."""
    kinds: tuple[int, int, int]
    """Kind of texture of each of `STUFF_NAMES`."""
    pitch: float
    """Length of one period of the textures."""
    noise: NDArray[np.float32]
    """Noise (S, S), 0..1, over the world around its middle."""

    def paint(
        self,
        camera: NDArray[np.float64],
        size: tuple[int, int],
        first: int,
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Draw image and truth; every pixel has a class.

        Args:
            camera: world to image, (2, 3).
            size: (H, W) in pixels.
            first: identity of the sky; ground and walls have the next two.

        Returns:
            Image (H, W, 3) RGB, and identities (H, W).
        """
        height, width = size
        to_world = cv2.invertAffineTransform(camera).astype(np.float32)
        columns = np.arange(width, dtype=np.float32)
        rows = np.arange(height, dtype=np.float32)[:, None]
        x = to_world[0, 0] * columns + to_world[0, 1] * rows + to_world[0, 2]
        y = to_world[1, 0] * columns + to_world[1, 1] * rows + to_world[1, 2]
        pixels = float(np.sqrt(abs(np.linalg.det(camera[:, :2]))))  # per length
        depth = y - self._horizon(x)
        canvas = self._mix(0, self._sky(depth, camera, size))
        ids = np.full(size, first, np.uint16)

        def lay(
            number: int,
            place: tuple[slice, slice],
            inside: NDArray[np.float32],
            blend: NDArray[np.float32],
        ) -> None:
            # Truth and image agree: a pixel belongs to the class that covers more than half of it.
            cover = np.clip(0.5 + inside * pixels, 0, 1)
            ids[place][cover > 0.5] = first + number
            behind = canvas[(slice(None), *place)]
            behind += cover * (self._mix(number, blend) - behind)

        whole = (slice(None), slice(None))
        lay(1, whole, depth, self._ground(x, depth, camera, size))
        for wall in self.walls:
            place = wall.place(camera, size)
            if any(part.start == part.stop for part in place):
                continue  # out of view
            x_there, y_there = x[place], y[place]
            bricks = self._wall(x_there - wall.left, wall.foot - y_there, camera, place)
            lay(2, place, _inside(wall, x_there, y_there), bricks)
        return cv2.merge([*canvas.astype(np.uint8)]), ids

    def _horizon(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        height, slope, amplitude, frequency, phase = self.horizon
        line: NDArray[np.float32] = height + slope * x
        if amplitude:
            line += amplitude * np.sin(frequency * x + phase)
        return line

    def _mix(self, number: int, blend: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mix the two tones of a class, (3, H, W)."""
        one, other = self.tones[number].astype(np.float32)[..., None, None]
        mixed: NDArray[np.float32] = one + np.clip(blend, 0, 1) * (other - one)
        return mixed

    def _clouds(
        self, camera: NDArray[np.float64], size: tuple[int, int], scale: tuple[float, float]
    ) -> NDArray[np.float32]:
        """Return the noise that the camera sees, stretched by `scale` in x and y."""
        half = _NOISE_SPAN / 2
        step_x, step_y = (factor * _NOISE_SPAN / _NOISE_CELLS for factor in scale)
        to_world = np.array(
            [[step_x, 0, -half * scale[0]], [0, step_y, -half * scale[1]], [0, 0, 1]]
        )
        seen = cv2.warpAffine(
            self.noise,
            camera @ to_world,
            size[::-1],
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        return seen.astype(np.float32, copy=False)

    def _sky(
        self, depth: NDArray[np.float32], camera: NDArray[np.float64], size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Return the share of the second tone: paler towards the horizon, maybe with clouds."""
        gradient = 1 + depth / 0.9
        if self.kinds[0] == 0:
            return gradient
        clouds = self._clouds(camera, size, (1.6, 0.8))
        if self.kinds[0] == 1:
            clouds = np.clip((clouds - 0.48) * 6, 0, 1)  # with an edge
        return 0.5 * gradient + 0.5 * clouds

    def _ground(
        self,
        x: NDArray[np.float32],
        depth: NDArray[np.float32],
        camera: NDArray[np.float64],
        size: tuple[int, int],
    ) -> NDArray[np.float32]:
        """Return the share of the second tone: grain, furrows or tiles, in perspective."""
        grain = self._clouds(camera, size, (0.7, 0.2))
        if self.kinds[1] == 0:
            return grain
        # A plane in perspective: far from the camera, rows and columns are closer together.
        near = np.maximum(depth, 0) + 0.12
        number: NDArray[np.float32] = np.floor(0.35 / (self.pitch * near))
        if self.kinds[1] == 2:
            number += np.floor(0.35 * x / (self.pitch * near))
        second: NDArray[np.float32] = np.mod(number, 2, dtype=np.float32)
        return 0.65 * grain + 0.35 * second

    def _wall(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.float32],
        camera: NDArray[np.float64],
        place: tuple[slice, slice],
    ) -> NDArray[np.float32]:
        """Return the share of the second tone: bricks, boards or windows, from the foot up."""
        length = self.pitch
        if self.kinds[2] == 0:
            row = np.floor(2 * y / length)
            column = x / length + 0.5 * (row % 2)
            second = (2 * y / length - row < 0.22) | (column - np.floor(column) < 0.12)
        elif self.kinds[2] == 1:
            second = np.floor(2 * x / length) % 2 > 0
        else:
            across, up = x / length, 0.8 * y / length
            across, up = across - np.floor(across), up - np.floor(up)
            second = (np.abs(across - 0.5) < 0.24) & (np.abs(up - 0.5) < 0.3)
        # The part of the image as one of its own.
        shifted = camera - [[0, 0, place[1].start], [0, 0, place[0].start]]
        return 0.25 * self._clouds(shifted, y.shape, (0.6, 0.6)) + 0.75 * second


def _inside(wall: _Outline, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the distance to the nearest side of a wall, (H, W), above 0 inside of it."""
    top = (y - wall.top + wall.slope * (x - wall.left)) / math.hypot(1, wall.slope)
    sides = np.minimum(x - wall.left, wall.right - x)
    distance: NDArray[np.float32] = np.minimum(np.minimum(top, wall.foot - y), sides)
    return distance


def draw_stuff(rng: np.random.Generator, shapes: NDArray[np.float64]) -> Stuff:
    """Draw sky, ground and walls of a scene.

    Args:
        rng: source of all random numbers.
        shapes: tones of the shapes, (N, 3) RGB, which must stand out.
    """
    wave = rng.uniform(0.015, 0.05) if rng.random() < 0.5 else 0.0
    horizon = (
        rng.uniform(-0.22, 0.22),
        rng.uniform(-0.12, 0.12),
        wave,
        rng.uniform(4, 11),
        rng.uniform(0, 2 * np.pi),
    )
    walls = []
    for _ in range(rng.choice(3, p=[0.2, 0.45, 0.35])):
        left, width = rng.uniform(-0.7, 0.35), rng.uniform(0.25, 0.75)
        # The foot stands on the ground, at or below the horizon.
        foot = horizon[0] + horizon[1] * (left + width / 2) + wave + rng.uniform(0.02, 0.12)
        top = foot - rng.uniform(0.22, 0.6)
        walls.append(_Outline(left, left + width, foot, top, rng.uniform(-0.2, 0.2)))
    tones = np.stack([_draw_tones(rng, name, shapes) for name in STUFF_NAMES])
    kinds = rng.integers(_TEXTURES, size=3)
    noise = np.zeros((_NOISE_CELLS, _NOISE_CELLS), np.float32)
    for cells in (6, 20, 64):
        coarse = rng.random((cells, cells), np.float32)
        noise += cv2.resize(coarse, noise.shape, interpolation=cv2.INTER_CUBIC) / 3
    return Stuff(
        horizon,
        tuple(walls),
        tones,
        (int(kinds[0]), int(kinds[1]), int(kinds[2])),
        rng.uniform(0.12, 0.24),
        noise,
    )


def _draw_tones(
    rng: np.random.Generator, name: str, shapes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Draw two RGB tones of a class, (2, 3) 0..255, that differ from those of the shapes."""
    hues, saturations, values = _TONES[name]
    if rng.random() < _ANY_HUE:
        hues = (0, 180)
    drawn = []
    for _ in range(_DRAWS):
        hue = rng.integers(*hues)
        tones = [
            [(hue + rng.integers(0, 15)) % 180, rng.integers(*saturations), rng.integers(*values)]
            for _ in range(2)
        ]
        image = cv2.cvtColor(np.array([tones], np.uint8), cv2.COLOR_HSV2RGB)
        drawn.append(image[0].astype(np.float64))
    if not len(shapes):
        return drawn[0]
    away = [np.abs(tones[:, None] - shapes).sum(axis=2).min() for tones in drawn]
    return drawn[int(np.argmax(away))]
