"""Turn the logits of one frame into the query or class of each pixel.

Letters: Q queries, N kept queries, K classes, h w mask grid, H W image size in pixels. On a CPU
masks are computed in parts; see `instance_contest`, `panoptic_contest` and `semantic_contest`.
Elsewhere `tensor_contest` computes whole images, and the results are copied to the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from videomt_ros.inference.instance_contest import contest_in_boxes
from videomt_ros.inference.panoptic_contest import PanopticContest, contest_in_tiles
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.inference.resizing import Box
from videomt_ros.inference.semantic_contest import label_in_tiles
from videomt_ros.inference.tensor_contest import (
    instance_winners,
    panoptic_winners,
    semantic_winners,
)

Numbers: TypeAlias = NDArray[np.uint8] | NDArray[np.int16]
"""Numbers of segments: bytes if they are at most 255."""

Region: TypeAlias = tuple[int, tuple[int, int, int, int]]
"""Area of a segment in pixels and its box (x0, y0, x1, y1), x1 and y1 exclusive."""


def read_classes(class_logits: Tensor) -> NDArray[np.float32]:
    """Copy the class logits to the host, (Q, K + 1)."""
    return class_logits.float().cpu().numpy()


def instance_pixels(
    mask_logits: Sequence[Tensor],
    scores: NDArray[np.float64],
    geometry: Geometry,
    mask_threshold: float,
    is_finite: bool | None = None,
) -> Numbers:
    """Assign each pixel to the segment with the largest score x mask probability.

    Segments compete for pixels where their mask probability exceeds the threshold. Both resizes
    work on logits, as in the original code. Of equal products the earlier segment wins.

    Args:
        mask_logits: N of (h, w).
        scores: (N,), 0..1.
        geometry: sizes of the frame.
        mask_threshold: mask probability that a pixel must exceed.
        is_finite: whether all mask logits are; None: not known.

    Returns:
        (H, W); k + 1 for segment k, 0 for none.
    """
    if not len(scores):
        return np.zeros(geometry.image_size, np.uint8)
    if is_finite is None:
        is_finite = all(_is_finite(mask) for mask in mask_logits)
    if is_finite and is_on_host(mask_logits[0]):
        masks = [mask.float() for mask in mask_logits]
        return contest_in_boxes(masks, scores, geometry, mask_threshold)
    stacked = torch.stack([*mask_logits])
    weights = _weights(scores, stacked)
    winner = instance_winners(stacked, weights, geometry, mask_threshold, is_finite)
    return winner.cpu().numpy()


def panoptic_pixels(
    mask_logits: Sequence[Tensor],
    scores: NDArray[np.float64],
    geometry: Geometry,
    mask_threshold: float,
    overlap_threshold: float,
    is_finite: bool | None = None,
) -> Numbers:
    """Assign each pixel to a segment by the paper's rule for video panoptic segmentation.

    The segment with the largest score x mask probability wins the pixel; the sigmoid is taken
    between the two resizes. A segment is kept if it wins at least `overlap_threshold` times the
    area of its own mask, and then gets those of its pixels that are in that mask. The pixels of a
    dropped segment stay empty.

    Args:
        mask_logits: N of (h, w).
        scores: (N,), 0..1.
        geometry: sizes of the frame.
        mask_threshold: lowest mask probability of a pixel.
        overlap_threshold: lowest share of its own mask that a segment must win.
        is_finite: whether all mask logits are; None: not known.

    Returns:
        (H, W); k + 1 for segment k, 0 for none.
    """
    if not len(scores):
        return np.zeros(geometry.image_size, np.uint8)
    pixels, won, areas = panoptic_contest(
        torch.stack([*mask_logits]), scores, geometry, mask_threshold, is_finite
    )
    is_kept = (areas > 0) & (won >= overlap_threshold * areas)
    numbers = np.where(is_kept, np.arange(1, len(scores) + 1), 0)
    return look_up(np.append(0, numbers).astype(pixels.dtype), pixels)


def panoptic_contest(
    mask_logits: Tensor,
    scores: NDArray[np.float64],
    geometry: Geometry,
    mask_threshold: float,
    is_finite: bool | None = None,
) -> PanopticContest:
    """Assign each pixel to the largest score x mask probability, before segments are dropped.

    Args:
        mask_logits: (N, h, w).
        scores: (N,), 0..1.
        geometry: sizes of the frame.
        mask_threshold: lowest mask probability of a pixel.
        is_finite: whether all mask logits are; None: not known.
    """
    if is_finite is None:
        is_finite = _is_finite(mask_logits)
    if is_finite and is_on_host(mask_logits) and len(mask_logits):
        return contest_in_tiles(mask_logits.float(), scores, geometry, mask_threshold)
    weights = _weights(scores, mask_logits)
    found = panoptic_winners(mask_logits, weights, geometry, mask_threshold, is_finite)
    return PanopticContest(*(value.cpu().numpy() for value in found))


def semantic_pixels(
    class_logits: Tensor, mask_logits: Tensor, geometry: Geometry
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Label each pixel by the paper's rule for video semantic segmentation.

    The class with the largest sum over the queries of class probability x mask probability wins;
    the sigmoid is taken between the two resizes.

    Args:
        class_logits: (Q, K + 1).
        mask_logits: (Q, h, w).
        geometry: sizes of the frame.

    Returns:
        Class ids 0..K-1, (H, W), and the winner's share of the sum over all classes, 0..1, (H, W).
    """
    class_probs = class_logits.float().softmax(-1)[:, :-1]  # Q, K
    if is_on_host(mask_logits):
        mask_logits = mask_logits.float()
        if _is_finite(mask_logits) and _is_finite(class_probs):
            return label_in_tiles(class_probs, mask_logits, geometry)
    classes, shares = semantic_winners(class_probs, mask_logits, geometry)
    return classes.cpu().numpy(), shares.cpu().numpy()


def regions(
    pixels: Numbers, count: int, bounds: Sequence[Box | None] | None = None
) -> list[Region | None]:
    """Measure the segments of an image.

    Args:
        pixels: (H, W); k + 1 for segment k, 0 for none.
        count: number of segments.
        bounds: for each segment a box in which its pixels are expected, which saves time; None
            for no pixels.

    Returns:
        Area and box of each segment; None if it has no pixels.
    """
    if not count:
        return []
    if bounds is not None:
        found = [
            None if box is None else _region(pixels, k, box)
            for k, box in enumerate(bounds, start=1)
        ]
        if sum(region[0] for region in found if region) == cv2.countNonZero(pixels):
            return found
    areas = np.bincount(pixels.ravel(), minlength=count + 1)[1:].tolist()
    boxes = ndimage.find_objects(pixels, max_label=count)
    return [
        None if box is None else (area, (box[1].start, box[0].start, box[1].stop, box[0].stop))
        for area, box in zip(areas, boxes, strict=True)
    ]


def _region(pixels: Numbers, number: int, box: Box) -> Region | None:
    """Measure the segment of this number in a box."""
    mask = (pixels[box.slices] == number).view(np.uint8)
    x, y, width, height = cv2.boundingRect(mask)
    if not height:
        return None
    left, top = box.columns.start + x, box.rows.start + y
    return cv2.countNonZero(mask), (left, top, left + width, top + height)


def look_up(
    table: NDArray[Any], pixels: Numbers, regions: Sequence[Region | None] | None = None
) -> NDArray[Any]:
    """Replace each number by its value.

    Args:
        table: value of each number, of type uint8, int16 or uint16.
        pixels: numbers, (H, W).
        regions: the segments, if they are known and the value of 0 is 0, which saves time.

    Returns:
        (H, W), of the table's type.
    """
    if pixels.dtype != np.uint8:
        return table[pixels]
    whole = np.zeros(256, table.dtype)
    whole[: len(table)] = table
    boxes = [region[1] for region in regions or () if region]
    if regions is None or sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes) > pixels.size:
        return cv2.LUT(pixels, whole)
    values = np.zeros(pixels.shape, table.dtype)
    for x0, y0, x1, y1 in boxes:
        cv2.LUT(pixels[y0:y1, x0:x1], whole, values[y0:y1, x0:x1])
    return values


def is_on_host(tensor: Tensor) -> bool:
    """Whether the host can read a tensor at once; else what it needs of it is copied."""
    return tensor.device.type == 'cpu'


def _is_finite(values: Tensor) -> bool:
    """Whether there are neither infinities nor NaNs; waits for the device."""
    if is_on_host(values):
        return bool(np.isfinite(values.float().numpy()).all())
    return bool(torch.isfinite(values).all())


def _weights(scores: NDArray[np.float64], mask_logits: Tensor) -> Tensor:
    """Copy the scores to the device, (N,) float32."""
    return torch.from_numpy(scores.astype(np.float32)).to(mask_logits.device)
