"""`videomt score` from files to JSON and table, also where torch cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.evaluation.score_files import (
    instances,
    predictions,
    write_json,
    write_vipseg,
    write_vspw,
)
from videomt_ros.cli import main
from videomt_ros.evaluation.families import FAMILIES
from videomt_ros.evaluation.figures import COUNTS
from videomt_ros.evaluation.score_report import ScoreReport


def write_ytvis(folder):
    truth = instances()
    return (
        write_json(folder / 'truth' / 'instances.json', truth),
        write_json(folder / 'results' / 'results.json', predictions(truth)),
    )


WRITERS = {'ytvis': write_ytvis, 'vipseg': write_vipseg, 'vspw': write_vspw}
UNDEFINED = {'ytvis': {'APm', 'APl'}, 'vipseg': set(), 'vspw': {'mVC16'}}
HEADLINES = {'ytvis': 'AP 100.0', 'vipseg': 'VPQ 100.0', 'vspw': 'mIoU 100.0'}


def arguments(benchmark, truth, results, *more):
    files = ['--benchmark', benchmark, '--truth', str(truth), '--results', str(results)]
    return ['score', *files, *map(str, more)]


@pytest.fixture(params=WRITERS)
def perfect(request, tmp_path):
    """Family, truth, and results that are the truth."""
    return request.param, *WRITERS[request.param](tmp_path)


@pytest.fixture
def fails(capsys):
    """Check that a command ends with 1 and one line, and return the line."""

    def run(*args):
        assert main(arguments(*args)) == 1
        captured = capsys.readouterr()
        assert captured.out == ''
        assert captured.err.startswith('videomt score: ')
        assert captured.err.count('\n') == 1
        return captured.err

    return run


def check_perfect(benchmark, content):
    expected = dict.fromkeys(FAMILIES[benchmark].figures, 1) | dict.fromkeys(UNDEFINED[benchmark])
    if benchmark != 'vspw':
        expected |= dict.fromkeys(COUNTS, 0) | {'MT': 4}
    assert {name: content[name] for name in expected} == pytest.approx(expected)
    assert content['benchmark'] == benchmark
    assert content['figures'] == {name: content[name] for name in expected}
    assert len(ScoreReport.from_json(content).per_video) == 2


def test_perfect_results_score_one(perfect, tmp_path, capsys):
    benchmark, truth, results = perfect
    out = tmp_path / 'new' / 'out.json'
    assert main(arguments(benchmark, truth, results, '--json', out)) == 0
    content = json.loads(out.read_text(), parse_constant=pytest.fail)
    check_perfect(benchmark, content)
    assert [path.name for path in out.parent.iterdir()] == ['out.json']
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == HEADLINES[benchmark]
    table = '\n'.join(printed)
    assert all(f'  {name} ' in table for name in FAMILIES[benchmark].figures if '_' not in name)
    assert max(map(len, printed)) <= 120


def test_it_needs_no_torch(perfect, tmp_path):
    benchmark, truth, results = perfect
    out = tmp_path / 'out.json'
    code = (
        'import sys\n'
        'blocked = ["torch", "torchvision", "timm", "rclpy", "lightning"]\n'
        'sys.modules.update(dict.fromkeys(blocked))\n'  # importing any of them now fails
        'from videomt_ros.cli import main\n'
        'sys.exit(main(sys.argv[1:]))'
    )
    command = [sys.executable, '-c', code, *arguments(benchmark, truth, results, '--json', out)]
    done = subprocess.run(command, capture_output=True, text=True)
    # On a slow machine it says that it is at work.
    told = [line for line in done.stderr.splitlines() if ' videos, ' not in line]
    assert (done.returncode, told) == (0, [])
    check_perfect(benchmark, json.loads(out.read_text()))


def test_the_table_stands_in_columns(tmp_path, capsys):
    assert main(arguments('vipseg', *write_vipseg(tmp_path))) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(line for line in lines if 'things' in line)
    row = next(line for line in lines if line.split()[:1] == ['VPQ_five'])
    ends = [head.index(title) + len(title) for title in ('all', 'things', 'stuff')]
    assert all(row[:end].endswith('100.0') for end in ends)


def test_several_truths_stand_side_by_side(tmp_path, capsys):
    one, other = instances((1,)), instances((2,))
    truths = [write_json(tmp_path / f'gt_{name}.json', truth) for name, truth in
              (('short', one), ('long', other))]  # fmt: skip
    results = write_json(tmp_path / 'results.json', predictions(one))
    out = tmp_path / 'out.json'
    truth_arguments = ['--truth', *map(str, truths)]
    options = ['--benchmark', 'ytvis', '--results', str(results), '--json', str(out)]
    assert main(['score', *truth_arguments, *options]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert next(line for line in printed if 'mean' in line).split()[1:] == [
        'mean', 'gt_short', 'gt_long'
    ]  # fmt: skip
    assert next(line for line in printed if line.startswith('  AP ')).split()[1:4] == [
        '50.0', '100.0', '0.0'
    ]  # fmt: skip
    note = 'note: gt_long: 1 video without results, whose objects count as missed: v2.'
    assert printed[-2:] == [note, 'AP 50.0']
    content = json.loads(out.read_text())
    assert content['AP'] == 1 / 2
    assert {name: part['AP'] for name, part in content['parts'].items()} == {
        'gt_short': 1, 'gt_long': 0
    }  # fmt: skip


def test_results_may_be_zipped(tmp_path, capsys):
    truth, results = write_ytvis(tmp_path)
    archive = tmp_path / 'upload.zip'
    with zipfile.ZipFile(archive, 'w') as file:
        file.write(results, 'results.json')
    assert main(arguments('ytvis', truth, archive)) == 0
    assert capsys.readouterr().out.endswith('AP 100.0\n')


@pytest.mark.parametrize('inside', ['', 'mine'])
@pytest.mark.parametrize('benchmark', ['vipseg', 'vspw'])
def test_folders_of_results_may_be_zipped(benchmark, inside, tmp_path, capsys, fails):
    truth, results = WRITERS[benchmark](tmp_path)
    archive = tmp_path / 'upload.zip'
    with zipfile.ZipFile(archive, 'w') as file:
        for path in results.rglob('*.*'):
            file.write(path, Path(inside) / path.relative_to(results))
    assert main(arguments(benchmark, truth, archive)) == 0
    assert capsys.readouterr().out.endswith(f'{HEADLINES[benchmark]}\n')
    archive.write_bytes(archive.read_bytes()[:-40])
    assert 'upload.zip: Expected a sound zip file' in fails(benchmark, truth, archive)


def test_results_of_another_benchmark_are_told(tmp_path, fails):
    truth, results = write_ytvis(tmp_path / 'a')
    panoptic, folder = write_vipseg(tmp_path / 'b')
    assert 'results of another benchmark?' in fails('ytvis', truth, folder / 'pred.json')
    assert 'results of instances?' in fails('vipseg', panoptic, results)


def test_a_truth_without_objects_and_odd_scores_are_noted(tmp_path, capsys):
    truth, results = write_ytvis(tmp_path)
    entries = json.loads(results.read_text())
    entries[0] |= {'score': 87.5, 'video_id': 1.0, 'category_id': 1.0}
    write_json(results, entries)
    assert main(arguments('ytvis', truth, results)) == 0
    printed = capsys.readouterr().out
    assert 'note: Scores outside of 0 to 1: 1, such as 87.5.' in printed
    assert printed.endswith('AP 100.0\n')
    write_json(truth, json.loads(truth.read_text()) | {'annotations': []})
    assert main(arguments('ytvis', truth, results)) == 0
    assert 'note: The truth has no objects' in capsys.readouterr().out


def test_a_score_that_is_no_number_is_refused_with_its_place(tmp_path, fails, capsys):
    truth, results = write_ytvis(tmp_path)
    text = results.read_text().replace('"score": 0.9', '"score": NaN', 1)
    results.write_text(text)
    assert 'Prediction [0]: expected score to be a finite number, got nan' in fails(
        'ytvis', truth, results
    )
    assert main(arguments('ytvis', truth, results, '--skip-bad')) == 0
    assert '1 bad record was left out' in capsys.readouterr().err


def test_unlikely_tracks_can_be_left_out(tmp_path, capsys):
    truth, results = write_ytvis(tmp_path)
    entries = json.loads(results.read_text())
    write_json(results, [*entries, entries[0] | {'score': 0.1}])
    found = []
    for more in ((), ('--track-score', '0.5')):
        assert main(arguments('ytvis', truth, results, *more)) == 0
        lines = capsys.readouterr().out.splitlines()
        found.append(next(line.split()[1] for line in lines if line.startswith('  DetA ')))
    assert found == ['80.0', '100.0']  # 36 of 36 + 9


def test_true_pngs_may_lie_elsewhere(tmp_path, capsys, fails):
    truth, results = write_vipseg(tmp_path)
    masks = (truth.parent / 'panomasksRGB').rename(tmp_path / 'masks')
    assert main(arguments('vipseg', truth, results, '--truth-masks', masks)) == 0
    assert capsys.readouterr().out.endswith('VPQ 100.0\n')
    assert 'panomasksRGB' in fails('vipseg', truth, results)


def test_an_empty_list_of_results_scores_zero(tmp_path, capsys):
    truth, results = write_ytvis(tmp_path)
    write_json(results, [])
    assert main(arguments('ytvis', truth, results)) == 0
    assert capsys.readouterr().out.endswith('AP 0.0\n')


def test_a_missing_file_is_named(perfect, tmp_path, fails):
    benchmark, truth, results = perfect
    assert 'absent' in fails(benchmark, tmp_path / 'absent', results)
    assert 'absent' in fails(benchmark, truth, tmp_path / 'absent')


@pytest.mark.parametrize('benchmark', ['ytvis', 'vipseg'])
def test_broken_json_is_named(benchmark, tmp_path, fails):
    truth, results = WRITERS[benchmark](tmp_path)
    broken = results / 'pred.json' if benchmark == 'vipseg' else results
    for path in (broken, truth):
        path.write_text(path.read_text()[:-20])
        assert path.name in fails(benchmark, truth, results)


def test_results_of_another_set_are_refused(tmp_path, fails):
    truth, _ = write_ytvis(tmp_path / 'ytvis')
    others = write_json(tmp_path / 'others.json', predictions(instances((8, 9))))
    assert '4 results of 2 videos that it lacks: 8, 9' in fails('ytvis', truth, others)
    for benchmark, write in (('vipseg', write_vipseg), ('vspw', write_vspw)):
        truth, _ = write(tmp_path / benchmark / 'a')
        _, results = write(tmp_path / benchmark / 'b', names=('c', 'd'))
        assert 'that it lacks: c, d' in fails(benchmark, truth, results)


def test_results_of_videos_that_the_truth_lacks_are_counted_and_the_rest_is_scored(
    perfect, tmp_path, capsys, fails
):
    benchmark, truth, results = perfect
    if benchmark == 'ytvis':
        more = predictions(instances((8, 9)))
        write_json(results, [*json.loads(results.read_text()), *more, more[0]])
        note = 'note: Ignored 5 results of 2 videos that the truth lacks: 8, 9.'
    elif benchmark == 'vipseg':
        _, others = write_vipseg(tmp_path / 'others', ('c', 'd'))
        content = json.loads((results / 'pred.json').read_text())
        content['annotations'] += json.loads((others / 'pred.json').read_text())['annotations']
        write_json(results / 'pred.json', content)
        note = 'note: Ignored 2 results of 2 videos that the truth lacks: c, d.'
    else:
        _, others = write_vspw(tmp_path / 'others', ('c',))
        (others / 'c').rename(results / 'c')
        note = 'note: Ignored 9 results of 1 video that the truth lacks: c.'
    assert main(arguments(benchmark, truth, results)) == 0
    printed = capsys.readouterr().out.splitlines()
    assert note in printed
    assert printed[-1] == HEADLINES[benchmark]
    assert 'of the truth' in fails(benchmark, truth, results, '--strict')


def test_a_missing_true_mask_is_named_and_the_other_video_is_scored(tmp_path, capsys, fails):
    for benchmark, write in (('vipseg', write_vipseg), ('vspw', write_vspw)):
        truth, results = write(tmp_path / benchmark)
        [mask] = (truth if truth.is_dir() else truth.parent).rglob('*/b/**/00000004.png')
        if benchmark == 'vspw':  # its frames are those of its images and masks
            for each in mask.parent.iterdir():
                image = mask.parent.parent / 'origin' / f'{each.stem}.jpg'
                image.parent.mkdir(exist_ok=True)
                image.write_bytes(b'')
        mask.unlink()
        assert main(arguments(benchmark, truth, results)) == 0
        printed = capsys.readouterr().out
        assert 'note: 1 video without usable truth, left out of the figures: b: ' in printed
        assert mask.name in printed
        assert printed.splitlines()[-1] == HEADLINES[benchmark]
        assert mask.name in fails(benchmark, truth, results, '--strict')


def test_nothing_is_written_where_scoring_fails(tmp_path, fails):
    truth, results = write_ytvis(tmp_path)
    out = tmp_path / 'out.json'
    out.write_text('older')
    results.write_text('{')
    fails('ytvis', truth, results, '--json', out)
    assert out.read_text() == 'older'


def test_a_file_that_cannot_be_written_costs_no_figure(tmp_path, capsys):
    truth, results = write_ytvis(tmp_path)
    assert main(arguments('ytvis', truth, results, '--json', tmp_path)) == 1
    output = capsys.readouterr()
    assert 'AP50 ' in output.out
    assert 'Is a directory' in output.err


@pytest.mark.parametrize('score', ['nan', 'inf', 'high'])
def test_a_track_score_is_a_number(score, capsys):
    with pytest.raises(SystemExit):
        main(arguments('ytvis', 'a', 'b', '--track-score', score))
    assert f'--track-score: expected a number, got {score}' in capsys.readouterr().err


def test_a_split_that_is_not_there_is_named(tmp_path, fails):
    truth, results = write_vspw(tmp_path)
    assert 'train.txt' in fails('vspw', truth, results, '--split', 'train')


@pytest.mark.parametrize(
    ('benchmark', 'option'),
    [('ytvis', '--truth-masks'), ('vipseg', '--split'), ('vspw', '--track-score')],
)
def test_options_of_other_benchmarks_are_refused(benchmark, option, tmp_path, fails):
    truth, results = WRITERS[benchmark](tmp_path)
    assert f'{option} is for' in fails(benchmark, truth, results, option, '1')


def test_bad_records_are_left_out_counted_and_listed_on_request(tmp_path, capsys):
    truth, results = write_ytvis(tmp_path)
    content, made = json.loads(truth.read_text()), json.loads(results.read_text())
    for annotation in content['annotations']:
        del annotation['iscrowd']
    content['annotations'][0]['segmentations'][0]['counts'] = '1'
    truth.write_text(json.dumps(content))
    results.write_text(json.dumps([*made, {**made[0], 'score': 'sure'}]))
    assert main(arguments('ytvis', truth, results)) == 1
    assert 'Annotation 11' in capsys.readouterr().err
    out = tmp_path / 'out.json'
    assert main(arguments('ytvis', truth, results, '--skip-bad', '--json', out)) == 0
    report = json.loads(out.read_text())
    assert [text.partition(': ')[2].partition(':')[0] for text in report['left_out']] == [
        'Annotation 11, frame 0',
        'Prediction [4]',
    ]
    captured = capsys.readouterr()
    assert (
        '2 bad records were left out (--skip-bad): instances.json: Annotation 11' in captured.err
    )
    note = 'note: instances.json: 4 annotations without iscrowd, which was taken as 0.'
    assert captured.out.count(note) == 1
    # A prediction of the object that was left out is a false one.
    assert report['figures']['AP'] < 1
