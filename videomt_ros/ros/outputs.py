"""The topics that the node publishes for one camera."""

from __future__ import annotations

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


class OutputTopics:
    """Publishers of tracks, instances, semantic and overlay.

    A message is built only if its output is switched on and has a subscriber.
    """

    def __init__(self, node: LifecycleNode, model: str) -> None:
        """Create the publishers under `segmentation/`.

        Args:
            node: lifecycle node, which publishes nothing while it is inactive.
            model: name of the checkpoint, for `TrackArray.model`.
        """
        self._node = node
        self._model = model
        self._publishers: dict[str, LifecyclePublisher] = {
            name: node.create_lifecycle_publisher(kind, f'segmentation/{name}', _QOS)
            for name, kind in (
                ('tracks', TrackArray),
                ('instances', Image),
                ('semantic', Image),
                ('overlay', Image),
            )
        }

    def build(
        self,
        image: NDArray[np.uint8],
        header: Header,
        segments: Segments,
        parameters: NodeParameters,
    ) -> list[tuple[LifecyclePublisher, Any]]:
        """Build the message of each output that is switched on and has a subscriber.

        Args:
            image: RGB, (H, W, 3) uint8.
            header: header of the image, which every message gets.
            segments: the result of the image.
            parameters: the node's parameters, with the switches of the outputs.

        Returns:
            Pairs of a publisher and its message.
        """
        wanted = {
            name: publisher
            for name, publisher in self._publishers.items()
            if getattr(parameters, f'publish_{name}') and publisher.get_subscription_count()
        }
        messages: list[tuple[LifecyclePublisher, Any]] = []
        if 'tracks' in wanted:
            message = segments_to_msg(segments, header, self._model)
            messages.append((wanted['tracks'], message))
        if 'instances' in wanted:
            message = image_to_msg(segments.ids, 'mono16', header)
            messages.append((wanted['instances'], message))
        if 'semantic' in wanted:
            labels = segments.semantic()
            encoding = 'mono8' if labels.dtype == np.uint8 else 'mono16'
            messages.append((wanted['semantic'], image_to_msg(labels, encoding, header)))
        if 'overlay' in wanted:
            message = image_to_msg(draw(image, segments), 'rgb8', header)
            messages.append((wanted['overlay'], message))
        return messages

    def destroy(self) -> None:
        """Remove the publishers from the node."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
