"""Confusion of classes, beside an implementation that looks at every pixel on its own."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from videomt_ros.datasets.rle import MaskTrack, encode
from videomt_ros.evaluation.metrics.confusion import (
    ClassConfusion,
    InstanceConfusion,
    pixel_confusion,
)
from videomt_ros.evaluation.metrics.semantic import SemanticQuality
from videomt_ros.evaluation.metrics.stq import SegmentationTrackingQuality

CAT, DOG = 3, 8


def track(category, *frames, **fields):
    """Build a track from one text per frame, 'o' where it is; None where it is absent."""
    masks = [frame and encode(np.array([[c == 'o' for c in frame]])) for frame in frames]
    return MaskTrack(1, category, masks, **fields)


def counts(truth, results, least_score=0.3):
    confusion = InstanceConfusion([CAT, DOG], least_score)
    confusion.add_video(truth, results)
    return confusion.result().counts.tolist()


def test_each_frame_counts_on_its_own():
    truth = [track(CAT, 'oo..', 'oo..', 'oo..', None)]
    results = [track(DOG, 'oo..', None, '..oo', 'oo..')]
    assert counts(truth, results) == [[0, 1, 2], [0, 0, 0], [0, 2, 0]]


@pytest.mark.parametrize(
    ('mask', 'is_match'), [('oo......', True), ('o.......', False), ('.ooooooo', False)]
)
def test_half_of_the_union_is_enough(mask, is_match):
    """The IoU is 2/4, 1/4 and 3/8."""
    found = counts([track(CAT, 'oooo....')], [track(CAT, mask)])
    assert found == ([[1, 0, 0]] if is_match else [[0, 0, 1]]) + [[0, 0, 0]] + (
        [[0, 0, 0]] if is_match else [[1, 0, 0]]
    )


def test_the_surest_takes_an_object_whatever_its_class():
    truth = [track(CAT, 'oooo')]
    results = [track(CAT, 'oooo', score=0.6), track(DOG, 'ooo.', score=0.9)]
    assert counts(truth, results) == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]
    equal = [track(CAT, 'ooo.', score=0.6), track(DOG, 'oooo', score=0.6)]
    assert counts(truth, equal) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_a_weak_or_an_unknown_track_has_no_effect():
    truth = [track(CAT, 'oo')]
    results = [track(CAT, 'oo', score=0.29), track(77, 'oo', score=0.9)]
    assert counts(truth, results) == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert counts(truth, results, 0.29) == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_a_crowd_is_never_missed_and_forgives_what_lies_on_it():
    crowd = track(CAT, 'oooo....', is_crowd=True)
    results = [track(DOG, 'oooo....'), track(CAT, 'ooo.....'), track(CAT, '.....ooo')]
    assert counts([crowd], results) == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_videos_without_anything_count_nothing():
    assert counts([], []) == np.zeros((3, 3)).tolist()
    assert counts([track(CAT, None, '....')], [track(CAT, '....', None)]) == [[0] * 3] * 3


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match='one size'):
        counts([track(CAT, 'oo')], [track(CAT, 'ooo')])


def plain_instances(truth, results, least_score, category_ids):
    """Count masks with sets of pixels, exact fractions and one object after the other."""
    table = {}
    shown = sorted(
        (one for one in results if one[1] >= least_score and one[0] in category_ids),
        key=lambda one: -one[1],
    )
    for t in range(len(truth[0][2]) if truth else 0):
        taken = set()
        for category, _, masks in shown:
            mine = masks[t]
            if not mine:
                continue
            best, number, forgiven = Fraction(0), None, False
            for k, (_, is_crowd, true_masks) in enumerate(truth):
                iou = Fraction(len(mine & true_masks[t]), len(mine | true_masks[t]))
                if is_crowd:
                    forgiven |= iou >= Fraction(1, 2)
                elif k not in taken and iou >= Fraction(1, 2) and iou > best:
                    best, number = iou, k
            if number is not None:
                taken.add(number)
                cell = truth[number][0], category
            elif forgiven:
                continue
            else:
                cell = None, category
            table[cell] = table.get(cell, 0) + 1
        for k, (category, is_crowd, masks) in enumerate(truth):
            if k not in taken and masks[t] and not is_crowd:
                table[category, None] = table.get((category, None), 0) + 1
    return table


def as_table(confusion):
    names = [*confusion.category_ids, None]
    return {
        (names[row], names[column]): confusion.counts[row, column]
        for row, column in np.argwhere(confusion.counts).tolist()
    }


@pytest.mark.parametrize('seed', range(60))
def test_instances_agree_with_a_plain_implementation(seed):
    rng = np.random.default_rng(seed)
    categories, num_frames = [CAT, DOG, 11], int(rng.integers(1, 5))

    def boxes(n):
        made = []
        for _ in range(n):
            masks = []
            for _ in range(num_frames):
                mask = np.zeros((6, 7), bool)
                if rng.random() < 0.8:
                    y, x = rng.integers(0, 3, 2)
                    h, w = rng.integers(1, 5, 2)
                    mask[y : y + h, x : x + w] = True
                masks.append(mask)
            made.append(masks)
        return made

    true_masks, masks = boxes(int(rng.integers(1, 5))), boxes(int(rng.integers(0, 6)))
    kinds = [(int(rng.choice(categories)), bool(rng.random() < 0.2)) for _ in true_masks]
    scores = [(int(rng.choice([*categories, 99])), float(rng.integers(0, 5)) / 5) for _ in masks]
    confusion = InstanceConfusion(categories, 0.3)
    confusion.add_video(
        [
            MaskTrack(1, category, [encode(mask) for mask in own], is_crowd=is_crowd)
            for (category, is_crowd), own in zip(kinds, true_masks, strict=True)
        ],
        [
            MaskTrack(1, category, [encode(mask) for mask in own], score=score)
            for (category, score), own in zip(scores, masks, strict=True)
        ],
    )

    def as_sets(own):
        return [set(map(tuple, np.argwhere(mask).tolist())) for mask in own]

    expected = plain_instances(
        [(*kind, as_sets(own)) for kind, own in zip(kinds, true_masks, strict=True)],
        [(*score, as_sets(own)) for score, own in zip(scores, masks, strict=True)],
        0.3,
        categories,
    )
    assert as_table(confusion.result()) == expected


@pytest.mark.parametrize('seed', range(10))
def test_pixels_of_segments_agree_with_a_plain_implementation(seed):
    rng = np.random.default_rng(seed)
    is_thing = {CAT: True, DOG: False, 11: True}
    quality, expected = SegmentationTrackingQuality(is_thing), {}
    for _ in range(3):
        true_ids, pred_ids = rng.integers(0, 6, (2, 5, 8)).astype(np.uint32)
        listed = [
            {number: int(rng.choice(list(is_thing))) for number in (1, 2, 3, 4)} for _ in range(2)
        ]
        segments = [
            [{'id': number, 'category_id': one[number]} for number in one] for one in listed
        ]
        quality.update(true_ids, segments[0], pred_ids, segments[1])
        for true_id, pred_id in zip(true_ids.flat, pred_ids.flat, strict=True):
            cell = listed[0].get(int(true_id)), listed[1].get(int(pred_id))
            if cell[0] is not None:
                expected[cell] = expected.get(cell, 0) + 1
    places = {category: place for place, category in enumerate(is_thing)}
    assert as_table(pixel_confusion(places, quality.result().confusion)) == expected


@pytest.mark.parametrize('seed', range(10))
def test_pixels_of_classes_agree_with_a_plain_implementation(seed):
    rng = np.random.default_rng(seed)
    quality, expected, known = SemanticQuality(6), {}, (1, 2, 4)
    for has_result in (True, True, False):
        true_mask = rng.choice([0, 2, 3, 5, 255], (5, 8)).astype(np.uint8)
        pred_mask = rng.integers(0, 6, (5, 8)).astype(np.uint8)
        quality.update(true_mask, pred_mask if has_result else None)
        for value, pred in zip(true_mask.flat, pred_mask.flat, strict=True):
            if value in (0, 255):
                continue
            seen = int(pred) if has_result and pred in known else None
            expected[int(value) - 1, seen] = expected.get((int(value) - 1, seen), 0) + 1
    table = pixel_confusion({category: category for category in known}, quality.result().confusion)
    assert as_table(table) == expected


def test_sums_join_categories():
    left = ClassConfusion('masks', (1, 2), np.arange(9).reshape(3, 3))
    right = ClassConfusion('masks', (2, 5), np.full((3, 3), 10))
    both = ClassConfusion.from_json(json.loads(json.dumps((left + right).to_json())))
    assert both.category_ids == (1, 2, 5)
    assert both.counts.tolist() == [
        [0, 1, 0, 2],
        [3, 14, 10, 15],
        [0, 10, 10, 10],
        [6, 17, 10, 18],
    ]


def test_categories_that_never_occur_are_left_out_of_the_file():
    counts = np.array([[0, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 0], [0, 0, 4, 0]])
    content = ClassConfusion('masks', (5, 1, 2), counts).to_json()
    assert content == {
        'unit': 'masks',
        'category_ids': [1, 2],
        'counts': [[3, 0, 0], [0, 0, 0], [0, 4, 0]],
    }
