"""The loop: it learns, it resumes, and it leaves weights that load."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.layers import build_sincos2d_pos_embed

from videomt_ros.inference.preprocess import Preprocessor
from videomt_ros.model import VidEoMT, VidEoMTConfig, load_model
from videomt_ros.training.clips import SyntheticClips
from videomt_ros.training.settings import load_settings
from videomt_ros.training.trainer import Trainer, start_from_scratch

TINY = """
seed: 1
network:
  {name: tiny, num_classes: 6, embed_dim: 32, depth: 3, num_heads: 2, patch_size: 8,
   table_size: 32, num_queries: 8, num_query_blocks: 2, test_size: 32, size_divisor: 8}
phases:
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


@pytest.mark.parametrize(
    'overrides',
    [[], ['layer_decay=0.6', 'vit_warmup_steps=2'], ['ema_decay=null', 'decay_all=true']],
)
def test_a_resumed_run_equals_an_unbroken_one(run_file, tmp_path, monkeypatch, overrides):
    unbroken = Trainer(load_settings(run_file, [f'out={tmp_path / "a"}', *overrides]))
    unbroken.run()

    broken = Trainer(load_settings(run_file, [f'out={tmp_path / "b"}', *overrides]))
    step = broken.train_step

    def stop_at_5(batch):
        if broken.step == 5:
            raise KeyboardInterrupt
        return step(batch)

    monkeypatch.setattr(broken, 'train_step', stop_at_5)
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    resumed = Trainer(load_settings(run_file, [f'out={tmp_path / "b"}', *overrides]))
    resumed.run(resume=True)  # from the checkpoint of step 4
    assert resumed.step == 6
    for name, value in unbroken.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name
    assert unbroken.average.keys() == resumed.average.keys()
    for name, value in unbroken.average.items():
        assert torch.equal(value, resumed.average[name]), name
    for ours, theirs in zip(
        unbroken.optimizer.param_groups, resumed.optimizer.param_groups, strict=True
    ):
        assert (ours['name'], ours['lr']) == (theirs['name'], theirs['lr'])


def test_it_learns_two_clips_by_heart(run_file, tmp_path):
    settings = load_settings(
        run_file,
        [
            f'out={tmp_path / "out"}',
            'phases=[{steps: 150, clip_frames: 2, batch_size: 2}]',
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


@pytest.fixture
def finished(run_file, tmp_path) -> list[str]:
    """The overrides of a run that has reached its end."""
    overrides = [f'out={tmp_path / "out"}', 'phases=[{steps: 2, clip_frames: 1, batch_size: 1}]']
    Trainer(load_settings(run_file, overrides)).run()
    return overrides


@pytest.mark.parametrize(
    ('override', 'name'),
    [
        ('network.num_queries=9', 'network.num_queries'),
        ('phases=[{steps: 3, clip_frames: 1, batch_size: 1}]', 'phases'),
        ('seed=2', 'seed'),
        ('image_sizes=[[32, 32]]', 'image_sizes'),
        ('losses.mask_weight=4', 'losses.mask_weight'),
        ('learning_rate=0.1', 'learning_rate'),
        ('masked_attention_until=0.5', 'masked_attention_until'),
    ],
)
def test_a_run_with_other_settings_is_not_resumed(run_file, finished, override, name):
    other = Trainer(load_settings(run_file, [*finished, override]))
    with pytest.raises(ValueError, match=f'other settings: {name}. Resume'):
        other.run(resume=True)
    assert other.step == 0


def test_where_and_how_a_run_runs_may_change(run_file, finished):
    changed = ['threads=2', 'checkpoint_every=9', 'log_every=9', 'workers=1']
    trainer = Trainer(load_settings(run_file, [*finished, *changed]))
    trainer.run(resume=True)
    assert trainer.step == 2


def test_a_folder_with_a_run_is_kept(run_file, finished):
    trainer = Trainer(load_settings(run_file, finished))
    before = {path: path.read_bytes() for path in trainer.out.iterdir()}
    with pytest.raises(ValueError, match='--resume, or choose another folder with out='):
        trainer.run()
    assert before == {path: path.read_bytes() for path in trainer.out.iterdir()}


def test_a_resumed_log_has_each_step_once(run_file, tmp_path):
    overrides = [f'out={tmp_path / "out"}', 'checkpoint_every=4']
    trainer = Trainer(load_settings(run_file, overrides))
    trainer.run()
    log = trainer.log_path
    whole = log.read_text()
    trainer.step = 4  # as if it had ended in the middle of a line, two steps after a checkpoint
    trainer.save_checkpoint()
    log.write_text(whole[:-20])
    Trainer(load_settings(run_file, overrides)).run(resume=True)
    steps = [json.loads(line)['step'] for line in log.read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]
    trainer.checkpoint_path.unlink()
    Trainer(load_settings(run_file, overrides)).run(resume=True)  # from the start
    assert len(log.read_text().splitlines()) == 6


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_weights(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content['weights'].popitem()
    torch.save(content, path)


@pytest.mark.parametrize(
    'damage',
    [
        half,
        without_weights,
        lambda path: path.write_bytes(b''),
        lambda path: path.write_text('not a checkpoint'),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({'model': {}}, path),
        lambda path: torch.save(Path('a class of its own'), path),
    ],
)
def test_a_damaged_or_foreign_checkpoint_is_named(run_file, finished, damage):
    trainer = Trainer(load_settings(run_file, finished))
    damage(trainer.checkpoint_path)
    with pytest.raises(ValueError, match='checkpoint.pt is damaged or of another kind'):
        trainer.run(resume=True)


@pytest.mark.parametrize('device', ['meta', 'cuda:99'])
def test_a_device_that_is_not_there_is_named(run_file, device):
    with pytest.raises(ValueError, match=f'{device} does not.*Try device=cpu'):
        Trainer(load_settings(run_file, [f'device={device}']))


def test_a_loss_that_is_not_finite_ends_the_run(run_file, tmp_path):
    trainer = Trainer(load_settings(run_file, [f'out={tmp_path / "out"}']))
    with torch.no_grad():
        trainer.net.class_head.bias.fill_(float('nan'))
    with pytest.raises(ValueError, match='not finite at step 0'):
        trainer.run()


def one_step(trainer: Trainer, step: int) -> None:
    """The optimiser's step of this number, on the run's next batch."""
    trainer.step = step
    trainer.train_step(next(trainer.batches()))


def test_each_stage_has_clips_of_its_own(run_file, monkeypatch):
    made = []

    class Watched(SyntheticClips):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr('videomt_ros.training.mixture.SyntheticClips', Watched)
    phases = (
        'phases=[{steps: 2, clip_frames: 1, batch_size: 2},'
        ' {steps: 1, clip_frames: 2, batch_size: 1, max_stride: 3}]'
    )
    batches = Trainer(load_settings(run_file, [phases, 'seed=7'])).batches()
    assert [batch.frames.shape[:2] for batch in batches] == [(2, 1), (2, 1), (1, 2)]
    assert [(clips.seed, clips.max_stride) for clips in made] == [(7, 1), (8, 3)]


@pytest.mark.parametrize(
    ('step', 'ema_decay', 'decay'), [(0, 0.999, 1 / 10), (4, 0.999, 5 / 14), (4, 0.2, 0.2)]
)
def test_the_average_follows_its_formula(run_file, step, ema_decay, decay):
    overrides = [f'ema_decay={ema_decay}', 'warmup_steps=0', 'learning_rate=0.1']
    trainer = Trainer(load_settings(run_file, overrides))
    before = {name: value.clone() for name, value in trainer.average.items()}
    one_step(trainer, step)
    assert not torch.equal(before['q.weight'], trainer.net.q.weight)
    for name, value in trainer.net.state_dict().items():
        expected = decay * before[name] + (1 - decay) * value
        torch.testing.assert_close(trainer.average[name], expected, msg=name)


def test_the_learning_rate_follows_the_schedule(run_file):
    trainer = Trainer(load_settings(run_file, ['learning_rate=0.01', 'warmup_steps=2']))
    for step, factor in ((1, 1 / 2), (2, 1.0), (4, 0.5**0.9)):
        one_step(trainer, step)
        rates = [group['lr'] for group in trainer.optimizer.param_groups]
        assert rates == pytest.approx([0.01 * factor] * len(rates))


def test_the_vit_waits_and_its_depths_differ(run_file):
    overrides = [
        'learning_rate=0.01', 'warmup_steps=2', 'vit_warmup_steps=2', 'layer_decay=0.5',
        'phases=[{steps: 6, clip_frames: 2, batch_size: 1}]',
    ]  # fmt: skip
    trainer = Trainer(load_settings(run_file, overrides))
    start = {name: value.clone() for name, value in trainer.net.named_parameters()}
    one_step(trainer, 1)
    for name, value in trainer.net.named_parameters():
        assert torch.equal(value, start[name]) == name.startswith('backbone.'), name
    # 6 steps in all: at step 3 the ViT has half its rate, the rest 3/4 of its decay before it.
    one_step(trainer, 3)
    rates = {group['name']: group['lr'] for group in trainer.optimizer.param_groups}
    assert rates['vit norm, no decay'] == pytest.approx(0.01 / 2)
    assert rates['vit block 0'] == pytest.approx(0.01 / 2 / 8)  # 3 blocks
    assert rates['new'] == pytest.approx(0.01 * 0.75**0.9)


def test_weight_decay_may_take_in_all(run_file):
    trainer = Trainer(load_settings(run_file, ['decay_all=true', 'weight_decay=0.03']))
    assert {group['weight_decay'] for group in trainer.optimizer.param_groups} == {0.03}


def test_a_run_without_an_average_leaves_its_last_weights(run_file, tmp_path):
    overrides = [f'out={tmp_path / "out"}', 'ema_decay=null']
    trainer = Trainer(load_settings(run_file, overrides))
    net = load_model(trainer.run())
    for name, value in trainer.net.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value, atol=2e-3, rtol=2e-3)
    resumed = Trainer(load_settings(run_file, overrides))
    resumed.run(resume=True)
    assert resumed.step == 6 and not resumed.average


def test_the_groups_are_logged(run_file, tmp_path, caplog):
    caplog.set_level('INFO')
    Trainer(load_settings(run_file, [f'out={tmp_path / "out"}'])).run()
    assert 'vit block 2, no decay' in caplog.text


def test_frames_are_normalised_as_in_a_stream(run_file):
    trainer = Trainer(load_settings(run_file))
    image = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    prepare = Preprocessor(trainer.settings.network, torch.device('cpu'), torch.float32)
    expected, geometry = prepare(image)
    assert geometry.padded_size == (32, 40)
    frames = torch.from_numpy(image).permute(2, 0, 1)[None, None]
    torch.testing.assert_close(trainer.normalise(frames)[0], expected)


def test_gradients_are_clipped(run_file, monkeypatch):
    trainer = Trainer(load_settings(run_file, ['grad_clip_norm=0.01']))
    norms = []

    def spy() -> None:
        grads = [p.grad.norm() for p in trainer.net.parameters() if p.grad is not None]
        norms.append(float(torch.stack(grads).norm()))

    monkeypatch.setattr(trainer.optimizer, 'step', spy)
    one_step(trainer, 1)
    assert norms == pytest.approx([0.01], rel=1e-3)  # it would be larger


def test_masked_attention_fades_with_the_step(run_file, monkeypatch):
    trainer = Trainer(load_settings(run_file, ['masked_attention_until=0.5']))
    forward, passed = trainer.net.forward, []

    def spy(clip, masked_attention, state):
        passed.append(masked_attention)
        return forward(clip, masked_attention, state)

    monkeypatch.setattr(trainer.net, 'forward', spy)
    for step in (0, 1, 3):
        one_step(trainer, step)
    assert passed == [[1.0] * 2, [pytest.approx(2 / 3)] * 2, None]


def test_a_long_clip_is_one_step_in_chunks(run_file, monkeypatch):
    phases = (
        'phases=[{steps: 1, clip_frames: 1, batch_size: 1},'
        ' {steps: 1, clip_frames: 7, batch_size: 1, chunk_frames: 3}]'
    )
    trainer = Trainer(load_settings(run_file, [phases, 'network.propagation=gru']))
    forward, seen, steps = trainer.net.forward, [], []

    def spy(clip, masked_attention, state):
        seen.append((clip.shape[1], state))
        outputs, after = forward(clip, masked_attention, state)
        seen[-1] = (*seen[-1], after)
        return outputs, after

    monkeypatch.setattr(trainer.net, 'forward', spy)
    monkeypatch.setattr(trainer.optimizer, 'step', lambda: steps.append(len(seen)))
    one_step(trainer, 0)
    one_step(trainer, 1)
    assert [length for length, _, _ in seen] == [1, 3, 3, 1]
    assert steps == [1, 4]
    for (_, _, after), (_, entering, _) in zip(seen[1:], seen[2:], strict=False):
        assert torch.equal(after, entering) and not entering.requires_grad
    assert trainer.net.query_updater.weight_hh.grad.any()


def test_a_network_from_scratch_starts_ready_to_learn(run_file):
    net = VidEoMT(load_settings(run_file).network)
    start_from_scratch(net)
    scales = [p for name, p in net.named_parameters() if name.endswith('.gamma')]
    assert len(scales) == 6
    assert all(torch.equal(scale, torch.ones_like(scale)) for scale in scales)
    table = build_sincos2d_pos_embed([4, 4], dim=32)  # patches of 8 in 32 x 32
    assert torch.equal(net.backbone.vit.pos_embed[0], table)
    assert torch.equal(net.query_updater.weight, 0.3 * torch.eye(32))
    assert not net.query_updater.bias.any()


def test_the_state_of_a_network_from_scratch_stays_bounded():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = VidEoMTConfig(
        num_classes=2, embed_dim=16, depth=2, num_heads=2, patch_size=8, table_size=16,
        num_queries=3, num_query_blocks=2, test_size=16, size_divisor=8,
    )  # fmt: skip
    net = VidEoMT(config).eval()
    start_from_scratch(net)
    frame, state, norms = torch.randn(1, 3, 16, 16), net.initial_state(), []
    with torch.inference_mode():
        for _ in range(200):
            _, state = net.step(frame, state)
            norms.append(float(state.norm()))
    assert max(norms) < 2 * norms[0]
