"""Bags are made of drawn data sets, and read back: images, stamps and truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from videomt_ros.cli import main
from videomt_ros.datasets.bags.dataset import bag_dataset
from videomt_ros.datasets.bags.images import BagImages
from videomt_ros.datasets.bags.writing import BagFormat, make_bags
from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.dataset import Dataset, DatasetError, VideoFrame
from videomt_ros.datasets.formats.vipseg import load_vipseg
from videomt_ros.datasets.formats.vspw import load_vspw
from videomt_ros.datasets.formats.ytvis import load_ytvis
from videomt_ros.datasets.synthetic.writing import write_dataset

NAMES = {'ytvis': 'ytvis2019', 'vipseg': 'vipseg', 'vspw': 'vspw'}
BENCHMARKS = pytest.mark.parametrize('benchmark', list(NAMES))


@pytest.fixture(scope='module')
def roots(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp('data')
    for benchmark in NAMES:
        write_dataset(benchmark, folder / benchmark, 2, 4, seed=5)
    return {benchmark: folder / benchmark for benchmark in NAMES}


def opened(roots, benchmark: str) -> Dataset:
    return open_dataset(NAMES[benchmark], roots[benchmark])


def truth_of(bag: Path, benchmark: str) -> Path:
    return bag.with_name(f'{bag.name}_vspw' if benchmark == 'vspw' else f'{bag.name}.json')


@BENCHMARKS
def test_a_bag_gives_the_images_of_the_data_set_and_their_place(tmp_path, roots, benchmark):
    dataset = opened(roots, benchmark)
    bags = make_bags(dataset, tmp_path / 'bags')
    assert [bag.name for bag in bags] == [video.name for video in dataset.videos]
    for bag, video in zip(bags, dataset.videos, strict=True):
        made = bag_dataset(bag, '', truth_of(bag, benchmark))
        assert made.family == benchmark
        assert made.categories == dataset.categories
        assert made.is_drawn
        (copy,) = made.videos
        assert (copy.video_id, copy.name, copy.size) == (video.video_id, video.name, video.size)
        frames, originals = list(copy.frames()), list(video.frames())
        assert [frame.index for frame in frames] == [0, 1, 2, 3]
        for frame, original in zip(frames, originals, strict=True):
            np.testing.assert_array_equal(frame.image, original.image)
            since_ns = frame.stamp_ns - frames[0].stamp_ns
            assert since_ns == original.stamp_ns - originals[0].stamp_ns
    assert len({next(BagImages(bag).images()).stamp_ns for bag in bags}) == 2


def test_the_truth_of_ytvis_is_the_same_but_for_stamps(tmp_path, roots):
    dataset = opened(roots, 'ytvis')
    bags = make_bags(dataset, tmp_path)
    whole = load_ytvis(dataset.truth[0])
    for bag, video in zip(bags, dataset.videos, strict=True):
        part = load_ytvis(truth_of(bag, 'ytvis'))
        assert [v.video_id for v in part.videos] == [video.video_id]
        expected = whole.tracks(video.video_id)
        assert len(expected) > 0
        for mine, theirs in zip(part.tracks(video.video_id), expected, strict=True):
            assert (mine.track_id, mine.category_id) == (theirs.track_id, theirs.category_id)
            assert list(mine.masks) == list(theirs.masks)
        stamps = [image.stamp_ns for image in BagImages(bag).images()]
        assert list(part.videos[0].stamps_ns or ()) == stamps


def test_the_truth_of_vipseg_is_the_same_but_for_stamps(tmp_path, roots):
    dataset = opened(roots, 'vipseg')
    bags = make_bags(dataset, tmp_path)
    whole = load_vipseg(dataset.truth[0])
    for bag, video in zip(bags, dataset.videos, strict=True):
        part = load_vipseg(truth_of(bag, 'vipseg'))
        name = str(video.video_id)
        for t in range(4):
            np.testing.assert_array_equal(part.ids(name, t), whole.ids(name, t))
            assert part.segments(name, t) == whole.segments(name, t)
        stamps = [image.stamp_ns for image in BagImages(bag).images()]
        assert list(part.videos[0].stamps_ns or ()) == stamps


def test_the_masks_of_vspw_are_named_by_their_stamps(tmp_path, roots):
    dataset = opened(roots, 'vspw')
    bags = make_bags(dataset, tmp_path)
    whole = load_vspw(dataset.truth[0])
    for bag, video in zip(bags, dataset.videos, strict=True):
        part = load_vspw(truth_of(bag, 'vspw'))
        name = str(video.video_id)
        stamps = [image.stamp_ns for image in BagImages(bag).images()]
        assert part.videos[0].frame_names == tuple(f'{stamp}.png' for stamp in stamps)
        for t in range(4):
            np.testing.assert_array_equal(part.mask(name, t), whole.mask(name, t))


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('zstd', ['none', 'file', 'message'])
@pytest.mark.parametrize('image', ['raw', 'png'])
def test_every_way_of_writing_loses_nothing(tmp_path, roots, storage, zstd, image):
    dataset = opened(roots, 'ytvis')
    bag, _ = make_bags(dataset, tmp_path, BagFormat(storage, image, zstd))
    (copy,) = bag_dataset(bag, '', truth_of(bag, 'ytvis')).videos
    frames = zip(copy.frames(), dataset.videos[0].frames(), strict=True)
    for frame, original in frames:
        np.testing.assert_array_equal(frame.image, original.image)
    suffix = {'mcap': '.mcap', 'sqlite3': '.db3'}[storage] + '.zstd' * (zstd == 'file')
    assert (bag / f'{bag.name}{suffix}').exists()


def test_jpeg_changes_little(tmp_path, roots):
    dataset = opened(roots, 'ytvis')
    bag, _ = make_bags(dataset, tmp_path, BagFormat(image='jpeg'))
    assert BagImages(bag).topic == '/camera/image_raw/compressed'
    frames = list(BagImages(bag).frames())
    for frame, original in zip(frames, dataset.videos[0].frames(), strict=True):
        difference = np.abs(frame.image.astype(int) - original.image).mean()
        assert 0 < difference < 4


def test_camera_info_has_the_stamps_of_the_images(tmp_path, roots):
    bag, _ = make_bags(opened(roots, 'ytvis'), tmp_path)
    stamps: dict[str, list[int]] = {}
    with AnyReader([bag]) as reader:
        for connection, time_ns, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            stamp = message.header.stamp
            assert stamp.sec * 10**9 + stamp.nanosec == time_ns
            assert (message.height, message.width) == (384, 480)
            stamps.setdefault(connection.topic, []).append(time_ns)
    assert stamps['/camera/image_raw'] == stamps['/camera/camera_info']
    assert len(stamps['/camera/image_raw']) == 4


def test_what_is_there_is_not_touched(tmp_path, roots):
    dataset = opened(roots, 'ytvis')
    first, second = (video.name for video in dataset.videos)
    (tmp_path / f'{second}.json').write_text('mine')
    with pytest.raises(ValueError, match=f'1 of the bags .* exist already, such as .*{second}'):
        make_bags(dataset, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f'{second}.json']
    (tmp_path / f'{second}.json').unlink()
    make_bags(dataset, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
    with pytest.raises(ValueError, match='4 of the bags'):
        make_bags(dataset, tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
    assert (tmp_path / first).is_dir()


class Broken:
    """A video whose second image cannot be read."""

    video_id, name, size, frame_names = 1, 'broken', (8, 8), ('a', 'b')

    def frames(self):
        yield VideoFrame(0, 0, np.zeros((8, 8, 3), np.uint8))
        raise DatasetError(Path('b'), ['It is broken.'])


class Short(Broken):
    """A video without an image of its second frame."""

    def frames(self):
        yield VideoFrame(0, 0, np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ('video', 'reason'), [(Broken(), 'It is broken'), (Short(), 'annotated frame b')]
)
def test_a_bag_that_cannot_be_finished_leaves_nothing(tmp_path, video, reason):
    with pytest.raises(DatasetError, match=reason):
        make_bags(Dataset('x', 'ytvis', (), (video,)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_truth_there_are_bags_alone(tmp_path, roots):
    dataset = opened(roots, 'ytvis')
    (bag,) = make_bags(Dataset('x', 'ytvis', (), dataset.videos[:1]), tmp_path)
    assert list(tmp_path.iterdir()) == [bag]


class Late(Broken):
    """A video whose first stamp is not 0, with an image between that is not annotated."""

    def frames(self):
        for index, seconds in ((0, 7), (None, 8), (1, 9)):
            yield VideoFrame(index, seconds * 10**9, np.zeros((8, 8, 3), np.uint8))


def test_each_video_begins_on_a_day_of_its_own(tmp_path):
    videos = [Late(), Late()]
    videos[1].name = 'other'
    bags = make_bags(Dataset('x', 'ytvis', (), tuple(videos)), tmp_path)
    for number, bag in enumerate(bags):
        first_ns = 1_700_000_000_000_000_000 + number * 86_400_000_000_000
        expected = [first_ns, first_ns + 10**9, first_ns + 2 * 10**9]
        assert [image.stamp_ns for image in BagImages(bag).images()] == expected


def test_single_images_make_no_bag(tmp_path):
    path = tmp_path / 'coco.json'
    path.write_text('{"images": [], "annotations": [], "categories": []}')
    dataset = Dataset('coco', 'ytvis', (), (Late(),), truth=(path,))
    with pytest.raises(DatasetError, match='annotations of videos, got those of single images'):
        make_bags(dataset, tmp_path / 'bags')


def test_annotations_of_single_frames_make_no_bag_before_they_are_converted(tmp_path):
    path = tmp_path / 'cocovid.json'
    content = {'videos': [{'id': 1}], 'images': [{'id': 1, 'video_id': 1}], 'annotations': []}
    path.write_text(json.dumps(content))
    dataset = Dataset('x', 'ytvis', (), (Late(),), truth=(path,))
    with pytest.raises(DatasetError, match='`videomt convert` turns'):
        make_bags(dataset, tmp_path / 'bags')


def test_names_that_become_one(tmp_path):
    videos = []
    for name in ('a/b', 'a_b'):
        video = Broken()
        video.name = name
        videos.append(video)
    with pytest.raises(ValueError, match='differ in "/" and "_" only'):
        make_bags(Dataset('x', 'ytvis', (), tuple(videos)), tmp_path)


def test_the_command(tmp_path, roots, capsys):
    out = tmp_path / 'bags'
    command = ['bag', 'make', '--dataset', 'ytvis2019', '--root', str(roots['ytvis'])]
    assert main([*command, '--out', str(out), '--limit', '1', '--storage', 'sqlite3']) == 0
    (name,) = (path.stem for path in out.glob('*.json'))
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f'1 bag in {out}, each with its truth beside it',
        f'videomt evaluate --model MODEL --bag {out}/{name} --truth {out}/{name}.json',
    ]
    assert (out / name / f'{name}.db3').exists()
    assert len(json.loads((out / f'{name}.json').read_text())['videos']) == 1
    assert main([*command, '--out', str(out)]) == 1
    assert 'exist already' in capsys.readouterr().err
