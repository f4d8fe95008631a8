"""Expected values are worked out by hand; then a plain implementation, and TrackEval itself."""

from __future__ import annotations

import pytest

from tests.evaluation.metrics.sequences import (
    frame,
    matchings,
    random_sequences,
    sequence,
    trackeval_data,
)
from videomt_ros.evaluation.metrics.clear import ClearScores, Switch, clear


def follow(tracks):
    """Score object 1, whose track in each frame is given; 0 stands for none."""
    frames = [
        # Object 2 is found throughout, so that no frame is without a pair.
        frame([1, 2], [number or 9, 5], {(1, number or 9): float(number > 0), (2, 5): 1})
        for number in tracks
    ]
    return clear([sequence(*frames)])


def test_nothing_counts_nothing():
    assert clear([]) == ClearScores()
    assert clear([sequence(frame([], [], {}))]) == ClearScores()
    assert ClearScores().figures() == {'IDSW': 0, 'Frag': 0, 'MT': 0, 'ML': 0}


def test_an_object_without_tracks_is_lost():
    scores = clear([sequence(frame([1, 2], [], {}), frame([1], [], {}))])
    assert scores == ClearScores(num_missed=3, num_mostly_lost=2)


def test_tracks_without_objects_are_false():
    assert clear([sequence(frame([], [7, 8], {}))]) == ClearScores(num_false=2)


def test_each_change_of_track_is_a_switch():
    scores = follow([7, 8, 8, 7])
    assert scores.switches == (Switch('v1', 3, 1, 1, 7, 8), Switch('v1', 3, 3, 1, 8, 7))
    assert scores.figures() == {'IDSW': 2, 'Frag': 0, 'MT': 2, 'ML': 0}


def test_a_gap_is_a_fragmentation_and_no_switch():
    assert follow([7, 0, 0, 7, 0, 7]).figures()['IDSW'] == 0
    assert follow([7, 0, 0, 7, 0, 7]).num_fragments == 2


def test_a_switch_is_seen_over_a_gap():
    scores = follow([7, 0, 8])
    assert scores.switches == (Switch('v1', 3, 2, 1, 7, 8),)
    assert scores.num_fragments == 1


def test_a_track_that_goes_on_with_another_object_after_a_gap_is_a_merge():
    def show(*objects):
        """Track 7 shows an object in each frame; 0 stands for none. Object 3 has track 5."""
        frames = [
            frame([1, 2, 3], [7, 5], {(1, 7): number == 1, (2, 7): number == 2, (3, 5): 1})
            for number in objects
        ]
        return clear([sequence(*frames)]).num_merges

    assert show(1, 0, 1) == 0
    assert show(1, 0, 2) == 1
    assert show(1, 2) == 0  # which CLEAR MOT counts as a switch if object 2 had a track
    assert show(1, 0, 2, 0, 0, 1, 1, 0, 1) == 2
    assert show(0, 2, 0, 2, 1, 0, 1) == 0
    # Frames in which nothing can match are a gap, too.
    first, second = frame([1], [7], {(1, 7): 1}), frame([2], [7], {(2, 7): 1})
    nothing = frame([], [], {})
    assert clear([sequence(first, nothing, second)]).num_merges == 1
    assert clear([sequence(first, second)]).num_merges == 0
    assert (clear([sequence(first, nothing, second)]) + ClearScores(num_merges=2)).num_merges == 3


def test_a_frame_without_tracks_ends_nothing():
    found, empty = frame([1], [7], {(1, 7): 1}), frame([1], [], {})
    assert clear([sequence(found, empty, found)]).num_fragments == 0


def test_mostly_tracked_is_above_four_fifths_and_lost_below_one_fifth():
    assert follow([7] * 4 + [0]).num_mostly_tracked == 1  # object 2 alone; 4/5 is not above
    assert follow([7] * 5 + [0]).num_mostly_tracked == 2  # 5/6
    assert follow([7] + [0] * 4).num_mostly_lost == 0  # 1/5 is not below
    assert follow([7] + [0] * 5).num_mostly_lost == 1  # 1/6


def test_what_goes_on_comes_before_the_larger_overlap():
    first = frame([1], [7], {(1, 7): 0.6})
    both = frame([1], [7, 8], {(1, 7): 0.5, (1, 8): 1})
    assert clear([sequence(first, both)]).switches == ()
    # Below one half it cannot go on.
    worse = frame([1], [7, 8], {(1, 7): 0.49, (1, 8): 1})
    assert clear([sequence(first, worse)]).switches == (Switch('v1', 3, 1, 1, 7, 8),)


def test_without_history_the_larger_sum_of_overlaps_is_taken():
    scores = clear([sequence(frame([1, 2], [7, 8], {(1, 7): 0.9, (1, 8): 0.6, (2, 7): 0.6}))])
    # 0.6 + 0.6 > 0.9
    assert scores == ClearScores(num_matches=2, num_mostly_tracked=2)


def test_the_counts_of_sequences_are_pooled_and_their_ids_kept_apart():
    a = sequence(frame([1], [7], {(1, 7): 1}), video_id='v1')
    b = sequence(frame([1], [8], {(1, 8): 1}), frame([1], [6], {(1, 6): 1}), video_id='v2')
    expected = ClearScores(
        num_matches=3, num_mostly_tracked=2, switches=(Switch('v2', 3, 1, 1, 8, 6),)
    )
    assert clear([a, b]) == clear([a]) + clear([b]) == expected


def plain_clear(one):
    """Compute TP, FN, FP, IDSW, Frag, MT, ML plainly, by trying all matchings."""
    tp = fn = fp = switches = 0
    last, before, runs, seen, found = {}, {}, {}, {}, {}
    for f in one.frames:
        truth, tracks = f.truth_ids.tolist(), f.track_ids.tolist()
        for i in truth:
            seen[i] = seen.get(i, 0) + 1
        pairs = []
        if truth and tracks:

            def worth(matching, truth=truth, tracks=tracks, iou=f.iou, before=before):
                kept = [(r, c) for r, c in matching if iou[r, c] >= 0.5]
                goes_on = sum(before.get(truth[r]) == tracks[c] for r, c in kept)
                return goes_on, sum(iou[r, c] for r, c in kept)

            best = max(matchings(len(truth), len(tracks)), key=worth)
            pairs = [(truth[r], tracks[c]) for r, c in best if f.iou[r, c] >= 0.5]
            for i, j in pairs:
                found[i] = found.get(i, 0) + 1
                switches += last.get(i, j) != j
                runs[i] = runs.get(i, 0) + (i not in before)
                last[i] = j
            before = dict(pairs)
        tp += len(pairs)
        fn += len(truth) - len(pairs)
        fp += len(tracks) - len(pairs)
    shares = [found.get(i, 0) / seen[i] for i in seen]
    return (
        tp, fn, fp, switches, sum(n - 1 for n in runs.values()),
        sum(share > 0.8 for share in shares), sum(share < 0.2 for share in shares),
    )  # fmt: skip


def counts(scores):
    return (
        scores.num_matches, scores.num_missed, scores.num_false, len(scores.switches),
        scores.num_fragments, scores.num_mostly_tracked, scores.num_mostly_lost,
    )  # fmt: skip


def test_agrees_with_the_plain_definition():
    for one in random_sequences(seed=5, count=150, most=4, ties=False):
        assert counts(clear([one])) == plain_clear(one)


def test_agrees_with_trackeval():
    reference = pytest.importorskip('trackeval').metrics.CLEAR({'PRINT_CONFIG': False})
    names = ('CLR_TP', 'CLR_FN', 'CLR_FP', 'IDSW', 'Frag', 'MT', 'ML')
    sequences = list(random_sequences(seed=6, count=300))
    theirs = {}
    for one in sequences:
        theirs[one.video_id] = expected = reference.eval_sequence(trackeval_data(one))
        assert counts(clear([one])) == tuple(expected[name] for name in names)
    classes = {
        k: reference.combine_sequences({i: theirs[i] for i in theirs if i % 3 == k})
        for k in range(3)
    }
    for expected in (
        reference.combine_sequences(theirs),
        reference.combine_classes_det_averaged(classes),
    ):
        assert counts(clear(sequences)) == tuple(expected[name] for name in names)
