"""Checkpoints: written whole or not at all, and a resumed run that equals an unbroken one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.runs import at_step, checkpoint_of, differences, log_lines, tiny_settings
from videomt_ros.model import load_model, save_model
from videomt_ros.training.callbacks import cut_log
from videomt_ros.training.checkpoints import AtomicIO, find_checkpoints, newest_checkpoint
from videomt_ros.training.module import TrainModule
from videomt_ros.training.run_settings import TrainSettings
from videomt_ros.training.trainer import train

SHORT = 'phases=[{steps: 2, clip_frames: 1, batch_size: 1}]'


def steps_of(settings) -> list[int]:
    return list(find_checkpoints(Path(settings.out) / 'checkpoints'))


LONG = (
    'phases=[{steps: 4, clip_frames: 1, batch_size: 2},'
    ' {steps: 8, clip_frames: 5, batch_size: 2, chunk_frames: 2}]',
    'network.propagation=gru', 'layer_decay=0.6', 'vit_warmup_steps=3', 'workers=1',
    'checkpoint_every=4',
)  # fmt: skip


def train_and_be_killed(out: Path) -> None:
    """A run that is killed with its loader's worker, two steps after a checkpoint."""
    patch = pytest.MonkeyPatch()
    at_step(patch, 10, lambda *_: os.killpg(0, signal.SIGKILL))
    train(tiny_settings(out, *LONG))


def test_a_run_that_was_killed_goes_on_as_if_nothing_had_been(tmp_path):
    """SIGKILL leaves no time to do anything; all of the last checkpoint is equal, bit by bit."""
    killed = tiny_settings(tmp_path / 'killed', *LONG)
    code = (
        'import sys; from pathlib import Path; '
        'from tests.training.test_checkpoints import train_and_be_killed; '
        'train_and_be_killed(Path(sys.argv[1]))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, killed.out], cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert steps_of(killed) == [8, 4]
    unbroken = tiny_settings(tmp_path / 'unbroken', *LONG)
    for settings, resume in ((killed, True), (unbroken, False)):
        train(settings, resume=resume)
    assert steps_of(killed) == steps_of(unbroken) == [12, 8]
    ours, theirs = checkpoint_of(killed, 12), checkpoint_of(unbroken, 12)
    for name in ('state_dict', 'current_model_state', 'averaging_state', 'optimizer_states'):
        assert ours[name]
    assert differences(ours, theirs) == []
    assert [line['step'] for line in log_lines(killed)] == list(range(1, 13))
    assert log_lines(killed) == log_lines(unbroken)
    weights = [load_model(Path(each.out) / 'model.safetensors') for each in (killed, unbroken)]
    assert not differences(*(net.state_dict() for net in weights))


@pytest.mark.parametrize(
    'overrides',
    [['ema_decay=null', 'decay_all=true'], ['precision=fp16'], ['precision=bf16', 'accumulate=2']],
)
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, monkeypatch, overrides):
    unbroken = tiny_settings(tmp_path / 'unbroken', *overrides)
    train(unbroken)
    broken = tiny_settings(tmp_path / 'broken', *overrides)
    with monkeypatch.context() as patch:
        step = TrainModule.training_step

        def stop_at_5(self, *arguments):
            if self.global_step == 5:
                raise RuntimeError('as a crash would')
            return step(self, *arguments)

        patch.setattr(TrainModule, 'training_step', stop_at_5)
        with pytest.raises(RuntimeError, match='as a crash would'):
            train(broken)
    assert steps_of(broken) == [4, 2]
    torch.manual_seed(999)  # whatever the process drew before
    train(broken, resume=True)
    assert differences(checkpoint_of(broken, 6), checkpoint_of(unbroken, 6)) == []
    assert log_lines(broken) == log_lines(unbroken)


def test_the_last_checkpoints_are_kept(tmp_path):
    settings = tiny_settings(tmp_path / 'out', 'checkpoint_every=1', 'keep_checkpoints=3')
    train(settings)
    assert steps_of(settings) == [6, 5, 4]
    names = sorted(path.name for path in (tmp_path / 'out/checkpoints').iterdir())
    assert names == ['step=4.ckpt', 'step=5.ckpt', 'step=6.ckpt']


def test_a_checkpoint_loads_as_a_model(tmp_path):
    """The averaged weights, as the node takes them."""
    settings = tiny_settings(tmp_path / 'out', 'learning_rate=0.1')
    train(settings)
    path = tmp_path / 'out/checkpoints/step=6.ckpt'
    net, content = load_model(path), checkpoint_of(settings, 6)
    assert net.config == settings.network
    for name, value in net.state_dict().items():
        assert torch.equal(value, content['state_dict'][f'net.{name}'])
    last = content['current_model_state']['net.q.weight']
    assert not torch.equal(net.q.weight, last)


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> Path:
    """Folder of a run that has reached its end."""
    out = tmp_path_factory.mktemp('trained') / 'out'
    train(tiny_settings(out, SHORT, 'checkpoint_every=1'))
    return out


@pytest.fixture
def finished(trained, tmp_path) -> TrainSettings:
    """A copy of this run."""
    shutil.copytree(trained, tmp_path / 'out')
    return tiny_settings(tmp_path / 'out', SHORT, 'checkpoint_every=1')


def again(settings, *overrides: str):
    """Return the settings of the same run with changes."""
    return tiny_settings(Path(settings.out), SHORT, 'checkpoint_every=1', *overrides)


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
        ('ema_decay=null', 'ema_decay'),
    ],
)
def test_a_run_with_other_settings_is_not_resumed(finished, override, name):
    with pytest.raises(ValueError, match=f'other settings: {name}. Resume'):
        train(again(finished, override), resume=True)


def test_where_and_how_a_run_runs_may_change(finished):
    weights = Path(finished.out) / 'model.safetensors'
    before = load_model(weights).state_dict()
    weights.unlink()
    changed = ['threads=2', 'checkpoint_every=9', 'log_every=9', 'workers=1', 'precision=bf16']
    train(again(finished, *changed), resume=True)
    assert not differences(load_model(weights).state_dict(), before)
    assert [line['step'] for line in log_lines(finished)] == [1, 2]


def test_a_resumed_log_has_each_step_once(tmp_path):
    settings = tiny_settings(tmp_path / 'out', 'checkpoint_every=4')
    train(settings)
    log, folder = tmp_path / 'out/log.jsonl', tmp_path / 'out/checkpoints'
    whole = log_lines(settings)
    (folder / 'step=6.ckpt').unlink()
    log.write_text(log.read_text()[:-20])  # as if it had ended in the middle of a line
    train(settings, resume=True)
    assert log_lines(settings) == whole
    for path in folder.iterdir():
        path.unlink()
    train(settings, resume=True)  # from the start
    assert log_lines(settings) == whole


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_weights(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content['state_dict'].popitem()
    torch.save(content, path)


def one_bit(path: Path) -> None:
    """Flip a bit in the middle of the weights, where no structure of the file shows it."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = [
    half,
    one_bit,
    without_weights,
    lambda path: path.write_bytes(b''),
    lambda path: path.write_text('not a checkpoint'),
    lambda path: torch.save([1, 2], path),
    lambda path: torch.save({'model': {}}, path),
    lambda path: torch.save(Path('a class of its own'), path),
]


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_an_older_one(finished, caplog, damage):
    folder = Path(finished.out) / 'checkpoints'
    whole = checkpoint_of(finished, 2)
    damage(folder / 'step=2.ckpt')
    train(finished, resume=True)
    assert 'step=2.ckpt is damaged or of another kind: trying an older one' in caplog.text
    assert differences(checkpoint_of(finished, 2), whole) == []


def test_too_little_memory_to_read_is_no_damage(finished, monkeypatch):
    folder = Path(finished.out) / 'checkpoints'
    monkeypatch.setattr(torch, 'load', lambda *_, **more: torch.empty(2**60, dtype=torch.uint8))
    with pytest.raises(RuntimeError, match='allocate memory'):
        newest_checkpoint(folder, finished, {})


def test_later_checkpoints_that_were_passed_over_are_kept_aside(tmp_path, monkeypatch):
    def kill(*_) -> None:
        raise RuntimeError('killed')

    settings = tiny_settings(tmp_path / 'out', 'checkpoint_every=1', 'keep_checkpoints=9')
    train(settings)
    folder = tmp_path / 'out/checkpoints'
    for step in (3, 4, 5, 6):
        half(folder / f'step={step}.ckpt')
    spoilt = (folder / 'step=6.ckpt').read_bytes()
    at_step(monkeypatch, 3, kill)
    with pytest.raises(RuntimeError, match='killed'):
        train(settings, resume=True)
    assert steps_of(settings) == [3, 2, 1]
    assert (folder / 'step=6.ckpt.damaged').read_bytes() == spoilt
    assert len(list(folder.glob('*.damaged'))) == 3


def test_nothing_but_damaged_checkpoints_is_an_error(finished):
    for path in (Path(finished.out) / 'checkpoints').iterdir():
        half(path)
    with pytest.raises(ValueError, match='step=2.ckpt is damaged .* and so is every older one'):
        train(finished, resume=True)


def test_what_a_killed_run_was_writing_is_gone_when_it_goes_on(finished):
    """SIGKILL right before each file would get its name."""
    out = Path(finished.out)
    net = load_model(out / 'model.safetensors')
    before = {path for path in out.rglob('*') if path.is_file()}
    for write in (
        lambda: save_model(net, out / 'best.safetensors'),
        lambda: AtomicIO().save_checkpoint({}, out / 'checkpoints/step=9.ckpt'),
        lambda: cut_log(out / 'log.jsonl', 1),
    ):
        if child := os.fork():
            assert os.waitpid(child, 0)[1] == signal.SIGKILL
            continue
        try:
            os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            write()
        finally:
            os._exit(1)
    left = {path for path in out.rglob('*') if path.is_file()} - before
    assert len(left) == 3 and all(path.name.startswith('.') for path in left), left
    (out / 'validation/step-1.partial/parts').mkdir(parents=True)
    train(finished, resume=True)
    assert not any(path.exists() for path in left)
    assert not any((out / 'validation').iterdir())


def test_a_write_that_fails_leaves_the_last_file(tmp_path, monkeypatch):
    path = tmp_path / 'step=1.ckpt'
    AtomicIO().save_checkpoint({'weights': torch.ones(3)}, path)
    before = path.read_bytes()

    def full(*_) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space left'):
        AtomicIO().save_checkpoint({'weights': torch.zeros(9)}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_cannot_run_code(tmp_path):
    path = tmp_path / 'step=1.ckpt'
    torch.save({'weights': Path('a class of its own')}, path)
    with pytest.raises(Exception, match='Weights only load failed'):
        AtomicIO().load_checkpoint(path)


def test_a_checkpoint_outlasts_a_power_cut(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, 'fsync', lambda handle: synced.append(handle))
    AtomicIO().save_checkpoint({'step': 1}, tmp_path / 'step=1.ckpt')
    assert len(synced) == 2  # the file and its folder
