"""The outputs of the node: the topic of each, and how its message is built from a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from videomt_ros.inference import draw
from videomt_ros.inference.depth import Place, locate
from videomt_ros.inference.trails import Trails
from videomt_ros.msg import TrackArray
from videomt_ros.ros.consumers import (
    class_mask,
    confidence_image,
    instances_with_classes,
)
from videomt_ros.ros.conversions import image_to_jpeg_msg, image_to_msg, segments_to_msg
from videomt_ros.ros.depth import DepthView
from videomt_ros.ros.parameters import NodeParameters
from videomt_ros.ros.spatial import TrackMarkers, points_to_msg
from videomt_ros.ros.vision_messages import (
    detections3d_to_msg,
    detections_to_msg,
    has_vision_msgs,
)
from videomt_ros.structures import Segments


@dataclass(frozen=True)
class Result:
    """What the messages of one image are built from."""

    image: NDArray[np.uint8]
    """Image, RGB, (H, W, 3)."""
    header: Header
    """Header of the image, which every message gets."""
    segments: Segments
    """Segments of the image."""
    model: str
    """Name of the checkpoint."""
    parameters: NodeParameters
    """Parameters of the camera."""
    camera_info: CameraInfo | None = None
    """The camera_info of the image, with its header; None if the camera sent none."""
    trails: Trails | None = None
    """Where the tracks were in the images before and are in this one; None: not known."""

    markers: TrackMarkers = field(default_factory=TrackMarkers)
    """Writes the markers of the camera."""
    find_depth: Callable[[], DepthView | None] = lambda: None
    """Finds the depth of the image; None if it has none."""
    warning: str = ''
    """Line of text in the overlay; '' for none."""

    @cached_property
    def depth(self) -> DepthView | None:
        """Depth of the image, which is looked for once; None if it has none."""
        return self.find_depth()

    @cached_property
    def places(self) -> Mapping[int, Place]:
        """Place of each track that has a depth, by id, computed once for all topics."""
        if self.depth is None:
            return {}
        return locate(self.segments, self.depth.depth, self.depth.intrinsics)

    @cached_property
    def overlay(self) -> NDArray[np.uint8]:
        """Overlay, RGB, (H, W, 3), which is drawn once for all topics."""
        return draw(self.image, self.segments, trails=self.trails, note=self.warning)


def _build_tracks(result: Result) -> TrackArray:
    return segments_to_msg(result.segments, result.header, result.model, result.places)


def _build_instances(result: Result) -> Image:
    if result.parameters.instance_encoding == '32SC1':
        return image_to_msg(instances_with_classes(result.segments), '32SC1', result.header)
    return image_to_msg(result.segments.ids, 'mono16', result.header)


def _build_semantic(result: Result) -> Image:
    labels = result.segments.semantic()
    encoding = 'mono8' if labels.dtype == np.uint8 else 'mono16'
    return image_to_msg(labels, encoding, result.header)


def _build_overlay(result: Result) -> Image:
    return image_to_msg(result.overlay, 'rgb8', result.header)


def _build_overlay_compressed(result: Result) -> CompressedImage:
    return image_to_jpeg_msg(result.overlay, result.header)


def _build_confidence(result: Result) -> Image:
    return image_to_msg(confidence_image(result.segments), 'mono8', result.header)


def _build_mask(result: Result) -> Image:
    mask = class_mask(result.segments, result.parameters.mask_classes)
    return image_to_msg(mask, 'mono8', result.header)


def _build_camera_info(result: Result) -> CameraInfo | None:
    return result.camera_info


def _build_detections(result: Result) -> Any:
    return detections_to_msg(result.segments, result.header)


def _build_detections3d(result: Result) -> Any:
    return detections3d_to_msg(result.segments, result.places, result.header)


def _build_markers(result: Result) -> MarkerArray:
    return result.markers.build(result.segments, result.places, result.header)


def _build_points(result: Result) -> PointCloud2 | None:
    if result.depth is None:
        return None
    depth, intrinsics = result.depth.depth, result.depth.intrinsics
    return points_to_msg(result.image, result.segments, depth, intrinsics, result.header)


@dataclass(frozen=True)
class Output:
    """One topic, which has a message for every image."""

    topic: str
    """Name of the topic under `segmentation/`."""
    kind: type | str
    """Type of the messages; the name of one of vision_msgs, which may not be installed."""
    build: Callable[[Result], Any]
    """Builds the message of an image; None if there is none to publish."""
    reads_depth: bool = False
    """Whether it holds places, which come from depth."""


OUTPUTS = {
    'tracks': Output('tracks', TrackArray, _build_tracks, reads_depth=True),
    'instances': Output('instances', Image, _build_instances),
    'semantic': Output('semantic', Image, _build_semantic),
    'confidence': Output('confidence', Image, _build_confidence),
    'mask': Output('mask', Image, _build_mask),
    'camera_info': Output('camera_info', CameraInfo, _build_camera_info),
    'detections': Output('detections', 'Detection2DArray', _build_detections),
    'detections3d': Output(
        'detections3d', 'Detection3DArray', _build_detections3d, reads_depth=True
    ),
    'markers': Output('markers', MarkerArray, _build_markers, reads_depth=True),
    'points': Output('points', PointCloud2, _build_points, reads_depth=True),
    'overlay': Output('overlay', Image, _build_overlay),
    'overlay_compressed': Output('overlay/compressed', CompressedImage, _build_overlay_compressed),
}
"""The topics by name. The parameter `publish_` + name switches a topic on and off."""


def find_type(kind: type | str) -> type | None:
    """Find a type of messages; None if it is not installed.

    Args:
        kind: the type, or the name of one of vision_msgs.
    """
    if isinstance(kind, type):
        return kind
    return getattr(import_module('vision_msgs.msg'), kind) if has_vision_msgs() else None


def missing_outputs(parameters: NodeParameters) -> list[str]:
    """List the topics that are switched on and not offered, since vision_msgs is not installed."""
    if has_vision_msgs():
        return []
    topics = {name: o.topic for name, o in OUTPUTS.items() if isinstance(o.kind, str)}
    topics['label_info'] = 'label_info'
    return [
        f'segmentation/{topic}'
        for name, topic in topics.items()
        if getattr(parameters, f'publish_{name}')
    ]
