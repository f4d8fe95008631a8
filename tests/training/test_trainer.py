"""The loop: it learns, it resumes, and it leaves weights that load."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from videomt_ros.model import load_model
from videomt_ros.training.schedule import learning_rate_factor, masked_attention_probability
from videomt_ros.training.settings import load_settings
from videomt_ros.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
TINY = """
seed: 1
network:
  {name: tiny, num_classes: 6, embed_dim: 32, depth: 3, num_heads: 2, patch_size: 8,
   table_size: 32, num_queries: 8, num_query_blocks: 2, test_size: 32, size_divisor: 8}
stages:
  - {steps: 3, clip_frames: 1, batch_size: 2}
  - {steps: 3, clip_frames: 2, batch_size: 2}
image_sizes: [[32, 40], [32, 32]]
warmup_steps: 2
masked_attention_until: 0.6
losses: {num_points: 64}
workers: 0
threads: 1
log_every: 1
checkpoint_every: 2
"""


@pytest.fixture
def run_file(tmp_path) -> Path:
    path = tmp_path / 'run.yaml'
    path.write_text(TINY)
    return path


def test_a_run_leaves_weights_that_load_and_a_log(run_file, tmp_path):
    trainer = Trainer(load_settings(run_file, [f'out={tmp_path / "out"}']))
    net = load_model(trainer.run())
    assert net.config == trainer.settings.network
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, trainer.average[name], atol=2e-3, rtol=2e-3)
    lines = [json.loads(line) for line in (tmp_path / 'out/log.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(line['loss']) for line in lines)


def test_a_resumed_run_equals_an_unbroken_one(run_file, tmp_path, monkeypatch):
    unbroken = Trainer(load_settings(run_file, [f'out={tmp_path / "a"}']))
    unbroken.run()

    broken = Trainer(load_settings(run_file, [f'out={tmp_path / "b"}']))
    step = broken.train_step

    def stop_at_5(batch):
        if broken.step == 5:
            raise KeyboardInterrupt
        return step(batch)

    monkeypatch.setattr(broken, 'train_step', stop_at_5)
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    resumed = Trainer(load_settings(run_file, [f'out={tmp_path / "b"}']))
    resumed.run(resume=True)  # from the checkpoint of step 4
    assert resumed.step == 6
    for name, value in unbroken.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name
        assert torch.equal(unbroken.average[name], resumed.average[name]), name


def test_it_learns_two_clips_by_heart(run_file, tmp_path):
    settings = load_settings(
        run_file,
        [
            f'out={tmp_path / "out"}',
            'stages=[{steps: 150, clip_frames: 2, batch_size: 2}]',
            'image_sizes=[[32, 40]]',
            'learning_rate=0.003',
            'masked_attention_until=0',
        ],
    )
    trainer = Trainer(settings)
    batch = next(trainer.batches())
    losses = []
    for _ in range(150):
        losses.append(trainer.train_step(batch)['loss'])
        trainer.step += 1
    assert sum(losses[-10:]) < 0.35 * sum(losses[:10])


def test_a_checkpoint_of_another_network_is_refused(run_file, tmp_path):
    out = f'out={tmp_path / "out"}'
    Trainer(load_settings(run_file, [out])).run()
    other = Trainer(load_settings(run_file, [out, 'network.num_queries=9']))
    with pytest.raises(ValueError, match='another network'):
        other.run(resume=True)


def test_a_loss_that_is_not_finite_ends_the_run(run_file, tmp_path):
    trainer = Trainer(load_settings(run_file, [f'out={tmp_path / "out"}']))
    with torch.no_grad():
        trainer.net.class_head.bias.fill_(float('nan'))
    with pytest.raises(ValueError, match='not finite at step 0'):
        trainer.run()


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ('speed=3', 'Unknown settings: speed'),
        ('losses.colour=3', 'Unknown settings: losses.colour'),
        ('network.num_heads=3', 'multiple of num_heads'),
        ('image_sizes=[[30, 40]]', 'multiples of the patch'),
        ('stages=[]', 'Expected stages'),
        ('seed', 'key=value'),
        ('seed.more=1', 'no settings inside'),
    ],
)
def test_wrong_settings_are_named(run_file, override, message):
    with pytest.raises(ValueError, match=message):
        load_settings(run_file, [override])


@pytest.mark.parametrize(
    'text', ['', '[1, 2]', 'a: [', 'stages: [{steps: 1}]\nnetwork: {num_classes: 1}']
)
def test_run_files_that_are_none_are_refused(tmp_path, text):
    path = tmp_path / 'run.yaml'
    path.write_text(text)
    with pytest.raises(ValueError, match='Expected|stages'):
        load_settings(path)


def test_the_demo_run_file_builds():
    settings = load_settings(ROOT / 'config/train_demo.yaml')
    assert settings.network.class_names == (
        'circle',
        'square',
        'triangle',
        'star',
        'ring',
        'cross',
    )
    assert settings.total_steps == sum(stage.steps for stage in settings.stages)


def test_schedules_start_turn_and_end_where_they_should():
    rates = [learning_rate_factor(step, 10, 110, 0.9) for step in range(111)]
    assert rates[0] == 0 and rates[10] == 1 and rates[110] == 0
    assert all(a < b for a, b in zip(rates[:10], rates[1:11], strict=True))
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert rates[60] == pytest.approx(0.5**0.9)
    assert [masked_attention_probability(step, 100, 0.5) for step in (0, 25, 50, 99)] == [
        1.0, 0.5, 0.0, 0.0,
    ]  # fmt: skip
    assert masked_attention_probability(0, 100, 0.0) == 0.0
