"""`videomt benchmark train`: parts that make up the whole, of the run's own step."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from videomt_ros.cli import main
from videomt_ros.cli.benchmark_train import rows
from videomt_ros.speed.training_step import (
    PARTS,
    StepProfiler,
    StepTimes,
    camera_sizes,
    drawn,
    measure,
    one_process,
)
from videomt_ros.training.module import TrainModule
from videomt_ros.training.run_file import load_settings
from videomt_ros.training.run_settings import Augmentation, TrainSettings

RUN = """
network:
  {name: tiny, num_classes: 2, class_names: [left, right], embed_dim: 32, depth: 3, num_heads: 2,
   patch_size: 8, table_size: 32, num_queries: 8, num_query_blocks: 2, test_size: 32,
   size_divisor: 8}
phases:
  - {steps: 3, clip_frames: 1, batch_size: 8}
  - {steps: 3, clip_frames: 5, batch_size: 4, chunk_frames: 2}
augmentation: {short_sides: [32, 48], max_long_side: 64}
data: [{dataset: ytvis2019, root: /not/at/hand}]
init_from: /neither/this.safetensors
losses: {num_points: 64}
accumulate: 2
devices: 2
workers: 0
threads: 1
"""


@pytest.fixture
def run_file(tmp_path) -> Path:
    path = tmp_path / 'run.yaml'
    path.write_text(RUN)
    return path


@pytest.fixture
def settings(run_file) -> TrainSettings:
    return load_settings(run_file)


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time of day, in seconds: what `time.perf_counter` says next."""
    now = [0.0]
    monkeypatch.setattr(time, 'perf_counter', lambda: now[0])
    return now


def test_every_moment_belongs_to_one_part(clock):
    profiler = StepProfiler(torch.device('cpu'), warm_up=1, steps=2)

    def pass_by(seconds: float) -> None:
        clock[0] += seconds

    def losses() -> str:
        pass_by(0.5)
        profiler.timed('matching', pass_by)(0.25)
        pass_by(0.5)
        return 'losses'

    def step(data_s: float) -> None:
        with profiler.profile('[_TrainingEpochLoop].train_dataloader_next'):
            pass_by(data_s)
        with profiler.profile('run_training_batch'):
            profiler.enter('forward')
            pass_by(2)
            profiler.leave()
            assert profiler.timed('losses', losses)() == 'losses'
            pass_by(0.125)
            profiler.timed('backward', pass_by)(4)
            with (
                profiler.profile('optimizer_step'),
                profiler.profile('[Callback]X.on_before_optimizer_step'),
            ):
                pass_by(3)
        with profiler.profile('[Callback]X.on_train_batch_end'):
            pass_by(0.25)

    for data_s in (100, 1, 10, 100):  # the first warms up, the last is one too many
        step(data_s)
    # From the end of the batch of step 1 to that of step 3.
    assert profiler.samples_s == {
        'data': [1, 10],
        'forward': [2, 2],
        'matching': [0.25, 0.25],
        'losses': [1, 1],
        'backward': [4, 4],
        'optimiser': [3, 3],
        'rest': [0.125 + 0.25] * 2,
    }
    assert tuple(profiler.samples_s) == PARTS


def test_one_process_has_its_share_of_the_last_phase(settings):
    ours = one_process(settings, steps=7)
    (phase,) = ours.phases
    assert (phase.steps, phase.clip_frames, phase.batch_size, phase.chunk_frames) == (7, 5, 2, 2)
    assert (ours.devices, ours.nodes, ours.accumulate) == (1, 1, 2)
    with pytest.raises(ValueError, match='phases.0.batch_size .* multiple of 6, .* got 8. Change'):
        one_process(replace(settings, devices=3), steps=1)


def test_drawn_clips_have_the_size_of_a_cameras_images():
    # 1280 x 720 becomes 32 and 36 high where the long side is at most 64, in multiples of 8.
    augmentation = Augmentation(short_sides=(32, 48), max_long_side=64)
    assert camera_sizes(augmentation, 8) == ((32, 64), (40, 64))
    published = camera_sizes(Augmentation(), 32)
    assert published[0] == (320, 576) and published[-1] == (448, 768)


def test_a_run_on_drawn_clips_needs_no_files(settings):
    ours = drawn(settings)
    assert ours.init_from is None
    assert [source.dataset for source in ours.data] == ['synthetic']
    assert {name for _, name in ours.data[0].renamed} == {'left', 'right'}
    alone = replace(settings, data=())
    assert drawn(alone) == replace(alone, init_from=None)


def test_the_command_prints_all_parts_of_a_step(run_file, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ['benchmark', 'train', '--config', str(run_file), '--steps', '2', '--synthetic']
    assert main([*words, 'device=cpu', 'precision=fp32']) == 0
    printed = capsys.readouterr().out
    seconds = dict(re.findall(r'^\| (\w+) +\| +([\d.]+) \|', printed, re.MULTILINE))
    assert tuple(seconds) == (*PARTS, 'step')
    assert 'batch: 2 clips in 2 parts, each of 5 frames, in chunks of 2' in printed
    assert '32 x 64' in printed and 'fp32' in printed and ' thread' in printed
    assert re.search(r'A step takes [\d.]+ s: [\d.]+ clips a second, [\d.]+ GB', printed)
    assert {path.name for path in tmp_path.iterdir()} == {'run.yaml'}  # it leaves nothing


def test_what_training_refuses_is_refused(run_file, capsys):
    assert main(['benchmark', 'train', '--config', str(run_file), 'device=cpu']) == 1
    error = capsys.readouterr().err
    assert '/not/at/hand' in error and error.count('\n') == 1


def test_too_little_memory_ends_in_one_line(run_file, capsys, monkeypatch):
    def fail(*_) -> None:
        raise torch.OutOfMemoryError('CUDA out of memory.')

    monkeypatch.setattr(TrainModule, 'training_step', fail)
    words = ['benchmark', 'train', '--config', str(run_file), '--synthetic', 'device=cpu']
    assert main(words) == 1
    error = capsys.readouterr().err
    assert 'Out of memory with 2 clips in 2 parts. Change accumulate (now 2), ' in error
    assert error.splitlines()[-1].startswith('videomt benchmark')


def test_the_parts_make_up_the_step(settings):
    times = measure(replace(drawn(settings), device='cpu'), steps=2)
    assert set(times.samples_s) == set(PARTS)
    assert all(len(samples) == 2 and sum(samples) > 0 for samples in times.samples_s.values())
    assert times.total == pytest.approx(sum(map(sum, times.samples_s.values())) / 2)
    assert set(times.sizes) <= {(32, 64), (40, 64)} and times.sizes
    assert times.peak_bytes > 1e6


@pytest.mark.gpu
def test_a_gpu_is_waited_for(settings):
    times = measure(replace(drawn(settings), device='cuda'), steps=2)
    assert times.precision == 'bf16' and times.peak_bytes > 1e5
    assert all(sum(samples) > 0 for samples in times.samples_s.values())


def test_the_table_gives_seconds_and_shares(settings):
    samples_s = {part: [0.0, 0.25, 0.5] for part in PARTS} | {'forward': [0.25, 0.25, 1.0]}
    times = StepTimes(samples_s, 1, [(32, 64)], 'fp32', torch.device('cpu'), settings)
    cells = rows(times)
    assert cells[0] == ('', 'seconds', 'median', 'share')
    assert cells[1] == ('data', '0.2500', '0.2500', '12 %')
    assert cells[2] == ('forward', '0.5000', '0.2500', '25 %')
    assert cells[-1] == ('step', '2.0000', '1.7500', '100 %')
