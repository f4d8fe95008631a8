"""Depth image messages to metres."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from videomt_ros.datasets.depth_images import decode_depth_image
from videomt_ros.datasets.images import EncodingError, FrameError


def message(values: np.ndarray, encoding: str, big: bool = False, pad: int = 0, **fields):
    dtype = np.dtype({'16UC1': 'u2', 'mono16': 'u2', '32FC1': 'f4'}[encoding])
    rows = values.astype(dtype.newbyteorder('>' if big else '<'))
    rows = np.ascontiguousarray(rows).view(np.uint8).reshape(len(values), -1)
    rows = np.pad(rows, ((0, 0), (0, pad)), constant_values=255)
    settings = {
        'height': values.shape[0],
        'width': values.shape[1],
        'step': rows.shape[1],
        'encoding': encoding,
        'is_bigendian': int(big),
        'data': rows.tobytes(),
    }
    return SimpleNamespace(**{**settings, **fields})


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('pad', [0, 1, 6])
def test_both_encodings_in_both_orders_with_padding(big, pad):
    nan = np.nan
    millimetres = np.array([[0, 1, 1500], [65534, 65535, 10_000]])
    expected = np.array([[nan, 0.001, 1.5], [65.534, nan, 10.0]], np.float32)
    for encoding in ('16UC1', 'mono16'):
        depth = decode_depth_image(message(millimetres, encoding, big, pad))
        assert depth.dtype == np.float32
        np.testing.assert_array_equal(depth, expected)
    metres = np.array([[0.0, -1.0, 1.5], [nan, np.inf, -np.inf]])
    depth = decode_depth_image(message(metres, '32FC1', big, pad))
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, np.array([[nan, nan, 1.5], [nan, nan, nan]], np.float32))


def test_bytes_after_the_last_row_are_ignored_and_the_message_stays_as_it_is():
    msg = message(np.array([[0.0, 2.0]]), '32FC1')
    before = bytearray(msg.data)
    msg.data = bytearray(before + b'123')
    np.testing.assert_array_equal(decode_depth_image(msg), [[np.nan, 2.0]])
    assert msg.data[:-3] == before


@pytest.mark.parametrize(
    ('fields', 'text'),
    [
        ({'height': 0}, 'with pixels, got 3 x 0'),
        ({'width': 0}, 'with pixels, got 0 x 2'),
        ({'step': 5}, 'a step of at least 6 bytes for 3 pixels of 16UC1, got 5'),
        ({'data': b'12345678901'}, 'step x height = 6 x 2 = 12 bytes of data, got 11'),
    ],
)
def test_a_broken_message_is_refused(fields, text):
    with pytest.raises(FrameError, match=text):
        decode_depth_image(message(np.ones((2, 3)), '16UC1', **fields))


@pytest.mark.parametrize('encoding', ['rgb8', '64FC1', '', '32FC3'])
def test_another_encoding_is_refused(encoding):
    with pytest.raises(EncodingError, match='16UC1 .millimetres. or 32FC1 .metres., got'):
        msg = message(np.ones((2, 3)), '16UC1')
        msg.encoding = encoding
        decode_depth_image(msg)


def test_compressed_depth_is_named_with_its_remedy():
    msg = SimpleNamespace(format='16UC1; compressedDepth png', data=b'')
    with pytest.raises(EncodingError, match='in_transport:=compressedDepth'):
        decode_depth_image(msg)
