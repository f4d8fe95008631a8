"""Schedules at their corners, worked out by hand."""

from __future__ import annotations

import pytest

from videomt_ros.training.optimiser import (
    learning_rate_factor,
    learning_rate_factors,
    masked_attention_probabilities,
)


def test_schedules_start_turn_and_end_where_they_should():
    rates = [learning_rate_factor(step, 10, 110, 0.9) for step in range(111)]
    assert rates[0] == 0 and rates[10] == 1 and rates[110] == 0
    assert all(a < b for a, b in zip(rates[:10], rates[1:11], strict=True))
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert rates[60] == pytest.approx(0.5**0.9)


@pytest.mark.parametrize(
    ('step', 'vit', 'new'),
    [
        (0, 0, 0),
        (499, 0, 499 / 500),
        (500, 0, 1),  # what is new has risen, the ViT begins
        (501, 1 / 1000, (39_499 / 39_500) ** 0.9),
        (1000, 1 / 2, (39_000 / 39_500) ** 0.9),
        (1499, 999 / 1000, (38_501 / 39_500) ** 0.9),
        (1500, 1, (38_500 / 39_500) ** 0.9),  # decays from here, from its own top
        (20_750, (1 / 2) ** 0.9, (19_250 / 39_500) ** 0.9),
        (39_999, (1 / 38_500) ** 0.9, (1 / 39_500) ** 0.9),
        (40_000, 0, 0),  # both end together
    ],
)
def test_the_two_stages_of_the_published_recipe(step, vit, new):
    factors = learning_rate_factors(step, 500, 1000, 40_000, 0.9)
    assert factors == {'vit': pytest.approx(vit), 'new': pytest.approx(new)}


def test_without_a_second_stage_all_rise_together():
    for step in (0, 250, 500, 5000, 10_000):
        factor = learning_rate_factor(step, 500, 10_000, 0.9)
        assert learning_rate_factors(step, 500, None, 10_000, 0.9) == {
            'vit': factor,
            'new': factor,
        }


def test_stages_of_no_steps():
    assert learning_rate_factors(0, 0, 0, 10, 1.0) == {'vit': 1.0, 'new': 1.0}
    assert learning_rate_factors(3, 4, 0, 8, 1.0) == {'vit': 0.0, 'new': 3 / 4}
    assert learning_rate_factors(4, 4, 0, 8, 1.0) == {'vit': 1.0, 'new': 1.0}
    assert learning_rate_factors(0, 0, 2, 8, 1.0) == {'vit': 0.0, 'new': 1.0}


def test_a_run_that_ends_within_its_warm_up_only_rises():
    assert learning_rate_factors(5, 4, 8, 6, 0.9)['vit'] == 1 / 8
    assert learning_rate_factors(5, 10, 8, 6, 0.9) == {'vit': 0.0, 'new': 1 / 2}


def test_masked_attention_of_all_blocks_fades_along_a_line():
    fading = [masked_attention_probabilities(step, 100, 0.5, 3) for step in (0, 25, 50, 99)]
    assert fading == [[1.0] * 3, [0.5] * 3, [0.0] * 3, [0.0] * 3]


@pytest.mark.parametrize(
    ('step', 'expected'),
    [
        # EoMT-L on COCO for 88,692 steps: block i fades from 14,782 (i + 1) to 14,782 (i + 2).
        (0, [1, 1, 1, 1]),
        (14_782, [1, 1, 1, 1]),
        (14_782 + 7_391, [(1 / 2) ** 0.9, 1, 1, 1]),
        (29_564, [0, 1, 1, 1]),
        (44_346 + 14_782 // 2, [0, 0, (1 / 2) ** 0.9, 1]),
        (73_910 - 1_478, [0, 0, 0, (1_478 / 14_782) ** 0.9]),
        (73_910, [0, 0, 0, 0]),
        (88_691, [0, 0, 0, 0]),
    ],
)
def test_masked_attention_of_an_image_model_fades_block_by_block(step, expected):
    found = masked_attention_probabilities(step, 88_692, 5 / 6, 4, in_turn=True)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ('step', 'expected'),
    [
        # EoMT-B on COCO for 88,692 steps: blocks begin at 14,782, 36,955 and 59,128 and end at
        # 29,564, 51,737 and 73,910. EoMT-S the same, with twice the steps.
        (14_782, [1, 1, 1]),
        (14_782 + 7_391, [(1 / 2) ** 0.9, 1, 1]),
        (29_564, [0, 1, 1]),
        (36_955, [0, 1, 1]),
        (36_955 + 7_391, [0, (1 / 2) ** 0.9, 1]),
        (51_737, [0, 0, 1]),
        (59_128, [0, 0, 1]),
        (59_128 + 7_391, [0, 0, (1 / 2) ** 0.9]),
        (73_910, [0, 0, 0]),
    ],
)
def test_three_blocks_fade_with_pauses_between(step, expected):
    found = masked_attention_probabilities(step, 88_692, 5 / 6, 3, in_turn=True)
    assert found == pytest.approx(expected)


def test_a_single_block_fades_last():
    found = [masked_attention_probabilities(s, 60, 5 / 6, 1, in_turn=True) for s in (40, 45, 50)]
    assert found == [[1.0], pytest.approx([(1 / 2) ** 0.9]), [0.0]]


def test_without_masked_attention_no_block_has_any():
    for in_turn in (False, True):
        assert masked_attention_probabilities(0, 100, 0.0, 2, in_turn) == [0.0, 0.0]
