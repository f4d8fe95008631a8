"""Expected values are worked out by hand; then a plain implementation, and TrackEval itself."""

from __future__ import annotations

from fractions import Fraction
from math import sqrt

import numpy as np
import pytest

from tests.evaluation.metrics.sequences import (
    frame,
    matchings,
    random_sequences,
    sequence,
    trackeval_data,
)
from videomt_ros.evaluation.metrics.hota import ALPHAS, HotaScores, hota

FOUND = {(1, 7): 1}


def figures(*frames):
    return hota([sequence(*frames)]).figures()


def test_nothing_has_no_score():
    nothing = {'HOTA': None, 'DetA': None, 'AssA': None}
    assert hota([]).figures() == nothing
    assert figures(frame([], [], {})) == nothing
    assert HotaScores().figures() == nothing


def test_perfect_tracks_score_one():
    frames = [frame([1, 2], [8, 7], {(1, 7): 1, (2, 8): 1})] * 3
    assert figures(*frames) == {'HOTA': 1, 'DetA': 1, 'AssA': 1}


@pytest.mark.parametrize(('truth', 'tracks'), [([1], []), ([], [7]), ([1], [7])])
def test_without_a_match_all_is_zero(truth, tracks):
    assert figures(frame(truth, tracks, {})) == {'HOTA': 0, 'DetA': 0, 'AssA': 0}


def test_one_object_under_two_tracks():
    # 4 frames, 2 of each track: TP 4, and each match shares 2 of 4 + 2 - 2 frames.
    frames = [frame([1], [7], {(1, 7): 1})] * 2 + [frame([1], [8], {(1, 8): 1})] * 2
    result = figures(*frames)
    assert result['DetA'] == 1
    assert result['AssA'] == pytest.approx(1 / 2)
    assert result['HOTA'] == pytest.approx(sqrt(1 / 2))


def test_an_overlap_counts_up_to_its_own_threshold():
    # IoU 0.6 passes the 12 thresholds 0.05 .. 0.60, the last of them by equality.
    result = figures(frame([1], [7], {(1, 7): 0.6}))
    assert result == pytest.approx({'HOTA': 12 / 19, 'DetA': 12 / 19, 'AssA': 12 / 19})


def test_every_threshold_is_met_by_its_own_value():
    for number in range(1, 20):
        scores = hota([sequence(frame([1], [7], {(1, 7): number / 20}))])
        assert scores.num_matches.sum() == number


def test_the_better_aligned_track_is_matched():
    # Frame 0 has two tracks on the object. Track 8 overlaps more there, but 7 stays: in the
    # frames 1 and 2 it has IoU 1 and no rival. potential(7) = 0.5/1.1 + 2, potential(8) = 0.6/1.1,
    # alignment(7) = 2.4545/(6 - 2.4545) and alignment(8) = 0.5454/(4 - 0.5454), so 7 wins.
    frames = [
        frame([1], [7, 8], {(1, 7): 0.5, (1, 8): 0.6}),
        frame([1], [7], FOUND),
        frame([1], [7], FOUND),
    ]
    scores = hota([sequence(*frames)])
    # Up to 0.5 all 3 frames match, A = 3/3; above only 2 do, A = 2/(3 + 3 - 2) each.
    assert scores.num_matches.tolist() == [3] * 10 + [2] * 9
    assert scores.association == pytest.approx([3] * 10 + [1] * 9)
    # Track 8 is a false alarm at every threshold, 7 in frame 0 above 0.5.
    assert scores.num_false.tolist() == [1] * 10 + [2] * 9
    assert scores.num_missed.tolist() == [0] * 10 + [1] * 9


def test_the_counts_of_sequences_are_pooled():
    # A: TP 2, each A = 2/2. B: TP 1 of 3 frames, A = 1/3. DetA 3/5, AssA (2 + 1/3)/3 = 7/9.
    a = sequence(*[frame([1], [7], FOUND)] * 2)
    b = sequence(frame([1], [7], FOUND), *[frame([1], [], {})] * 2)
    pooled = hota([a, b]).figures()
    assert pooled['DetA'] == pytest.approx(3 / 5)
    assert pooled['AssA'] == pytest.approx(7 / 9)
    assert pooled['HOTA'] == pytest.approx(sqrt(7 / 15))
    assert (hota([a]) + hota([b])).figures() == pooled


def test_ids_of_different_sequences_are_different_objects():
    # The same numbers in two videos: were they one object, its track would have changed.
    a = sequence(frame([1], [7], {(1, 7): 1}), video_id='v1')
    b = sequence(frame([1], [8], {(1, 8): 1}), video_id='v2')
    assert hota([a, b]).figures()['AssA'] == 1


def plain_hota(one):
    """Compute HOTA by its definition, with exact fractions, by trying all matchings."""
    frames = [
        (f.truth_ids.tolist(), f.track_ids.tolist(), [[Fraction(v) for v in row] for row in f.iou])
        for f in one.frames
    ]
    truth_frames = [i for ids, _, _ in frames for i in ids]
    track_frames = [i for _, ids, _ in frames for i in ids]
    potential = {}
    for truth, tracks, iou in frames:
        for r, i in enumerate(truth):
            for c, j in enumerate(tracks):
                rivals = sum(iou[r]) + sum(row[c] for row in iou) - iou[r][c]
                share = iou[r][c] / rivals if rivals else Fraction(0)
                potential[i, j] = potential.get((i, j), 0) + share
    together = {
        (i, j): Fraction(shared, 1) / (truth_frames.count(i) + track_frames.count(j) - shared)
        for (i, j), shared in potential.items()
    }
    pairs = []
    for truth, tracks, iou in frames:
        best = max(
            matchings(len(truth), len(tracks)),
            key=lambda m: sum(together[truth[r], tracks[c]] * iou[r][c] for r, c in m),
        )
        pairs += [(truth[r], tracks[c], iou[r][c]) for r, c in best]
    per_alpha = []
    for k in range(1, 20):
        matches = [(i, j) for i, j, v in pairs if v >= Fraction(k, 20)]
        tp = len(matches)
        det_a = Fraction(tp, len(truth_frames) + len(track_frames) - tp)
        ass_a = sum(
            Fraction(
                matches.count((i, j)),
                truth_frames.count(i) + track_frames.count(j) - matches.count((i, j)),
            )
            for i, j in matches
        ) / max(1, tp)
        per_alpha.append((sqrt(det_a * ass_a), float(det_a), float(ass_a)))
    return dict(zip(('HOTA', 'DetA', 'AssA'), np.mean(per_alpha, axis=0), strict=True))


def test_agrees_with_the_plain_definition():
    compared = 0
    for one in random_sequences(seed=1, count=150, most=4, ties=False):
        if len(one.truth_ids) + len(one.track_ids):
            assert hota([one]).figures() == pytest.approx(plain_hota(one), abs=1e-12)
            compared += 1
    assert compared > 100


def test_agrees_with_trackeval():
    reference = pytest.importorskip('trackeval').metrics.HOTA()
    assert (reference.array_labels == ALPHAS).all()
    sequences = list(random_sequences(seed=2, count=300))
    theirs = {}
    for one in sequences:
        theirs[one.video_id] = expected = reference.eval_sequence(trackeval_data(one))
        ours = hota([one]).figures()
        for name, value in ours.items():
            assert (value or 0) == pytest.approx(expected[name].mean(), abs=1e-9)
    pooled = reference.combine_sequences(theirs)
    classes = {
        k: reference.combine_sequences({i: theirs[i] for i in theirs if i % 3 == k})
        for k in range(3)
    }
    by_class = reference.combine_classes_det_averaged(classes)
    ours = hota(sequences).figures()
    for expected in (pooled, by_class):
        for name, value in ours.items():
            assert value == pytest.approx(expected[name].mean(), abs=1e-9)
