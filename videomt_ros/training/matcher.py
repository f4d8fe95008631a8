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
    clip_of: NDArray[np.int64],
    first: NDArray[np.int64],
    batch_size: int,
    num_frames: int,
    num_queries: int,
    chunk_frames: int,
) -> int:
    """(Object, frame) pairs that will be compared in whole clips, before anything is matched.

    Which object finds no query free depends on the costs, but how many do not: from its first
    frame on each object holds one query, until the clip has none left. So the losses of a part of
    a clip can be divided by what the whole clip holds.

    Args:
        clip_of: (N,) index of the clip that holds the object.
        first: (N,) first visible frame; num_frames for an object that is never visible.
        batch_size: B.
        num_frames: T.
        num_queries: Q.
        chunk_frames: an object is compared in all frames of the chunk in which it is first seen;
            1: from its first frame on.
    """
    new = np.zeros((batch_size, num_frames + 1), np.int64)
    np.add.at(new, (clip_of, first), 1)
    held = new[:, :-1].cumsum(axis=1).clip(max=num_queries)  # B, T: at the end of each frame
    frames = np.arange(num_frames)
    chunk_ends = np.minimum(frames - frames % chunk_frames + chunk_frames, num_frames) - 1
    return int(held[:, chunk_ends].sum())


def pair_costs(
    class_logits: Tensor,
    point_logits: Tensor,
    class_ids: Tensor,
    point_targets: Tensor,
    weights: tuple[float, float, float],
) -> Tensor:
    """Cost of every query for every object of a frame, in float32 where autocast is off.

    Args:
        class_logits: (L, Q, K + 1).
        point_logits: (L, Q, P) mask logits at points.
        class_ids: (N,) int64, of the objects of this frame.
        point_targets: (N, P) truth at the points, 0..1.
        weights: of class, binary cross entropy and Dice.

    Returns:
        (L, N, Q).
    """
    logits, targets = point_logits.float(), point_targets.float()
    # The negative log likelihood without its log, as DETR does: it stays in the others' range.
    class_cost = -class_logits.float().softmax(dim=2)[..., class_ids]  # L, Q, N
    # -log(sigmoid(x)) is softplus(x) - x, and -log(1 - sigmoid(x)) is softplus(x).
    mask_cost = F.softplus(logits).mean(dim=2, keepdim=True)
    mask_cost = mask_cost - logits @ targets.T / targets.shape[1]  # L, Q, N
    inside = logits.sigmoid()
    both = inside.sum(dim=2, keepdim=True) + targets.sum(dim=1)
    dice_cost = 1 - (2 * inside @ targets.T + 1) / (both + 1)
    costs = weights[0] * class_cost + weights[1] * mask_cost + weights[2] * dice_cost
    return costs.transpose(1, 2)


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
