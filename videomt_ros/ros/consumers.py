"""Results in the forms that other packages take: Nav2, nvblox, Hydra and users of vision_msgs.

The facts are those of their sources: `ros-navigation/semantic_segmentation_layer` (confidence and
labels), `nvidia-isaac/nvblox` (mask), `MIT-SPARK/semantic_inference` (instances with classes) and
`ros-perception/vision_msgs`. vision_msgs is imported where it is used, since it may be missing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header

from videomt_ros.structures import Segment, Segments, TrackState, unlabelled_id


def has_vision_msgs() -> bool:
    """Whether vision_msgs is installed."""
    try:
        import vision_msgs.msg  # noqa: F401
    except ImportError:
        return False
    return True


def confidence_image(segments: Segments) -> NDArray[np.uint8]:
    """Build an image of confidences: the score of the segment that has the pixel.

    Args:
        segments: the result of a frame.

    Returns:
        (H, W) uint8, the score times 255, rounded; 0 where there is no segment.
    """
    return segments.paint(lambda segment: round(segment.score * 255), 0, np.uint8)


def class_mask(segments: Segments, class_names: Collection[str]) -> NDArray[np.uint8]:
    """Build the mask of some classes.

    Args:
        segments: the result of a frame.
        class_names: names of the classes in the mask; empty: all things.

    Returns:
        (H, W) uint8, 255 inside and 0 elsewhere. nvblox takes all but 0 for masked.
    """

    def value_of(segment: Segment) -> int:
        is_in = segment.class_name in class_names if class_names else segment.is_thing
        return 255 if is_in else 0

    return segments.paint(value_of, 0, np.uint8)


def instances_with_classes(segments: Segments) -> NDArray[np.int32]:
    """Build an image of class and track id in one number, as Hydra and Kimera take it.

    Args:
        segments: the result of a frame.

    Returns:
        (H, W) int32, `class_id << 16 | track_id`; 0 where there is no segment. Track ids begin at
        1, so that no segment has the value 0.
    """
    # Unsigned, since class ids from 32768 on use the bit of the sign.
    image = segments.paint(lambda segment: segment.class_id << 16 | segment.track_id, 0, np.uint32)
    return image.view(np.int32)


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
