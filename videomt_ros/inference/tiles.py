"""Tiles of the image, in which the cells around them bound the probability of each mask.

Letters: Q queries, N maps, h w mask grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.inference.grid_masks import bound_cells
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.inference.resizing import Box, Resize, Span, single_resizes
from videomt_ros.inference.scratch import Scratch

SLACK = 1e-4
"""Relative margin of the bounds of a probability, far above the rounding of its computation."""


@dataclass(frozen=True)
class Tile:
    """A part of the image, and the parts of the resized image and of the grid that it needs."""

    image: Box
    resized: Box
    cells: Box
    first: Resize
    """From the grid to the resized image."""
    second: Resize | None
    """From the resized image to the image, if they differ."""

    @classmethod
    def of(cls, image: Box, first: Resize, second: Resize | None) -> Tile:
        """Find what a box of the image needs."""
        resized = image if second is None else second.needed(image)
        return cls(image, resized, first.needed(resized), first, second)

    def part(self, cells: NDArray[np.float32], least: float) -> Tile | None:
        """Find the part of the tile that the cells with at least this logit reach.

        Args:
            cells: mask logits of one segment, (h, w).
            least: logit of the lowest cell that counts.

        Returns:
            The part; None if it is empty.
        """
        top, left, bottom, right = bound_cells(cells[self.cells.slices] >= least)
        if top == bottom:
            return None
        found = Box(Span(top, bottom), Span(left, right))
        found = found.moved(self.cells.rows.start, self.cells.columns.start)
        box = self.first.reached(found)
        if box is not None and self.second is not None:
            box = self.second.reached(box)
        box = box and box.within(self.image)
        if box is None or box == self.image:
            return box and self
        return Tile.of(box, self.first, self.second)

    def probs(self, logits: Tensor, scratch: Scratch) -> Tensor:
        """Compute the mask probabilities of the tile.

        Args:
            logits: mask logits of one segment, (h, w).
            scratch: memory to compute in.

        Returns:
            (rows, columns), which may be changed and is valid until the next call.
        """
        probs = scratch.take('resized', self.resized.size)
        self.first.box(logits, (0, 0), self.resized, probs)
        probs.sigmoid_()
        if self.second is None:
            return probs
        corner = self.resized.rows.start, self.resized.columns.start
        image = scratch.take('image', self.image.size)
        self.second.box(probs, corner, self.image, image)
        return image

    def many_probs(self, logits: Tensor) -> Tensor:
        """Compute the mask probabilities of all queries in the resized image.

        Args:
            logits: mask logits, (Q, h, w).

        Returns:
            (Q, rows, columns) of `resized`.
        """
        rows, columns = self.cells.slices
        right = self.first.columns.matrix[slice(*self.resized.columns), columns].T
        left = self.first.rows.matrix[slice(*self.resized.rows), rows]
        return torch.matmul(left, torch.matmul(logits[:, rows, columns], right)).sigmoid_()

    def to_image(self, maps: Tensor) -> Tensor:
        """Resize maps (N, rows, columns) of `resized` to the tile of the image."""
        if self.second is None:
            return maps
        (rows, columns), needed = self.image.slices, self.resized.slices
        right = self.second.columns.matrix[columns, needed[1]].T
        left = self.second.rows.matrix[rows, needed[0]]
        return torch.matmul(left, torch.matmul(maps, right))


def bound_row(
    logits: Tensor, row: Sequence[Tile]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Bound the mask probabilities in each tile of a row.

    Args:
        logits: mask logits, (N, h, w) float32.
        row: the C tiles of a row of `cut_tiles`.

    Returns:
        The lowest and the highest probability of the cells that each tile needs, (C, N) each.
    """
    rows = logits[:, slice(*row[0].cells.rows)]
    # Every second part is one from the end of a tile's cells to the start of the next one's. An
    # end is no place of the last column, hence one column more.
    places = [place for tile in row for place in tile.cells.columns]
    bounds = []
    for values, reduce in ((rows.amin(1), np.minimum), (rows.amax(1), np.maximum)):
        columns = np.vstack([values.numpy().T, values[:, -1].numpy()])  # w + 1, N
        bounds.append(torch.from_numpy(reduce.reduceat(columns, places)[::2]).sigmoid().numpy())
    return bounds[0], bounds[1]


@lru_cache(maxsize=8)
def cut_tiles(
    geometry: Geometry, grid: tuple[int, int], size: tuple[int, int]
) -> list[list[Tile]]:
    """Cut the image into tiles of at most this size, (height, width) in pixels, row by row."""
    first, second = single_resizes(geometry, grid)
    rows, columns = (
        [Span(start, min(start + side, end)) for start in range(0, end, side)]
        for side, end in zip(size, geometry.image_size, strict=True)
    )
    return [[Tile.of(Box(row, column), first, second) for column in columns] for row in rows]
