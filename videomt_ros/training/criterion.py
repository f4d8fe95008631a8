"""Losses of a clip: class, binary cross entropy and Dice, on every supervised layer.

Mask2Former's set (arXiv 2112.01527, section 3.3): masks are compared on sampled points, most of
them where the prediction is uncertain; see `training.points`. Every auxiliary output counts as
much as the last one; in the released code the last auxiliary one lost its weights.

The losses are means over all clips of a step of the optimiser. Those of some of the clips, or of
some of their frames, are divided by the totals of the whole, and so add up to those of the whole;
no random number depends on how it is split.

Letters: L supervised layers, B batch, T frames, N objects of the whole batch, Q queries,
K classes, P points, M (object, frame) pairs of these frames with a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.model.network import Outputs
from videomt_ros.training.matcher import assign, count_pairs, first_visible, pair_costs
from videomt_ros.training.points import sample_at, sample_masks, uncertain_points
from videomt_ros.training.run_settings import LossWeights


class Targets(NamedTuple):
    """Truth of a batch of clips; N counts the objects of all clips together.

    Only masks and extents move to a GPU. What says who is where when stays on the host, which
    matches, and would have to wait for the GPU to read it there.
    """

    clip_of: Tensor
    """(N,) int64 on the CPU: index of the clip that holds the object."""
    class_ids: Tensor
    """(N,) int64 on the CPU, 0..K-1."""
    first: Tensor
    """(N,) int64 on the CPU: first frame where it is visible; T for an object that never is."""
    masks: Tensor
    """(N, T, H, W) bool, at the size of the input; empty where the object is hidden."""
    num_clips: int
    """B; there may be clips without an object."""
    extents: Tensor
    """(B, 2) float32 in 0..1: part of the width and height of the batch that the clip fills. The
    rest is padding, on which no mask is compared: it depends on the clips beside it."""

    def to(self, device: torch.device) -> Targets:
        """The same with masks and extents on another device."""
        masks, extents = (x.to(device, non_blocking=True) for x in (self.masks, self.extents))
        return self._replace(masks=masks, extents=extents)


def build_targets(
    clip_of: Tensor,
    class_ids: Tensor,
    masks: Tensor,
    num_clips: int,
    extents: Tensor | None = None,
) -> Targets:
    """Targets from what lies on the CPU; see there for the arguments.

    Without extents there is no padding.
    """
    if extents is None:
        extents = torch.ones(num_clips, 2)
    return Targets(clip_of, class_ids, first_visible(masks), masks, num_clips, extents)


def to_host(tensor: Tensor) -> NDArray[np.float32]:
    """Wait for the device and copy: the only way out of it, and taken once per call."""
    return tensor.cpu().numpy()


class Criterion:
    """Match objects with queries, and compare."""

    def __init__(self, weights: LossWeights) -> None:
        self.weights = weights

    def count_totals(
        self, targets: Targets, num_queries: int, chunk_frames: int | None = None
    ) -> Tensor:
        """What the losses are divided by: those of several batches add up.

        Args:
            targets: truth of whole clips.
            num_queries: Q.
            chunk_frames: of clips in chunks.

        Returns:
            (2,) float64 on the CPU: (object, frame) pairs that are compared, and labels,
            B * T * Q.
        """
        num_frames = targets.masks.shape[1]
        is_early = self.weights.expected_from == 'clip'
        pairs = count_pairs(
            targets.clip_of.numpy(),
            targets.first.numpy(),
            targets.num_clips,
            num_frames,
            num_queries,
            (chunk_frames or num_frames) if is_early else 1,
        )
        labels = targets.num_clips * num_frames * num_queries
        return torch.tensor([pairs, labels], dtype=torch.float64)

    def chunk(
        self,
        outputs: Outputs,
        targets: Targets,
        totals: Tensor,
        start: int = 0,
        query_of: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The share of some consecutive frames of clips in the losses of a step.

        Objects keep the queries they were given in earlier chunks. The losses of all chunks of all
        clips of the step add up to its own.

        Args:
            outputs: of the chunk, in training mode: class_logits (B, T, Q, K + 1),
                mask_logits (B, T, Q, h, w), and the same before each query block.
            targets: truth of the whole clips, with the masks on the same device.
            totals: sum of `count_totals` over all clips of the step.
            start: the chunk's first frame in the clips.
            query_of: what this method returned for the chunk before, None at frame 0.

        Returns:
            Scalars `class`, `mask` and `dice`, weighted, and summed over the supervised layers,
            whose sum is to be minimised; and the query of each object in each layer, (L, N) int64
            on the CPU, -1 without one.
        """
        layers = (*outputs.auxiliary, outputs._replace(auxiliary=()))
        device, num_frames = outputs.class_logits.device, outputs.class_logits.shape[1]
        # In float32: autocast would shorten the products of the costs too.
        with torch.autocast(device.type, enabled=False):
            query_of = self.match(layers, targets, start, query_of)
            totals = totals.to(device, non_blocking=True)
            pairs = self._pairs(targets, query_of, start, num_frames)
            pairs = pairs.to(device, non_blocking=True)
            losses = [
                self._layer(layer, targets, of_layer, start, totals)
                for layer, of_layer in zip(layers, pairs, strict=True)
            ]
            sums = {name: torch.stack([loss[name] for loss in losses]).sum() for name in losses[0]}
        return sums, query_of

    @torch.no_grad()
    def match(
        self,
        layers: tuple[Outputs, ...],
        targets: Targets,
        start: int = 0,
        query_of: Tensor | None = None,
    ) -> Tensor:
        """Find the query of each object in each layer; all costs reach the host in one copy.

        Returns:
            (L, N) int64 on the CPU, -1 without one; see `chunk`.
        """
        weights, num_frames = self.weights, layers[0].mask_logits.shape[1]
        device = layers[0].mask_logits.device
        points = torch.rand(1, weights.num_points, 2, device=device)  # whoever there is to match
        if query_of is None:
            query_of = torch.full((len(layers), len(targets.class_ids)), -1)
        clip_of, first = targets.clip_of.numpy(), targets.first.numpy() - start
        new = (first >= 0) & (first < num_frames)
        if not new.any():
            return query_of
        objects, costs = [], []
        # One frame at a time: those of all objects together would be large.
        for clip, t in np.unique(np.stack([clip_of, first])[:, new], axis=1).T.tolist():
            seen = torch.from_numpy(np.flatnonzero((clip_of == clip) & (first == t)))
            rows = seen.to(device, non_blocking=True)
            inside = points * targets.extents[clip]
            truth = sample_masks(targets.masks, rows, torch.full_like(rows, start + t), inside)
            mask_logits = torch.stack([layer.mask_logits[clip, t] for layer in layers])
            costs.append(
                pair_costs(
                    torch.stack([layer.class_logits[clip, t] for layer in layers]),
                    sample_at(mask_logits.float(), inside),
                    targets.class_ids[seen].to(device, non_blocking=True),
                    truth,
                    (weights.class_match_weight, weights.mask_weight, weights.dice_weight),
                )
            )
            objects.append(seen)
        packed = to_host(torch.cat(costs, dim=1))  # L, objects that are new, Q
        all_costs = np.zeros((len(layers), len(first), packed.shape[2]), np.float32)
        all_costs[:, torch.cat(objects).numpy()] = packed
        queries = [
            assign(of_layer, clip_of, first, num_frames, taken)
            for of_layer, taken in zip(all_costs, query_of.numpy(), strict=True)
        ]
        return torch.from_numpy(np.stack(queries))

    def _pairs(self, targets: Targets, query_of: Tensor, start: int, num_frames: int) -> Tensor:
        """(Object, frame) pairs that are compared in each layer, (L, 5, M) int64 on the CPU.

        The rows: object, clip, frame of the chunk, query, class. M is the same for all layers:
        how many objects find no query does not depend on which do.
        """
        # Where an object is expected it is so hidden or not: presence is the mask's matter.
        seen = start + np.arange(num_frames) >= targets.first.numpy()[:, None]  # N, T
        expected = seen | (self.weights.expected_from == 'clip')
        pairs = []
        for of_layer in query_of.numpy():
            objects, frames = (expected & (of_layer >= 0)[:, None]).nonzero()
            clips, class_ids = targets.clip_of.numpy()[objects], targets.class_ids.numpy()[objects]
            pairs.append(np.stack([objects, clips, frames, of_layer[objects], class_ids]))
        return torch.from_numpy(np.stack(pairs))

    def _layer(
        self, layer: Outputs, targets: Targets, pairs: Tensor, start: int, totals: Tensor
    ) -> dict[str, Tensor]:
        weights = self.weights
        class_logits = layer.class_logits.float()  # B, T, Q, K + 1
        objects, clips, frames, queries, class_ids = pairs  # M each
        no_object = class_logits.shape[3] - 1
        labels = torch.full(class_logits.shape[:3], no_object, device=class_logits.device)
        labels[clips, frames, queries] = class_ids
        label_weights = class_logits.new_ones(no_object + 1)
        label_weights[-1] = weights.no_object_weight
        class_loss = F.cross_entropy(
            class_logits.flatten(0, 2), labels.flatten(), label_weights, reduction='sum'
        )
        # From here on M may be 0: sums are 0 then, and so is the gradient.
        mask_logits = layer.mask_logits[clips, frames, queries].float()  # M, h, w
        with torch.no_grad():
            points = uncertain_points(
                mask_logits,
                weights.num_points,
                weights.oversample_ratio,
                weights.importance_ratio,
                targets.extents[clips],
            )
            truth = sample_masks(targets.masks, objects, start + frames, points)  # M, P
        logits = sample_at(mask_logits[:, None], points)[:, 0]
        mask_loss = F.binary_cross_entropy_with_logits(logits, truth, reduction='none').mean(dim=1)
        inside = logits.sigmoid()
        overlap = (inside * truth).sum(dim=1)
        dice_loss = 1 - (2 * overlap + 1) / (inside.sum(dim=1) + truth.sum(dim=1) + 1)
        num_pairs, num_labels = totals
        num_weighted = num_pairs + weights.no_object_weight * (num_labels - num_pairs)
        num_pairs = num_pairs.clamp(min=1).float()
        return {
            'class': weights.class_weight * class_loss / num_weighted.float(),
            'mask': weights.mask_weight * mask_loss.sum() / num_pairs,
            'dice': weights.dice_weight * dice_loss.sum() / num_pairs,
        }


Forward = Callable[[Tensor, Tensor], tuple[Outputs, Tensor]]
"""The network on a chunk: frames (B, t, 3, H, W) and state (B, Q, C) -> outputs, next state."""


def chunk_losses(
    forward: Forward,
    cut_gradient: Callable[[Tensor], Tensor],
    criterion: Criterion,
    state: Tensor,
    frames: Tensor,
    targets: Targets,
    chunk_frames: int,
    totals: Tensor,
) -> Iterator[dict[str, Tensor]]:
    """Yield the losses of one chunk after the other.

    Call `backward` on the sum of each before asking for the next. What the chunks yield adds up
    to the losses of the whole clips, but for frames before an object's first sight, of which
    `LossWeights.expected_from` tells; an object keeps the query it was matched to, in whichever
    chunk that was.

    Args:
        forward: the network. A chunk of frames may wait on the host until then.
        cut_gradient: of the network; see VidEoMT.cut_gradient.
        criterion: what the outputs are compared by.
        state: queries that enter the first frame, (B, Q, C).
        frames: of whole clips, (B, T, 3, H, W), as `forward` takes them.
        targets: truth of the whole clips.
        chunk_frames: frames per chunk; the last chunk has what is left.
        totals: what the losses are divided by; see Criterion.chunk.
    """
    query_of = None
    for start in range(0, frames.shape[1], chunk_frames):
        outputs, state = forward(frames[:, start : start + chunk_frames], state)
        losses, query_of = criterion.chunk(outputs, targets, totals, start, query_of)
        state = cut_gradient(state)
        del outputs  # or they would lie beside those of the next chunk
        yield losses
