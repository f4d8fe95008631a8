"""Training of PMT and LVMT: a frozen encoder, and batch norms that see the whole batch."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from tests.training.losses import fix_points, random_points
from tests.training.runs import at_step, checkpoint_of, differences, log_lines, run, tiny_settings
from videomt_ros.model import PMT, load_model
from videomt_ros.training.callbacks import RunningMean
from videomt_ros.training.initial import load_initial
from videomt_ros.training.module import TrainModule
from videomt_ros.training.trainer import train

PMT_NET = ('network.architecture=pmt', 'network.depth=4', 'network.num_query_blocks=2')
LVMT = (*PMT_NET, 'network.propagation=gru')
CLIPS = 'phases=[{steps: 2, clip_frames: 5, batch_size: 4, chunk_frames: 2}]'


def lvmt(out: Path, *overrides: str):
    """Return the settings of a tiny run of LVMT whose first step already learns."""
    return tiny_settings(out, *LVMT, 'warmup_steps=0', 'learning_rate=0.01', CLIPS, *overrides)


@pytest.mark.parametrize('family', ['dinov2', 'dinov3', 'eva02'])
def test_the_encoder_stays_as_it_is(tmp_path, family):
    settings = lvmt(tmp_path / 'out', f'network.family={family}')
    seen = []

    def look(module: TrainModule) -> None:
        (optimiser,) = module.trainer.optimizers
        held = {id(each) for group in optimiser.param_groups for each in group['params']}
        for name, weight in module.net.named_parameters():
            trained = not name.startswith('backbone.')
            assert weight.requires_grad == (weight.grad is not None) == trained, name
            assert (id(weight) in held) == (weight in optimiser.state) == trained, name
        modes = {name: each.training for name, each in module.net.named_modules()}
        assert not modes['backbone.vit.blocks.0'] and not modes['backbone.vit.patch_embed']
        assert modes['bn.0'] and modes['blocks.0']
        seen.append(module.global_step)

    before = {k: v.clone() for k, v in load_initial(settings).state_dict().items()}
    after = run(settings, look).net.state_dict()
    assert seen == [1, 2] and before.keys() == after.keys()
    for name, value in after.items():
        assert torch.equal(value, before[name]) == name.startswith('backbone.'), name


def test_the_saved_model_is_whole(tmp_path, caplog):
    settings = lvmt(tmp_path / 'out')
    with caplog.at_level(logging.INFO):
        net = load_model(train(settings))
    assert isinstance(net, PMT)
    start = load_initial(settings)
    frozen = start.backbone.state_dict()
    for name, value in net.backbone.state_dict().items():
        assert torch.equal(value, frozen[name].half().float()), name
    assert not torch.equal(net.bn[0].running_var, torch.ones(32))
    count = sum(weight.numel() for weight in start.backbone.parameters())
    assert f'Frozen: {count:,} parameters' in caplog.text
    assert 'random weights and stays as it is' in caplog.text and 'init_from=timm,' in caplog.text
    table = caplog.text.partition('Parameter groups:')[2].partition('Frozen')[0]
    assert 'new' in table and 'vit' not in table


def test_each_frame_is_encoded_once_a_step_and_before_any_is_decoded(tmp_path):
    calls = []

    def spy(module: TrainModule) -> None:
        encode, decode_clip = module.net.encode, module.net.decode_clip

        def encoding(frames):
            calls.append(('encode', len(frames)))
            return encode(frames)

        def decoding(encoded, state, num_frames, masked_attention=None):
            assert not encoded.tokens[0].requires_grad
            calls.append(('decode', num_frames * len(state)))
            return decode_clip(encoded, state, num_frames, masked_attention)

        module.net.encode, module.net.decode_clip = encoding, decoding

    run(lvmt(tmp_path / 'out', 'accumulate=2'), prepare=spy)
    counts = [4, 4, 2] * 2  # two parts of two clips, in chunks of 2, 2 and 1 frames
    step = [('encode', count) for count in counts] + [('decode', count) for count in counts]
    assert calls == 2 * step


def learnt(settings) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], list[dict]]:
    """Run a step; returns the gradients, the buffers and the log."""
    module = run(settings)
    grads = {k: p.grad for k, p in module.net.named_parameters() if p.requires_grad}
    return grads, dict(module.net.named_buffers()), log_lines(settings)


@pytest.mark.parametrize('family', ['dinov2', 'dinov3'])
def test_chunks_and_parts_learn_what_the_whole_batch_does(tmp_path, monkeypatch, family):
    """Without propagation no gradient is cut; batch norms see the whole batch in any case."""
    fix_points(monkeypatch, random_points(192, seed=0))
    common = (*PMT_NET, 'network.propagation=none', f'network.family={family}',
              'grad_clip_norm=1000', 'losses.expected_from=first_sight',
              'masked_attention_until=0')  # fmt: skip
    phase = 'phases=[{{steps: 1, clip_frames: 5, batch_size: 4{}}}]'
    expected, statistics, log = learnt(tiny_settings(tmp_path / 'a', *common, phase.format('')))
    for name, changes in (
        ('b', [phase.format(', chunk_frames: 2')]),
        ('c', [phase.format(', chunk_frames: 3'), 'accumulate=4']),
    ):
        grads, buffers, lines = learnt(tiny_settings(tmp_path / name, *common, *changes))
        assert lines[0] == pytest.approx(log[0], rel=1e-4)
        assert grads.keys() == expected.keys()
        for key, gradient in expected.items():
            scale = gradient.abs().max().item()
            torch.testing.assert_close(grads[key], gradient, atol=1e-4 * scale, rtol=1e-3, msg=key)
        for key, value in statistics.items():
            torch.testing.assert_close(buffers[key], value, atol=1e-5, rtol=1e-5, msg=key)


def test_encoding_ahead_teaches_what_one_pass_does(tmp_path, monkeypatch):
    changes = (
        'phases=[{steps: 1, clip_frames: 3, batch_size: 2}]', 'grad_clip_norm=1000', *LVMT,
    )  # fmt: skip
    ahead, statistics, log = learnt(tiny_settings(tmp_path / 'ahead', *changes))
    with monkeypatch.context() as patch:
        patch.setattr(PMT, 'encoder_is_frozen', False)  # then the trainer calls the whole network
        plain, buffers, lines = learnt(tiny_settings(tmp_path / 'plain', *changes))
    assert lines[0] == pytest.approx(log[0], rel=1e-5)
    for key, gradient in plain.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(ahead[key], gradient, atol=1e-4 * scale, rtol=1e-3, msg=key)
    for key, value in buffers.items():
        torch.testing.assert_close(statistics[key], value, atol=1e-6, rtol=1e-5, msg=key)


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_a_resumed_run_is_exact_and_its_checkpoints_hold_the_encoder_once(tmp_path, precision):
    phases = 'phases=[{steps: 6, clip_frames: 3, batch_size: 2, chunk_frames: 2}]'
    common = (phases, f'precision={precision}', 'network.family=dinov3')
    unbroken = lvmt(tmp_path / 'unbroken', *common)
    train(unbroken)
    broken = lvmt(tmp_path / 'broken', *common)
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 5, lambda *_: (_ for _ in ()).throw(RuntimeError('as a crash would')))
        with pytest.raises(RuntimeError, match='as a crash would'):
            train(broken)
    torch.manual_seed(999)
    train(broken, resume=True)
    ours, theirs = checkpoint_of(broken, 6), checkpoint_of(unbroken, 6)
    assert differences(ours, theirs) == []
    assert log_lines(broken) == log_lines(unbroken)
    for name, value in ours['current_model_state'].items():
        mean = ours['state_dict'][name]
        shared = value.untyped_storage().data_ptr() == mean.untyped_storage().data_ptr()
        assert shared == (name.startswith('net.backbone.') and 'rope' not in name), name


def test_the_mean_holds_the_encoder_only_once(tmp_path):
    module = run(lvmt(tmp_path / 'out'))
    (mean,) = (each for each in module.trainer.callbacks if isinstance(each, RunningMean))
    averaged = dict(mean.module.named_parameters())
    for name, weight in module.named_parameters():
        assert (averaged[name].data_ptr() == weight.data_ptr()) == (not weight.requires_grad), name
    for name, buffer in mean.module.named_buffers():  # statistics are not averaged
        assert torch.equal(buffer, dict(module.named_buffers())[name]), name
