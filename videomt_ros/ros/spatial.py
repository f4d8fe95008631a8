"""Messages in space, in the optical frame of the camera: markers and points."""

from __future__ import annotations

import array
from collections.abc import Mapping

import cv2
import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from videomt_ros.inference.depth import Intrinsics, Place, Vector, to_points
from videomt_ros.inference.draw import track_color
from videomt_ros.inference.trails import Trails
from videomt_ros.structures import Segment, Segments, unlabelled_id

MARKER_LIFETIME_S = 2.0
"""Time in seconds after which a viewer removes a marker that is not published again."""
BOXES, NAMES, TRAILS = 'boxes', 'names', 'trails'
"""Namespaces of the markers; ids are track ids."""
_MIN_SIDE_M = 0.01
"""Shortest side of a box in metres: viewers refuse a side of 0, which a plane has."""
_FIELDS = (
    ('x', 0, PointField.FLOAT32),
    ('y', 4, PointField.FLOAT32),
    ('z', 8, PointField.FLOAT32),
    # 0x00RRGGBB in the bits of a float, as PCL, image_proc and rviz have it.
    ('rgb', 12, PointField.FLOAT32),
    ('class', 16, PointField.UINT16),
    ('id', 18, PointField.UINT16),
)
_WORDS = 5
"""Number of words of 32 bits per point."""


def points_to_msg(
    image: NDArray[np.uint8],
    segments: Segments,
    depth: NDArray[np.float32],
    intrinsics: Intrinsics,
    header: Header,
) -> PointCloud2:
    """Write the organised point cloud of an image: one point per pixel, in the same order.

    Args:
        image: RGB, (H, W, 3) uint8.
        segments: the result of the image.
        depth: depth in metres, (H, W); NaN where there is none.
        intrinsics: those of the image.
        header: header of the image.

    Returns:
        The message, with the fields x, y, z (metres, NaN without depth), rgb, class (255 without
        a segment; 65535 for models of more than 254 classes) and id (0 without a segment).
    """
    height, width = depth.shape
    # Written in place, since each copy of so much memory takes several milliseconds.
    data = array.array('B', [0]) * (height * width * 4 * _WORDS)
    points = np.frombuffer(data, '<u4').reshape(height, width, _WORDS)
    to_points(depth, intrinsics, points.view('<f4')[..., :3])
    bgra = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGRA).view('<u4')[..., 0]
    np.bitwise_and(bgra, 0xFFFFFF, out=points[..., 3])
    empty = unlabelled_id(segments.num_classes)
    points[..., 4] = segments.paint(
        lambda segment: segment.class_id | segment.track_id << 16, empty, np.uint32
    )
    msg = PointCloud2(
        header=header,
        height=height,
        width=width,
        fields=[
            PointField(name=name, offset=offset, datatype=kind, count=1)
            for name, offset, kind in _FIELDS
        ],
        is_bigendian=False,
        point_step=4 * _WORDS,
        row_step=4 * _WORDS * width,
        is_dense=False,
    )
    msg.data = data  # the constructor would copy it
    return msg


class TrackMarkers:
    """Writes the markers of one camera: for each thing with a place a box, a name and a trail.

    It remembers which tracks have markers, so that those of tracks that are gone are deleted.
    """

    def __init__(self) -> None:
        self._trails = Trails()
        self._shown: set[int] = set()
        self._resets: int | None = None

    def build(
        self, segments: Segments, places: Mapping[int, Place], header: Header
    ) -> MarkerArray:
        """Write the markers of one image.

        Args:
            segments: the result of the image.
            places: place of each track, by id.
            header: header of the image.

        Returns:
            The message. It begins with a marker that deletes all others at the first image and
            after each reset.
        """
        shown = [s for s in segments.segments if s.is_thing and s.track_id in places]
        ids = {segment.track_id for segment in shown}
        markers = []
        if segments.resets != self._resets:
            markers.append(Marker(header=header, action=Marker.DELETEALL))
            self._shown.clear()
        self._resets = segments.resets
        for track_id in sorted(self._shown - ids):
            for namespace in (BOXES, NAMES, TRAILS):
                markers.append(
                    Marker(header=header, ns=namespace, id=track_id, action=Marker.DELETE)
                )
        self._shown = ids
        positions = {track_id: places[track_id].position for track_id in ids}
        self._trails.update(segments.stamp_ns, positions, segments.resets)
        for segment in shown:
            markers += self._markers_of(segment, places[segment.track_id], header)
        return MarkerArray(markers=markers)

    def _markers_of(self, segment: Segment, place: Place, header: Header) -> list[Marker]:
        red, green, blue = (part / 255 for part in track_color(segment.track_id))

        def marker(namespace: str, kind: int, pose: Pose, color: ColorRGBA) -> Marker:
            seconds, part = divmod(round(MARKER_LIFETIME_S * 1e9), 1_000_000_000)
            lifetime = Duration(sec=seconds, nanosec=part)
            return Marker(
                header=header,
                ns=namespace,
                id=segment.track_id,
                type=kind,
                action=Marker.ADD,
                pose=pose,
                color=color,
                lifetime=lifetime,
            )

        x, y, z = place.box_center
        box = marker(
            BOXES, Marker.CUBE, pose_at((x, y, z)), ColorRGBA(r=red, g=green, b=blue, a=0.4)
        )
        sides = [max(side, _MIN_SIDE_M) for side in place.extent]
        box.scale = Vector3(x=sides[0], y=sides[1], z=sides[2])
        # Letters of the same size in the image, whatever the distance is.
        letter_m = 0.04 * z
        above = (x, y - sides[1] / 2 - letter_m, z)
        name = marker(
            NAMES, Marker.TEXT_VIEW_FACING, pose_at(above), ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
        )
        name.scale.z = letter_m
        name.text = f'{segment.track_id} {segment.class_name} {segment.score:.2f}'
        markers = [box, name]
        points = self._trails.of(segment.track_id).tolist()
        if len(points) > 1:  # a line of one point is refused by rviz
            trail = marker(
                TRAILS,
                Marker.LINE_STRIP,
                pose_at((0.0, 0.0, 0.0)),
                ColorRGBA(r=red, g=green, b=blue, a=1.0),
            )
            trail.scale.x = 0.02
            trail.points = [Point(x=point[0], y=point[1], z=point[2]) for point in points]
            markers.append(trail)
        return markers


def pose_at(position: Vector) -> Pose:
    """Build the pose at a position in metres, without a rotation."""
    x, y, z = position
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(w=1.0))
