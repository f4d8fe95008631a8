"""The publishers of one camera, which publish its outputs to those who listen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from videomt_ros.inference.draw import positions
from videomt_ros.inference.trails import Trails
from videomt_ros.ros.depth import DepthView
from videomt_ros.ros.outputs import OUTPUTS, Result, find_type
from videomt_ros.ros.parameters import NodeParameters
from videomt_ros.ros.spatial import TrackMarkers
from videomt_ros.ros.vision_messages import label_info_to_msg
from videomt_ros.structures import Segments

# A reliable publisher is matched with subscribers of both kinds. A few messages of history cover
# a subscriber's short delay.
_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
# The newest message waits for subscribers that come later.
_LATCHED_QOS = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


class OutputTopics:
    """The publishers of one camera.

    A message is built only if its topic is switched on and has a subscriber.
    """

    def __init__(self, node: LifecycleNode, prefix: str, model: str, warning: str = '') -> None:
        """Create the publishers under `segmentation/` of one camera.

        Args:
            node: lifecycle node, which publishes nothing while it is inactive.
            prefix: what the names of the topics begin with: `front/`, or nothing.
            model: name of the checkpoint, for `TrackArray.model`.
            warning: line of text in the overlay of images that are not drawn; '' for none.
        """
        self._node = node
        self._model, self._warning = model, warning
        self._trails = Trails()
        self._markers = TrackMarkers()
        self._publishers: dict[str, LifecyclePublisher] = {
            name: node.create_lifecycle_publisher(
                kind, f'{prefix}segmentation/{output.topic}', _QOS
            )
            for name, output in OUTPUTS.items()
            if (kind := find_type(output.kind)) is not None
        }

    def build(
        self,
        image: NDArray[np.uint8],
        header: Header,
        segments: Segments,
        parameters: NodeParameters,
        camera_info: CameraInfo | None = None,
        find_depth: Callable[[], DepthView | None] = lambda: None,
    ) -> list[tuple[LifecyclePublisher, Any]]:
        """Build the message of each topic that is switched on and has a subscriber.

        Args:
            image: RGB, (H, W, 3) uint8.
            header: header of the image, which every message gets.
            segments: the result of the image.
            parameters: the parameters of the camera, with the switches of the topics.
            camera_info: camera_info of the image, with its header, if the camera sent any.
            find_depth: finds the depth of the image, None if it has none; called at most once,
                and only if a message needs it.

        Returns:
            Pairs of a publisher and its message.
        """
        self._trails.update(segments.stamp_ns, positions(segments), segments.resets)
        result = Result(
            image,
            header,
            segments,
            self._model,
            parameters,
            camera_info,
            self._trails,
            self._markers,
            find_depth,
            warning='' if parameters.drawn_images else self._warning,
        )
        messages = []
        for name in self._wanted(parameters):
            message = OUTPUTS[name].build(result)
            if message is not None:
                messages.append((self._publishers[name], message))
        return messages

    def reads_depth(self, parameters: NodeParameters) -> bool:
        """Whether a topic that holds places is switched on and has a subscriber."""
        return any(OUTPUTS[name].reads_depth for name in self._wanted(parameters))

    def _wanted(self, parameters: NodeParameters) -> list[str]:
        """List the topics that are switched on and have a subscriber."""
        return [
            name
            for name, publisher in self._publishers.items()
            if getattr(parameters, f'publish_{name}') and publisher.get_subscription_count()
        ]

    def destroy(self) -> None:
        """Remove the publishers from the node."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()


class LabelTopic:
    """The topic `segmentation/label_info`: names of the class ids, also for late subscribers.

    Only where vision_msgs is installed; elsewhere it does nothing.
    """

    def __init__(self, node: LifecycleNode, prefix: str, class_names: Sequence[str]) -> None:
        """Create the publisher.

        Args:
            node: node that publishes.
            prefix: what the name of the topic begins with: `front/`, or nothing.
            class_names: names of the model's classes, in the order of their ids.
        """
        self._node = node
        self._class_names = class_names
        self._threshold: float | None = None
        self._publisher: Publisher | None = None
        kind = find_type('LabelInfo')
        if kind is not None:
            # No lifecycle publisher, which has no message before the node is active.
            self._publisher = node.create_publisher(
                kind, f'{prefix}segmentation/label_info', _LATCHED_QOS
            )

    def publish(self, threshold: float) -> None:
        """Publish the names, if that was not done yet with this threshold.

        Args:
            threshold: lowest score of a segment, 0..1.
        """
        if self._publisher is not None and threshold != self._threshold:
            header = Header(stamp=self._node.get_clock().now().to_msg())
            self._publisher.publish(label_info_to_msg(self._class_names, threshold, header))
            self._threshold = threshold

    def destroy(self) -> None:
        """Remove the publisher from the node."""
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
            self._publisher = None
