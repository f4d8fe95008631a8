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
from videomt_ros.inference.grid_masks import logit
from videomt_ros.inference.transfer import Download


class HostReadback:
    """Reads from memory of the host, and only what is asked for."""

    def __init__(
        self,
        class_logits: Tensor,
        mask_logits: Tensor,
        reach: tuple[int, int],
        mask_threshold: float,
    ) -> None:
        """Keep the outputs; see `start_readback`."""
        self._class_logits, self._mask_logits = class_logits, mask_logits
        self._reach, self._least = reach, np.float32(logit(mask_threshold))
        self._known: dict[int, tuple[Tensor, bool]] = {}
        """Logits of the masks that were read, and whether all of them are finite, by query."""

    def wait(self) -> list[NDArray[Any]]:
        """Return at once, since nothing is copied."""
        return []

    def class_logits(self) -> NDArray[np.float32]:
        """Get the class logits, (Q, K + 1)."""
        return postprocess.read_classes(self._class_logits)

    def masks(self, queries: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Get the masks of queries in the reach, (N, rows, columns); see `start_readback`."""
        rows, columns = self._reach
        masks = np.empty((len(queries), rows, columns), bool)
        # One mask at a time, which stays in the cache: of many, new memory would take most time.
        for query, mask in zip(queries.tolist(), masks, strict=True):
            logits, is_finite = self._read(query)
            inside = logits.numpy()[:rows, :columns]
            np.greater_equal(inside, self._least, out=mask)
            if not is_finite and np.isnan(inside).any():
                mask[...] = False
        return masks

    def logits(self, queries: NDArray[np.intp]) -> list[Tensor]:
        """Get the mask logits of queries, N of (h, w) float32."""
        return [self._read(query)[0] for query in queries.tolist()]

    def is_finite(self, queries: NDArray[np.intp]) -> bool:
        """Whether all mask logits of queries are finite."""
        return all(self._read(query)[1] for query in queries.tolist())

    def _read(self, query: int) -> tuple[Tensor, bool]:
        """Convert the logits of one mask, once, and look for infinities and NaNs."""
        known = self._known.get(query)
        if known is None:
            logits = self._mask_logits[query].float()
            known = self._known[query] = logits, bool(np.isfinite(logits.numpy()).all())
        return known


class DeviceReadback:
    """Copies the classes and the masks of all queries, which are few as bits, at once.

    Which queries the host will ask for only the host knows; 200 masks of 120 x 216 cells are
    0.65 MB.
    """

    def __init__(self, class_logits: Tensor, mask_logits: Tensor, mask_threshold: float) -> None:
        """Queue the copy of the reach, (Q, rows, columns); see `start_readback`."""
        self._grid = (mask_logits.shape[1], mask_logits.shape[2])
        peaks = mask_logits.abs().amax((1, 2))  # Q; NaN if any is
        is_whole = (peaks == peaks)[:, None, None]
        masks = (mask_logits >= logit(mask_threshold)).logical_and_(is_whole)
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
        """Get the masks of queries in the reach, (N, rows, columns); see `start_readback`."""
        cells = self._grid[0] * self._grid[1]
        bits = np.unpackbits(self._arrays[2][queries], axis=1, count=cells)
        return bits.view(np.bool_).reshape(len(queries), *self._grid)

    def is_finite(self, queries: NDArray[np.intp]) -> bool:
        """Whether all mask logits of queries are finite."""
        return bool(self._arrays[1][queries].all())


def start_readback(
    class_logits: Tensor, mask_logits: Tensor, reach: tuple[int, int], mask_threshold: float
) -> HostReadback | DeviceReadback:
    """Start to read the outputs of a frame.

    Resizing never exceeds the largest logit, so a query whose mask is empty has no pixel. The mask
    of a query with a NaN is empty.

    Args:
        class_logits: (Q, K + 1).
        mask_logits: (Q, h, w).
        reach: number of rows and columns of the grid that can reach the image.
        mask_threshold: least probability of a cell that is in a mask.
    """
    if postprocess.is_on_host(mask_logits):
        return HostReadback(class_logits, mask_logits, reach, mask_threshold)
    inside = mask_logits[:, : reach[0], : reach[1]]
    return DeviceReadback(class_logits, inside, mask_threshold)


def pack_bits(values: Tensor) -> Tensor:
    """Pack rows of bool (N, M) into bytes (N, ceil(M / 8)), as `numpy.packbits` does."""
    padded = F.pad(values.to(torch.uint8), (0, -values.shape[1] % 8))
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=values.device)
    bits = padded.unflatten(1, (-1, 8)).bitwise_left_shift(shifts)
    return bits.sum(2, dtype=torch.uint8)
