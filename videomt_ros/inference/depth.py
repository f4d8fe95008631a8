"""Place and size of each track in metres, from a depth image that is aligned with the image.

A mask and a depth image disagree where it matters most: the mask is a few pixels too wide or too
narrow, depth cameras measure nothing at edges, or a mean of the object and what is behind it
("flying pixels"), and some depths are plainly wrong. So only points count that belong to the
surface which the inner part of the mask shows:

1. The box of the mask is sampled on a grid of about `GRID` points, so that the time is bounded.
2. A point counts only if `MIN_NEIGHBOURS` of the eight around it are at its depth, which wrong
   depths and mixed edges seldom are.
3. The mask is eroded by `MARGIN` of the square root of its area, at least one point; not at the
   border of the image. The shortest interval that holds half of the depths left is the core of the
   surface (the shorth: Rousseeuw and Leroy, "Robust Regression and Outlier Detection", 1987). Up
   to half of the points may be something else.
4. From the core on, the surface goes on to both sides for as long as each step of `BIN` in depth
   holds at least `MIN_BIN_SHARE` of these points: the side of a box or the curve of a ball are
   continuous, a background is not.
5. Position is the median of the points of the surface (its depth without the eroded edge), extent
   the distance between percentiles of its points and of its rim.

The constants were chosen on rendered planes, boxes and balls with 30 % of holes, 5 % of wrong
depths and edges mixed over two pixels (`tests/inference/test_depth.py`). There positions were
within 1.5 % of the distance with masks up to 4 pixels too wide, and the widths and heights of
planes and boxes within 13 %; a ball, whose rim is seen at a flat angle, came out 10 % too small,
and a third along the axis. An extent is too large where a small mask is too wide and what is
behind the object is less than about 15 % of its distance away.

Letters: H W image size in pixels, P points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from videomt_ros.structures import Segment, Segments

GRID = 4096
"""Largest number of points of a track's box at which the depth is read."""
MARGIN = 0.05
"""Width of the edge that is left out of the position, in square roots of the mask's area."""
NEIGHBOUR_TOLERANCE = 0.03
"""Difference in depth up to which points are neighbours, as a share of the depth and per pixel
between them."""
MIN_NEIGHBOURS = 3
"""Fewest of the eight points around a point that must be its neighbours. A mixed depth along an
edge has two."""
MIN_POINTS = 8
"""Fewest points with a depth on the surface; a track with fewer has no position."""
MIN_SHARE = 0.05
"""Smallest share of a track's points that have a depth on the surface; with less, the few that are
left may be noise, and it has no position."""
BIN = 0.02
"""Step of the search along the depth, as a share of the depth. Stereo cameras have noise of 1-2 %
at their usual range. For each further pixel between points it is larger by half: the points of a
floor far away are far apart."""
MIN_BIN_SHARE = 0.01
"""Share of the points in a step above which the surface goes on."""
RIM_SHARE = 0.3
"""Part of its depth by which the surface may go on behind what the eroded mask shows of it."""
LATERAL_PERCENTILES = (0.5, 99.5)
"""Percentiles between which the extent to the right and down is measured."""
DEPTH_PERCENTILES = (1.0, 99.0)
"""Percentiles between which the extent along the optical axis is measured. Closer together than
the others, since depths are noisy and places in the image are not."""

Vector = tuple[float, float, float]
"""(x, y, z) in metres in the optical frame of the camera: x right, y down, z forward."""


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole camera: pixel (u, v) sees x = (u - cx) z / fx, y = (v - cy) z / fy."""

    fx: float
    """Focal length in pixels along the rows."""
    fy: float
    """Focal length in pixels along the columns."""
    cx: float
    """Column of the optical axis; the centre of the first pixel is 0."""
    cy: float
    """Row of the optical axis."""

    def __post_init__(self) -> None:
        values = (self.fx, self.fy, self.cx, self.cy)
        if not (all(map(math.isfinite, values)) and self.fx > 0 and self.fy > 0):
            raise ValueError(f'Expected finite intrinsics and fx, fy above 0, got {values}.')

    def scaled(self, x: float, y: float) -> Intrinsics:
        """Get the intrinsics of the image when it is resized by these factors."""
        return Intrinsics(
            self.fx * x, self.fy * y, (self.cx + 0.5) * x - 0.5, (self.cy + 0.5) * y - 0.5
        )


@dataclass(frozen=True)
class Place:
    """Where the visible surface of a track is, and how large; metres in the optical frame."""

    position: Vector
    """Centre of the visible surface: the median of its points."""
    extent: Vector
    """Size of the visible part along the axes."""
    box_center: Vector
    """Centre of the box whose sides are `extent`."""


def fit_depth(depth: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a depth image to the size of the image that it is aligned with.

    Args:
        depth: depth in metres, (h, w).
        size: (H, W) of the image.

    Returns:
        (H, W), each pixel with the depth of the nearest one; the same array if nothing changes.

    Raises:
        ValueError: the aspect ratios differ by more than 1 %.
    """
    height, width = size
    if depth.shape == size:
        return depth
    ratio = (depth.shape[1] * height) / (depth.shape[0] * width)
    if not 0.99 <= ratio <= 1.01:
        raise ValueError(
            f'Expected a depth image that is aligned with the image of {width} x {height} pixels '
            f'and of its aspect ratio, got {depth.shape[1]} x {depth.shape[0]}.'
        )
    return cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST)


def locate(
    segments: Segments, depth: NDArray[np.float32], intrinsics: Intrinsics
) -> dict[int, Place]:
    """Find the place of each track in view.

    Args:
        segments: the result of a frame.
        depth: depth along the optical axis in metres, (H, W); NaN where there is none.
        intrinsics: those of the image.

    Returns:
        Places by track id. A track has none if fewer than MIN_POINTS of its points, or less than
        MIN_SHARE of them, have a depth on one surface.
    """
    if depth.shape != segments.ids.shape:
        raise ValueError(f'Expected depth of shape {segments.ids.shape}, got {depth.shape}.')
    places = {}
    for segment in segments.segments:
        if segment.area:
            place = _locate_one(segments.ids, depth, segment, intrinsics)
            if place is not None:
                places[segment.track_id] = place
    return places


def to_points(
    depth: NDArray[np.float32], intrinsics: Intrinsics, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Compute the point that each pixel sees.

    Args:
        depth: depth in metres, (H, W); NaN where there is none.
        intrinsics: those of the image.
        out: where the points are written, (H, W, 3); None: a new array.

    Returns:
        (H, W, 3) float32, x, y, z in metres in the optical frame; NaN where there is no depth.
    """
    height, width = depth.shape
    points = np.empty((height, width, 3), np.float32) if out is None else out
    columns = ((np.arange(width) - intrinsics.cx) / intrinsics.fx).astype(np.float32)
    rows = ((np.arange(height) - intrinsics.cy) / intrinsics.fy).astype(np.float32)
    np.multiply(depth, columns, out=points[..., 0])
    np.multiply(depth, rows[:, None], out=points[..., 1])
    points[..., 2] = depth
    return points


def _locate_one(
    ids: NDArray[np.uint16], depth: NDArray[np.float32], segment: Segment, intrinsics: Intrinsics
) -> Place | None:
    height, width = ids.shape
    x0, y0, x1, y1 = segment.box
    stride = max(1, math.ceil(math.sqrt((x1 - x0) * (y1 - y0) / GRID)))
    # One more sample on each side, so that the erosion sees where the mask ends. At the border of
    # the image it does not erode: the object goes on there.
    left, top = max(x0 - stride, 0), max(y0 - stride, 0)
    window = np.s_[
        top : min(y1 + stride, height) : stride, left : min(x1 + stride, width) : stride
    ]
    mask = (ids[window] == segment.track_id).astype(np.uint8)
    z = depth[window]
    inside = np.flatnonzero(mask)
    num_inside = len(inside)
    all_z = z.reshape(-1)[inside]
    is_inner = _erode(mask, round(MARGIN * math.sqrt(num_inside)) + 1).reshape(-1)[inside] > 0
    needed = max(MIN_POINTS, MIN_SHARE * num_inside)
    is_valid = _has_neighbours(z, NEIGHBOUR_TOLERANCE * stride).reshape(-1)[inside]
    if is_valid.sum() < needed:  # one pixel wide, or nearly all holes
        is_valid = np.isfinite(all_z)
    if is_valid.sum() < needed:
        return None
    # A thin object has no inner part: its edges have to do.
    inner = is_valid & is_inner
    if inner.sum() < needed:
        inner = is_valid
    low, high = _surface(np.sort(all_z[inner]), BIN * (1 + stride) / 2)
    on_surface = is_valid & (all_z >= low) & (all_z <= high)
    if on_surface.sum() < needed:
        return None

    rows, columns = np.divmod(inside, mask.shape[1])
    x = (left + columns * stride - intrinsics.cx) / intrinsics.fx * all_z
    y = (top + rows * stride - intrinsics.cy) / intrinsics.fy * all_z
    position = (
        float(np.median(x[on_surface])),
        float(np.median(y[on_surface])),
        float(np.median(all_z[on_surface & inner])),
    )
    # Its rim curves away from the camera, and was mostly eroded above.
    whole = is_valid & (all_z >= low) & (all_z <= high + RIM_SHARE * (high - low))
    (left_m, right_m), (top_m, bottom_m) = (
        _range(values[whole], LATERAL_PERCENTILES) for values in (x, y)
    )
    front_m, back_m = _range(all_z[whole], DEPTH_PERCENTILES)
    # A pixel has a width: that of one sample is added, half on each side.
    sample_m = stride * position[2]
    extent = (
        right_m - left_m + sample_m / intrinsics.fx,
        bottom_m - top_m + sample_m / intrinsics.fy,
        back_m - front_m,
    )
    center = ((left_m + right_m) / 2, (top_m + bottom_m) / 2, (front_m + back_m) / 2)
    return Place(position, extent, center)


def _range(values: NDArray[np.floating], percentiles: tuple[float, float]) -> tuple[float, float]:
    """Find two percentiles of values, (P,); np.percentile would take ten times as long."""
    ordered = np.sort(values)
    first, last = ordered[np.rint(np.array(percentiles) * (len(ordered) - 1) / 100).astype(int)]
    return float(first), float(last)


def _has_neighbours(z: NDArray[np.float32], share: float) -> NDArray[np.bool_]:
    """Find the points with enough neighbours at their own depth, up to a share of it, (H, W)."""
    height, width = z.shape
    padded = np.pad(z, 1, constant_values=np.nan)
    tolerance = share * z
    count = np.zeros(z.shape, np.uint8)
    for row in range(3):
        for column in range(3):
            if (row, column) != (1, 1):
                other = padded[row : row + height, column : column + width]
                count += np.abs(other - z) <= tolerance
    return count >= MIN_NEIGHBOURS


def _erode(mask: NDArray[np.uint8], margin: int) -> NDArray[np.uint8]:
    kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    return cv2.erode(mask, kernel)


def _surface(inner: NDArray[np.float32], bin_share: float) -> tuple[float, float]:
    """Find the interval of depths of the surface that most of a mask shows.

    Args:
        inner: depths inside the mask in metres, sorted, at least one.
        bin_share: step of the search, as a share of the depth.

    Returns:
        Least and largest depth, in metres.
    """
    half = (len(inner) + 1) // 2
    # Widths relative to the depth, since the noise of most cameras grows with it.
    widths = inner[half - 1 :] / inner[: len(inner) - half + 1]
    first = int(np.argmin(widths))
    core_low, core_high = float(inner[first]), float(inner[first + half - 1])
    # Steps of equal ratio, counted from the middle of the core.
    middle = math.sqrt(core_low * core_high)
    step = math.log1p(bin_share)
    indices = np.rint(np.log(inner / middle) / step).astype(np.int64)
    lowest = int(indices.min())
    counts = np.bincount(indices - lowest)
    needed = max(1.0, MIN_BIN_SHARE * len(inner))
    enough = counts >= needed
    low = high = math.floor(0.5 + math.log(core_high / middle) / step)
    low = -low
    while low - 1 >= lowest and enough[low - 1 - lowest]:
        low -= 1
    while high + 1 - lowest < len(counts) and enough[high + 1 - lowest]:
        high += 1
    # Half a step more, for the noise of the outermost pixels.
    return middle * math.exp((low - 1) * step), middle * math.exp((high + 1) * step)
