"""A disk that becomes full at any place of a run leaves the last checkpoint, and room to go on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.labelled_data import write_labelled
from tests.training.runs import at_step, tiny_settings
from videomt_ros.datasets.synthetic.scene import CLASS_NAMES
from videomt_ros.model import save_model
from videomt_ros.training import trainer as trainer_module
from videomt_ros.training import validation as validation_module
from videomt_ros.training.early_end import EndedEarly
from videomt_ros.training.trainer import train


def fill(disk: Path, spare: int) -> None:
    """Fill a disk but for about so many bytes."""
    with open(disk / 'filler', 'wb', buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        os.truncate(file.name, max(0, file.tell() - spare))


def fill_and_train(disk: Path) -> None:
    """Fill the disk of runs at one place after the other, and print their messages."""
    write_labelled('ytvis2019', disk / 'ytvis2019', num_videos=1)
    rare = ('log_every=100', 'checkpoint_every=3', 'keep_checkpoints=9')
    names = f'network.class_names=[{", ".join(CLASS_NAMES)}]'
    scored = f'validation={{dataset: ytvis2019, root: {disk / "ytvis2019"}, every: 4}}'

    def save_on_full_disk(*arguments, **more):
        fill(disk, 0)
        save_model(*arguments, **more)

    for name, place, spare, overrides in (
        ('log', 4, 0, ('checkpoint_every=3', 'log_every=1')),
        ('checkpoint', 5, 50_000, rare),
        ('validation', 3, 0, (*rare, names, scored)),
        ('best', validation_module, 0, (*rare, names, scored)),
        ('weights', trainer_module, 0, rare),
    ):
        settings = tiny_settings(disk / name, *overrides)
        with pytest.MonkeyPatch.context() as patch:
            if isinstance(place, int):  # before this step
                at_step(patch, place, lambda *_, spare=spare: fill(disk, spare))
            else:
                patch.setattr(place, 'save_model', save_on_full_disk)
            try:
                train(settings)
                text = 'no error'
            except EndedEarly as error:
                text = str(error)
        left = sorted(str(path.relative_to(disk / name)) for path in (disk / name).rglob('*'))
        (disk / 'filler').unlink()
        resumed = train(settings, resume=True).exists()
        shutil.rmtree(disk / name)
        print('RESULT', json.dumps({'name': name, 'text': text, 'left': left, 'on': resumed}))


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path):
    """The disk is a real file system of 6 MB; most of the time goes into starting."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    mount = ['unshare', '--mount', '--map-root-user', 'sh', '-c']
    command = f'mount -t tmpfs -o size=6m tmpfs "{disk}" && exec "$@"'
    try:
        subprocess.run([*mount, command, 'sh', 'true'], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f'no file system can be mounted here: {error}')
    code = (
        'import sys; from pathlib import Path; '
        'from tests.training.test_early_end_full_disk import fill_and_train; '
        'fill_and_train(Path(sys.argv[1]))'
    )
    done = subprocess.run(
        [*mount, command, 'sh', sys.executable, '-c', code, str(disk)],
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = [
        json.loads(line.removeprefix('RESULT '))
        for line in done.stdout.splitlines()
        if line.startswith('RESULT ')
    ]
    places = ['log', 'checkpoint', 'validation', 'best', 'weights']
    assert [result['name'] for result in results] == places
    for result in results:
        last = 6 if result['name'] == 'weights' else 3
        saved = [name for name in result['left'] if name.startswith('checkpoints/')]
        assert saved == [f'checkpoints/step={step}.ckpt' for step in (3, 6) if step <= last], (
            result
        )
        assert 'the disk is full' in result['text'] and '--resume' in result['text'], result
        assert f'step={last}.ckpt' in result['text'], result
        assert not [name for name in result['left'] if 'part' in name.rpartition('/')[2]], result
        assert 'model.safetensors' not in result['left'] and result['on'], result
