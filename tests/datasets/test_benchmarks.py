from __future__ import annotations

import pytest

from videomt_ros.datasets.benchmarks import BENCHMARK_NAMES, open_dataset
from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.datasets.synthetic.writing import write_dataset


def test_every_benchmark_has_a_name():
    assert BENCHMARK_NAMES == (
        'ytvis2019',
        'ytvis2021',
        'ytvis2022',
        'ovis',
        'vipseg',
        'vspw',
        'coco',
        'coco_panoptic',
    )


@pytest.mark.parametrize(
    ('name', 'benchmark'),
    [('ytvis2019', 'ytvis'), ('ovis', 'ytvis'), ('vipseg', 'vipseg'), ('vspw', 'vspw')],
)
def test_synthetic_data_sets_open_by_the_name_of_their_format(tmp_path, name, benchmark):
    write_dataset(benchmark, tmp_path / 'data', num_videos=2, num_frames=3)
    dataset = open_dataset(name, tmp_path / 'data')
    assert (dataset.name, dataset.family) == (name, benchmark)
    assert dataset.truth
    assert [video.name for video in dataset.videos] == ['scene_000000', 'scene_000001']
    for video in dataset.videos:
        frames = list(video.frames())
        assert [frame.index for frame in frames] == [0, 1, 2]
        assert {frame.image.shape for frame in frames} == {(*video.size, 3)}


@pytest.mark.parametrize('name', BENCHMARK_NAMES)
def test_a_folder_without_the_data_set_is_refused(tmp_path, name):
    with pytest.raises(DatasetError, match='xpected'):
        open_dataset(name, tmp_path)
    with pytest.raises(DatasetError, match='there is none'):
        open_dataset(name, tmp_path / 'nowhere')


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="ytvis2019, .*coco_panoptic, got 'ytvis'"):
        open_dataset('ytvis', tmp_path)
