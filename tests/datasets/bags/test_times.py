"""Record times and stamps that are missing, equal, coarse, or of another day."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from tests.datasets.bags.made import PERIOD_NS, START_NS, STORE, image_message, image_of
from videomt_ros.datasets.bags.images import BagImages
from videomt_ros.datasets.bags.times import PlayClock, choose_times

IMAGE = 'sensor_msgs/msg/Image'
STEPS = [n * PERIOD_NS for n in range(8)]
STAMPS = [START_NS + step for step in STEPS]


def header(stamp_ns: int):
    time = STORE.types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 10**9))
    return STORE.types['std_msgs/msg/Header'](time, 'front')


def write(
    path: Path,
    record_ns: Sequence[int],
    stamps_ns: Sequence[int],
    numbers: Sequence[int] | None = None,
    storage: StoragePlugin = StoragePlugin.MCAP,
) -> Path:
    """A bag of images with these times; images of equal numbers have equal pixels."""
    numbers = range(len(record_ns)) if numbers is None else numbers
    with Writer(path, version=9, storage_plugin=storage) as writer:
        connection = writer.add_connection('/image', IMAGE, typestore=STORE)
        for number, time_ns, stamp_ns in zip(numbers, record_ns, stamps_ns, strict=True):
            message = image_message(number, header=header(stamp_ns))
            writer.write(connection, time_ns, STORE.serialize_cdr(message, IMAGE))
    return path


def steps(source: BagImages) -> list[int]:
    """Times at which the images are played, from the first on."""
    times = [frame.time_ns for frame in source.frames()]
    return [time - times[0] for time in times]


@pytest.mark.parametrize('storage', list(StoragePlugin), ids=lambda s: s.name.lower())
@pytest.mark.parametrize(
    'record',
    [
        [0] * 8,
        [START_NS] * 8,
        [START_NS, START_NS + 1] * 4,
        [START_NS + n // 4 * 10**9 for n in range(8)],
        [START_NS + n // 2 * 10**9 // 5 for n in range(8)],
        [START_NS + n * 1000 for n in range(8)],
    ],
    ids=['zero', 'equal', 'two values', 'fours', 'pairs', 'those of a conversion'],
)
def test_images_are_played_by_their_stamps(tmp_path, record, storage):
    source = BagImages(write(tmp_path / 'bag', sorted(record), STAMPS, storage=storage))
    assert source.fps == pytest.approx(10)
    assert steps(source) == STEPS
    assert [frame.stamp_ns for frame in source.frames()] == STAMPS
    (note,) = source.notes
    assert 'the images are played by their stamps' in note


@pytest.mark.parametrize('record', [0, START_NS], ids=['zero', 'equal'])
@pytest.mark.parametrize('stamp', [0, START_NS], ids=['no stamp', 'equal stamps'])
def test_a_rate_is_assumed_and_stated(tmp_path, record, stamp):
    source = BagImages(write(tmp_path / 'bag', [record] * 8, [stamp] * 8))
    assert source.fps == 10
    assert steps(source) == STEPS
    frames = list(source.frames())
    assert all(frame.stamp_ns is None and frame.time_ns > 0 for frame in frames)
    np.testing.assert_array_equal(frames[5].image, image_of(5))
    (note,) = source.notes
    assert '10 images a second are assumed' in note


@pytest.mark.parametrize('stamp', [0, START_NS], ids=['no stamp', 'equal stamps'])
def test_record_times_stand_for_stamps(tmp_path, stamp):
    source = BagImages(write(tmp_path / 'bag', STAMPS, [stamp] * 8))
    assert steps(source) == STEPS
    assert {frame.stamp_ns for frame in source.frames()} == {None}
    assert {image.stamp_ns for image in source.images()} == {0}
    assert source.notes == []


def test_a_missing_stamp_now_and_then_is_told_from_none_at_all(tmp_path):
    stamps = [0 if n in (0, 3) else stamp for n, stamp in enumerate(STAMPS)]
    source = BagImages(write(tmp_path / 'bag', STAMPS, stamps))
    assert [frame.stamp_ns for frame in source.frames()] == stamps
    by_stamps = BagImages(write(tmp_path / 'other', [5] * 8, stamps))
    assert steps(by_stamps) == STEPS


def test_times_that_go_back(tmp_path):
    """As where the clock was set back an hour during a recording in several files."""
    folder = tmp_path / 'bag'
    late = [START_NS - 3600 * 10**9 + step for step in STEPS]
    parts = [
        write(tmp_path / 'a', STAMPS, STAMPS),
        write(tmp_path / 'b', late, late, range(8, 16)),
    ]
    folder.mkdir()
    for number, part in enumerate(parts):
        (part / f'{part.name}.mcap').rename(folder / f'bag_{number}.mcap')
    metadata = (parts[0] / 'metadata.yaml').read_text()
    metadata = metadata.replace('- a.mcap', '- bag_0.mcap\n  - bag_1.mcap')
    (folder / 'metadata.yaml').write_text(metadata)
    source = BagImages(folder)
    assert steps(source) == [n * PERIOD_NS for n in range(16)]
    assert 'go back 1 times' in source.notes[0]


@pytest.mark.parametrize('copies', [2, 3])
@pytest.mark.parametrize('order', ['each', 'all'])
def test_images_that_were_recorded_twice_are_given_once(tmp_path, copies, order):
    numbers = list(range(8)) * copies
    numbers = sorted(numbers) if order == 'each' else numbers
    stamps = [STAMPS[n] for n in numbers]
    record = [START_NS + 10**9 + n * PERIOD_NS // copies for n in range(len(numbers))]
    source = BagImages(write(tmp_path / 'bag', record, stamps, numbers))
    for _ in range(2):
        assert [frame.stamp_ns for frame in source.frames()] == STAMPS
    assert len(list(source.images())) == 8
    assert source.notes == [
        f'{8 * copies - 8} of {8 * copies} images on /image are in the bag a second time, with '
        'one stamp and the same bytes; each was taken once.'
    ]


def test_other_images_with_the_same_stamp_are_kept(tmp_path):
    """As of a coarse clock, or of two cameras on one topic."""
    stamps = [STAMPS[n // 2] for n in range(8)]
    source = BagImages(write(tmp_path / 'bag', STAMPS, stamps))
    assert [frame.stamp_ns for frame in source.frames()] == stamps
    assert source.notes == []


@pytest.mark.parametrize(
    ('record', 'stamps', 'source', 'period'),
    [
        ([5], [0], 'record', 100_000_000),
        ([0], [0], 'record', 100_000_000),
        ([0, 50], [0, 0], 'record', 50),
        ([0, 0], [7, 9], 'stamp', 2),
        ([0, 0], [7, 0], 'rate', 100_000_000),
        ([0, 0, 0, 0, 0, 1], [0] * 6, 'record', 1),
        ([0] * 8 + [1], [0] * 9, 'rate', 100_000_000),
        ([0, 10, 20, 1000], [0, 100, 200, 300], 'record', 10),  # late only at the end
        ([0, 1, 100, 101, 200, 201], [3, 3, 5, 5, 9, 9], 'record', 100),  # recorded twice
    ],
)
def test_choices_by_hand(record, stamps, source, period):
    times = choose_times(record, stamps)
    assert (times.source, times.period_ns) == (source, period)


def test_the_clock_never_goes_back():
    rng = np.random.default_rng(3)
    record = rng.integers(0, 10**12, 40).tolist()
    for stamps in (record, [0] * 40, [7] * 40):
        for known in (record, [9] * 40):
            clock = PlayClock(choose_times(known, stamps))
            times = [clock.time_of(*pair) for pair in zip(known, stamps, strict=True)]
            assert times == sorted(times) and times[0] > 0
