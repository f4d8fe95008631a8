"""Semantic results on hand-made logits: segments are classes."""

from __future__ import annotations

from tests.inference.scripted import CAT, DOG, SKY, STEP_NS, Obj, play
from videomt_ros.structures import TrackState

ALL = [Obj(0, SKY, 0, 0, 20, 48), Obj(1, CAT, 20, 0, 20, 24), Obj(2, DOG, 20, 24, 20, 24)]


def test_semantic_segments_are_classes():
    results = play([ALL, ALL, ALL[:2]], task='semantic', confirm_frames=3)
    assert {(s.track_id, s.class_name) for s in results[0].segments} == {
        (CAT + 1, 'cat'),
        (DOG + 1, 'dog'),
        (SKY + 1, 'sky'),
    }
    assert results[0].ids.all()
    assert (results[0].semantic() == results[0].ids - 1).all()
    assert [s.age for s in results[1].segments] == [2, 2, 2]
    filtered = play([ALL], task='semantic', class_filter=('cat',))[0]
    assert [s.class_name for s in filtered.segments] == ['cat']
    # Filtering hides pixels; it does not give them to another class.
    assert (filtered.mask(CAT + 1) == results[0].mask(CAT + 1)).all()


def test_a_class_that_leaves_is_lost_and_then_forgotten():
    sky = [Obj(0, SKY, 0, 0, 40, 48)]
    results = play(
        [ALL, *[sky] * 5, ALL], task='semantic', gap_s=0.25, track_states=('confirmed', 'lost')
    )
    states = [
        {s.class_name: (s.state, s.age, s.last_seen_ns // STEP_NS) for s in result.segments}
        for result in results
    ]
    assert states[0]['cat'] == (TrackState.CONFIRMED, 1, 0)
    assert states[1]['cat'] == (TrackState.LOST, 2, 0)
    assert states[2]['cat'] == (TrackState.LOST, 3, 0)
    assert 'cat' not in states[4]
    assert states[6]['cat'] == (TrackState.CONFIRMED, 1, 6)
    assert [state['sky'] for state in states] == [
        (TrackState.CONFIRMED, t + 1, t) for t in range(7)
    ]
    lost = {s.class_name: s for s in results[2].segments}['cat']
    assert (lost.track_id, lost.area) == (CAT + 1, 0)
    assert lost.box == {s.class_name: s for s in results[0].segments}['cat'].box
    assert not results[2].mask(CAT + 1).any()


def test_a_class_with_too_few_pixels_is_not_seen():
    results = play([ALL], task='semantic', min_area=20 * 24 * 16 + 1000)
    assert [s.class_name for s in results[0].segments] == ['sky']
    assert set(results[0].ids.flat) == {0, SKY + 1}
