"""Specks: small parts of a mask that are too far from the rest to belong to the object.

The part of a mask with the most pixels is its main part. Parts of at least `share` times its area
are the object, wherever they are. Of the smaller parts, those near one of these belong to it too,
such as a foot below a bar that cuts the leg; the others are specks.

How near is near depends on the part's own size: a gap as wide as a foot hides a leg, while a
single pixel so far away is noise.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from videomt_ros.inference.postprocess import Numbers, Region

REACH = 1.5
"""Widest gap between a small part and the object, as a multiple of the side of a square with the
part's area. On drawn scenes with truth, two thirds of the parts that are nearer are on the object,
and one in ten of those that are farther; the distance in relation to the main part separates the
two less well."""

MAX_PARTS = 1000
"""Number of parts from which a mask is noise, and is left as it is."""
MAX_FEW = 16
"""Number of labels up to which it is faster to measure each part by itself."""


def drop_specks(
    pixels: Numbers,
    regions: list[Region | None],
    are_things: list[bool],
    share: float,
) -> list[Region | None]:
    """Remove the specks of things from an image of segments.

    Pixels are connected to their eight neighbours. A gap is counted in pixels, along the rows or
    the columns, whichever is more, between the box of the small part and the nearest pixel of a
    large one. Small parts do not reach farther through one another. The main part stays, and so
    does every segment; a mask of more than MAX_PARTS parts stays as it is.

    Args:
        pixels: (H, W); k + 1 for segment k, 0 for none. Specks are set to 0 in place.
        regions: area and box of each segment in `pixels`; None if it has no pixels.
        are_things: whether each segment is a thing; stuff, which may lie anywhere, is left alone.
        share: area below which a part is small, as a share of the main part's area, 0..1.

    Returns:
        Area and box of each segment without its specks.
    """
    return [
        region if region is None or not is_thing else _without_specks(pixels, k, region, share)
        for k, (region, is_thing) in enumerate(zip(regions, are_things, strict=True), start=1)
    ]


def _without_specks(pixels: Numbers, value: int, region: Region, share: float) -> Region:
    """Remove the specks of the segment with this value; see `drop_specks`."""
    area, (left, top, right, bottom) = region
    view = pixels[top:bottom, left:right]
    mask = (view == value).view(np.uint8)
    num_labels, labels = cv2.connectedComponents(mask, connectivity=8)
    if num_labels <= 2:  # the background and one part, as most masks have
        return region
    if num_labels > MAX_PARTS:  # no object, but noise, on which time would be wasted
        return region
    if num_labels <= MAX_FEW:
        return _without_few_specks(view, labels.astype(np.uint8), num_labels, region, share)
    # A box that specks have stretched is mostly empty, so only the mask's pixels are measured:
    # connectedComponentsWithStats takes ten times as long as connectedComponents.
    x, y = cv2.findNonZero(mask).reshape(-1, 2).T
    part = labels[y, x] - 1
    areas = np.bincount(part)
    is_small = areas < share * areas.max()
    if not is_small.any():
        return region
    in_small = np.flatnonzero(is_small[part])
    x, y, part = x[in_small], y[in_small], part[in_small]
    mask[y, x] = 0
    is_speck = np.zeros(len(areas), bool)
    is_speck[is_small] = ~_are_near(
        mask, _boxes(x, y, part, len(areas))[is_small], areas[is_small]
    )
    in_speck = is_speck[part]
    view[y[in_speck], x[in_speck]] = 0
    mask[y[~in_speck], x[~in_speck]] = 1
    x0, y0, width, height = cv2.boundingRect(mask)
    box = left + x0, top + y0, left + x0 + width, top + y0 + height
    return area - int(np.count_nonzero(in_speck)), box


def _without_few_specks(
    view: Numbers, labels: NDArray[np.uint8], num_labels: int, region: Region, share: float
) -> Region:
    """Remove the specks of a segment of few parts, each of which is measured by itself.

    Args:
        view: the box of the segment in the image. Specks are set to 0 in place.
        labels: number of the part of each pixel, from 1; 0 for none.
        num_labels: number of the parts, and one.
        region: area and box of the segment.
        share: see `drop_specks`.
    """
    area, (left, top, _, _) = region
    parts = [(labels == k).view(np.uint8) for k in range(1, num_labels)]
    areas = np.array([cv2.countNonZero(part) for part in parts])
    small = np.flatnonzero(areas < share * areas.max())
    if not len(small):
        return region
    corners = np.array([cv2.boundingRect(parts[k]) for k in small])
    boxes = np.hstack([corners[:, :2], corners[:, :2] + corners[:, 2:]])
    is_kept = np.zeros(256, np.uint8)
    is_kept[1:num_labels] = 1
    is_kept[small + 1] = 0
    near = _are_near(cv2.LUT(labels, is_kept), boxes, areas[small])
    if near.all():
        return region
    for k, (x0, y0, x1, y1) in zip(small[~near], boxes[~near], strict=True):
        view[y0:y1, x0:x1][labels[y0:y1, x0:x1] == k + 1] = 0
    is_kept[small[near] + 1] = 1
    x0, y0, width, height = cv2.boundingRect(cv2.LUT(labels, is_kept))
    box = left + x0, top + y0, left + x0 + width, top + y0 + height
    return area - int(areas[small[~near]].sum()), box


def _boxes(
    x: NDArray[np.int32], y: NDArray[np.int32], part: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Box parts whose pixels are listed, each (M,): x0, y0, x1, y1, ends exclusive, (count, 4)."""
    boxes = np.empty((count, 4), np.int64)
    boxes[:, :2], boxes[:, 2:] = np.iinfo(np.int32).max, 0
    np.minimum.at(boxes[:, 0], part, x)
    np.minimum.at(boxes[:, 1], part, y)
    np.maximum.at(boxes[:, 2], part, x + 1)
    np.maximum.at(boxes[:, 3], part, y + 1)
    return boxes


def _are_near(
    large: NDArray[np.uint8], boxes: NDArray[np.int64], areas: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell which parts are within their reach of the large ones.

    Args:
        large: 1 in the large parts, else 0, (h, w).
        boxes: boxes of the small parts, (N, 4).
        areas: numbers of their pixels, (N,).

    Returns:
        (N,).
    """
    height, width = large.shape
    reach = (REACH * np.sqrt(areas)).astype(np.int64) + 1
    x0, y0 = np.maximum(boxes[:, :2] - reach[:, None], 0).T
    x1, y1 = np.minimum(boxes[:, 2:] + reach[:, None], (width, height)).T
    # Sums over all pixels above and left of each, so that any number of parts takes little time.
    sums = cv2.integral(large)
    near: NDArray[np.bool_] = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0] > 0
    return near
