"""The tensor code of a GPU, run on a CPU, against whole images one by one; see plain_postprocess.

Both are equal but for pixels that the last bit of a sigmoid or a sum decides, which torch rounds
in a way that depends on the place of a value in memory, and on the device.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.inference import plain_postprocess as plain
from tests.inference.test_instance_contest import CAMERA, case
from videomt_ros.inference import postprocess, tensor_contest
from videomt_ros.inference.tensor_contest import (
    drop_covered,
    instance_winners,
    panoptic_winners,
    semantic_winners,
)

DEVICES = ['cpu', pytest.param('cuda', marks=pytest.mark.gpu)]


@pytest.fixture(params=[1, 3, 100], autouse=True)
def part_size(request, monkeypatch):
    """The number of masks that are computed at once."""
    monkeypatch.setattr(tensor_contest, '_part_size', lambda geometry: request.param)


def on(device, *arrays):
    """Tensors of a device; scores as float32, as products with them are rounded."""
    tensors = (torch.as_tensor(array) for array in arrays)
    return [t.to(device, torch.float32) for t in tensors]


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('seed', range(40))
@pytest.mark.parametrize('threshold', [0.0, 0.5, 0.7])
def test_instances_are_those_of_whole_images(seed, threshold, device):
    _, geometry, logits, scores = case(seed)
    result = instance_winners(*on(device, logits, scores), geometry, threshold).cpu().numpy()
    if not len(logits):
        assert not result.any()
        return
    expected = plain.instance_pixels(logits, scores, geometry, threshold)
    doubtful = plain.doubtful(logits, scores, geometry, threshold)
    plain.assert_same(result, expected, doubtful)
    assert result.dtype == np.uint8


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('seed', range(40))
@pytest.mark.parametrize('threshold', [0.0, 0.5])
def test_panoptic_contests_are_those_of_whole_images(seed, threshold, device):
    rng, geometry, logits, scores = case(seed)
    scores = rng.uniform(0.1, 1, len(scores))  # else the last bit decides between equals
    found = panoptic_winners(*on(device, logits, scores), geometry, threshold)
    if not len(logits):
        assert not found[0].any()
        return
    pixels, won, areas = (value.cpu().numpy() for value in found)
    expected = plain.panoptic_contest(logits, scores, geometry, threshold)
    doubtful = plain.doubtful(logits, scores, geometry, threshold, is_panoptic=True)
    plain.assert_same(pixels, expected[0], doubtful)
    assert np.abs(won - expected[1]).sum() <= 4
    assert np.abs(areas - expected[2]).sum() <= 2


@pytest.mark.parametrize('overlap', [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize('seed', range(10))
def test_covered_segments_are_dropped_as_on_a_cpu(seed, overlap):
    rng, geometry, logits, scores = case(seed)
    scores = rng.uniform(0.1, 1, len(scores))
    expected = postprocess.panoptic_pixels(logits, scores, geometry, 0.5, overlap)
    contest = panoptic_winners(*on('cpu', logits, scores), geometry, 0.5)
    result = drop_covered(*contest, overlap)
    assert (result.numpy() != expected).sum() <= 2
    assert result.dtype == torch.uint8


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('seed', range(40))
def test_classes_are_those_of_whole_images(seed, device):
    rng, geometry, logits, _ = case(seed)
    if not len(logits):
        return
    num_classes = int(rng.choice([1, 2, 5, 124]))
    class_logits = torch.tensor(rng.normal(size=(len(logits), num_classes + 1)) * 3)
    class_probs = class_logits.float().softmax(-1)[:, :-1]
    found = semantic_winners(*on(device, class_probs, logits), geometry)
    classes, shares = (value.cpu().numpy() for value in found)
    sums = plain.semantic_sums(class_logits, logits, geometry)
    top = np.sort(sums, 0)
    is_clear = top[-1] - (top[-2] if num_classes > 1 else 0) > 1e-5 * top[-1]
    plain.assert_same(classes, sums.argmax(0), ~is_clear)
    np.testing.assert_allclose(shares, sums.max(0) / sums.sum(0).clip(1e-12), atol=1e-5)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('value', [np.inf, -np.inf, np.nan])
def test_values_that_are_not_finite_stay_where_they_are(value, device):
    rng = np.random.default_rng(0)
    logits, scores = plain.random_logits(rng, 10, (24, 48)), rng.uniform(0.2, 1, 10)
    logits[4, 10:14, 20:25] = value
    logits[7, 3, 5] = value
    args = *on(device, logits, scores), CAMERA, 0.5, False
    result = instance_winners(*args).cpu().numpy()
    expected = plain.instance_pixels(logits, scores, CAMERA, 0.5)
    assert (result != expected).sum() <= 2
    found = [part.cpu().numpy() for part in panoptic_winners(*args)]
    for part, plain_part in zip(
        found, plain.panoptic_contest(logits, scores, CAMERA, 0.5), strict=True
    ):
        assert (part != plain_part).sum() <= 4


def test_more_segments_than_a_byte_counts():
    rng = np.random.default_rng(0)
    logits, scores = plain.random_logits(rng, 300, (24, 48)), rng.uniform(0.2, 1, 300)
    result = instance_winners(*on('cpu', logits, scores), CAMERA, 0.5)
    assert result.dtype == torch.int16
    np.testing.assert_array_equal(
        result.numpy(), plain.instance_pixels(logits, scores, CAMERA, 0.5)
    )
