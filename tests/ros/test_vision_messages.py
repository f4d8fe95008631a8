"""Messages of vision_msgs, of a frame small enough to work out on paper."""

from __future__ import annotations

import numpy as np
import pytest
from std_msgs.msg import Header

from videomt_ros.inference.depth import Place
from videomt_ros.ros.vision_messages import (
    detections3d_to_msg,
    detections_to_msg,
    label_info_to_msg,
)
from videomt_ros.structures import Segment, Segments, TrackState

HEADER = Header(frame_id='camera')
NOTHING = Segments(5, np.zeros((2, 4), np.uint16), (), 3)
SEGMENTS = Segments(
    5,
    np.array([[0, 7, 7, 300], [0, 0, 0, 300]], np.uint16),
    (
        Segment(7, 0, 'person', True, 1.0, TrackState.CONFIRMED, 1, 0, (1, 0, 3, 1), 2),
        Segment(300, 2, 'sky', False, 0.5, TrackState.TENTATIVE, 1, 0, (3, 0, 4, 2), 2),
        Segment(9, 0, 'person', True, 0.75, TrackState.LOST, 1, 0, (0, 0, 1, 1), 0),
    ),
    3,
)


@pytest.mark.parametrize(('count', 'unlabelled'), [(1, 255), (254, 255), (255, 65535)])
def test_label_info_names_all_ids_of_the_semantic_image(vision_msgs, count, unlabelled):
    names = [f'class {number}' for number in range(count)]
    msg = label_info_to_msg(names, 0.25, HEADER)
    assert isinstance(msg, vision_msgs.LabelInfo)
    assert (msg.header, msg.threshold) == (HEADER, 0.25)
    assert [label.class_id for label in msg.class_map] == [*range(count), unlabelled]
    assert [label.class_name for label in msg.class_map] == [*names, 'UNLABELED']
    assert set(np.unique(Segments(0, NOTHING.ids, (), count).semantic())) == {unlabelled}


def test_detections_are_the_tracks_in_view(vision_msgs):
    msg = detections_to_msg(SEGMENTS, HEADER)
    assert isinstance(msg, vision_msgs.Detection2DArray)
    assert msg.header == HEADER
    assert [detection.id for detection in msg.detections] == ['7', '300']
    first = msg.detections[0]
    assert first.header == HEADER
    assert (first.bbox.center.position.x, first.bbox.center.position.y) == (2.0, 0.5)
    assert (first.bbox.center.theta, first.bbox.size_x, first.bbox.size_y) == (0.0, 2.0, 1.0)
    (result,) = first.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ('person', 1.0)
    assert detections_to_msg(NOTHING, HEADER).detections == []


def test_detections_have_the_place_and_the_visible_size(vision_msgs):
    place = Place((1.0, 2.0, 3.0), (0.5, 0.25, 0.0), (1.0, 2.0, 3.1))
    msg = detections3d_to_msg(SEGMENTS, {300: place}, HEADER)
    assert isinstance(msg, vision_msgs.Detection3DArray)
    assert msg.header == HEADER
    (detection,) = msg.detections
    assert detection.header == HEADER and detection.id == '300'
    box = detection.bbox
    assert (box.center.position.x, box.center.position.y) == (1.0, 2.0)
    assert box.center.position.z == 3.1
    assert (box.size.x, box.size.y, box.size.z) == (0.5, 0.25, 0.0)
    assert box.center.orientation.w == 1
    (result,) = detection.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ('sky', 0.5)
    position = result.pose.pose.position
    assert (position.x, position.y, position.z) == (1.0, 2.0, 3.0)
