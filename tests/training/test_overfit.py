"""A small network learns two clips by heart: the whole way from files to a score."""

from __future__ import annotations

import json

from tests.training.runs import log_lines
from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.synthetic.writing import write_dataset
from videomt_ros.evaluation.evaluator import evaluate
from videomt_ros.model import load_model
from videomt_ros.training.run_file import load_settings
from videomt_ros.training.trainer import train

SIZE, FRAMES = (128, 160), 3
SEED = 107
"""Seed of two scenes with three large shapes each, since masks have a quarter of the input's
resolution and an AP of 0.95 needs overlaps of 95 %."""


def test_two_clips_are_learnt_by_heart(tmp_path):
    root = tmp_path / 'data'
    write_dataset('ytvis', root, num_videos=2, num_frames=FRAMES, seed=SEED, size=SIZE)
    values = {
        'out': str(tmp_path / 'out'),
        'network': {
            'num_classes': 6,
            'class_names': ['circle', 'square', 'triangle', 'star', 'ring', 'cross'],
            'embed_dim': 64, 'depth': 4, 'num_heads': 4, 'num_query_blocks': 2, 'num_queries': 10,
            'patch_size': 16, 'table_size': 128, 'test_size': 128, 'size_divisor': 16,
        },
        'data': [{'dataset': 'ytvis2019', 'root': str(root), 'split': 'val'}],
        'augmentation': {
            'short_sides': [128], 'max_long_side': 160,
            'crop_probability': 0, 'flip_probability': 0,
        },
        'phases': [{'steps': 130, 'clip_frames': FRAMES, 'batch_size': 2}],
        'learning_rate': 0.002, 'layer_decay': 1, 'weight_decay': 0,
        'warmup_steps': 20, 'vit_warmup_steps': None,
        'losses': {'num_points': 1024},
        'device': 'cpu', 'threads': 1, 'workers': 0, 'log_every': 1,
    }  # fmt: skip
    run_file = tmp_path / 'run.yaml'
    run_file.write_text(json.dumps(values))  # JSON is YAML
    settings = load_settings(run_file)
    net = load_model(train(settings))
    losses = [line['loss'] for line in log_lines(settings)]
    assert sum(losses[-5:]) / 5 <= 0.1 * losses[0]
    metrics = evaluate(
        open_dataset('ytvis2019', root, 'val'),
        net,
        tmp_path / 'scores',
        settings={'confirm_frames': 1},  # with 2, a track is not published in its first frame
    )
    assert metrics is not None
    for mode in ('published', 'live'):
        assert metrics[mode]['figures']['AP'] >= 0.95, mode
