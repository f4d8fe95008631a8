"""Samples points at which masks are compared in place of all pixels.

Most points lie where a prediction is uncertain (PointRend, arXiv 1912.08193; Mask2Former, arXiv
2112.01527, section 3.3). All masks share the random draws, so that the draws do not depend on how
the masks of a batch are split over processes.

Letters: N objects, M masks, T frames, Q queries, C candidates, P points.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_at(maps: Tensor, points: Tensor) -> Tensor:
    """Sample maps bilinearly; they are 0 outside.

    Args:
        maps: (M, Q, H, W).
        points: x, y in 0..1, (M, P, 2), or (1, P, 2) for the same points in all maps.

    Returns:
        Values at the points, (M, Q, P).
    """
    grid = 2 * points[:, :, None].expand(len(maps), -1, -1, -1) - 1
    return F.grid_sample(maps, grid, align_corners=False)[..., 0]


def sample_masks(masks: Tensor, objects: Tensor, frames: Tensor, points: Tensor) -> Tensor:
    """Sample some of many masks bilinearly; they are 0 outside.

    Unlike `sample_at` this needs no copy of whole masks in float32.

    Args:
        masks: (N, T, H, W) bool.
        objects: first index of each mask to sample, (M,) int64.
        frames: second index of each mask to sample, (M,) int64.
        points: x, y in 0..1, (M, P, 2), or (1, P, 2) for the same points in all maps.

    Returns:
        Values at the points, (M, P) float32 in 0..1.
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
    """Draw points for the mask losses, most of them near the predicted border.

    All masks share the candidates, of which each takes those where its logits are nearest to 0,
    and the remaining points, which are uniform.

    Args:
        mask_logits: (M, h, w). M may be 0; the number of random draws does not depend on it.
        num_points: number of points, P.
        oversample_ratio: number of candidates per point.
        importance_ratio: share of the points that are chosen for their uncertainty.
        extents: share of each mask's width and height that is not padding, (M, 2) in 0..1.

    Returns:
        Points outside the padding, (M, P, 2) as x, y in 0..1.
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
