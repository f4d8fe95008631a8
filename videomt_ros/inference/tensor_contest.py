"""The contests for pixels as tensor operations on whole images, which never make the host wait.

A GPU runs them, and a CPU where logits are not finite. The resizes are torch's: a product with the
matrices of `resizing`, nearly all of whose entries are zeros, takes 0.3 GFLOP for a mask of
1280 x 720 pixels, while interpolating moves 7 MB, and products spread infinities and NaNs.

Letters: Q queries, N segments, K classes, n masks computed at once, h w mask grid, H W image size.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from videomt_ros.inference.preprocess import Geometry

_VALUES = 2**24
"""Number of float32 values of masks that are computed at once, which bounds the memory."""


def instance_winners(
    mask_logits: Tensor,
    weights: Tensor,
    geometry: Geometry,
    mask_threshold: float,
    is_finite: bool = True,
) -> Tensor:
    """Compute what `postprocess.instance_pixels` does.

    Args:
        mask_logits: (N, h, w).
        weights: scores, (N,) float32.
        geometry: sizes of the frame.
        mask_threshold: mask probability that a pixel must exceed.
        is_finite: whether all mask logits are; if not, masks are taken one by one, so that a NaN
            keeps the pixel from the segments after it alone.

    Returns:
        (H, W) uint8 or int16; k + 1 for segment k, 0 for none.
    """
    best, winner = _no_winner(mask_logits, geometry)
    for start, logits in _parts(mask_logits, geometry, is_finite):
        probs = geometry.to_image(geometry.to_padded(logits)).sigmoid_()  # n, H, W
        values = F.threshold(probs, mask_threshold, 0.0, inplace=True)
        values.mul_(weights[start : start + len(logits), None, None])
        winner, _, _ = _keep_larger(best, winner, values, start + 1)
    return winner


def panoptic_winners(
    mask_logits: Tensor,
    weights: Tensor,
    geometry: Geometry,
    mask_threshold: float,
    is_finite: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute what `postprocess.panoptic_contest` does; see `instance_winners`.

    Returns:
        The winner of each pixel inside its own mask, (H, W) uint8 or int16 with k + 1 for segment
        k and 0 for none; the number of pixels that each segment wins, inside its mask or not,
        (N,); and the area of each mask, (N,).
    """
    best, winner = _no_winner(mask_logits, geometry)
    inside = torch.zeros_like(winner, dtype=torch.bool)
    areas = torch.zeros(len(mask_logits), dtype=torch.int64, device=winner.device)
    for start, logits in _parts(mask_logits, geometry, is_finite):
        probs = geometry.to_image(geometry.to_padded(logits).sigmoid_())  # n, H, W
        masks = probs >= mask_threshold
        areas[start : start + len(logits)] = masks.flatten(1).sum(1)
        values = probs.mul_(weights[start : start + len(logits), None, None])
        winner, larger, index = _keep_larger(best, winner, values, start + 1)
        inside = torch.where(larger, masks.gather(0, index[None])[0], inside)
    won = torch.zeros_like(areas)
    numbers = torch.arange(1, len(areas) + 1, dtype=winner.dtype, device=winner.device)
    size = _part_size(geometry)
    for start in range(0, len(areas), size):
        part = slice(start, start + size)
        won[part] = (winner == numbers[part, None, None]).flatten(1).sum(1)
    return winner * inside, won, areas


def drop_covered(pixels: Tensor, won: Tensor, areas: Tensor, overlap_threshold: float) -> Tensor:
    """Leave out panoptic segments that others cover; see `postprocess.panoptic_pixels`.

    Args:
        pixels: (H, W); this and what follows as from `panoptic_winners`.
        won: (N,).
        areas: (N,).
        overlap_threshold: lowest share of its own mask that a segment must win.

    Returns:
        (H, W); 0 where the segment is dropped.
    """
    is_kept = (areas > 0) & (won >= overlap_threshold * areas.double())
    return pixels * F.pad(is_kept, (1, 0))[pixels.long()]


def semantic_winners(
    class_probs: Tensor, mask_logits: Tensor, geometry: Geometry
) -> tuple[Tensor, Tensor]:
    """Compute what `postprocess.semantic_pixels` does.

    Args:
        class_probs: probabilities of the classes, without that of no object, (Q, K) float32.
        mask_logits: (Q, h, w).
        geometry: sizes of the frame.

    Returns:
        Class ids 0..K-1, (H, W) int16, and the winner's share of the sum over all classes, 0..1,
        (H, W) float32.
    """
    num_classes = class_probs.shape[1]
    maps = class_probs.new_zeros((num_classes, *geometry.resized_size))
    for start, logits in _parts(mask_logits, geometry):
        probs = geometry.to_padded(logits).sigmoid_()
        maps.flatten(1).addmm_(class_probs[start : start + len(logits)].T, probs.flatten(1))
    best = class_probs.new_zeros(geometry.image_size)
    total = torch.zeros_like(best)
    winner = torch.zeros_like(best, dtype=torch.int16)
    size = _part_size(geometry)
    for start in range(0, num_classes, size):
        values = geometry.to_image(maps[start : start + size])
        total += values.sum(0)
        winner, _, _ = _keep_larger(best, winner, values, start)
    return winner, best / total.clamp_min(1e-12)


def _part_size(geometry: Geometry) -> int:
    """Choose the number of masks that are computed at once."""
    sizes = (geometry.image_size, geometry.padded_size)
    return max(1, _VALUES // max(height * width for height, width in sizes))


def _parts(
    mask_logits: Tensor, geometry: Geometry, is_finite: bool = True
) -> Iterator[tuple[int, Tensor]]:
    """Yield the masks in parts: index of the first one, and logits (n, h, w) float32."""
    size = _part_size(geometry) if is_finite else 1
    for start in range(0, len(mask_logits), size):
        yield start, mask_logits[start : start + size].float()


def _no_winner(mask_logits: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Build the largest product and the number of the segment of each pixel before a contest."""
    number_type = torch.uint8 if len(mask_logits) <= 255 else torch.int16
    device = mask_logits.device
    best = torch.zeros(geometry.image_size, device=device)
    return best, torch.zeros(geometry.image_size, dtype=number_type, device=device)


def _keep_larger(
    best: Tensor, winner: Tensor, values: Tensor, first: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Add some maps to the contest; of equal values the earlier one wins.

    Args:
        best: largest value so far, (H, W); changed in place.
        winner: number of its map, (H, W).
        values: maps to add, (n, H, W).
        first: number of the first of them.

    Returns:
        The new winner; where it is one of these maps, (H, W) bool; and the index of the largest of
        them, (H, W).
    """
    top, index = values.max(0)
    larger = top > best
    torch.maximum(best, top, out=best)
    return torch.where(larger, (index + first).to(winner.dtype), winner), larger, index
