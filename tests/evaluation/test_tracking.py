"""Cases small enough to work out on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest

from videomt_ros.evaluation.tracking import TrackQuality, TrackScores


def row(text: str) -> np.ndarray:
    """An image of one row: a digit is an id, 0 nothing."""
    return np.array([[int(digit) for digit in text]], np.uint16)


def score(*frames: tuple[str, str], **classes: dict[int, int]) -> TrackScores:
    quality = TrackQuality()
    for true_ids, track_ids in frames:
        quality.update(row(true_ids), row(track_ids), **classes)
    return quality.result()


def test_perfect():
    result = score(('0112200', '0337700'), ('0112200', '0337700'))
    assert (result.mean_iou, result.found, result.num_switches) == (1, 1, 0)
    assert (result.num_frames, result.num_visible, result.num_found) == (2, 4, 4)


def test_iou_is_shared_over_union():
    # Object 1: 2 shared of 3 pixels. Object 2: 1 shared of 4, so it is not found.
    result = score(('11102200', '01100333'))
    assert result.mean_iou == pytest.approx((2 / 3 + 1 / 4) / 2)
    assert result.found == 1 / 2


def test_missed_object_counts_as_zero():
    result = score(('1122', '5500'))
    assert (result.mean_iou, result.found) == (1 / 2, 1 / 2)


def test_one_track_cannot_match_two_objects():
    # Track 5 covers both: IoU 2/3 with object 1, 1/3 with object 2, which stays without.
    result = score(('112', '555'))
    assert result.mean_iou == pytest.approx((2 / 3 + 0) / 2)
    assert result.found == 1 / 2


def test_finding_comes_before_the_sum():
    # 1-5: 6/12, the only find. The two other pairs, 2-5 and 1-6, would have 3/9 + 3/9 > 6/12.
    result = score(('111111111222', '666555555555'))
    assert result.num_found == 1
    assert result.mean_iou == pytest.approx((6 / 12 + 0) / 2)


def test_switch_when_the_id_changes():
    result = score(('11', '55'), ('11', '66'), ('11', '66'), ('11', '55'))
    assert result.num_switches == 2
    assert result.switches_per_100_frames == 50


def test_exchange_of_two_ids_is_two_switches():
    assert score(('1122', '5566'), ('1122', '6655')).num_switches == 2


def test_switch_is_seen_over_a_gap():
    gone = ('00', '00')
    assert score(('11', '55'), gone, gone, ('11', '66')).num_switches == 1
    assert score(('11', '55'), gone, gone, ('11', '55')).num_switches == 0


def test_poor_match_is_no_switch():
    # In the second frame track 6 has 1/3 of the object: it is not found, so nothing switches.
    assert score(('111', '555'), ('111', '600'), ('111', '555')).num_switches == 0


def test_half_and_half_keeps_the_track():
    for halves in ('5566', '6655'):
        assert score(('1111', '5555'), ('1111', halves)).num_switches == 0
        assert score(('1111', '6666'), ('1111', halves)).num_switches == 0


def test_identities_are_forgotten_between_videos():
    quality = TrackQuality()
    quality.update(row('11'), row('55'))
    quality.start_video()
    quality.update(row('11'), row('66'))
    assert quality.result().num_switches == 0


def test_classes_of_found_objects():
    frame = ('112233', '556600')
    result = score(frame, true_classes={1: 0, 2: 1, 3: 1}, track_classes={5: 0, 6: 2})
    assert result.classes_right == 1 / 2
    assert math.isnan(score(frame).classes_right)


def test_small_objects_do_not_count():
    # Of 1000 pixels 2 are visible, 1 is not.
    for area, visible in ((1, 0), (2, 1)):
        true_ids = np.zeros((20, 50), np.uint16)
        true_ids[0, :area] = 1
        quality = TrackQuality()
        quality.update(true_ids, np.zeros_like(true_ids))
        assert quality.result().num_visible == visible


def test_no_objects_no_tracks():
    result = score(('0000', '0000'), ('0000', '5500'))
    assert (result.num_frames, result.num_visible, result.num_switches) == (2, 0, 0)
    assert math.isnan(result.mean_iou) and math.isnan(result.found)


def test_no_frames():
    assert math.isnan(TrackQuality().result().switches_per_100_frames)


def test_largest_ids():
    ids = np.full((2, 2), 65535, np.uint16)
    quality = TrackQuality()
    quality.update(ids, ids)
    assert quality.result().mean_iou == 1


def test_sizes_must_agree():
    with pytest.raises(ValueError, match=r'\(1, 2\) and \(1, 3\)'):
        TrackQuality().update(row('11'), row('111'))
