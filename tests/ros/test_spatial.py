"""Markers and points."""

from __future__ import annotations

import array
import math

import numpy as np
import pytest
from sensor_msgs.msg import PointField
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from videomt_ros.inference.depth import Intrinsics, Place, to_points
from videomt_ros.inference.draw import track_color
from videomt_ros.ros.conversions import segments_to_msg
from videomt_ros.ros.spatial import TrackMarkers, points_to_msg
from videomt_ros.structures import Segment, Segments, TrackState

HEADER = Header(frame_id='camera_optical')
HEADER.stamp.sec = 7


def segment(track_id: int, is_thing: bool = True, state=TrackState.CONFIRMED) -> Segment:
    area = 0 if state is TrackState.LOST else 4
    return Segment(
        track_id, 2, 'cat', is_thing, 0.75, state, 5, 0, (0, 0, 2, 2), area
    )  # fmt: skip


def segments_of(*found: Segment, stamp_s: float = 0.0, resets: int = 0) -> Segments:
    ids = np.zeros((4, 6), np.uint16)
    return Segments(round(stamp_s * 1e9), ids, found, 3, resets)


def place(x: float = 1.0, y: float = 2.0, z: float = 3.0) -> Place:
    return Place((x, y, z), (0.5, 0.25, 0.0), (x, y, z + 0.1))


@pytest.mark.parametrize('num_classes', [3, 300])
def test_the_cloud_is_organised_and_has_what_pcl_and_rviz_expect(num_classes):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (4, 6, 3)).astype(np.uint8)
    ids = np.zeros((4, 6), np.uint16)
    ids[1:3, 2:5] = 700
    depth = rng.uniform(0.5, 4, (4, 6)).astype(np.float32)
    depth[2, 3] = np.nan
    camera = Intrinsics(5.0, 6.0, 2.5, 1.5)
    segments = Segments(0, ids, (segment(700),), num_classes)
    msg = points_to_msg(image, segments, depth, camera, HEADER)
    assert msg.header == HEADER
    assert (msg.height, msg.width, msg.point_step, msg.row_step) == (4, 6, 20, 120)
    assert not msg.is_dense
    assert isinstance(msg.data, array.array) and msg.data.typecode == 'B'
    kinds = {field.name: field.datatype for field in msg.fields}
    assert kinds == {
        **dict.fromkeys(('x', 'y', 'z', 'rgb'), PointField.FLOAT32),
        **dict.fromkeys(('class', 'id'), PointField.UINT16),
    }
    order = '>' if msg.is_bigendian else '<'
    types = {PointField.FLOAT32: 'f4', PointField.UINT16: 'u2'}
    cloud = np.frombuffer(
        msg.data,
        np.dtype(
            {
                'names': [field.name for field in msg.fields],
                'formats': [order + types[field.datatype] for field in msg.fields],
                'offsets': [field.offset for field in msg.fields],
                'itemsize': msg.point_step,
            }
        ),
    ).reshape(msg.height, msg.width)
    xyz = np.stack([cloud['x'], cloud['y'], cloud['z']], -1)
    np.testing.assert_array_equal(xyz, to_points(depth, camera))
    assert np.isnan(xyz[2, 3]).all() and np.isfinite(np.delete(xyz.reshape(-1, 3), 15, 0)).all()
    packed = np.ascontiguousarray(cloud['rgb']).view(np.uint32)
    for channel, shift in enumerate((16, 8, 0)):
        np.testing.assert_array_equal(packed >> shift & 255, image[..., channel])
    np.testing.assert_array_equal(cloud['id'], ids)
    unlabelled = 255 if num_classes < 255 else 65535
    np.testing.assert_array_equal(cloud['class'], np.where(ids > 0, 2, unlabelled))


def test_a_thing_has_a_box_a_name_and_then_a_trail():
    markers = TrackMarkers()
    first = markers.build(segments_of(segment(4)), {4: place()}, HEADER).markers
    assert [(m.ns, m.type, m.action) for m in first] == [
        ('', 0, Marker.DELETEALL),
        ('boxes', Marker.CUBE, Marker.ADD),
        ('names', Marker.TEXT_VIEW_FACING, Marker.ADD),
    ]
    _, box, name = first
    center = box.pose.position
    assert (center.x, center.y, center.z) == (1.0, 2.0, pytest.approx(3.1))
    # No side is 0, which viewers refuse.
    assert (box.scale.x, box.scale.y, box.scale.z) == (0.5, 0.25, 0.01)
    colour = [round(part * 255) for part in (box.color.r, box.color.g, box.color.b)]
    assert colour == list(track_color(4))
    assert 0 < box.color.a < 1
    assert name.text == '4 cat 0.75'
    assert name.pose.position.y < 2.0 - 0.125 and name.scale.z > 0 and name.color.a == 1
    later = segments_of(segment(4), stamp_s=0.5)
    second = markers.build(later, {4: place(1.5)}, HEADER).markers
    assert [m.ns for m in second] == ['boxes', 'names', 'trails']
    trail = second[-1]
    assert trail.type == Marker.LINE_STRIP and trail.scale.x > 0
    assert [(p.x, p.y, p.z) for p in trail.points] == [(1.0, 2.0, 3.0), (1.5, 2.0, 3.0)]
    for marker in first + second:
        assert marker.header == HEADER
        if marker.action == Marker.ADD:
            assert marker.id == 4
            assert marker.pose.orientation.w == 1
            assert marker.lifetime.sec + marker.lifetime.nanosec > 0
    for number in range(200):
        segments = segments_of(segment(4), stamp_s=1 + number / 100)
        msg = markers.build(segments, {4: place()}, HEADER)
    assert len(msg.markers[-1].points) <= 64


def test_markers_of_what_is_gone_are_deleted():
    markers = TrackMarkers()
    two = segments_of(segment(1), segment(2), segment(3, is_thing=False))
    places = {1: place(), 2: place(), 3: place()}
    added = markers.build(two, places, HEADER).markers
    assert {m.id for m in added if m.action == Marker.ADD} == {1, 2}  # no box around stuff

    def deleted(msg) -> list[tuple[str, int]]:
        return [(m.ns, m.id) for m in msg.markers if m.action == Marker.DELETE]

    # Track 2 has no depth any more, as if it were lost or gone.
    assert deleted(markers.build(two, {1: place()}, HEADER)) == [
        (namespace, 2) for namespace in ('boxes', 'names', 'trails')
    ]
    assert deleted(markers.build(two, {1: place()}, HEADER)) == []
    assert {id for _, id in deleted(markers.build(segments_of(), {}, HEADER))} == {1}
    assert markers.build(segments_of(), {}, HEADER).markers == []
    # After a reset an id may be another object's: neither its box nor its trail goes on.
    markers.build(segments_of(segment(1)), {1: place()}, HEADER)
    anew = markers.build(segments_of(segment(1), resets=1, stamp_s=0.1), {1: place()}, HEADER)
    assert [m.action for m in anew.markers] == [Marker.DELETEALL, Marker.ADD, Marker.ADD]


def test_tracks_have_a_place_or_nan():
    segments = segments_of(segment(4), segment(5))
    with_place, without = segments_to_msg(segments, HEADER, 'm', {4: place()}).tracks
    position, extent = with_place.position, with_place.extent
    assert (position.x, position.y, position.z) == (1.0, 2.0, 3.0)
    assert (extent.x, extent.y, extent.z) == (0.5, 0.25, 0.0)
    for vector in (without.position, without.extent):
        assert all(map(math.isnan, (vector.x, vector.y, vector.z)))
