"""Decodes raw image messages to RGB, for bags and cameras alike, without ROS.

Encodings are named as in `sensor_msgs/image_encodings.hpp`; `i420`, `yv12` and `yuv420`, which it
lacks, as camera drivers name them. `rgb8` is a view of the message, the other common encodings
are one OpenCV pass. YUV has video levels (ITU-R BT.601), as OpenCV takes it.

Letters: H W image size in pixels, C channels.
"""

from __future__ import annotations

import reprlib
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

GreyRange = tuple[int, int]
"""Values (low, high) of 16-bit images that become 0 and 255; 0 <= low < high <= 65535."""


class _Packed(NamedTuple):
    """Layout of an encoding that keeps the channels of a pixel together."""

    channels: int
    code: int | None = None
    """Code of `cv2.cvtColor` that makes RGB; None if it is RGB."""
    num_bytes: int = 1
    """Bytes per value."""
    is_mosaic: bool = False
    shares_colour: bool = False
    """Whether two neighbours in a row share their colour (YUV 4:2:2)."""


class _Planar(NamedTuple):
    """Layout of an encoding whose brightness is a plane of its own, followed by the colour."""

    is_interleaved: bool
    """Whether U and V alternate in one plane, or have a plane each."""
    has_v_first: bool


# ROS names a mosaic by its first two rows, OpenCV by the second row and column of these.
_MOSAICS = {
    'bayer_rggb': cv2.COLOR_BayerBG2RGB,
    'bayer_bggr': cv2.COLOR_BayerRG2RGB,
    'bayer_gbrg': cv2.COLOR_BayerGR2RGB,
    'bayer_grbg': cv2.COLOR_BayerGB2RGB,
}
_PACKED = {
    'rgb8': _Packed(3),
    'bgr8': _Packed(3, cv2.COLOR_BGR2RGB),
    'rgba8': _Packed(4, cv2.COLOR_RGBA2RGB),
    'bgra8': _Packed(4, cv2.COLOR_BGRA2RGB),
    'mono8': _Packed(1, cv2.COLOR_GRAY2RGB),
    'rgb16': _Packed(3, None, 2),
    'bgr16': _Packed(3, cv2.COLOR_BGR2RGB, 2),
    'rgba16': _Packed(4, cv2.COLOR_RGBA2RGB, 2),
    'bgra16': _Packed(4, cv2.COLOR_BGRA2RGB, 2),
    'mono16': _Packed(1, cv2.COLOR_GRAY2RGB, 2),
    # OpenCV's own type names; three channels are BGR to it, four BGRA.
    '8UC1': _Packed(1, cv2.COLOR_GRAY2RGB),
    '8UC3': _Packed(3, cv2.COLOR_BGR2RGB),
    '8UC4': _Packed(4, cv2.COLOR_BGRA2RGB),
    '16UC1': _Packed(1, cv2.COLOR_GRAY2RGB, 2),
    '16UC3': _Packed(3, cv2.COLOR_BGR2RGB, 2),
    '16UC4': _Packed(4, cv2.COLOR_BGRA2RGB, 2),
    **{f'{name}8': _Packed(1, code, is_mosaic=True) for name, code in _MOSAICS.items()},
    **{f'{name}16': _Packed(1, code, 2, is_mosaic=True) for name, code in _MOSAICS.items()},
    # What USB cameras send; the longer name of each pair is the one before ROS 2 Iron.
    'uyvy': _Packed(2, cv2.COLOR_YUV2RGB_UYVY, shares_colour=True),
    'yuv422': _Packed(2, cv2.COLOR_YUV2RGB_UYVY, shares_colour=True),
    'yuyv': _Packed(2, cv2.COLOR_YUV2RGB_YUY2, shares_colour=True),
    'yuv422_yuy2': _Packed(2, cv2.COLOR_YUV2RGB_YUY2, shares_colour=True),
}
_PLANAR = {
    'nv12': _Planar(is_interleaved=True, has_v_first=False),
    'nv21': _Planar(is_interleaved=True, has_v_first=True),
    'i420': _Planar(is_interleaved=False, has_v_first=False),
    'yuv420': _Planar(is_interleaved=False, has_v_first=False),
    'yv12': _Planar(is_interleaved=False, has_v_first=True),
}
ENCODINGS = (*_PACKED, *_PLANAR)
"""Names of the encodings that `decode_image` reads."""
_SUMMARY = (
    'rgb8, bgr8, rgba8, bgra8, mono8, the same with 16 bits, 8UC1/3/4, 16UC1/3/4, bayer_*8, '
    'bayer_*16, yuyv, uyvy, nv12, nv21 or i420'
)
_DEPTH = 'It is an image of depth. Choose the topic of the colour image.'
_REMEDIES = {
    '32FC1': _DEPTH,
    '64FC1': _DEPTH,
    'nv24': 'cv_bridge does not convert it either. Have the camera publish rgb8, yuyv or nv12.',
}
"""What to do about encodings that cameras publish and that neither this module nor cv_bridge
reads."""


class FrameError(ValueError):
    """Raised for an image that cannot be used; the text says why."""

    kind = 'data'
    """Word for the kind of fault, under which it is counted."""


class RefusedEncodingError(FrameError):
    """Raised for an image whose encoding no known converter reads."""

    kind = 'encoding'


class EncodingError(FrameError):
    """Raised for an image whose encoding is not supported here, but may be elsewhere."""

    kind = 'encoding'


def decode_image(
    msg: Any, grey_range: GreyRange | None = None, keep_depth: bool = False
) -> NDArray[Any]:
    """Decode a `sensor_msgs/Image` of rclpy or of rosbags.

    Rows may be padded (`step` larger than a row), and bytes after the last row are ignored.

    Args:
        msg: message with height, width, step, encoding, is_bigendian and data (an array of
            bytes).
        grey_range: see `to_eight_bits`; used for 16-bit encodings only.
        keep_depth: return images of 16 bits as they are.

    Returns:
        RGB, (H, W, 3) uint8; uint16 for 16-bit encodings with `keep_depth`. A view of the
        message's data for `rgb8`, so do not write to it.

    Raises:
        FrameError: the size is zero, a row does not fit into `step`, the data end early, or the
            encoding is one that no known converter reads.
        EncodingError: the encoding is another one that is not in `ENCODINGS`.
    """
    height, width = msg.height, msg.width
    if not height or not width:
        raise FrameError(f'Expected an image with pixels, got {width} x {height} pixels.')
    try:
        if msg.encoding in _PACKED:
            return _decode_packed(msg, _PACKED[msg.encoding], grey_range, keep_depth)
        if msg.encoding in _PLANAR:
            return _decode_planar(msg, _PLANAR[msg.encoding])
    except cv2.error as error:
        reason = ' '.join(str(error).split())
        raise FrameError(
            f'OpenCV cannot convert {width} x {height} pixels of {msg.encoding}: {reason}'
        ) from error
    text = f'Expected an encoding of {_SUMMARY}, got {reprlib.repr(msg.encoding)}.'
    if msg.encoding in _REMEDIES:
        raise RefusedEncodingError(f'{text} {_REMEDIES[msg.encoding]}')
    raise EncodingError(text)


def to_eight_bits(
    values: NDArray[np.uint16], grey_range: GreyRange | None = None
) -> NDArray[np.uint8]:
    """Reduce 16-bit values to 8 bits, in the same way for messages, bags and files.

    Args:
        values: array of any shape and byte order.
        grey_range: values (low, high) that become 0 and 255; those between are scaled linearly
            and rounded, those outside are clipped. None: the full range, as value // 256, which
            is the upper byte.

    Raises:
        ValueError: the range is empty or exceeds 16 bits.
    """
    if grey_range is None:
        upper = np.empty(values.shape, np.uint8)  # filled without 16-bit values in between
        return np.right_shift(values, 8, out=upper, casting='unsafe')
    low, high = grey_range
    if not 0 <= low < high <= 65535:
        raise ValueError(f'Expected 0 <= low < high <= 65535, got {low} and {high}.')
    above = cv2.subtract(_native(values).reshape(1, -1), (low, 0, 0, 0))  # at least 0
    return cv2.convertScaleAbs(above, alpha=255 / (high - low)).reshape(values.shape)


def suggest_grey_range(image: NDArray[Any]) -> GreyRange | None:
    """Tell which values of a 16-bit image should become black and white, if it uses few of them.

    Args:
        image: array of any shape.

    Returns:
        From 0 to the largest value of its number of bits, such as 4095 for 12, if it uses less
        than a quarter of the range; its smallest and largest value if they are closer than 12
        bits; None if it has 8 bits or needs no other range.
    """
    if image.dtype != np.uint16:
        return None
    smallest, largest = int(image.min()), int(image.max())
    if 0 < largest < 1 << 14:
        return 0, max(255, (1 << largest.bit_length()) - 1)
    return (smallest, largest) if 0 < largest - smallest < 1 << 12 else None


def grey_remark(what: object, image: NDArray[Any]) -> list[str]:
    """Remark on 16-bit images that use few values, in one sentence; empty for all others.

    Args:
        what: the images or their owner, as the beginning of a sentence.
        image: one of them, not reduced to 8 bits.
    """
    if (found := suggest_grey_range(image)) is None:
        return []
    return [
        f'{what}: 16 bits with values from {image.min()} to {image.max()} of 65535, so there is '
        f'little to see; --grey-low {found[0]} --grey-high {found[1]} make them black and white, '
        'as the parameters of the node.'
    ]


def demosaic(mosaic: NDArray[Any], encoding: str) -> NDArray[Any] | None:
    """Interpolate the colours of a Bayer mosaic.

    Args:
        mosaic: (H, W) uint8 or uint16.
        encoding: name of the encoding, such as bayer_rggb8.

    Returns:
        RGB of the same type, (H, W, 3); None if the encoding is no mosaic.
    """
    layout = _PACKED.get(encoding)
    if layout is None or layout.code is None or not layout.is_mosaic:
        return None
    return cv2.cvtColor(mosaic, layout.code)


def read_rows(msg: Any, row_bytes: int) -> NDArray[np.uint8]:
    """Read the rows of an image message without their padding.

    Args:
        msg: message with height, width, step, encoding and data (an array of bytes).
        row_bytes: number of bytes that the pixels of a row take.

    Returns:
        A view of the data, (H, row_bytes) uint8.

    Raises:
        FrameError: a row does not fit into `step`, or the data end early.
    """
    height, step, size = msg.height, msg.step, len(msg.data)
    if step < row_bytes:
        raise FrameError(
            f'Expected a step of at least {row_bytes} bytes for {msg.width} pixels of '
            f'{msg.encoding}, got {step}.'
        )
    if size < step * height:
        raise FrameError(
            f'Expected at least step x height = {step} x {height} = {step * height} bytes of '
            f'data, got {size}.'
        )
    rows = np.frombuffer(msg.data, np.uint8, count=step * height).reshape(height, step)
    return rows[:, :row_bytes]


def _decode_packed(
    msg: Any, layout: _Packed, grey_range: GreyRange | None, keep_depth: bool
) -> NDArray[Any]:
    height, width, step = msg.height, msg.width, msg.step
    columns = width + width % 2 if layout.shares_colour else width
    row_bytes = columns * layout.channels * layout.num_bytes
    if columns > width and width * layout.channels <= step < row_bytes:
        raise FrameError(
            f'Expected an even width for {msg.encoding} (or a step of {row_bytes} bytes, with '
            f'the colour of the last column), got {width} x {height} pixels and a step of {step}.'
        )
    rows = read_rows(msg, row_bytes)
    image: NDArray[Any] = rows.reshape(height, columns, -1)
    if layout.num_bytes == 2:
        order = '>u2' if msg.is_bigendian else '<u2'
        image = np.ascontiguousarray(rows).view(order).reshape(height, columns, layout.channels)
        if not layout.is_mosaic and not keep_depth:
            image = to_eight_bits(image, grey_range)
    if layout.code is not None:
        # A mosaic is interpolated with all of its bits.
        image = cv2.cvtColor(_native(image), layout.code)
    if image.dtype != np.uint8:
        image = _native(image) if keep_depth else to_eight_bits(image, grey_range)
    return image[:, :width]


def _decode_planar(msg: Any, layout: _Planar) -> NDArray[np.uint8]:
    """Decode YUV 4:2:0: each square of 2 x 2 pixels shares its colour.

    An odd size is rounded up for the colour. `step` is that of the brightness; two rows of V or U
    take as many bytes as one of brightness, rounded up to even.
    """
    height, width, step, size = msg.height, msg.width, msg.step, len(msg.data)
    if size == step * height and 2 * step == 3 * width:
        step = width  # some drivers spread all bytes over the rows
    if step < width:
        raise FrameError(
            f'Expected a step of at least {width} bytes for {width} pixels of {msg.encoding}, '
            f'got {step}.'
        )
    colour_rows, colour_columns, colour_step = (height + 1) // 2, (width + 1) // 2, step + step % 2
    expected = step * height + colour_step * colour_rows
    if size < expected:
        raise FrameError(
            f'Expected at least {expected} bytes of {msg.encoding} for {width} x {height} pixels '
            f'and a step of {step} (colour follows below the image), got {size}.'
        )
    data = np.frombuffer(msg.data, np.uint8, count=expected)
    brightness = data[: step * height].reshape(height, step)[:, :width]
    colour = data[step * height :]
    if layout.is_interleaved:
        rows = colour.reshape(colour_rows, colour_step)[:, : 2 * colour_columns]
        pairs = rows.reshape(colour_rows, colour_columns, 2)
    else:
        planes = colour.reshape(2, colour_rows, colour_step // 2)[..., :colour_columns]
        pairs = cv2.merge([planes[0], planes[1]]).reshape(colour_rows, colour_columns, 2)
    if height % 2 or width % 2:  # OpenCV wants even sizes
        brightness = np.pad(brightness, ((0, height % 2), (0, width % 2)), 'edge')
    code = cv2.COLOR_YUV2RGB_NV21 if layout.has_v_first else cv2.COLOR_YUV2RGB_NV12
    return cv2.cvtColorTwoPlane(brightness, pairs, code)[:height, :width]


def _native(image: NDArray[Any]) -> NDArray[Any]:
    return image.astype(image.dtype.newbyteorder('='), copy=False)
