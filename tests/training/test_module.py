"""A step of training: schedule, clipping, chunks, precision, and a loss that is not finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.plugins.precision import MixedPrecision, Precision

from tests.training.runs import at_step, run, tiny_settings
from videomt_ros.inference.preprocess import Preprocessor
from videomt_ros.model import VidEoMT
from videomt_ros.training import machine
from videomt_ros.training.clips import Batch
from videomt_ros.training.criterion import build_targets
from videomt_ros.training.data import Mixture, StepClips
from videomt_ros.training.early_end import NonFiniteLoss
from videomt_ros.training.machine import cluster_plugins, find_machine, precision_plugin
from videomt_ros.training.module import TrainModule
from videomt_ros.training.trainer import build_trainer


def rates_of(module: TrainModule) -> dict[str, float]:
    return {group['name']: group['lr'] for group in module.optimizers().param_groups}


def test_the_learning_rate_follows_the_schedule(tmp_path):
    rates = []
    run(
        tiny_settings(tmp_path / 'out', 'learning_rate=0.01', 'warmup_steps=2'),
        lambda module: rates.append(rates_of(module)),
    )
    for step, factor in enumerate((0, 1 / 2, 1, 0.75**0.9, 0.5**0.9, 0.25**0.9)):
        assert list(rates[step].values()) == pytest.approx([0.01 * factor] * len(rates[step]))


def test_the_vit_waits_and_its_depths_differ(tmp_path):
    settings = tiny_settings(
        tmp_path / 'out', 'learning_rate=0.01', 'warmup_steps=2', 'vit_warmup_steps=2',
        'layer_decay=0.5', 'phases=[{steps: 6, clip_frames: 2, batch_size: 1}]',
    )  # fmt: skip
    weights, rates = [], []

    def look(module: TrainModule) -> None:
        weights.append({k: v.detach().clone() for k, v in module.net.named_parameters()})
        rates.append(rates_of(module))

    run(settings, look)
    for name, value in weights[1].items():  # step 0 has a rate of 0 for all
        assert torch.equal(value, weights[0][name]) == name.startswith('backbone.'), name
    # 6 steps in all: at step 3 the ViT has half its rate, the rest 3/4 of its decay before it.
    assert rates[3]['vit norm'] == pytest.approx(0.01 / 2)
    assert rates[3]['vit block 0'] == pytest.approx(0.01 / 2 / 4)  # two below the last
    assert rates[3]['new'] == pytest.approx(0.01 * 0.75**0.9)


@pytest.mark.parametrize(('decay_all', 'decays'), [('true', {0.03}), ('false', {0.03, 0.0})])
def test_weight_decay_may_take_in_all(tmp_path, decay_all, decays):
    settings = tiny_settings(tmp_path / 'out', f'decay_all={decay_all}', 'weight_decay=0.03')
    groups = TrainModule(settings, VidEoMT(settings.network)).parameter_groups()
    assert {group['weight_decay'] for group in groups} == decays


@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
def test_gradients_are_clipped_at_their_true_scale(tmp_path, precision):
    """Under fp16 they are scaled by thousands until the optimiser's step."""
    norms = []

    def spy(module: TrainModule) -> None:
        clip = module.on_before_optimizer_step

        def after(optimizer) -> None:
            clip(optimizer)
            grads = [p.grad for p in module.parameters() if p.grad is not None]
            norms.append(float(torch.stack([grad.norm() for grad in grads]).norm()))

        module.on_before_optimizer_step = after

    settings = tiny_settings(tmp_path / 'out', 'grad_clip_norm=0.01', f'precision={precision}')
    plugin = precision_plugin(settings.precision, 'cpu')
    if precision == 'fp16':  # the usual first scale is too large: it steps down until it fits
        plugin.scaler = torch.amp.GradScaler('cpu', init_scale=64.0)
    run(settings, prepare=spy, plugins=[plugin])
    assert norms == pytest.approx([0.01] * 6, rel=1e-3)  # it would be larger


def test_masked_attention_fades_with_the_step(tmp_path):
    passed = []

    def spy(module: TrainModule) -> None:
        forward = module.net.forward

        def watched(clip, masked_attention, state):
            passed.append(masked_attention)
            return forward(clip, masked_attention, state)

        module.net.forward = watched

    run(tiny_settings(tmp_path / 'out', 'masked_attention_until=0.5'), prepare=spy)
    assert passed == [
        [1.0] * 2, [pytest.approx(2 / 3)] * 2, [pytest.approx(1 / 3)] * 2, None, None, None
    ]  # fmt: skip
    passed.clear()
    settings = tiny_settings(tmp_path / 'image', 'stage=image', f'masked_attention_until={5 / 6}')
    run(settings, prepare=spy)  # the earlier block first
    assert passed == [[1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0], None]


def test_a_long_clip_is_one_step_in_chunks(tmp_path):
    seen, grads = [], []

    def spy(module: TrainModule) -> None:
        forward = module.net.forward

        def watched(clip, masked_attention, state):
            outputs, after = forward(clip, masked_attention, state)
            seen.append((module.global_step, clip.shape[1], state, after))
            return outputs, after

        module.net.forward = watched

    settings = tiny_settings(
        tmp_path / 'out', 'network.propagation=gru',
        'phases=[{steps: 1, clip_frames: 1, batch_size: 1},'
        ' {steps: 1, clip_frames: 7, batch_size: 1, chunk_frames: 3}]',
    )  # fmt: skip
    run(
        settings,
        lambda module: grads.append(module.net.query_updater.weight_hh.grad),
        prepare=spy,
    )
    assert [entry[:2] for entry in seen] == [(0, 1), (1, 3), (1, 3), (1, 1)]
    for (*_, after), (_, _, entering, _) in zip(seen[1:], seen[2:], strict=False):
        assert torch.equal(after, entering) and not entering.requires_grad
    assert grads[0] is None  # a chunk of one frame gives no gradient to the query updater
    assert grads[1].any()


def test_frames_are_normalised_as_in_a_stream(tmp_path):
    settings = tiny_settings(tmp_path / 'out')
    module = TrainModule(settings, VidEoMT(settings.network))
    image = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    prepare = Preprocessor(settings.network, torch.device('cpu'), torch.float32)
    expected, geometry = prepare(image)
    assert geometry.padded_size == (32, 40)
    frames = torch.from_numpy(image).permute(2, 0, 1)[None, None]
    torch.testing.assert_close(module.normalise(frames)[0], expected)


def test_a_loss_that_is_not_finite_names_the_clips_of_its_part(tmp_path):
    """Four clips in two parts; the second part's outputs are no numbers."""
    calls = []

    def spy(module: TrainModule) -> None:
        forward = module.net.forward

        def broken(clip, masked_attention, state):
            outputs, after = forward(clip, masked_attention, state)
            calls.append(len(clip))
            if len(calls) == 4:
                outputs = outputs._replace(class_logits=outputs.class_logits * float('nan'))
            return outputs, after

        module.net.forward = broken

    settings = tiny_settings(
        tmp_path / 'out', 'phases=[{steps: 3, clip_frames: 1, batch_size: 4}]', 'accumulate=2'
    )
    weights = []
    with pytest.raises(NonFiniteLoss, match='step 1') as caught:
        run(settings, lambda module: weights.append(module.net.q.weight.clone()), prepare=spy)
    assert calls == [2, 2, 2, 2]
    assert len(weights) == 1  # step 1 was not made
    error = caught.value
    assert error.step == 1 and np.isnan(error.losses['class']) and error.losses['mask'] > 0
    assert len(error.origins) == 2 and all('scene' in origin for origin in error.origins)
    assert error.origins == StepClips(settings, Mixture(settings))[1][1].origins


@pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp16'])
def test_a_gradient_that_is_not_finite_is_not_learnt(tmp_path, precision):
    """Under a finite loss; the scaler of fp16 leaves such a step out, and the run goes on."""
    weights = []

    def spoil(module: TrainModule) -> None:
        # Before the scaler of fp16 looks at it.
        module.net.class_head.weight.register_hook(
            lambda grad: grad.fill_(float('inf')) if module.global_step == 1 else None
        )

    settings = tiny_settings(
        tmp_path / 'out', 'phases=[{steps: 3, clip_frames: 1, batch_size: 4}]', 'accumulate=2',
        f'precision={precision}',
    )  # fmt: skip

    def look(module: TrainModule) -> None:
        weights.append(module.net.state_dict())

    if precision == 'fp16':
        run(settings, look, prepare=spoil)
        assert len(weights) == 3
    else:
        with pytest.raises(NonFiniteLoss, match='The gradient is not finite at step 1') as caught:
            run(settings, look, prepare=spoil)
        assert len(weights) == 1  # step 1 was not made
        parts = StepClips(settings, Mixture(settings))[1]
        assert caught.value.origins == parts[0].origins + parts[1].origins
        assert all(np.isfinite(loss) for loss in caught.value.losses.values())
    assert all(value.isfinite().all() for value in weights[-1].values())


def test_losses_are_divided_by_what_chunks_expect(tmp_path, monkeypatch):
    """An object that is first seen in frame 3 of 5, in chunks of 0 1, 2 3 and 4."""
    masks = torch.zeros(1, 5, 32, 32, dtype=torch.bool)
    masks[0, 3:, :8] = True
    targets = build_targets(torch.tensor([0]), torch.tensor([1]), masks, 1)
    batch = (Batch(torch.zeros(1, 5, 3, 32, 32, dtype=torch.uint8), targets, ('',)),)
    totals = []
    at_step(monkeypatch, 0, lambda module, _: totals.append(module._totals(batch).tolist()))
    for chunk, out in ((', chunk_frames: 2', 'chunks'), ('', 'whole')):
        phase = f'phases=[{{steps: 1, clip_frames: 5, batch_size: 1{chunk}}}]'
        run(tiny_settings(tmp_path / out, phase))
    assert totals == [[3, 5 * 8], [5, 5 * 8]]


def test_a_scale_that_no_gradient_fits_ends_the_run(tmp_path):
    """The scaler of fp16 starts at 65536 and halves its scale at each step that it skips."""

    def spoil(module: TrainModule) -> None:
        module.net.class_head.weight.register_hook(lambda grad: grad.fill_(float('nan')))

    settings = tiny_settings(
        tmp_path / 'out', 'phases=[{steps: 30, clip_frames: 1, batch_size: 1}]', 'precision=fp16'
    )
    with pytest.raises(NonFiniteLoss, match='The gradient is not finite at step 17'):
        run(settings, prepare=spoil)  # 65536 is 2^16: at step 17 the scale is a half


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_the_network_runs_in_half_precision_and_its_losses_do_not(tmp_path, precision):
    half = {'bf16': torch.bfloat16, 'fp16': torch.float16}[precision]
    types, records = {'outputs': set(), 'losses': set(), 'weights': set()}, []

    def spy(module: TrainModule) -> None:
        chunk = module.criterion.chunk

        def watched(outputs, *arguments):
            types['outputs'].add(outputs.class_logits.dtype)
            losses, query_of = chunk(outputs, *arguments)
            types['losses'] |= {loss.dtype for loss in losses.values()}
            assert not torch.is_autocast_enabled('cpu')
            return losses, query_of

        module.criterion.chunk = watched

    def look(module: TrainModule) -> None:
        types['weights'] |= {parameter.dtype for parameter in module.parameters()}
        records.append(float(module.trainer.callback_metrics['loss']))

    run(tiny_settings(tmp_path / 'half', f'precision={precision}'), look, prepare=spy)
    assert types['outputs'] == {half}
    assert types['weights'] == {torch.float32}
    assert types['losses'] == {torch.float32}
    whole = []
    run(
        tiny_settings(tmp_path / 'whole', 'precision=fp32'),
        lambda module: whole.append(float(module.trainer.callback_metrics['loss'])),
    )
    assert records[0] == pytest.approx(whole[0], rel=1e-2) and records[0] != whole[0]


@pytest.mark.parametrize('is_fast', [False, True])
def test_precision_is_chosen_by_the_device(monkeypatch, is_fast):
    monkeypatch.setattr(machine, 'has_fast_bf16', lambda: is_fast)
    assert precision_plugin('auto', 'cpu').precision == ('bf16-mixed' if is_fast else '32-true')
    assert type(precision_plugin('fp32', 'cpu')) is Precision
    assert precision_plugin('auto', 'cuda').precision == 'bf16-mixed'
    assert type(precision_plugin('fp32', 'cuda')) is Precision
    half = precision_plugin('fp16', 'cuda')
    assert isinstance(half, MixedPrecision) and half.precision == '16-mixed'
    assert isinstance(half.scaler, torch.amp.GradScaler)


def test_slurm_queues_no_job_anew_that_would_not_resume(tmp_path, monkeypatch):
    settings = tiny_settings(tmp_path / 'out')
    for name in ('TORCHELASTIC_RUN_ID', 'SLURM_JOB_NAME'):
        monkeypatch.delenv(name, raising=False)
    assert cluster_plugins() == []
    slurm = {'NTASKS': '1', 'PROCID': '0', 'LOCALID': '0', 'NODEID': '0', 'JOB_ID': '7'}
    for name, value in slurm.items():
        monkeypatch.setenv(f'SLURM_{name}', value)
    trainer = build_trainer(settings, find_machine(settings))
    environment = trainer._accelerator_connector.cluster_environment
    assert isinstance(environment, SLURMEnvironment) and not environment.auto_requeue
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'torchrun inside SLURM')
    assert cluster_plugins() == []
