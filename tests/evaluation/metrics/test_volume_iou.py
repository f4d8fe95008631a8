"""IoU of objects along a video: by hand, then against masks of pixels."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from videomt_ros.datasets.rle import MaskTrack
from videomt_ros.evaluation.metrics.overlap import overlap_tracks
from videomt_ros.evaluation.metrics.volume_iou import (
    measure_overlap,
    overlap_of_sequences,
    volume_iou,
)
from videomt_ros.speed.plain_scoring import plain_iou
from videomt_ros.speed.scoring import make_case


def rle(*rows):
    """Encode a mask that is drawn with characters; 'o' is a pixel of it."""
    return coco_mask.encode(np.asfortranarray([[c == 'o' for c in row] for row in rows], np.uint8))


def track(*masks, **fields):
    return MaskTrack(1, 1, masks, **fields)


FULL, LEFT, RIGHT, EMPTY = rle('oooo'), rle('oo..'), rle('..oo'), rle('....')


def test_it_is_a_ratio_of_sums_and_no_mean_of_frames():
    # They share 2 + 1 of 2 + 4 pixels; the mean would be (1 + 1/4) / 2.
    assert volume_iou([track(LEFT, rle('o...'))], [track(LEFT, FULL)]) == 0.5


@pytest.mark.parametrize('absent', [None, EMPTY])
def test_a_frame_with_only_one_of_the_two_adds_to_the_union(absent):
    assert volume_iou([track(LEFT, FULL)], [track(LEFT, absent)]) == float(Fraction(2, 6))
    assert volume_iou([track(LEFT, absent)], [track(LEFT, FULL)]) == float(Fraction(2, 6))


@pytest.mark.parametrize('absent', [None, EMPTY])
def test_a_frame_with_neither_adds_nothing(absent):
    assert volume_iou([track(absent, LEFT, None)], [track(None, LEFT, absent)]) == 1


def test_two_empty_tracks_have_nothing_in_common():
    assert volume_iou([track(None, EMPTY)], [track(EMPTY, None)]) == 0


def test_a_track_that_is_absent_throughout_shares_nothing():
    nothing = track(None, None)
    tracks = [nothing, track(LEFT, FULL)]
    assert volume_iou(tracks, tracks).tolist() == [[0, 0], [0, 1]]
    assert volume_iou([nothing], [nothing]) == 0


def test_masks_that_do_not_meet():
    assert volume_iou([track(LEFT)], [track(RIGHT)]) == 0
    # Boxes that overlap without a shared pixel.
    assert volume_iou([track(rle('o.', '.o'))], [track(rle('.o', 'o.'))]) == 0


def test_without_tracks_or_frames_there_is_nothing_to_compare():
    assert volume_iou([], [track(LEFT)]).shape == (0, 1)
    assert volume_iou([track(LEFT)], []).shape == (1, 0)
    assert volume_iou([], []).shape == (0, 0)
    assert volume_iou([track()], [track()]).tolist() == [[0]]


def test_categories_do_not_matter():
    assert volume_iou([MaskTrack(1, 2, [LEFT])], [MaskTrack(1, 3, [LEFT])]) == 1


def test_areas_are_those_of_the_masks():
    overlap = measure_overlap([track(LEFT, None, FULL)], [track(EMPTY, FULL, None)], [])
    assert overlap.result_areas.tolist() == [[2, 0, 4]]
    assert overlap.truth_areas.tolist() == [[0, 4, 0]]
    assert overlap.iou.tolist() == [[0]]  # not compared


def test_pairs_outside_of_a_group_are_not_compared():
    every = [track(FULL), track(FULL)]
    groups = [(np.array([0]), np.array([1])), (np.array([1]), np.array([], int))]
    assert measure_overlap(every, every, groups).iou.tolist() == [[0, 1], [0, 0]]


def test_each_mask_is_read_once():
    class Lazy(list):
        def __init__(self, *masks):
            super().__init__(masks)
            self.reads = [0] * len(masks)

        def __getitem__(self, index):
            self.reads[index] += 1
            return super().__getitem__(index)

        def __iter__(self):
            return (self[index] for index in range(len(self)))

    masks = Lazy(LEFT, None, FULL)
    others = Lazy(FULL, RIGHT, LEFT)
    volume_iou([MaskTrack(1, 1, masks)], [MaskTrack(1, 1, others), track(FULL, FULL, FULL)])
    assert masks.reads == others.reads == [1, 1, 1]


def test_the_numbers_of_frames_must_agree():
    with pytest.raises(ValueError, match=r'Expected 2 frames, .* got 1 in result 7 of video 1'):
        volume_iou([track(LEFT, track_id=7)], [track(LEFT, LEFT, track_id=3)])


def test_hundreds_of_frames_and_tracks_can_be_compared():
    long = track(*[LEFT] * 700, *[None] * 9)
    assert volume_iou([long], [track(*[FULL] * 709)]) == float(Fraction(2 * 700, 4 * 709))
    assert (volume_iou([track(LEFT)] * 300, [track(FULL)] * 300) == np.full((300, 300), 0.5)).all()


def test_another_size_is_an_error_that_names_the_track():
    small = rle('o..')
    with pytest.raises(ValueError, match=r'1 x 4 pixels .* got 1 x 3 in frame 1 of result 7'):
        volume_iou([track(LEFT, small, track_id=7)], [track(LEFT, None)])
    with pytest.raises(ValueError, match=r'got 1 x 3 in frame 0 of annotation 3 of video 1'):
        volume_iou([], [track(LEFT), track(small, track_id=3)])


def test_sizes_may_be_lists_or_tuples():
    as_tuple = {'size': (1, 4), 'counts': LEFT['counts']}
    assert volume_iou([track(as_tuple, None)], [track(LEFT, as_tuple)]) == 0.5


def test_areas_of_billions_of_pixels_are_exact():
    side = 60_000

    def run(start, length):
        counts = [start, length, side * side - start - length]
        return coco_mask.frPyObjects({'size': [side, side], 'counts': counts}, side, side)

    first = track(run(0, 2_999_999_957))
    for shared in (1, 2, 1_500_000_001, 2_999_999_000, 2_999_999_957):
        length = shared + 500_000_003
        second = track(run(2_999_999_957 - shared, length))
        expected = shared / (2_999_999_957 + length - shared)
        assert volume_iou([first], [second]) == expected


def random_masks(rng, shape):
    """Draw a mask that is noise, a block, full or empty."""
    for _ in range(shape[0]):
        kind = rng.integers(5)
        mask = np.zeros(shape[1:], bool)
        if kind == 0:
            mask[:] = rng.random(mask.shape) < rng.random()
        elif kind < 4:
            top, left = (rng.integers(0, side) for side in mask.shape)
            mask[top : top + rng.integers(1, 9), left : left + rng.integers(1, 9)] = True
        yield mask if kind < 4 else ~mask


def encode(mask, rng):
    return (
        None
        if not mask.any() and rng.random() < 0.5
        else coco_mask.encode(np.asfortranarray(mask, np.uint8))
    )


@pytest.mark.parametrize('seed', range(60))
def test_it_agrees_with_pixels_to_the_last_bit(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, (12, 15, 15)))
    pixels = [np.array(list(random_masks(rng, shape))) for _ in range(rng.integers(2, 9))]
    tracks = [track(*(encode(mask, rng) for mask in masks)) for masks in pixels]
    cut = rng.integers(1, len(tracks))
    iou = volume_iou(tracks[:cut], tracks[cut:])
    expected = [
        [float(Fraction(int((a & b).sum()), max(int((a | b).sum()), 1))) for b in pixels[cut:]]
        for a in pixels[:cut]
    ]
    assert iou.tolist() == expected
    assert [[plain_iou(a, b) for b in tracks[cut:]] for a in tracks[:cut]] == expected

    # Pairs below the least IoU may differ, but stay below it.
    groups = [(np.arange(cut), np.arange(len(tracks) - cut))]
    for least in (0.2, 0.5):
        quick = measure_overlap(tracks[:cut], tracks[cut:], groups, least).iou
        matters = iou >= least
        assert (quick[matters] == iou[matters]).all()
        assert (quick[~matters] < least).all()


def test_sums_over_the_frames_are_those_of_the_masks():
    [(_, truth, results)] = make_case(1, 12, 5, seed=1, num_frames=6)
    # Three classes, of which one has no object; nothing at all is in the first frame.
    truth, results = (
        [
            replace(track, category_id=index % num_classes, masks=[None, *track.masks[1:]])
            for index, track in enumerate(side)
        ]
        for side, num_classes in ((truth, 2), (results, 3))
    )
    results[3] = replace(results[3], masks=[None] * 6)
    of_result, of_truth = (
        np.array([track.category_id for track in side]) for side in (results, truth)
    )
    groups = [(np.flatnonzero(of_result == k), np.flatnonzero(of_truth == k)) for k in range(3)]
    expected = measure_overlap(results, truth, groups)
    found = overlap_of_sequences(results, truth, overlap_tracks(1, truth, results))
    assert expected.iou.any()
    for name in ('iou', 'result_areas', 'truth_areas'):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
    some = found.of_results([7, 2])
    assert some.iou.tolist() == expected.iou[[7, 2]].tolist()
    assert some.result_areas.tolist() == expected.result_areas[[7, 2]].tolist()


def test_no_tracks_have_no_sums():
    assert overlap_of_sequences([], [], []).of_results([]).iou.shape == (0, 0)
