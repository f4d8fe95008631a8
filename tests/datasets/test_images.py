"""Raw image messages, pixel by pixel against OpenCV on plain images without padding."""

from __future__ import annotations

import array
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from videomt_ros.datasets.images import (
    ENCODINGS,
    EncodingError,
    FrameError,
    decode_image,
    suggest_grey_range,
    to_eight_bits,
)

COLOUR = (200, 90, 40)
RNG = np.random.default_rng(0)
SIZES = [(8, 12), (7, 12), (8, 11), (7, 11), (1, 1), (2, 3), (1, 8), (9, 1)]
CODES = {
    'rgb8': (3, None),
    'bgr8': (3, cv2.COLOR_BGR2RGB),
    'rgba8': (4, cv2.COLOR_RGBA2RGB),
    'bgra8': (4, cv2.COLOR_BGRA2RGB),
    'mono8': (1, cv2.COLOR_GRAY2RGB),
    '8UC1': (1, cv2.COLOR_GRAY2RGB),
    '8UC3': (3, cv2.COLOR_BGR2RGB),
    '8UC4': (4, cv2.COLOR_BGRA2RGB),
    'rgb16': (3, None),
    'bgr16': (3, cv2.COLOR_BGR2RGB),
    'rgba16': (4, cv2.COLOR_RGBA2RGB),
    'bgra16': (4, cv2.COLOR_BGRA2RGB),
    'mono16': (1, cv2.COLOR_GRAY2RGB),
    '16UC1': (1, cv2.COLOR_GRAY2RGB),
    '16UC3': (3, cv2.COLOR_BGR2RGB),
    '16UC4': (4, cv2.COLOR_BGRA2RGB),
    'bayer_rggb8': (1, cv2.COLOR_BayerRGGB2RGB),
    'bayer_bggr8': (1, cv2.COLOR_BayerBGGR2RGB),
    'bayer_gbrg8': (1, cv2.COLOR_BayerGBRG2RGB),
    'bayer_grbg8': (1, cv2.COLOR_BayerGRBG2RGB),
    'bayer_rggb16': (1, cv2.COLOR_BayerRGGB2RGB),
    'bayer_bggr16': (1, cv2.COLOR_BayerBGGR2RGB),
    'bayer_gbrg16': (1, cv2.COLOR_BayerGBRG2RGB),
    'bayer_grbg16': (1, cv2.COLOR_BayerGRBG2RGB),
}
PAIRS = {
    'uyvy': cv2.COLOR_YUV2RGB_UYVY,
    'yuv422': cv2.COLOR_YUV2RGB_UYVY,
    'yuyv': cv2.COLOR_YUV2RGB_YUYV,
    'yuv422_yuy2': cv2.COLOR_YUV2RGB_YUYV,
}
PLANES = {
    'nv12': cv2.COLOR_YUV2RGB_NV12,
    'nv21': cv2.COLOR_YUV2RGB_NV21,
    'i420': cv2.COLOR_YUV2RGB_I420,
    'yuv420': cv2.COLOR_YUV2RGB_I420,
    'yv12': cv2.COLOR_YUV2RGB_YV12,
}
DEEP = [name for name in CODES if '16' in name]


def message(encoding: str, pixels: np.ndarray, **changes: object) -> SimpleNamespace:
    rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1).view(np.uint8)
    fields = {
        'height': pixels.shape[0],
        'width': pixels.shape[1],
        'step': rows.shape[1],
        'is_bigendian': 0,
        'encoding': encoding,
        'data': array.array('B', rows.tobytes()),
    }
    return SimpleNamespace(**{**fields, **changes})


def padded(rows: np.ndarray, step: int) -> np.ndarray:
    """Rows of bytes with other bytes behind them."""
    filler = RNG.integers(0, 256, (rows.shape[0], step - rows.shape[1]), np.uint8)
    return np.concatenate((rows, filler), axis=1)


def noise(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def test_every_encoding_is_compared():
    assert set(ENCODINGS) == {*CODES, *PAIRS, *PLANES}


@pytest.mark.parametrize('is_bigendian', [0, 1])
@pytest.mark.parametrize('padding', [0, 1, 6, 64])
@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('encoding', CODES)
def test_packed_encodings(encoding, size, padding, is_bigendian):
    channels, code = CODES[encoding]
    pixels = noise((*size, channels), np.uint16 if encoding in DEEP else np.uint8)
    expected = pixels if code is None else cv2.cvtColor(pixels, code).reshape(*size, 3)
    if encoding in DEEP:
        expected = (expected // 256).astype(np.uint8)

    sent = pixels.astype('>u2') if is_bigendian and encoding in DEEP else pixels
    rows = sent.reshape(size[0], -1).view(np.uint8)
    step = rows.shape[1] + padding
    data = array.array('B', padded(rows, step).tobytes() + b'after the last row')
    msg = message(encoding, pixels, step=step, data=data, is_bigendian=is_bigendian)
    image = decode_image(msg)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize('padding', [0, 1, 64])
@pytest.mark.parametrize('size', [*SIZES, (1080, 1919)], ids=str)
@pytest.mark.parametrize('encoding', PAIRS)
def test_neighbours_that_share_their_colour(encoding, size, padding):
    """An odd width has the bytes of the next even one."""
    height, width = size
    pixels = noise((height, width + width % 2, 2), np.uint8)
    expected = cv2.cvtColor(pixels, PAIRS[encoding])[:, :width]
    rows = padded(pixels.reshape(height, -1), pixels.shape[1] * 2 + padding)
    msg = message(encoding, pixels, width=width, step=rows.shape[1], data=rows.tobytes())
    np.testing.assert_array_equal(decode_image(msg), expected)


@pytest.mark.parametrize('padding', [0, 1, 2, 64])
@pytest.mark.parametrize('size', [*SIZES, (1079, 1920)], ids=str)
@pytest.mark.parametrize('encoding', PLANES)
def test_planar_encodings(encoding, size, padding):
    """Colour has half the size, rounded up, in rows of the same step or of half of it."""
    height, width = size
    whole = (height + height % 2, width + width % 2)
    half = (whole[0] // 2, whole[1] // 2)
    luma, u, v = noise(whole, np.uint8), noise(half, np.uint8), noise(half, np.uint8)
    luma[height:], luma[:, width:] = luma[height - 1], luma[:, width - 1 : width]
    if encoding.startswith('nv'):
        pair = (u, v) if encoding == 'nv12' else (v, u)
        colour = [np.stack(pair, axis=2).reshape(half[0], -1)]
    else:
        colour = [v, u] if encoding == 'yv12' else [u, v]
    plain = np.concatenate([plane.reshape(-1) for plane in (luma, *colour)])
    plain = plain.reshape(whole[0] * 3 // 2, whole[1])
    expected = cv2.cvtColor(plain, PLANES[encoding])[:height, :width]

    step = width + padding
    colour_step = (step + step % 2) // len(colour)
    planes = [padded(luma[:height, :width], step), *(padded(c, colour_step) for c in colour)]
    data = b''.join(plane.tobytes() for plane in planes)
    msg = message(encoding, luma[:height, :width], step=step, data=data)
    np.testing.assert_array_equal(decode_image(msg), expected)
    with pytest.raises(FrameError, match=f'at least {len(data)} bytes of {encoding}'):
        decode_image(message(encoding, luma[:height, :width], step=step, data=data[:-1]))


def test_planar_step_that_counts_all_bytes_of_a_row():
    """As some drivers write it: step x height is the size of the data."""
    plain = noise((12, 16), np.uint8)
    msg = message('nv12', plain, height=8, step=24)
    expected = cv2.cvtColor(plain, cv2.COLOR_YUV2RGB_NV12)
    np.testing.assert_array_equal(decode_image(msg), expected)


@pytest.mark.parametrize('letters', ['rggb', 'bggr', 'gbrg', 'grbg'])
@pytest.mark.parametrize('bits', [8, 16])
def test_mosaics_are_named_by_their_first_two_rows(letters, bits):
    values = [COLOUR['rgb'.index(letter)] for letter in letters]
    mosaic = np.tile(np.array(values).reshape(2, 2), (4, 6))
    mosaic = mosaic.astype(np.uint8) if bits == 8 else (mosaic * 256 + 255).astype(np.uint16)
    image = decode_image(message(f'bayer_{letters}{bits}', mosaic))
    np.testing.assert_array_equal(image[2:-2, 2:-2], np.full((4, 8, 3), COLOUR))


@pytest.mark.parametrize('order', ['uyvy', 'yuyv'])
def test_colours_of_yuv(order):
    red, green, blue = COLOUR  # ITU-R BT.601, video levels
    y = round(16 + 0.257 * red + 0.504 * green + 0.098 * blue)
    u = round(128 - 0.148 * red - 0.291 * green + 0.439 * blue)
    v = round(128 + 0.439 * red - 0.368 * green - 0.071 * blue)
    pair = {'uyvy': [u, y, v, y], 'yuyv': [y, u, y, v]}[order]
    pixels = np.tile(np.array(pair, np.uint8).reshape(1, 2, 2), (8, 6, 1))
    assert np.abs(decode_image(message(order, pixels)).astype(int) - COLOUR).max() <= 2


def test_rgb8_is_not_copied():
    pixels = noise((8, 12, 3), np.uint8)
    msg = message('rgb8', pixels, data=pixels.reshape(-1))
    assert np.shares_memory(decode_image(msg), pixels)


@pytest.mark.parametrize('shape', [(4, 1, 1), (1, 4, 1), (4, 4, 3), (64, 64, 4)])
@pytest.mark.parametrize('order', ['<u2', '>u2'])
def test_sixteen_bits_become_eight(shape, order):
    values = noise(shape, np.uint16).astype(order)
    np.testing.assert_array_equal(to_eight_bits(values), values // 256)
    scaled = np.rint((np.clip(values.astype(float), 1000, 5095) - 1000) * 255 / 4095)
    image = to_eight_bits(values, (1000, 5095))
    assert image.shape == shape and image.dtype == np.uint8
    np.testing.assert_array_equal(image, scaled)


def test_a_range_of_grey_values():
    """As a thermal camera has it; the ends and what is beyond are black and white."""
    pixels = np.array([[0, 29_000, 30_000, 30_250, 30_500, 31_000, 65_535]], np.uint16)
    for encoding in ('mono16', '16UC1'):
        image = decode_image(message(encoding, pixels), (30_000, 30_510))
        assert image[0, :, 0].tolist() == [0, 0, 0, 125, 250, 255, 255]
    eight = message('mono8', pixels.astype(np.uint8))
    np.testing.assert_array_equal(decode_image(eight, (30_000, 30_510)), decode_image(eight))
    assert (
        to_eight_bits(np.arange(65536, dtype=np.uint16), (0, 65535))[[0, -1]] == (0, 255)
    ).all()


@pytest.mark.parametrize('is_bigendian', [0, 1])
@pytest.mark.parametrize('encoding', DEEP)
def test_sixteen_bits_may_be_kept(encoding, is_bigendian):
    """What is reduced later, by the receiver, is what would be reduced now."""
    pixels = noise((8, 12, CODES[encoding][0]), np.uint16)
    sent = pixels.astype('>u2') if is_bigendian else pixels
    msg = message(encoding, sent, is_bigendian=is_bigendian)
    kept = decode_image(msg, keep_depth=True)
    assert (kept.shape, kept.dtype) == ((8, 12, 3), np.dtype('uint16'))
    for grey_range in (None, (1000, 5095)):
        np.testing.assert_array_equal(
            to_eight_bits(kept, grey_range), decode_image(msg, grey_range)
        )


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        ([0, 0], None),
        ([0, 200], (0, 255)),
        ([7, 900], (0, 1023)),
        ([0, 4095], (0, 4095)),
        ([300, 4096], (0, 8191)),
        ([0, 16383], (0, 16383)),
        ([0, 16384], None),
        ([30_000, 30_500], (30_000, 30_500)),
        ([30_000, 30_000], None),
        ([0, 65535], None),
    ],
)
def test_a_range_is_suggested_for_images_that_use_few_values(values, expected):
    assert suggest_grey_range(np.array([values], np.uint16)) == expected
    assert suggest_grey_range(np.array([values], np.uint16).astype(np.uint8)) is None


@pytest.mark.parametrize('grey_range', [(5, 5), (6, 5), (-1, 5), (0, 65536)])
def test_a_range_without_values(grey_range):
    with pytest.raises(ValueError, match='0 <= low < high <= 65535'):
        to_eight_bits(np.zeros((2, 2), np.uint16), grey_range)


LARGEST = 2**32 - 1


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'width': 0}, 'got 0 x 8 pixels'),
        ({'height': 0}, 'got 12 x 0 pixels'),
        ({'data': bytes(287)}, r'36 x 8 = 288 bytes of data, got 287'),
        ({'step': 30}, 'step of at least 36 bytes'),
        ({'encoding': 'rgb16'}, 'step of at least 72 bytes'),
        ({'encoding': '32FC1'}, "encoding of rgb8, .*got '32FC1'. It is an image of depth"),
        ({'encoding': 'nv24'}, 'cv_bridge does not convert it either. Have the camera publish'),
        ({'encoding': 'yuyv', 'width': 11, 'step': 22}, 'an even width for yuyv .*got 11 x 8'),
        ({'encoding': 'yuyv', 'width': 19}, 'step of at least 40 bytes'),
        ({'encoding': 'nv12', 'step': 11}, 'step of at least 12 bytes'),
        ({'encoding': 'nv12', 'height': 24, 'step': 12}, 'at least 432 bytes'),
        ({'height': LARGEST}, 'bytes of data, got 288'),
        ({'height': LARGEST, 'encoding': 'i420'}, 'bytes of i420'),
        ({'step': LARGEST}, 'bytes of data, got 288'),
        ({'step': LARGEST, 'encoding': 'nv21'}, 'bytes of nv21'),
        ({'width': LARGEST}, 'step of at least'),
        ({'width': LARGEST, 'height': LARGEST, 'step': LARGEST}, 'step of at least'),
        ({'width': LARGEST, 'height': LARGEST, 'step': LARGEST, 'encoding': 'nv12'}, 'at least'),
    ],
)
def test_unusable(changes, reason):
    pixels = np.zeros((8, 12, 3), np.uint8)
    with pytest.raises(FrameError, match=reason) as raised:
        decode_image(message(**{'encoding': 'rgb8', 'pixels': pixels, **changes}))
    assert not isinstance(raised.value, EncodingError)


@pytest.mark.parametrize('encoding', ['', 'RGB8', '8UC2', '16SC1', '32FC3', 'x' * 1_000_000])
def test_other_encodings_may_be_read_elsewhere(encoding):
    with pytest.raises(EncodingError) as raised:
        decode_image(message(encoding, np.zeros((8, 12, 3), np.uint8)))
    assert len(str(raised.value)) < 500
