"""Decodes depth image messages to metres, without ROS.

The two encodings are those of REP 118 (depth images): `16UC1` in millimetres with 0 for no
measurement, and `32FC1` in metres with NaN.
"""

from __future__ import annotations

import reprlib
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.images import EncodingError, FrameError, read_rows

_BYTES = {'16UC1': 2, 'mono16': 2, '32FC1': 4}
"""Number of bytes per pixel of each encoding."""
_SATURATED = 65535
"""Value of 16 bits that stands for no measurement too: what some cameras send for out of range."""


def decode_depth_image(msg: Any) -> NDArray[np.float32]:
    """Decode a depth `sensor_msgs/Image` of rclpy or of rosbags.

    Rows may be padded (`step` larger than a row), and bytes after the last row are ignored.

    Args:
        msg: message with height, width, step, encoding, is_bigendian and data (an array of
            bytes); `16UC1` or `mono16` in millimetres, `32FC1` in metres.

    Returns:
        Depth along the optical axis in metres, (H, W) float32; NaN where there is none: 0, 65535
        (16 bits), negative, infinite or NaN in the message.

    Raises:
        FrameError: the size is zero, a row does not fit into `step`, or the data end early.
        EncodingError: the encoding is none of these; names the remedy.
    """
    encoding = getattr(msg, 'encoding', None)
    if encoding is None:  # a CompressedImage
        raise EncodingError(
            f'Expected a raw depth image, got a compressed one, {reprlib.repr(msg.format)}. Have '
            'it decoded: ros2 run image_transport republish --ros-args -p '
            'in_transport:=compressedDepth -p out_transport:=raw -r '
            'in/compressedDepth:=<topic>/compressedDepth -r out:=<topic>'
        )
    if encoding not in _BYTES:
        raise EncodingError(
            'Expected a depth image of 16UC1 (millimetres) or 32FC1 (metres), got '
            f'{reprlib.repr(encoding)}. Choose the topic of depth images that are aligned with '
            'the colour image.'
        )
    if not msg.height or not msg.width:
        raise FrameError(
            f'Expected a depth image with pixels, got {msg.width} x {msg.height} pixels.'
        )
    rows = np.ascontiguousarray(read_rows(msg, msg.width * _BYTES[encoding]))
    order = '>' if msg.is_bigendian else '<'
    if encoding == '32FC1':
        depth = rows.view(f'{order}f4').astype(np.float32)
        depth[~((depth > 0) & (depth < np.inf))] = np.nan
        return depth
    values = rows.view(f'{order}u2')
    return np.take(_metres(), values.astype(np.uint16, copy=False))


@lru_cache(maxsize=1)
def _metres() -> NDArray[np.float32]:
    """Build the table of the metres of each number of millimetres, (65536,)."""
    metres = (np.arange(_SATURATED + 1) * 1e-3).astype(np.float32)
    metres[[0, _SATURATED]] = np.nan
    return metres
