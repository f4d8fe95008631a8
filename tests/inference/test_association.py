"""Detections are measured as by counting cells."""

from __future__ import annotations

import numpy as np
import pytest

from tests.inference.test_grid_masks import random_masks
from videomt_ros.inference.association import build_detections, softmax


def test_detections_are_measured_and_sorted():
    rng = np.random.default_rng(0)
    masks = random_masks(rng, 30, (120, 216))
    masks = masks[masks.any((1, 2))]
    numbers, logits = np.arange(len(masks)), rng.normal(size=(len(masks), 3))
    detections = build_detections(numbers, logits, numbers / 100, masks)
    assert detections.queries.tolist() == numbers[::-1].tolist()
    assert detections.classes.tolist() == logits[::-1, :-1].argmax(1).tolist()
    np.testing.assert_array_equal(detections.class_probs, softmax(logits[::-1]))
    for n, mask in enumerate(masks[::-1]):
        np.testing.assert_array_equal(detections.masks[n].cells(), mask)
        np.testing.assert_allclose(detections.centres[n], np.argwhere(mask).mean(0))
        assert detections.sizes[n] ** 2 == pytest.approx(mask.sum())
