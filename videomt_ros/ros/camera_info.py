"""The camera_info beside the images of a camera: its subscription, and the info of each image."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from videomt_ros.ros.conversions import stamp_from_msg

KEPT = 100
"""Number of infos that are kept until the result of their image is there."""
# A best-effort subscription hears reliable publishers too. A lost info costs nothing, since
# that of another image says the same.
_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


def camera_info_topic(image_topic: str) -> str:
    """Name the topic of the infos as image_transport does: `camera_info` beside the images.

    Args:
        image_topic: resolved name of the topic of the raw images.
    """
    return f'{image_topic.rpartition("/")[0]}/camera_info'


class CameraInfos:
    """The infos that one camera sent last.

    The executor's thread stores them, and any thread may ask for them.
    """

    def __init__(self, node: Node, image_topic: str) -> None:
        """Name the topic; `open` subscribes.

        Args:
            node: subscribes.
            image_topic: resolved name of the topic of the raw images.
        """
        self._node = node
        self.topic = camera_info_topic(image_topic)
        """Topic of the infos."""
        self._subscription: Subscription | None = None
        self._by_stamp: OrderedDict[int, CameraInfo] = OrderedDict()
        self._lock = threading.Lock()

    def open(self) -> None:
        """Subscribe, if that was not done yet."""
        if self._subscription is None:
            self._subscription = self._node.create_subscription(
                CameraInfo, self.topic, self._keep, _QOS
            )

    def close(self) -> None:
        """Unsubscribe, and forget all infos."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
        with self._lock:
            self._by_stamp.clear()

    def of_image(self, header: Header) -> CameraInfo | None:
        """Get the info of an image, with the header of that image.

        Args:
            header: header of the image.

        Returns:
            A copy of the info of the same stamp. If there is none, of the one that came last: the
            intrinsics of a camera seldom change. None if none came.
        """
        with self._lock:
            info = self._by_stamp.get(stamp_from_msg(header.stamp))
            if info is None and self._by_stamp:
                info = next(reversed(self._by_stamp.values()))
        if info is None:
            return None
        info = copy.copy(info)
        info.header = header
        return info

    def _keep(self, msg: CameraInfo) -> None:
        stamp_ns = stamp_from_msg(msg.header.stamp)
        with self._lock:
            self._by_stamp[stamp_ns] = msg
            self._by_stamp.move_to_end(stamp_ns)
            if len(self._by_stamp) > KEPT:
                self._by_stamp.popitem(last=False)
