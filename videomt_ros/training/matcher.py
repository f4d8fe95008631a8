"""Assigns a query to each object in the first frame where the object is visible.

The costs are those of Mask2Former (arXiv 2112.01527, section 3.2): class, binary cross entropy and
Dice on sampled points. An object keeps its query for the rest of the clip, which teaches queries
to track (VidEoMT, section 3). An object that is absent from frame 0 gets one of the free queries
in the frame where it appears, whereas the released code matches it in frame 0.

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
    """Find the first frame in which each object has a pixel.

    Args:
        masks: (N, T, H, W) bool.

    Returns:
        Frame indices (N,) int64, T for an object that is never visible.
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
    """Count the (object, frame) pairs of whole clips that get a loss, before any matching.

    Each object holds one query from its first frame on until the clip has no free query left.
    Which objects then remain without one depends on the costs, but their number does not, so the
    losses of a part of a clip can be divided by the count of the whole clip.

    Args:
        clip_of: index of the clip that holds each object, (N,).
        first: first frame where each object is visible, (N,); num_frames if it never is.
        batch_size: number of clips, B.
        num_frames: number of frames, T.
        num_queries: number of queries, Q.
        chunk_frames: length of a chunk. An object counts in all frames of the chunk in which it
            first appears; with 1 it counts from its first frame on.
    """
    new = np.zeros((batch_size, num_frames + 1), np.int64)
    np.add.at(new, (clip_of, first), 1)
    held = new[:, :-1].cumsum(axis=1).clip(max=num_queries)  # B, T
    frames = np.arange(num_frames)
    chunk_ends = np.minimum(frames - frames % chunk_frames + chunk_frames, num_frames) - 1
    return int(held[:, chunk_ends].sum())


def pair_costs(
    class_logits: Tensor,
    point_logits: Tensor,
    class_ids: Tensor,
    point_targets: Tensor,
    frame_of: NDArray[np.int64],
    slot_of: NDArray[np.int64],
    weights: tuple[float, float, float],
) -> Tensor:
    """Compute the cost of every query for every object of some frames; call it without autocast.

    Args:
        class_logits: (L, F, Q, K + 1), with F frames.
        point_logits: mask logits at the points, (L, F, Q, P).
        class_ids: class ids of the objects of all frames, (N,) int64.
        point_targets: masks of the objects at the points of their frames, (N, P) in 0..1.
        frame_of: index of the frame that holds each object, (N,).
        slot_of: number of each object among those of its frame, (N,).
        weights: weights of class, binary cross entropy and Dice.

    Returns:
        Costs (L, N, Q) in float32.
    """
    logits, targets = point_logits.float(), point_targets.float()
    num_frames, num_points = logits.shape[1], logits.shape[3]
    num_slots = int(slot_of.max(initial=-1)) + 1
    places = tuple(
        torch.from_numpy(each).to(logits.device, non_blocking=True) for each in (frame_of, slot_of)
    )
    # Frames have several objects: those of each are the columns of a matrix, padded with zeros.
    padded = logits.new_zeros(num_frames, num_slots, num_points)
    padded[places] = targets
    padded_ids = torch.zeros(num_frames, num_slots, dtype=torch.int64, device=logits.device)
    padded_ids[places] = class_ids
    # Minus the probability and not its log, as in DETR: its range is that of the other costs.
    probabilities = class_logits.float().softmax(dim=3)
    wanted = padded_ids[None, :, None].expand(*probabilities.shape[:3], -1)
    class_cost = -probabilities.gather(3, wanted)  # L, F, Q, slots
    # -log(sigmoid(x)) is softplus(x) - x, and -log(1 - sigmoid(x)) is softplus(x).
    mask_cost = F.softplus(logits).mean(dim=3, keepdim=True)
    mask_cost = mask_cost - logits @ padded.transpose(1, 2) / num_points
    inside = logits.sigmoid()
    both = inside.sum(dim=3, keepdim=True) + padded.sum(dim=2)[:, None]
    dice_cost = 1 - (2 * inside @ padded.transpose(1, 2) + 1) / (both + 1)
    costs = weights[0] * class_cost + weights[1] * mask_cost + weights[2] * dice_cost
    return costs.transpose(2, 3)[:, places[0], places[1]]


def assign(
    costs: NDArray[np.float32],
    clip_of: NDArray[np.int64],
    first: NDArray[np.int64],
    num_frames: int,
    taken: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Match objects and queries frame by frame, among the queries still free in their clip.

    Args:
        costs: cost of each query for each object, (N, Q).
        clip_of: index of the clip that holds each object, (N,).
        first: first frame where each object is visible, (N,); objects whose value is outside
            0..num_frames - 1 are not matched.
        num_frames: number of frames, T.
        taken: result for the frames before these, (N,); None if there are none.

    Returns:
        Query indices (N,), -1 for an object that is not yet visible or found no free query.
    """
    query_of = np.full(len(costs), -1, np.int64) if taken is None else taken.copy()
    costs = np.nan_to_num(costs, nan=1e6, posinf=1e6, neginf=-1e6)
    new = np.flatnonzero((first >= 0) & (first < num_frames))
    free_of: dict[int, NDArray[np.bool_]] = {}
    for objects in frame_groups(clip_of, first, new):
        clip = int(clip_of[objects[0]])
        if clip not in free_of:
            free_of[clip] = np.ones(costs.shape[1], bool)
            free_of[clip][query_of[(clip_of == clip) & (query_of >= 0)]] = False
        queries = np.flatnonzero(free_of[clip])
        rows, columns = linear_sum_assignment(costs[objects][:, queries])
        query_of[objects[rows]] = queries[columns]
        free_of[clip][queries[columns]] = False
    return query_of


def frame_groups(
    clip_of: NDArray[np.int64], first: NDArray[np.int64], objects: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Group objects by the frame in which they are first visible, by clip and then by time.

    Args:
        clip_of: index of the clip that holds each object, (N,).
        first: first frame where each object is visible, (N,).
        objects: indices of the objects to group.

    Returns:
        Indices of the objects of each frame that has any, in rising order.
    """
    if not len(objects):
        return []
    order = objects[np.lexsort((first[objects], clip_of[objects]))]
    ends = (np.diff(clip_of[order]) != 0) | (np.diff(first[order]) != 0)
    return np.split(order, np.flatnonzero(ends) + 1)
