"""Pixels that are computed in boxes against those of whole images; see plain_postprocess."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.inference import plain_postprocess as plain
from videomt_ros.inference import postprocess
from videomt_ros.inference.grid_masks import bound_cells
from videomt_ros.inference.instance_contest import bound_masks, last_logit_outside
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.inference.resizing import Span, logits_to_image
from videomt_ros.inference.scratch import Scratch

CAMERA = Geometry((180, 320), (96, 171), (96, 192))


def case(seed, max_count=15):
    """Sizes, logits and scores, some of them equal."""
    rng = np.random.default_rng(seed)
    geometry, grid = plain.random_geometry(rng)
    count = int(rng.integers(0, max_count))
    scores = rng.choice([0.25, 0.5, 1.0, rng.uniform(0.1, 1)], count)
    return rng, geometry, plain.random_logits(rng, count, grid), scores


@pytest.mark.parametrize('seed', range(60))
def test_a_box_is_a_part_of_the_resized_image(seed):
    rng, geometry, logits, _ = case(seed)
    if not len(logits):
        logits = torch.zeros(1, *logits.shape[1:])
    whole = geometry.to_image(geometry.to_padded(logits[:1]))[0]
    spans = []
    for side in geometry.image_size:
        start = int(rng.integers(0, side))
        spans.append(Span(start, int(rng.integers(start, side)) + 1))
    resize = logits_to_image(geometry, (logits.shape[1], logits.shape[2]))
    strips = [(rows, strip.clone()) for rows, strip in resize.strips(logits[0], *spans, Scratch())]
    assert [rows.start for rows, _ in strips[1:]] == [rows.stop for rows, _ in strips[:-1]]
    result = torch.cat([strip for _, strip in strips])
    expected = whole[slice(*spans[0]), slice(*spans[1])]
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('seed', range(60))
@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.5, 0.7, 1.0])
def test_instances_are_those_of_whole_images(seed, threshold):
    _, geometry, logits, scores = case(seed)
    result = postprocess.instance_pixels(logits, scores, geometry, threshold)
    expected = plain.instance_pixels(logits, scores, geometry, threshold)
    if len(logits):
        plain.assert_same(result, expected, plain.doubtful(logits, scores, geometry, threshold))
    else:
        assert not result.any()


@pytest.mark.parametrize('seed', range(60))
@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.5])
def test_panoptic_contests_are_those_of_whole_images(seed, threshold):
    rng, geometry, logits, scores = case(seed)
    # Where two scores are equal and both masks certain, the last bit decides, which either way of
    # computing may round in its own direction.
    scores = rng.uniform(0.1, 1, len(scores))
    result = postprocess.panoptic_contest(logits, scores, geometry, threshold)
    pixels, won, areas = plain.panoptic_contest(logits, scores, geometry, threshold)
    if not len(logits):
        assert not result.pixels.any()
        return
    doubtful = plain.doubtful(logits, scores, geometry, threshold, is_panoptic=True)
    plain.assert_same(result.pixels, pixels, doubtful)
    assert np.abs(result.won - won).sum() <= 4
    assert np.abs(result.areas - areas).sum() <= 2


def test_a_panoptic_contest_of_a_camera_is_that_of_whole_images():
    rng = np.random.default_rng(0)
    for count in (1, 70, 300):
        logits, scores = plain.random_logits(rng, count, (24, 48)), rng.uniform(0.2, 1, count)
        result = postprocess.panoptic_contest(logits, scores, CAMERA, 0.5)
        pixels, won, areas = plain.panoptic_contest(logits, scores, CAMERA, 0.5)
        doubtful = plain.doubtful(logits, scores, CAMERA, 0.5, is_panoptic=True)
        plain.assert_same(result.pixels, pixels, doubtful)
        assert np.abs(result.won - won).sum() <= 4
        assert np.abs(result.areas - areas).sum() <= 2


def test_many_instances_of_a_camera_are_those_of_whole_images():
    rng = np.random.default_rng(0)
    for count in (1, 70, 300):
        logits, scores = plain.random_logits(rng, count, (24, 48)), rng.uniform(0.2, 1, count)
        result = postprocess.instance_pixels(logits, scores, CAMERA, 0.5)
        np.testing.assert_array_equal(result, plain.instance_pixels(logits, scores, CAMERA, 0.5))
    contests = (m.panoptic_contest(logits, scores, CAMERA, 0.5) for m in (postprocess, plain))
    for value, plain_value in zip(*contests, strict=True):
        np.testing.assert_array_equal(value, plain_value)
        assert result.dtype == (np.uint8 if count <= 255 else np.int16)


def test_half_precision_is_converted_first():
    rng = np.random.default_rng(0)
    logits, scores = plain.random_logits(rng, 10, (24, 48)), rng.uniform(0.2, 1, 10)
    for dtype in (torch.float16, torch.bfloat16):
        result = postprocess.instance_pixels(logits.to(dtype), scores, CAMERA, 0.5)
        expected = plain.instance_pixels(logits.to(dtype).float(), scores, CAMERA, 0.5)
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize('seed', range(60))
def test_semantic_labels_are_those_of_whole_images(seed):
    rng, geometry, logits, _ = case(seed)
    if not len(logits):
        return
    num_classes = int(rng.choice([1, 2, 5, 124]))
    class_logits = torch.tensor(
        rng.normal(size=(len(logits), num_classes + 1)) * rng.choice([1, 5])
    )
    classes, shares = postprocess.semantic_pixels(class_logits, logits, geometry)
    sums = plain.semantic_sums(class_logits, logits, geometry)
    top = np.sort(sums, 0)
    is_clear = top[-1] - (top[-2] if num_classes > 1 else 0) > 1e-5 * top[-1]
    plain.assert_same(classes, sums.argmax(0), ~is_clear)
    np.testing.assert_allclose(shares, sums.max(0) / sums.sum(0).clip(1e-12), atol=1e-5)


@pytest.mark.parametrize('value', [np.inf, -np.inf, np.nan])
def test_values_that_are_not_finite_stay_where_they_are(value):
    rng = np.random.default_rng(0)
    logits, scores = plain.random_logits(rng, 10, (24, 48)), rng.uniform(0.2, 1, 10)
    logits[4, 10:14, 20:25] = value
    result = postprocess.instance_pixels(logits, scores, CAMERA, 0.5)
    np.testing.assert_array_equal(result, plain.instance_pixels(logits, scores, CAMERA, 0.5))
    contests = (m.panoptic_contest(logits, scores, CAMERA, 0.5) for m in (postprocess, plain))
    for value, plain_value in zip(*contests, strict=True):
        np.testing.assert_array_equal(value, plain_value)


def test_of_equal_products_the_earlier_wins():
    logits = plain.random_logits(np.random.default_rng(3), 1, (24, 48)).expand(3, -1, -1)
    result = postprocess.instance_pixels(logits, np.array([0.5, 0.8, 0.8]), CAMERA, 0.5)
    assert set(np.unique(result)) == {0, 2}


@pytest.mark.parametrize('seed', range(60))
def test_boxes_hold_their_masks_and_regions_are_measured_in_them(seed):
    _, geometry, logits, scores = case(seed)
    grid = (logits.shape[1], logits.shape[2])
    rows, columns = geometry.grid_inside(grid)
    masks = (logits[:, :rows, :columns] >= 0).numpy()
    bounds = bound_masks(map(bound_cells, masks), geometry, grid)
    pixels = postprocess.instance_pixels(logits, scores, geometry, 0.5)
    expected = plain.regions(pixels, len(logits))
    assert postprocess.regions(pixels, len(logits)) == expected
    assert postprocess.regions(pixels, len(logits), bounds) == expected
    for bound, region in zip(bounds, expected, strict=True):
        if region:
            x0, y0, x1, y1 = region[1]
            assert bound.rows.start <= y0 and y1 <= bound.rows.stop
            assert bound.columns.start <= x0 and x1 <= bound.columns.stop
    # Boxes that miss pixels are noticed.
    assert postprocess.regions(pixels, len(logits), [None] * len(logits)) == expected


def test_the_last_logit_outside_a_mask():
    assert last_logit_outside(1.0) == np.inf
    for threshold in (0.0, 1e-30, 0.3, 0.5, 0.7, 0.999999):
        limit = np.float32(last_logit_outside(threshold))
        above = np.nextafter(limit, np.float32(np.inf))
        probs = torch.tensor([[limit], [above]]).expand(2, 64).sigmoid()
        assert (probs > threshold).all(1).tolist() == [False, True]


def test_numbers_are_replaced_by_ids():
    ids = np.array([0, 7, 65535, 300], np.uint16)
    numbers = np.random.default_rng(0).integers(0, 4, (17, 23))
    for dtype in (np.uint8, np.int16):
        result = postprocess.look_up(ids, numbers.astype(dtype))
        assert result.dtype == np.uint16
        np.testing.assert_array_equal(result, ids[numbers])


def test_numbers_are_replaced_by_ids_in_the_boxes_of_their_segments():
    ids, numbers = np.array([0, 7, 65535, 300], np.uint16), np.zeros((17, 23), np.uint8)
    numbers[2:5, 3:9], numbers[4:12, 5:6], numbers[16:, 20:] = 1, 2, 3
    regions = postprocess.regions(numbers, 4)
    assert regions[3] is None
    result = postprocess.look_up(ids, numbers, regions)
    np.testing.assert_array_equal(result, ids[numbers], strict=True)
