"""Image messages that no camera should send: twenty that are each wrong in one way, and generated
ones, wrong in any way, of which some happen to be readable.
"""

from __future__ import annotations

import array
from collections.abc import Iterator

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

_LARGEST = 2**32 - 1
_ENCODINGS = (
    'rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'mono16', 'rgb16', 'bgr16', 'rgba16', '8UC1',
    '8UC2', '8UC3', '8UC4', '16UC1', '16SC1', '32FC1', '32SC3', '64FC1', 'bayer_rggb8',
    'bayer_grbg16', 'yuv422', 'yuv422_yuy2', 'uyvy', 'nv12', 'nv21', 'nv24', 'i420', '', ' ',
    'RGB8', 'rgb8; jpg', 'h264', '8UC0', '8UC99', '16UC', '%s%n', '\u00e9\u4e2d', 'x' * 2000,
)  # fmt: skip
_FORMATS = (
    'jpeg', 'png', 'rgb8; jpeg compressed bgr8', 'mono16; png compressed ', 'JPG', '', ';', 'webp',
    'compressedDepth', '16UC1; compressedDepth png', 'h264', 'tiff', 'x' * 2000, '\u00e9; jpeg',
)  # fmt: skip


def _image(size: int = 8 * 6 * 3, **fields: object) -> Image:
    """An 8 x 6 image of rgb8, but for the fields given and the bytes of its data."""
    msg = Image(width=8, height=6, step=24, encoding='rgb8', data=array.array('B', bytes(size)))
    for name, value in fields.items():
        setattr(msg, name, value)
    return msg


def malformed_images() -> dict[str, Image]:
    """The messages by what is wrong with them; each is unusable with and without cv_bridge."""
    return {
        'no columns': _image(width=0),
        'no rows': _image(height=0),
        'no pixels, no data': _image(0, width=0, height=0, step=0),
        'no data': _image(0),
        'data one byte short': _image(143),
        'data one row short': _image(120),
        'data of a mono8 image': _image(48),
        'step 0': _image(step=0),
        'step shorter than a row': _image(step=23),
        'step in pixels': _image(step=8),
        'step beyond the data': _image(step=32),
        'largest step': _image(step=_LARGEST),
        'largest height': _image(height=_LARGEST),
        'largest width': _image(width=_LARGEST),
        'largest of all': _image(width=_LARGEST, height=_LARGEST, step=_LARGEST),
        'four channels claimed': _image(encoding='rgba8'),
        'no encoding': _image(encoding=''),
        'unknown encoding': _image(encoding='no_such_encoding'),
        'encoding in capitals': _image(encoding='RGB8'),
        'depth in metres': _image(6 * 8 * 4, step=32, encoding='32FC1'),
    }


def odd_images(seed: int, count: int) -> Iterator[Image]:
    """Generate raw images with any encoding, sizes, steps, byte orders and amounts of data.

    About half have the right step and amount of data for some encoding; none is large.
    """
    random = np.random.default_rng(seed)

    def pick(*values: int) -> int:
        return int(values[random.integers(len(values))])

    for _ in range(count):
        height, width = (pick(0, 1, 2, 3, 47, 48, 49, _LARGEST) for _ in range(2))
        step = pick(1, 2, 3, 4, 6, 8) * width if random.random() < 0.7 else pick(0, 1, 7, _LARGEST)
        rows = pick(1, 1, 1, 1, 2, 3) * height // pick(1, 1, 1, 2)
        size = step * rows
        if size > 100_000 or random.random() < 0.2:
            size = pick(0, 1, 143, 144, 145, 6912)
        msg = Image(height=height, width=width, step=min(step, _LARGEST))
        msg.encoding = _ENCODINGS[random.integers(len(_ENCODINGS))]
        msg.is_bigendian = pick(0, 0, 1, 1, 2, 255)
        msg.data = array.array('B', random.bytes(size))
        msg.header.frame_id = ('', 'camera', '\u00e9' * 300)[random.integers(3)]
        yield msg


def odd_compressed(seed: int, count: int) -> Iterator[CompressedImage]:
    """Generate compressed images: cut off, changed in some bytes, misnamed, or no images."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (48, 64, 3), np.uint8)
    wide = image.astype(np.uint16) * 257
    wholes = [
        cv2.imencode(extension, pixels)[1].tobytes()
        for extension, pixels in (
            ('.jpg', image),
            ('.png', image),
            ('.png', wide),
            ('.png', image[..., 0]),
            ('.jpg', image[..., 0]),
            ('.bmp', image),
            ('.webp', image),
            ('.tiff', image),
        )
    ]
    for _ in range(count):
        data = bytearray(wholes[random.integers(len(wholes))])
        change = random.integers(5)
        if change == 0:
            data = data[: random.integers(len(data))]
        elif change == 1:
            for _ in range(random.integers(1, 20)):
                data[random.integers(len(data))] = random.integers(256)
        elif change == 2:  # its header alone, where the sizes are
            for _ in range(random.integers(1, 8)):
                data[random.integers(min(len(data), 200))] = random.integers(256)
        elif change == 3:
            data = bytearray(random.bytes(int(random.integers(300))))
        msg = CompressedImage(format=_FORMATS[random.integers(len(_FORMATS))])
        msg.data = array.array('B', bytes(data))
        yield msg
