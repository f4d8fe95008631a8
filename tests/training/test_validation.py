"""Scores during a run: those of the evaluator, and no trace in what is learnt."""

from __future__ import annotations

import json
import logging
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from tests.training.labelled_data import write_labelled
from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.synthetic.scene import CLASS_NAMES
from videomt_ros.evaluation.evaluator import evaluate
from videomt_ros.model import NetworkConfig, VidEoMT, load_model
from videomt_ros.model.device import choose_precision
from videomt_ros.training import validation
from videomt_ros.training.run_settings import Phase, TrainSettings, Validation
from videomt_ros.training.validation import ScoreCallback

CONFIG = NetworkConfig(
    num_classes=6, embed_dim=16, depth=2, num_heads=2, patch_size=16, table_size=64,
    num_queries=4, num_query_blocks=1, test_size=48, size_divisor=16, class_names=CLASS_NAMES,
    name='tiny',
)  # fmt: skip


class Learning(pl.LightningModule):
    """Learns from random numbers alone, so that any change of a random state shows."""

    def __init__(self, net: VidEoMT | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = net or VidEoMT(CONFIG)
        self.automatic_optimization = False

    def deliverable(self) -> dict[str, torch.Tensor]:
        return self.net.state_dict()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.net.parameters(), lr=1e-3)

    def training_step(self, batch, batch_idx) -> None:
        for value in self.net.parameters():
            value.grad = torch.randn_like(value) + random.random() + np.random.rand()  # noqa: NPY002 (the state that all share)
        self.optimizers().step()

    def train_dataloader(self):
        batches = [(SimpleNamespace(step=step),) for step in range(100)]
        return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('data')
    for name in ('ytvis2019', 'vipseg', 'vspw', 'coco'):
        write_labelled(name, folder / name, num_frames=6)  # as many as VPQ asks for
    return folder


def settings_of(root: Path, out: Path, steps: int = 3, **changes) -> TrainSettings:
    name = changes.pop('dataset', 'ytvis2019')
    split = {'coco': 'val2017', 'vipseg': 'val', 'vspw': 'val'}.get(name, 'valid')
    wanted = {'every': 2, 'pictures': 0, 'split': split} | changes
    return TrainSettings(
        CONFIG, (Phase(steps, 1, 1),), out=str(out),
        validation=Validation(name, str(root / name), **wanted),
    )  # fmt: skip


def run(settings: TrainSettings, callbacks: list[pl.Callback], module=None) -> pl.Trainer:
    Path(settings.out).mkdir(exist_ok=True)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    trainer = pl.Trainer(
        accelerator='cpu', max_steps=settings.total_steps, callbacks=callbacks,
        logger=TensorBoardLogger(settings.out, name='board', version=''),
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module or Learning())
    return trainer


def test_a_run_with_validation_learns_what_one_without_does(root, tmp_path):
    def draw(*arguments, **more):
        torch.rand(5), np.random.rand(5), random.random()  # noqa: NPY002
        return evaluate(*arguments, **more)

    settings = settings_of(root, tmp_path / 'with', pictures=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, 'evaluate', draw)
        scored = run(settings, [ScoreCallback(settings)]).lightning_module
    plain = run(settings_of(root, tmp_path / 'without'), []).lightning_module
    assert scored.net.training
    for name, value in plain.net.state_dict().items():
        assert torch.equal(value, scored.net.state_dict()[name]), name


def test_scores_come_every_few_steps_and_at_the_end(root, tmp_path):
    settings = settings_of(root, tmp_path, steps=5, pictures=1)
    run(settings, [ScoreCallback(settings)])
    lines = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines] == [2, 4, 5]
    assert {'live_AP', 'published_AP', 'live_HOTA'} <= lines[0]['val'].keys()
    events = EventAccumulator(str(tmp_path / 'board'))
    events.Reload()
    assert [event.step for event in events.Scalars('val/live_AP')] == [2, 4, 5]
    assert [event.step for event in events.Images('val/pictures')] == [2, 4, 5]
    assert sorted(path.name for path in (tmp_path / 'pictures').iterdir()) == [
        'step-2.jpg', 'step-4.jpg', 'step-5.jpg'
    ]  # fmt: skip


class Scripted(ScoreCallback):
    """Has the live figures of a list instead of its own, one for each validation."""

    values: list[float | None] = []

    def _summary(self, metrics):
        outcome = super()._summary(metrics)
        outcome.figures[self.main] = self.values.pop(0)
        return outcome


def test_the_best_weights_are_kept_and_little_else(root, tmp_path):
    settings = settings_of(root, tmp_path, steps=5, every=1)
    scores = Scripted(settings)
    scores.values = [0.2, 0.6, None, 0.5, 0.6]
    weights = {}

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            weights[trainer.global_step] = pl_module.net.q.weight.detach().clone()

    run(settings, [scores, Watch()])
    assert (scores.best_value, scores.best_step) == (0.6, 2)
    best = load_model(tmp_path / 'best.safetensors')
    assert torch.equal(best.q.weight, weights[2].half().float())
    assert {
        str(path.relative_to(tmp_path / 'validation'))
        for path in (tmp_path / 'validation').rglob('*')
    } == {
        'step-2', 'step-2/metrics.json', 'step-2/report.html',
        'step-5', 'step-5/metrics.json', 'step-5/report.html',
    }  # fmt: skip

    resumed = Scripted(settings)
    resumed.load_state_dict(scores.state_dict())
    resumed.values = [0.55] * 5
    before = (tmp_path / 'best.safetensors').read_bytes()
    run(settings, [resumed])
    assert resumed.best_step == 2
    assert (tmp_path / 'best.safetensors').read_bytes() == before
    assert not any((tmp_path / 'validation').glob('step-1*'))


@pytest.mark.parametrize(
    ('dataset', 'figures'),
    [
        ('ytvis2019', {'AP', 'HOTA'}),
        ('vipseg', {'VPQ', 'STQ'}),
        ('vspw', {'mIoU', 'mVC8'}),
        ('coco', {'AP', 'AR10'}),
    ],
)
def test_a_score_is_that_of_the_weights_file(root, tmp_path, dataset, figures):
    net = load_model('demo')  # it finds something, and so its figures are not all 0
    settings = settings_of(root, tmp_path / 'run', steps=1, dataset=dataset)
    settings = replace(settings, network=net.config)
    scores = ScoreCallback(settings)
    run(settings, [scores], Learning(net))
    (line,) = (tmp_path / 'run/log.jsonl').read_text().splitlines()
    metrics = evaluate(
        open_dataset(dataset, root / dataset),
        load_model(tmp_path / 'run/best.safetensors').to(
            choose_precision('auto', torch.device('cpu'))
        ),
        tmp_path / 'again',
        settings={'confirm_frames': 1} if dataset == 'coco' else {},
    )
    assert metrics is not None
    val = json.loads(line)['val']
    kept = json.loads((tmp_path / 'run/validation/step-1/metrics.json').read_text())
    assert kept['run']['weights'] == metrics['run']['weights']  # a digest of every bit
    for mode in ('live', 'published'):
        for name in figures:
            assert val[f'{mode}_{name}'] == metrics[mode]['figures'][name], name
    assert (
        scores.best_value
        and scores.best_value == metrics['live']['figures'][scores.main.removeprefix('live_')]
    )


def test_averaged_weights_are_scored_and_the_others_kept(root, tmp_path):
    class Averaging(Learning):
        def deliverable(self):
            return {name: torch.zeros_like(v) for name, v in self.net.state_dict().items()}

    settings = settings_of(root, tmp_path, steps=1)
    module = Averaging()
    run(settings, [ScoreCallback(settings)], module)
    assert not load_model(tmp_path / 'best.safetensors').q.weight.any()
    assert module.net.q.weight.any()


def test_a_run_whose_figure_is_undefined_says_so(tmp_path, caplog):
    write_labelled('vipseg', tmp_path / 'vipseg', num_frames=4)
    settings = settings_of(tmp_path, tmp_path / 'out', dataset='vipseg')
    run(settings, [ScoreCallback(settings)])
    assert 'VPQ is not defined for these videos' in caplog.text
    assert not (tmp_path / 'out/best.safetensors').exists()


def resumed_with(before: ScoreCallback, settings: TrainSettings) -> ScoreCallback:
    resumed = ScoreCallback(settings)
    resumed.load_state_dict(before.state_dict())
    return resumed


@pytest.mark.parametrize(
    ('changes', 'told'),
    [
        ({'dataset': 'vspw'}, 'dataset ytvis2019, root ytvis2019, split valid, limit None, now '
         'dataset vspw, root vspw, split val, limit None'),
        ({'limit': 1}, '.*limit None, now .* limit 1'),
    ],
)  # fmt: skip
def test_a_best_of_another_validation_does_not_count(root, tmp_path, caplog, changes, told):
    settings = settings_of(root, tmp_path, steps=1)
    before = Scripted(settings)
    before.values = [0.99]
    run(settings, [before])
    first = (tmp_path / 'best.safetensors').read_bytes()
    changed = settings_of(root, tmp_path, steps=1, **changes)
    resumed = Scripted(changed)
    resumed.load_state_dict(before.state_dict())
    assert re.search(f'another validation .{told}.: the next score', caplog.text)
    resumed.values = [0.2]
    module = Learning()
    with torch.no_grad():
        module.net.q.weight.zero_()
    run(changed, [resumed], module)
    assert (resumed.best_value, resumed.best_step) == (0.2, 1)
    assert (tmp_path / 'best.safetensors').read_bytes() != first


def test_a_best_of_the_same_videos_counts_wherever_they_lie(root, tmp_path, caplog):
    before = ScoreCallback(settings_of(root, tmp_path, limit=2))
    before.best_value, before.best_step = 0.5, 2
    shutil.copytree(root / 'ytvis2019', tmp_path / 'ytvis2019')
    moved = settings_of(tmp_path, tmp_path, every=5, pictures=1, limit=2)
    assert resumed_with(before, moved).best_value == 0.5
    before.best_value = None  # there is no best to speak of
    resumed_with(before, settings_of(root, tmp_path, dataset='vspw'))
    assert not caplog.text


def damaged(root: Path, tmp_path: Path, which: str) -> Path:
    """Copy the data, and damage the images that match a pattern."""
    write_labelled('ytvis2019', tmp_path / 'ytvis2019')
    for path in (tmp_path / 'ytvis2019/valid/JPEGImages').glob(which):
        path.write_bytes(path.read_bytes()[:200])
    return tmp_path


def test_a_damaged_image_is_named_and_the_run_goes_on(root, tmp_path, caplog):
    settings = settings_of(damaged(root, tmp_path, '*0/00002.jpg'), tmp_path / 'out')
    trainer = run(settings, [ScoreCallback(settings)])
    assert trainer.global_step == 3
    assert 'counted as missed: scene_000000 (published, live): ' in caplog.text
    assert '00002.jpg' in caplog.text
    assert (tmp_path / 'out/best.safetensors').exists()


def test_without_a_single_result_there_is_no_best(root, tmp_path, caplog):
    settings = settings_of(damaged(root, tmp_path, '*/*.jpg'), tmp_path / 'out')
    scores = ScoreCallback(settings)
    assert run(settings, [scores]).global_step == 3
    assert 'Validation of step 2 failed: no video could be predicted' in caplog.text
    assert scores.best_value is None and not (tmp_path / 'out/best.safetensors').exists()
    assert not any((tmp_path / 'out/validation').iterdir())


def test_odd_ids_cost_no_score(root, tmp_path, caplog):
    write_labelled('ytvis2019', tmp_path / 'ytvis2019')
    path = tmp_path / 'ytvis2019/valid.json'
    content = json.loads(path.read_text())
    for number, annotation in enumerate(content['annotations']):
        annotation['id'] = (0, 2**31, 2**70, -1)[number] if number < 4 else 2**32 + number
    path.write_text(json.dumps(content))
    settings = settings_of(tmp_path, tmp_path / 'out', pictures=1)
    scores = ScoreCallback(settings)
    run(settings, [scores])
    assert scores.best_value is not None
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING
                and each.name.startswith('videomt')]  # fmt: skip
    [report] = (tmp_path / 'out/validation/step-3').glob('report.html')
    assert 'data:image' in report.read_text()
    assert list((tmp_path / 'out/pictures').iterdir())


def test_a_true_mask_that_cannot_be_used_costs_its_video_alone(root, tmp_path, caplog):
    write_labelled('vspw', tmp_path / 'vspw', num_frames=6)
    folders = sorted(path / 'mask' for path in (tmp_path / 'vspw/data').iterdir())
    (folders[0] / sorted(folders[0].iterdir())[2].name).write_bytes(b'')
    settings = settings_of(tmp_path, tmp_path / 'out', dataset='vspw')
    scores = ScoreCallback(settings)
    run(settings, [scores])
    assert scores.best_value is not None
    assert f'In validation, left out: {folders[0].parent.name} (truth)' in caplog.text
    for folder in folders[1:]:
        next(folder.iterdir()).write_bytes(b'')
    with pytest.raises(ValueError, match='Expected true masks that can be used in validation'):
        ScoreCallback(settings)


def test_what_cannot_be_written_is_named_and_the_run_goes_on(root, tmp_path, caplog, monkeypatch):
    def fail(*_, **more) -> None:
        raise RuntimeError('a service that is away')

    settings = settings_of(root, tmp_path, pictures=1)
    scores = ScoreCallback(settings)
    monkeypatch.setattr(TensorBoardLogger, 'log_metrics', fail)
    monkeypatch.setattr(validation, 'save_model', fail)
    monkeypatch.setattr(validation, 'log_page', fail)
    assert run(settings, [scores]).global_step == 3
    for what in ('log of scores', 'best weights', 'pictures'):
        assert f'No {what} of the validation of step 2: RuntimeError: a service' in caplog.text
    assert scores.best_value is None
    assert [path.name for path in (tmp_path / 'validation').iterdir()] == ['step-3']


def test_what_a_killed_validation_left_is_no_hindrance(root, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    settings = settings_of(root, tmp_path, steps=1)
    for name in ('step-1.partial', 'step-1', 'step-0.partial'):
        (tmp_path / 'validation' / name / 'parts').mkdir(parents=True)
    run(settings, [ScoreCallback(settings)])
    assert 'failed' not in caplog.text
    assert re.search(r'live AP [\d.]+, published AP [\d.]+, best live AP of step 1', caplog.text)
    assert [path.name for path in (tmp_path / 'validation').iterdir()] == ['step-1']


@pytest.mark.parametrize(
    ('changes', 'message'), [({'split': 'test'}, 'test'), ({'dataset': 'ovis'}, 'ovis')]
)
def test_a_data_set_that_cannot_be_opened_is_refused_first(root, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        ScoreCallback(settings_of(root, tmp_path, **changes))


def test_a_network_of_other_classes_is_refused_first(root, tmp_path):
    settings = settings_of(root, tmp_path)
    network = replace(CONFIG, class_names=tuple('abcdef'))
    with pytest.raises(ValueError, match='validation .ytvis2019 in .*: .*classes in common'):
        ScoreCallback(replace(settings, network=network))


def test_a_split_without_truth_is_refused_first(root, tmp_path):
    write_labelled('ytvis2019', tmp_path / 'ytvis2019')
    path = tmp_path / 'ytvis2019/valid.json'
    content = json.loads(path.read_text())
    del content['annotations']
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match='Expected annotations in validation .ytvis2019'):
        ScoreCallback(settings_of(tmp_path, tmp_path / 'out'))
