"""mIoU and mVC: cases worked out on paper, then agreement with a plain implementation."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.evaluation.metrics.plain_panoptic import plain_semantic, random_semantic_videos
from videomt_ros.evaluation.metrics.semantic import SemanticQuality, SemanticScores


def mask(*values: int) -> np.ndarray:
    return np.array([values], np.uint8)


def score(*videos: list[tuple], num_classes: int = 4) -> SemanticScores:
    quality = SemanticQuality(num_classes)
    for video in videos:
        quality.start_video()
        for one in video:
            quality.update(*one)
    return quality.result()


def figures(*videos: list[tuple], num_classes: int = 4) -> dict[str, float | None]:
    return score(*videos, num_classes=num_classes).figures()


def close(value: Fraction | int) -> object:
    return pytest.approx(float(value), abs=1e-15)


STEADY = (mask(1), mask(0))
UNSTEADY = (mask(1), mask(1))


def test_nothing_is_undefined():
    names = ['mIoU', 'FWIoU', 'accuracy', 'mVC8', 'mVC16', 'mVC16_as_printed']
    assert figures() == dict.fromkeys(names)
    assert figures([(mask(0, 255), mask(3, 3))]) == dict.fromkeys(names)


def test_perfect():
    result = figures([(mask(1, 2, 3, 4), mask(0, 1, 2, 3))] * 17)
    assert set(result.values()) == {1.0}


def test_true_values_are_one_above_the_predicted():
    assert figures([(mask(1, 2), mask(1, 2))])['accuracy'] == 0


def test_iou_accuracy_and_frequency_weights():
    # Class 0: 2 of 3 + 1. Class 1: 1 of 2 + 1. Class 3: 1 of 1.
    result = figures([(mask(1, 1, 1, 2), mask(0, 0, 1, 1))], [(mask(2, 4), mask(0, 3))])
    zero, one, three = Fraction(2, 4), Fraction(1, 3), Fraction(1)
    assert result['mIoU'] == close((zero + one + three) / 3)
    assert result['FWIoU'] == close((3 * zero + 2 * one + 1 * three) / 6)
    assert result['accuracy'] == close(Fraction(4, 6))


def test_a_class_only_predicted_does_not_count():
    scores = score([(mask(1, 1), mask(0, 2))])
    assert scores.figures()['mIoU'] == 1 / 2
    assert scores.per_class == {0: {'IoU': 1 / 2}, 1: {'IoU': None}, 2: {'IoU': None},
                                3: {'IoU': None}}  # fmt: skip


def test_a_class_never_found_counts_as_zero():
    assert figures([(mask(1, 2), mask(0, 0))])['mIoU'] == close(Fraction(1, 2) / 2)


def test_void_and_ignored_truth_excuses_any_prediction():
    # With 4 classes 5 .. 255 are ignored. What is predicted there is no false positive.
    result = figures([(mask(1, 0, 5, 254, 255), mask(0, 0, 255, 0, 4))])
    assert (result['mIoU'], result['FWIoU'], result['accuracy']) == (1, 1, 1)


def test_a_prediction_that_is_no_class_is_named():
    quality = SemanticQuality(4)
    for value in (4, 255):
        with pytest.raises(ValueError, match=rf'classes 0..3 .* got \[{value}\]; .* one below'):
            quality.update(mask(1, 2), mask(0, value))


def test_masks_that_do_not_fit_are_named():
    quality = SemanticQuality(4)
    with pytest.raises(ValueError, match=r'\(1, 2\) and \(1, 3\)'):
        quality.update(mask(1, 2), mask(0, 1, 1))
    with pytest.raises(ValueError, match='true mask of type uint8, got int64'):
        quality.update(mask(1).astype(np.int64), mask(0))
    with pytest.raises(ValueError, match='predicted mask of type uint8, got bool'):
        quality.update(mask(1), mask(0) > 0)
    quality.update(mask(1, 1), mask(0, 0))
    with pytest.raises(ValueError, match=r'\(1, 2\), got \(1, 1\); call start_video'):
        quality.update(mask(1), mask(0))
    quality.start_video()
    quality.update(mask(1), mask(0))
    for number in (0, 255):
        with pytest.raises(ValueError, match=r'1\.\.254'):
            SemanticQuality(number)


def test_the_last_window_is_left_out():
    # 8 frames: none. 9: the first window only, so the change in the last frame is not seen.
    assert figures([STEADY] * 8)['mVC8'] is None
    assert figures([STEADY] * 8 + [UNSTEADY])['mVC8'] == 1
    assert figures([STEADY] * 7 + [UNSTEADY] * 2)['mVC8'] == 0
    assert figures([STEADY] * 16)['mVC16'] is None
    assert figures([STEADY] * 16 + [UNSTEADY])['mVC16'] == 1
    assert figures([STEADY] * 15 + [UNSTEADY] * 2)['mVC16'] == 0


def test_constant_is_enough_and_right_is_not_asked():
    assert figures([(mask(1), mask(3))] * 9)['mVC8'] == 1


def test_share_of_the_pixels_whose_truth_stays():
    # Pixel 1 stays on both sides, 2 changes its truth, 3 its prediction (at frame 4 of 9).
    video = [(mask(1, 1, 1), mask(0, 0, 0))] * 4 + [(mask(1, 2, 1), mask(0, 0, 1))] * 5
    assert figures(video)['mVC8'] == 1 / 2


def test_void_and_ignored_are_values_like_others():
    # Void that stays counts, with its prediction; void that becomes a class has changed.
    video = [(mask(0, 255, 1), mask(0, 7, 0))] * 9
    assert figures(video)['mVC8'] == 1
    video[3] = (mask(0, 1, 1), mask(1, 0, 0))
    # Pixel 1: prediction changed. 2: truth changed. 3: steady.
    assert figures(video)['mVC8'] == 1 / 2


def test_a_value_that_returns_has_changed():
    video = [STEADY] * 9
    video[4] = UNSTEADY
    assert figures(video)['mVC8'] == 0


def test_windows_without_a_steady_pixel_are_left_out():
    # Windows 1-8 and 2-9 hold the change at frame 2; 3-10 does not.
    video = [(mask(2), mask(0))] * 2 + [STEADY] * 9
    assert figures(video)['mVC8'] == 1
    assert score(video).consistency[8] == (1, 1)
    assert figures([(mask(1), mask(0)), (mask(2), mask(0))] * 9)['mVC8'] is None


def test_windows_of_all_videos_count_alike():
    # One window of 1; three of 0.
    changing = [(mask(1), mask(number % 2)) for number in range(11)]
    assert figures([STEADY] * 9, changing)['mVC8'] == 1 / 4


def test_windows_do_not_cross_videos():
    assert figures([STEADY] * 8, [STEADY] * 8)['mVC8'] is None


def test_printed_mvc16_pools_the_windows_of_8():
    # 18 frames, the prediction changes at frame 9 (0-based). Windows of 8 start at 0..9: those
    # at 2..8 hold the change, so 3 of 10 are steady. Windows of 16 start at 0, 1: none is.
    video = [STEADY] * 9 + [UNSTEADY] * 9
    result = figures(video)
    assert result['mVC8'] == close(Fraction(3, 10))
    assert result['mVC16'] == 0
    assert result['mVC16_as_printed'] == close(Fraction(3, 12))
    # Without a window of 16 the script prints that of 8 again.
    result = figures([STEADY] * 9)
    assert (result['mVC16'], result['mVC16_as_printed']) == (None, 1)


def test_the_callers_masks_may_be_overwritten():
    quality = SemanticQuality(4)
    true_mask, pred_mask = mask(1), mask(0)
    for number in range(9):
        pred_mask[:] = number % 2
        quality.update(true_mask, pred_mask)
    assert quality.result().figures()['mVC8'] == 0


def test_long_steady_videos_stay_steady():
    assert figures([STEADY] * 600)['mVC16'] == 1
    assert score([STEADY] * 600).consistency == {8: (592, 592), 16: (584, 584)}


@pytest.mark.parametrize('seed', range(150))
def test_agrees_with_the_plain_implementation(seed):
    videos, num_classes = random_semantic_videos(seed)
    result = figures(*videos, num_classes=num_classes)
    expected = plain_semantic(videos, num_classes)
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert result[name] == (None if value is None else pytest.approx(value, abs=1e-12)), name


def test_a_frame_without_a_prediction_is_missed():
    # Class 0: 2 right of 2 + 1 missed. Class 1: 1 missed. No false pixels come with them.
    result = figures([(mask(1, 1), mask(0, 0))], [(mask(1, 2, 0), None)])
    assert result['mIoU'] == close((Fraction(2, 3) + 0) / 2)
    assert result['FWIoU'] == close(Fraction(3, 4) * Fraction(2, 3))
    assert result['accuracy'] == close(Fraction(2, 4))


def test_a_frame_without_a_prediction_is_not_steady():
    frame, missing = (mask(1), mask(0)), (mask(1), None)
    assert figures([missing] * 9)['mVC8'] == 0
    # Windows of 8 of the first 17 frames: 0..7 is steady, 1..8 to 8..15 hold the missing frame
    # 8, and 9..16 is steady again.
    result = figures([frame] * 8 + [missing] + [frame] * 9)
    assert result['mVC8'] == close(Fraction(2, 10))


def test_scores_of_different_videos_add_up():
    one = [(mask(1, 2, 2), mask(0, 1, 0))] * 18
    other = [(mask(3, 1, 0), mask(2, 1, 1)), *[(mask(3, 1, 1), mask(2, 0, 0))] * 9]
    together = (score(one) + score(other)).figures()
    assert together == figures(one, other)
