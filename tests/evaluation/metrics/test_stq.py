"""STQ: cases worked out on paper, then agreement with a plain implementation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from tests.evaluation.metrics.plain_panoptic import (
    assert_agrees,
    assert_order_does_not_matter,
    plain_stq,
)
from videomt_ros.evaluation.metrics.stq import SegmentationTrackingQuality, StqScores

IS_THING = {3: True, 4: True, 8: False, 9: False}
THING, OTHER_THING, STUFF, OTHER_STUFF = IS_THING
CLASSES = {1: STUFF, 2: THING, 3: THING, 4: OTHER_THING, 5: OTHER_STUFF}


def image(text: str) -> np.ndarray:
    """Build an image of one row, in which a digit is an id and 0 is void."""
    return np.array([[int(digit) for digit in text]], np.uint32)


def segments(categories: dict[int, int]) -> list[dict]:
    return [{'id': number, 'category_id': one} for number, one in categories.items()]


def frame(true: str, pred: str, true_categories=CLASSES, pred_categories=CLASSES):
    return image(true), segments(true_categories), image(pred), segments(pred_categories)


def score(*videos: list[tuple]) -> StqScores:
    quality = SegmentationTrackingQuality(IS_THING)
    for video in videos:
        quality.start_video()
        for one in video:
            quality.update(*one)
    return quality.result()


def close(value: Fraction | int) -> object:
    return pytest.approx(float(value), abs=1e-15)


def test_nothing_is_undefined():
    assert score().figures() == {'STQ': None, 'AQ': None, 'SQ': None}
    # Things predicted on void alone are no true tracks and no labelled pixels either.
    assert score([frame('00', '22')]).figures() == {'STQ': None, 'AQ': None, 'SQ': None}


def test_perfect():
    assert score([frame('1234', '1234')] * 2).figures() == {'STQ': 1, 'AQ': 1, 'SQ': 1}


def test_without_true_things_only_sq_is_defined():
    assert score([frame('11', '11')]).figures() == {'STQ': None, 'AQ': None, 'SQ': 1}


def test_sq_is_the_mean_iou_over_classes_of_all_frames():
    # STUFF 3 of 4 (1 + 2 right, 1 taken by 2); THING 4 of 5.
    scores = score([frame('1122', '1222')], [frame('1122', '1122')])
    assert scores.iou == {
        THING: close(Fraction(4, 5)), OTHER_THING: None, STUFF: close(Fraction(3, 4)),
        OTHER_STUFF: None,
    }  # fmt: skip
    assert scores.sq == close((Fraction(4, 5) + Fraction(3, 4)) / 2)
    assert scores.per_class[STUFF] == {'IoU': scores.iou[STUFF]}


def test_aq_weighs_overlaps_over_the_video():
    # True 2 has 4 + 4 pixels. Predicted 2 covers 4 of them and no more, 3 the other 4.
    # (4 * 4/8 + 4 * 4/8) / 8 = 1/2.
    video = [frame('2222', '2222'), frame('2222', '3333')]
    assert score(video).aq == close(Fraction(1, 2))
    assert score(video).sq == 1
    assert score(video).stq == close(math.sqrt(1 / 2))


def test_aq_may_match_other_classes_if_both_are_things():
    # Predicted 4 is OTHER_THING: 4 * 4/4 / 4 = 1. As stuff it is no track.
    assert score([frame('2222', '4444')]).aq == 1
    assert score([frame('2222', '1111')]).aq == 0


def test_a_predicted_track_that_changes_its_class_is_two():
    first = frame('2222', '2222', CLASSES, {1: STUFF, 2: THING})
    second = frame('2222', '2222', CLASSES, {1: STUFF, 2: OTHER_THING})
    # Two tracks of 4, as with two ids: 1/2.
    assert score([first, second]).aq == close(Fraction(1, 2))
    # Where it turns to stuff, one track of 4 is left: 4 * 4/8 / 8.
    second = frame('2222', '2222', CLASSES, {1: STUFF, 2: STUFF})
    assert score([first, second]).aq == close(Fraction(1, 4))


def test_a_true_track_that_changes_its_class_is_two():
    first = frame('2222', '2222')
    second = frame('2222', '2222', {1: STUFF, 2: OTHER_THING})
    # Tracks of 4 and 4, each in one predicted track of 8: 4 * 4/8 / 4 each.
    assert score([first, second]).aq == close(Fraction(1, 2))


def test_the_thing_listed_first_is_no_track():
    # True 2, listed first, is left out with the predicted pixels on it: 3 has 2 pixels in track 3.
    listed = {2: THING, 3: THING, 1: STUFF}
    assert score([frame('2233', '3333', listed)]).aq == 1
    # Listed second, it is a track: 3 gets 2 * 2/4 / 2, 2 the same.
    listed = {1: STUFF, 2: THING, 3: THING}
    assert score([frame('2233', '3333', listed)]).aq == close(Fraction(1, 2))
    # Of predictions the first is a track like all others.
    assert score([frame('2233', '2233', CLASSES, {2: THING, 3: THING})]).aq == 1


def test_first_is_the_first_of_the_video():
    # 2 is first in the second frame, but 1 was first in the video.
    video = [frame('1', '1', {1: STUFF}), frame('2', '2', {2: THING})]
    assert score(video).aq == 1
    # A new video numbers anew: there 2 is first, and the only thing.
    assert score([frame('1', '1', {1: STUFF})], [frame('2', '2', {2: THING})]).aq is None
    # It stays the first in later frames that list it last.
    video = [frame('1', '1', {2: THING}), frame('22', '22', {1: STUFF, 2: THING})]
    assert score(video).aq is None
    # Pixels are not needed to be first.
    assert score([frame('33', '33', {2: THING, 3: THING})]).aq == 1


def test_void_counts_in_the_size_of_predicted_tracks():
    # 2: 2 pixels on 2 and 2 on void: 2 * 2/4 / 2. SQ is untouched.
    scores = score([frame('2200', '2222')])
    assert (scores.aq, scores.sq) == (close(Fraction(1, 2)), 1)


def test_void_predicted_on_labels_is_one_more_class():
    # STUFF 2 of 4 pixels, and void: (1/2 + 0) / 2.
    assert score([frame('1111', '1100')]).sq == close(Fraction(1, 4))
    # On true void it is none.
    assert score([frame('1100', '1100')]).sq == 1


def test_a_class_only_predicted_on_labels_counts_as_zero():
    # STUFF 3 of 4; OTHER_STUFF 0 of 1.
    assert score([frame('1111', '1115')]).sq == close(Fraction(3, 8))
    assert score([frame('1110', '1115')]).sq == 1


def test_an_unlisted_id_is_void_without_a_word():
    assert score([frame('1177', '1155')]).sq == 1
    assert score([frame('1111', '1177')]).sq == close(Fraction(1, 4))


def test_totals_not_the_mean_of_videos():
    # Video 1: track 2 has 1. Video 2: track 2 has 0; 3, of 4 pixels, has (2 * 2/4 + 2 * 2/4) / 4.
    # Video 3: track 2 has 0.
    videos = [
        [frame('2222', '2222')],
        [frame('2233', '1133'), frame('2233', '1122')],
        [frame('22', '11')],
    ]
    scores = score(*videos)
    assert scores.aq == close((1 + 0 + Fraction(1, 2) + 0) / 4)
    # THING: 4 + 2 + 2 right of 4 + 8 + 2. STUFF is only predicted: 0.
    assert scores.sq == close(Fraction(8, 14) / 2)
    assert scores.stq == close(math.sqrt(Fraction(3, 8) * Fraction(2, 7)))


def test_result_may_be_asked_for_in_the_middle():
    quality = SegmentationTrackingQuality(IS_THING)
    quality.update(*frame('2222', '2222'))
    assert quality.result() == quality.result()
    quality.update(*frame('2222', '3333'))
    assert quality.result() == score([frame('2222', '2222'), frame('2222', '3333')])


def test_what_does_not_fit_is_named():
    quality = SegmentationTrackingQuality(IS_THING)
    with pytest.raises(ValueError, match=r'\(1, 2\) and \(1, 3\)'):
        quality.update(*frame('11', '111'))
    with pytest.raises(ValueError, match=r'true .* category \[77\]'):
        quality.update(*frame('11', '11', {1: 77}))
    with pytest.raises(ValueError, match=r'id \[1\] twice'):
        quality.update(image('1'), segments({1: STUFF}), image('1'), segments({1: STUFF}) * 2)


@pytest.mark.parametrize('seed', range(150))
def test_agrees_with_the_plain_implementation(seed):
    assert_agrees(SegmentationTrackingQuality, plain_stq, seed)


@pytest.mark.parametrize('seed', range(20))
def test_the_order_of_videos_and_classes_does_not_matter(seed):
    assert_order_does_not_matter(SegmentationTrackingQuality, seed)
