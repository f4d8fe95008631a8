"""Detections are measured as by counting cells, in blocks of the grid or as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from videomt_ros.inference.association import build_detections, ious, overlaps


def random_masks(rng: np.random.Generator, count: int, grid: tuple[int, int]) -> np.ndarray:
    """Rectangles with holes, some of them empty, (count, h, w)."""
    masks = np.zeros((count, *grid), bool)
    for mask in masks:
        y, x = rng.integers(0, grid[0]), rng.integers(0, grid[1])
        mask[y : y + rng.integers(0, 50), x : x + rng.integers(1, 90)] = True
    return masks & (rng.random(masks.shape) < 0.8)


@pytest.mark.parametrize('grid', [(1, 1), (40, 72), (41, 150), (120, 216)])
@pytest.mark.parametrize(('count', 'others'), [(0, 3), (1, 1), (7, 9), (20, 30), (300, 1)])
def test_overlaps_are_counts_of_cells(grid, count, others):
    rng = np.random.default_rng(count)
    a, b = random_masks(rng, count, grid), random_masks(rng, others, grid)
    inside, areas, other_areas = overlaps(a, b)
    assert inside.shape == (count, others)
    assert areas.tolist() == [mask.sum() for mask in a]
    assert other_areas.tolist() == [mask.sum() for mask in b]
    expected = [[(x & y).sum() for y in b] for x in a]
    assert inside.tolist() == expected
    unions = [[max(1, (x | y).sum()) for y in b] for x in a]
    quotients = np.array(expected) / np.array(unions)
    np.testing.assert_allclose(ious(a, b), quotients.reshape(count, others), rtol=1e-6)


def test_centres_are_means_of_cells():
    masks = random_masks(np.random.default_rng(0), 30, (120, 216))
    masks = masks[masks.any((1, 2))]
    numbers = np.arange(len(masks))
    detections = build_detections(numbers, np.zeros((len(masks), 3)), numbers / 100, masks)
    assert detections.queries.tolist() == numbers[::-1].tolist()
    for n, mask in enumerate(detections.masks):
        np.testing.assert_allclose(detections.centres[n], np.argwhere(mask).mean(0))
        assert detections.sizes[n] ** 2 == pytest.approx(mask.sum())
