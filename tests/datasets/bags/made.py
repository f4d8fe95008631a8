"""Bags that tests write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_JAZZY)
START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000


def image_of(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """RGB image in which a bright square moves with the frame number, on noise."""
    image = np.random.default_rng(number).integers(0, 60, (height, width, 3)).astype(np.uint8)
    image[10:20, number % 40 : number % 40 + 10] = (250, 120, 30)
    return image


def header_of(number: int) -> Any:
    stamp_ns = START_NS + number * PERIOD_NS - 7_000_000  # taken 7 ms before it was recorded
    time = STORE.types['builtin_interfaces/msg/Time'](stamp_ns // 10**9, stamp_ns % 10**9)
    return STORE.types['std_msgs/msg/Header'](time, 'front')


def image_message(number: int, encoding: str = 'rgb8', padding: int = 0, **changes: Any) -> Any:
    """A `sensor_msgs/Image`; an encoding that is not known here gets the bytes of rgb8."""
    image = image_of(number)
    if encoding == 'bgr8':
        image = image[..., ::-1]
    elif encoding == 'mono8':
        image = image[..., :1]
    rows = image.reshape(image.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    fields = {
        'header': header_of(number),
        'height': image.shape[0],
        'width': image.shape[1],
        'encoding': encoding,
        'is_bigendian': 0,
        'step': rows.shape[1],
        'data': np.ascontiguousarray(rows).reshape(-1),
    }
    return STORE.types['sensor_msgs/msg/Image'](**{**fields, **changes})


def compressed_message(number: int, suffix: str = '.png') -> Any:
    data = cv2.imencode(suffix, image_of(number)[..., ::-1])[1].reshape(-1)
    kind = STORE.types['sensor_msgs/msg/CompressedImage']
    return kind(header_of(number), f'rgb8; {suffix[1:]} compressed bgr8', data)


def write_bag(
    path: Path,
    topics: dict[str, Sequence[Any]],
    storage: StoragePlugin = StoragePlugin.SQLITE3,
    compression: CompressionMode = CompressionMode.NONE,
    first: int = 0,
) -> Path:
    """Write messages, one of each topic every 0.1 s, the first at the time of image `first`."""
    writer = Writer(path, version=9, storage_plugin=storage)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        for topic, messages in topics.items():
            kind = messages[0].__msgtype__
            connection = writer.add_connection(topic, kind, typestore=STORE)
            for number, message in enumerate(messages, start=first):
                data = STORE.serialize_cdr(message, kind)
                writer.write(connection, START_NS + number * PERIOD_NS, data)
    return path
