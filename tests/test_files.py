"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from videomt_ros.files import keep_earlier, remove_partials, whole_file


def test_the_file_appears_at_the_end_of_the_block_with_its_folder(tmp_path):
    path = tmp_path / 'new' / 'a.json'
    with whole_file(path) as file:
        file.write(b'new')
        assert not path.exists()
    assert path.read_bytes() == b'new'
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text('old')
    with pytest.raises(RuntimeError), whole_file(path) as file:
        file.write(b'half')
        raise RuntimeError
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = tmp_path / 'a.json'
    with whole_file(path) as first, whole_file(path) as second:
        first.write(b'first')
        second.write(b'second')
    assert path.read_text() == 'first'  # whose block ended last
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('durable', [False, True])
def test_a_durable_file_and_its_name_outlast_a_power_cut(tmp_path, monkeypatch, durable):
    steps = []
    sync, replace = os.fsync, os.replace

    def watched_sync(handle):
        steps.append(Path(os.readlink(f'/proc/self/fd/{handle}')))
        sync(handle)

    def watched_replace(source, target):
        steps.append((Path(source), Path(target)))
        replace(source, target)

    monkeypatch.setattr(os, 'fsync', watched_sync)
    monkeypatch.setattr(os, 'replace', watched_replace)
    with whole_file(tmp_path / 'a.ckpt', durable) as file:
        file.write(b'new')
    if not durable:
        assert len(steps) == 1
        return
    written, (source, target), folder = steps
    assert written == source and target == tmp_path / 'a.ckpt'
    assert folder == tmp_path


def test_folders_that_cannot_be_synced_are_no_error(tmp_path, monkeypatch):
    def refuse(handle):
        raise OSError(errno.EINVAL, 'Invalid argument')

    monkeypatch.setattr(os, 'fsync', refuse)
    with whole_file(tmp_path / 'a.ckpt', durable=True) as file:
        file.write(b'new')
    assert (tmp_path / 'a.ckpt').read_bytes() == b'new'


def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path):
    (tmp_path / 'a.json').write_text('old')
    code = (
        'import os, pathlib, signal, sys\n'
        'from videomt_ros.files import whole_file\n'
        'with whole_file(pathlib.Path(sys.argv[1])) as file:\n'
        '    file.write(b"half")\n'
        '    file.flush()\n'
        '    os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    run = subprocess.run([sys.executable, '-c', code, str(tmp_path / 'a.json')], check=False)
    assert run.returncode == -9
    assert (tmp_path / 'a.json').read_text() == 'old'
    with whole_file(tmp_path / 'a.json') as file:
        file.write(b'new')
    assert (tmp_path / 'a.json').read_text() == 'new'
    # The half of the killed one is hidden, so that nobody takes it for a result.
    assert all(name.startswith('.') for name in set(os.listdir(tmp_path)) - {'a.json'})


def test_what_killed_writers_left_is_removed(tmp_path):
    kept = tmp_path / 'folder' / 'a.json'
    kept.parent.mkdir()
    for path in (kept, tmp_path / '.a.json.17.partial', tmp_path / 'folder' / '.b.18.partial'):
        path.write_text('')
    (tmp_path / 'step-1.partial').mkdir()
    remove_partials(tmp_path)
    assert [path for path in tmp_path.rglob('*') if path != kept.parent] == [kept]


def test_files_of_earlier_runs_are_kept_each_in_a_folder_of_its_own(tmp_path):
    names = ('a.txt', 'b.txt')
    assert keep_earlier(tmp_path, names) is None
    for run in (1, 2):
        (tmp_path / 'a.txt').write_text(f'run {run}')
        assert keep_earlier(tmp_path, names) == tmp_path / f'earlier-{run}'
        assert [path.name for path in tmp_path.glob('*.txt')] == []
        assert (tmp_path / f'earlier-{run}' / 'a.txt').read_text() == f'run {run}'
