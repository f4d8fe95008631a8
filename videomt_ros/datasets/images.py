"""Decodes image messages to RGB, for bags and cameras alike, without ROS.

Encodings are named as in `sensor_msgs/image_encodings.hpp`. `rgb8` is a view of the message, the
others are one OpenCV pass.
"""

from __future__ import annotations

import reprlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_CHANNELS_AND_CODE: dict[str, tuple[int, int | None]] = {
    'rgb8': (3, None),
    'bgr8': (3, cv2.COLOR_BGR2RGB),
    'mono8': (1, cv2.COLOR_GRAY2RGB),
    'rgba8': (4, cv2.COLOR_RGBA2RGB),
    'bgra8': (4, cv2.COLOR_BGRA2RGB),
    # OpenCV's own type names; three channels are BGR to it.
    '8UC1': (1, cv2.COLOR_GRAY2RGB),
    '8UC3': (3, cv2.COLOR_BGR2RGB),
    # What USB cameras send.
    'yuv422': (2, cv2.COLOR_YUV2RGB_UYVY),
    'uyvy': (2, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': (2, cv2.COLOR_YUV2RGB_YUY2),
    'yuyv': (2, cv2.COLOR_YUV2RGB_YUY2),
    # ROS names a mosaic by its first two rows, OpenCV by the second row and column of these.
    'bayer_rggb8': (1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr8': (1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg8': (1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg8': (1, cv2.COLOR_BayerGB2RGB),
}
ENCODINGS = tuple(_CHANNELS_AND_CODE)
"""Names of the encodings that `decode_image` reads."""
_PLANAR = (
    'cv_bridge does not convert it either. Set the camera driver to publish rgb8, bgr8 or yuyv.'
)
_REMEDIES = {
    '16UC1': 'It is an image of depth or temperature. Choose the topic of the colour image.',
    '32FC1': 'It is an image of depth. Choose the topic of the colour image.',
    **dict.fromkeys(('nv12', 'nv21', 'nv24', 'i420', 'yv12'), _PLANAR),
}
"""What to do about encodings that cameras publish and that neither this module nor cv_bridge
reads."""


class FrameError(ValueError):
    """Raised for an image that cannot be used; the text says why."""

    kind = 'data'
    """Word for the kind of fault, under which it is counted."""


class EncodingError(FrameError):
    """Raised for an image whose encoding is not supported here, but may be elsewhere."""

    kind = 'encoding'


def decode_image(msg: Any) -> NDArray[np.uint8]:
    """Decode a `sensor_msgs/Image` of rclpy or of rosbags.

    Rows may be padded (`step` larger than a row), and bytes after the last row are ignored.

    Args:
        msg: message with height, width, step, encoding and data (an array of bytes).

    Returns:
        RGB, (H, W, 3) uint8. A view of the message's data for `rgb8`, so do not write to it.

    Raises:
        FrameError: the size is zero, a row does not fit into `step`, the data end early, or the
            encoding is one that no known converter reads.
        EncodingError: the encoding is another one that is not in `ENCODINGS`.
    """
    height, width, step, size = msg.height, msg.width, msg.step, len(msg.data)
    if not height or not width:
        raise FrameError(f'Expected an image with pixels, got {width} x {height} pixels.')
    if size < step * height:
        raise FrameError(
            f'Expected at least step x height = {step} x {height} = {step * height} bytes of '
            f'data, got {size}.'
        )
    if msg.encoding not in _CHANNELS_AND_CODE:
        text = f'Expected an encoding of {", ".join(ENCODINGS)}, got {reprlib.repr(msg.encoding)}.'
        if msg.encoding in _REMEDIES:
            raise FrameError(f'{text} {_REMEDIES[msg.encoding]}')
        raise EncodingError(text)
    channels, code = _CHANNELS_AND_CODE[msg.encoding]
    if step < width * channels:
        raise FrameError(
            f'Expected a step of at least {width * channels} bytes for {width} pixels of '
            f'{msg.encoding}, got {step}.'
        )
    rows = np.frombuffer(msg.data, np.uint8, count=step * height).reshape(height, step)
    image = rows[:, : width * channels].reshape(height, width, channels)
    if code is None:
        return image
    try:
        return cv2.cvtColor(image, code)
    except cv2.error as error:
        # In YUV 4:2:2 two neighbours share their colour; all else has any size.
        raise FrameError(
            f'Expected an even width for {msg.encoding}, got {width} x {height} pixels.'
        ) from error


def decode_compressed_image(msg: Any) -> NDArray[np.uint8]:
    """Decode a `sensor_msgs/CompressedImage`: JPEG, PNG or another format that OpenCV reads.

    Returns:
        RGB, (H, W, 3) uint8.

    Raises:
        FrameError: the data are no image.
    """
    data = np.frombuffer(msg.data, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise FrameError(
            f'Expected a JPEG or PNG image, got {data.size} bytes of format {msg.format!r} that '
            'OpenCV cannot read.'
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
