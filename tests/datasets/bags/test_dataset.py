"""Truth and bag are matched by stamps; bags of every kind, whole, broken and of another day."""

from __future__ import annotations

import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from tests.datasets.bags.made import (
    PERIOD_NS,
    START_NS,
    STORE,
    compressed_message,
    image_message,
    image_of,
    write_bag,
)
from videomt_ros.datasets.bags.dataset import BagVideo, bag_dataset
from videomt_ros.datasets.bags.files import BagError
from videomt_ros.datasets.bags.truth import half_period, load_bag_truth, match_stamps
from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.datasets.mask_png import write_ids, write_mask

FIRST_NS = START_NS - 7_000_000  # bags.header_of stamps images 7 ms before they are recorded
MS = 1_000_000


def stamp(number: float) -> int:
    return FIRST_NS + round(number * PERIOD_NS)


def ytvis_json(path: Path, *videos: list[int], **changes: Any) -> Path:
    """An annotation file with one video for each list of stamps, and nothing in it."""
    records = [
        {
            'id': number,
            'width': 64,
            'height': 48,
            'length': len(stamps),
            'file_names': [f'v{number}/{t:05d}.jpg' for t in range(len(stamps))],
            'stamps_ns': stamps,
            **changes,
        }
        for number, stamps in enumerate(videos, start=1)
    ]
    records = [{k: v for k, v in record.items() if v is not None} for record in records]
    categories = [{'id': 1, 'name': 'circle'}]
    content = {'videos': records, 'categories': categories, 'annotations': []}
    path.write_text(json.dumps(content))
    return path


def images(count: int) -> list[Any]:
    return [image_message(number) for number in range(count)]


def opened(bag: Path, truth: Path, topic: str = '') -> BagVideo:
    (video,) = bag_dataset(bag, topic, truth).videos
    assert isinstance(video, BagVideo)
    return video


def indices(video: BagVideo) -> list[int | None]:
    return [frame.index for frame in video.frames()]


# Matching.


@pytest.mark.parametrize(
    ('truth', 'stamps', 'expected'),
    [
        ([], [1], []),
        ([1, 2], [], [None, None]),
        ([100, 200, 300], [100, 200, 300], [0, 1, 2]),
        ([100, 200, 300], [300, 100, 200], [1, 2, 0]),  # the order does not count
        ([100, 200], [50, 250], [0, 1]),  # as far as allowed
        ([100, 200], [49, 251], [None, None]),  # one beyond
        ([100, 200], [90, 95, 104, 120], [2, None]),  # the nearest of several
        ([100, 200], [150], [0, None]),  # in the middle: the earlier frame
        ([100, 200], [95, 105], [0, None]),  # equally near: the earlier image
        ([100, 200], [99, 99], [0, None]),  # the same stamp: the first
        ([100, 200], [149, 101], [1, None]),  # what lost one frame does not go to the next
        ([100], [60, 130], [1]),
        ([100], [20, 151], [None]),
    ],
)
def test_matches_by_hand(truth, stamps, expected):
    assert match_stamps(truth, stamps, 50) == expected


@pytest.mark.parametrize('seed', range(50))
def test_matches_agree_with_a_plain_search(seed):
    rng = np.random.default_rng(seed)
    base = 1_700_000_000_000_000_000  # beyond what a float holds exactly
    truth = sorted({base + int(t) for t in rng.integers(0, 400, rng.integers(1, 12))})
    stamps = [base + int(t) for t in rng.integers(-50, 450, rng.integers(0, 40))]
    tolerance = int(rng.integers(0, 60))
    best: dict[int, tuple[int, int, int]] = {}
    for number, value in enumerate(stamps):
        distance, frame = min((abs(value - t), i) for i, t in enumerate(truth))
        if distance <= tolerance and (distance, value, number) < best.get(frame, (10**9,)):
            best[frame] = (distance, value, number)
    expected = [best[i][2] if i in best else None for i in range(len(truth))]
    assert match_stamps(truth, stamps, tolerance) == expected


def test_half_the_median_period():
    assert half_period([]) == half_period([7]) == 0
    assert half_period([0, 100]) == 50
    assert half_period([300, 0, 100, 1000]) == 100  # gaps 100, 200, 700


# A bag and its truth.


def test_annotated_frames_and_images_between_them(tmp_path):
    bag = write_bag(tmp_path / 'bag', {'/image': images(7)})
    # Every third image is labelled, 20 ms off.
    truth = ytvis_json(tmp_path / 'truth.json', [stamp(t) + 20 * MS for t in (0, 3, 6)])
    video = opened(bag, truth)
    frames = list(video.frames())
    assert [frame.index for frame in frames] == [0, None, None, 1, None, None, 2]
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, image_of(number))
        assert frame.stamp_ns == stamp(number)
    assert video.notes == [
        '3 of 3 annotated frames have an image on /image (the nearest stamp within 150 ms, half '
        'the median period); 4 of 7 images are not annotated: the model sees them, and they are '
        'not scored.'
    ]


def test_annotated_frames_without_an_image_are_named(tmp_path):
    bag = write_bag(tmp_path / 'bag', {'/image': images(3)})
    truth = ytvis_json(tmp_path / 'truth.json', [stamp(t) for t in range(-1, 5)])
    video = opened(bag, truth)
    assert indices(video) == [1, 2, 3]
    assert video.notes[1] == (
        '3 annotated frames have no image, and count as misses: '
        'v1/00000.jpg, v1/00004.jpg, v1/00005.jpg.'
    )


def test_images_that_were_recorded_out_of_order(tmp_path):
    """They come as they were recorded, as a node would get them, each with its own stamp."""
    bag = write_bag(tmp_path / 'bag', {'/image': [image_message(t) for t in (0, 2, 1, 3)]})
    video = opened(bag, ytvis_json(tmp_path / 'truth.json', [stamp(t) for t in range(4)]))
    frames = list(video.frames())
    assert [frame.index for frame in frames] == [0, 2, 1, 3]
    for frame in frames:
        assert frame.index is not None
        assert frame.stamp_ns == stamp(frame.index)
        np.testing.assert_array_equal(frame.image, image_of(frame.index))


def test_of_several_videos_the_one_that_fits(tmp_path):
    bag = write_bag(tmp_path / 'bag', {'/image': images(3)})
    later = [stamp(t) + 10**12 for t in range(3)]
    truth = ytvis_json(tmp_path / 'truth.json', later, [stamp(t) for t in range(3)])
    dataset = bag_dataset(bag, '', truth)
    assert [video.video_id for video in dataset.videos] == [2]
    assert dataset.truth == (truth,)


def test_two_videos_that_fit(tmp_path):
    bag = write_bag(tmp_path / 'bag', {'/image': images(3)})
    truth = ytvis_json(tmp_path / 'truth.json', [stamp(0), stamp(1)], [stamp(1), stamp(2)])
    with pytest.raises(DatasetError, match=r'Expected one video .* got 2: v1, v2'):
        bag_dataset(bag, '', truth)


def test_the_truth_of_another_day(tmp_path):
    bag = write_bag(tmp_path / 'bag', {'/image': images(3)})
    truth = ytvis_json(tmp_path / 'truth.json', [5 * 10**15, 6 * 10**15])
    with pytest.raises(DatasetError) as failure:
        bag_dataset(bag, '', truth)
    assert '1699999999.993000000 to 1700000000.193000000 s' in str(failure.value)
    assert 'v1: 5000000.000000000 to 6000000.000000000 s' in str(failure.value)


def test_one_annotated_frame_takes_the_period_of_the_images(tmp_path):
    bag = write_bag(tmp_path / 'bag', {'/image': images(3)})
    video = opened(bag, ytvis_json(tmp_path / 'truth.json', [stamp(1.4)]))
    assert indices(video) == [None, 0, None]
    with pytest.raises(DatasetError, match='No annotated frame'):
        opened(bag, ytvis_json(tmp_path / 'truth.json', [stamp(2.6)]))


def test_truth_without_stamps(tmp_path):
    bag = write_bag(tmp_path / 'bag', {'/image': images(3)})
    truth = ytvis_json(tmp_path / 'truth.json', [stamp(0)], stamps_ns=None)
    with pytest.raises(DatasetError, match='v1 has no stamps. Add to the video a field `stamps_'):
        bag_dataset(bag, '', truth)


def test_frames_that_are_named_by_their_stamps(tmp_path):
    bag = write_bag(tmp_path / 'bag', {'/image': images(3)})
    names = [f'v1/{stamp(t)}.jpg' for t in range(3)]
    truth = ytvis_json(tmp_path / 'truth.json', [stamp(0)] * 3, stamps_ns=None, file_names=names)
    assert indices(opened(bag, truth)) == [0, 1, 2]


def test_truth_without_annotations(tmp_path):
    truth = ytvis_json(tmp_path / 'truth.json', [stamp(0)])
    content = json.loads(truth.read_text())
    del content['annotations']
    truth.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match='no truth without'):
        load_bag_truth(truth)


def test_truth_that_is_no_truth(tmp_path):
    with pytest.raises(DatasetError):
        load_bag_truth(tmp_path / 'nothing.json')
    with pytest.raises(DatasetError, match='Expected a list of videos out of'):
        load_bag_truth(tmp_path)


def test_the_truth_of_vipseg(tmp_path):
    bag = write_bag(tmp_path / 'bag', {'/image': images(2)})
    names = ['00000.png', '00001.png']
    sides = {'width': 64, 'height': 48}
    files = [
        {'id': name[:5], 'file_name': name, 'stamp_ns': stamp(t), **sides}
        for t, name in enumerate(names)
    ]
    frames = [{'image_id': n[:5], 'file_name': n, 'segments_info': []} for n in names]
    for name in names:
        write_ids(tmp_path / 'panomasksRGB' / 'v' / name, np.zeros((48, 64), np.uint32))
    content = {
        'videos': [{'video_id': 'v', 'images': files}],
        'annotations': [{'video_id': 'v', 'annotations': frames}],
        'categories': [{'id': 0, 'name': 'circle', 'isthing': 1}],
    }
    truth = tmp_path / 'truth.json'
    truth.write_text(json.dumps(content))
    dataset = bag_dataset(bag, '', truth)
    assert (dataset.family, dataset.truth_masks) == ('vipseg', tmp_path / 'panomasksRGB')
    assert indices(dataset.videos[0]) == [0, 1]  # type: ignore[arg-type]
    for each in files:
        del each['stamp_ns']
    truth.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match='Add to each of its images a field `stamp_ns`'):
        bag_dataset(bag, '', truth)


@pytest.mark.parametrize('split', ['val', 'test'])
def test_the_truth_of_vspw(tmp_path, split):
    bag = write_bag(tmp_path / 'bag', {'/image': images(2)})
    folder = tmp_path / 'truth'
    for t in range(2):
        name = f'{stamp(t)}.png'
        write_mask(folder / 'data' / 'v' / 'mask' / name, np.zeros((48, 64), np.uint8))
    (folder / f'{split}.txt').write_text('v\n')
    dataset = bag_dataset(bag, '', folder)
    assert (dataset.family, dataset.truth, dataset.split) == ('vspw', (folder,), split)
    assert indices(dataset.videos[0]) == [0, 1]  # type: ignore[arg-type]


# Bags of every kind.


@pytest.mark.parametrize(
    ('storage', 'mode'),
    [
        (storage, mode)
        for storage in StoragePlugin
        for mode in CompressionMode
        if mode is not CompressionMode.STORAGE or storage is StoragePlugin.MCAP
    ],
)
def test_storages_and_compressions(tmp_path, storage, mode):
    bag = write_bag(tmp_path / 'bag', {'/image': images(3)}, storage, mode)
    truth = ytvis_json(tmp_path / 'truth.json', [stamp(t) for t in range(3)])
    assert indices(opened(bag, truth)) == [0, 1, 2]


def test_compressed_images_and_several_topics(tmp_path):
    messages = {'/left': images(3), '/right': [compressed_message(t) for t in range(3)]}
    bag = write_bag(tmp_path / 'bag', messages)
    truth = ytvis_json(tmp_path / 'truth.json', [stamp(t) for t in range(3)])
    with pytest.raises(BagError, match=r'Name one of the topics of .*/left .*/right'):
        opened(bag, truth)
    with pytest.raises(BagError, match="got '/middle'. It has: /left"):
        opened(bag, truth, '/middle')
    for topic in messages:
        video = opened(bag, truth, topic)
        for number, frame in enumerate(video.frames()):
            assert frame.index == number
            np.testing.assert_array_equal(frame.image, image_of(number))
        assert bag_dataset(bag, topic, truth).name == f'bag bag {topic}'


def test_a_bag_of_ros_1(tmp_path):
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    kind = 'sensor_msgs/msg/Image'
    with Writer(tmp_path / 'old.bag') as writer:
        connection = writer.add_connection('/image', kind, typestore=store)
        for number in range(3):
            time = store.types['builtin_interfaces/msg/Time'](*divmod(stamp(number), 10**9))
            header = store.types['std_msgs/msg/Header'](number, time, 'front')
            data = image_of(number).reshape(-1)
            message = store.types[kind](header, 48, 64, 'rgb8', 0, 192, data)
            data = store.serialize_ros1(message, kind)
            writer.write(connection, START_NS + number * PERIOD_NS, data)
    truth = ytvis_json(tmp_path / 'truth.json', [stamp(t) for t in range(3)])
    assert indices(opened(tmp_path / 'old.bag', truth)) == [0, 1, 2]


@pytest.mark.parametrize('storage', list(StoragePlugin))
@pytest.mark.parametrize('with_metadata', [True, False])
def test_a_bag_that_was_cut_off(tmp_path, storage, with_metadata):
    bag = write_bag(tmp_path / 'bag', {'/image': images(300)}, storage)
    (file,) = (path for path in bag.iterdir() if path.suffix in ('.db3', '.mcap'))
    data = file.read_bytes()
    file.write_bytes(data[: int(0.7 * len(data))])
    if not with_metadata:
        (bag / 'metadata.yaml').unlink()
    video = opened(bag, ytvis_json(tmp_path / 'truth.json', [stamp(t) for t in range(300)]))
    found = indices(video)
    assert 100 < len(found) < 220
    assert found == list(range(len(found)))
    matching, missing, damage = video.notes
    assert matching.startswith(f'{len(found)} of 300 annotated frames have an image')
    assert missing.startswith(f'{300 - len(found)} annotated frames have no image')
    assert 'damaged or was cut off' in damage


def test_images_that_cannot_be_read(tmp_path):
    messages = images(5)
    for number in (1, 2):
        messages[number] = image_message(number, data=np.zeros(9, np.uint8))
    bag = write_bag(tmp_path / 'bag', {'/image': messages})
    video = opened(bag, ytvis_json(tmp_path / 'truth.json', [stamp(t) for t in (0, 2, 4)]))
    for _ in range(2):  # the notes are those of one pass
        assert indices(video) == [0, None, 2]
        assert video.notes[1:] == [
            '2 of 5 images are unreadable: Expected at least step x height = 192 x 48 = 9216 '
            'bytes of data, got 9.',
            '1 of them are annotated, and count as misses: v1/00001.jpg.',
        ]


def test_messages_that_are_no_images(tmp_path):
    bag = write_bag(tmp_path / 'bag', {'/image': images(4)})
    (file,) = bag.glob('*.db3')
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE messages SET data = x'00010000' WHERE id = 2")
    video = opened(bag, ytvis_json(tmp_path / 'truth.json', [stamp(t) for t in range(4)]))
    assert indices(video) == [0, 2, 3]
    assert '1 annotated frames have no image' in video.notes[1]
    assert '1 of 4 images are unreadable' in video.notes[2]


def test_an_image_of_another_size(tmp_path):
    messages = images(3)
    small = np.zeros(24 * 32 * 3, np.uint8)
    messages[1] = image_message(1, height=24, width=32, step=96, data=small)
    bag = write_bag(tmp_path / 'bag', {'/image': messages})
    with pytest.raises(DatasetError, match='64 x 48 pixels for v1/00001.jpg, .* got 32 x 24'):
        indices(opened(bag, ytvis_json(tmp_path / 'truth.json', [stamp(t) for t in range(3)])))
    # Only what is annotated has a size to keep.
    video = opened(bag, ytvis_json(tmp_path / 'truth.json', [stamp(0), stamp(2)]))
    assert indices(video) == [0, None, 1]


def without_stamp(number: int) -> Any:
    zero = STORE.types['builtin_interfaces/msg/Time'](0, 0)
    return image_message(number, header=STORE.types['std_msgs/msg/Header'](zero, 'front'))


def test_images_without_stamps_take_the_time_of_their_recording(tmp_path):
    bag = write_bag(tmp_path / 'bag', {'/image': [without_stamp(t) for t in range(3)]})
    recorded = [START_NS + t * PERIOD_NS for t in range(3)]
    video = opened(bag, ytvis_json(tmp_path / 'truth.json', recorded))
    assert [(f.index, f.stamp_ns) for f in video.frames()] == list(enumerate(recorded))
    assert '3 of 3 images have no stamp; the time of their recording was taken.' in video.notes


def stamped(number: int, stamp_ns: int, **fields: Any) -> Any:
    time = STORE.types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 10**9))
    header = STORE.types['std_msgs/msg/Header'](time, 'front')
    return image_message(number, header=header, **fields)


def test_equal_stamps_are_none(tmp_path):
    bag = write_bag(tmp_path / 'bag', {'/image': [stamped(t, START_NS) for t in range(3)]})
    recorded = [START_NS + t * PERIOD_NS for t in range(3)]
    video = opened(bag, ytvis_json(tmp_path / 'truth.json', recorded))
    assert [(f.index, f.stamp_ns) for f in video.frames()] == list(enumerate(recorded))
    assert '3 of 3 images have no stamp; the time of their recording was taken.' in video.notes


def test_neither_times_nor_stamps(tmp_path):
    """Then the images follow each other at an assumed rate, which the notes say."""
    bag = write_bag(tmp_path / 'bag', {'/image': [without_stamp(t) for t in range(3)]})
    (file,) = bag.glob('*.db3')
    with sqlite3.connect(file) as connection:
        connection.execute('UPDATE messages SET timestamp = 0')
    truth = ytvis_json(tmp_path / 'truth.json', [t * PERIOD_NS for t in range(3)])
    video = opened(bag, truth)
    assert indices(video) == [0, 1, 2]
    assert any('10 images a second are assumed' in note for note in video.notes)
    assert '3 of 3 images have no stamp; an assumed time was taken.' in video.notes


@pytest.mark.parametrize('copies', [2, 3])
def test_images_that_were_recorded_twice_count_once(tmp_path, copies):
    messages = [message for message in images(4) for _ in range(copies)]
    bag = write_bag(tmp_path / 'bag', {'/image': messages})
    video = opened(bag, ytvis_json(tmp_path / 'truth.json', [stamp(t) for t in range(4)]))
    assert indices(video) == [0, 1, 2, 3]
    assert '0 of 4 images are not annotated' in video.notes[0]
    assert f'{4 * copies - 4} of {4 * copies} images on /image are in the bag' in video.notes[1]


def test_a_range_of_grey_values_for_all_videos(tmp_path):
    grey = np.random.default_rng(0).integers(0, 4096, (48, 64), np.uint16)
    data = {'data': grey.view(np.uint8).reshape(-1), 'step': 128, 'encoding': 'mono16'}
    bag = write_bag(tmp_path / 'bag', {'/image': [stamped(0, stamp(0), **data)]})
    dark = bag_dataset(bag, '', ytvis_json(tmp_path / 'truth.json', [stamp(0)]))
    bright = dark.with_grey_range((0, 4095))
    found = [next(each.videos[0].frames()).image.max() for each in (dark, bright)]
    assert found == [15, 255]
    assert bright.grey_range == (0, 4095)
    notes = [' '.join(each.videos[0].notes) for each in (dark, bright)]
    assert ['little to see' in note for note in notes] == [True, False]


def test_an_image_of_another_size_with_a_note_of_a_turn(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    file = io.BytesIO()
    Image.fromarray(image_of(0)).save(file, 'JPEG', exif=exif)
    kind = STORE.types['sensor_msgs/msg/CompressedImage']
    message = kind(stamped(0, stamp(0)).header, 'jpeg', np.frombuffer(file.getvalue(), np.uint8))
    bag = write_bag(tmp_path / 'bag', {'/image': [message]})
    truth = ytvis_json(tmp_path / 'truth.json', [stamp(0)], width=48, height=64)
    with pytest.raises(DatasetError, match=r'got 64 x 48. Its EXIF orientation \(6\) is ignored'):
        indices(opened(bag, truth))


def test_images_without_a_stamp_among_others_stay_on_their_clock(tmp_path):
    messages = [image_message(0), without_stamp(1), image_message(2)]
    bag = write_bag(tmp_path / 'bag', {'/image': messages})
    video = opened(bag, ytvis_json(tmp_path / 'truth.json', [stamp(t) for t in range(3)]))
    frames = list(video.frames())
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert frames[1].stamp_ns == pytest.approx(stamp(1), abs=1000)
