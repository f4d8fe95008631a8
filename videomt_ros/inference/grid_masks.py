"""Masks on the mask grid as packed bits, in which form many are compared in little time.

Letters: N and M masks, h w mask grid. Lengths are in cells of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

GridBox: TypeAlias = tuple[int, int, int, int]
"""Top, left, bottom and right of a box of cells, the last two exclusive."""


@dataclass(frozen=True, eq=False)
class GridMask:
    """One mask."""

    bits: NDArray[np.uint8]
    """The cells row by row, eight in a byte, as `numpy.packbits` packs them."""
    grid: tuple[int, int]
    """Size (h, w) of the grid."""
    box: GridBox
    """A box that holds the mask."""
    area: int
    """Number of cells in the mask."""

    def cells(self) -> NDArray[np.bool_]:
        """Unpack the mask, (h, w)."""
        height, width = self.grid
        return np.unpackbits(self.bits, count=height * width).view(np.bool_).reshape(self.grid)

    def shifted(self, rows: int, columns: int) -> GridMask:
        """Move the mask down and to the right; what leaves the grid is gone."""
        if not rows and not columns:
            return self
        (height, width), (top, left, bottom, right) = self.grid, self.box
        top, bottom = (min(max(0, row + rows), height) for row in (top, bottom))
        left, right = (min(max(0, column + columns), width) for column in (left, right))
        moved = np.zeros(self.grid, bool)
        moved[top:bottom, left:right] = self.cells()[
            top - rows : bottom - rows, left - columns : right - columns
        ]
        bits = np.packbits(moved)
        return GridMask(bits, self.grid, (top, left, bottom, right), _count(bits))


def logit(probability: float) -> float:
    """Compute the inverse of the sigmoid, 0..1 -> -inf..inf, to compare mask logits with."""
    if probability <= 0.0:
        return -math.inf
    return math.inf if probability >= 1.0 else math.log(probability / (1.0 - probability))


def pack_masks(masks: NDArray[np.bool_]) -> list[GridMask]:
    """Pack masks (N, h, w) and measure them."""
    grid = (masks.shape[1], masks.shape[2])
    packed = np.packbits(masks.reshape(len(masks), grid[0] * grid[1]), axis=1)
    return [
        GridMask(bits, grid, bound_cells(mask), _count(bits))
        for mask, bits in zip(masks, packed, strict=True)
    ]


def bound_cells(mask: NDArray[np.bool_]) -> GridBox:
    """Find the smallest box that holds a mask (h, w); all 0 if that is empty."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return y, x, y + height, x + width


def intersections(
    masks: Sequence[GridMask], others: Sequence[GridMask] | None = None
) -> NDArray[np.float32]:
    """Count the cells that pairs of masks of one grid have in common, (N, M).

    Args:
        masks: N masks.
        others: M masks; None: the same ones, which takes half of the time.
    """
    corners = _corners(masks)
    partners = masks if others is None else others
    starts, ends = corners[:, None, :2], corners[:, None, 2:]
    other_corners = corners if others is None else _corners(partners)
    meet = ((starts < other_corners[:, 2:]) & (ends > other_corners[:, :2])).all(2)
    common = np.zeros(meet.shape, np.float32)
    if others is None:
        np.fill_diagonal(common, [mask.area for mask in masks])
        meet = np.triu(meet, 1)
    for n, m in zip(*(places.tolist() for places in np.nonzero(meet)), strict=True):
        a, b = masks[n], partners[m]
        differing = cv2.norm(a.bits, b.bits, cv2.NORM_HAMMING)
        common[n, m] = (a.area + b.area - differing) / 2
    return common if others is not None else np.maximum(common, common.T)


def ious(masks: Sequence[GridMask], others: Sequence[GridMask]) -> NDArray[np.float32]:
    """Compute the intersections over unions, (N, M); 0 where both masks are empty."""
    common = intersections(masks, others)
    unions = areas(masks)[:, None] + areas(others)[None] - common
    return common / np.maximum(unions, 1.0)


def areas(masks: Sequence[GridMask]) -> NDArray[np.float32]:
    """List the numbers of cells of masks, (N,)."""
    return np.array([mask.area for mask in masks], np.float32)


def _corners(masks: Sequence[GridMask]) -> NDArray[np.int64]:
    """List the boxes of masks, (N, 4); those of empty masks reach nothing."""
    return np.array([mask.box for mask in masks], np.int64).reshape(-1, 4)


def _count(bits: NDArray[np.uint8]) -> int:
    """Count the bits that are set."""
    return int(cv2.norm(bits, cv2.NORM_HAMMING))
