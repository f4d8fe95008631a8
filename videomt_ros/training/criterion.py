"""Losses of a clip: class, binary cross entropy and Dice, on every supervised layer.

Mask2Former's set (arXiv 2112.01527, section 3.3): masks are compared on sampled points, most of
them where the prediction is uncertain (PointRend, arXiv 1912.08193). Every auxiliary output counts
as much as the last one; in the released code the last auxiliary one lost its weights.

Letters: L supervised layers, B batch, T frames, N objects of the whole batch, Q queries,
K classes, P points, M (object, frame) pairs of these frames with a mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from videomt_ros.model.network import Outputs
from videomt_ros.training.matcher import assign, count_pairs, first_visible, pair_costs
from videomt_ros.training.ranges import check_range


class Targets(NamedTuple):
    """Truth of a batch of clips; N counts the objects of all clips together."""

    clip_of: Tensor
    """(N,) int64: index of the clip that holds the object."""
    class_ids: Tensor
    """(N,) int64, 0..K-1."""
    masks: Tensor
    """(N, T, H, W) bool, at the size of the input; empty where the object is hidden."""

    def to(self, device: torch.device) -> Targets:
        """The same on another device."""
        return Targets(*(tensor.to(device, non_blocking=True) for tensor in self))


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses and of the matching costs, and how points are drawn.

    Masks and Dice weigh as much in the matching as in the loss.
    """

    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    class_match_weight: float = 2.0
    """Of the class in the matching cost. The more it counts, the more several queries on one
    object may each guess a class of their own and leave it to the matching to pick the right one.
    """
    no_object_weight: float = 0.1
    """Weight of the class no object in the cross entropy."""
    num_points: int = 12544
    """Points per mask, 112 squared as in Mask2Former."""
    oversample_ratio: float = 3.0
    """Candidates per point from which the most uncertain are taken."""
    importance_ratio: float = 0.75
    """Share of points that are taken for their uncertainty; the rest are uniform."""

    def __post_init__(self) -> None:
        check_range(
            self, 'class_weight mask_weight dice_weight class_match_weight no_object_weight', 0
        )
        check_range(self, 'num_points oversample_ratio', 1)
        check_range(self, 'importance_ratio', 0, 1)


def sample_at(maps: Tensor, points: Tensor) -> Tensor:
    """Read maps at points: (N, H, W), (N, P, 2) as x, y in 0..1 -> (N, P), bilinear."""
    grid = 2 * points[:, :, None] - 1
    return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0, :, 0]


def uncertain_points(mask_logits: Tensor, weights: LossWeights) -> Tensor:
    """Points for a mask loss, (M, P, 2): most near the predicted border, the rest anywhere."""
    num_pairs, num_points = len(mask_logits), weights.num_points
    num_uncertain = int(weights.importance_ratio * num_points)
    candidates = torch.rand(
        num_pairs, int(num_points * weights.oversample_ratio), 2, device=mask_logits.device
    )
    certainty = sample_at(mask_logits, candidates).abs()
    nearest = certainty.topk(num_uncertain, dim=1, largest=False).indices
    chosen = candidates.gather(1, nearest[..., None].expand(-1, -1, 2))
    rest = torch.rand(num_pairs, num_points - num_uncertain, 2, device=mask_logits.device)
    return torch.cat([chosen, rest], dim=1)


class Criterion:
    """Match and compare: `Criterion(weights)(outputs, targets)` -> losses by name."""

    def __init__(self, weights: LossWeights) -> None:
        self.weights = weights

    def __call__(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """Losses of a batch, weighted, and summed over the supervised layers.

        Args:
            outputs: of clips, in training mode: class_logits (B, T, Q, K + 1),
                mask_logits (B, T, Q, h, w), and the same before each query block.
            targets: truth of the clips, on the same device.

        Returns:
            Scalars `class`, `mask` and `dice`; the loss to minimise is their sum.
        """
        return self.chunk(outputs, targets)[0]

    def chunk(
        self,
        outputs: Outputs,
        targets: Targets,
        start: int = 0,
        query_of: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The share of some consecutive frames in the losses of whole clips.

        Objects keep the queries they were given in earlier chunks, and the losses are divided by
        what the whole clips hold: those of all chunks add up to those of the clips.

        Args:
            outputs: of the chunk, as above with the chunk's frames for T.
            targets: truth of the whole clips.
            start: the chunk's first frame in the clips.
            query_of: what this method returned for the chunk before, None at frame 0.

        Returns:
            The losses, and the query of each object in each layer, (L, N) int64, -1 without one.
        """
        layers = (*outputs.auxiliary, outputs._replace(auxiliary=()))
        first = first_visible(targets.masks) if len(targets.class_ids) else targets.class_ids
        query_of = self.match(layers, targets, first, start, query_of)
        batch_size, _, num_queries = outputs.class_logits.shape[:3]
        num_frames = targets.masks.shape[1]
        num_pairs = count_pairs(targets.clip_of, first, batch_size, num_frames, num_queries)
        losses = [
            self._layer(layer, targets, first, of_layer, start, num_pairs)
            for layer, of_layer in zip(layers, query_of, strict=True)
        ]
        sums = {name: torch.stack([loss[name] for loss in losses]).sum() for name in losses[0]}
        return sums, query_of

    @torch.no_grad()
    def match(
        self,
        layers: tuple[Outputs, ...],
        targets: Targets,
        first: Tensor,
        start: int = 0,
        query_of: Tensor | None = None,
    ) -> Tensor:
        """Query of each object in each layer, (L, N) int64, -1 without one; see `chunk`.

        All costs reach the host in one copy.
        """
        num_objects, num_frames = len(targets.class_ids), layers[0].mask_logits.shape[1]
        device = targets.class_ids.device
        if not num_objects:
            return torch.zeros(len(layers), 0, dtype=torch.int64, device=device)
        weights = self.weights
        # Objects first seen in other chunks get costs too, of a wrong frame, that nobody reads: to
        # leave them out, the host would have to wait for their number.
        frame = (first - start).clamp(0, num_frames - 1)
        rows = torch.arange(num_objects, device=device)
        points = torch.rand(num_objects, weights.num_points, 2, device=device)
        truth = sample_at(targets.masks[rows, start + frame].float(), points)
        costs = []
        for layer in layers:
            mask_logits = layer.mask_logits[targets.clip_of, frame].float()  # N, Q, h, w
            grid = 2 * points[:, :, None] - 1
            point_logits = F.grid_sample(mask_logits, grid, align_corners=False)[..., 0]
            costs.append(
                pair_costs(
                    layer.class_logits[targets.clip_of, frame],
                    point_logits,
                    targets.class_ids,
                    truth,
                    (weights.class_match_weight, weights.mask_weight, weights.dice_weight),
                )
            )
        if query_of is None:
            query_of = first.new_full((len(layers), num_objects), -1)
        header = [targets.clip_of, first - start, *query_of]
        small = torch.stack(header, dim=1).float()  # small integers: exact
        packed = torch.cat([small, *costs], dim=1).cpu().numpy()
        clip_of, first_host, *taken = packed[:, : len(header)].T.astype('int64')
        num_queries = costs[0].shape[1]
        queries = []
        for i, of_layer in enumerate(taken):
            left = len(header) + i * num_queries
            costs_host = packed[:, left : left + num_queries]
            queries.append(assign(costs_host, clip_of, first_host, num_frames, of_layer))
        return torch.stack([torch.from_numpy(item) for item in queries]).to(device)

    def _layer(
        self,
        layer: Outputs,
        targets: Targets,
        first: Tensor,
        query_of: Tensor,
        start: int,
        num_pairs: Tensor,
    ) -> dict[str, Tensor]:
        weights = self.weights
        class_logits = layer.class_logits.float()  # B, T, Q, K + 1
        batch_size, num_frames, num_queries, num_outputs = class_logits.shape
        # An object is expected from its first sight on, hidden or not: presence is the mask's
        # matter. Before, nothing in the past could tell that it will come.
        time = start + torch.arange(num_frames, device=class_logits.device)
        expected = (time >= first[:, None]) & (query_of >= 0)[:, None]  # N, T
        objects, frames = expected.nonzero(as_tuple=True)  # M, M
        clips, queries = targets.clip_of[objects], query_of[objects]
        labels = torch.full(
            (batch_size, num_frames, num_queries), num_outputs - 1, device=class_logits.device
        )
        labels[clips, frames, queries] = targets.class_ids[objects]
        label_weights = class_logits.new_ones(num_outputs)
        label_weights[-1] = weights.no_object_weight
        class_loss = F.cross_entropy(
            class_logits.flatten(0, 2), labels.flatten(), label_weights, reduction='sum'
        )
        num_labels = batch_size * targets.masks.shape[1] * num_queries
        class_loss = class_loss / (num_pairs + weights.no_object_weight * (num_labels - num_pairs))
        mask_logits = layer.mask_logits[clips, frames, queries].float()  # M, h, w
        if not len(objects):  # frames without objects still need a gradient of 0
            nothing = mask_logits.sum() * 0
            return {'class': weights.class_weight * class_loss, 'mask': nothing, 'dice': nothing}
        with torch.no_grad():
            points = uncertain_points(mask_logits, weights)
            truth = sample_at(targets.masks[objects, start + frames].float(), points)  # M, P
        logits = sample_at(mask_logits, points)
        mask_loss = F.binary_cross_entropy_with_logits(logits, truth, reduction='none').mean(dim=1)
        inside = logits.sigmoid()
        overlap = (inside * truth).sum(dim=1)
        dice_loss = 1 - (2 * overlap + 1) / (inside.sum(dim=1) + truth.sum(dim=1) + 1)
        return {
            'class': weights.class_weight * class_loss,
            'mask': weights.mask_weight * mask_loss.sum() / num_pairs,
            'dice': weights.dice_weight * dice_loss.sum() / num_pairs,
        }
