"""Run-length codes are those of pycocotools, byte by byte."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from videomt_ros.inference.run_lengths import encode_masks

RNG = np.random.default_rng(0)


def reference_code(mask: np.ndarray) -> str:
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))['counts'].decode()


@pytest.mark.parametrize('seed', range(40))
def test_random_images_are_encoded_as_by_pycocotools(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 90, 2)
    cells = rng.integers(0, rng.integers(2, 30), (height, width)) * 37
    ids = np.repeat(np.repeat(cells, rng.integers(1, 12), 0), rng.integers(1, 12), 1)
    if seed % 4 == 0:
        ids[rng.random(ids.shape) < 0.9] = 0
    ids = ids.astype(np.uint16)
    codes = encode_masks(ids)
    assert codes == {i: reference_code(ids == i) for i in np.unique(ids).tolist() if i}


@pytest.mark.parametrize('size', [(1, 1), (1, 70000), (5000, 800)])
def test_large_counts_are_encoded_as_by_pycocotools(size):
    for y, x in ((0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 2)):
        ids = np.zeros(size, np.uint16)
        ids[y, x] = 9
        assert encode_masks(ids) == {9: reference_code(ids == 9)}
        ids[:, : x + 1] = 4
        assert encode_masks(ids) == {4: reference_code(ids == 4)}


@pytest.mark.parametrize(
    'ids',
    [
        np.zeros((4, 5)),
        np.full((4, 5), 3),
        np.eye(5) * 65535,
        np.tile([1, 2, 0, 2, 1], (3, 1)),
        np.pad(np.ones((1, 1)), 2),
        [[1, 0], [0, 1]],
        [[7]],
        RNG.integers(0, 4, (17, 23)),
        RNG.integers(0, 4, (1, 40)),
        RNG.integers(0, 4, (40, 1)),
        np.repeat(np.repeat(RNG.integers(0, 9, (12, 20)), 31, axis=0), 17, axis=1),
    ],
    ids=lambda ids: 'x'.join(map(str, np.shape(ids))),
)
def test_masks_are_those_of_pycocotools(ids):
    ids = np.asarray(ids, np.uint16)
    codes = encode_masks(ids)
    assert codes == {i: reference_code(ids == i) for i in np.unique(ids).tolist() if i}
