"""Losses of clips: class, binary cross entropy and Dice, on every supervised layer.

They are those of Mask2Former (arXiv 2112.01527, section 3.3): masks are compared on sampled
points, most of them where the prediction is uncertain; see `training.points`. Every auxiliary
output has the weight of the last output; the released code drops the last auxiliary one.

Losses are means over all clips of a step of the optimiser. The losses of a part, some of the clips
or a chunk of their frames, are divided by the totals of the whole step, so that the parts add up
to the whole. Random draws do not depend on how a step is split.

`chunk_losses` implements truncated query propagation: a clip passes the network in chunks, and
queries enter a chunk without their gradient, so that the activations of a chunk are freed before
the next chunk begins. LVMT, the successor of VidEoMT, has clips of 15 frames in chunks of 5.

Letters: L supervised layers, B batch, T frames, N objects of the whole batch, Q queries,
K classes, C channels, P points, M (object, frame) pairs of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.model.network import Outputs
from videomt_ros.training.matcher import (
    assign,
    count_pairs,
    first_visible,
    frame_groups,
    pair_costs,
)
from videomt_ros.training.points import (
    Draws,
    draw_points,
    sample_at,
    sample_masks,
    uncertain_points,
)
from videomt_ros.training.run_settings import LossWeights

_MATCHED_FLOATS = 2**25
"""Largest number of sampled mask logits that the matching holds at a time."""
_SAMPLED_POINTS = 2**22
"""Largest number of points on masks that the losses sample at a time, if one layer has fewer."""

Chunk = TypeVar('Chunk')
"""What the network takes of a chunk of clips: its frames, or what the encoder made of them."""


class Targets(NamedTuple):
    """Ground truth of a batch of clips; N counts the objects of all clips together.

    Only masks and extents move to a GPU. The other fields stay on the CPU, where the matching
    reads them without waiting for the GPU.
    """

    clip_of: Tensor
    """Index of the clip that holds each object, (N,) int64 on the CPU."""
    class_ids: Tensor
    """Class ids of the objects, (N,) int64 on the CPU, 0..K-1."""
    first: Tensor
    """First frame where each object is visible, or T if it never is, (N,) int64 on the CPU."""
    masks: Tensor
    """Masks (N, T, H, W) bool at the size of the input, empty where an object is hidden."""
    num_clips: int
    """Number of clips, B; some of them may have no object."""
    extents: Tensor
    """Share of the width and height of the batch that each clip fills, (B, 2) float32 in 0..1.
    Masks are not compared on the rest, which is padding and depends on the other clips."""

    def to(self, device: torch.device) -> Targets:
        """Copy masks and extents to another device."""
        masks, extents = (x.to(device, non_blocking=True) for x in (self.masks, self.extents))
        return self._replace(masks=masks, extents=extents)


def build_targets(
    clip_of: Tensor,
    class_ids: Tensor,
    masks: Tensor,
    num_clips: int,
    extents: Tensor | None = None,
) -> Targets:
    """Build Targets, whose fields the arguments are; without extents there is no padding."""
    if extents is None:
        extents = torch.ones(num_clips, 2)
    return Targets(clip_of, class_ids, first_visible(masks), masks, num_clips, extents)


def to_host(tensor: Tensor) -> NDArray[np.float32]:
    """Copy a tensor to the host, for which the host waits; called once per chunk."""
    return tensor.cpu().numpy()


class Criterion:
    """Matches objects with queries and computes their losses."""

    def __init__(self, weights: LossWeights) -> None:
        self.weights = weights

    def count_totals(
        self, targets: Targets, num_queries: int, chunk_frames: int | None = None
    ) -> Tensor:
        """Count what the losses are divided by; the counts of several batches add up.

        Args:
            targets: targets of whole clips.
            num_queries: number of queries, Q.
            chunk_frames: length of a chunk; None: the clips are not split.

        Returns:
            Number of (object, frame) pairs with a loss and number of labels, B * T * Q, as (2,)
            float64 on the CPU.
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
        """Compute the losses of a chunk, some consecutive frames of clips.

        Objects keep the queries of earlier chunks. The losses of all chunks of all clips of a step
        add up to the losses of the step.

        Args:
            outputs: outputs for the chunk in training mode: class_logits (B, T, Q, K + 1),
                mask_logits (B, T, Q, h, w), and the same before each query block.
            targets: targets of the whole clips, with the masks on the same device.
            totals: sum of `count_totals` over all clips of the step.
            start: index of the first frame of the chunk in the clips.
            query_of: second result for the chunk before, None at frame 0.

        Returns:
            Weighted losses `class`, `mask` and `dice`, each a scalar summed over the supervised
            layers; and the query of each object in each layer, (L, N) int64 on the CPU, -1 for
            objects without one.
        """
        layers = (*outputs.auxiliary, outputs._replace(auxiliary=()))
        device, num_frames = outputs.class_logits.device, outputs.class_logits.shape[1]
        # Autocast would compute matrix products of the costs in half precision.
        with torch.autocast(device.type, enabled=False):
            query_of = self.match(layers, targets, start, query_of)
            totals = totals.to(device, non_blocking=True)
            pairs = self._pairs(targets, query_of, start, num_frames)
            pairs = pairs.to(device, non_blocking=True)
            return self._losses(layers, targets, pairs, start, totals), query_of

    @torch.no_grad()
    def match(
        self,
        layers: tuple[Outputs, ...],
        targets: Targets,
        start: int = 0,
        query_of: Tensor | None = None,
    ) -> Tensor:
        """Find the query of each object in each layer; all costs reach the host in one copy.

        For arguments and result see `chunk`.
        """
        weights, num_frames = self.weights, layers[0].mask_logits.shape[1]
        device = layers[0].mask_logits.device
        points = torch.rand(
            1, weights.num_points, 2, device=device
        )  # also if no object is new, for equal draws
        if query_of is None:
            query_of = torch.full((len(layers), len(targets.class_ids)), -1)
        clip_of, first = targets.clip_of.numpy(), targets.first.numpy() - start
        new = (first >= 0) & (first < num_frames)
        if not new.any():
            return query_of
        groups = frame_groups(clip_of, first, np.flatnonzero(new))
        # The sampled masks of all frames together would be large.
        floats = len(layers) * layers[0].mask_logits.shape[2] * weights.num_points
        size = max(1, _MATCHED_FLOATS // floats)
        costs = [
            self._costs(layers, targets, points, groups[i : i + size], start)
            for i in range(0, len(groups), size)
        ]
        packed = to_host(torch.cat(costs, dim=1))  # L, new objects, Q
        all_costs = np.zeros((len(layers), len(first), packed.shape[2]), np.float32)
        all_costs[:, np.concatenate(groups)] = packed
        queries = [
            assign(of_layer, clip_of, first, num_frames, taken)
            for of_layer, taken in zip(all_costs, query_of.numpy(), strict=True)
        ]
        return torch.from_numpy(np.stack(queries))

    def _costs(
        self,
        layers: tuple[Outputs, ...],
        targets: Targets,
        points: Tensor,
        groups: list[NDArray[np.int64]],
        start: int,
    ) -> Tensor:
        """Compute the costs of the objects that first appear in some frames; see `pair_costs`.

        Args:
            layers: see `match`.
            targets: see `chunk`.
            points: points that all frames share, (1, P, 2).
            groups: indices of the objects that first appear in each of F frames.
            start: see `chunk`.
        """
        weights, device = self.weights, layers[0].mask_logits.device

        def put(values: NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(values).to(device, non_blocking=True)

        sizes = [len(group) for group in groups]
        frame_of = np.repeat(np.arange(len(groups)), sizes)
        slot_of = np.concatenate([np.arange(size) for size in sizes])
        seen, leaders = np.concatenate(groups), np.array([group[0] for group in groups])
        clips = put(targets.clip_of.numpy()[leaders])
        times = put(targets.first.numpy()[leaders] - start)
        rows, frames = put(seen), put(frame_of)
        inside = points * targets.extents[clips][:, None]  # F, P, 2
        truth = sample_masks(targets.masks, rows, times[frames] + start, inside[frames])
        mask_logits = torch.stack([layer.mask_logits[clips, times] for layer in layers])
        at_points = sample_at(mask_logits.flatten(0, 1).float(), inside.repeat(len(layers), 1, 1))
        return pair_costs(
            torch.stack([layer.class_logits[clips, times] for layer in layers]),
            at_points.unflatten(0, mask_logits.shape[:2]),
            put(targets.class_ids.numpy()[seen]),
            truth,
            frame_of,
            slot_of,
            (weights.class_match_weight, weights.mask_weight, weights.dice_weight),
        )

    def _pairs(self, targets: Targets, query_of: Tensor, start: int, num_frames: int) -> Tensor:
        """List the (object, frame) pairs of each layer that get a loss.

        M is the same for all layers: only which objects find no free query differs.

        Returns:
            Objects, clips, frames of the chunk, queries and classes, (L, 5, M) int64 on the CPU.
        """
        # Hidden objects have pairs too: their query is to predict the class and an empty mask.
        seen = start + np.arange(num_frames) >= targets.first.numpy()[:, None]  # N, T
        expected = seen | (self.weights.expected_from == 'clip')
        pairs = []
        for of_layer in query_of.numpy():
            objects, frames = (expected & (of_layer >= 0)[:, None]).nonzero()
            clips, class_ids = targets.clip_of.numpy()[objects], targets.class_ids.numpy()[objects]
            pairs.append(np.stack([objects, clips, frames, of_layer[objects], class_ids]))
        return torch.from_numpy(np.stack(pairs))

    def _losses(
        self,
        layers: tuple[Outputs, ...],
        targets: Targets,
        pairs: Tensor,
        start: int,
        totals: Tensor,
    ) -> dict[str, Tensor]:
        """Compute the losses of all layers together; `pairs` is (L, 5, M)."""
        weights = self.weights
        class_logits = torch.stack([layer.class_logits for layer in layers])  # L, B, T, Q, K + 1
        objects, clips, frames, queries, class_ids = pairs.unbind(1)  # L, M each
        no_object = class_logits.shape[-1] - 1
        labels = torch.full(class_logits.shape[:-1], no_object, device=class_logits.device)
        numbers = torch.arange(len(layers), device=pairs.device)[:, None]
        labels[numbers, clips, frames, queries] = class_ids
        label_weights = class_logits.new_ones(no_object + 1, dtype=torch.float32)
        # An assignment of a number to an element would make the host wait for the GPU.
        label_weights[-1:].fill_(weights.no_object_weight)
        class_loss = F.cross_entropy(
            class_logits.flatten(0, -2).float(), labels.flatten(), label_weights, reduction='sum'
        )
        draws = draw_points(
            weights.num_points, weights.oversample_ratio, weights.importance_ratio, pairs.device
        )
        # The points of all layers together would be too many for large networks.
        size = max(1, _SAMPLED_POINTS // max(1, pairs.shape[2] * weights.num_points))
        mask_losses, dice_losses = [], []
        for first in range(0, len(layers), size):
            group = slice(first, first + size)
            mask_loss, dice_loss = self._mask_losses(
                layers[group], targets, pairs[group], start, draws
            )
            mask_losses.append(mask_loss)
            dice_losses.append(dice_loss)
        num_pairs, num_labels = totals
        num_weighted = num_pairs + weights.no_object_weight * (num_labels - num_pairs)
        num_pairs = num_pairs.clamp(min=1).float()
        return {
            'class': weights.class_weight * class_loss / num_weighted.float(),
            'mask': weights.mask_weight * torch.stack(mask_losses).sum() / num_pairs,
            'dice': weights.dice_weight * torch.stack(dice_losses).sum() / num_pairs,
        }

    def _mask_losses(
        self,
        layers: tuple[Outputs, ...],
        targets: Targets,
        pairs: Tensor,
        start: int,
        draws: Draws,
    ) -> tuple[Tensor, Tensor]:
        """Sum binary cross entropy and Dice over the pairs of some layers, (L, 5, M)."""
        # If M is 0, sums and gradients from here on are 0.
        mask_logits = torch.cat(
            [
                layer.mask_logits[clips, frames, queries]
                for layer, (_, clips, frames, queries, _) in zip(layers, pairs, strict=True)
            ]
        ).float()  # L * M, h, w
        objects, clips, frames, _, _ = pairs.unbind(1)
        with torch.no_grad():
            points = uncertain_points(mask_logits, draws, targets.extents[clips.flatten()])
            truth = sample_masks(  # L * M, P
                targets.masks, objects.flatten(), start + frames.flatten(), points
            )
        logits = sample_at(mask_logits[:, None], points)[:, 0]
        mask_loss = F.binary_cross_entropy_with_logits(logits, truth, reduction='none').mean(dim=1)
        inside = logits.sigmoid()
        overlap = (inside * truth).sum(dim=1)
        dice_loss = 1 - (2 * overlap + 1) / (inside.sum(dim=1) + truth.sum(dim=1) + 1)
        return mask_loss.sum(), dice_loss.sum()


def chunk_losses(
    forward: Callable[[Chunk, Tensor], tuple[Outputs, Tensor]],
    cut_gradient: Callable[[Tensor], Tensor],
    criterion: Criterion,
    state: Tensor,
    chunks: Iterable[Chunk],
    targets: Targets,
    totals: Tensor,
) -> Iterator[dict[str, Tensor]]:
    """Yield the losses of one chunk after the other; see `Criterion.chunk`.

    Call `backward` on their sum before the next chunk. The losses of the chunks add up to those of
    the whole clips, except for frames before an object is first visible; see
    `LossWeights.expected_from`.

    Args:
        forward: runs the network on a chunk of t frames and a state (B, Q, C), and returns its
            outputs (B, t, ...) and the next state.
        cut_gradient: see `VideoNetwork.cut_gradient`.
        criterion: computes the losses.
        state: queries that enter the first frame, (B, Q, C).
        chunks: the consecutive chunks of the clips, as `forward` takes them.
        targets: targets of the whole clips.
        totals: see `Criterion.chunk`.
    """
    query_of, start = None, 0
    for chunk in chunks:
        outputs, state = forward(chunk, state)
        losses, query_of = criterion.chunk(outputs, targets, totals, start, query_of)
        state = cut_gradient(state)
        start += outputs.class_logits.shape[1]
        del outputs  # otherwise they would be kept while the next chunk is computed
        yield losses
