"""Assign queries to objects: each object once, in the first frame where it is visible.

The costs are Mask2Former's (arXiv 2112.01527, section 3.2): class, binary cross entropy and Dice
on sampled points. An object keeps its query for the rest of the clip, which is what teaches a
query to follow (VidEoMT, section 3). Unlike the released code, an object that is absent from
frame 0 is not matched there: it takes one of the queries still free in the frame where it appears.

Letters: L supervised layers, B batch, T frames, N objects of the whole batch, Q queries,
K classes, P points.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def first_visible(masks: Tensor) -> Tensor:
    """First frame in which each object has a pixel.

    Args:
        masks: (N, T, H, W) bool.

    Returns:
        (N,) int64; T for an object that is never visible.
    """
    visible = masks.flatten(2).any(dim=2)  # N, T
    num_frames = visible.shape[1]
    frames = torch.arange(num_frames, device=masks.device)
    return torch.where(visible, frames, num_frames).amin(dim=1)


def count_pairs(
    clip_of: Tensor, first: Tensor, batch_size: int, num_frames: int, num_queries: int
) -> Tensor:
    """(Object, frame) pairs that will be compared in whole clips, before anything is matched.

    Which object finds no query free depends on the costs, but how many do not: from its first
    frame on each object holds one query, until the clip has none left. So the losses of a part of
    a clip can be divided by what the whole clip holds.

    Args:
        clip_of: (N,) int64, index of the clip that holds the object.
        first: (N,) int64, first visible frame; num_frames for an object that is never visible.
        batch_size: B.
        num_frames: T.
        num_queries: Q.

    Returns:
        A scalar, int64, on the device of `first`: nothing is copied to the host.
    """
    new = first.new_zeros(batch_size, num_frames + 1)
    new.index_put_((clip_of, first), torch.ones_like(first), accumulate=True)
    return new[:, :-1].cumsum(dim=1).clamp(max=num_queries).sum()


def pair_costs(
    class_logits: Tensor,
    point_logits: Tensor,
    class_ids: Tensor,
    point_targets: Tensor,
    weights: tuple[float, float, float],
) -> Tensor:
    """Cost of every query for every object, in float32.

    Args:
        class_logits: (N, Q, K + 1) at each object's first frame.
        point_logits: (N, Q, P) mask logits at the points of each object.
        class_ids: (N,) int64.
        point_targets: (N, P) truth at the points, 0..1.
        weights: of class, binary cross entropy and Dice.

    Returns:
        (N, Q).
    """
    probabilities = class_logits.float().softmax(dim=2)
    index = class_ids[:, None, None].expand(-1, class_logits.shape[1], 1)
    # The negative log likelihood without its log, as DETR does: it stays in the others' range.
    class_cost = -probabilities.gather(2, index)[..., 0]  # N, Q
    logits, targets = point_logits.float(), point_targets.float()[:, None]  # N, Q, P and N, 1, P
    mask_cost = F.binary_cross_entropy_with_logits(
        logits, targets.expand_as(logits), reduction='none'
    ).mean(dim=2)
    inside = logits.sigmoid()
    overlap = (inside * targets).sum(dim=2)
    dice_cost = 1 - (2 * overlap + 1) / (inside.sum(dim=2) + targets.sum(dim=2) + 1)
    return weights[0] * class_cost + weights[1] * mask_cost + weights[2] * dice_cost


def assign(
    costs: NDArray[np.float32],
    clip_of: NDArray[np.int64],
    first: NDArray[np.int64],
    num_frames: int,
    taken: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Give each object its query, frame by frame, among those not yet taken in its clip.

    Args:
        costs: (N, Q).
        clip_of: (N,) index of the clip that holds the object.
        first: (N,) first visible frame; less than 0 or num_frames and more: in none of these.
        num_frames: T.
        taken: (N,) what this function gave for the frames before; None: there are none.

    Returns:
        (N,) query index; -1 for an object that is not seen yet or found no query free.
    """
    query_of = np.full(len(costs), -1, np.int64) if taken is None else taken.copy()
    costs = np.nan_to_num(costs, nan=1e6, posinf=1e6, neginf=-1e6)
    for clip in np.unique(clip_of):
        free = np.ones(costs.shape[1], bool)
        free[query_of[(clip_of == clip) & (query_of >= 0)]] = False
        for t in range(num_frames):
            objects = np.flatnonzero((clip_of == clip) & (first == t))
            queries = np.flatnonzero(free)
            rows, columns = linear_sum_assignment(costs[np.ix_(objects, queries)])
            query_of[objects[rows]] = queries[columns]
            free[queries[columns]] = False
    return query_of
