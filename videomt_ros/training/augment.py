"""Variations of a clip: crop, short side, flip, and turns that make an image a pseudo-clip.

The published recipe (public VidEoMT code, after IFC's for clips): with some chance a part is cut
out, whose sides are 384 to 600 pixels of an image with a short side of 400, 500 or 600; then the
short side is one of a list. A pseudo-clip is one image, turned a little further in each frame.

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
"""Where the centre of the turns lies, as a share of height and width."""


@dataclass(frozen=True)
class ClipTransform:
    """One variation, for every frame of a clip and its masks alike."""

    crop: tuple[int, int, int, int]
    """Top, left, bottom, right in pixels of the source; the ends lie outside."""
    size: tuple[int, int]
    """(h, w) of the result."""
    flip: bool
    turns: tuple[NDArray[np.float64], ...] = ()
    """T affine maps (2, 3) of the result's pixels, as OpenCV has them; none: no turn."""

    def image(self, image: NDArray[np.uint8], t: int) -> NDArray[np.uint8]:
        """Apply to frame t: (H, W, 3) -> (h, w, 3). What a turn brings in is black."""
        height, width = self.size
        # With antialiasing, as a stream resizes.
        part = Image.fromarray(np.ascontiguousarray(self._cut(image)))
        resized = np.asarray(part.resize((width, height), Image.Resampling.BILINEAR))
        return self._turn(resized, t, cv2.INTER_LINEAR)

    def ids(self, ids: NDArray[np.uint16], t: int) -> NDArray[np.uint16]:
        """Apply to ids of frame t: (H, W) -> (h, w), no new ids. What a turn brings in is 0."""
        return self._nearest(ids, t)

    def mask(self, mask: NDArray[np.bool_], t: int) -> NDArray[np.bool_]:
        """Apply to a mask of frame t: (H, W) -> (h, w)."""
        return self._nearest(mask.view(np.uint8), t) > 0

    def _nearest(self, array: NDArray[Pixel], t: int) -> NDArray[Pixel]:
        height, width = self.size
        # The exact one takes the pixel nearest to the centre, where the image is read too; the
        # other one takes that to its left.
        resizing = cv2.INTER_NEAREST_EXACT
        resized = cv2.resize(self._cut(array), (width, height), interpolation=resizing)
        return self._turn(resized, t, cv2.INTER_NEAREST)

    def _cut(self, array: NDArray[Pixel]) -> NDArray[Pixel]:
        top, left, bottom, right = self.crop
        return array[top:bottom, left:right]

    def _turn(self, array: NDArray[Pixel], t: int, interpolation: int) -> NDArray[Pixel]:
        """Flip and turn what has the size of the result."""
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
    """Draw a variation.

    Args:
        rng: decides.
        size: (H, W) of the source.
        augmentation: its limits.
        turned_frames: T of a pseudo-clip; 0: no turns.
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
    """A part of the source; the first resize of the recipe is left out, its scale is not."""
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
    """Turns about one centre, one way or the other: a camera that rolls, not one that shakes."""
    if not count:
        return ()
    angles = np.sort(rng.uniform(-limit, limit, count))
    if rng.random() < 0.5:
        angles = angles[::-1]
    y, x = rng.uniform(*_CENTRE, 2) * size
    return tuple(cv2.getRotationMatrix2D((float(x), float(y)), angle, 1) for angle in angles)
