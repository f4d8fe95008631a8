"""Results as the images that other packages take: Nav2, nvblox, Hydra and Kimera.

The facts are those of their sources: `ros-navigation/semantic_segmentation_layer` (confidence),
`nvidia-isaac/nvblox` (mask) and `MIT-SPARK/semantic_inference` (instances with classes).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from videomt_ros.structures import Segment, Segments


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
