"""Bags of a folder are found with their truths, and their truths become one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from tests.datasets.bags.made import write_bag
from tests.datasets.bags.test_dataset import images, stamp, ytvis_json
from videomt_ros.datasets.bags.fleet import fleet_dataset
from videomt_ros.datasets.bags.fleet_files import find_fleet, name_fleet
from videomt_ros.datasets.dataset import Dataset, DatasetError
from videomt_ros.datasets.formats.vipseg import load_vipseg
from videomt_ros.datasets.formats.vspw import load_vspw
from videomt_ros.datasets.formats.ytvis import load_ytvis
from videomt_ros.datasets.mask_png import write_ids, write_mask

SQUARE = [[[2, 2, 12, 2, 12, 12, 2, 12]]]


def record(path: Path, count: int, first: int = 0) -> None:
    """Write a bag of images in a file of mcap."""
    path.parent.mkdir(parents=True, exist_ok=True)
    messages = images(first + count)[first:]
    write_bag(path, {'/camera': messages}, StoragePlugin.MCAP, first=first)


def labelled(path: Path, classes: dict[int, str], category_id: int, **changes) -> Path:
    """A truth of two frames with one object of a class."""
    ytvis_json(path, [stamp(0), stamp(1)])
    content = json.loads(path.read_text())
    content['categories'] = [{'id': number, 'name': name} for number, name in classes.items()]
    content['annotations'] = [
        {
            'id': 7,
            'video_id': 1,
            'category_id': category_id,
            'iscrowd': 0,
            'areas': [100.0, None],
            'segmentations': [*SQUARE, None],
            **changes,
        }
    ]
    path.write_text(json.dumps(content))
    return path


def vipseg_json(path: Path, classes: dict[int, tuple[str, int]], category_id: int) -> Path:
    """A truth of one frame with one segment, and its PNG."""
    image = {'file_name': '0.png', 'width': 64, 'height': 48, 'stamp_ns': stamp(0)}
    segment = {'id': 5, 'category_id': category_id, 'iscrowd': 0, 'area': 64 * 48}
    content = {
        'categories': [
            {'id': number, 'name': name, 'isthing': is_thing}
            for number, (name, is_thing) in classes.items()
        ],
        'videos': [{'video_id': path.stem, 'images': [image]}],
        'annotations': [
            {
                'video_id': path.stem,
                'annotations': [{'file_name': '0.png', 'segments_info': [segment]}],
            }
        ],
    }
    path.write_text(json.dumps(content))
    write_ids(path.parent / 'panomasksRGB' / path.stem / '0.png', np.full((48, 64), 5))
    return path


def vspw_folder(path: Path, classes: dict[str, int], value: int) -> Path:
    """A truth of one frame whose pixels have one value, but for a void and an ignored one."""
    mask = np.full((48, 64), value)
    mask[0, :2] = 0, 255
    write_mask(path / f'data/{path.name}/mask/{stamp(0)}.png', mask)
    (path / 'val.txt').write_text(f'{path.name}\n')
    (path / 'classes.json').write_text(json.dumps(classes))
    return path


def opened(folder: Path, tmp_path: Path) -> Dataset:
    scratch = tmp_path / 'scratch'
    scratch.mkdir()
    return fleet_dataset('fleet', find_fleet(folder), '', scratch)


def named(folder: Path) -> dict[str, tuple[str | None, str | None]]:
    """Bag and truth of each name, relative to the folder."""
    return {
        each.name: tuple(
            None if path is None else str(path.relative_to(folder))
            for path in (each.bag, each.truth)
        )
        for each in find_fleet(folder)
    }


def test_bags_of_every_kind_are_found_with_their_truths(tmp_path):
    home = tmp_path / 'home'
    record(home / 'a', 2)
    record(home / 'site/b', 2)
    shutil.move(next((home / 'site/b').glob('*.mcap')), home / 'site/one.v2.mcap')
    (home / 'killed').mkdir()
    shutil.copy(home / 'site/one.v2.mcap', home / 'killed/killed_0.mcap')
    shutil.copy(home / 'site/one.v2.mcap', home / 'old.bag')
    shutil.copy(home / 'site/one.v2.mcap', home / 'small.db3.zstd')
    for name in ('a', 'site/b', 'site/one.v2', 'killed'):
        ytvis_json(home / f'{name}.json', [stamp(0)])
    vspw_folder(home / 'old_vspw', {'sky': 1}, 1)
    assert named(home) == {
        'a': ('a', 'a.json'),
        'killed': ('killed', 'killed.json'),
        'old': ('old.bag', 'old_vspw'),
        'small': ('small.db3.zstd', None),
        'b': ('site/b', 'site/b.json'),
        'one.v2': ('site/one.v2.mcap', 'site/one.v2.json'),
    }


def test_equal_names_become_paths(tmp_path):
    for site in ('north', 'south'):
        record(tmp_path / site / 'run 1', 1)
    record(tmp_path / 'run_2', 1)
    assert list(named(tmp_path)) == ['north_run_1', 'run_2', 'south_run_1']
    # A path may be written like another name, and a number as well.
    for name in ('north_run 1', 'north_run_1_1'):
        record(tmp_path / name, 1)
    assert list(named(tmp_path)) == [
        *('north_run_1_2', 'north_run_1_3', 'north_run_1_1', 'run_2', 'south_run_1'),
    ]


def test_what_lies_beside_bags_is_not_taken_for_truth(tmp_path):
    record(tmp_path / 'a', 2)
    ytvis_json(tmp_path / 'a.json', [stamp(0)])
    (tmp_path / 'around').symlink_to(tmp_path)
    (tmp_path / 'calibration.json').write_text('{"k": [1]}')
    (tmp_path / 'broken.json').write_text('{')
    (tmp_path / 'out/shard-1-of-2').mkdir(parents=True)
    for folder in (tmp_path, tmp_path / 'out'):  # results of evaluations
        (folder / 'run.json').write_text('{}')
        (folder / 'truth').mkdir()
        ytvis_json(folder / 'truth/truth.json', [stamp(0)])
    assert named(tmp_path) == {'a': ('a', 'a.json')}
    ytvis_json(tmp_path / 'lost.json', [stamp(0)])
    assert named(tmp_path) == {'a': ('a', 'a.json'), 'lost': (None, 'lost.json')}


def test_a_folder_without_bags_says_what_one_is(tmp_path):
    with pytest.raises(DatasetError, match=r'Expected bags in it or below: folders with'):
        find_fleet(tmp_path)
    with pytest.raises(DatasetError, match=r'Expected a folder of bags, but there is none'):
        find_fleet(tmp_path / 'none')


def test_bags_are_paired_with_truths_in_their_order(tmp_path):
    bags = [tmp_path / name for name in ('a', 'b')]
    truths = [tmp_path / 'x.json', tmp_path / 'y.json']
    pairs = [(each.bag, each.truth) for each in name_fleet(bags, truths)]
    assert pairs == list(zip(bags, truths, strict=True))
    assert {each.truth for each in name_fleet(bags, truths[:1])} == {truths[0]}
    with pytest.raises(ValueError, match=r'a --truth for each of the 2 bags, or one .* got 3'):
        name_fleet(bags, [*truths, tmp_path])
    with pytest.raises(ValueError, match='Expected each bag once'):
        name_fleet([bags[0], bags[0]], [])


def test_classes_of_instances_merge_by_name(tmp_path):
    home = tmp_path / 'home'
    for name in ('a', 'b', 'c'):
        record(home / name, 2)
    labelled(home / 'a.json', {1: 'circle', 2: 'Traffic light'}, 1)
    labelled(home / 'b.json', {1: 'traffic_light', 2: 'circle'}, 2, iscrowd=1)
    labelled(home / 'c.json', {1: 'star'}, 1, areas=[30.0, None])
    dataset = opened(home, tmp_path)
    assert [(item.category_id, item.name) for item in dataset.categories] == [
        (1, 'circle'), (2, 'Traffic light'), (3, 'star'),
    ]  # fmt: skip
    truth = load_ytvis(dataset.truth[0])
    tracks = [truth.tracks(video.video_id) for video in dataset.videos]
    assert [[track.category_id for track in each] for each in tracks] == [[1], [1], [3]]
    assert [each[0].is_crowd for each in tracks] == [False, True, False]
    assert [list(each[0].areas) for each in tracks] == [[100.0, None], [100.0, None], [30.0, None]]
    assert [video.name for video in dataset.videos] == ['a', 'b', 'c']
    assert len({each[0].track_id for each in tracks}) == 3
    [lacks, star] = sorted(dataset.notes)
    assert lacks.startswith('a.json, b.json lack classes that other bags have: star.')
    assert star.startswith('c.json lacks classes that other bags have: circle, Traffic light.')
    # Frames are those of each bag.
    assert [[frame.index for frame in video.frames()] for video in dataset.videos] == [[0, 1]] * 3


def test_classes_of_segments_merge_by_name(tmp_path):
    home = tmp_path / 'home'
    for name in ('a', 'b'):
        record(home / name, 2)
    vipseg_json(home / 'a.json', {0: ('sky', 0), 1: ('car', 1)}, 1)
    vipseg_json(home / 'b.json', {0: ('car', 1)}, 0)
    dataset = opened(home, tmp_path)
    assert [(c.category_id, c.name, c.is_thing) for c in dataset.categories] == [
        (0, 'sky', False), (1, 'car', True),
    ]  # fmt: skip
    truth = load_vipseg(dataset.truth[0], dataset.truth_masks)
    assert [truth.segments(name, 0)[0]['category_id'] for name in ('a', 'b')] == [1, 1]
    assert (truth.ids('b', 0) == 5).all()


def test_values_of_masks_merge_by_name(tmp_path):
    home = tmp_path / 'home'
    for name in ('a', 'b', 'c', 'd', 'e'):
        record(home / name, 2)
    vspw_folder(home / 'a_vspw', {'others': 0, 'sky': 1, 'road': 2}, 2)
    vspw_folder(home / 'b_vspw', {'road': 1, 'sky': 2}, 1)
    # These have a value of no class. Two of them are a class elsewhere, which is none here.
    vspw_folder(home / 'c_vspw', {'lawn': 1}, 9)
    vspw_folder(home / 'd_vspw', {'lawn': 1}, 2)
    vspw_folder(home / 'e_vspw', {'sky': 1}, 2)
    dataset = opened(home, tmp_path)
    assert [video.name for video in dataset.videos] == ['a', 'b']
    for (name, fault), value in zip(dataset.unopened, (9, 2, 2), strict=True):
        assert f'{home}/{name}_vspw/data/{name}_vspw/mask/{stamp(0)}.png: ' in fault
        assert fault.endswith(f'got [{value}].')
    assert [name for name, _ in dataset.unopened] == ['c', 'd', 'e']
    truth = load_vspw(dataset.truth[0], dataset.split)
    names = {item.category_id: item.name for item in truth.categories}
    assert (
        names
        == {0: 'sky', 1: 'road', 2: 'lawn'}
        == {item.category_id: item.name for item in dataset.categories}
    )
    for name in ('a', 'b'):
        mask = truth.mask(name, 0)
        assert mask[0, :2].tolist() == [0, 255]
        assert (mask[1:] == 2).all()


def test_no_usable_mask_lists_why(tmp_path):
    home = tmp_path / 'home'
    for name, label in (('a', 'sky'), ('b', 'road')):
        record(home / name, 2)
        vspw_folder(home / f'{name}_vspw', {label: 1}, 9)
    with pytest.raises(DatasetError, match=r'(?s)a: .*a_vspw.*got \[9\].*b: .*b_vspw'):
        opened(home, tmp_path)


def test_truths_that_contradict_each_other_are_refused(tmp_path):
    home = tmp_path / 'home'
    for name in ('a', 'b'):
        record(home / name, 2)
    vipseg_json(home / 'a.json', {1: ('car', 1)}, 1)
    vipseg_json(home / 'b.json', {1: ('Car', 0)}, 1)
    with pytest.raises(DatasetError, match=r"b.json: Expected 'Car' to be a thing as in .*a.json"):
        opened(home, tmp_path)
    shutil.rmtree(tmp_path / 'scratch')
    labelled(home / 'b.json', {1: 'car'}, 1)
    with pytest.raises(DatasetError, match=r'one family, got 1 of vipseg \(such as a.json\), 1'):
        opened(home, tmp_path)
    shutil.rmtree(tmp_path / 'scratch')
    twice = labelled(home / 'a.json', {1: 'car', 2: 'Car'}, 1)
    content = json.loads(twice.read_text())
    content['annotations'].append({**content['annotations'][0], 'id': 8, 'category_id': 2})
    twice.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"a.json: Expected classes of different names, got 'c"):
        opened(home, tmp_path)


def test_more_classes_than_masks_have_values_are_refused(tmp_path):
    home = tmp_path / 'home'
    for name in ('a', 'b'):
        record(home / name, 1)
        vspw_folder(home / f'{name}_vspw', {f'{name}{k}': k for k in range(1, 71)}, 1)
    with pytest.raises(DatasetError, match='at most 124 classes in all bags together, got 140'):
        opened(home, tmp_path)


def test_one_truth_may_hold_the_videos_of_several_bags(tmp_path):
    bags = [tmp_path / 'a', tmp_path / 'b']
    record(bags[0], 2)
    record(bags[1], 2, first=7)
    truth = ytvis_json(tmp_path / 'all.json', [stamp(0), stamp(1)], [stamp(7), stamp(8)])
    (tmp_path / 'scratch').mkdir()
    dataset = fleet_dataset('x', name_fleet(bags[::-1], [truth]), '', tmp_path / 'scratch')
    assert [video.name for video in dataset.videos] == ['b', 'a']
    for video in dataset.videos:
        assert [frame.index for frame in video.frames()] == [0, 1]
        assert video.notes == []


def test_a_video_of_two_bags_is_that_of_the_first(tmp_path):
    bags = [tmp_path / 'a', tmp_path / 'b']
    for bag in bags:
        record(bag, 2)
    truth = ytvis_json(tmp_path / 'all.json', [stamp(0), stamp(1)])
    (tmp_path / 'scratch').mkdir()
    dataset = fleet_dataset('x', name_fleet(bags, [truth]), '', tmp_path / 'scratch')
    assert [video.name for video in dataset.videos] == ['a']
    [(name, why)] = dataset.unopened
    assert name == 'b' and 'v1 is that of a' in why


def test_frames_without_image_are_noted_with_their_bag(tmp_path):
    home = tmp_path / 'home'
    record(home / 'a', 2)
    labelled(home / 'a.json', {1: 'circle'}, 1)
    content = json.loads((home / 'a.json').read_text())
    [video] = content['videos']
    video |= {'length': 3, 'stamps_ns': [stamp(0), stamp(1), stamp(2)]}
    video['file_names'].append('v1/00002.jpg')
    content['annotations'] = []
    (home / 'a.json').write_text(json.dumps(content))
    [video] = opened(home, tmp_path).videos
    assert [frame.index for frame in video.frames()] == [0, 1]
    assert video.notes[0].startswith('a: 2 of 3 annotated frames have an image')


def test_no_usable_bag_lists_why(tmp_path):
    record(tmp_path / 'home/a', 2)
    record(tmp_path / 'home/b', 2)
    (tmp_path / 'home/b.json').write_text('{')
    with pytest.raises(DatasetError, match=r'(?s)a: Expected the truth of .*b: .*Expected JSON'):
        opened(tmp_path / 'home', tmp_path)


def test_messages_name_the_files_of_the_user(tmp_path):
    home = tmp_path / 'home'
    record(home / 'a', 1)
    vspw_folder(home / 'a_vspw', {'lawn': 1}, 9)
    dataset = opened(home, tmp_path)
    truth = load_vspw(dataset.truth[0], dataset.split)
    with pytest.raises(DatasetError) as caught:
        truth.mask('a', 0)
    message = dataset.readable(f'{caught.value} See {dataset.truth[0]}/val.txt.')
    assert message.startswith(f'{home}/a_vspw/data/a_vspw/mask/{stamp(0)}.png: Expected values')
    assert message.endswith('See val.txt.')
