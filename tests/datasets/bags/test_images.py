"""Bags are written here, read back, and broken on purpose."""

from __future__ import annotations

import errno
import gc
import io
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from tests.datasets.bags.made import (
    PERIOD_NS,
    START_NS,
    STORE,
    compressed_message,
    header_of,
    image_message,
    image_of,
    write_bag,
)
from videomt_ros.datasets.bags.files import BagError, is_bag
from videomt_ros.datasets.bags.images import BagImages
from videomt_ros.datasets.bags.repair import repair
from videomt_ros.datasets.image_folder import ImageFolderVideo
from videomt_ros.datasets.opening import open_source

STORAGES = pytest.mark.parametrize('storage', list(StoragePlugin), ids=lambda s: s.name.lower())


def images(count: int, **fields: object) -> list[object]:
    return [image_message(number, **fields) for number in range(count)]


def only_file(folder: Path) -> Path:
    (file,) = (path for path in folder.iterdir() if path.suffix in ('.db3', '.mcap'))
    return file


def cut(file: Path, share: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])


@STORAGES
@pytest.mark.parametrize('as_file', [False, True], ids=['folder', 'file'])
def test_images_stamps_and_times(tmp_path, storage, as_file):
    path = write_bag(tmp_path / 'bag', {'/camera/image_raw': images(5)}, storage)
    path = only_file(path) if as_file else path
    assert is_bag(path)
    source = BagImages(path)
    assert (source.topic, source.num_frames) == ('/camera/image_raw', 5)
    assert source.fps == pytest.approx(10)
    frames = list(source.frames())
    assert [frame.time_ns for frame in frames] == [START_NS + i * PERIOD_NS for i in range(5)]
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, image_of(number))
        assert frame.stamp_ns == START_NS + number * PERIOD_NS - 7_000_000
        assert frame.frame_id == 'front'
    assert source.notes == []


@pytest.mark.parametrize(
    ('storage', 'mode'),
    [
        (StoragePlugin.SQLITE3, CompressionMode.FILE),
        (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
        (StoragePlugin.MCAP, CompressionMode.FILE),
        (StoragePlugin.MCAP, CompressionMode.MESSAGE),
        (StoragePlugin.MCAP, CompressionMode.STORAGE),
    ],
)
def test_zstd(tmp_path, storage, mode):
    source = BagImages(write_bag(tmp_path / 'bag', {'/image': images(3)}, storage, mode))
    for number, frame in enumerate(source.frames()):
        np.testing.assert_array_equal(frame.image, image_of(number))
    assert number == 2


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'mono8'])
def test_encodings_and_padded_rows(tmp_path, encoding):
    path = write_bag(tmp_path / 'bag', {'/image': images(1, encoding=encoding, padding=5)})
    (frame,) = BagImages(path).frames()
    expected = image_of(0)
    if encoding == 'mono8':
        expected = np.repeat(expected[..., :1], 3, axis=2)
    np.testing.assert_array_equal(frame.image, expected)


def test_compressed_images(tmp_path):
    messages = [compressed_message(0), compressed_message(1, '.jpg')]
    png, jpeg = BagImages(write_bag(tmp_path / 'bag', {'/image/compressed': messages})).frames()
    np.testing.assert_array_equal(png.image, image_of(0))
    # JPEG changes pixels, but neither the order of colours nor the place of the square.
    assert np.abs(jpeg.image.astype(int) - image_of(1)).mean() < 25
    assert jpeg.image[15, 6, 0] > 200 > jpeg.image[15, 6, 2]


def test_sixteen_bits(tmp_path):
    grey = np.random.default_rng(0).integers(0, 65536, (48, 64), np.uint16)
    raw = {'data': grey.view(np.uint8).reshape(-1), 'step': 128, 'encoding': 'mono16'}
    turned = {'data': grey.byteswap().view(np.uint8).reshape(-1), 'is_bigendian': 1}
    messages = [image_message(0, **raw), image_message(1, **{**raw, **turned})]
    for frame in BagImages(write_bag(tmp_path / 'bag', {'/image': messages})).frames():
        np.testing.assert_array_equal(frame.image, np.repeat(grey[..., None] // 256, 3, axis=2))


def grey_message(number: int, values: np.ndarray) -> object:
    data = values.astype(np.uint16).view(np.uint8).reshape(-1)
    return image_message(number, data=data, step=2 * values.shape[1], encoding='mono16')


def test_twelve_bits_follow_the_range_that_is_given(tmp_path):
    """As the parameters grey_low and grey_high of the node have it."""
    grey = np.random.default_rng(0).integers(0, 4096, (48, 64), np.uint16)
    grey[0, :2] = 0, 4095
    path = write_bag(tmp_path / 'bag', {'/image': [grey_message(0, grey)]})
    plain, ranged = BagImages(path), BagImages(path, grey_range=(0, 4095))
    (dark,), (frame,) = plain.frames(), ranged.frames()
    assert dark.image.max() == 15
    np.testing.assert_array_equal(frame.image[..., 1], np.rint(grey * (255 / 4095)))
    (note,) = plain.notes
    assert 'with values from 0 to 4095 of 65535' in note
    assert '--grey-low 0 --grey-high 4095' in note
    assert ranged.notes == []
    (kept,) = BagImages(path, keep_depth=True).frames()
    np.testing.assert_array_equal(kept.image, np.repeat(grey[..., None], 3, axis=2))


def test_an_orientation_in_the_images_is_ignored_and_noted(tmp_path):
    """As in folders of images; labels that were made on turned images do not fit."""
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    file = io.BytesIO()
    Image.fromarray(image_of(0)).save(file, 'JPEG', exif=exif)
    kind = STORE.types['sensor_msgs/msg/CompressedImage']
    turned = kind(header_of(0), 'jpeg', np.frombuffer(file.getvalue(), np.uint8))
    folder = tmp_path / 'folder.jpg'
    folder.write_bytes(file.getvalue())
    source = BagImages(write_bag(tmp_path / 'bag', {'/image': [turned]}))
    (frame,) = source.frames()
    (stored,) = ImageFolderVideo(1, 'a', (48, 64), ('a',), (folder,), (0,)).frames()
    np.testing.assert_array_equal(frame.image, stored.image)
    (note,) = source.notes
    assert 'an EXIF orientation (3), which is ignored' in note


def test_the_topic_must_be_named_where_there_are_several(tmp_path):
    path = write_bag(tmp_path / 'bag', {'/left': images(2), '/right': [compressed_message(7)]})
    with pytest.raises(BagError, match=r'/left \(sensor_msgs/msg/Image\), /right \(.*Compressed'):
        BagImages(path)
    with pytest.raises(BagError, match=r"got '/up'. It has: /left"):
        BagImages(path, '/up')
    assert BagImages(path, '/left').num_frames == 2
    (frame,) = BagImages(path, 'right').frames()  # the slash may be left out
    np.testing.assert_array_equal(frame.image, image_of(7))


def test_other_topics_are_not_in_the_way(tmp_path):
    path = write_bag(tmp_path / 'bag', {'/odometry': [header_of(0)] * 4, '/image': images(2)})
    assert BagImages(path).topic == '/image'


def test_bag_without_images(tmp_path):
    path = write_bag(tmp_path / 'bag', {'/odometry': [header_of(0)]})
    with pytest.raises(BagError, match=r'got these topics: /odometry \(std_msgs/msg/Header\)'):
        BagImages(path)


def test_topic_without_messages(tmp_path):
    path = write_bag(tmp_path / 'bag', {'/image': images(1), '/odometry': [header_of(0)]})
    with sqlite3.connect(only_file(path)) as connection:
        connection.execute('DELETE FROM messages WHERE topic_id = 1')
    with pytest.raises(BagError, match='got none to be read'):
        BagImages(path)


@STORAGES
def test_killed_recorder_leaves_no_metadata(tmp_path, storage):
    path = write_bag(tmp_path / 'bag', {'/image': images(4)}, storage)
    (path / 'metadata.yaml').unlink()
    source = BagImages(path)
    assert len(list(source.frames())) == 4
    assert 'damaged or was cut off: 4 images' in source.notes[0]


@STORAGES
@pytest.mark.parametrize('with_metadata', [True, False])
def test_cut_off_bag_is_read_up_to_the_cut(tmp_path, storage, with_metadata):
    # More than one mcap chunk of 1 MiB.
    path = write_bag(tmp_path / 'bag', {'/image': images(300)}, storage)
    cut(only_file(path), 0.7)
    if not with_metadata:
        (path / 'metadata.yaml').unlink()
    source = BagImages(path)
    frames = list(source.frames())
    assert 100 < len(frames) < 220
    for number in (0, 50, len(frames) - 1):
        np.testing.assert_array_equal(frames[number].image, image_of(number))
    (note,) = source.notes
    assert 'damaged or was cut off' in note and str(len(frames)) in note


@STORAGES
def test_the_file_that_was_cut_off_stays_as_it_is(tmp_path, storage):
    path = write_bag(tmp_path / 'bag', {'/image': images(200)}, storage)
    file = only_file(path)
    cut(file, 0.8)
    before = file.read_bytes(), sorted(path.iterdir())
    list(BagImages(file).frames())
    assert (file.read_bytes(), sorted(path.iterdir())) == before


def test_copies_of_files_that_were_cut_off_are_removed(tmp_path, monkeypatch):
    scratch = tmp_path / 'scratch'
    scratch.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(scratch))
    file = only_file(write_bag(tmp_path / 'bag', {'/image': images(200)}))
    cut(file, 0.8)
    source = BagImages(file)
    for _ in range(2):
        assert len(list(source.frames())) > 100
    assert len(list(scratch.iterdir())) == 1
    del source
    gc.collect()
    assert not list(scratch.iterdir())


@STORAGES
def test_a_file_is_copied_only_if_it_has_to_be(tmp_path, monkeypatch, storage):
    """Mcap is read up to the cut as it is; sqlite needs a copy of the file that was cut off."""
    folder, scratch = tmp_path / 'bag', tmp_path / 'scratch'
    folder.mkdir()
    scratch.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(scratch))
    for part in range(2):
        bag = tmp_path / f'part_{part}'
        messages = [image_message(number) for number in range(200 * part, 200 * part + 200)]
        write_bag(bag, {'/image': messages}, storage, first=200 * part)
        file = only_file(bag)
        file.rename(folder / f'bag_{part}{file.suffix}')
    cut(folder / f'bag_1{file.suffix}', 0.7)
    source = BagImages(folder)
    assert 250 < len(list(source.frames())) < 400
    copies = [path.name for path in scratch.rglob('*') if path.is_file()]
    assert copies == (['bag_1.db3'] if storage is StoragePlugin.SQLITE3 else [])


@STORAGES
@pytest.mark.parametrize('content', [b'', b'hello', b'SQLite format 3\0' + bytes(90)])
def test_files_that_are_no_bags(tmp_path, storage, content):
    file = tmp_path / ('bag.db3' if storage is StoragePlugin.SQLITE3 else 'bag.mcap')
    file.write_bytes(content)
    with pytest.raises(BagError, match='Expected a bag, but .* cannot be read'):
        BagImages(file)


def test_missing_bag(tmp_path):
    with pytest.raises(BagError, match=r'there is no .*nothing.mcap'):
        BagImages(tmp_path / 'nothing.mcap')


def test_folder_without_a_bag(tmp_path):
    assert not is_bag(tmp_path)
    with pytest.raises(ValueError, match='Expected a rosbag2 folder .* or a folder of images'):
        open_source(str(tmp_path))


def test_unknown_encoding_is_found_at_once(tmp_path):
    path = write_bag(tmp_path / 'bag', {'/depth': images(2, encoding='32FC1')})
    with pytest.raises(BagError, match="/depth of .*bag: Expected an encoding of .*got '32FC1'"):
        BagImages(path)


def test_single_bad_images_are_left_out_and_noted(tmp_path):
    messages = images(5)
    messages[2] = image_message(2, data=np.zeros(9, np.uint8))
    source = BagImages(write_bag(tmp_path / 'bag', {'/image': messages}))
    assert len(list(source.frames())) == 4
    assert source.notes == [
        '1 of 5 images are unreadable: Expected at least step x height = 192 x 48 = 9216 bytes '
        'of data, got 9.'
    ]


def test_a_bad_first_image_is_not_the_end(tmp_path):
    messages = images(5)
    messages[0] = image_message(0, data=np.zeros(9, np.uint8))
    source = BagImages(write_bag(tmp_path / 'bag', {'/image': messages}))
    numbers = [(frame.time_ns - START_NS) // PERIOD_NS for frame in source.frames()]
    assert numbers == [1, 2, 3, 4]
    assert source.notes[0].startswith('1 of 5 images are unreadable')


def test_messages_of_another_type_than_announced(tmp_path):
    path = write_bag(tmp_path / 'bag', {'/image': images(1)})
    with sqlite3.connect(only_file(path)) as connection:
        connection.execute("UPDATE messages SET data = x'00010000'")
    with pytest.raises(BagError, match='Cannot read the images on /image'):
        BagImages(path)


def test_bag_in_several_files(tmp_path):
    """As `ros2 bag record --max-bag-size` splits it, its recorder killed."""
    folder = tmp_path / 'bag'
    folder.mkdir()
    for part, number in ((0, 0), (2, 1), (10, 2)):
        bag = tmp_path / f'part_{part}'
        write_bag(bag, {'/image': [image_message(number)]})
        only_file(bag).rename(folder / f'bag_{part}.db3')
    assert sum(1 for _ in BagImages(folder).frames()) == 3


def write_rosbag1(
    path: Path, count: int, compression: str = 'NONE', definition: str | None = None
) -> Path:
    """A bag of ROS 1; with a definition, also a topic that has it."""
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    kind = 'sensor_msgs/msg/Image'
    writer = Writer(path)
    if compression != 'NONE':
        writer.set_compression(Writer.CompressionFormat[compression])
    with writer:
        if definition is not None:
            odd = writer.add_connection('/odd', 'mine/msg/Odd', msgdef=definition, md5sum='0' * 32)
            writer.write(odd, START_NS, b'12')
        connection = writer.add_connection('/image', kind, typestore=store)
        for number in range(count):
            stamp = store.types['builtin_interfaces/msg/Time'](5, number)
            header = store.types['std_msgs/msg/Header'](number, stamp, 'front')
            data = image_of(number).reshape(-1)
            message = store.types[kind](header, 48, 64, 'rgb8', 0, 192, data)
            time_ns = START_NS + number * PERIOD_NS
            writer.write(connection, time_ns, store.serialize_ros1(message, kind))
    return path


def test_no_space_for_a_repaired_copy_is_said(tmp_path, monkeypatch):
    def fail(source, folder):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('videomt_ros.datasets.bags.files.repair', fail)
    file = tmp_path / 'bag.db3'
    file.write_bytes(b'cut off')
    with pytest.raises(BagError, match='no space for a readable copy. Set TMPDIR'):
        BagImages(file)


@pytest.mark.parametrize('share', [0.2, 0.3, 0.44, 0.6])
def test_a_sqlite_bag_is_repaired_up_to_its_cut(tmp_path, share):
    """In two of these files sqlite reads the row of the cut as one that the table refuses."""
    file = only_file(write_bag(tmp_path / 'bag', {'/image': images(40)}))
    cut(file, share)
    with closing(sqlite3.connect(repair(file, tmp_path))) as connection:
        (count,) = connection.execute('SELECT count(*) FROM messages').fetchone()
    assert 25 * share <= count < 40 * share


def test_a_full_disk_does_not_shorten_the_repaired_copy(tmp_path, monkeypatch):
    """Sqlite reports both a row that is cut off and a full disk as an error of its own."""
    file = only_file(write_bag(tmp_path / 'bag', {'/image': images(40)}))
    cut(file, 0.8)
    connect = sqlite3.connect

    def connect_to_small_disk(path, **options):
        connection = connect(path, **options)
        if not options:  # the copy, not the bag
            connection.execute('PRAGMA max_page_count = 40')
        return connection

    monkeypatch.setattr(sqlite3, 'connect', connect_to_small_disk)
    with pytest.raises(OSError, match='disk is full') as caught:
        repair(file, tmp_path)
    assert caught.value.errno == errno.ENOSPC


def test_rosbag1(tmp_path):
    frames = list(BagImages(write_rosbag1(tmp_path / 'old.bag', 4)).frames())
    assert len(frames) == 4
    np.testing.assert_array_equal(frames[3].image, image_of(3))
    assert frames[3].stamp_ns == 5_000_000_003


@pytest.mark.parametrize(
    'definition', ['', 'int64 a\n---\nint64 b', '# 20 \xb0C', 'Unknown x', 'float32[ x'], ids=repr
)
def test_other_definitions_of_a_rosbag1_are_skipped(tmp_path, definition):
    path = write_rosbag1(tmp_path / 'old.bag', 3, definition=definition)
    # A comment in Latin-1: not all texts are UTF-8.
    path.write_bytes(path.read_bytes().replace('\xb0'.encode(), b'\xb0\xb0'))
    assert len(list(BagImages(path).frames())) == 3
    with pytest.raises(BagError, match=r'It has: /image .* /odd \(mine/msg/Odd\)'):
        BagImages(path, '/up')


@pytest.mark.parametrize('compression', ['NONE', 'BZ2', 'LZ4'])
def test_a_rosbag1_that_was_cut_off_is_refused_with_its_remedy(tmp_path, compression):
    path = write_rosbag1(tmp_path / 'old.bag', 30, compression)
    cut(path, 0.7)
    before = path.read_bytes()
    with pytest.raises(BagError, match=f'cannot be read: .* rosbag reindex {path}$'):
        BagImages(path)
    assert path.read_bytes() == before


def test_a_rosbag1_without_an_index_is_refused_with_its_remedy(tmp_path):
    """As a recorder leaves it that was killed: the header says that there is none."""
    path = write_rosbag1(tmp_path / 'old.bag', 5)
    data = path.read_bytes()
    place = data.index(b'index_pos=') + len(b'index_pos=')
    path.write_bytes(data[:place] + bytes(8) + data[place + 8 :])
    with pytest.raises(BagError, match=f'rosbag reindex {path}$'):
        BagImages(path)


@pytest.mark.parametrize('content', [b'', b'#ROSBAG V1.2\n', b'#ROSBAG V2.0\n', b'hello' * 99])
def test_files_that_are_no_bags_of_ros_1(tmp_path, content):
    (tmp_path / 'old.bag').write_bytes(content)
    with pytest.raises(BagError):
        BagImages(tmp_path / 'old.bag')


@pytest.mark.parametrize('seed', range(6))
def test_a_rosbag1_with_damage_anywhere_is_read_or_refused(tmp_path, seed):
    path = write_rosbag1(tmp_path / 'old.bag', 20, ['NONE', 'BZ2', 'LZ4'][seed % 3])
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, len(data), 40):
        data[place] = rng.integers(256)
    path.write_bytes(data)
    try:
        frames = list(BagImages(path).frames())
    except BagError:
        return
    assert len(frames) <= 20


@STORAGES
def test_killed_recorder_of_compressed_messages(tmp_path, storage):
    """Nothing but the lost metadata.yaml says that each message is compressed."""
    path = write_bag(tmp_path / 'bag', {'/image': images(4)}, storage, CompressionMode.MESSAGE)
    (path / 'metadata.yaml').unlink()
    frames = list(BagImages(path).frames())
    assert len(frames) == 4
    np.testing.assert_array_equal(frames[3].image, image_of(3))


@STORAGES
@pytest.mark.parametrize('with_metadata', [True, False])
def test_compressed_file_is_read_up_to_the_cut(tmp_path, storage, with_metadata):
    path = write_bag(tmp_path / 'bag', {'/image': images(300)}, storage, CompressionMode.FILE)
    (file,) = path.glob('*.zstd')
    cut(file, 0.7)
    if not with_metadata:
        (path / 'metadata.yaml').unlink()
    source = BagImages(path)
    frames = list(source.frames())
    assert 100 < len(frames) < 220
    np.testing.assert_array_equal(frames[-1].image, image_of(len(frames) - 1))
    assert 'damaged or was cut off' in source.notes[-1]


def test_two_passes_give_the_same_images_and_the_same_notes(tmp_path):
    messages = images(5)
    messages[2] = image_message(2, data=np.zeros(9, np.uint8))
    source = BagImages(write_bag(tmp_path / 'bag', {'/image': messages}))
    first, second = list(source.images()), list(source.images())
    # Pixels are not looked at before they are asked for, so the third image is there.
    assert [i.stamp_ns for i in first] == [i.stamp_ns for i in second] != []
    assert len(first) == 5 and source.notes == []
    for _ in range(2):
        assert len(list(source.frames())) == 4
        assert len(source.notes) == 1
