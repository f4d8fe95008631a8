"""Compressed images against OpenCV and Pillow, whole and cut off."""

from __future__ import annotations

import array
import io
import struct
import tracemalloc
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from videomt_ros.datasets.compressed import (
    decode_compressed_image,
    decode_image_file,
    orientation_of,
)
from videomt_ros.datasets.image_headers import MAX_PIXELS, read_header
from videomt_ros.datasets.images import FrameError

RNG = np.random.default_rng(0)


def scene(height: int = 77, width: int = 101) -> np.ndarray:
    """Smooth RGB noise, which compresses like a photograph."""
    image = cv2.GaussianBlur(RNG.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 3)
    return cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)


SCENE = scene()
ALPHA = np.dstack((SCENE, SCENE[..., 0]))
DEEP = RNG.integers(0, 65536, (7, 11, 3), np.uint16)


def saved(image: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(file, kind, **options)
    return file.getvalue()


def encoded(image: np.ndarray, suffix: str, *options: int) -> bytes:
    """An image as OpenCV writes it, which takes three channels for BGR."""
    return cv2.imencode(suffix, image, options)[1].tobytes()


def message(data: bytes, stated_format: str = 'jpeg') -> SimpleNamespace:
    return SimpleNamespace(data=array.array('B', data), format=stated_format)


def pillow(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)).convert('RGB'))


def without_huffman_tables(data: bytes) -> bytes:
    """A JPEG as a webcam sends it in MJPEG."""
    kept, position = data[:2], 2
    while data[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], 'big')
        kept += b'' if data[position + 1] == 0xC4 else data[position:end]
        position = end
    return kept + data[position:]


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


JPEG = saved(SCENE, 'JPEG')
PNG = saved(SCENE, 'PNG')
RESTARTS = saved(SCENE, 'JPEG', restart_marker_blocks=3)
PROGRESSIVE = saved(SCENE, 'JPEG', progressive=True)
PALETTE = Image.fromarray(SCENE).quantize(50)
FILES = {
    'jpeg': JPEG,
    'jpeg 4:4:4': saved(SCENE, 'JPEG', subsampling=0),
    'jpeg 4:2:2': saved(SCENE, 'JPEG', subsampling=1),
    'jpeg progressive': PROGRESSIVE,
    'jpeg of grey': saved(SCENE[..., 0], 'JPEG'),
    'jpeg with restarts': RESTARTS,
    'jpeg without Huffman tables': without_huffman_tables(JPEG),
    'jpeg with a thumbnail': JPEG[:2] + b'\xff\xe1\x04\x02' + (JPEG * 2)[:1024] + JPEG[2:],
    'jpeg with filled markers': JPEG[:2] + b'\xff\xff' + JPEG[2:-2] + b'\xff\xff\xff\xd9',
    'jpeg of one pixel': saved(SCENE[:1, :1], 'JPEG'),
    'jpeg of mid-grey': saved(np.full((33, 49, 3), 128, np.uint8), 'JPEG'),
    'png': PNG,
    'png of grey': saved(SCENE[..., 0], 'PNG'),
    'png of grey and alpha': saved(Image.fromarray(ALPHA[..., 2:], 'LA'), 'PNG'),
    'png with alpha': saved(ALPHA, 'PNG'),
    'png of a palette': saved(PALETTE, 'PNG'),
    'png of a palette with a hole': saved(PALETTE, 'PNG', transparency=3),
    'png of bits': saved(Image.fromarray(SCENE[..., 0]).convert('1'), 'PNG'),
    'webp': saved(SCENE, 'WEBP'),
    'webp without loss': saved(SCENE, 'WEBP', lossless=True),
    'webp with alpha': saved(ALPHA, 'WEBP', lossless=True),
    'bmp': saved(SCENE, 'BMP'),
    'tiff': saved(SCENE, 'TIFF'),
    'tiff with lzw': saved(SCENE, 'TIFF', compression='tiff_lzw'),
}


@pytest.mark.parametrize('name', FILES)
def test_pixels_are_those_of_pillow(name):
    image = decode_compressed_image(message(FILES[name], name.partition(' ')[0]))
    np.testing.assert_array_equal(image, pillow(FILES[name]))
    assert image.dtype == np.uint8


@pytest.mark.parametrize('name', FILES)
def test_bytes_after_the_end_are_ignored(name):
    for tail in (b'\0' * 100, b'\n', JPEG[:700], JPEG):
        image = decode_image_file(FILES[name] + tail)
        np.testing.assert_array_equal(image, pillow(FILES[name]))


@pytest.mark.parametrize('name', FILES)
def test_a_file_that_was_cut_off_is_refused(name):
    data = FILES[name]
    cuts = {*range(0, len(data), max(1, len(data) // 50)), len(data) - 1, len(data) - 2}
    for cut in sorted(cuts):
        with pytest.raises(FrameError):
            decode_image_file(data[:cut])
        if name.startswith(
            ('jpeg', 'png')
        ):  # a buffer of a fixed size; zeros are pixels elsewhere
            with pytest.raises(FrameError):
                decode_image_file(data[:cut] + bytes(len(data) - cut))


@pytest.mark.parametrize('tail', [b'\xff\xd9', JPEG, b'\xff\xd9' + bytes(1000)])
@pytest.mark.parametrize('data', [JPEG, RESTARTS, FILES['jpeg of grey'], PROGRESSIVE])
def test_a_jpeg_that_was_cut_off_and_ended_is_refused(data, tail):
    """Decoders fill it with grey, Pillow, too."""
    start = data.index(b'\xff\xda') + 20
    for cut in range(start, len(data) - 40, len(data) // 100):
        with pytest.raises(FrameError, match='JPEG'):
            decode_image_file(data[:cut] + tail)


def test_bytes_before_a_restart_are_no_cut():
    """Webcams send them; the image is whole."""
    assert b'\xff\xd1' in RESTARTS
    data = RESTARTS.replace(b'\xff\xd1', b'\x12\x34\xff\xd1')
    np.testing.assert_array_equal(decode_image_file(data), pillow(RESTARTS))


@pytest.mark.parametrize(
    ('stated_format', 'is_swapped'),
    [
        ('rgb8; jpeg compressed bgr8', False),
        ('bgr8; jpeg compressed bgr8', False),
        ('rgba8; jpeg compressed bgr8', False),
        ('mono8; jpeg compressed mono8', False),
        ('yuv422_yuy2; jpeg compressed bgr8', False),
        ('bgr8; png compressed bgr8', False),
        ('rgb8; jpeg compressed ', False),
        ('mono16; png compressed ', False),
        ('bayer_rggb8; jpeg compressed bgr8', False),
        ('jpeg', False),
        ('jpg', False),
        ('png', False),
        ('JPEG', False),
        ('image/jpeg', False),
        ('rgb8', False),
        ('', False),
        (';', False),
        ('; ; ;', False),
        ('rgb8;jpeg compressed bgr8', False),
        ('rgb8; jpeg compressed rgb8', True),
        ('bgr8; jpeg compressed rgb8', True),
        ('rgb8;png compressed rgb8', True),
    ],
)
def test_formats(stated_format, is_swapped):
    """The comments of CompressedImage.msg define them; image_transport reads them so."""
    for data in (JPEG, PNG):
        expected = pillow(data)[..., ::-1] if is_swapped else pillow(data)
        image = decode_compressed_image(message(data, stated_format))
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8'])
def test_tiff_as_image_transport_writes_it(encoding):
    """It hands OpenCV the raw image, whatever its order."""
    raw = {
        'rgb8': SCENE,
        'bgr8': SCENE[..., ::-1],
        'rgba8': ALPHA,
        'bgra8': ALPHA[..., [2, 1, 0, 3]],
        'mono8': SCENE[..., 0],
    }[encoding]
    data = encoded(np.ascontiguousarray(raw), '.tiff')
    image = decode_compressed_image(message(data, f'{encoding}; tiff compressed '))
    np.testing.assert_array_equal(image, SCENE[..., [0, 0, 0]] if 'mono' in encoding else SCENE)


@pytest.mark.parametrize('suffix', ['.png', '.tiff'])
def test_sixteen_bits(suffix):
    colour, grey = encoded(DEEP, suffix), encoded(DEEP[..., 0], suffix)
    np.testing.assert_array_equal(decode_image_file(colour), DEEP[..., ::-1] // 256)
    np.testing.assert_array_equal(decode_image_file(grey), DEEP[..., [0, 0, 0]] // 256)
    scaled = np.rint((np.clip(DEEP[..., [0, 0, 0]].astype(float), 1000, 5095) - 1000) * 255 / 4095)
    msg = message(grey, f'mono16; {suffix[1:]} compressed ')
    np.testing.assert_array_equal(decode_compressed_image(msg, (1000, 5095)), scaled)
    eight = message(PNG, 'png')
    np.testing.assert_array_equal(decode_compressed_image(eight, (1000, 5095)), SCENE)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        ('JPEG', {}),
        ('PNG', {}),
        ('WEBP', {'lossless': True}),
        ('TIFF', {}),
        ('TIFF', {'compression': 'tiff_lzw'}),
        ('TIFF', {'big_endian': True}),
    ],
    ids=repr,
)
def test_an_orientation_is_ignored(kind, options, orientation):
    """Pixels stay as they are stored, in messages and files of all kinds."""
    upright = saved(SCENE, kind, **options)
    turned = saved(SCENE, kind, exif=exif_of(orientation), **options)
    expected = decode_image_file(upright)
    np.testing.assert_array_equal(decode_image_file(turned), expected)
    np.testing.assert_array_equal(decode_compressed_image(message(turned, kind)), expected)
    assert (orientation_of(turned), orientation_of(upright)) == (orientation, 1)


@pytest.mark.parametrize('data', [b'', b'none', JPEG[:40], saved(SCENE, 'BMP')], ids=range(4))
def test_no_orientation_is_upright(data):
    assert orientation_of(data) == 1


@pytest.mark.parametrize('suffix', ['.png', '.tiff'])
def test_sixteen_bits_may_be_kept(suffix):
    kept = decode_image_file(encoded(DEEP, suffix), keep_depth=True)
    np.testing.assert_array_equal(kept, DEEP[..., ::-1])
    assert kept.dtype == np.uint16
    eight = decode_compressed_image(message(PNG), keep_depth=True)
    np.testing.assert_array_equal(eight, SCENE)


@pytest.mark.parametrize('encoding', ['bayer_rggb8', 'bayer_grbg16'])
def test_a_mosaic_is_compressed_as_grey(encoding):
    grey = DEEP[..., 0] if encoding.endswith('16') else SCENE[..., 0]
    code = cv2.COLOR_BayerRGGB2RGB if 'rggb' in encoding else cv2.COLOR_BayerGRBG2RGB
    expected = cv2.cvtColor(np.ascontiguousarray(grey), code)
    if encoding.endswith('16'):
        expected = expected // 256
    data = encoded(grey, '.png')
    image = decode_compressed_image(message(data, f'{encoding}; png compressed '))
    np.testing.assert_array_equal(image, expected)


def png_of(width: int, height: int, rows: bytes = b'') -> bytes:
    """A PNG of black pixels whose header claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', crc)

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    content = chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + content


def with_size(data: bytes, kind: str, width: int, height: int) -> bytes:
    """The same file with another size in its header."""
    changed = bytearray(data)
    if kind == 'JPEG':
        frame = data.index(b'\xff\xc0')
        struct.pack_into('>HH', changed, frame + 5, height, width)
    elif kind == 'BMP':
        struct.pack_into('<ii', changed, 18, width, height)
    elif kind == 'WebP':
        struct.pack_into('<HH', changed, 26, width, height)
    else:
        (start,) = struct.unpack_from('<I', data, 4)
        for index in range(struct.unpack_from('<H', data, start)[0]):
            entry = start + 2 + 12 * index
            tag = struct.unpack_from('<H', data, entry)[0]
            if tag in (256, 257):
                side = width if tag == 256 else height
                struct.pack_into('<HII', changed, entry + 2, 4, 1, side)
    return bytes(changed)


@pytest.mark.parametrize(
    ('data', 'size'),
    [
        (with_size(JPEG, 'JPEG', 65535, 65535), '65535 x 65535'),
        (with_size(JPEG, 'JPEG', 8193, 8192), '8193 x 8192'),
        (png_of(2**31 - 1, 2**31 - 1), '2147483647 x 2147483647'),
        (png_of(8192, 8193), '8192 x 8193'),
        (with_size(FILES['webp'], 'WebP', 16383, 16383), '16383 x 16383'),
        (with_size(FILES['tiff'], 'TIFF', 2**32 - 1, 2**32 - 1), '4294967295 x 4294967295'),
        (with_size(FILES['tiff'], 'TIFF', 100_000, 1000), '100000 x 1000'),
    ],
    ids=str,
)
def test_too_many_pixels_are_refused_without_being_decoded(data, size):
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match=f'at most 67108864 pixels, got .*{size}'):
            decode_compressed_image(message(data))
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()
    assert MAX_PIXELS == 8192 * 8192


def test_the_largest_image_is_read():
    header = read_header(png_of(8192, 8192))
    assert header is not None and (header.width, header.height) == (8192, 8192)


@pytest.mark.parametrize(
    ('data', 'stated_format', 'reason'),
    [
        (b'', 'jpeg', "got 0 bytes of format 'jpeg'"),
        (b'no image', 'jpeg', "got 8 bytes of format 'jpeg'"),
        (b'no image', '', 'got 8 bytes that are none'),
        (bytes(12) + PNG, '16UC1; compressedDepth png', 'one of depth .*topic of the colour'),
        (PNG, '32FC1; compressedDepth', 'one of depth'),
        (b'\x01\x02', '16UC1; compressedDepth rvl', 'one of depth'),
        (b'\0\0\0\1\x67', '', 'a packet of a video. Republish it'),
        (b'\0\0\0\1\x67', 'h264', 'a packet of a video. Republish it'),
        (b'\x12\0', 'av1', 'a packet of a video'),
        (b'\x12\0', 'hevc', 'a packet of a video'),
        (PNG[:40] + b'\x55' + PNG[41:], 'png', 'checksums do not agree'),
        (png_of(0, 5), 'png', 'got a PNG image of 0 x 5'),
        (png_of(4, 4, bytes(13)), 'png', 'OpenCV cannot decode'),
        (with_size(JPEG, 'JPEG', 8192, 8192), 'jpeg', 'end early'),
        (with_size(JPEG, 'JPEG', 101, 0), 'jpeg', 'got a JPEG image of 101 x 0'),
        (b'\xff\xd8\xff\xd9', 'jpeg', 'without pixels'),
        (JPEG[:-2] + JPEG[JPEG.index(b'\xff\xda') : -2] * 200 + JPEG[-2:], 'jpeg', '100 scans'),
        (
            encoded(np.zeros((3, 4), np.float32), '.tiff'),
            '32FC1; tiff compressed ',
            '8 or 16 bits',
        ),
        (b'GIF89a' + bytes(20), 'gif', 'that are none'),
    ],
)
def test_unusable(data, stated_format, reason):
    with pytest.raises(FrameError, match=reason) as raised:
        decode_compressed_image(message(data, stated_format))
    assert '\n' not in str(raised.value)


def test_a_long_format_is_quoted_in_short():
    with pytest.raises(FrameError) as raised:
        decode_compressed_image(message(b'no image', 'x' * 1_000_000))
    assert len(str(raised.value)) < 300


def test_whole_images_say_nothing_on_stderr(capfd):
    grey_corner = SCENE.copy()
    grey_corner[-16:, -16:] = 128  # as dark as what is missing of a JPEG
    for data in (PROGRESSIVE, saved(grey_corner, 'JPEG')):
        decode_image_file(data)
    assert capfd.readouterr() == ('', '')
