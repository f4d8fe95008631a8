"""Packed masks overlap, move and unpack as arrays of cells do."""

from __future__ import annotations

import numpy as np
import pytest

from videomt_ros.inference.grid_masks import areas, intersections, ious, logit, pack_masks


def random_masks(rng: np.random.Generator, count: int, grid: tuple[int, int]) -> np.ndarray:
    """Rectangles with holes, some of them empty, (count, h, w)."""
    masks = np.zeros((count, *grid), bool)
    for mask in masks:
        y, x = rng.integers(0, grid[0]), rng.integers(0, grid[1])
        mask[y : y + rng.integers(0, 50), x : x + rng.integers(1, 90)] = True
    return masks & (rng.random(masks.shape) < 0.8)


def holds(box, cells):
    """Whether a box holds all cells of a mask."""
    top, left, bottom, right = box
    return cells[top:bottom, left:right].sum() == cells.sum()


@pytest.mark.parametrize('grid', [(1, 1), (40, 72), (41, 150), (120, 216)])
@pytest.mark.parametrize(('count', 'others'), [(0, 3), (1, 1), (7, 9), (20, 30), (300, 1)])
def test_overlaps_are_counts_of_cells(grid, count, others):
    rng = np.random.default_rng(count)
    a, b = random_masks(rng, count, grid), random_masks(rng, others, grid)
    packed, other_packed = pack_masks(a), pack_masks(b)
    assert areas(packed).tolist() == [mask.sum() for mask in a]
    common = intersections(packed, other_packed)
    assert common.shape == (count, others)
    expected = [[(x & y).sum() for y in b] for x in a]
    assert common.tolist() == expected
    unions = [[max(1, (x | y).sum()) for y in b] for x in a]
    quotients = np.array(expected) / np.array(unions)
    result = ious(packed, other_packed)
    np.testing.assert_allclose(result, quotients.reshape(count, others), rtol=1e-6)


def test_a_mask_overlaps_those_of_its_own_set():
    masks = random_masks(np.random.default_rng(0), 40, (41, 150))
    flat = masks.reshape(40, -1).astype(int)
    assert intersections(pack_masks(masks)).tolist() == (flat @ flat.T).tolist()


@pytest.mark.parametrize('grid', [(1, 1), (5, 3), (41, 150)])
def test_a_mask_comes_back_and_moves(grid):
    rng = np.random.default_rng(1)
    for mask in random_masks(rng, 30, grid):
        (packed,) = pack_masks(mask[None])
        np.testing.assert_array_equal(packed.cells(), mask)
        assert holds(packed.box, mask)
        rows, columns = (int(rng.integers(-side - 2, side + 3)) for side in grid)
        moved = packed.shifted(rows, columns)
        expected = np.zeros_like(mask)
        for y, x in np.argwhere(mask):
            if 0 <= y + rows < grid[0] and 0 <= x + columns < grid[1]:
                expected[y + rows, x + columns] = True
        np.testing.assert_array_equal(moved.cells(), expected)
        assert moved.area == expected.sum() and holds(moved.box, expected)
        assert packed.shifted(0, 0) is packed


def test_logits_of_probabilities():
    assert [logit(p) for p in (-0.1, 0.0, 0.5, 1.0)] == [-np.inf, -np.inf, 0.0, np.inf]
    assert 1 / (1 + np.exp(-logit(0.3))) == pytest.approx(0.3)
