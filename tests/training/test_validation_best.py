"""The best weights by validation score: their file, their checkpoint, and a kill in between."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.training.labelled_data import write_labelled
from tests.training.runs import checkpoint_of, differences, log_lines, tiny_settings
from videomt_ros.datasets.synthetic.scene import CLASS_NAMES
from videomt_ros.model import load_model
from videomt_ros.model.weight_files import read_metadata
from videomt_ros.training.checkpoints import AtomicIO, find_checkpoints
from videomt_ros.training.run_settings import TrainSettings
from videomt_ros.training.trainer import train
from videomt_ros.training.validation import ScoreCallback

SCORES = {1: 0.1, 2: 0.2, 3: 0.6, 4: None, 5: 0.4, 6: 0.6}
"""Scores by step of a run; the second 0.6 is not better than the first."""


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('data') / 'ytvis2019'
    write_labelled('ytvis2019', folder, num_videos=1, num_frames=2)
    return folder


def scored(root: Path) -> list[str]:
    """Overrides of a run that is scored at every step."""
    return [
        f'network.class_names=[{", ".join(CLASS_NAMES)}]', 'keep_checkpoints=1',
        f'validation={{dataset: ytvis2019, root: {root}, every: 1, pictures: 0}}',
    ]  # fmt: skip


def scored_settings(root: Path, out: Path, *overrides: str) -> TrainSettings:
    """Return the settings of a run of six steps, each of which is scored."""
    return tiny_settings(out, *scored(root), *overrides)


def score(patch: pytest.MonkeyPatch, values: dict[int, float | None]) -> None:
    """Replace scores by these, by step, since six steps learn too little for any."""
    original = ScoreCallback._summary

    def summary(self, metrics):
        outcome = original(self, metrics)
        outcome.figures['live_AP'] = values[metrics['run']['step']]
        return outcome

    patch.setattr(ScoreCallback, '_summary', summary)


def train_and_stop(root: Path, out: Path) -> None:
    """End right after the best weights are written, before the checkpoint of their step is."""
    save = AtomicIO.save_checkpoint

    def save_or_die(self, checkpoint, path, storage_options=None) -> None:
        if Path(path).name == 'step=3.ckpt':
            raise RuntimeError('as if it was killed')
        save(self, checkpoint, path, storage_options)

    with pytest.MonkeyPatch.context() as patch:
        score(patch, SCORES)
        patch.setattr(AtomicIO, 'save_checkpoint', save_or_die)
        with pytest.raises(RuntimeError, match='as if it was killed'):
            train(scored_settings(root, out))


@pytest.fixture(scope='module')
def left(root, tmp_path_factory) -> Path:
    """Folder that a killed run has left."""
    out = tmp_path_factory.mktemp('left') / 'out'
    train_and_stop(root, out)
    assert list(find_checkpoints(out / 'checkpoints')) == [2]
    assert best_of(out)['best_step'] == 3
    return out


@pytest.fixture
def killed(root, left, tmp_path) -> TrainSettings:
    shutil.copytree(left, tmp_path / 'killed')
    return scored_settings(root, tmp_path / 'killed')


def best_of(out: Path) -> dict:
    return json.loads(read_metadata(out / 'best.safetensors')['validation'])


def test_the_best_says_of_which_step_it_is_and_stays_to_resume_from(root, tmp_path, monkeypatch):
    score(monkeypatch, SCORES)
    settings = scored_settings(root, tmp_path / 'out')
    train(settings)
    assert best_of(tmp_path / 'out') == {
        'best_value': 0.6, 'best_step': 3,
        'of': {'dataset': 'ytvis2019', 'root': 'ytvis2019', 'split': None, 'limit': None},
    }  # fmt: skip
    assert list(find_checkpoints(tmp_path / 'out/checkpoints')) == [6, 3]
    best = load_model(tmp_path / 'out/best.safetensors').state_dict()
    whole = load_model(tmp_path / 'out/checkpoints/step=3.ckpt').state_dict()
    assert not differences(best, {name: value.half().float() for name, value in whole.items()})
    content = checkpoint_of(settings, 3)
    assert content['optimizer_states'] and content['callbacks']['ScoreCallback']['best_step'] == 3


def test_a_run_killed_after_its_best_goes_on_as_if_nothing_had_been(
    root, tmp_path, killed, monkeypatch
):
    score(monkeypatch, SCORES)
    unbroken = scored_settings(root, tmp_path / 'unbroken')
    train(unbroken)
    train(killed, resume=True)
    assert differences(checkpoint_of(killed, 6), checkpoint_of(unbroken, 6)) == []
    assert differences(checkpoint_of(killed, 3), checkpoint_of(unbroken, 3)) == []
    assert log_lines(killed) == log_lines(unbroken)
    outs = [Path(each.out) for each in (killed, unbroken)]
    assert best_of(outs[0]) == best_of(outs[1])
    ours, theirs = (load_model(out / 'best.safetensors').state_dict() for out in outs)
    assert differences(ours, theirs) == []


@pytest.mark.parametrize(
    ('overrides', 'scores', 'best'),
    [
        ([], {3: 0.1, 4: 0.5}, (0.6, 3)),
        ([], {3: 0.1, 4: 0.7}, (0.7, 4)),
        (['validation.limit=1'], {3: 0.5, 4: 0.5}, (0.5, 3)),
    ],
    ids=['worse', 'better', 'of other videos'],
)
def test_best_weights_make_way_for_better_ones_alone(
    root, killed, monkeypatch, overrides, scores, best
):
    """Steps that come again on a GPU have other scores than before."""
    score(monkeypatch, {**scores, 5: 0.1, 6: 0.1})
    out = Path(killed.out)
    before = (out / 'best.safetensors').read_bytes()
    train(scored_settings(root, out, *overrides), resume=True)
    found = best_of(out)
    assert (found['best_value'], found['best_step']) == best
    assert found == checkpoint_of(killed, 6)['callbacks']['ScoreCallback']
    assert ((out / 'best.safetensors').read_bytes() == before) == (best == (0.6, 3))
