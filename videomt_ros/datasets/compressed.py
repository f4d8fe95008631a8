"""Decodes compressed images to RGB: messages of cameras and bags, and image files alike.

The bytes decide what an image is; the format that a `sensor_msgs/CompressedImage` states tells
what was compressed, in the form that the comments of that message define:
`ORIG_PIXFMT; CODEC compressed [COMPRESSED_PIXFMT]`.
"""

from __future__ import annotations

import io
import reprlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from videomt_ros.datasets.image_headers import ImageHeader, read_header, upright
from videomt_ros.datasets.images import (
    FrameError,
    GreyRange,
    RefusedEncodingError,
    demosaic,
    to_eight_bits,
)

_ANY_DEPTH = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
_VIDEO_CODECS = ('h264', 'h.264', 'avc', 'h265', 'h.265', 'hevc', 'av1', 'vp8', 'vp9', 'theora')
_VIDEO_STARTS = (b'\0\0\0\1', b'\0\0\1')
"""First bytes of a packet of H.264 or H.265."""
_FILLER = b''.join(bytes(range(1, 255, 2)) + bytes((0xFF, 0xD0 + n)) for n in range(8))
"""Bytes that Huffman codes turn into some pattern if there are pixels left to decode, also after a
restart of any number."""


def decode_compressed_image(
    msg: Any, grey_range: GreyRange | None = None, keep_depth: bool = False
) -> NDArray[Any]:
    """Decode a `sensor_msgs/CompressedImage` of rclpy or of rosbags.

    Args:
        msg: message with format and data (an array of bytes).
        grey_range: see `images.to_eight_bits`; used for 16-bit images only.
        keep_depth: return images of 16 bits as they are.

    Returns:
        RGB, (H, W, 3) uint8; uint16 for 16-bit images with `keep_depth`.

    Raises:
        FrameError: the data are no whole image, or one of too many pixels, or of depth, or a
            packet of a video.
    """
    if 'compresseddepth' in msg.format.lower():
        raise RefusedEncodingError(
            f'Expected a JPEG or PNG image, got one of depth ({reprlib.repr(msg.format)}). Choose '
            'the topic of the colour image.'
        )
    return decode_image_file(bytes(msg.data), msg.format, grey_range, keep_depth)


def decode_image_file(
    data: bytes,
    stated_format: str = '',
    grey_range: GreyRange | None = None,
    keep_depth: bool = False,
) -> NDArray[Any]:
    """Decode an image file: JPEG, PNG, WebP, BMP or TIFF.

    Alpha is dropped, and a note of the camera's orientation is ignored, in all of these.

    Args:
        data: the file; bytes after its end are ignored.
        stated_format: format that a message states; empty if there is none.
        grey_range: see `images.to_eight_bits`; used for 16-bit images only.
        keep_depth: return images of 16 bits as they are.

    Returns:
        RGB, (H, W, 3) uint8; uint16 for 16-bit images with `keep_depth`.

    Raises:
        FrameError: the data are no whole image, or one of too many pixels.
    """
    header = read_header(data)
    if header is None:
        raise RefusedEncodingError(_explain_unknown(data, stated_format))
    if header.orientation_at:  # OpenCV turns a TIFF, whatever it is told
        data = upright(data, header)
    source, target = _formats(stated_format)
    pixels = None
    if header.is_grey and source.startswith('bayer_'):
        pixels = demosaic(_decode(data, header, cv2.IMREAD_GRAYSCALE), source)
    if pixels is None:
        pixels = _decode(data, header, cv2.IMREAD_COLOR)
        if not _has_swapped_colours(header.kind, source, target):
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    is_reduced = pixels.dtype == np.uint8 or keep_depth
    return pixels if is_reduced else to_eight_bits(pixels, grey_range)


def orientation_of(data: Any) -> int:
    """Read the orientation that a camera noted in an image file (EXIF), which is ignored.

    Args:
        data: the file, an array of bytes.

    Returns:
        A number from 1 to 8, of which 1 is upright; 1 if there is none that can be read.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises many kinds; the decoder says what is wrong
        return 1
    return found if found in range(1, 9) else 1


def turn_hint(orientation: int) -> str:
    """Return a sentence for an image of another size than labelled, if it noted a quarter turn."""
    if orientation < 5:
        return ''
    return (
        f' Its EXIF orientation ({orientation}) is ignored; the labels were made on the turned '
        'image: turn them, or the pixels.'
    )


def _formats(stated_format: str) -> tuple[str, str]:
    """Split a stated format into that of the raw image and that of the compressed one."""
    source, _, rest = stated_format.partition(';')
    return source.strip(), rest.rpartition('compressed')[2].strip()


def _has_swapped_colours(kind: str, source: str, target: str) -> bool:
    """Tell whether red and blue of a file are swapped, as image_transport understands its format.

    It hands the image to OpenCV, which takes it for BGR. A format that does not say so is BGR.
    """
    if kind == 'TIFF' and not target:  # written as the raw image is
        return source.startswith('rgb')
    return source.startswith(('rgb', 'bgr')) and target.startswith('rgb')


def _decode(data: bytes, header: ImageHeader, colours: int) -> NDArray[Any]:
    """Decode to BGR or grey, uint8 or uint16."""
    pixels = _imdecode(data, colours)
    if (
        pixels is None
        or pixels.shape[:2] != (header.height, header.width)
        or pixels.dtype not in (np.uint8, np.uint16)
    ):
        raise FrameError(
            f'Expected a {header.kind} image of 8 or 16 bits, got {len(data)} bytes that OpenCV '
            'cannot decode as one.'
        )
    if header.end and (header.is_progressive or _is_mid_grey(pixels[-1, -1])):
        # What is missing of a JPEG is mid-grey, which an image may be, too; of a progressive one,
        # it is details. Bytes before the end marker are decoded if pixels are missing, and ignored
        # otherwise.
        longer = data[: header.end] + _FILLER + data[header.end :]
        if not _is_same(pixels, data, longer):
            raise FrameError(
                f'Expected a whole JPEG image, got {len(data)} bytes that lack some of the pixels.'
            )
    return pixels


def _is_same(pixels: NDArray[Any], data: bytes, longer: bytes) -> bool:
    """Tell whether a JPEG gives the same pixels with more bytes at its end.

    Pillow decodes them, since libjpeg within OpenCV reports surplus bytes on stderr.

    Args:
        pixels: what OpenCV makes of `data`, grey or BGR.
        data: the file.
        longer: the file with more bytes.
    """
    try:
        found = _decode_quietly(longer)
        if np.array_equal(found if pixels.ndim == 2 else found[..., ::-1], pixels):
            return True
        # The two may have libraries that differ in rounding.
        return np.array_equal(found, _decode_quietly(data))
    except Exception:  # Pillow raises many kinds for a damaged file
        return False


def _decode_quietly(data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG by Pillow, as the colours that it stores."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def _is_mid_grey(pixel: NDArray[Any]) -> bool:
    """Whether a pixel, grey or BGR, is as bright as one that is missing of a JPEG.

    The colour of neighbours, which has half the resolution, may still reach it.
    """
    weights = (0.114, 0.587, 0.299) if pixel.size == 3 else (1.0,)
    return abs(float(np.dot(pixel.reshape(-1), weights)) - 128) <= 2


def _imdecode(data: bytes, colours: int) -> NDArray[Any] | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), colours | _ANY_DEPTH)
    except cv2.error:
        return None


def _explain_unknown(data: bytes, stated_format: str) -> str:
    text = f'Expected a JPEG or PNG image, got {len(data)} bytes'
    if stated_format:
        text += f' of format {reprlib.repr(stated_format)}'
    name = stated_format.lower()
    if data.startswith(_VIDEO_STARTS) or any(codec in name for codec in _VIDEO_CODECS):
        return (
            f'{text}, a packet of a video. Republish it as raw images with the plugin of '
            'image_transport that wrote it.'
        )
    return f'{text} that are none.'
