"""Image messages to arrays and back, and segments to messages."""

from __future__ import annotations

import array
import sys

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from tests.ros.malformed import malformed_images
from videomt_ros.ros.conversions import (
    FrameError,
    image_from_msg,
    image_to_jpeg_msg,
    image_to_msg,
    segments_to_msg,
    stamp_from_msg,
    stamp_to_msg,
)
from videomt_ros.structures import Segment, Segments, TrackState

RNG = np.random.default_rng(7)
RGB = RNG.integers(0, 256, (6, 8, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (6, 8, 1), np.uint8)


def to_msg(pixels: np.ndarray, encoding: str, padding: int = 0) -> Image:
    """Build a message of these pixels, with padding bytes after each row."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    rows = np.concatenate((rows, RNG.integers(0, 256, (height, padding), np.uint8)), axis=1)
    data = array.array('B', rows.tobytes())
    return Image(height=height, width=width, step=rows.shape[1], encoding=encoding, data=data)


@pytest.mark.parametrize('padding', [0, 1, 8])
@pytest.mark.parametrize(
    ('encoding', 'pixels'),
    [
        ('rgb8', RGB),
        ('bgr8', RGB[..., ::-1]),
        ('rgba8', np.concatenate((RGB, ALPHA), axis=2)),
        ('bgra8', np.concatenate((RGB[..., ::-1], ALPHA), axis=2)),
    ],
)
def test_reads_colour(encoding, pixels, padding):
    image = image_from_msg(to_msg(pixels, encoding, padding))
    np.testing.assert_array_equal(image, RGB)
    assert image.dtype == np.uint8


@pytest.mark.parametrize('padding', [0, 3])
def test_reads_grey_as_three_equal_channels(padding):
    image = image_from_msg(to_msg(RGB[..., 0], 'mono8', padding))
    np.testing.assert_array_equal(image, np.repeat(RGB[..., :1], 3, axis=2))


@pytest.mark.parametrize('padding', [0, 8])
def test_rgb8_is_a_view_of_the_message(padding):
    msg = to_msg(RGB, 'rgb8', padding)
    image = image_from_msg(msg)
    msg.data[1] ^= 255
    assert image[0, 0, 1] == RGB[0, 0, 1] ^ 255


def test_one_pixel_and_bytes_after_the_last_row():
    msg = Image(height=1, width=1, step=3, encoding='rgb8', data=array.array('B', [1, 2, 3, 9, 9]))
    np.testing.assert_array_equal(image_from_msg(msg), [[[1, 2, 3]]])


def test_reads_sixteen_bits_by_their_range():
    grey = np.array([[0, 1000, 2000, 3000]], np.uint16)
    msg = image_to_msg(grey, 'mono16', Header())
    assert image_from_msg(msg)[0, :, 0].tolist() == [0, 3, 7, 11]
    assert image_from_msg(msg, (1000, 2020))[0, :, 0].tolist() == [0, 0, 250, 255]


def test_reads_compressed_images():
    data = cv2.imencode('.png', RGB[..., ::-1])[1].tobytes()
    msg = CompressedImage(format='rgb8; png compressed bgr8', data=array.array('B', data))
    np.testing.assert_array_equal(image_from_msg(msg), RGB)
    msg.data = msg.data[:-1]
    with pytest.raises(FrameError, match='end early'):
        image_from_msg(msg)


@pytest.mark.parametrize('name', malformed_images())
def test_refuses_malformed_images_in_one_line(name):
    with pytest.raises(FrameError) as caught:
        image_from_msg(malformed_images()[name])
    assert '\n' not in str(caught.value)


def test_names_the_encoding_and_the_way_out():
    with pytest.raises(FrameError, match=r'no_such_encoding') as caught:
        image_from_msg(malformed_images()['unknown encoding'])
    assert 'install it' in str(caught.value)


@pytest.mark.parametrize('encoding', ['32FC1', '64FC1', 'nv24'])
def test_cv_bridge_is_not_the_way_out_of_encodings_that_it_does_not_read(encoding):
    msg = malformed_images()['depth in metres']
    msg.encoding = encoding
    with pytest.raises(FrameError) as caught:
        image_from_msg(msg)
    assert 'install it' not in str(caught.value)
    assert caught.value.kind == 'encoding'


@pytest.mark.parametrize(
    ('encoding', 'image'),
    [
        ('rgb8', RGB),
        ('mono8', RGB[..., 0]),
        ('mono16', RNG.integers(0, 65536, (6, 8), np.uint16)),
        ('mono16', RNG.integers(0, 65536, (8, 6), np.uint16).T),
        ('32SC1', RNG.integers(-(2**31), 2**31, (6, 8), np.int32)),
    ],
)
def test_writes_images(encoding, image):
    header = Header(frame_id='camera')
    msg = image_to_msg(image, encoding, header)
    assert (msg.height, msg.width, msg.encoding) == (6, 8, encoding)
    assert msg.step * msg.height == len(msg.data)
    assert bool(msg.is_bigendian) == (sys.byteorder == 'big')
    assert msg.header is header
    read = np.frombuffer(msg.data, image.dtype).reshape(image.shape)
    np.testing.assert_array_equal(read, image)


def test_writes_jpeg_as_image_transport_does():
    image = np.full((40, 60, 3), (200, 100, 30), np.uint8)
    header = Header(frame_id='camera')
    msg = image_to_jpeg_msg(image, header)
    assert msg.header is header
    # The JPEG itself, as every one, is decoded to BGR by OpenCV.
    assert msg.format == 'rgb8; jpeg compressed bgr8'
    read = cv2.imdecode(np.frombuffer(msg.data, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(read[..., ::-1].astype(int) - image).max() <= 3


def test_an_image_comes_back_as_it_went():
    np.testing.assert_array_equal(image_from_msg(image_to_msg(RGB, 'rgb8', Header())), RGB)


def segment(track_id: int, state: TrackState = TrackState.CONFIRMED, area: int = 4) -> Segment:
    return Segment(
        track_id=track_id,
        class_id=2,
        class_name='star',
        is_thing=True,
        score=0.75,
        state=state,
        age=12,
        last_seen_ns=3_000_000_007,
        box=(1, 2, 4, 3),
        area=area,
    )


def test_writes_tracks():
    ids = np.zeros((4, 6), np.uint16)
    ids[2, 1:4] = 9
    segments = Segments(0, ids, (segment(9), segment(4, TrackState.LOST, area=0)), 5, resets=3)
    header = Header(frame_id='camera')
    msg = segments_to_msg(segments, header, 'tiny')
    assert msg.resets == 3
    assert msg.header is header
    assert (msg.model, msg.height, msg.width) == ('tiny', 4, 6)

    seen, lost = msg.tracks
    assert (seen.id, seen.class_id, seen.class_name, seen.is_thing) == (9, 2, 'star', True)
    assert (seen.score, seen.state, seen.age, seen.area) == (0.75, seen.CONFIRMED, 12, 4)
    assert (seen.last_seen.sec, seen.last_seen.nanosec) == (3, 7)
    box = seen.box
    assert (box.x_offset, box.y_offset, box.width, box.height) == (1, 2, 3, 1)
    assert not box.do_rectify
    size = [seen.mask.height, seen.mask.width]
    decoded = coco_mask.decode({'size': size, 'counts': seen.mask.counts.encode()})
    np.testing.assert_array_equal(decoded, ids == 9)

    assert (lost.id, lost.state) == (4, lost.LOST)
    assert (lost.mask.height, lost.mask.width, lost.mask.counts) == (0, 0, '')


def test_nothing_in_view_is_an_empty_list():
    msg = segments_to_msg(Segments(0, np.zeros((4, 6), np.uint16), (), 5), Header(), '')
    assert list(msg.tracks) == []
    assert (msg.height, msg.width) == (4, 6)


@pytest.mark.parametrize('stamp_ns', [0, 1, 999_999_999, 1_000_000_000, 1_700_000_000_123_456_789])
def test_stamps_survive(stamp_ns):
    assert stamp_from_msg(stamp_to_msg(stamp_ns)) == stamp_ns
