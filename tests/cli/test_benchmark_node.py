"""`videomt benchmark node`: it runs the real node, and its counts add up."""

from __future__ import annotations

import json

import pytest

from videomt_ros.cli.argument_types import image_size
from videomt_ros.cli.benchmark_node import rows


@pytest.mark.ros
def test_a_short_run_measures_one_camera_and_two(tmp_path, monkeypatch, capsys):
    from videomt_ros.__main__ import main

    monkeypatch.chdir(tmp_path)
    options = ['--sizes', '64x48', '--cameras', '1', '2', '--seconds', '0.3', '--max-rate', '2']
    options += ['--precision', 'fp32']
    assert main(['benchmark', 'node', *options]) == 0
    report = json.loads((tmp_path / 'node_speed.json').read_text())
    assert report['metadata']['model'] == 'demo'
    assert [(r['width'], r['height'], r['cameras']) for r in report['results']] == [
        (64, 48, 1),
        (64, 48, 2),
    ]
    for result in report['results']:
        assert (result['engine'], result['precision']) == ('eager', 'float32')
        half = result['half']
        assert half['# of Frames Sent'] >= 2 * result['cameras']
        assert 0 <= half['# of Missed Frames'] < half['# of Frames Sent']
        assert half['Min. End-to-End Latency (ms)'] <= half['P50 End-to-End Latency (ms)']
        assert half['P99 End-to-End Latency (ms)'] <= half['Max. End-to-End Latency (ms)']
        assert result['cpu_ms_per_frame'] > 0
        assert result['stages_ms']['network_p50_ms'] > 0
        assert any(trial['kept_up'] for trial in result['trials']) == bool(result['peak'])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith('|')]
    assert len(rows) == 4


def test_the_table_has_a_row_for_each_result():
    result = {
        'width': 640,
        'height': 480,
        'cameras': 4,
        'peak_rate_hz': None,
        'half_rate_hz': 0.5,
        'half': {},
        'stages_ms': {'decode_p50_ms': 1.0, 'publish_p50_ms': 2.0, 'network_p50_ms': 30.0},
        'cpu_ms_per_frame': 40.0,
    }
    head, row = rows([result])
    found = dict(zip(head, row, strict=True))
    assert found['images'] == '640x480'
    assert found['peak, Hz each'] == '-'
    assert found['rest ms'] == '3.0'
    assert found['p95 ms'] == 'nan'


def test_sizes_are_written_as_width_x_height():
    assert image_size('640x480') == (640, 480)
    for text in ('640', '640x', 'x480', '4x480', '640x-480', '640*480'):
        with pytest.raises(Exception, match='such as 640x480'):
            image_size(text)
