"""Messages of vision_msgs: the names of the classes, and detections in the image and in space.

vision_msgs is imported where it is used, since it may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geometry_msgs.msg import Vector3
from std_msgs.msg import Header

from videomt_ros.inference.depth import Place
from videomt_ros.ros.spatial import pose_at
from videomt_ros.structures import Segments, TrackState, unlabelled_id


def has_vision_msgs() -> bool:
    """Whether vision_msgs is installed."""
    try:
        import vision_msgs.msg  # noqa: F401
    except ImportError:
        return False
    return True


def label_info_to_msg(class_names: Sequence[str], threshold: float, header: Header) -> Any:
    """Write the names of the class ids as vision_msgs/LabelInfo.

    Args:
        class_names: names of the model's classes, in the order of their ids.
        threshold: lowest score of a segment, 0..1.
        header: header of the message.

    Returns:
        The message, with the id of unlabelled pixels as its last class, `UNLABELED`.
    """
    from vision_msgs.msg import LabelInfo, VisionClass

    names = [*enumerate(class_names), (unlabelled_id(len(class_names)), 'UNLABELED')]
    return LabelInfo(
        header=header,
        class_map=[VisionClass(class_id=number, class_name=name) for number, name in names],
        threshold=threshold,
    )


def detections_to_msg(segments: Segments, header: Header) -> Any:
    """Write the segments that are in view as vision_msgs/Detection2DArray, by falling score.

    Args:
        segments: the result of a frame.
        header: header of the image.

    Returns:
        The message. Ids are track ids, and the `class_id` of a hypothesis is the name of the
        class.
    """
    from vision_msgs.msg import (
        BoundingBox2D,
        Detection2D,
        Detection2DArray,
        ObjectHypothesis,
        ObjectHypothesisWithPose,
        Point2D,
        Pose2D,
    )

    detections = []
    for segment in segments.segments:
        if segment.state is TrackState.LOST:
            continue
        x0, y0, x1, y1 = segment.box
        center = Pose2D(position=Point2D(x=(x0 + x1) / 2, y=(y0 + y1) / 2))
        hypothesis = ObjectHypothesis(class_id=segment.class_name, score=float(segment.score))
        detections.append(
            Detection2D(
                header=header,
                results=[ObjectHypothesisWithPose(hypothesis=hypothesis)],
                bbox=BoundingBox2D(center=center, size_x=float(x1 - x0), size_y=float(y1 - y0)),
                id=str(segment.track_id),
            )
        )
    return Detection2DArray(header=header, detections=detections)


def detections3d_to_msg(segments: Segments, places: Mapping[int, Place], header: Header) -> Any:
    """Write the segments with a place as vision_msgs/Detection3DArray, by falling score.

    Args:
        segments: the result of a frame.
        places: place of each track, by id.
        header: header of the image.

    Returns:
        The message. Ids are track ids, and the `class_id` of a hypothesis is the name of the
        class; the pose of the hypothesis is the position of the track, without orientation and
        with covariance 0 (not known). A box holds the visible part of an object.
    """
    from vision_msgs.msg import (
        BoundingBox3D,
        Detection3D,
        Detection3DArray,
        ObjectHypothesis,
        ObjectHypothesisWithPose,
    )

    detections = []
    for segment in segments.segments:
        place = places.get(segment.track_id)
        if place is None:
            continue
        result = ObjectHypothesisWithPose(
            hypothesis=ObjectHypothesis(class_id=segment.class_name, score=float(segment.score))
        )
        result.pose.pose = pose_at(place.position)
        x, y, z = place.extent
        box = BoundingBox3D(center=pose_at(place.box_center), size=Vector3(x=x, y=y, z=z))
        detections.append(
            Detection3D(header=header, results=[result], bbox=box, id=str(segment.track_id))
        )
    return Detection3DArray(header=header, detections=detections)
