"""Frames of unusual sizes and values against the plain rules; see plain_postprocess."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.inference import plain_postprocess as plain
from tests.made_engine import MadeEngine, made_outputs
from videomt_ros.inference import VideoStream, postprocess
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.model import NetworkConfig

SIZES = [(1, 1), (1, 300), (257, 3), (37, 51), (480, 271), (721, 1279)]
"""(height, width): one pixel, lines, less than the input, upright, odd."""
LARGE = (2160, 3840)
CONFIG = NetworkConfig(num_classes=4, num_queries=12, test_size=96, size_divisor=32)


def frame(size, seed, count=6, kind='blobs'):
    """Sizes, logits (N, h, w) and scores of a frame."""
    rng = np.random.default_rng(seed)
    geometry = Geometry.of(size, CONFIG)
    grid = (geometry.padded_size[0] // 4, geometry.padded_size[1] // 4)
    logits = plain.random_logits(rng, count, grid)
    if kind == 'saturated':  # probabilities 0 and 1 all over
        logits = logits * 100
    elif kind == 'flat':
        logits = torch.from_numpy(rng.normal(0, 3, (count, 1, 1))).float().expand(count, *grid)
    elif kind == 'repeated':  # equal scores and equal masks
        logits = logits[torch.arange(count) // 2]
    scores = rng.uniform(0.1, 1, count)
    if kind == 'repeated':
        scores = scores[np.arange(count) // 2]
    return geometry, logits, scores


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('kind', ['blobs', 'saturated', 'flat', 'repeated'])
@pytest.mark.parametrize('threshold', [0.0, 0.5, 1.0])
def test_instances_of_hard_frames(size, kind, threshold):
    geometry, logits, scores = frame(size, 0, kind=kind)
    result = postprocess.instance_pixels(logits, scores, geometry, threshold)
    expected = plain.instance_pixels(logits, scores, geometry, threshold)
    plain.assert_same(result, expected, plain.doubtful(logits, scores, geometry, threshold))


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('kind', ['blobs', 'saturated', 'flat'])
@pytest.mark.parametrize('threshold', [0.0, 0.5, 1.0])
def test_panoptic_segments_of_hard_frames(size, kind, threshold):
    geometry, logits, scores = frame(size, 1, kind=kind)
    check_panoptic(geometry, logits, scores, threshold)


def test_a_large_frame():
    geometry, logits, scores = frame(LARGE, 0)
    check_panoptic(geometry, logits, scores, 0.5)
    result = postprocess.instance_pixels(logits, scores, geometry, 0.5)
    assert (result != plain.instance_pixels(logits, scores, geometry, 0.5)).sum() <= 2


def check_panoptic(geometry, logits, scores, threshold):
    """Compare the contests.

    A probability of 1 is reached or not by the last bits of a sum, so with the threshold 1 some
    pixels of saturated masks may differ, but only those that these bits decide.
    """
    result = postprocess.panoptic_contest(logits, scores, geometry, threshold)
    pixels, won, areas = plain.panoptic_contest(logits, scores, geometry, threshold)
    doubtful = plain.doubtful(logits, scores, geometry, threshold, is_panoptic=True)
    assert np.abs(result.won - won).sum() <= 4
    if threshold < 1:
        plain.assert_same(result.pixels, pixels, doubtful)
        assert np.abs(result.areas - areas).sum() <= 2
        return
    wrong = result.pixels != pixels
    assert not (wrong & ~doubtful).any()
    assert wrong.mean() < 0.02
    assert np.abs(result.areas - areas).sum() < 0.02 * pixels.size


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('kind', ['blobs', 'saturated', 'flat'])
def test_semantic_labels_of_hard_frames(size, kind):
    geometry, logits, _ = frame(size, 2, kind=kind)
    class_logits = torch.from_numpy(np.random.default_rng(2).normal(0, 3, (len(logits), 9)))
    classes, shares = postprocess.semantic_pixels(class_logits, logits, geometry)
    sums = plain.semantic_sums(class_logits, logits, geometry)
    top = np.sort(sums, 0)
    plain.assert_same(classes, sums.argmax(0), top[-1] - top[-2] <= 1e-5 * top[-1])
    np.testing.assert_allclose(shares, sums.max(0) / sums.sum(0).clip(1e-12), atol=1e-5)


@pytest.mark.parametrize('seed', range(80))
def test_small_parts_of_a_panoptic_tile_suffice(seed):
    """Small and large segments over several tiles, some with scores far below the others."""
    rng = np.random.default_rng(seed)
    size = tuple(int(side) for side in rng.integers(100, 400, 2))
    geometry, logits, scores = frame(size, seed, int(rng.integers(1, 20)))
    scores = scores * rng.choice([1.0, 1e-3, 1e-20], len(scores))
    check_panoptic(geometry, logits, scores, float(rng.choice([0.2, 0.5, 0.8])))


class Answers(MadeEngine):
    """An engine that answers with given outputs in turns."""

    config = CONFIG

    def __init__(self, answers):
        self.answers = answers

    def initial_state(self, batch_size=1):
        return torch.zeros(batch_size, 12, 1)

    def step(self, frames, state):
        return self.answers[int(state[0, 0, 0]) % len(self.answers)], state + 1


def answers(size, seed, value=None):
    """Outputs of 4 frames, in which masks move; `value` is put into one mask of each."""
    rng = np.random.default_rng(seed)
    _, logits, _ = frame(size, seed, 12)
    classes = torch.from_numpy(rng.normal(0, 4, (12, 5))).float()
    found = []
    for n in range(4):
        masks = logits.roll(n, 2).clone()
        if value is not None:
            masks[n, : 2 + n, :5] = value
        found.append(made_outputs(classes[None], masks[None]))
    return found


def results(task, size, outputs, **settings):
    """Ids image and segments of 8 frames."""
    given = {'confirm_frames': 1, 'min_area': 1, 'score_threshold': 0.3, **settings}
    stream = VideoStream(Answers(outputs), task, **given)
    image = np.zeros((*size, 3), np.uint8)
    frames = [stream.push(image, t * 10**8) for t in range(8)]
    return [(result.ids.tobytes(), result.segments) for result in frames]


@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('threshold', [0.3, 0.5])
def test_half_precision_gives_what_its_values_give_in_float32(task, dtype, threshold):
    size = (123, 211)
    half = [
        made_outputs(o.class_logits.to(dtype), o.mask_logits.to(dtype)) for o in answers(size, 3)
    ]
    whole = [made_outputs(o.class_logits.float(), o.mask_logits.float()) for o in half]
    expected = results(task, size, whole, mask_threshold=threshold)
    assert results(task, size, half, mask_threshold=threshold) == expected
    assert any(segments for _, segments in expected)


@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
@pytest.mark.parametrize('value', [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize('size', [(37, 51), (480, 271)])
def test_values_that_are_not_finite_are_decided_as_by_whole_images(task, value, size, monkeypatch):
    outputs = answers(size, 4, value)
    found = results(task, size, outputs)
    monkeypatch.setattr(postprocess, 'is_on_host', lambda tensor: False)
    assert [ids for ids, _ in results(task, size, outputs)] == [ids for ids, _ in found]
