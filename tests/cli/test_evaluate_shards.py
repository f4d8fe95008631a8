"""`videomt evaluate --shard` and `--merge`: jobs that know nothing of each other share it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.evaluations import NAMES, arguments, result_files, write_roots
from videomt_ros.cli import main
from videomt_ros.datasets.synthetic.writing import write_dataset


@pytest.fixture(scope='module')
def roots(tmp_path_factory):
    """Five videos in three formats; more than shards, and not a multiple of them."""
    return write_roots(tmp_path_factory.mktemp('data'), 5, 4)


@pytest.fixture(scope='module')
def alone(roots, tmp_path_factory):
    """What one process gives, by data set."""
    home = tmp_path_factory.mktemp('alone')
    for name in NAMES:
        assert main(arguments(name, roots[name], home / name)) == 0
    return {name: home / name for name in NAMES}


@pytest.fixture(scope='module')
def shards(roots, tmp_path_factory):
    """Folder with the three shards of ytvis2019, which tests copy."""
    out = tmp_path_factory.mktemp('shards')
    for index in (1, 2, 3):
        command = arguments('ytvis2019', roots['ytvis2019'], out, '--shard', f'{index}/3')
        assert main(command) == 0
    return out


def figures(out):
    """All of metrics.json but the run and its times."""
    metrics = json.loads((out / 'metrics.json').read_text())
    return {
        key: value for key, value in metrics.items() if key not in ('run', 'timing_ms', 'speed')
    }


def kill_in_its_last_video(root, command, out):
    """Run a command until it waits at the last image of its last video, and kill it there."""
    last = sorted(path for path in root.rglob('*.jpg'))[-1]
    image = last.read_bytes()
    last.unlink()
    os.mkfifo(last)  # nobody writes into the pipe
    process = subprocess.Popen(
        [sys.executable, '-m', 'videomt_ros', *command], stderr=subprocess.DEVNULL
    )
    try:
        while not all(list(out.glob(f'parts/{mode}/0*.json')) for mode in ('published', 'live')):
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    last.unlink()
    last.write_bytes(image)


@pytest.mark.parametrize('name', NAMES)
def test_three_shards_give_what_one_process_gives(roots, alone, tmp_path, capsys, name):
    root, out = tmp_path / 'data', tmp_path / 'out'
    shutil.copytree(roots[name], root)
    commands = {i: arguments(name, root, out, '--shard', f'{i}/3') for i in (1, 2, 3)}
    # The second has videos 2 and 5, of which the last is not finished.
    kill_in_its_last_video(root, commands[2], out / 'shard-2-of-3')
    for index in (1, 3):
        assert main(commands[index]) == 0
    capsys.readouterr()
    assert main(['evaluate', '--merge', str(out)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert '2/3 is not finished (1 of 2 videos missing)' in line
    assert '--shard 2/3 --resume`' in line
    assert not (out / 'metrics.json').exists()

    assert main([*commands[2], '--resume']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        'Shard 2/3: 2 of 2 videos done (5 in all)',
        f'When all shards are done: videomt evaluate --merge {out}',
        str(out / 'shard-2-of-3'),
    ]
    assert main(['evaluate', '--merge', str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / 'report.html')
    assert result_files(out) == result_files(alone[name])
    assert json.dumps(figures(out)) == json.dumps(figures(alone[name]))
    run = json.loads((out / 'metrics.json').read_text())['run']
    assert (run['shards'], run['processes'], run['num_videos']) == (3, 3, 5)


def test_shards_from_several_machines_are_joined_elsewhere(roots, alone, shards, tmp_path, capsys):
    """Each machine has a folder of its own, and one shard was run twice."""
    for folder, index in (('a', 1), ('b', 2), ('c', 3), ('d', 2)):
        shutil.copytree(shards / f'shard-{index}-of-3', tmp_path / folder / 'result')
    shutil.move(roots['ytvis2019'], tmp_path / 'moved')
    try:
        assert main(['evaluate', '--merge', str(tmp_path)]) == 1
        assert 'have moved, name them again, by --root or --bags' in capsys.readouterr().err
        merge = ['evaluate', '--merge', str(tmp_path), '--root', str(tmp_path / 'moved')]
        for _ in range(2):  # again, over the first
            assert main([*merge, '--out', str(tmp_path / 'out')]) == 0
    finally:
        shutil.move(tmp_path / 'moved', roots['ytvis2019'])
    assert figures(tmp_path / 'out') == figures(alone['ytvis2019'])
    assert result_files(tmp_path / 'out') == result_files(alone['ytvis2019'])


def test_missing_shards_are_named_with_their_commands(shards, tmp_path, capsys):
    shutil.copytree(shards / 'shard-2-of-3', tmp_path / 'shard-2-of-3')
    assert main(['evaluate', '--merge', str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert '1/3 is missing; 3/3 is missing' in error
    for index in (1, 3):
        assert f'--shard {index}/3 --resume`' in error


def test_shards_of_different_runs_are_refused(roots, shards, tmp_path, capsys):
    shutil.copytree(shards, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / 'shard-3-of-3')
    more = ('--shard', '3/3', '--set', 'gap_s=2', '--mode', 'live', '--limit', '4')
    assert main(arguments('ytvis2019', roots['ytvis2019'], tmp_path, *more)) == 0
    assert main(['evaluate', '--merge', str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert 'shard-3-of-3 differs from' in error
    for what in ('settings was {} and is {"gap_s": 2.0}', 'limit was null and is 4', 'modes was'):
        assert what in error


def test_shards_of_two_splits_are_refused(roots, shards, tmp_path, capsys):
    shutil.copytree(shards, tmp_path, dirs_exist_ok=True)
    more = ('--shard', '2/2', '--limit', '1')
    assert main(arguments('ytvis2019', roots['ytvis2019'], tmp_path, *more)) == 0
    assert 'Shard 2/2 has nothing to do: there are only 1 videos' in capsys.readouterr().out
    assert main(['evaluate', '--merge', str(tmp_path)]) == 1
    assert 'got shards of 2 and of 3' in capsys.readouterr().err


def test_another_data_set_is_refused(shards, tmp_path, capsys):
    write_dataset('ytvis', tmp_path / 'other', 5, 3)
    merge = ['evaluate', '--merge', str(shards), '--root', str(tmp_path / 'other')]
    assert main([*merge, '--out', str(tmp_path / 'out')]) == 1
    assert 'The data set is not that of the shards: videos was' in capsys.readouterr().err
    # A zero is a value that was given, too.
    merge = ['evaluate', '--merge', str(shards), '--out', str(tmp_path / 'out')]
    assert main([*merge, '--grey-low', '0']) == 1
    assert 'grey_range' in capsys.readouterr().err


def test_more_shards_than_videos_are_joined_without_the_idle_ones(roots, tmp_path):
    for index in (1, 2):
        more = ('--shard', f'{index}/4', '--limit', '2', '--mode', 'live')
        assert main(arguments('ytvis2019', roots['ytvis2019'], tmp_path, *more)) == 0
    assert main(['evaluate', '--merge', str(tmp_path)]) == 0
    assert len(figures(tmp_path)['live']['per_video']) == 2


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('0/3', "3/3, got '0/3'; add 1 to an index that counts from 0, as in --shard $((INDEX"),
        ('4/3', "expected shards from 1/3 to 3/3, got '4/3'"),
        ('2', 'expected I/N'),
        ('1/0', 'expected I/N'),
        ('a/b', 'expected I/N'),
        ('-1/3', 'expected I/N'),
    ],
)
def test_a_wrong_number_of_a_shard_is_refused(tmp_path, capsys, text, reason):
    with pytest.raises(SystemExit):
        main(arguments('ytvis2019', tmp_path, tmp_path / 'out', f'--shard={text}'))
    assert reason in ' '.join(capsys.readouterr().err.split())


def test_options_that_contradict_shards_are_refused(tmp_path, capsys):
    command = arguments('ytvis2019', tmp_path, tmp_path / 'out', '--shard', '1/2')
    assert main([*command, '--real-time', '1']) == 1
    assert 'leave --real-time' in capsys.readouterr().err
    assert main(['evaluate', '--merge', str(tmp_path), '--model', 'demo']) == 1
    assert '--model has no meaning for --merge' in capsys.readouterr().err
    assert main(['evaluate', '--merge', str(tmp_path)]) == 1
    assert 'Expected shards in' in capsys.readouterr().err
    (tmp_path / 'shard-1-of-2').mkdir()
    (tmp_path / 'shard-1-of-2/shard.json').write_text('{}')
    (tmp_path / 'shard-1-of-2/run.json').write_text('{}')
    assert main(['evaluate', '--merge', str(tmp_path)]) == 1
    assert 'is no record of a shard' in capsys.readouterr().err
