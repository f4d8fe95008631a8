"""Mcap files of other tools: every kind of channel, chunk and summary."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tests.datasets.bags.made import STORE, image_message, image_of
from tests.datasets.bags.mcap_bytes import (
    ENDING,
    IMAGE,
    IMAGE_DEFINITION,
    Channel,
    Message,
    channel_records,
    chunk,
    image,
    mcap,
    message_record,
    record,
    statistics,
    text,
    write_mcap,
)
from videomt_ros.datasets.bags.files import BagError
from videomt_ros.datasets.bags.images import BagImages

SERVICE = """================================================================================
SRV: example_interfaces/srv/AddTwoInts
int64 a
---
int64 sum
"""
OTHERS = {
    'service event': Channel(
        '/add/_service_event', 'a/srv/Add_Event', 'ros2msg', SERVICE.encode()
    ),
    'protobuf': Channel('/other', 'foxglove.SceneUpdate', 'protobuf', b'\n\xff\x00', 'protobuf'),
    'jsonschema': Channel('/other', 'Pose', 'jsonschema', b'{"type": "object"}', 'json'),
    'flatbuffer': Channel('/other', 'Pose', 'flatbuffer', b'\0\1', 'flatbuffer'),
    'no definition': Channel('/other', 'mine/msg/Odd', 'ros2msg', b'mine/msg/Odd'),
    'does not parse': Channel('/other', 'mine/msg/Odd', 'ros2msg', b'float32[ x\n=='),
    'no text': Channel('/other', 'mine/msg/Odd', 'ros2msg', b'\xff\xfe'),
    'unknown': Channel('/other', 'mine/msg/Odd', 'unknown', b''),
    'empty': Channel('/other', 'mine/msg/Odd', '', b''),
    'odd idl': Channel('/other', 'mine/msg/Odd', 'ros2idl', b'module {'),
    'ros1': Channel('/other', 'mine/Odd', 'ros1msg', b'Header header', 'ros1'),
    'no type': Channel('/other', '', encoding='json'),
    'same name': Channel('/other', IMAGE, 'jsonschema', b'{}', 'json'),
}


def numbers(frames) -> list[int]:
    """Number of each image, which must be one of the first ten."""
    found = []
    for frame in frames:
        found += [n for n in range(10) if np.array_equal(frame.image, image_of(n))]
    return found


@pytest.mark.parametrize('name', OTHERS)
@pytest.mark.parametrize('with_summary', [True, False])
def test_channels_that_nobody_asked_for_are_skipped(tmp_path, name, with_summary):
    channels = [OTHERS[name], Channel('/image')]
    messages = [image(0, 2), Message(1, 5, b'{}'), image(1, 2)]
    path = tmp_path / 'bag.mcap'
    write_mcap(path, channels, messages)
    if not with_summary:
        path.write_bytes(mcap(channel_records(channels) + chunk(messages)))
    source = BagImages(path)
    assert (source.topic, source.num_frames) == ('/image', 2)
    assert numbers(source.frames()) == [0, 1]
    assert source.notes == []


def test_all_topics_are_listed_with_their_types(tmp_path):
    channels = [*OTHERS.values(), Channel('/image')]
    with pytest.raises(BagError) as caught:
        BagImages(write_mcap(tmp_path / 'bag.mcap', channels, [image(0, len(channels))]), '/up')
    message = str(caught.value)
    assert "got '/up'. It has: /image (sensor_msgs/msg/Image). Its other topics: " in message
    for kind in (
        '/_service_event (a/srv/Add_Event)',
        '/other (foxglove.SceneUpdate as protobuf)',
        '/other (Pose as json)',
        '/other (mine/msg/Odd)',
        '/other (no type as json)',
        '/other (sensor_msgs/msg/Image as json)',
    ):
        assert kind in message


@pytest.mark.parametrize(
    'definition',
    [b'', b'sensor_msgs/msg/Image', b'std_msgs/Header header\nuint32 height', SERVICE.encode()],
    ids=['none', 'its name', 'without its parts', 'another one'],
)
def test_images_whose_definition_is_missing_or_wrong(tmp_path, definition):
    path = write_mcap(tmp_path / 'bag.mcap', [Channel('/image', schema=definition)], [image(3)])
    assert numbers(BagImages(path).frames()) == [3]


def test_images_of_ros_1_in_mcap(tmp_path):
    """As a converter writes the bags of ROS 1, without changing the messages."""
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    definition = store.generate_msgdef(IMAGE)[0].encode()
    stamp = store.types['builtin_interfaces/msg/Time'](5, 7)
    header = store.types['std_msgs/msg/Header'](0, stamp, 'front')
    message = store.types[IMAGE](header, 48, 64, 'rgb8', 0, 192, image_of(4).reshape(-1))
    data = bytes(store.serialize_ros1(message, IMAGE))
    for schema in (definition, b''):
        channel = Channel('/image', 'sensor_msgs/Image', 'ros1msg', schema, 'ros1')
        path = write_mcap(tmp_path / 'bag.mcap', [channel], [Message(1, 9, data)], profile='ros1')
        (frame,) = BagImages(path).frames()
        np.testing.assert_array_equal(frame.image, image_of(4))
        assert frame.stamp_ns == 5_000_000_007


def test_several_schemas_of_one_name(tmp_path):
    """Each channel has its own, of which those of other topics may be anything."""
    wrong = Channel('/odd', IMAGE, 'ros2msg', b'string only_a_name')
    channels = [wrong, Channel('/image'), Channel('/image')]
    messages = [Message(1, 0, b'\0\1\0\0'), image(0, 2), image(1, 3)]
    path = write_mcap(tmp_path / 'bag.mcap', channels, messages)
    assert numbers(BagImages(path, '/image').frames()) == [0, 1]


@pytest.mark.parametrize('compression', ['', 'zstd', 'lz4'])
@pytest.mark.parametrize('ending', ['summary', 'no summary', 'statistics alone', 'none'])
def test_chunks_without_indexes(tmp_path, compression, ending):
    listed = channel_records([Channel('/image')])
    data = listed + b''.join(chunk([image(n), image(n + 1)], compression) for n in (0, 2, 4))
    whole = {
        'summary': mcap(data, listed + statistics({1: 6}, 1)),
        'no summary': mcap(data),
        'statistics alone': mcap(data, statistics({1: 6}, 1)),
        'none': mcap(data)[:-ENDING],  # neither footer nor the end of the data
    }[ending]
    path = tmp_path / 'bag.mcap'
    path.write_bytes(whole)
    source = BagImages(path)
    assert source.num_frames == 6
    assert numbers(source.frames()) == [0, 1, 2, 3, 4, 5]
    assert len(source.notes) == (ending == 'none')


def test_channels_within_chunks(tmp_path):
    before = channel_records([Channel('/image')])
    path = tmp_path / 'bag.mcap'
    path.write_bytes(mcap(chunk([image(0)], 'zstd', before) + chunk([image(1)])))
    assert numbers(BagImages(path).frames()) == [0, 1]


def test_messages_outside_of_chunks_in_the_order_of_time(tmp_path):
    data = channel_records([Channel('/image')])
    data += message_record(image(3)) + chunk([image(1), image(4)]) + message_record(image(0))
    path = tmp_path / 'bag.mcap'
    path.write_bytes(mcap(data + chunk([image(2)])))
    assert numbers(BagImages(path).frames()) == [0, 1, 2, 3, 4]


def test_indexes_that_lie(tmp_path):
    """The index of a chunk says that it holds messages of another channel alone."""
    listed = channel_records([Channel('/image'), Channel('/other', 'a/msg/B')])
    data = listed + chunk([image(0), image(1)])
    index = record(0x07, struct.pack('<H', 2) + text(struct.pack('<QQ', 0, 1)))
    place = len(mcap(b'')) - ENDING
    offsets = text(struct.pack('<HQ', 2, place + len(data)))
    chunk_index = record(
        0x08,
        struct.pack('<QQQQ', 0, 1, place + len(listed), len(data) - len(listed))
        + offsets
        + struct.pack('<Q', len(index))
        + text('')
        + struct.pack('<QQ', 1, 1),
    )
    path = tmp_path / 'bag.mcap'
    path.write_bytes(mcap(data + index, listed + statistics({2: 5}, 2) + chunk_index))
    assert numbers(BagImages(path, '/image').frames()) == [0, 1]


def test_records_of_unknown_kinds_are_skipped(tmp_path):
    data = record(0x80, b'private') + channel_records([Channel('/image')]) + record(0x33, b'')
    path = tmp_path / 'bag.mcap'
    path.write_bytes(mcap(data + chunk([image(0)], before=record(0x99, b'x'))))
    assert numbers(BagImages(path).frames()) == [0]


def test_a_damaged_chunk_costs_its_own_images(tmp_path):
    listed = channel_records([Channel('/image')])
    parts = [bytearray(chunk([image(n)], 'zstd')) for n in range(3)]
    parts[1][-20] ^= 255
    data = listed + b''.join(parts)
    path = tmp_path / 'bag.mcap'
    path.write_bytes(mcap(data, listed + statistics({1: 3}, 1)))
    source = BagImages(path)
    assert numbers(source.frames()) == [0, 2]
    assert 'damaged or was cut off: 2 of 3 images' in source.notes[-1]


@pytest.mark.parametrize('compression', ['zstd', 'xz'])
def test_damage_that_hides_all_channels_is_named(tmp_path, compression):
    path = tmp_path / 'a.mcap'
    records = chunk([image(0)], compression, before=channel_records([Channel('/image')]))
    path.write_bytes(mcap(records if compression == 'xz' else records[: len(records) // 2]))
    fault = 'chunks compressed by' if compression == 'xz' else 'was cut off'
    with pytest.raises(BagError, match=rf'got these topics: none. .*a.mcap is damaged.*{fault}'):
        BagImages(path)


def test_an_unknown_compression_is_named(tmp_path):
    listed = channel_records([Channel('/image')])
    path = tmp_path / 'bag.mcap'
    data = listed + chunk([image(0)], 'xz')
    path.write_bytes(mcap(data, listed + statistics({1: 1}, 1)))
    with pytest.raises(BagError, match="chunks compressed by 'xz'; zstd and lz4 are read"):
        BagImages(path)


def test_another_version_is_newer_and_not_damaged(tmp_path):
    path = tmp_path / 'bag.mcap'
    path.write_bytes(mcap(b'').replace(b'\x89MCAP0', b'\x89MCAP7'))
    with pytest.raises(BagError, match='version 7, newer than this reader, which knows up to 0'):
        BagImages(path)


def test_equal_times_keep_the_order_of_the_file(tmp_path):
    data = channel_records([Channel('/image')])
    messages = [image(n)._replace(time_ns=0) for n in range(6)]
    path = tmp_path / 'bag.mcap'
    path.write_bytes(mcap(data + b''.join(chunk(messages[n : n + 2]) for n in (0, 2, 4))))
    assert numbers(BagImages(path).frames()) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize('seed', range(8))
def test_damage_anywhere_is_read_or_refused(tmp_path, seed):
    listed = channel_records([Channel('/image')])
    data = listed + b''.join(chunk([image(n)], ['', 'zstd', 'lz4'][n % 3]) for n in range(5))
    whole = bytearray(mcap(data, listed + statistics({1: 5}, 1)))
    rng = np.random.default_rng(seed)
    for place in rng.integers(8, len(whole), 12):
        whole[place] = rng.integers(256)
    path = tmp_path / 'bag.mcap'
    path.write_bytes(whole)
    try:
        frames = list(BagImages(path).frames())
    except BagError:
        return
    assert len(frames) <= 5


def test_the_definition_in_the_bag_is_read(tmp_path):
    """A definition in OMG IDL, and images as they are."""
    definition = STORE.generate_msgdef(IMAGE, ros_version=2)[0]
    assert definition == IMAGE_DEFINITION
    data = bytes(STORE.serialize_cdr(image_message(2), IMAGE))
    channel = Channel('/image', 'sensor_msgs::msg::Image', 'omgidl', b'module x {};')
    path = write_mcap(tmp_path / 'bag.mcap', [channel], [Message(1, 1, data)])
    assert numbers(BagImages(path).frames()) == [2]
