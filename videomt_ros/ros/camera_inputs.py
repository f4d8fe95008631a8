"""What one camera sends: its images, their camera_info and their depth images."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from videomt_ros.ros.camera_info import CameraInfos
from videomt_ros.ros.depth import DepthImages, DepthView
from videomt_ros.ros.health import ImageCounts
from videomt_ros.ros.parameters import NodeParameters
from videomt_ros.ros.subscription import ImageSubscription
from videomt_ros.ros.transports import AnyImage


class CameraInputs:
    """The subscriptions to one camera, which are opened and closed together.

    The executor's thread opens and closes them; the worker's thread asks for the camera_info and
    the depth of an image.
    """

    def __init__(
        self,
        node: LifecycleNode,
        prefix: str,
        receive: Callable[[AnyImage], None],
        parameters: NodeParameters,
        health: ImageCounts,
    ) -> None:
        """Name the topics; `open` subscribes.

        Args:
            node: node that subscribes.
            prefix: what the names of the topics begin with: `front/`, or nothing.
            receive: called with each image of the publisher that is heard.
            parameters: parameters of the camera: `transport` and the QoS.
            health: counts the images of other publishers, those that were lost, and depth images.
        """
        name = f'{prefix}image_raw'
        image_topic = node.resolve_topic_name(name)
        self._health = health
        self._infos = CameraInfos(node, image_topic)
        self._depth = DepthImages(node, f'{prefix}depth/image_raw', image_topic, health)
        self._images = ImageSubscription(node, name, receive, self._ignore, parameters, health)

    @property
    def is_open(self) -> bool:
        """Whether images are received."""
        return self._images.is_open

    @property
    def troubles(self) -> list[str]:
        """What is wrong with the publishers of images and depth, with the remedies."""
        return self._images.troubles + self._depth.troubles

    @property
    def silent_s(self) -> float | None:
        """Time in seconds for which no image came; None while none is expected."""
        return self._images.silent_s

    def open(self) -> None:
        """Subscribe to the images; `listen` does so to the others."""
        self._images.open()

    def close(self) -> None:
        """Unsubscribe from all topics."""
        self._images.close()
        self._infos.close()
        self._depth.close()

    def listen(self, to_camera_info: bool, to_depth: bool) -> None:
        """Subscribe to camera_info and depth images where these are wanted, else unsubscribe."""
        if to_depth:
            self._depth.open()
        else:
            self._depth.close()
        if to_camera_info:
            self._infos.open()
        else:
            self._infos.close()

    def follow_publishers(self, parameters: NodeParameters) -> None:
        """Adopt the QoS of the publishers, and warn of what is wrong with them."""
        self._images.follow_publishers(parameters.warn_silence_s, parameters.warn_lost_share)
        self._depth.follow_publishers(self._infos.topic)

    def expect(self, header: Header) -> None:
        """Keep the depth image of an image with which the network begins, by its header."""
        self._depth.expect(header)

    def camera_info_of(self, header: Header) -> CameraInfo | None:
        """Get the camera_info of an image; see `CameraInfos.of_image`."""
        return self._infos.of_image(header)

    def find_depth(
        self, header: Header, size: tuple[int, int], info: CameraInfo | None, tolerance_s: float
    ) -> DepthView | None:
        """Find the depth of an image; see `DepthImages.find`."""
        return self._depth.find(header, size, info, tolerance_s)

    def _ignore(self, msg: AnyImage) -> None:
        """Count an image of a publisher that is not heard."""
        del msg
        self._health.count_received()
        self._health.count_dropped('other_publisher')
