"""Folders of bags: their metadata.yaml, their parts, and files of other versions."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from tests.datasets.bags.made import header_of, image_message, image_of, write_bag
from videomt_ros.datasets.bags.files import BagError
from videomt_ros.datasets.bags.images import BagImages

STORAGES = pytest.mark.parametrize('storage', list(StoragePlugin), ids=lambda s: s.name.lower())


def images(*numbers: int) -> list[Any]:
    return [image_message(number) for number in numbers]


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != 'metadata.yaml')


def change_metadata(folder: Path, **changes: Any) -> None:
    path = folder / 'metadata.yaml'
    content = yaml.safe_load(path.read_text())
    content['rosbag2_bagfile_information'].update(changes)
    path.write_text(yaml.safe_dump(content))


def split_bag(folder: Path, storage: StoragePlugin) -> Path:
    """A bag in three files of two images each, as `ros2 bag record --max-bag-size` splits it."""
    folder.mkdir()
    names = []
    for part in range(3):
        first = 2 * part
        messages = {'/image': images(first, first + 1)}
        bag = write_bag(folder.with_name(f'part_{part}'), messages, storage, first=first)
        (file,) = files_of(bag)
        names.append(f'bag_{part}{file.suffix}')
        file.rename(folder / names[-1])
    (folder / 'metadata.yaml').write_bytes((bag / 'metadata.yaml').read_bytes())
    topic = {'name': '/image', 'type': 'sensor_msgs/msg/Image', 'serialization_format': 'cdr'}
    counts = [{'topic_metadata': topic, 'message_count': 6}]
    change_metadata(folder, relative_file_paths=names, topics_with_message_count=counts)
    return folder


def numbers(source: BagImages) -> list[int]:
    frames = list(source.frames())
    return [n for f in frames for n in range(10) if np.array_equal(f.image, image_of(n))]


@STORAGES
@pytest.mark.parametrize('part', range(3))
def test_a_part_that_was_deleted_is_named(tmp_path, storage, part):
    folder = split_bag(tmp_path / 'bag', storage)
    assert numbers(BagImages(folder)) == [0, 1, 2, 3, 4, 5]
    file = files_of(folder)[part]
    file.unlink()
    source = BagImages(folder)
    assert numbers(source) == [n for n in range(6) if n // 2 != part]
    assert f'{file.name} of {folder} is missing, though metadata.yaml names it' in source.notes[0]
    assert 'damaged' not in ' '.join(source.notes)
    assert source.notes[1] == 'Of 6 images on /image that metadata.yaml counts, 4 could be read.'


def test_several_parts_that_were_deleted_are_named(tmp_path):
    folder = split_bag(tmp_path / 'bag', StoragePlugin.MCAP)
    for file in files_of(folder)[:2]:
        file.unlink()
    source = BagImages(folder)
    assert numbers(source) == [4, 5]
    assert 'bag_0.mcap, bag_1.mcap of' in source.notes[0] and 'are missing' in source.notes[0]
    files_of(folder)[0].unlink()
    with pytest.raises(BagError, match=r'bag_0.mcap, bag_1.mcap, bag_2.mcap of .* Copy'):
        BagImages(folder)


def test_a_file_that_was_renamed_is_read(tmp_path):
    folder = write_bag(tmp_path / 'bag', {'/image': images(0, 1)})
    (file,) = files_of(folder)
    file.rename(folder / 'other.db3')
    source = BagImages(folder)
    assert numbers(source) == [0, 1]
    assert 'bag.db3 of' in source.notes[0] and 'is missing' in source.notes[0]


@STORAGES
def test_a_part_of_no_bytes_costs_itself_alone(tmp_path, storage):
    """As a recorder leaves it that was killed just after it began another file."""
    folder = split_bag(tmp_path / 'bag', storage)
    (folder / 'metadata.yaml').unlink()
    last = files_of(folder)[2]
    last.write_bytes(b'')
    source = BagImages(folder)
    assert numbers(source) == [0, 1, 2, 3]
    assert f'{last} cannot be read' in source.notes[0]


@STORAGES
@pytest.mark.parametrize('version', [99, '99'])
@pytest.mark.parametrize('topics', [True, False])
def test_a_newer_metadata_is_said_to_be_newer(tmp_path, storage, topics, version):
    folder = write_bag(tmp_path / 'bag', {'/image': images(0, 1)}, storage)
    change_metadata(folder, version=version)
    if not topics:  # what a newer version may have renamed
        change_metadata(folder, topics_with_message_count=None)
    source = BagImages(folder)
    assert numbers(source) == [0, 1]
    assert 'has version 99, newer than this reader, which knows up to 9' in source.notes[0]
    assert len(source.notes) == 1


def test_a_newer_storage_is_refused_as_newer(tmp_path):
    folder = tmp_path / 'bag'
    write_bag(folder, {'/image': images(0)})
    (file,) = files_of(folder)
    file.rename(folder / 'bag.parquet')
    change_metadata(folder, version=99, relative_file_paths=['bag.parquet'])
    with pytest.raises(BagError, match=r'bag.parquet .*no .mcap or .db3 file.*version 99, newer'):
        BagImages(folder)
    change_metadata(folder, relative_file_paths=None)
    with pytest.raises(BagError, match=r'bag holds no .mcap or .db3 file.*version 99, newer'):
        BagImages(folder)


@pytest.mark.parametrize('is_readable', [True, False])
def test_newer_tables_are_said_to_be_newer(tmp_path, is_readable):
    folder = write_bag(tmp_path / 'bag', {'/image': images(0)})
    (file,) = files_of(folder)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute('UPDATE schema SET schema_version = 12')
        if not is_readable:
            connection.execute('ALTER TABLE topics RENAME TO channels')
    if is_readable:
        source = BagImages(folder)
        assert numbers(source) == [0]
        (note,) = source.notes
        assert 'version 12, newer than this reader, which knows up to 4' in note
        return
    with pytest.raises(BagError, match='version 12, newer than this reader, which knows up to 4'):
        BagImages(folder)


@pytest.mark.parametrize(
    ('start', 'text'),
    [
        (b'#ROSBAG V3.1\n', 'version 3.1, newer than this reader, which knows up to 2.0'),
        (b'#ROSBAG V1.2\n', 'version 1.2 of the format, older than 2.0'),
    ],
)
def test_bags_of_ros_1_of_other_versions(tmp_path, start, text):
    path = tmp_path / 'old.bag'
    path.write_bytes(start + bytes(5000))
    with pytest.raises(BagError, match=text):
        BagImages(path)


@pytest.mark.parametrize('content', ['', '{', 'a: b', 'rosbag2_bagfile_information: 3'])
def test_a_damaged_metadata_is_no_end(tmp_path, content):
    folder = write_bag(tmp_path / 'bag', {'/image': images(0, 1)})
    (folder / 'metadata.yaml').write_text(content)
    source = BagImages(folder)
    assert numbers(source) == [0, 1]
    assert 'damaged or was cut off' in source.notes[0]


@pytest.mark.parametrize('suffix', ['.db3', '.mcap'])
def test_a_compressed_file_alone(tmp_path, suffix):
    storage = StoragePlugin.MCAP if suffix == '.mcap' else StoragePlugin.SQLITE3
    folder = write_bag(tmp_path / 'bag', {'/image': images(0, 1)}, storage, CompressionMode.FILE)
    source = BagImages(folder / f'bag{suffix}.zstd')
    assert numbers(source) == [0, 1]
    assert source.notes == []


@pytest.mark.parametrize(
    'change',
    [
        "UPDATE topics SET serialization_format = 'json' WHERE name = '/other'",
        "UPDATE topics SET type = 'mine/msg/Odd' WHERE name = '/other'",
        "UPDATE topics SET type = '' WHERE name = '/other'",
        "UPDATE topics SET offered_qos_profiles = '- {[' WHERE name = '/other'",
        "UPDATE message_definitions SET encoding = 'unknown' WHERE topic_type LIKE 'std%'",
        "UPDATE message_definitions SET encoded_message_definition = 'a\n---\nb' "
        "WHERE topic_type LIKE 'std%'",
        'DELETE FROM message_definitions',
        'DROP TABLE message_definitions',
        "UPDATE message_definitions SET encoded_message_definition = x'fffe'",
    ],
)
def test_other_topics_of_sqlite_are_skipped(tmp_path, change):
    folder = write_bag(tmp_path / 'bag', {'/other': [header_of(0)], '/image': images(0, 1)})
    (file,) = files_of(folder)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(change)
    for path in (folder, file):
        source = BagImages(path)
        assert numbers(source) == [0, 1]
        assert source.notes == []


@pytest.mark.parametrize('damage', [False, True])
def test_messages_that_wait_in_a_journal(tmp_path, damage):
    """As a recorder with the profile `resilient` leaves them that was killed."""
    folder = write_bag(tmp_path / 'bag', {'/image': images(0, 1, 2)})
    (file,) = files_of(folder)
    killed = tmp_path / 'killed'
    killed.mkdir()
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute('SELECT * FROM messages WHERE id > 1').fetchall()
        connection.execute('DELETE FROM messages WHERE id > 1')
        connection.commit()
        connection.execute('PRAGMA journal_mode = WAL')
        with connection:
            connection.executemany('INSERT INTO messages VALUES (?, ?, ?, ?)', rows)
        for path in (file, file.with_name(f'{file.name}-wal')):
            (killed / path.name).write_bytes(path.read_bytes())
    journal = killed / f'{file.name}-wal'
    if damage:
        journal.write_bytes(b'x' * 100)
    before = {path.name: path.read_bytes() for path in killed.iterdir()}
    source = BagImages(killed)
    assert numbers(source) == ([0] if damage else [0, 1, 2])
    assert 'damaged or was cut off' in source.notes[0]
    assert {path.name: path.read_bytes() for path in killed.iterdir()} == before


@pytest.mark.parametrize('version', [1, 2])
def test_old_tables(tmp_path, version):
    """Before Galactic there was no table of versions, and in Foxy's first none of QoS."""
    folder = write_bag(tmp_path / 'bag', {'/image': images(0, 1)})
    (file,) = files_of(folder)
    with closing(sqlite3.connect(file)) as connection, connection:
        for table in ('schema', 'metadata', 'message_definitions'):
            connection.execute(f'DROP TABLE {table}')
        connection.execute('ALTER TABLE topics DROP COLUMN type_description_hash')
        if version == 1:
            connection.execute('ALTER TABLE topics DROP COLUMN offered_qos_profiles')
    assert numbers(BagImages(file)) == [0, 1]


def test_a_name_with_signs_of_an_address(tmp_path):
    """Sqlite is given the file as an address, in which some signs have a meaning."""
    bag = write_bag(tmp_path / 'plain', {'/image': images(*range(30))})
    (file,) = files_of(bag)
    odd = tmp_path / 'a b?c#d%20e.db3'
    file.rename(odd)
    assert len(list(BagImages(odd).images())) == 30
    data = odd.read_bytes()
    odd.write_bytes(data[: len(data) // 2])
    assert len(list(BagImages(odd).images())) > 5
