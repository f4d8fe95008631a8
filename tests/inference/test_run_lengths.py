"""Run-length codes are those of pycocotools, byte by byte."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from videomt_ros.inference import run_lengths
from videomt_ros.inference.run_lengths import encode_masks, encode_segments
from videomt_ros.structures import Segment, Segments, TrackState

RNG = np.random.default_rng(0)


def reference_code(mask: np.ndarray) -> str:
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))['counts'].decode()


@pytest.fixture(autouse=True)
def in_boxes(monkeypatch):
    """Have boxes encoded where the images of these tests are too small for them to save time."""
    monkeypatch.setattr(run_lengths, '_BOX_PIXELS', 0)


def segments_of(ids: np.ndarray, box_of=None) -> Segments:
    """Segments with the smallest boxes of their pixels, or those of a function of the id."""
    segments = []
    for track_id in np.unique(ids[ids > 0]).tolist():
        y, x = np.nonzero(ids == track_id)
        box = (int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
        box = box if box_of is None else box_of(track_id)
        state = TrackState.CONFIRMED
        segments.append(Segment(track_id, 0, 'cat', True, 0.9, state, 1, 0, box, len(x)))
    return Segments(0, ids, tuple(segments), 2)


def check(ids: np.ndarray) -> None:
    """Compare the codes of all ids with those of pycocotools."""
    expected = {i: reference_code(ids == i) for i in np.unique(ids).tolist() if i}
    assert encode_masks(ids) == expected
    assert encode_segments(segments_of(ids)) == expected


@pytest.mark.parametrize('seed', range(40))
def test_random_images_are_encoded_as_by_pycocotools(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 90, 2)
    cells = rng.integers(0, rng.integers(2, 30), (height, width)) * 37
    ids = np.repeat(np.repeat(cells, rng.integers(1, 12), 0), rng.integers(1, 12), 1)
    if seed % 4 == 0:
        ids[rng.random(ids.shape) < 0.9] = 0
    check(ids.astype(np.uint16))


@pytest.mark.parametrize('size', [(1, 1), (1, 70000), (5000, 800)])
def test_large_counts_are_encoded_as_by_pycocotools(size):
    for y, x in ((0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 2)):
        ids = np.zeros(size, np.uint16)
        ids[y, x] = 9
        check(ids)
        ids[:, : x + 1] = 4
        check(ids)


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
    check(np.asarray(ids, np.uint16))


@pytest.mark.parametrize('seed', range(40))
def test_objects_in_small_boxes_are_encoded_as_by_pycocotools(seed):
    rng = np.random.default_rng(seed)
    ids = np.zeros(rng.integers(20, 200, 2), np.uint16)
    for track_id in rng.permutation(60000)[: rng.integers(0, 9)] + 1:
        y, x = rng.integers(-10, ids.shape)
        rows, columns = slice(max(0, y), y + 30), slice(max(0, x), x + 20)
        if rng.random() < 0.2:
            rows = slice(None)  # its runs go on from one column to the next
        part = ids[rows, columns]
        part[rng.random(part.shape) < rng.choice([0.5, 1.0])] = track_id
    check(ids)


@pytest.mark.parametrize('box', [(0, 0, 1, 1), (3, 3, 5, 6), (0, 0, 3, 3)])
def test_wrong_boxes_change_nothing(box):
    ids = np.zeros((12, 15), np.uint16)
    ids[2:6, 3:7], ids[8:, 9:] = 5, 6
    segments = segments_of(ids, lambda track_id: box)
    assert encode_segments(segments) == encode_masks(ids)
