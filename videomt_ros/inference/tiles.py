"""Tiles of the image, in which the cells around them bound the probability of each mask.

Letters: Q queries, N maps, h w mask grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

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
