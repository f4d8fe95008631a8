"""The topics that the node publishes for one camera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from videomt_ros.inference import draw
from videomt_ros.msg import TrackArray
from videomt_ros.ros.conversions import image_to_msg, segments_to_msg
from videomt_ros.ros.parameters import NodeParameters
from videomt_ros.structures import Segments

# A reliable publisher is matched with subscribers of both kinds. A few messages of history cover
# a subscriber's short delay.
_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)


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


def _build_tracks(result: Result) -> TrackArray:
    return segments_to_msg(result.segments, result.header, result.model)


def _build_instances(result: Result) -> Image:
    return image_to_msg(result.segments.ids, 'mono16', result.header)


def _build_semantic(result: Result) -> Image:
    labels = result.segments.semantic()
    encoding = 'mono8' if labels.dtype == np.uint8 else 'mono16'
    return image_to_msg(labels, encoding, result.header)


def _build_overlay(result: Result) -> Image:
    return image_to_msg(draw(result.image, result.segments), 'rgb8', result.header)


OUTPUTS: dict[str, tuple[type, Callable[[Result], Any]]] = {
    'tracks': (TrackArray, _build_tracks),
    'instances': (Image, _build_instances),
    'semantic': (Image, _build_semantic),
    'overlay': (Image, _build_overlay),
}
"""Type of each topic under `segmentation/`, and the function that builds its messages. The
parameter `publish_` + name switches a topic on and off."""


class OutputTopics:
    """The publishers of one camera.

    A message is built only if its topic is switched on and has a subscriber.
    """

    def __init__(self, node: LifecycleNode, prefix: str, model: str) -> None:
        """Create the publishers under `segmentation/` of one camera.

        Args:
            node: lifecycle node, which publishes nothing while it is inactive.
            prefix: what the names of the topics begin with: `front/`, or nothing.
            model: name of the checkpoint, for `TrackArray.model`.
        """
        self._node = node
        self._model = model
        self._publishers: dict[str, LifecyclePublisher] = {
            name: node.create_lifecycle_publisher(kind, f'{prefix}segmentation/{name}', _QOS)
            for name, (kind, _) in OUTPUTS.items()
        }

    def build(
        self,
        image: NDArray[np.uint8],
        header: Header,
        segments: Segments,
        parameters: NodeParameters,
    ) -> list[tuple[LifecyclePublisher, Any]]:
        """Build the message of each topic that is switched on and has a subscriber.

        Args:
            image: RGB, (H, W, 3) uint8.
            header: header of the image, which every message gets.
            segments: the result of the image.
            parameters: the parameters of the camera, with the switches of the topics.

        Returns:
            Pairs of a publisher and its message.
        """
        result = Result(image, header, segments, self._model)
        messages = []
        for name, publisher in self._publishers.items():
            if getattr(parameters, f'publish_{name}') and publisher.get_subscription_count():
                _, build = OUTPUTS[name]
                messages.append((publisher, build(result)))
        return messages

    def destroy(self) -> None:
        """Remove the publishers from the node."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
