"""Overlaps of small masks, worked out by hand, then of random ones by plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from videomt_ros.datasets.rle import MaskTrack
from videomt_ros.evaluation.metrics.overlap import FrameOverlap, ImageOverlaps, overlap_tracks

IS_THING = {0: False, 4: True, 5: True}


def rle(mask):
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


def track(number, category, *rows, is_crowd=False):
    """Build a track of one-row images, whose pixels are 'x'; it is absent in an empty one."""
    masks = [rle([[letter == 'x' for letter in row]]) if row else None for row in rows]
    return MaskTrack('v1', category, masks, is_crowd=is_crowd, track_id=number)


def row(text):
    return np.array([[int(digit) for digit in text]], np.uint32)


def segment(number, category, iscrowd=0):
    return {'id': number, 'category_id': category, 'iscrowd': iscrowd}


def as_lists(frame):
    return frame.truth_ids.tolist(), frame.track_ids.tolist(), frame.iou.tolist()


def test_masks_are_compared_within_their_class():
    truth = [track(3, 1, 'xxx.', 'xx..'), track(4, 2, 'xxxx', '')]
    results = [track(1, 1, '.xxx', ''), track(2, 1, 'xx..', '...x'), track(9, 7, '', 'xxxx')]
    one, two, seven = overlap_tracks('v1', truth, results)
    assert [sequence.category_id for sequence in (one, two, seven)] == [1, 2, 7]
    assert as_lists(one.frames[0]) == ([3], [1, 2], [[2 / 4, 2 / 3]])
    assert as_lists(one.frames[1]) == ([3], [2], [[0]])
    assert as_lists(two.frames[0]) == ([4], [], [[]])
    assert as_lists(two.frames[1]) == ([], [], [])
    assert as_lists(seven.frames[1]) == ([], [9], [])


def test_a_mask_without_pixels_is_absent():
    [one] = overlap_tracks('v1', [track(1, 1, '....', 'x...')], [track(1, 1, '....', '....')])
    assert as_lists(one.frames[0]) == ([], [], [])
    assert as_lists(one.frames[1]) == ([1], [], [[]])


def test_a_crowd_overlaps_like_any_object():
    [one] = overlap_tracks('v1', [track(1, 1, 'xxxx', is_crowd=True)], [track(1, 1, 'x...')])
    assert one.frames[0].iou.tolist() == [[1 / 4]]


def test_no_tracks_no_sequences():
    assert overlap_tracks('v1', [], []) == []


def test_each_mask_is_read_once():
    class Masks(list):
        def __iter__(self):
            for t in range(len(self)):
                read.append(t)
                yield self[t]

    read = []
    mask = rle([[1, 0]])
    overlap_tracks('v1', [MaskTrack('v1', 1, Masks([mask, None, mask]))], [])
    assert read == [0, 1, 2]


def test_a_frame_may_hold_hundreds_of_tracks():
    results = [track(number, 1, 'x...') for number in range(1, 301)]
    [one] = overlap_tracks('v1', [track(1, 1, 'xx..')], results)
    assert one.frames[0].iou.tolist() == [[0.5] * 300]


def test_tracks_of_unequal_length_are_an_error():
    with pytest.raises(ValueError, match=r'one length in video v1, got \[1, 2\] frames'):
        overlap_tracks('v1', [track(1, 1, 'x')], [track(1, 2, 'x', 'x')])


def test_masks_of_unequal_size_are_an_error():
    with pytest.raises(ValueError, match=r'one size .* got \[\(1, 2\), \(1, 3\)\]'):
        overlap_tracks('v1', [track(1, 1, 'xx')], [track(1, 1, 'xxx')])


def test_one_id_twice_is_an_error():
    with pytest.raises(ValueError, match=r'each track id once in a frame, got \[6, 6\]'):
        overlap_tracks('v1', [], [track(6, 1, 'x'), track(6, 1, 'x')])


def test_a_table_of_another_shape_is_an_error():
    with pytest.raises(ValueError, match=r'shape \(1, 0\), got \(0, 1\)'):
        FrameOverlap(np.array([1]), np.array([], int), np.zeros((0, 1)))


def test_random_masks_overlap_as_their_pixels():
    generator = np.random.default_rng(0)
    truth, results = (generator.random((2, 5, 3, 6, 7)) < 0.4).astype(np.uint8)
    sides = [
        [
            MaskTrack('v1', 1, [rle(mask) for mask in masks], track_id=n)
            for n, masks in enumerate(s)
        ]
        for s in (truth, results)
    ]
    [one] = overlap_tracks('v1', *sides)
    for t, frame in enumerate(one.frames):
        for i, j in np.ndindex(5, 5):
            a, b = truth[i, t] > 0, results[j, t] > 0
            assert frame.iou[i, j] == (a & b).sum() / (a | b).sum()


def images(*frames):
    """Compute the overlaps of frames, each given as true and predicted rows and segments."""
    overlaps = ImageOverlaps(IS_THING)
    for true_row, true_segments, pred_row, pred_segments in frames:
        overlaps.update(row(true_row), true_segments, row(pred_row), pred_segments)
    return overlaps.sequences('v1')


def test_things_of_one_class_are_compared():
    true_segments = [segment(1, 5), segment(2, 0), segment(3, 4)]
    pred_segments = [segment(7, 5), segment(8, 0)]
    four, five = images(('1112233', true_segments, '7777788', pred_segments))
    assert (four.category_id, five.category_id) == (4, 5)
    assert as_lists(four.frames[0]) == ([3], [], [[]])
    # Track 7 also covers stuff, which enlarges the union: 3 of 5.
    assert as_lists(five.frames[0]) == ([1], [7], [[3 / 5]])


def test_pixels_on_void_say_nothing():
    pred_segments = [segment(7, 5), segment(8, 5)]
    [five] = images(('1110000', [segment(1, 5)], '0777788', pred_segments))
    # Track 7 keeps 2 of its 4 pixels, track 8 none.
    assert as_lists(five.frames[0]) == ([1], [7], [[2 / 3]])


def test_pixels_on_a_crowd_say_nothing():
    true_segments = [segment(1, 5), segment(2, 5, iscrowd=1)]
    [five] = images(('1122', true_segments, '7778', [segment(7, 5), segment(8, 5)]))
    assert as_lists(five.frames[0]) == ([1], [7], [[1]])


def test_unlisted_ids_are_no_segments_but_no_void_either():
    [five] = images(('1199', [segment(1, 5)], '7778', [segment(7, 5)]))
    assert as_lists(five.frames[0]) == ([1], [7], [[2 / 3]])


def test_a_changed_class_goes_on_as_another_track():
    truth = '11', [segment(1, 5)]
    four, five = images(
        (*truth, '77', [segment(7, 5)]),
        (*truth, '77', [segment(7, 4)]),
        (*truth, '00', []),
    )
    assert [as_lists(frame) for frame in four.frames] == [
        ([], [], []), ([], [7], []), ([], [], [])
    ]  # fmt: skip
    assert [as_lists(frame) for frame in five.frames] == [
        ([1], [7], [[1]]), ([1], [], [[]]), ([1], [], [[]])
    ]  # fmt: skip


def test_a_video_without_things_has_no_sequences():
    assert images(('22', [segment(2, 0)], '88', [segment(8, 0)]), ('00', [], '00', [])) == []
