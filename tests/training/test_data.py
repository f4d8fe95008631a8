"""The data of a run: who draws which clips, how sources mix, padding, and faults on the way."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.labelled_data import FORMATS, SIZE, write_labelled
from tests.training.runs import TINY_SIZES, tiny_network
from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.datasets.synthetic.scene import CLASS_NAMES, Scene
from videomt_ros.model import NetworkConfig
from videomt_ros.training.clips import Batch, Clip
from videomt_ros.training.data import Mixture, StepClips, load_batches
from videomt_ros.training.labelled_clips import ClipSource
from videomt_ros.training.run_file import load_settings
from videomt_ros.training.run_settings import DataSource, Phase, TrainSettings
from videomt_ros.training.trainer import train

NETWORK = NetworkConfig(
    **{**TINY_SIZES, 'size_divisor': 16},
    name='tiny',
    num_classes=6,
    pixel_mean=(10.0, 20.4, 300.0),
)
PHASES = (Phase(3, clip_frames=1, batch_size=12), Phase(2, clip_frames=3, batch_size=6))
SIZES = ((16, 24), (24, 16))


def scenes(rank: int = 0, world: int = 1, **changes) -> StepClips:
    values = {'network': NETWORK, 'phases': PHASES, 'image_sizes': SIZES, 'seed': 3}
    settings = TrainSettings(**(values | changes))
    return StepClips(settings, Mixture(settings), rank, world)


class Fixed:
    """Source of clips of one colour, with one object or none."""

    def __init__(self, colour: int, weight: float, is_empty: bool = False) -> None:
        self.colour, self.weight, self.is_empty = colour, weight, is_empty
        self.draws = 0

    def draw(self, rng: np.random.Generator, clip_frames: int, max_stride: int) -> Clip:
        self.draws += 1
        count = 0 if self.is_empty else 1
        return Clip(
            np.full((clip_frames, 4, 4, 3), self.colour, np.uint8),
            np.zeros(count, np.int64),
            np.ones((count, clip_frames, 4, 4), bool),
            f'colour {self.colour}',
        )


class Broken(Fixed):
    """Source whose clips cannot be read."""

    def draw(self, rng: np.random.Generator, clip_frames: int, max_stride: int) -> Clip:
        raise DatasetError(Path('a/b.png'), ['Expected an image.', 'Got a page.'])


class Colours(Mixture):
    """Mixture of such sources in place of files."""

    def __init__(self, *sources: ClipSource) -> None:
        self._sources = list(sources)

    def sources(self, phase: Phase, image_sizes: Sequence[tuple[int, int]]) -> list[ClipSource]:
        return self._sources


def colours(*sources: ClipSource, steps: int = 2, batch_size: int = 1) -> StepClips:
    phases = (Phase(steps, clip_frames=2, batch_size=batch_size),)
    data = (DataSource('synthetic'),)  # not that: whatever the mixture has
    return StepClips(TrainSettings(network=NETWORK, phases=phases, data=data), Colours(*sources))


def assert_equal(one: Batch, other: Batch) -> None:
    assert torch.equal(one.frames, other.frames)
    for ours, theirs in zip(one.targets[:4], other.targets[:4], strict=True):
        assert torch.equal(ours, theirs)
    assert one.targets.num_clips == other.targets.num_clips
    assert one.origins == other.origins


def test_steps_run_on_through_the_phases():
    clips = scenes()
    assert len(clips) == 5
    shapes = [tuple(batch.frames.shape[:3]) for step in range(5) for batch in clips[step]]
    assert shapes == [(12, 1, 3)] * 3 + [(6, 3, 3)] * 2
    for step in (-1, 5):
        with pytest.raises(IndexError, match=f'step from 0 to 4, got {step}'):
            clips[step]


def test_no_clip_comes_twice():
    clips = scenes()
    seen = Counter(name for step in range(5) for name in clips[step][0].origins)
    assert len(seen) == 3 * 12 + 2 * 6
    # Phases draw from seeds of their own: steps of one number show other scenes.
    first, second = ({name.split(',')[0] for name in clips[i][0].origins} for i in (0, 3))
    assert not first & second
    assert not set(seen) & {name for step in range(5) for name in scenes(seed=9)[step][0].origins}


@pytest.mark.parametrize(
    ('world', 'accumulate', 'step'), [(1, 3, 0), (2, 1, 2), (3, 2, 4), (6, 1, 4)]
)
def test_processes_and_parts_share_the_clips_of_one(world, accumulate, step):
    [whole] = scenes()[step]
    parts = [
        part for rank in range(world) for part in scenes(rank, world, accumulate=accumulate)[step]
    ]
    assert len(parts) == world * accumulate
    assert {len(part.frames) for part in parts} == {len(whole.frames) // len(parts)}
    assert torch.equal(torch.cat([part.frames for part in parts]), whole.frames)
    assert sum((part.origins for part in parts), ()) == whole.origins
    assert torch.equal(torch.cat([part.targets.masks for part in parts]), whole.targets.masks)
    size = len(whole.frames) // len(parts)
    clip_of = [part.targets.clip_of + i * size for i, part in enumerate(parts)]
    assert torch.equal(torch.cat(clip_of), whole.targets.clip_of)


@pytest.mark.parametrize(
    ('world', 'accumulate', 'fault'),
    [
        (
            4,
            1,
            r'phases\.1\.batch_size .* multiple of 4, for 4 processes with accumulate=1 .* 6\.',
        ),
        (1, 5, r'phases\.0\.batch_size .* multiple of 5, for 1 processes .*accumulate=5 .* 12\.'),
        (24, 1, r'phases\.0\.batch_size .* multiple of 24'),
    ],
)
def test_a_batch_that_cannot_be_shared_is_named(world, accumulate, fault):
    with pytest.raises(ValueError, match=fault):
        scenes(0, world, accumulate=accumulate)


def test_scenes_alone_have_one_size_a_step_and_no_padding():
    phases = (Phase(12, clip_frames=1, batch_size=2),)
    sizes = set()
    for step in range(12):
        one, other = (scenes(rank, 2, phases=phases)[step][0].frames for rank in (0, 1))
        assert one.shape == other.shape
        sizes.add(tuple(one.shape[3:]))
    assert sizes == set(SIZES)


def test_scenes_among_other_data_have_each_their_size():
    names = ('circle', 'square', 'triangle', 'star', 'ring', 'cross')
    config = NetworkConfig(**{**NETWORK.__dict__, 'class_names': names})
    clips = scenes(network=config, data=(DataSource('synthetic'),))
    [batch] = clips[0]
    assert batch.frames.shape == (12, 1, 3, 32, 32)  # 16 x 24 and 24 x 16, in steps of 16
    # What the network sees as 0, in whole numbers that a pixel can have.
    assert batch.frames[:, 0, :, 31, 31].unique(dim=0).tolist() == [[10, 20, 255]]
    filled = (batch.frames[:, 0] == torch.tensor([10, 20, 255])[:, None, None]).all(dim=1)
    assert set(filled[:, 20, 4].tolist()) == {True, False}


def test_sources_mix_by_weight():
    clips = colours(Fixed(1, 6.0), Fixed(2, 3.0), Fixed(3, 1.0), steps=1000, batch_size=4)
    counts = Counter(name for step in range(1000) for name in clips[step][0].origins)
    # Five standard deviations of 4000 clips are 160, 145 and 95.
    assert abs(counts['colour 1'] - 2400) < 160
    assert abs(counts['colour 2'] - 1200) < 145
    assert abs(counts['colour 3'] - 400) < 95


def test_a_clip_without_an_object_is_kept():
    empty = Fixed(1, 1.0, is_empty=True)
    [batch] = colours(empty)[0]
    assert empty.draws == 1
    assert batch.targets.masks.shape == (0, 2, 16, 16)
    assert batch.targets.num_clips == 1


def test_batches_are_equal_with_a_worker():
    clips = scenes(1, 2, accumulate=3)
    alone, helped = (list(load_batches(clips, range(1, 5), number)) for number in (0, 1))
    assert len(alone) == len(helped) == 4
    for ours, theirs in zip(alone, helped, strict=True):
        assert len(ours) == len(theirs) == 3
        for one, other in zip(ours, theirs, strict=True):
            assert_equal(one, other)


@pytest.mark.filterwarnings('error:This DataLoader')
def test_more_processes_than_cores_are_no_warning(monkeypatch):
    monkeypatch.setattr('os.sched_getaffinity', lambda pid: {0})
    assert len(list(load_batches(colours(Fixed(1, 1.0)), range(2), 2))) == 2


@pytest.mark.parametrize('workers', [0, 1])
def test_a_fault_of_a_file_keeps_its_words_on_the_way_from_a_worker(workers):
    with pytest.raises(DatasetError) as caught:
        list(load_batches(colours(Broken(1, 1.0)), range(2), workers))
    assert str(caught.value) == ('a/b.png: 2 faults: (1) Expected an image. (2) Got a page.')


NAMES = ['star', 'circle', 'square', 'triangle', 'ring', 'cross']
RUN_FILE = (
    tiny_network(6, class_names=NAMES, size_divisor=16)
    + """
phases:
  - {steps: 2, clip_frames: 2, batch_size: 2, max_stride: 2}
augmentation: {short_sides: [24, 32], max_long_side: 48}
image_sizes: [[32, 40]]
warmup_steps: 2
losses: {num_points: 64}
workers: 0
threads: 1
log_every: 1
"""
)


@pytest.fixture
def run_file(tmp_path) -> Path:
    path = tmp_path / 'run.yaml'
    path.write_text(RUN_FILE)
    return path


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """Write one data set of each format."""
    folder = tmp_path_factory.mktemp('data')
    for dataset in FORMATS:
        write_labelled(dataset, folder / dataset)
    return folder


def source(folder: Path, dataset: str, **changes) -> dict:
    return {'dataset': dataset, 'root': str(folder / dataset), 'split': 'val', **changes}


def data(*sources: dict) -> str:
    return f'data={json.dumps(sources)}'


def batches(settings: TrainSettings, workers: int = 0) -> list[Batch]:
    clips = StepClips(settings, Mixture(settings))
    return [batch for [batch] in load_batches(clips, range(len(clips)), workers)]


@pytest.mark.parametrize('dataset', FORMATS)
def test_a_run_trains_on_every_format(run_file, root, tmp_path, dataset):
    train(load_settings(run_file, [f'out={tmp_path / "out"}', data(source(root, dataset))]))
    lines = [json.loads(line) for line in (tmp_path / 'out/log.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines] == [1, 2]
    assert all(line['mask'] > 0 and math.isfinite(line['loss']) for line in lines)


def test_all_sources_mix_in_batches_of_whole_patches(run_file, root):
    phases = 'phases=[{steps: 4, clip_frames: 2, batch_size: 12}]'
    sources = [source(root, dataset) for dataset in FORMATS] + [{'dataset': 'synthetic'}]
    origins = set()
    for batch in batches(load_settings(run_file, [data(*sources), phases])):
        assert batch.frames.shape[:3] == (12, 2, 3)
        assert batch.frames.shape[3] % 16 == batch.frames.shape[4] % 16 == 0
        assert max(batch.frames.shape[3:]) <= 48
        assert batch.targets.masks.shape[1:] == (2, *batch.frames.shape[3:])
        assert batch.targets.masks.flatten(1).any(dim=1).all()
        assert set(batch.targets.clip_of.tolist()) == set(range(12))
        assert set(batch.targets.class_ids.tolist()) <= set(range(6))
        origins |= {origin.split()[0] for origin in batch.origins}
    assert origins == {f'data.{number}' for number in range(len(FORMATS))} | {'synthetic'}


def test_the_padding_is_what_the_network_sees_as_nothing(run_file, root):
    overrides = [
        data(source(root, 'ovis')),
        'augmentation={short_sides: [24], max_long_side: 32, crop_probability: 0}',
    ]
    settings = load_settings(run_file, overrides)
    batch = batches(settings)[0]
    # 48 x 64 is made 24 x 32, and filled up to 32 x 32.
    assert SIZE == (48, 64)
    assert batch.frames.shape[3:] == (32, 32)
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (settings.network.pixel_mean, settings.network.pixel_std)
    )
    seen = (batch.frames - mean) / std
    assert seen[..., 24:, :].abs().max() < 0.01
    assert seen[..., :24, :].abs().min(dim=2).values.mean() > 0.1
    assert not batch.targets.masks[..., 24:, :].any()


def test_categories_are_renamed_or_left_out_by_the_run_file(run_file, root):
    renamed = [['circle', 'star'], ['ring', None]]
    overrides = [
        data(source(root, 'ovis', renamed=renamed)),
        'phases=[{steps: 20, clip_frames: 2, batch_size: 2}]',
    ]
    settings = load_settings(run_file, overrides)
    seen = {k for batch in batches(settings) for k in batch.targets.class_ids.tolist()}
    names = {settings.network.class_names[k] for k in seen}
    scenes = [Scene(seed, *SIZE, num_frames=4) for seed in (0, 1)]
    drawn = {CLASS_NAMES[k] for scene in scenes for k in scene.class_of.values()}
    assert {'circle', 'ring'} & drawn
    assert names == {'star' if name == 'circle' else name for name in drawn} - {'ring'}


def test_workers_change_no_batch(run_file, root):
    sources = [source(root, dataset) for dataset in ('ytvis2019', 'coco', 'vspw')]
    settings = load_settings(run_file, [data(*sources)])
    for one, other in zip(batches(settings), batches(settings, workers=2), strict=True):
        assert one.origins == other.origins
        assert torch.equal(one.frames, other.frames)
        pairs = zip(one.targets[:4], other.targets[:4], strict=True)
        assert all(torch.equal(*pair) for pair in pairs)


def test_processes_draw_the_videos_of_one(run_file, root):
    sources = [source(root, dataset) for dataset in ('ytvis2019', 'coco', 'vspw')]
    settings = load_settings(
        run_file, [data(*sources), 'phases=[{steps: 3, clip_frames: 2, batch_size: 4}]']
    )
    shares = [StepClips(settings, Mixture(settings), rank, 2) for rank in (0, 1)]
    for step, whole in enumerate(batches(settings)):
        [one], [other] = (share[step] for share in shares)
        assert one.origins + other.origins == whole.origins
        # Each is padded to the largest of its own.
        height, width = one.frames.shape[3:]
        assert torch.equal(one.frames, whole.frames[:2, ..., :height, :width])


def test_a_run_may_be_resumed_where_the_data_lies_elsewhere(run_file, root, tmp_path):
    out = f'out={tmp_path / "out"}'
    train(load_settings(run_file, [out, data(source(root, 'ovis'))]))
    moved = tmp_path / 'moved'
    write_labelled('ovis', moved)
    train(load_settings(run_file, [out, data(source(root, 'ovis', root=str(moved)))]), resume=True)
    for changes, name in [
        ([data(source(root, 'ovis', weight=2))], 'data'),
        ([data(source(root, 'ovis')), 'augmentation.flip_probability=0'], 'augmentation.flip'),
    ]:
        with pytest.raises(ValueError, match=f'other settings: {name}'):
            train(load_settings(run_file, [out, *changes]), resume=True)


def test_a_damaged_annotation_ends_the_run_before_its_first_step(run_file, tmp_path):
    write_labelled('ovis', tmp_path / 'ovis')
    path = tmp_path / 'ovis' / 'valid.json'
    content = json.loads(path.read_text())
    content['annotations'][1]['category_id'] = 99
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r'valid\.json: Annotation 2: .*99'):
        Mixture(load_settings(run_file, [data(source(tmp_path, 'ovis'))]))


def test_a_damaged_mask_ends_the_run_and_is_named(run_file, tmp_path):
    write_labelled('vipseg', tmp_path / 'vipseg')
    for path in (tmp_path / 'vipseg' / 'panomasksRGB').rglob('*.png'):
        path.write_text('no image')
    settings = [data(source(tmp_path, 'vipseg')), 'workers=1', f'out={tmp_path / "out"}']
    with pytest.raises(DatasetError, match=r'panomasksRGB.*\.png: Expected'):
        train(load_settings(run_file, settings))
