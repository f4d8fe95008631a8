"""The data of a run, from the run file to a step of the optimiser."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tests.training.labelled_data import FORMATS, SIZE, write_labelled
from tests.training.runs import tiny_network
from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.datasets.synthetic.scene import CLASS_NAMES, Scene
from videomt_ros.training.clips import Batch
from videomt_ros.training.data import Mixture, StepClips, load_batches
from videomt_ros.training.run_file import load_settings
from videomt_ros.training.run_settings import TrainSettings
from videomt_ros.training.trainer import train

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
    """One folder for each format."""
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


@pytest.mark.parametrize('workers', [1, 2])
def test_workers_change_no_batch(run_file, root, workers):
    sources = [source(root, dataset) for dataset in ('ytvis2019', 'coco', 'vspw')]
    settings = load_settings(run_file, [data(*sources)])
    for one, other in zip(batches(settings), batches(settings, workers), strict=True):
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


def test_a_resumed_run_on_data_goes_on_with_the_same_clips(run_file, root):
    overrides = [
        data(source(root, 'ytvis2019'), source(root, 'coco')),
        'phases=[{steps: 4, clip_frames: 2, batch_size: 1}]',
    ]
    settings = load_settings(run_file, overrides)
    whole = batches(settings)
    rest = load_batches(StepClips(settings, Mixture(settings)), range(2, 4), workers=0)
    for one, [other] in zip(whole[2:], rest, strict=True):
        assert torch.equal(one.frames, other.frames)


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


@pytest.mark.parametrize('workers', [0, 1])
def test_a_damaged_mask_ends_the_run_and_is_named(run_file, tmp_path, workers):
    write_labelled('vipseg', tmp_path / 'vipseg')
    for path in (tmp_path / 'vipseg' / 'panomasksRGB').rglob('*.png'):
        path.write_text('no image')
    settings = [data(source(tmp_path, 'vipseg')), f'workers={workers}', f'out={tmp_path / "out"}']
    with pytest.raises(DatasetError, match=r'panomasksRGB.*\.png: Expected'):
        train(load_settings(run_file, settings))


@pytest.mark.parametrize(
    ('override', 'fault'),
    [
        (
            'data=[{dataset: kitti, root: a}]',
            r'^data\.0: Expected dataset out of ytvis2019, .*kitti',
        ),
        ('data=[{dataset: ovis}]', r'^data\.0: Expected a root, the folder .* ovis'),
        (
            'data=[{dataset: synthetic, root: a}]',
            r"^data\.0: Expected no root for .* synthetic, got 'a'",
        ),
        (
            'data=[{dataset: ovis, root: a, weight: 0}]',
            r'^data\.0: Expected weight above 0, got 0',
        ),
        ('data=[{dataset: ovis, root: a, wait: 1}]', r'Unknown settings: data\.0\.wait'),
        ('data=[{root: a}]', r'Missing settings: data\.0\.dataset'),
        ('data=[{dataset: ovis, root: a, renamed: [[a]]}]', r'data\.0\.renamed\.0 .* list of 2'),
        ('data=ovis', 'data to be a list'),
        ('augmentation.short_sides=[]', '^augmentation: Expected short_sides, one or more'),
        ('augmentation.max_long_side=31', 'max_long_side of the largest .* 32, got 31'),
        ('augmentation.crop_probability=2', 'crop_probability from 0 to 1, got 2'),
        ('augmentation.max_rotation_deg=-1', 'max_rotation_deg from 0 to 180, got -1'),
    ],
)
def test_faults_of_a_run_file_name_the_setting(run_file, override, fault):
    with pytest.raises(ValueError, match=fault):
        load_settings(run_file, [override])
