"""Samples points at which masks are compared in place of all pixels.

Most points lie where a prediction is uncertain (PointRend, arXiv 1912.08193; Mask2Former, arXiv
2112.01527, section 3.3). All masks of all layers share the random draws, so that the draws do not
depend on how the masks of a batch are split over processes.

Letters: N objects, M masks, T frames, Q queries, C candidates, P points.
"""

from __future__ import annotations

from typing import NamedTuple

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
    starts = ((objects * masks.shape[1] + frames) * height * width)[:, None]
    # The four pixels around each point at once, in few kernels: a GPU has little to do for each.
    columns, column_shares = _neighbours(points[..., 0] * width - 0.5, width)
    rows, row_shares = _neighbours(points[..., 1] * height - 0.5, height)
    places = (starts + rows * width)[:, None] + columns  # 2, 2, M, P
    weights = row_shares[:, None] * column_shares
    return (masks.take(places) * weights).sum(dim=(0, 1))


def _neighbours(positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Find the two pixels beside positions along one axis, and the share of each.

    Returns:
        Pixels 0..size - 1 and shares in 0..1, (2, ...) each; a pixel outside has the share 0.
    """
    first = positions.floor()
    both = torch.stack([first, first + 1])
    shares = (1 - (positions - both).abs()) * ((both >= 0) & (both < size))
    return both.clamp(0, size - 1).long(), shares


class Draws(NamedTuple):
    """Random points that all masks of a step share."""

    candidates: Tensor
    """Points x, y in 0..1, of which each mask takes some, (1, C, 2)."""
    rest: Tensor
    """Points that each mask takes, (1, R, 2)."""
    num_uncertain: int
    """Number of candidates that a mask takes."""


def draw_points(
    num_points: int, oversample_ratio: float, importance_ratio: float, device: torch.device
) -> Draws:
    """Draw the points for the mask losses, from which `uncertain_points` chooses.

    Args:
        num_points: number of points of each mask, P.
        oversample_ratio: number of candidates per point.
        importance_ratio: share of the points that are chosen for their uncertainty.
        device: device of the masks.
    """
    num_uncertain = int(importance_ratio * num_points)
    candidates = torch.rand(1, int(num_points * oversample_ratio), 2, device=device)
    rest = torch.rand(1, num_points - num_uncertain, 2, device=device)
    return Draws(candidates, rest, num_uncertain)


def uncertain_points(mask_logits: Tensor, draws: Draws, extents: Tensor) -> Tensor:
    """Choose points for the mask losses, most of them near the predicted border.

    Each mask takes the candidates where its logits are nearest to 0, and the remaining points.

    Args:
        mask_logits: (M, h, w); M may be 0.
        draws: the points to choose from.
        extents: share of each mask's width and height that is not padding, (M, 2) in 0..1.

    Returns:
        Points outside the padding, (M, P, 2) as x, y in 0..1.
    """
    candidates, rest, num_uncertain = draws
    extents = extents[:, None]
    certainty = sample_at(mask_logits[:, None], candidates * extents)[:, 0].abs()  # M, C
    nearest = certainty.topk(num_uncertain, dim=1, largest=False, sorted=False).indices
    points = torch.cat([candidates[0, nearest], rest.expand(len(mask_logits), -1, -1)], dim=1)
    return points * extents
