"""Depth images beside the images of a camera: their subscription, and the one of each image."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from videomt_ros.datasets.depth_images import decode_depth_image
from videomt_ros.datasets.images import FrameError
from videomt_ros.inference.depth import Intrinsics, fit_depth
from videomt_ros.ros.conversions import stamp_from_msg
from videomt_ros.ros.health import ImageCounts
from videomt_ros.ros.logs import Throttle
from videomt_ros.ros.subscription import WARNING_PERIOD_S

KEPT = 8
"""Number of depth images that are kept until the network begins with an image. One of 1280 x 720
pixels takes up to 4 MB."""
_EXPECTED = 2
"""Number of images in progress at a time, with a pipeline."""
GRACE_S = 2.0
"""Time after subscribing, in seconds, in which a missing depth image is counted but not told."""
# A best-effort subscription hears reliable publishers too.
_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


@dataclass(frozen=True)
class DepthView:
    """Depth of an image, pixel by pixel."""

    depth: NDArray[np.float32]
    """Depth along the optical axis in metres, (H, W) as the image; NaN where there is none."""
    intrinsics: Intrinsics
    """Intrinsics of the image."""


def intrinsics_from_msg(
    info: CameraInfo, size: tuple[int, int], is_rectified: bool = False
) -> Intrinsics:
    """Read the intrinsics of an image.

    `K` and `P` hold for the full resolution of the sensor. The region of interest shifts the
    optical axis; binning, and any other resizing, is the ratio of the size of the image to that
    of the region. Lens distortion is ignored.

    Args:
        info: camera_info of the image.
        size: (H, W) of the image.
        is_rectified: whether the image is rectified: then `P` counts, if it is set, else `K`.

    Raises:
        ValueError: there are no intrinsics, or they are for an image of another aspect ratio.
    """
    fx, fy, cx, cy = info.k[0], info.k[4], info.k[2], info.k[5]
    if is_rectified and info.p[0]:
        fx, fy, cx, cy = info.p[0], info.p[5], info.p[2], info.p[6]
    if not fx or not fy:
        raise ValueError(
            'K of the camera_info is zero, which means that the camera is not calibrated. '
            'Calibrate it (ros2 run camera_calibration cameracalibrator), or publish its K.'
        )
    height, width = size
    full_width, full_height = info.width or width, info.height or height
    if info.roi.width and info.roi.height:
        full_width, full_height = info.roi.width, info.roi.height
        cx, cy = cx - info.roi.x_offset, cy - info.roi.y_offset
    x, y = width / full_width, height / full_height
    ratio = (x * max(info.binning_x, 1)) / (y * max(info.binning_y, 1))
    if not 0.99 <= ratio <= 1.01:
        raise ValueError(
            f'The camera_info is for images of {full_width} x {full_height} pixels, and the '
            f'image has {width} x {height}. Publish the camera_info of this image.'
        )
    return Intrinsics(fx, fy, cx, cy).scaled(x, y)


class DepthImages:
    """The depth images that one camera sent last.

    The executor's thread stores them; `find` is for the worker's thread.
    """

    def __init__(self, node: Node, topic: str, image_topic: str, health: ImageCounts) -> None:
        """Name the topic; `open` subscribes.

        Args:
            node: subscribes.
            topic: name of the topic of the depth images, which a user may have remapped.
            image_topic: resolved name of the topic of the images, which tells whether they are
                rectified: then `image_rect` is in it, as image_proc and RealSense name it.
            health: counts the images with depth and those without.
        """
        self._node = node
        self._name = topic
        self._topic = node.resolve_topic_name(topic)
        self._is_rectified = 'image_rect' in image_topic
        self._subscription: Subscription | None = None
        self._recent: deque[Image] = deque(maxlen=KEPT)
        # The depth image nearest to each image with which the network began, however long ago it
        # came, by the stamp of the image.
        self._nearest: OrderedDict[int, Image | None] = OrderedDict()
        self._lock = threading.Lock()
        self._opened_s = 0.0
        self._miss = self._fault = ''
        self._foreign_frame = ''
        self._health = health
        self._throttle = Throttle(WARNING_PERIOD_S)
        self.troubles: list[str] = []
        """What is wrong with the depth images, with the remedy."""

    @property
    def is_open(self) -> bool:
        """Whether depth images are received."""
        return self._subscription is not None

    def open(self) -> None:
        """Subscribe, if that was not done yet."""
        if self._subscription is None:
            self._opened_s = time.monotonic()
            self._subscription = self._node.create_subscription(
                Image, self._topic, self._keep, _QOS
            )

    def close(self) -> None:
        """Unsubscribe, and forget all depth images."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
        with self._lock:
            self._recent.clear()
            self._nearest.clear()
        self._miss = self._foreign_frame = ''
        self.troubles = []

    def expect(self, header: Header) -> None:
        """Keep the depth of an image until `find`, however many depth images come meanwhile.

        Args:
            header: header of the image with which the network begins.
        """
        if self.is_open:
            with self._lock:
                stamp_ns = stamp_from_msg(header.stamp)
                self._nearest[stamp_ns] = self._nearest_to(stamp_ns)
                self._nearest.move_to_end(stamp_ns)
                if len(self._nearest) > _EXPECTED:
                    self._nearest.popitem(last=False)

    def find(
        self, header: Header, size: tuple[int, int], info: CameraInfo | None, tolerance_s: float
    ) -> DepthView | None:
        """Find the depth of an image, and count whether there is one.

        It never waits for a depth image: one that comes after the result of its image is not
        used.

        Args:
            header: header of the image.
            size: (H, W) of the image.
            info: camera_info of the image, if the camera sent any.
            tolerance_s: largest difference of the stamps, in seconds.

        Returns:
            The depth image of the nearest stamp, of several the newest; None if there is none
            within the tolerance, or if it cannot be used.
        """
        if not self.is_open:
            return None
        stamp_ns = stamp_from_msg(header.stamp)
        with self._lock:
            is_expected = stamp_ns in self._nearest
            nearest = self._nearest[stamp_ns] if is_expected else self._nearest_to(stamp_ns)
        if nearest is None:
            self._missed('no_depth')
            return None
        frame = nearest.header.frame_id
        self._foreign_frame = '' if frame in ('', header.frame_id) else frame
        difference_s = abs(stamp_from_msg(nearest.header.stamp) - stamp_ns) * 1e-9
        if difference_s > tolerance_s:
            self._missed(
                'stamps',
                f'The nearest stamp of {self._topic} is {difference_s:.3f} s from that of the '
                f'image, above depth_tolerance_s = {tolerance_s:g}. Raise it, or have the camera '
                'send both at one time.',
            )
            return None
        if info is None:
            self._missed('no_camera_info')
            return None
        try:
            intrinsics = intrinsics_from_msg(info, size, self._is_rectified)
            depth = fit_depth(decode_depth_image(nearest), size)
        except (FrameError, ValueError) as error:
            self._missed('unusable', str(error))
            return None
        self._health.count_depth('found')
        self._miss = ''
        return DepthView(depth, intrinsics)

    def follow_publishers(self, camera_info_topic: str) -> None:
        """Warn of what is wrong with the depth images.

        Args:
            camera_info_topic: topic of the camera_info.
        """
        trouble = self._explain(camera_info_topic)
        self.troubles = [trouble] if trouble else []
        if trouble and self._throttle.allows(trouble):
            self._node.get_logger().warning(trouble)

    def _explain(self, camera_info_topic: str) -> str:
        """Say why the newest image has no depth, or what is wrong with it; empty if nothing is."""
        miss = self._miss
        if not self.is_open or time.monotonic() - self._opened_s < GRACE_S:
            return ''
        if miss == 'no_depth':
            return f'No depth: {self._explain_silence()}'
        if miss == 'no_camera_info':
            return (
                f'No depth: no camera_info came on {camera_info_topic}. Remap it, by its full '
                'name, to the topic of the camera.'
            )
        if miss:
            return f'No depth: {self._fault}'
        if self._foreign_frame:
            return (
                f'The depth images are in the frame {self._foreign_frame}, the images in another. '
                'Choose depth that is aligned with the image, as '
                'aligned_depth_to_color/image_raw of a RealSense.'
            )
        return ''

    def _explain_silence(self) -> str:
        text = f'no image came on {self._topic}'
        remap = f'Remap {self._name} to the topic of depth images aligned with the image.'
        publishers: list[Any] = self._node.get_publishers_info_by_topic(self._topic)
        if not publishers:
            return f'{text}, and nobody publishes it. {remap}'
        kinds = {info.topic_type for info in publishers}
        if kinds == {'sensor_msgs/msg/CompressedImage'}:
            return (
                f'{text}: its images are compressed. Decompress them: `ros2 run image_transport '
                'republish --ros-args -p in_transport:=compressedDepth -p out_transport:=raw -r '
                f'in/compressedDepth:={self._topic} -r out:={self._topic}/raw`.'
            )
        if 'sensor_msgs/msg/Image' not in kinds:
            return f'{text}: its type is {min(kinds)}. {remap}'
        return f'{text} yet.'

    def _missed(self, kind: str, fault: str = '') -> None:
        self._fault, self._miss = fault, kind
        self._health.count_depth(kind)

    def _keep(self, msg: Image) -> None:
        with self._lock:
            self._recent.append(msg)
            for stamp_ns, nearest in self._nearest.items():
                rivals = [msg] if nearest is None else [msg, nearest]
                self._nearest[stamp_ns] = _nearest(rivals, stamp_ns)

    def _nearest_to(self, stamp_ns: int) -> Image | None:
        return _nearest(reversed(self._recent), stamp_ns)


def _nearest(newest_first: Iterable[Image], stamp_ns: int) -> Image | None:
    """Get the image of the nearest stamp, of several the newest."""
    return min(
        newest_first,
        key=lambda msg: abs(stamp_from_msg(msg.header.stamp) - stamp_ns),
        default=None,
    )
