"""Memory of a whole training step, as Lightning runs it, on long clips in chunks."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.runs import tiny_network
from videomt_ros.training.data import Mixture, RunData
from videomt_ros.training.initial import load_initial
from videomt_ros.training.machine import find_machine
from videomt_ros.training.module import TrainModule
from videomt_ros.training.run_file import load_settings
from videomt_ros.training.run_settings import TrainSettings
from videomt_ros.training.trainer import build_trainer

SIZE, FRAMES = 96, 15

RUN = (
    tiny_network(2, class_names=['left', 'right'], propagation='gru')
    + """
phases: [{steps: 2, clip_frames: 15, batch_size: 2}]
augmentation: {short_sides: [96], max_long_side: 96, crop_probability: 0, flip_probability: 0}
losses: {num_points: 256}
ema_decay: null
workers: 0
threads: 1
"""
)


@pytest.fixture(scope='module')
def run_file(tmp_path_factory) -> Path:
    """A run on one video with as many objects, of one size, in each frame."""
    home = tmp_path_factory.mktemp('run')
    (home / 'images').mkdir()
    names = [f'{t:02d}.png' for t in range(FRAMES)]
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    for name in names:
        Image.fromarray(image).save(home / 'images' / name)
    boxes = [[x, 10, x + 30, 10, x + 30, 40, x, 40] for x in (5, 55)]
    content = {
        'categories': [{'id': 1, 'name': 'left'}, {'id': 2, 'name': 'right'}],
        'videos': [
            {'id': 1, 'width': SIZE, 'height': SIZE, 'length': FRAMES, 'file_names': names}
        ],
        'annotations': [
            {
                'id': k, 'video_id': 1, 'category_id': k, 'iscrowd': 0,
                'areas': [900] * FRAMES, 'segmentations': [[box]] * FRAMES,
            }
            for k, box in enumerate(boxes, start=1)
        ],
    }  # fmt: skip
    (home / 'train.json').write_text(json.dumps(content))
    path = home / 'run.yaml'
    path.write_text(f'{RUN}out: {home / "out"}\ndata: [{{dataset: ytvis2019, root: {home}}}]\n')
    return path


def held_at_most(settings: TrainSettings) -> int:
    """Most bytes that torch holds on the CPU at a time in a run, beyond those held before."""
    module = TrainModule(settings, load_initial(settings))
    data = RunData(settings, Mixture(settings))
    trainer = build_trainer(
        settings,
        find_machine(settings),
        callbacks=[],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        trainer.fit(module, datamodule=data)
    assert trainer.global_step == settings.total_steps
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == '[memory]']
    assert events
    return max(accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))


def test_a_step_takes_the_memory_of_one_chunk(run_file):
    """15 frames in chunks of 5 take what 5 frames take, and 15 at once almost three times.

    Measured 1.010 times; it would be 1.058 if the outputs of the chunks were kept to the end.
    """
    five, chunks, whole = (
        held_at_most(load_settings(run_file, [f'phases=[{{steps: 2, batch_size: 2, {phase}}}]']))
        for phase in (
            'clip_frames: 5',
            'clip_frames: 15, chunk_frames: 5',
            'clip_frames: 15',
        )
    )
    assert chunks <= 1.05 * five
    assert whole > 2 * five
