"""10,000 generated messages: each one is decoded or refused, nothing else."""

from __future__ import annotations

import array
import resource
from types import SimpleNamespace

import cv2
import numpy as np

from videomt_ros.datasets.compressed import decode_compressed_image
from videomt_ros.datasets.images import ENCODINGS, FrameError, decode_image

NUM_MESSAGES = 10_000
GOOD_EVERY = 50
ODD_ENCODINGS = ('', 'RGB8', '32FC1', '64FC1', '8UC2', '16SC1', '32SC1', 'nv24', 'h264', '\u00e9')
FORMATS = (
    'jpeg',
    'png',
    '',
    ';',
    'rgb8; jpeg compressed bgr8',
    'bgr8; png compressed rgb8',
    'mono16; png compressed ',
    'rgb8; tiff compressed ',
    '16UC1; compressedDepth png',
    'h264',
    *(f'{encoding}; jpeg compressed ' for encoding in ENCODINGS if 'bayer' in encoding),
)
LARGE = (0, 1, 2, 255, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


class Generator:
    """Makes messages, valid ones and others, from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.scene = cv2.GaussianBlur(self.rng.integers(0, 256, (40, 56, 3), np.uint8), (5, 5), 0)
        deep = self.scene.astype(np.uint16) * 257
        grey, odd = self.scene[..., 0], self.scene[:33, :47]
        progressive = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
        restarts = (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
        self.files = [
            cv2.imencode(suffix, image, options)[1].tobytes()
            for suffix, image, options in (
                ('.jpg', self.scene, ()),
                ('.jpg', odd, ()),
                ('.jpg', grey, ()),
                ('.jpg', self.scene, progressive),
                ('.jpg', self.scene, restarts),
                ('.png', self.scene, ()),
                ('.png', grey, ()),
                ('.png', deep, ()),
                ('.webp', self.scene, ()),
                ('.bmp', self.scene, ()),
                ('.tiff', deep, ()),
            )
        ]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def number(self, largest: int) -> int:
        return int(self.rng.integers(largest + 1))

    def text(self) -> str:
        return ''.join(map(chr, self.rng.integers(1, 0xD7FF, self.number(30)).tolist()))

    def raw(self) -> SimpleNamespace:
        encoding = str(self.rng.choice(ENCODINGS))
        height, width = self.number(40), self.number(40)
        step = width * (8 if self.chance(0.5) else self.number(8)) + self.number(9)
        size = height * step + (step + 1) * (height + 1) // 2
        if self.chance(0.1):
            size = self.number(size)
        fields = {'height': height, 'width': width, 'step': step}
        while self.chance(0.2):
            fields[str(self.rng.choice(list(fields)))] = int(self.rng.choice(LARGE))
        if self.chance(0.1):
            encoding = self.text() if self.chance(0.5) else str(self.rng.choice(ODD_ENCODINGS))
        return SimpleNamespace(
            **fields,
            encoding=encoding,
            is_bigendian=self.number(255) if self.chance(0.1) else self.number(1),
            data=array.array('B', self.rng.bytes(size)),
        )

    def compressed(self) -> SimpleNamespace:
        data = bytearray(self.files[self.number(len(self.files) - 1)])
        if self.chance(0.3):
            del data[self.number(len(data)) :]
        if self.chance(0.2):
            data += self.rng.bytes(self.number(100))
        if self.chance(0.1):
            start = self.number(len(data))
            del data[start : start + self.number(50)]
        while data and self.chance(0.6):
            # The first bytes hold the sizes and tables.
            last = min(len(data), 200 if self.chance(0.6) else len(data)) - 1
            data[self.number(last)] ^= 1 << self.number(7)
        if self.chance(0.05):
            data = bytearray(self.rng.bytes(self.number(300)))
        stated = self.text() if self.chance(0.1) else str(self.rng.choice(FORMATS))
        return SimpleNamespace(data=array.array('B', data), format=stated)


def test_every_message_is_decoded_or_refused():
    generator = Generator(11)
    good = [
        (decode_compressed_image, SimpleNamespace(data=array.array('B', data), format='jpeg'))
        for data in generator.files
    ]
    pixels = generator.scene
    raw = {'height': 40, 'width': 56, 'step': 168, 'is_bigendian': 0, 'data': pixels.tobytes()}
    good.append((decode_image, SimpleNamespace(encoding='bgr8', **raw)))
    expected = [decode(msg) for decode, msg in good]
    np.testing.assert_array_equal(expected[5], pixels[..., ::-1])
    np.testing.assert_array_equal(expected[-1], pixels[..., ::-1])

    memory_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    num_decoded = {decode_image: 0, decode_compressed_image: 0}
    for number in range(NUM_MESSAGES):
        is_raw = number % 2 == 0
        decode = decode_image if is_raw else decode_compressed_image
        msg = generator.raw() if is_raw else generator.compressed()
        grey_range = (100, 4000) if generator.chance(0.3) else None
        try:
            image = decode(msg, grey_range)
        except FrameError as error:
            assert len(str(error)) < 1000 and '\n' not in str(error)
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            assert not is_raw or image.shape[:2] == (msg.height, msg.width)
            num_decoded[decode] += 1
        if number % GOOD_EVERY == 0:
            index = number // GOOD_EVERY % len(good)
            np.testing.assert_array_equal(good[index][0](good[index][1]), expected[index])
    # Neither everything passes nor everything is refused.
    assert all(NUM_MESSAGES / 20 < count < NUM_MESSAGES / 2.1 for count in num_decoded.values())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_kb < 600_000
