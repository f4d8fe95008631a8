"""Expected values are worked out by hand; then a plain implementation, and TrackEval itself."""

from __future__ import annotations

from fractions import Fraction

import pytest

from tests.evaluation.metrics.sequences import (
    frame,
    matchings,
    random_sequences,
    sequence,
    trackeval_data,
)
from videomt_ros.evaluation.metrics.identity import IdentityScores, identity

FOUND = {(1, 7): 1}


def test_nothing_has_no_score():
    assert identity([]).figures() == {'IDF1': None}
    assert identity([sequence(frame([], [], {}))]) == IdentityScores()


def test_perfect_tracks_score_one():
    frames = [frame([1, 2], [8, 7], {(1, 7): 1, (2, 8): 1})] * 3
    assert identity([sequence(*frames)]) == IdentityScores(6, 0, 0)
    assert identity([sequence(*frames)]).figures() == {'IDF1': 1}


@pytest.mark.parametrize(
    ('truth', 'tracks', 'expected'),
    [([1, 2], [], IdentityScores(0, 2, 0)), ([], [7], IdentityScores(0, 0, 1))],
)
def test_one_side_alone_scores_zero(truth, tracks, expected):
    scores = identity([sequence(frame(truth, tracks, {}))])
    assert scores == expected
    assert scores.figures() == {'IDF1': 0}


def test_only_one_of_two_tracks_is_the_objects_own():
    # 3 frames under track 7, 2 under 8: IDTP 3, IDFN 2, IDFP 2, so 3 / (3 + 1 + 1).
    frames = [frame([1], [7], FOUND)] * 3 + [frame([1], [8], {(1, 8): 1})] * 2
    assert identity([sequence(*frames)]) == IdentityScores(3, 2, 2)
    assert identity([sequence(*frames)]).figures() == {'IDF1': 3 / 5}


def test_half_an_overlap_agrees_and_less_does_not():
    frames = [frame([1], [7], {(1, 7): value}) for value in (0.5, 0.4999)]
    assert identity([sequence(*frames)]) == IdentityScores(1, 1, 1)


def test_the_best_sum_over_all_objects_is_taken():
    # Track 7 agrees with object 1 in 3 frames and with 2 in 2, track 8 with object 1 in 2.
    # 1-7 alone gives 3; 1-8 and 2-7 give 4.
    both = frame([1, 2], [7, 8], {(1, 7): 1, (2, 7): 1, (1, 8): 1})
    frames = [both, both, frame([1, 2], [7, 8], {(1, 7): 1})]
    assert identity([sequence(*frames)]) == IdentityScores(4, 2, 2)


def test_the_counts_of_sequences_are_pooled():
    a = sequence(*[frame([1], [7], FOUND)] * 2, video_id='v1')
    b = sequence(frame([1], [9], {(1, 9): 1}), frame([1], [], {}), video_id='v2')
    assert identity([a, b]) == IdentityScores(3, 1, 0)
    assert identity([a]) + identity([b]) == identity([a, b])
    assert identity([a, b]).figures() == {'IDF1': 3 / (3 + 1 / 2)}


def plain_idf1(one):
    """Compute IDF1 by its definition, by trying all assignments of whole tracks."""
    truth, tracks = one.truth_ids.tolist(), one.track_ids.tolist()
    num_truth = sum(len(f.truth_ids) for f in one.frames)
    num_tracks = sum(len(f.track_ids) for f in one.frames)

    def frames_agreed(i, j):
        return sum(f.iou[f.truth_ids == i][:, f.track_ids == j].sum() >= 0.5 for f in one.frames)

    agreed = max(
        sum(frames_agreed(truth[r], tracks[c]) for r, c in m)
        for m in matchings(len(truth), len(tracks))
    )
    return Fraction(2 * int(agreed), num_truth + num_tracks)


def test_agrees_with_the_plain_definition():
    compared = 0
    for one in random_sequences(seed=3, count=150, most=4):
        if len(one.truth_ids) + len(one.track_ids):
            assert identity([one]).figures()['IDF1'] == pytest.approx(float(plain_idf1(one)))
            compared += 1
    assert compared > 100


def test_agrees_with_trackeval():
    reference = pytest.importorskip('trackeval').metrics.Identity({'PRINT_CONFIG': False})
    sequences = list(random_sequences(seed=4, count=300))
    theirs = {}
    for one in sequences:
        theirs[one.video_id] = expected = reference.eval_sequence(trackeval_data(one))
        ours = identity([one])
        assert ours == IdentityScores(expected['IDTP'], expected['IDFN'], expected['IDFP'])
        assert (ours.figures()['IDF1'] or 0) == pytest.approx(expected['IDF1'], abs=1e-9)
    classes = {
        k: reference.combine_sequences({i: theirs[i] for i in theirs if i % 3 == k})
        for k in range(3)
    }
    for expected in (
        reference.combine_sequences(theirs),
        reference.combine_classes_det_averaged(classes),
    ):
        assert identity(sequences).figures()['IDF1'] == pytest.approx(expected['IDF1'], abs=1e-9)
