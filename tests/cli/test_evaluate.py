"""`videomt evaluate` as a user runs it: data sets on the disk, processes that are killed."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from tests.cli.evaluations import NAMES, arguments, result_files, write_roots
from videomt_ros import progress
from videomt_ros.cli import main
from videomt_ros.cli.evaluate import print_result, resume_hint, table
from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.evaluation.scoring import score_files
from videomt_ros.model import load_model, save_model

NUM_VIDEOS, NUM_FRAMES = 4, 10
MAIN = {'ytvis2019': 'AP', 'vipseg': 'VPQ', 'vspw': 'mIoU'}


@pytest.fixture(scope='module')
def roots(tmp_path_factory):
    """The same scenes as three data sets."""
    return write_roots(tmp_path_factory.mktemp('data'), NUM_VIDEOS, NUM_FRAMES)


@pytest.fixture(scope='module')
def unbroken(roots, tmp_path_factory):
    """What one process gives that nobody disturbs, by data set."""
    folders = {}
    for name in NAMES:
        folders[name] = tmp_path_factory.mktemp('unbroken') / name
        assert main(arguments(name, roots[name], folders[name])) == 0
    return folders


def figures(out):
    """All that the scores of a run say."""
    metrics = json.loads((out / 'metrics.json').read_text())
    return {mode: metrics[mode] for mode in ('published', 'live')}


@pytest.mark.parametrize('name', NAMES)
def test_the_demo_model_is_good_at_its_scenes(unbroken, name):
    scores = figures(unbroken[name])
    for mode in ('published', 'live'):
        assert scores[mode]['figures'][MAIN[name]] > 0.5
    report = (unbroken[name] / 'report.html').read_text()
    assert MAIN[name] in report


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('mode', ['published', 'live'])
def test_the_figures_are_those_of_the_result_files(unbroken, roots, name, mode):
    dataset = open_dataset(name, roots[name])
    results = unbroken[name] / mode
    results /= 'results.json' if name == 'ytvis2019' else ''
    report = score_files(
        dataset.family, dataset.truth, results, dataset.truth_masks, dataset.split
    )
    expected = json.loads(json.dumps(report.to_json()))
    assert figures(unbroken[name])[mode] == expected


def test_the_last_lines_are_a_table_and_the_report(roots, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, 'QUIET_S', math.inf)  # no progress, however slow the machine
    assert main(arguments('ytvis2019', roots['ytvis2019'], tmp_path, '--limit', '2')) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].split() == ['published', 'live']
    assert lines[1].split()[0] == 'AP'
    assert lines[-1] == str(tmp_path / 'report.html')
    assert captured.err == ''
    assert len(figures(tmp_path)['live']['per_video']) == 2


def test_one_mode_alone_gives_the_same(roots, unbroken, tmp_path):
    found = {}
    for mode in ('published', 'live'):
        out = tmp_path / mode
        assert main(arguments('ytvis2019', roots['ytvis2019'], out, '--mode', mode)) == 0
        found |= result_files(out)
    assert found == result_files(unbroken['ytvis2019'])


def test_settings_reach_the_live_score_alone(roots, unbroken, tmp_path):
    more = ('--set', 'score_threshold=0.99', '--set', 'track_states=confirmed,tentative')
    more = (*more, '--set', 'association=slots')
    assert main(arguments('ytvis2019', roots['ytvis2019'], tmp_path, *more)) == 0
    changed, usual = result_files(tmp_path), result_files(unbroken['ytvis2019'])
    assert changed['published/results.json'] == usual['published/results.json']
    assert changed['live/results.json'] != usual['live/results.json']
    settings = json.loads((tmp_path / 'metrics.json').read_text())['run']['settings']
    assert settings['track_states'] == ['confirmed', 'tentative']
    assert settings['association'] == 'slots'


@pytest.mark.parametrize('text', ['gap_s', '=2', 'gap_s=long', 'grey_high=4095'])
def test_a_setting_that_is_none_is_refused(tmp_path, capsys, text):
    with pytest.raises(SystemExit):
        main(arguments('ytvis2019', tmp_path, tmp_path / 'out', '--set', text))
    assert '--set' in capsys.readouterr().err


def test_a_setting_without_a_live_score_is_refused(tmp_path, capsys):
    command = arguments('ytvis2019', tmp_path, tmp_path / 'out', '--set', 'gap_s=2')
    assert main([*command, '--mode', 'published']) == 1
    assert '--set is for the live score' in capsys.readouterr().err


def test_unreadable_images_are_counted_and_named(roots, tmp_path, capsys):
    root = tmp_path / 'data'
    shutil.copytree(roots['ytvis2019'], root)
    images = sorted((root / 'valid/JPEGImages').iterdir())
    (images[1] / '00003.jpg').write_bytes(b'no image')
    assert main(arguments('ytvis2019', root, tmp_path / 'out')) == 0
    captured = capsys.readouterr()
    assert '1 of 4 videos failed' in captured.out
    assert images[1].name in captured.err
    metrics = json.loads((tmp_path / 'out/metrics.json').read_text())
    assert [failure['mode'] for failure in metrics['failures']] == ['published', 'live']
    assert any(images[1].name in note for note in metrics['live']['notes'])
    # Its objects are missed, not left out: a recall of 1 is out of reach.
    assert metrics['live']['figures']['AR100'] <= 0.9
    for folder in images:
        (folder / '00003.jpg').write_bytes(b'no image')
    assert main(arguments('ytvis2019', root, tmp_path / 'none')) == 1
    assert '4 of 4 videos failed' in capsys.readouterr().out
    assert figures(tmp_path / 'none')['live']['figures']['AP'] == 0


def test_a_data_set_without_truth_gives_result_files(roots, tmp_path, capsys):
    root = tmp_path / 'data'
    shutil.copytree(roots['ytvis2019'], root)
    path = root / 'valid.json'
    content = json.loads(path.read_text())
    del content['annotations']
    path.write_text(json.dumps(content))
    assert main(arguments('ytvis2019', root, tmp_path / 'out')) == 0
    assert 'No truth' in capsys.readouterr().out
    assert len(result_files(tmp_path / 'out')) == 4


@pytest.mark.parametrize('name', ['ytvis2019', 'vipseg'])  # one file; PNGs
def test_a_killed_run_goes_on_where_it_was(roots, unbroken, tmp_path, capsys, name):
    root, out = tmp_path / 'data', tmp_path / 'out'
    shutil.copytree(roots[name], root)
    # The run waits at the last image until it is killed: nobody writes into the pipe.
    last = max(path for path in root.rglob('*.jpg'))
    image = last.read_bytes()
    last.unlink()
    os.mkfifo(last)
    command = arguments(name, root, out)
    process = subprocess.Popen(
        [sys.executable, '-m', 'videomt_ros', *command], stderr=subprocess.DEVNULL
    )
    # A video is finished once it is so in both modes.
    while not all(list(out.glob(f'parts/{mode}/0*.json')) for mode in ('published', 'live')):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    last.unlink()
    last.write_bytes(image)
    assert not (out / 'metrics.json').exists()

    assert main(command) == 1
    assert '--resume' in capsys.readouterr().err
    assert main([*command, '--resume']) == 0
    assert 'of 4 videos were finished before' in capsys.readouterr().out
    assert result_files(out) == result_files(unbroken[name])
    assert figures(out) == figures(unbroken[name])


def torchrun(*more):
    """Run the verb in two processes; none of them outlives a test that gave up."""
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone']
    command += ['--nproc-per-node', '2', '-m', 'videomt_ros', *more]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.mark.parametrize('name', ['ytvis2019', 'vspw'])
def test_two_processes_give_what_one_gives(roots, unbroken, tmp_path, name):
    done = torchrun(*arguments(name, roots[name], tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('report.html') == 1
    assert result_files(tmp_path) == result_files(unbroken[name])
    assert figures(tmp_path) == figures(unbroken[name])
    assert json.loads((tmp_path / 'metrics.json').read_text())['run']['processes'] == 2


def test_two_processes_give_up_together(roots, unbroken):
    done = torchrun(*arguments('ytvis2019', roots['ytvis2019'], unbroken['ytvis2019']))
    assert done.returncode != 0
    assert 'holds results already' in done.stderr


def test_a_file_of_a_published_model_has_the_published_score(roots, tmp_path, capsys):
    net = load_model('demo')
    net.config = replace(net.config, name='videomt-dinov2-small-ytvis2019')
    save_model(net, tmp_path / 'mine.safetensors')
    command = arguments('ytvis2019', roots['ytvis2019'], tmp_path / 'out', '--limit', '1')
    command[command.index('demo')] = str(tmp_path / 'mine.safetensors')
    assert main([*command, '--mode', 'live']) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ['live', 'paper', '(YouTube-VIS', '2019', 'val)']
    assert (rows[1][0], rows[1][2]) == ('AP', '52.8')


def test_an_interruption_prints_how_to_resume(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt), resume_hint(tmp_path):
        raise KeyboardInterrupt
    assert f'Interrupted. What is finished is in {tmp_path}; --resume' in capsys.readouterr().err
    with pytest.raises(OSError, match='^disk full$'), resume_hint(tmp_path):
        raise OSError('disk full')
    (tmp_path / 'run.json').touch()
    full = pytest.raises(OSError, match='^disk full. What is finished is in .* --resume goes on')
    with full, resume_hint(tmp_path):
        raise OSError('disk full')


def test_what_failed_on_the_clock_is_named_too(tmp_path, capsys):
    failure = {'video': 'v7', 'mode': 'real_time', 'error': 'no such image'}
    clock = {'factor': 1.0, 'latency_ms': 5.0, 'measured_ms': None, 'sweep_figure': 'AP'}
    counts = {'frames': 1, 'processed': 1, 'dropped': 0}
    metrics = {
        'run': {'num_videos': 2, 'num_resumed': 0, 'notes': []},
        'failures': [],
        'real_time': {**clock, **counts, 'scores': {}, 'sweep': [], 'failures': [failure]},
    }
    assert print_result(metrics, ('live',), {}, tmp_path) == 0
    assert 'v7 (real_time): no such image' in capsys.readouterr().err


def test_the_table_sets_the_figures_beside_the_paper():
    metrics = {
        'published': {
            'benchmark': 'vspw',
            'figures': {'mIoU': 0.5, 'mVC16': 0.75, 'mVC16_as_printed': 0.8},
        },
        'live': {'figures': {'mIoU': 0.25, 'mVC16': None, 'mVC16_as_printed': 1.0}},
    }
    paper_score = {'benchmark': 'VSPW val', 'mVC16': 95.0, 'mIoU': 64.9}
    rows = [row.split() for row in table(metrics, ('published', 'live'), paper_score)]
    assert rows == [
        ['published', 'live', 'paper', '(VSPW', 'val)'],
        ['mIoU', '50.0', '25.0', '64.9'],
        ['mVC16', '75.0', '–'],
        ['mVC16_as_printed', '80.0', '100.0', '95.0'],
    ]


def test_processes_that_nobody_started_are_not_waited_for(tmp_path, monkeypatch, capsys):
    command = arguments('ytvis2019', tmp_path, tmp_path / 'out')
    monkeypatch.setenv('WORLD_SIZE', '4')
    monkeypatch.setenv('RANK', '0')
    assert main(command) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert 'WORLD_SIZE=4 asks for 4 processes that nobody started: MASTER_ADDR' in line


def test_bad_records_are_left_out_counted_and_listed_on_request(roots, tmp_path, capsys):
    root, out = tmp_path / 'data', tmp_path / 'out'
    shutil.copytree(roots['ytvis2019'], root)
    (path,) = root.rglob('*.json')
    content = json.loads(path.read_text())
    for annotation in content['annotations']:
        del annotation['iscrowd']
    content['annotations'][0]['category_id'] = None
    content['videos'][3]['height'] = 'high'
    path.write_text(json.dumps(content))
    assert main(arguments('ytvis2019', root, out)) == 1
    assert 'expected height to be' in capsys.readouterr().err
    assert main(arguments('ytvis2019', root, out, '--skip-bad')) == 0
    captured = capsys.readouterr()
    metrics = json.loads((out / 'metrics.json').read_text())
    lost = [a for a in content['annotations'][1:] if a['video_id'] == content['videos'][3]['id']]
    assert len(metrics['left_out']) == 2 + len(lost)
    note = f'{path.name}: {len(content["annotations"])} annotations without iscrowd'
    assert [text.startswith(note) for text in metrics['notes']] == [True]
    assert len(metrics['live']['per_video']) == 3
    # Each is told once: on stderr, and among the notes of the report.
    summary = f'{len(metrics["left_out"])} bad records were left out (--skip-bad): '
    assert captured.err.count(summary) == captured.err.count(note) == 1
    assert captured.out.count(summary) == captured.out.count(note) == 0
    page = (out / 'report.html').read_text()
    assert f'{len(metrics["left_out"])} bad records of the data set' in page
    assert page.count('expected height to be') == page.count(note) == 1
    # A resumed run has the same videos.
    assert main(arguments('ytvis2019', root, out, '--skip-bad', '--resume')) == 0
