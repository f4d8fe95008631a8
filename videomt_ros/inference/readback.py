"""What the host reads of the outputs of a frame before the contest for pixels.

The tracker decides which queries compete and with which scores. It runs on the host and needs the
classes and masks of the frame, and its scores are means over the past of each track, so a copy to
the host comes before the contest, and the winners of the pixels are a second one. One copy alone
would have to carry the result of every choice that the tracker may make, or the logits of all
masks, in which case the host would do the contest.

Letters: Q queries, N chosen queries, K classes, h w mask grid.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.inference import postprocess
from videomt_ros.inference.transfer import Download


class HostReadback:
    """Reads from memory of the host, and only what is asked for."""

    def __init__(self, class_logits: Tensor, mask_logits: Tensor, mask_threshold: float) -> None:
        """Keep the outputs; see `start_readback`."""
        self._class_logits, self._mask_logits = class_logits, mask_logits
        self._mask_threshold = mask_threshold

    def wait(self) -> list[NDArray[Any]]:
        """Return at once, since nothing is copied."""
        return []

    def class_logits(self) -> NDArray[np.float32]:
        """Get the class logits, (Q, K + 1)."""
        return postprocess.read_classes(self._class_logits)

    def masks(self, queries: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Get the masks of queries, (N, h, w); see `postprocess.read_masks`."""
        return postprocess.read_masks(self._mask_logits, queries, self._mask_threshold)


class DeviceReadback:
    """Copies the classes and the masks of all queries, which are few as bits, at once.

    Which queries the host will ask for only the host knows; 200 masks of 120 x 216 cells are
    0.65 MB.
    """

    def __init__(self, class_logits: Tensor, mask_logits: Tensor, mask_threshold: float) -> None:
        """Queue the copy; see `start_readback`."""
        self._grid = (mask_logits.shape[1], mask_logits.shape[2])
        peaks = mask_logits.abs().amax((1, 2))  # Q; NaN if any is
        is_whole = (peaks == peaks)[:, None, None]
        masks = (mask_logits >= postprocess.logit(mask_threshold)).logical_and_(is_whole)
        is_finite = peaks < math.inf
        self._download = Download(class_logits.float(), is_finite, pack_bits(masks.flatten(1)))
        self._arrays: list[NDArray[Any]] = []

    def wait(self) -> list[NDArray[Any]]:
        """Wait for the copy; the methods below are valid from then on."""
        self._arrays = self._download.wait()
        return self._arrays

    def class_logits(self) -> NDArray[np.float32]:
        """Get the class logits, (Q, K + 1)."""
        return self._arrays[0]

    def masks(self, queries: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Get the masks of queries, (N, h, w); see `postprocess.read_masks`."""
        cells = self._grid[0] * self._grid[1]
        bits = np.unpackbits(self._arrays[2][queries], axis=1, count=cells)
        return bits.view(np.bool_).reshape(len(queries), *self._grid)

    def is_finite(self, queries: NDArray[np.intp]) -> bool:
        """Whether all mask logits of queries are finite."""
        return bool(self._arrays[1][queries].all())


def start_readback(
    class_logits: Tensor, mask_logits: Tensor, mask_threshold: float
) -> HostReadback | DeviceReadback:
    """Start to read the outputs of a frame.

    Args:
        class_logits: (Q, K + 1).
        mask_logits: (Q, h, w), the part of the grid that can reach the image.
        mask_threshold: least probability of a cell that is in a mask.
    """
    if postprocess.is_on_host(mask_logits):
        return HostReadback(class_logits, mask_logits, mask_threshold)
    return DeviceReadback(class_logits, mask_logits, mask_threshold)


def pack_bits(values: Tensor) -> Tensor:
    """Pack rows of bool (N, M) into bytes (N, ceil(M / 8)), as `numpy.packbits` does."""
    padded = F.pad(values.to(torch.uint8), (0, -values.shape[1] % 8))
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=values.device)
    bits = padded.unflatten(1, (-1, 8)).bitwise_left_shift(shifts)
    return bits.sum(2, dtype=torch.uint8)
