"""The settings of a stream; `test_stream.py` holds the ways in which they can be wrong."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from videomt_ros.inference import StreamSettings


def test_settings_take_numbers_of_any_kind():
    settings = StreamSettings(
        score_threshold=np.float32(0.25), min_area=np.int64(3), gap_s=2, class_filter=['cat']
    )
    assert settings == StreamSettings(
        score_threshold=0.25, min_area=3, gap_s=2.0, class_filter=('cat',)
    )
    assert type(settings.min_area) is int
    assert type(settings.gap_s) is float


def test_each_setting_says_its_meaning_and_limits():
    for item in fields(StreamSettings):
        assert item.metadata['meaning'].endswith('.')
        if isinstance(item.default, str):
            assert item.default in item.metadata['choices']
        elif not isinstance(item.default, tuple):
            lowest, highest = item.metadata['range']
            assert lowest <= item.default <= highest
