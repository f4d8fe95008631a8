"""A run that cannot go on says in one line what to do, and keeps its checkpoints."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from tests.training.labelled_data import write_labelled
from tests.training.runs import TINY, at_step, differences, tiny_settings
from videomt_ros.cli import main
from videomt_ros.datasets.synthetic.scene import CLASS_NAMES
from videomt_ros.evaluation.run_folder import RunFolder
from videomt_ros.model.weight_files import read_metadata
from videomt_ros.training import early_end
from videomt_ros.training.checkpoints import find_checkpoints
from videomt_ros.training.early_end import (
    EndedEarly,
    NonFiniteLoss,
    disk_is_full,
    explain_early_end,
    memory_is_full,
)
from videomt_ros.training.module import TrainModule
from videomt_ros.training.trainer import train
from videomt_ros.training.validation import ScoreCallback


def spoil(module: TrainModule, batch) -> None:
    with torch.no_grad():
        module.net.class_head.bias.fill_(float('nan'))


def test_a_loss_that_is_not_finite_is_told_with_its_clips(tmp_path, monkeypatch):
    at_step(monkeypatch, 5, spoil)
    settings = tiny_settings(tmp_path / 'run', 'learning_rate=0.01')
    seen = []
    at_step(monkeypatch, 5, lambda module, batch: seen.extend(batch[0].origins))
    with pytest.raises(EndedEarly) as caught:
        train(settings)
    text = str(caught.value)
    assert 'not finite at step 5 (' in text and 'class nan' in text
    assert 'lower learning_rate (now 0.01)' in text and 'step=4.ckpt' in text
    content = json.loads((tmp_path / 'run/nonfinite_step.json').read_text())
    assert content['step'] == 5 and content['losses']['class'] == 'nan'
    assert content['origins'] == seen and len(seen) == 2
    assert all(origin in text for origin in seen)
    saved = tmp_path / 'run/checkpoints'
    assert sorted(path.name for path in saved.iterdir()) == ['step=2.ckpt', 'step=4.ckpt']
    weights = torch.load(saved / 'step=4.ckpt', weights_only=True)['state_dict']
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize(
    ('precision', 'advice'),
    [('bf16-mixed', ', or --resume precision=fp32 (now bf16)'), ('32-true', None)],
)
def test_another_precision_is_advised_where_there_is_a_better_one(tmp_path, precision, advice):
    settings = tiny_settings(tmp_path / 'run')

    class Precise(pl.Trainer):
        precision = property(lambda self: precision)

    with pytest.raises(EndedEarly) as caught, explain_early_end(settings, Precise()):
        raise NonFiniteLoss(3, {'loss': float('inf')}, [f'clip {i}' for i in range(20)])
    text = str(caught.value)
    assert (advice in text) if advice else ('precision=' not in text)
    assert 'clip 7 and 12 more' in text and 'There is no checkpoint yet' in text
    content = json.loads((tmp_path / 'run/nonfinite_step.json').read_text())
    assert len(content['origins']) == 20 and content['losses'] == {'loss': 'inf'}


def test_a_loss_that_is_not_finite_is_told_where_its_file_cannot_be_written(tmp_path):
    (tmp_path / 'run/nonfinite_step.json').mkdir(parents=True)
    with (
        pytest.raises(
            EndedEarly, match='not finite at step 3 .* Clips: one; .* could not be writ'
        ),
        explain_early_end(tiny_settings(tmp_path / 'run'), pl.Trainer(logger=False)),
    ):
        raise NonFiniteLoss(3, {'loss': float('inf')}, ['one'])


def run_out_of_memory(module: TrainModule, batch) -> None:
    raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 MiB.')


def test_too_little_memory_says_what_to_lower_and_the_run_goes_on_so(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 4, run_out_of_memory)
        with pytest.raises(EndedEarly) as caught:
            train(tiny_settings(tmp_path / 'run', 'precision=fp32'))
    text = str(caught.value)
    assert 'Out of memory at step 4: CUDA out of memory. Tried' in text
    assert 'accumulate (now 1), activation_checkpointing (now false), precision (now fp32)' in text
    assert 'smaller chunk_frames, image_sizes or augmentation.short_sides' in text
    assert 'step=4.ckpt' in text
    changed = tiny_settings(
        tmp_path / 'run', 'accumulate=2', 'activation_checkpointing=true', 'precision=bf16'
    )
    assert train(changed, resume=True).exists()


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT])
def test_errors_of_a_full_disk_are_known(number):
    error = OSError(number, os.strerror(number))
    assert disk_is_full(error) and not memory_is_full(error)
    later = ValueError('I/O operation on closed file')
    later.__context__ = error
    assert disk_is_full(later)
    assert memory_is_full(MemoryError()) and not disk_is_full(MemoryError())


@pytest.mark.parametrize(
    'error',
    [OSError(errno.EACCES, 'Permission denied'), RuntimeError('size mismatch'), ValueError('')],
)
def test_other_errors_pass_as_they_are(tmp_path, error):
    assert not disk_is_full(error) and not memory_is_full(error)
    settings = tiny_settings(tmp_path / 'run')
    with pytest.raises(type(error)) as caught, explain_early_end(settings, pl.Trainer()):
        raise error
    assert caught.value is error


def write_run_file(tmp_path: Path, *extra: str) -> Path:
    path = tmp_path / 'run.yaml'
    path.write_text('\n'.join([TINY, *extra]))
    return path


def lose_videos(module: TrainModule, batch) -> None:
    """Remove the videos of the second process, as if it could not read them."""
    (scores,) = (each for each in module.trainer.callbacks if isinstance(each, ScoreCallback))
    if module.global_rank == 1:
        scores.dataset = replace(scores.dataset, videos=())


def validate_and_spoil(folder: Path) -> None:
    """Run in each of two processes, with and without validation, and with failures."""
    names = f'network.class_names=[{", ".join(CLASS_NAMES)}]'
    scored = f'validation={{dataset: ytvis2019, root: {folder / "ytvis2019"}, every: 4}}'
    train(tiny_settings(folder / 'scored', names, scored, 'checkpoint_every=100'))
    train(tiny_settings(folder / 'plain', names))

    def spoil_second(module: TrainModule, batch) -> None:
        if module.global_rank == 1:
            print('CLIP', batch[0].origins[0])
            spoil(module, batch)

    def fill_first(self, position, stages) -> None:
        if os.environ['RANK'] == '0':
            raise OSError(errno.ENOSPC, 'No space left on device')

    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 3, spoil_second)
        try:
            train(tiny_settings(folder / 'spoiled'))
        except EndedEarly as error:
            # In one piece, or the words of both processes mix.
            print(f'ENDED {error}\n', end='', flush=True)
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 3, lose_videos)
        train(tiny_settings(folder / 'unread', names, scored))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, 'note_times', fill_first)
        try:
            train(tiny_settings(folder / 'full', names, scored))
        except EndedEarly as error:
            print(f'FULL {error}\n', end='', flush=True)
    apart = folder / ('plain' if os.environ['RANK'] == '0' else 'elsewhere')
    try:
        train(tiny_settings(apart, names), resume=True)
    except ValueError as error:
        print(f'APART {error}\n', end='', flush=True)


def test_two_processes_validate_together_and_end_together(tmp_path):
    """Six tiny runs of two processes; this takes some ten seconds, most of them to start."""
    write_labelled('ytvis2019', tmp_path / 'ytvis2019', num_videos=3)
    code = (
        'import sys; from pathlib import Path; '
        'from tests.training.test_early_end import validate_and_spoil; '
        'validate_and_spoil(Path(sys.argv[1]))'
    )
    script = tmp_path / 'script.py'
    script.write_text(code)
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
         str(script), str(tmp_path)],
        capture_output=True, text=True, cwd=root, timeout=200,
        env=os.environ | {'PYTHONPATH': f'{root}:{os.environ.get("PYTHONPATH", "")}'},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    weights = [torch.load(tmp_path / name / 'checkpoints/step=6.ckpt', weights_only=True)
               for name in ('scored', 'plain')]  # fmt: skip
    assert not differences(weights[0]['state_dict'], weights[1]['state_dict'])
    state = weights[0]['callbacks']['ScoreCallback']
    assert state['best_step'] in (4, 6) and state['best_value'] is not None
    # The first process alone writes the best weights, and all save the checkpoint of its step.
    saved = find_checkpoints(tmp_path / 'scored/checkpoints')
    assert set(saved) == {state['best_step'], 6}
    best = json.loads(read_metadata(tmp_path / 'scored/best.safetensors')['validation'])
    assert best['best_step'] == state['best_step']
    metrics = json.loads((tmp_path / 'scored/validation/step-6/metrics.json').read_text())
    assert (metrics['run']['processes'], metrics['run']['num_videos']) == (2, 3)
    assert not metrics['failures']
    fault = 'failed: Process 1 gave up: Expected a data set with videos'
    assert done.stderr.count(f'Validation of step 4 {fault}') == 1, done.stderr
    assert (tmp_path / 'unread/model.safetensors').exists()

    assert done.stdout.count('ENDED The loss is not finite at step 3') == 2
    (clip,) = [line for line in done.stdout.splitlines() if line.startswith('CLIP ')]
    content = json.loads((tmp_path / 'spoiled/nonfinite_step.json').read_text())
    assert content['origins'] == [clip.removeprefix('CLIP ')]

    full = [line for line in done.stdout.splitlines() if line.startswith('FULL ')]
    assert len(full) == 2 and all('step 4, the disk is full' in line for line in full), full
    apart = [line for line in done.stdout.splitlines() if line.startswith('APART ')]
    assert len(apart) == 2, apart
    assert all('by rank: step=6.ckpt, no checkpoint. Let out=' in line for line in apart), apart


def test_a_process_that_fails_ends_those_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(early_end, '_PATIENCE_S', 0.0)
    trainer = pl.Trainer(accelerator='cpu', devices=2, strategy='ddp', logger=False)
    child = subprocess.Popen(['sleep', '1000'])
    trainer.strategy.launcher.procs.append(child)
    settings = tiny_settings(tmp_path / 'run')
    with pytest.raises(EndedEarly, match='no more'), explain_early_end(settings, trainer):
        raise MemoryError('no more')
    assert child.returncode == -signal.SIGKILL


def test_data_without_a_valid_clip_end_in_one_line(tmp_path, capsys):
    write_labelled('ytvis2019', tmp_path / 'ytvis2019')
    path = tmp_path / 'ytvis2019/valid.json'
    content = json.loads(path.read_text())
    for annotation in content['annotations']:
        for field in ('segmentations', 'bboxes', 'areas'):
            annotation[field] = [None] * len(annotation['segmentations'])
    path.write_text(json.dumps(content))
    config = write_run_file(
        tmp_path,
        f'data: [{{dataset: ytvis2019, root: {tmp_path / "ytvis2019"}, split: valid}}]',
    )
    names = f'network.class_names=[{", ".join(CLASS_NAMES)}]'
    assert main(['train', '--config', str(config), f'out={tmp_path / "out"}', names]) == 1
    (line,) = [text for text in capsys.readouterr().err.splitlines() if 'videomt train:' in text]
    assert 'Expected a valid clip in data.0 (ytvis2019' in line


def test_an_early_end_is_one_line_and_exit_code_1(tmp_path, monkeypatch, capsys):
    at_step(monkeypatch, 2, spoil)
    config = write_run_file(tmp_path)
    assert main(['train', '--config', str(config), f'out={tmp_path / "out"}']) == 1
    error = capsys.readouterr().err
    (line,) = [text for text in error.splitlines() if text.startswith('videomt train:')]
    assert 'not finite at step 2' in line and 'Traceback' not in error


@pytest.mark.parametrize(('sent', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_how_to_go_on(tmp_path, monkeypatch, caplog, sent, code):
    # A verb that ran in this process before may have left a handler of its own.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    at_step(monkeypatch, 4, lambda *_: os.kill(os.getpid(), sent))
    config = write_run_file(tmp_path)
    command = ['train', '--config', str(config), f'out={tmp_path / "out"}']
    try:
        ended = main(command)
    except SystemExit as error:
        ended = error.code
    assert ended == code
    assert 'step=5.ckpt. Go on with --resume.' in caplog.text
    assert signal.getsignal(sent) in (signal.default_int_handler, signal.SIG_DFL)
    monkeypatch.undo()
    assert main([*command, '--resume']) == 0
