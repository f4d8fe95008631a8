"""Points on which masks are compared, in place of all pixels.

Most lie where a prediction is uncertain (PointRend, arXiv 1912.08193; Mask2Former, arXiv
2112.01527, section 3.3). The draws are shared by all masks, so that they stay the same however
the masks of a batch are split over processes.

Letters: N objects, M masks, T frames, Q queries, C candidates, P points.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_at(maps: Tensor, points: Tensor) -> Tensor:
    """Read maps between their pixels; they are 0 outside.

    Args:
        maps: (M, Q, H, W).
        points: (M, P, 2), or (1, P, 2) for all alike, as x, y in 0..1.

    Returns:
        (M, Q, P), bilinear.
    """
    grid = 2 * points[:, :, None].expand(len(maps), -1, -1, -1) - 1
    return F.grid_sample(maps, grid, align_corners=False)[..., 0]


def sample_masks(masks: Tensor, objects: Tensor, frames: Tensor, points: Tensor) -> Tensor:
    """Read some of many masks between their pixels; they are 0 outside.

    It touches four pixels a point, and needs no copy of whole masks as numbers.

    Args:
        masks: (N, T, H, W) bool.
        objects: (M,) int64, the first index of each mask to read.
        frames: (M,) int64, the second.
        points: (M, P, 2), or (1, P, 2) for all alike, as x, y in 0..1.

    Returns:
        (M, P) float32 in 0..1, bilinear.
    """
    height, width = masks.shape[2:]
    x, y = points[..., 0] * width - 0.5, points[..., 1] * height - 0.5
    left, top = x.floor(), y.floor()
    starts = ((objects * masks.shape[1] + frames) * height * width)[:, None]
    values = torch.zeros(len(objects), points.shape[1], device=masks.device)
    for row, row_weight in ((top, 1 - (y - top)), (top + 1, y - top)):
        inside = (row >= 0) & (row < height)
        line = starts + row.clamp(0, height - 1).long() * width
        for column, weight in ((left, 1 - (x - left)), (left + 1, x - left)):
            share = row_weight * weight * (inside & (column >= 0) & (column < width))
            values += masks.take(line + column.clamp(0, width - 1).long()) * share
    return values


def uncertain_points(
    mask_logits: Tensor,
    num_points: int,
    oversample_ratio: float,
    importance_ratio: float,
    extents: Tensor,
) -> Tensor:
    """Points for a mask loss: most near the predicted border, the rest anywhere.

    All masks choose from the same candidates, each the ones that it is least certain of, and
    share the rest.

    Args:
        mask_logits: (M, h, w); M may be 0, which draws as many numbers.
        num_points: P.
        oversample_ratio: candidates per point.
        importance_ratio: share of the points that are chosen.
        extents: (M, 2) part of each mask's width and height that is no padding, 0..1.

    Returns:
        (M, P, 2) as x, y in 0..1, none in the padding.
    """
    num_uncertain = int(importance_ratio * num_points)
    device = mask_logits.device
    candidates = torch.rand(1, int(num_points * oversample_ratio), 2, device=device)
    rest = torch.rand(1, num_points - num_uncertain, 2, device=device)
    extents = extents[:, None]
    certainty = sample_at(mask_logits[:, None], candidates * extents)[:, 0].abs()  # M, C
    nearest = certainty.topk(num_uncertain, dim=1, largest=False, sorted=False).indices
    points = torch.cat([candidates[0, nearest], rest.expand(len(mask_logits), -1, -1)], dim=1)
    return points * extents
