"""VPQ: cases worked out on paper, then agreement with a plain implementation."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from tests.evaluation.metrics.plain_panoptic import (
    assert_agrees,
    assert_order_does_not_matter,
    plain_pq,
    plain_vpq,
)
from videomt_ros.evaluation.metrics.vpq import VideoPanopticQuality

IS_THING = {3: True, 4: True, 8: False, 9: False}
THING, OTHER_THING, STUFF, OTHER_STUFF = IS_THING


def image(text: str) -> np.ndarray:
    """Build an image of one row, in which a digit is an id and 0 is void."""
    return np.array([[int(digit) for digit in text]], np.uint32)


def segments(text: str, categories: dict[int, int], crowds: tuple[int, ...] = ()) -> list[dict]:
    """List the segments that occur in a text, in the order of `categories`."""
    return [
        {
            'id': number,
            'category_id': category,
            'iscrowd': int(number in crowds),
            'area': text.count(str(number)),
        }
        for number, category in categories.items()
        if str(number) in text
    ]


def frame(true: str, pred: str, true_categories=None, pred_categories=None, crowds=()):
    """Build a frame; ids are of class THING unless `categories` says otherwise."""
    true_categories = true_categories or dict.fromkeys(range(1, 10), THING)
    pred_categories = pred_categories or dict.fromkeys(range(1, 10), THING)
    return (
        image(true),
        segments(true, true_categories, crowds),
        image(pred),
        segments(pred, pred_categories),
    )


def score(*videos: list[tuple]) -> dict[str, float | None]:
    return scores_of(*videos).figures()


def scores_of(*videos: list[tuple]):
    quality = VideoPanopticQuality(IS_THING)
    for video in videos:
        quality.start_video()
        for one in video:
            quality.update(*one)
    return quality.result()


def test_names_of_the_figures():
    names = ['VPQ', 'VPQ_five', 'VPQ1', 'VPQ2', 'VPQ4', 'VPQ6', 'VPQ8']
    expected = [name + suffix for name in names for suffix in ('', '_th', '_st')]
    assert list(score()) == expected


def test_no_frames_and_frames_of_void_are_undefined():
    assert set(score().values()) == {None}
    assert set(score([frame('0000', '0000')] * 8).values()) == {None}


def test_perfect():
    categories = {1: STUFF, 2: THING}
    result = score([frame('1122', '1122', categories, categories)] * 8)
    assert set(result.values()) == {1.0}


def test_nothing_predicted_and_everything_invented_are_zero():
    assert score([frame('1122', '0000')])['VPQ1'] == 0
    categories = {1: STUFF}  # 2 unlisted, so it is no void
    assert score([frame('2222', '1111', categories, {1: OTHER_THING})])['VPQ1'] == 0


def test_match_needs_more_than_half():
    # 2 of 4: no match, so one FN and one FP. 3 of 5: a match.
    assert score([frame('1111', '5588')])['VPQ1'] == 0
    assert score([frame('11110', '55577')])['VPQ1'] == pytest.approx(
        Fraction(3, 4) / (1 + Fraction(1, 2)), abs=1e-15
    )


def test_void_does_not_enlarge_the_union():
    # Predicted 1 has 4 pixels, 2 of them void: 2 / (4 + 3 - 2 - 2) = 2/3, not 2/5.
    assert score([frame('11100', '22' + '0' + '22')])['VPQ1'] == pytest.approx(2 / 3, abs=1e-15)


def test_unmatched_prediction_is_forgiven_where_more_than_half_is_void():
    # 5 matches 1. 6 has 2 of 4 pixels on void: an FP. With 3 of 5 it is forgiven.
    half = frame('1111122' + '00', '55555' + '6666', {1: THING, 2: STUFF})
    more = frame('1111122' + '000', '55555' + '66666', {1: THING, 2: STUFF})
    assert score([half])['VPQ1_th'] == pytest.approx(Fraction(1) / Fraction(3, 2), abs=1e-15)
    assert score([more])['VPQ1_th'] == 1
    assert score([more])['VPQ1'] == 1 / 2  # true 2 is missed: stuff has 0


def test_pixels_of_an_unlisted_true_id_are_not_void():
    # 5: 2 pixels on 1, 2 on an id without a segment: 2/4 is no match, and 0/4 is void.
    listed = {1: THING}
    assert score([frame('1199', '5555', listed)])['VPQ1'] == 0
    # As void: 2/2.
    assert score([frame('1100', '5555', listed)])['VPQ1'] == 1


def test_true_area_is_that_of_the_list():
    # The list says 6 where 4 pixels are drawn: 4 / (4 + 6 - 4) = 2/3.
    one = frame('1111', '5555')
    one[1][0]['area'] = 6
    assert score([one])['VPQ1'] == pytest.approx(2 / 3, abs=1e-15)


def test_true_segment_listed_without_pixels_is_missed():
    one = frame('1111', '5555')
    one[1].append({'id': 2, 'category_id': THING, 'iscrowd': 0, 'area': 3})
    assert score([one])['VPQ1'] == pytest.approx(2 / 3, abs=1e-15)


def test_crowd_is_never_missed_and_forgives_its_own_class():
    # True 1 is a crowd: no FN. 5, of its class, lies on it; 6 is of another class, an FP.
    def one(pred):
        return frame('111122', pred, {1: THING, 2: STUFF}, {5: THING, 6: OTHER_THING}, crowds=(1,))

    assert score([one('550000')])['VPQ1_th'] is None
    assert score([one('660000')])['VPQ1_th'] == 0
    assert score([one('660000')])['VPQ1'] == 0  # 2 is missed
    assert scores_of([one('556600')]).per_class[THING]['VPQ1'] is None


def test_crowd_and_void_forgive_together():
    # 5: 1 void + 1 crowd + 1 stuff: 2/3 forgiven. 6: 1 crowd + 1 stuff: 1/2 is an FP.
    one = frame('01' + '2' + '12', '55' + '5' + '66', {1: THING, 2: STUFF}, crowds=(1,))
    assert score([one])['VPQ1_th'] == 0
    one = frame('01' + '2' + '02', '55' + '5' + '00', {1: THING, 2: STUFF}, crowds=(1,))
    assert score([one])['VPQ1_th'] is None


def test_of_several_crowds_the_last_listed_forgives():
    # 5: 2 pixels on crowd 1, 1 on stuff.
    def of_thing(*order):
        categories = {number: STUFF if number == 3 else THING for number in order}
        return scores_of([frame('1132', '5550', categories, crowds=(1, 2))]).per_class[THING]

    assert of_thing(2, 1, 3)['VPQ1'] is None
    assert of_thing(1, 2, 3)['VPQ1'] == 0


def test_a_crowd_of_a_later_frame_is_the_last_wherever_it_is_listed():
    # Crowd 2 is second in frame 1, crowd 1 first in frame 2. 5 as above.
    first = frame('32', '00', {3: STUFF, 2: THING}, crowds=(2,))
    second = frame('113', '555', {1: THING, 3: STUFF}, crowds=(1,))
    assert scores_of([first, second]).per_class[THING]['VPQ2'] is None
    # Crowd 2 first, again: now it is 1 that comes later, and again in frame 2 that it counts.
    again = frame('1132', '5550', {1: THING, 3: STUFF, 2: THING}, crowds=(1, 2))
    assert scores_of([first, again]).per_class[THING]['VPQ2'] is None
    assert scores_of([again]).per_class[THING]['VPQ1'] == 0


def test_window_pools_its_frames_before_it_matches():
    # IoU 1/4 and 4/4 alone; together 5/8. k = 1: one match, one FN and FP over both windows.
    video = [frame('1111', '5000'), frame('1111', '5555')]
    result = score(video)
    assert result['VPQ1'] == pytest.approx(Fraction(1) / (1 + Fraction(1, 2) * 2), abs=1e-15)
    assert result['VPQ2'] == pytest.approx(Fraction(5, 8), abs=1e-15)
    assert result['VPQ4'] is None


def test_identity_switch_costs_only_in_windows():
    video = [frame('1111', '5555'), frame('1111', '6666')]
    result = score(video)
    assert result['VPQ1'] == 1
    assert result['VPQ2'] == 0  # 4/8 each


def test_windows_move_by_one_frame_and_count_alike():
    # Frames 1-2 match with 8/8. In 2-3 both predictions have 4/8: 1 is missed, 5 and 6 are wrong.
    video = [frame('1111', '5555'), frame('1111', '5555'), frame('1111', '6666')]
    result = score(video)
    assert result['VPQ2'] == pytest.approx(1 / (1 + Fraction(1 + 2, 2)), abs=1e-15)


def test_class_in_a_window_is_that_of_its_first_frame():
    # Predicted 5 is THING, then OTHER_THING: in a window of 2 it is THING, and right.
    video = [
        frame('1111', '5555', None, {5: THING}),
        frame('1111', '5555', None, {5: OTHER_THING}),
    ]
    scores = scores_of(video)
    assert scores.figures()['VPQ2'] == 1
    # Alone: THING has TP 1 and FN 1, OTHER_THING an FP.
    assert scores.per_class[THING]['VPQ1'] == pytest.approx(2 / 3, abs=1e-15)
    assert scores.per_class[OTHER_THING]['VPQ1'] == 0
    # The same of truth, and of its crowd flag.
    video = [frame('1111', '5555', {1: THING}), frame('1111', '5555', {1: STUFF})]
    assert score(video)['VPQ2'] == 1
    video = [frame('1111', '5555', crowds=(1,)), frame('1111', '5555')]
    assert score(video)['VPQ2'] is None
    assert score(video[::-1])['VPQ2'] == 1


def test_pixels_of_a_true_id_count_where_another_frame_lists_it():
    # In frame 2 true 1 is drawn but not listed: area 4 + 0, shared 3 + 1, IoU 4 / (4 + 4 - 4).
    # Without the pixels of frame 2 it would be 3/5.
    video = [frame('1111', '5550'), frame('1111', '5000', {2: THING})]
    assert score(video)['VPQ2'] == 1


def test_sums_run_over_all_videos():
    # Three matches in one video, a miss in the other: 3 / (3 + 1/2), not the mean of 1 and 0.
    right, wrong = [frame('11', '55')] * 3, [frame('11', '00'), frame('00', '55')]
    # The prediction of the other lies on void.
    assert score(right, wrong)['VPQ1'] == pytest.approx(3 / Fraction(7, 2), abs=1e-15)


def test_windows_do_not_cross_videos():
    assert score([frame('11', '55')], [frame('11', '55')])['VPQ2'] is None
    assert score([frame('11', '55')] * 2, [frame('11', '66')])['VPQ2'] == 1


def test_a_class_only_predicted_counts_as_zero():
    one = frame('1111' + '99', '5555' + '66', {1: STUFF}, {5: STUFF, 6: OTHER_STUFF})
    assert score([one])['VPQ1'] == 1 / 2
    assert score([one])['VPQ1_th'] is None
    assert score([one])['VPQ1_st'] == 1 / 2


def test_means_over_four_and_five_windows():
    # Right in 7 frames, a new id in the 8th. Windows with the switch: k = 1: none; 2: 1 of 7, no
    # match (FN, 2 FP); 4: 1 of 5, IoU 3/4 and an FP; 6: 1 of 3, 5/6 and an FP; 8: 7/8 and an FP.
    video = [frame('11', '55')] * 7 + [frame('11', '66')]
    two = 6 / (6 + Fraction(3, 2))
    four = (4 + Fraction(3, 4)) / (5 + Fraction(1, 2))
    six = (2 + Fraction(5, 6)) / (3 + Fraction(1, 2))
    eight = Fraction(7, 8) / (1 + Fraction(1, 2))
    result = score(video)
    expected = {'VPQ1': 1, 'VPQ2': two, 'VPQ4': four, 'VPQ6': six, 'VPQ8': eight}
    expected['VPQ'] = (1 + two + four + six) / 4
    expected['VPQ_five'] = (1 + two + four + six + eight) / 5
    for name, value in expected.items():
        assert result[name] == pytest.approx(float(value), abs=1e-15), name
        assert result[name + '_th'] == result[name]
        assert result[name + '_st'] is None


def test_mean_over_windows_needs_all_of_them():
    result = score([frame('11', '11')] * 7)
    assert (result['VPQ'], result['VPQ8'], result['VPQ_five']) == (1, None, None)
    assert score([frame('11', '11')] * 5)['VPQ'] is None


def test_per_class():
    categories = {1: STUFF, 2: THING, 3: OTHER_THING}
    video = [frame('1122', '1133', categories, categories)] * 8
    per_class = scores_of(video).per_class
    assert list(per_class) == list(IS_THING)
    assert set(per_class[STUFF].values()) == {1.0}
    assert set(per_class[THING].values()) == set(per_class[OTHER_THING].values()) == {0.0}
    assert set(per_class[OTHER_STUFF].values()) == {None}


def test_ids_of_24_bits_and_rows_of_runs():
    large = np.array([[2**24 - 1, 2**24 - 1], [2**24 - 2, 0]], np.uint32)
    listed = [
        {'id': 2**24 - 1, 'category_id': THING, 'iscrowd': 0, 'area': 2},
        {'id': 2**24 - 2, 'category_id': STUFF, 'iscrowd': 0, 'area': 1},
    ]
    assert score([(large, listed, large, listed)])['VPQ1'] == 1


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'pred_ids': image('555')}, r'one size .*\(1, 4\) and \(1, 3\)'),
        ({'true_ids': image('')[0], 'pred_ids': image('')[0]}, r'got \(0,\)'),
        ({'true_ids': image('1111').astype(np.int64)}, 'unsigned.*int64'),
        ({'pred_ids': image('5556')}, r'among the segments, not so \[6\]'),
        ({'pred_ids': image('0000')}, r'in the image, not so \[5\]'),
        ({'pred_segments': [{'id': 5, 'category_id': 77}]}, r'predicted .* category \[77\]'),
        (
            {'true_segments': [{'id': 1, 'category_id': 77, 'iscrowd': 0, 'area': 4}]},
            r'true .* category \[77\]',
        ),
        ({'pred_segments': [{'id': 5, 'category_id': THING}] * 2}, r'id \[5\] twice'),
        ({'true_segments': [{'id': 0, 'category_id': THING}]}, r'from 1 .* void\), got 0'),
        ({'pred_segments': [{'id': -5, 'category_id': THING}]}, 'predicted .* got -5'),
        (
            {'true_segments': [{'id': 1, 'category_id': THING, 'iscrowd': 0, 'area': 1}]},
            r'less for \[1\]',
        ),
        (
            {'true_segments': [{'id': 1, 'category_id': THING, 'iscrowd': 0, 'area': 0}]},
            r'less for \[1\]',
        ),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    names = ('true_ids', 'true_segments', 'pred_ids', 'pred_segments')
    arguments = dict(zip(names, frame('1111', '5555'), strict=True))
    VideoPanopticQuality(IS_THING).update(**arguments)
    with pytest.raises(ValueError, match=message):
        VideoPanopticQuality(IS_THING).update(**arguments | change)


def test_memory_does_not_grow_with_the_video():
    rng = np.random.default_rng(0)
    quality = VideoPanopticQuality(IS_THING)

    def add(num_frames):
        for _ in range(num_frames):
            true_ids, pred_ids = rng.integers(1, 30, (2, 40, 40)).astype(np.uint32)
            listed = [
                {'id': number, 'category_id': THING, 'iscrowd': 0, 'area': 1600}
                for number in range(1, 30)
            ]
            quality.update(true_ids, listed, pred_ids, listed)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        early, late = add(10), add(40)
    finally:
        tracemalloc.stop()
    assert late - early < 40 * 40 * 4  # one of the 40 images


@pytest.mark.parametrize('seed', range(150))
def test_agrees_with_the_plain_implementation(seed):
    assert_agrees(VideoPanopticQuality, plain_vpq, seed)


@pytest.mark.parametrize('seed', range(60))
def test_single_frames_agree_with_the_plain_panoptic_quality(seed):
    assert_agrees(VideoPanopticQuality, plain_pq, seed, 'frame_figures')


@pytest.mark.parametrize('seed', range(20))
def test_the_order_of_videos_and_classes_does_not_matter(seed):
    assert_order_does_not_matter(VideoPanopticQuality, seed)


def test_quality_of_frames_has_two_factors():
    # Of four pixels of stuff three are found, IoU 3/4; one thing is missed and one invented.
    scores = scores_of([frame('111122', '111330', {1: STUFF, 2: THING}, {1: STUFF, 3: THING})])
    per_class = scores.frames_per_class
    assert per_class[STUFF] == {'PQ': 3 / 4, 'SQ': 3 / 4, 'RQ': 1}
    assert per_class[THING] == {'PQ': 0, 'SQ': 0, 'RQ': 0}
    figures = scores.frame_figures()
    assert (figures['PQ'], figures['SQ'], figures['RQ']) == (3 / 8, 3 / 8, 1 / 2)
    assert (figures['PQ_st'], figures['RQ_st'], figures['RQ_th']) == (3 / 4, 1, 0)
