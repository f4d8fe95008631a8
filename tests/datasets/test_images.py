from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from videomt_ros.datasets.images import (
    ENCODINGS,
    FrameError,
    decode_compressed_image,
    decode_image,
)

COLOUR = (200, 90, 40)


def message(encoding: str, pixels: np.ndarray, **changes: object) -> SimpleNamespace:
    rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1)
    fields = {'height': pixels.shape[0], 'width': pixels.shape[1], 'step': rows.shape[1]}
    return SimpleNamespace(**{**fields, 'encoding': encoding, 'data': rows.reshape(-1), **changes})


def plain(height: int = 8, width: int = 12) -> np.ndarray:
    return np.full((height, width, 3), COLOUR, np.uint8)


def mosaic(letters: str) -> np.ndarray:
    """What a sensor with this filter (its first two rows) sees of one colour."""
    values = [COLOUR['rgb'.index(letter)] for letter in letters]
    return np.tile(np.array(values, np.uint8).reshape(2, 2), (4, 6))


def yuv(order: str) -> np.ndarray:
    red, green, blue = COLOUR  # ITU-R BT.601, video levels
    y = round(16 + 0.257 * red + 0.504 * green + 0.098 * blue)
    u = round(128 - 0.148 * red - 0.291 * green + 0.439 * blue)
    v = round(128 + 0.439 * red - 0.368 * green - 0.071 * blue)
    pair = {'uyvy': [u, y, v, y], 'yuyv': [y, u, y, v]}[order]
    return np.tile(np.array(pair, np.uint8).reshape(1, 2, 2), (8, 6, 1))


@pytest.mark.parametrize(
    ('encoding', 'pixels'),
    [
        ('rgb8', plain()),
        ('bgr8', plain()[..., ::-1]),
        ('8UC3', plain()[..., ::-1]),
        ('rgba8', np.dstack([plain(), plain()[..., :1]])),
        ('bgra8', np.dstack([plain()[..., ::-1], plain()[..., :1]])),
        ('yuv422', yuv('uyvy')),
        ('uyvy', yuv('uyvy')),
        ('yuv422_yuy2', yuv('yuyv')),
        ('yuyv', yuv('yuyv')),
        ('bayer_rggb8', mosaic('rggb')),
        ('bayer_bggr8', mosaic('bggr')),
        ('bayer_gbrg8', mosaic('gbrg')),
        ('bayer_grbg8', mosaic('grbg')),
    ],
)
def test_colours(encoding, pixels):
    image = decode_image(message(encoding, pixels))
    assert image.shape == (8, 12, 3) and image.dtype == np.uint8
    tolerance = 2 if 'yu' in encoding or 'uy' in encoding else 0  # YUV rounds
    assert np.abs(image[4, 6].astype(int) - COLOUR).max() <= tolerance


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey(encoding):
    image = decode_image(message(encoding, np.full((3, 5, 1), 77, np.uint8)))
    np.testing.assert_array_equal(image, np.full((3, 5, 3), 77))


def test_rgb8_is_not_copied():
    msg = message('rgb8', plain())
    assert np.shares_memory(decode_image(msg), msg.data)


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_padded_rows(encoding):
    channels = {'rgb8': 3, 'bgr8': 3, '8UC3': 3, 'rgba8': 4, 'bgra8': 4}.get(encoding, 1)
    channels = 2 if 'yu' in encoding or 'uy' in encoding else channels
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, channels)).astype(np.uint8)
    rows = np.pad(pixels.reshape(8, -1), ((0, 0), (0, 7)), constant_values=99)
    padded = message(encoding, pixels, step=rows.shape[1], data=rows.reshape(-1))
    np.testing.assert_array_equal(decode_image(padded), decode_image(message(encoding, pixels)))


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'width': 0}, 'got 0 x 8 pixels'),
        ({'data': np.zeros(287, np.uint8)}, r'36 x 8 = 288 bytes of data, got 287'),
        ({'step': 30}, 'step of at least 36 bytes'),
        ({'encoding': '32FC1'}, "encoding of rgb8, .*got '32FC1'. It is an image of depth"),
        ({'encoding': '16UC1'}, 'Choose the topic of the colour image'),
        ({'encoding': 'nv12'}, 'cv_bridge does not convert it either. Set the camera driver'),
        ({'encoding': 'yuyv', 'width': 11}, 'an even width for yuyv, got 11 x 8 pixels'),
    ],
)
def test_unusable(changes, reason):
    with pytest.raises(FrameError, match=reason):
        decode_image(message(**{'encoding': 'rgb8', 'pixels': plain(), **changes}))


@pytest.mark.parametrize('data', [b'', b'no image'])
def test_unusable_compressed_image(data):
    msg = SimpleNamespace(data=np.frombuffer(data, np.uint8), format='jpeg')
    with pytest.raises(FrameError, match=f"got {len(data)} bytes of format 'jpeg'"):
        decode_compressed_image(msg)


def test_a_long_encoding_is_quoted_in_short():
    with pytest.raises(FrameError) as raised:
        decode_image(message('x' * 1_000_000, plain()))
    assert len(str(raised.value)) < 500
