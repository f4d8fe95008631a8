"""Augmentation of clips: crop, resize, flip, and rotations that turn an image into a pseudo-clip.

The recipe is that of the public VidEoMT code, which takes it from IFC: with some probability a
part is cropped whose sides are 384 to 600 pixels in an image with a short side of 400, 500 or 600;
then the short side is resized to one of a list. A pseudo-clip shows one image, rotated a little
further in each frame.

Letters: T frames, H W size of the source, h w size of the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from videomt_ros.training.run_settings import Augmentation

Pixel = TypeVar('Pixel', np.uint8, np.uint16)

_CROP_SHORT_SIDES = (400, 500, 600)
_CROP_SIDES = (384, 600)
_CENTRE = (0.4, 0.6)
"""Range of the centre of the rotations, as a share of height and width."""


@dataclass(frozen=True)
class ClipTransform:
    """One draw of the augmentation, which applies to all frames and masks of a clip."""

    crop: tuple[int, int, int, int]
    """Top, left, bottom and right of the crop in pixels of the source, as in a slice."""
    size: tuple[int, int]
    """Size (h, w) of the result in pixels."""
    flip: bool
    """Whether left and right are exchanged."""
    turns: tuple[NDArray[np.float64], ...] = ()
    """T affine maps (2, 3) of OpenCV in pixels of the result; empty: no rotation."""

    def image(self, image: NDArray[np.uint8], t: int) -> NDArray[np.uint8]:
        """Transform frame t, (H, W, 3) -> (h, w, 3); a rotation fills its corners with black."""
        height, width = self.size
        # With antialiasing, as VideoStream resizes its images.
        part = Image.fromarray(np.ascontiguousarray(self._cut(image)))
        resized = np.asarray(part.resize((width, height), Image.Resampling.BILINEAR))
        return self._turn(resized, t, cv2.INTER_LINEAR)

    def ids(self, ids: NDArray[np.uint16], t: int) -> NDArray[np.uint16]:
        """Transform ids of frame t, (H, W) -> (h, w); adds no id but 0, which fills corners."""
        return self._nearest(ids, t)

    def mask(self, mask: NDArray[np.bool_], t: int) -> NDArray[np.bool_]:
        """Transform a mask of frame t, (H, W) -> (h, w)."""
        return self._nearest(mask.view(np.uint8), t) > 0

    def _nearest(self, array: NDArray[Pixel], t: int) -> NDArray[Pixel]:
        height, width = self.size
        # INTER_NEAREST_EXACT takes the pixel nearest to the centre, where the resized image is
        # sampled too; INTER_NEAREST takes the pixel to its left.
        resizing = cv2.INTER_NEAREST_EXACT
        resized = cv2.resize(self._cut(array), (width, height), interpolation=resizing)
        return self._turn(resized, t, cv2.INTER_NEAREST)

    def _cut(self, array: NDArray[Pixel]) -> NDArray[Pixel]:
        top, left, bottom, right = self.crop
        return array[top:bottom, left:right]

    def _turn(self, array: NDArray[Pixel], t: int, interpolation: int) -> NDArray[Pixel]:
        """Flip and rotate an array that already has the size of the result."""
        if self.flip:
            array = np.ascontiguousarray(array[:, ::-1])
        if self.turns:
            height, width = self.size
            array = cv2.warpAffine(array, self.turns[t], (width, height), flags=interpolation)
        return array


def draw_transform(
    rng: np.random.Generator,
    size: tuple[int, int],
    augmentation: Augmentation,
    turned_frames: int = 0,
) -> ClipTransform:
    """Draw a transform.

    Args:
        rng: source of the random draws.
        size: (H, W) of the source in pixels.
        augmentation: ranges to draw from.
        turned_frames: T of a pseudo-clip; 0 draws no rotations.
    """
    crop = (0, 0, *size)
    if rng.random() < augmentation.crop_probability:
        crop = _draw_crop(rng, size)
    height, width = crop[2] - crop[0], crop[3] - crop[1]
    scale = rng.choice(augmentation.short_sides) / min(height, width)
    scale = min(scale, augmentation.max_long_side / max(height, width))
    result = (max(1, round(height * scale)), max(1, round(width * scale)))
    flip = bool(rng.random() < augmentation.flip_probability)
    turns = _draw_turns(rng, result, augmentation.max_rotation_deg, turned_frames)
    return ClipTransform(crop, result, flip, turns)


def _draw_crop(rng: np.random.Generator, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Draw a crop in pixels of the source, which the recipe draws after a first resize."""
    scale = rng.choice(_CROP_SHORT_SIDES) / min(size)
    starts, ends = [], []
    for length in size:
        scaled = round(length * scale)
        shortest, longest = (min(scaled, side) for side in _CROP_SIDES)
        side = min(length, max(1, round(rng.integers(shortest, longest + 1) / scale)))
        start = int(rng.integers(length - side + 1))
        starts.append(start)
        ends.append(start + side)
    return (starts[0], starts[1], ends[0], ends[1])


def _draw_turns(
    rng: np.random.Generator, size: tuple[int, int], limit: float, count: int
) -> tuple[NDArray[np.float64], ...]:
    """Draw rotations about one centre with rising or falling angles, as a camera rolls."""
    if not count:
        return ()
    angles = np.sort(rng.uniform(-limit, limit, count))
    if rng.random() < 0.5:
        angles = angles[::-1]
    y, x = rng.uniform(*_CENTRE, 2) * size
    return tuple(cv2.getRotationMatrix2D((float(x), float(y)), angle, 1) for angle in angles)
