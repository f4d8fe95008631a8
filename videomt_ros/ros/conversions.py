"""Convert image messages to arrays and back, and Segments to TrackArray messages.

Every frame passes here, so copies are avoided: an `rgb8` image is a view of its message, the
other common encodings take one pass of OpenCV, and data to publish is an `array.array`, the only
type that rclpy accepts without checking every element. Other encodings are converted by
`cv_bridge`, if it is installed.
"""

from __future__ import annotations

import array
import math
import reprlib
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from videomt_ros.datasets.compressed import decode_compressed_image
from videomt_ros.datasets.images import EncodingError, FrameError, GreyRange, decode_image
from videomt_ros.inference.depth import Place
from videomt_ros.inference.run_lengths import encode_segments
from videomt_ros.msg import Mask, Track, TrackArray
from videomt_ros.structures import Segment, Segments, TrackState

_NOWHERE = Place(*[(math.nan, math.nan, math.nan)] * 3)
JPEG_QUALITY = 80
"""Quality of JPEG images, 0..100. Names and outlines of the overlay stay legible."""


def image_from_msg(
    msg: Image | CompressedImage, grey_range: GreyRange | None = None
) -> NDArray[np.uint8]:
    """Read an image message, raw or compressed.

    Args:
        msg: an image that `datasets.images.decode_image` or `datasets.compressed` reads, or that
            `cv_bridge` converts to `rgb8`.
        grey_range: values of 16-bit images that become 0 and 255; None: their full range. See
            `datasets.images.to_eight_bits`.

    Returns:
        RGB, (H, W, 3) uint8; not to be written to, since for `rgb8` it is a view of the message.

    Raises:
        FrameError: the image cannot be used: it is cut off, too large, of an unknown encoding, or
            the like.
    """
    if isinstance(msg, CompressedImage):
        return decode_compressed_image(msg, grey_range)
    try:
        return decode_image(msg, grey_range)
    except EncodingError as error:
        bridge = _cv_bridge()
        if bridge is None:
            raise FrameError(
                f'{error} Others need cv_bridge: install it (ros-<distro>-cv-bridge), or convert '
                'the images.'
            ) from error
    try:
        return bridge.imgmsg_to_cv2(msg, 'rgb8')
    except Exception as error:  # cv_bridge raises its own error, cv2's, or numpy's
        reason = ' '.join(str(error).split())
        raise FrameError(
            f'cv_bridge found no way from {reprlib.repr(msg.encoding)} to rgb8: {reason}'
        ) from error


def image_to_msg(image: NDArray[Any], encoding: str, header: Header) -> Image:
    """Write an image message.

    Args:
        image: (H, W, 3) uint8 for `rgb8`, uint16 for `rgb16`; (H, W) uint8 for `mono8`, uint16 for
            `mono16`, int32 for `32SC1`.
        encoding: `rgb8`, `rgb16`, `mono8`, `mono16` or `32SC1`.
        header: header of the message.
    """
    expected = {
        'rgb8': (3, np.uint8),
        'rgb16': (3, np.uint16),
        'mono8': (2, np.uint8),
        'mono16': (2, np.uint16),
        '32SC1': (2, np.int32),
    }[encoding]
    assert (image.ndim, image.dtype.type) == expected, (encoding, image.shape, image.dtype)
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(image).reshape(-1).view(np.uint8).data)
    msg = Image(encoding=encoding, header=header)
    msg.height, msg.width = image.shape[:2]
    msg.step = len(data) // msg.height
    msg.is_bigendian = int(sys.byteorder == 'big')
    msg.data = data
    return msg


def image_to_jpeg_msg(image: NDArray[np.uint8], header: Header) -> CompressedImage:
    """Write a JPEG message as image_transport's `compressed` transport does.

    Args:
        image: RGB, (H, W, 3) uint8.
        header: header of the message.
    """
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, code = cv2.imencode('.jpg', bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    data = array.array('B')
    data.frombytes(code.data)
    # The encoding of the image, and that of the pixels which the JPEG was made from.
    return CompressedImage(header=header, format='rgb8; jpeg compressed bgr8', data=data)


def segments_to_msg(
    segments: Segments, header: Header, model: str, places: Mapping[int, Place] | None = None
) -> TrackArray:
    """Write the list of tracks of one frame.

    Args:
        segments: the result of the frame.
        header: header of the image.
        model: name of the checkpoint.
        places: place of each track that has one, by id.
    """
    height, width = segments.ids.shape
    masks = encode_segments(segments)
    return TrackArray(
        header=header,
        model=model,
        height=height,
        width=width,
        resets=segments.resets,
        tracks=[
            _track_to_msg(
                segment,
                height,
                width,
                masks.get(segment.track_id),
                (places or {}).get(segment.track_id, _NOWHERE),
            )
            for segment in segments.segments
        ],
    )


def _track_to_msg(
    segment: Segment, height: int, width: int, counts: str | None, place: Place
) -> Track:
    x0, y0, x1, y1 = segment.box
    (x, y, z), (size_x, size_y, size_z) = place.position, place.extent
    track = Track(
        id=segment.track_id,
        class_id=segment.class_id,
        class_name=segment.class_name,
        is_thing=segment.is_thing,
        score=float(segment.score),
        state=int(segment.state),
        age=segment.age,
        last_seen=stamp_to_msg(segment.last_seen_ns),
        box=RegionOfInterest(x_offset=x0, y_offset=y0, width=x1 - x0, height=y1 - y0),
        area=segment.area,
        position=Point(x=x, y=y, z=z),
        extent=Vector3(x=size_x, y=size_y, z=size_z),
    )
    if counts is not None and segment.state != TrackState.LOST:
        track.mask = Mask(height=height, width=width, counts=counts)
    return track


def stamp_from_msg(stamp: Time) -> int:
    """Convert a stamp to nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def stamp_to_msg(stamp_ns: int) -> Time:
    """Convert nanoseconds to a stamp."""
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    return Time(sec=sec, nanosec=nanosec)


@lru_cache(maxsize=1)
def _cv_bridge() -> Any | None:
    """Create the bridge; None if it is not installed or was built for another numpy."""
    try:
        from cv_bridge import CvBridge
    except (ImportError, AttributeError):
        return None
    return CvBridge()
