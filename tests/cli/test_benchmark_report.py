"""What every `videomt benchmark` prints and writes."""

from __future__ import annotations

import argparse
import json

import pytest

from videomt_ros.cli.benchmark_report import Report, digits, markdown

MACHINE = {'hardware': 'a CPU, 2 threads', 'versions': 'numpy 2.3, Python 3.11'}


def test_a_table_is_markdown_with_aligned_columns():
    assert markdown([('name', 'ms'), ('a step', '12.3'), ('b', '4')]) == [
        '| name   |   ms |',
        '|--------|-----:|',
        '| a step | 12.3 |',
        '| b      |    4 |',
    ]
    assert markdown([('a', 'b')], left=0) == ['| a | b |', '|--:|--:|']


@pytest.mark.parametrize(
    ('value', 'text'), [(1234.4, '1234'), (99.96, '100.0'), (12.34, '12.3'), (0.126, '0.13')]
)
def test_numbers_have_three_figures(value, text):
    assert digits(value) == text


def test_the_file_holds_what_is_known_so_far(tmp_path, capsys):
    path = tmp_path / 'speed.json'
    args = argparse.Namespace(json=path, command='videomt benchmark model --size S')
    report = Report(args, 'model', MACHINE, network='ViT-S', sizes=[1, 2])
    assert json.loads(path.read_text())['results'] == []
    report.add(side='ours', median_ms={'step': 2.0}, samples_ms={'step': [1.0, 2.0, 4.0]})
    report.add(side='theirs', median_ms={'step': 3.0}, samples_ms={'step': [3.0]})
    found = json.loads(path.read_text())
    assert [result['side'] for result in found['results']] == ['ours', 'theirs']
    metadata = found['metadata']
    assert metadata['Test Name'] == 'videomt benchmark model'
    assert metadata['command'] == args.command
    assert {key: metadata[key] for key in MACHINE} == MACHINE
    assert metadata['sizes'] == [1, 2]
    assert len(metadata['load_average_before']) == 3
    report.table([('', 'ms'), ('a', '1')])
    report.end('A is fast.')
    assert capsys.readouterr().out.splitlines() == [
        'hardware: a CPU, 2 threads',
        'versions: numpy 2.3, Python 3.11',
        'network: ViT-S',
        '',
        '|   | ms |',
        '|---|---:|',
        '| a |  1 |',
        '',
        'A is fast.',
        '',
        f'All figures: {path}',
    ]


def test_a_file_that_cannot_be_written_is_named_before_the_measurement(tmp_path):
    (tmp_path / 'file').write_text('')
    args = argparse.Namespace(json=tmp_path / 'file' / 'speed.json', command='')
    with pytest.raises(OSError, match='file'):
        Report(args, 'model', MACHINE)
