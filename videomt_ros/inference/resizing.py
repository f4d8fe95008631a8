"""The two resizes of a mask as one banded matrix per axis, so that a part can be computed alone.

A bilinear resize is a linear map of the rows and one of the columns, and so are two in a row. Each
pixel depends on two to four neighbouring cells along an axis, so a box of the image needs the
cells around it and no others.

Letters: h w mask grid, H W image size in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from videomt_ros.inference.preprocess import Geometry
from videomt_ros.inference.scratch import Scratch

STRIP = 65536
"""Number of pixels that are computed at once, so that what is done with them finds them in the
cache, and their matrix product is not mostly one of zeros outside of the band."""
_BLOCK = 128
"""Number of columns that one matrix product computes, for the same reason."""


class Span(NamedTuple):
    """Positions along one axis, or cells of it."""

    start: int
    stop: int
    """Exclusive."""


class Box(NamedTuple):
    """A rectangle that is not empty."""

    rows: Span
    columns: Span

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the box, as the index into an image (H, W)."""
        return slice(*self.rows), slice(*self.columns)

    def within(self, other: Box) -> Box | None:
        """Cut the box to the part that it has in common with another one; None if empty."""
        rows, columns = (
            Span(max(own.start, limit.start), min(own.stop, limit.stop))
            for own, limit in zip(self, other, strict=True)
        )
        is_empty = rows.start >= rows.stop or columns.start >= columns.stop
        return None if is_empty else Box(rows, columns)

    def moved(self, rows: int, columns: int) -> Box:
        """Move the box down and to the right."""
        return Box(
            Span(self.rows.start + rows, self.rows.stop + rows),
            Span(self.columns.start + columns, self.columns.stop + columns),
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the box."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


@dataclass(frozen=True)
class Axis:
    """The map from cells to pixels along one axis."""

    matrix: Tensor
    """Share of each cell in each pixel, (pixels, cells) float32."""
    first_cell: list[int]
    """First cell with a share in each pixel; never falls."""
    last_cell: list[int]
    """Last cell with a share in each pixel; never falls."""
    first_pixel: list[int]
    """First pixel in which each cell, or a later one, has a share."""
    end_pixel: list[int]
    """End, exclusive, of the pixels in which each cell, or an earlier one, has a share."""

    @classmethod
    def of(cls, matrix: Tensor) -> Axis:
        """Find the band of a matrix (pixels, cells)."""
        reached = matrix.numpy() != 0.0
        first = reached.argmax(1)
        last = reached.shape[1] - 1 - reached[:, ::-1].argmax(1)
        # Where rounding leaves a share of exactly 0, the cell may be in the band all the same.
        first, last = np.minimum.accumulate(first[::-1])[::-1], np.maximum.accumulate(last)
        cells = np.arange(reached.shape[1])
        starts, ends = np.searchsorted(last, cells), np.searchsorted(first, cells, 'right')
        return cls(matrix, first.tolist(), last.tolist(), starts.tolist(), ends.tolist())

    def reached(self, cells: Span) -> Span:
        """Find the pixels in which some of these cells, at least one, have a share."""
        return Span(self.first_pixel[cells.start], self.end_pixel[cells.stop - 1])

    def cells(self, pixels: Span) -> Span:
        """Find the cells that have a share in some of these pixels."""
        return Span(self.first_cell[pixels.start], self.last_cell[pixels.stop - 1] + 1)

    def blocks(self, pixels: Span, size: int) -> list[tuple[Span, Span]]:
        """Split pixels into blocks of this size, each with the cells that it needs."""
        starts = range(pixels.start, pixels.stop, size)
        blocks = [Span(start, min(start + size, pixels.stop)) for start in starts]
        return [(block, self.cells(block)) for block in blocks]


@dataclass(frozen=True)
class Resize:
    """The map from a grid of cells to an image."""

    rows: Axis
    columns: Axis

    def reached(self, cells: Box) -> Box | None:
        """Find the box of the image in which some of these cells have a share; None if empty."""
        rows, columns = self.rows.reached(cells.rows), self.columns.reached(cells.columns)
        is_empty = rows.start >= rows.stop or columns.start >= columns.stop
        return None if is_empty else Box(rows, columns)

    def needed(self, box: Box) -> Box:
        """Find the cells that have a share in a box of the image."""
        return Box(self.rows.cells(box.rows), self.columns.cells(box.columns))

    def box(self, values: Tensor, corner: tuple[int, int], box: Box, out: Tensor) -> None:
        """Compute a small box of the image as a whole.

        Args:
            values: finite values of the cells that the box needs, and perhaps more, float32.
            corner: row and column of the first of these cells.
            box: where to compute.
            out: takes the result, (rows, columns) float32.
        """
        rows, columns = self.rows.cells(box.rows), self.columns.cells(box.columns)
        top, left = corner
        wide = torch.mm(
            values[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left],
            self.columns.matrix[slice(*box.columns), slice(*columns)].T,
        )
        torch.mm(self.rows.matrix[slice(*box.rows), slice(*rows)], wide, out=out)

    def strips(
        self, values: Tensor, rows: Span, columns: Span, scratch: Scratch
    ) -> Iterator[tuple[Span, Tensor]]:
        """Compute a box of the image, a few rows at a time.

        Args:
            values: finite values of the cells, (h, w) float32.
            rows: rows of the image.
            columns: columns of the image.
            scratch: memory to compute in.

        Yields:
            Some rows, and their pixels, (rows, columns) float32 and contiguous, which may be
            changed and are valid until the next ones.
        """
        width = columns.stop - columns.start
        cells = self.rows.cells(rows)
        wide = scratch.take('wide', (cells.stop - cells.start, width))
        for block, band in self.columns.blocks(columns, _BLOCK):
            torch.mm(
                values[cells.start : cells.stop, band.start : band.stop],
                self.columns.matrix[block.start : block.stop, band.start : band.stop].T,
                out=wide[:, block.start - columns.start : block.stop - columns.start],
            )
        for block, band in self.rows.blocks(rows, max(1, STRIP // width)):
            strip = scratch.take('strip', (block.stop - block.start, width))
            torch.mm(
                self.rows.matrix[block.start : block.stop, band.start : band.stop],
                wide[band.start - cells.start : band.stop - cells.start],
                out=strip,
            )
            yield block, strip


@lru_cache(maxsize=8)
def logits_to_image(geometry: Geometry, grid: tuple[int, int]) -> Resize:
    """Build both resizes, from a mask grid (h, w) to the image, as one map."""
    return Resize(
        *(
            Axis.of(
                _matrix(
                    grid[axis],
                    geometry.padded_size[axis],
                    geometry.resized_size[axis],
                    geometry.image_size[axis],
                )
            )
            for axis in range(2)
        )
    )


@lru_cache(maxsize=8)
def single_resizes(geometry: Geometry, grid: tuple[int, int]) -> tuple[Resize, Resize | None]:
    """Build the resize from a mask grid (h, w) to the resized image, and from that to the image.

    The second is None where both have the same size.
    """
    sizes = zip(grid, geometry.padded_size, geometry.resized_size, strict=True)
    first = Resize(*(Axis.of(_matrix(*axis, axis[-1])) for axis in sizes))
    if geometry.resized_size == geometry.image_size:
        return first, None
    both = zip(geometry.resized_size, geometry.image_size, strict=True)
    return first, Resize(*(Axis.of(_matrix(side, side, side, end)) for side, end in both))


def _matrix(cells: int, padded: int, resized: int, pixels: int) -> Tensor:
    """Resize an impulse in each cell as `Geometry` resizes a mask, (pixels, cells)."""
    spread = torch.eye(cells)[None]  # 1, cells, cells
    if padded != cells:
        spread = F.interpolate(spread, size=padded, mode='linear', align_corners=False)
    spread = spread[..., :resized]
    if resized != pixels:
        spread = F.interpolate(spread, size=pixels, mode='linear', align_corners=False)
    return spread[0].T.contiguous()
