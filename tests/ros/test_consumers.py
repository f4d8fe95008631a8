"""Results in the forms of other packages, on a frame small enough to work out on paper."""

from __future__ import annotations

import numpy as np
import pytest
from std_msgs.msg import Header

from videomt_ros.ros.consumers import (
    class_mask,
    confidence_image,
    instances_with_classes,
)
from videomt_ros.structures import Segment, Segments, TrackState

HEADER = Header(frame_id='camera')


def segment(track_id: int, name: str, score: float, **fields) -> Segment:
    values = {'class_id': 0, 'is_thing': True, 'state': TrackState.CONFIRMED, 'age': 1}
    values |= {'last_seen_ns': 0, 'box': (0, 0, 1, 1), 'area': 1, **fields}
    return Segment(track_id=track_id, class_name=name, score=score, **values)


IDS = np.array([[0, 7, 7, 300], [65535, 65535, 0, 300]], np.uint16)
SEGMENTS = Segments(
    5,
    IDS,
    (
        segment(7, 'person', 1.0, box=(1, 0, 3, 1)),
        segment(300, 'sky', 0.5, class_id=2, is_thing=False, box=(3, 0, 4, 2)),
        segment(65535, 'dog', 0.25, class_id=40_000, box=(0, 1, 2, 2), state=TrackState.TENTATIVE),
        segment(9, 'person', 0.75, state=TrackState.LOST, area=0),
    ),
    3,
)
NOTHING = Segments(5, np.zeros((2, 4), np.uint16), (), 3)


def test_confidence_is_the_score_of_the_segment_that_has_the_pixel():
    image = confidence_image(SEGMENTS)
    # 0.5 and 0.25 of 255 are 127.5 and 63.75; the former is rounded to the even number.
    assert image.dtype == np.uint8
    assert image.tolist() == [[0, 255, 255, 128], [64, 64, 0, 128]]
    assert not confidence_image(NOTHING).any()


@pytest.mark.parametrize(
    ('names', 'ids'),
    [(['person'], [7]), (['sky', 'dog'], [300, 65535]), ([], [7, 65535]), (['cat'], [])],
)
def test_the_mask_has_the_classes_that_were_named_or_all_things(names, ids):
    mask = class_mask(SEGMENTS, names)
    assert mask.dtype == np.uint8
    assert (mask == np.where(np.isin(IDS, ids), 255, 0)).all()


def test_class_and_track_are_one_number():
    image = instances_with_classes(SEGMENTS)
    assert image.dtype == np.int32
    # As Hydra and others read it: two halves of 32 bits.
    halves = image.view(np.uint32)
    assert (halves & 0xFFFF == IDS).all()
    assert (halves >> 16).tolist() == [[0, 0, 0, 2], [40_000, 40_000, 0, 2]]
    assert not instances_with_classes(NOTHING).any()
