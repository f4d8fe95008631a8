"""Images that are painted from the segments of a frame, in boxes and as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from videomt_ros.structures import Segment, Segments, TrackState


def random_segments(seed: int, num_classes: int, grow: int = 0) -> Segments:
    """A frame of rectangles over one another, whose boxes are grown by some pixels."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 60, 2)
    ids = np.zeros((height, width), np.uint16)
    numbers = rng.choice(np.arange(1, 65536), int(rng.integers(0, 12)), replace=False)
    for number in numbers:
        y, x = rng.integers(0, height), rng.integers(0, width)
        ids[y : y + rng.integers(1, 40), x : x + rng.integers(1, 40)] = number
    segments = []
    for number in numbers.tolist():
        rows, columns = np.nonzero(ids == number)
        box, is_seen = (0, 0, 1, 1), bool(len(rows))
        if is_seen:
            box = (
                max(0, int(columns.min()) - grow), max(0, int(rows.min()) - grow),
                int(columns.max()) + 1 + grow, int(rows.max()) + 1 + grow,
            )  # fmt: skip
        state = TrackState.CONFIRMED if is_seen else TrackState.LOST
        class_id = int(rng.integers(0, num_classes))
        segments.append(Segment(number, class_id, '', True, 0.5, state, 1, 0, box, len(rows)))
    return Segments(0, ids, tuple(segments), num_classes)


@pytest.mark.parametrize('num_classes', [3, 254, 300])
@pytest.mark.parametrize('grow', [-1, 0, 100])
def test_semantic_images_show_the_class_of_each_id(num_classes, grow):
    for seed in range(30):
        segments = random_segments(seed, num_classes, grow)
        expected = np.full(segments.ids.shape, 255 if num_classes <= 254 else 65535)
        for segment in segments.segments:
            expected[segments.ids == segment.track_id] = segment.class_id
        result = segments.semantic()
        assert result.dtype == (np.uint8 if num_classes <= 254 else np.uint16)
        np.testing.assert_array_equal(result, expected)


def test_values_of_any_width_are_painted():
    segments = random_segments(1, 5)
    image = segments.paint(lambda segment: segment.class_id << 16 | segment.track_id, 0, np.uint32)
    np.testing.assert_array_equal(image & 0xFFFF, segments.ids)
    np.testing.assert_array_equal(np.where(segments.ids, image >> 16, 255), segments.semantic())
