"""JSON that is parsed piece by piece."""

from __future__ import annotations

import io
import json

import pytest

from videomt_ros.datasets import json_files
from videomt_ros.datasets.json_files import stream_objects

RECORDS = [{'a': 1, 'b': [{'c': 'é\\"]}'}]}, {}, {'long': 'x' * 300}, {'d': None}]


@pytest.mark.parametrize('chunk', [1, 7, 1 << 20])
@pytest.mark.parametrize('indent', [None, 3])
def test_objects_are_those_of_the_whole_list(monkeypatch, chunk, indent):
    monkeypatch.setattr(json_files, '_CHUNK', chunk)
    for records in ([], RECORDS[:1], RECORDS):
        text = json.dumps(records, ensure_ascii=False, indent=indent)
        assert list(stream_objects(io.BytesIO(f' {text}\n'.encode()))) == records


def test_each_object_meets_the_hook():
    file = io.BytesIO(b'[{"a": {}}]')
    assert list(stream_objects(file, lambda record: list(record))) == [['a']]


@pytest.mark.parametrize(
    'data',
    [
        b'',
        b'{}',
        b'[',
        b'[1]',
        b'[{}',
        b'[{},]',
        b'[{} {}]',
        b'[{}, 1]',
        b'[{}] 1',
        b'[{"a": }]',
        b'[,{}]',
        '[{"a": 1}]'.encode('utf-8-sig'),
        '[{"a": 1}]'.encode('utf-16'),
        b'[{"a": "\xff"}]',
    ],
)
def test_what_is_no_plain_list_of_objects_is_left_to_the_other_parser(data):
    with pytest.raises(ValueError):
        list(stream_objects(io.BytesIO(data)))
