"""Reads the size of an image file from its bytes, and whether the file is whole, without decoding.

Both are asked before a decoder sees the file: a few bytes can claim a billion pixels, and decoders
of JPEG show what they have of a file that was cut off, with grey below. Sources: ITU-T T.81,
annex B (JPEG); the PNG specification, section 5; RFC 9649 (WebP); TIFF 6.0, section 2.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

from videomt_ros.datasets.images import FrameError

MAX_PIXELS = 8192 * 8192
"""Largest image that is decoded, in pixels; some 200 MB of RGB."""
_MAX_SCANS = 100
"""Largest number of scans of a JPEG; writers use about 10, and each one costs a pass."""
_MAX_PIXELS_PER_BYTE = 2048
"""Largest density of a JPEG of Huffman codes: 64 pixels take at least 1 bit (8 x 64 = 512)."""
# Fill bytes (FF), escaped FF of the scan's own (FF 00) and restarts (D0-D7) are no segments.
_JPEG_SEGMENT = re.compile(rb'\xff[\x01-\xcf\xd8-\xfe]')
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = 0xC2
_HUFFMAN_FRAMES = {0xC0, 0xC1, _PROGRESSIVE}
_TIFF_SHORT = 3
_TIFF_TYPES = {1: 'B', _TIFF_SHORT: 'H', 4: 'I'}
_TIFF_WIDTHS, _TIFF_HEIGHTS = {256, 322}, {257, 323}
"""Tags of the image's size, and of its tiles', which a decoder allocates, too."""
_TIFF_ORIENTATION, _UPRIGHT = 274, 1


class ImageHeader(NamedTuple):
    """What is known of an image file before it is decoded."""

    kind: str
    """Name of the format: JPEG, PNG, WebP, BMP or TIFF."""
    height: int
    width: int
    is_grey: bool = False
    """Whether it has one channel; known for JPEG and PNG only."""
    end: int = 0
    """Position of the end marker of a JPEG of Huffman codes, otherwise 0."""
    is_progressive: bool = False
    """Whether it is a JPEG of several scans, each with more detail."""
    orientation_at: int = 0
    """Position of the orientation in a TIFF that is not upright, otherwise 0."""


def read_header(data: bytes) -> ImageHeader | None:
    """Read what an image file says of itself.

    Args:
        data: the file; bytes after its end are ignored.

    Returns:
        The header; None if the bytes are none of the known formats.

    Raises:
        FrameError: the file is damaged or ends early, or is too large to be decoded.
    """
    kind = next((kind for kind, magic in _MAGIC.items() if magic.match(data)), None)
    if kind is None:
        return None
    try:
        header = _READERS[kind](data)
    except (struct.error, IndexError) as error:
        raise _cut(kind, data) from error
    if not header.height or not header.width:
        raise FrameError(
            f'Expected an image with pixels, got a {kind} image of '
            f'{header.width} x {header.height} pixels.'
        )
    if header.height * header.width > MAX_PIXELS:
        raise FrameError(
            f'Expected an image of at most {MAX_PIXELS} pixels, got a {kind} image of '
            f'{header.width} x {header.height}.'
        )
    if header.end and header.height * header.width > _MAX_PIXELS_PER_BYTE * len(data):
        raise _cut(kind, data)
    return header


def _read_jpeg(data: bytes) -> ImageHeader:
    frame: tuple[int, int, int, int] | None = None
    position, num_scans = 2, 0
    wanted: set[tuple[int, int]] = set()  # component and coefficient of a progressive image
    while segment := _JPEG_SEGMENT.search(data, position):
        marker, position = data[segment.start() + 1], segment.end()
        if marker == 0xD9:  # end of the image
            if frame is None or not num_scans:
                raise FrameError('Expected a JPEG image, got one without pixels.')
            kind, height, width, channels = frame
            if wanted:
                break  # scans are missing
            end = segment.start() if kind in _HUFFMAN_FRAMES else 0
            return ImageHeader('JPEG', height, width, channels == 1, end, kind == _PROGRESSIVE)
        if marker == 0xD8:  # start of another image, which a cut one may be followed by
            break
        if marker == 0x01:
            continue
        (length,) = struct.unpack_from('>H', data, position)
        if marker in _JPEG_FRAMES:
            if frame is not None:
                raise FrameError('Expected a JPEG image of one frame, got one of several.')
            height, width, channels = struct.unpack_from('>xHHB', data, position + 2)
            frame = marker, height, width, channels
            if marker == _PROGRESSIVE:
                components = data[position + 8 : position + length : 3]
                wanted = {(component, k) for component in components for k in range(64)}
        if marker == 0xDA:
            num_scans += 1
            wanted -= _finished_by_scan(data, position)
        if num_scans > _MAX_SCANS:
            raise FrameError(f'Expected a JPEG image of at most {_MAX_SCANS} scans, got more.')
        position += length
    raise _cut('JPEG', data)


def _finished_by_scan(data: bytes, position: int) -> set[tuple[int, int]]:
    """List the coefficients, each with its component, whose last bit a scan holds."""
    count = data[position + 2]
    components = data[position + 3 : position + 3 + 2 * count : 2]
    first, last, bits = struct.unpack_from('BBB', data, position + 3 + 2 * count)
    if bits & 0xF:
        return set()
    return {(component, k) for component in components for k in range(first, last + 1)}


def _read_png(data: bytes) -> ImageHeader:
    (length,) = struct.unpack_from('>I', data, 8)
    if data[12:16] != b'IHDR' or length != 13:
        raise FrameError('Expected a PNG image, got one without a header.')
    width, height, _, colour = struct.unpack_from('>IIBB', data, 16)
    position = 8
    while position < len(data):
        (length,) = struct.unpack_from('>I', data, position)
        kind, end = data[position + 4 : position + 8], position + 8 + length
        (expected,) = struct.unpack_from('>I', data, end)
        # Chunks with a small first letter may be left aside; they are no pixels.
        if kind[:1].isupper() and zlib.crc32(memoryview(data)[position + 4 : end]) != expected:
            raise FrameError('Expected a PNG image, got one whose checksums do not agree.')
        if kind == b'IEND':
            return ImageHeader('PNG', height, width, is_grey=colour == 0)
        position = end + 4
    raise _cut('PNG', data)


def _read_webp(data: bytes) -> ImageHeader:
    (size,) = struct.unpack_from('<I', data, 4)
    if len(data) < size + 8:
        raise _cut('WebP', data)
    if data[12:16] == b'VP8X':
        low, high = struct.unpack_from('<HB', data, 24)
        width = 1 + low + (high << 16)
        low, high = struct.unpack_from('<HB', data, 27)
        height = 1 + low + (high << 16)
    elif data[12:16] == b'VP8L':
        (bits,) = struct.unpack_from('<I', data, 21)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from('<HH', data, 26))
    return ImageHeader('WebP', height, width)


def _read_bmp(data: bytes) -> ImageHeader:
    (size,) = struct.unpack_from('<I', data, 14)
    width, height = map(abs, struct.unpack_from('<HH' if size == 12 else '<ii', data, 18))
    (bits,) = struct.unpack_from('<H', data, 24 if size == 12 else 28)
    compression = 0 if size == 12 else struct.unpack_from('<I', data, 30)[0]
    (start,) = struct.unpack_from('<I', data, 10)
    if compression == 0 and len(data) < start + height * ((width * bits + 31) // 32 * 4):
        raise _cut('BMP', data)
    return ImageHeader('BMP', height, width)


def _read_tiff(data: bytes) -> ImageHeader:
    order = '<' if data[:2] == b'II' else '>'
    (position,) = struct.unpack_from(f'{order}I', data, 4)
    (count,) = struct.unpack_from(f'{order}H', data, position)
    widths, heights = [0], [0]
    orientation_at = 0
    for index in range(count):
        entry = position + 2 + 12 * index
        tag, kind = struct.unpack_from(f'{order}HH', data, entry)
        if tag in _TIFF_WIDTHS | _TIFF_HEIGHTS:
            (side,) = struct.unpack_from(f'{order}{_TIFF_TYPES.get(kind, "I")}', data, entry + 8)
            (widths if tag in _TIFF_WIDTHS else heights).append(side)
        elif tag == _TIFF_ORIENTATION and kind == _TIFF_SHORT:
            (orientation,) = struct.unpack_from(f'{order}H', data, entry + 8)
            orientation_at = entry + 8 if orientation != _UPRIGHT else 0
    return ImageHeader('TIFF', max(heights), max(widths), orientation_at=orientation_at)


def upright(data: bytes, header: ImageHeader) -> bytes:
    """Return a TIFF with another orientation than its own: the one that leaves pixels in place."""
    order = '<H' if data[:2] == b'II' else '>H'
    place = header.orientation_at
    return data[:place] + struct.pack(order, _UPRIGHT) + data[place + 2 :]


def _cut(kind: str, data: bytes) -> FrameError:
    return FrameError(f'Expected a whole {kind} image, got {len(data)} bytes that end early.')


_MAGIC = {
    'JPEG': re.compile(rb'\xff\xd8\xff'),
    'PNG': re.compile(rb'\x89PNG\r\n\x1a\n'),
    'WebP': re.compile(rb'RIFF....WEBP', re.DOTALL),
    'BMP': re.compile(rb'BM'),
    'TIFF': re.compile(rb'II\*\0|MM\0\*'),
}
_READERS: dict[str, Callable[[bytes], ImageHeader]] = {
    'JPEG': _read_jpeg,
    'PNG': _read_png,
    'WebP': _read_webp,
    'BMP': _read_bmp,
    'TIFF': _read_tiff,
}
