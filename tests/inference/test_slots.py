"""The tracker with `association: slots`, on hand-made logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.inference.scripted import (
    CAT,
    DOG,
    IMAGE,
    SKY,
    STEP_NS,
    Obj,
    ids_at,
    play,
    scripted_stream,
    summary,
)
from tests.inference.test_tracker import ids, random_script, still
from videomt_ros.inference.tracker_constants import TrackerConstants
from videomt_ros.structures import TrackState

A = Obj(0, CAT, 10, 4)


def by_slots(script, **settings):
    return play(script, association='slots', **settings)


def test_a_slot_keeps_its_id_wherever_its_object_is():
    jump = still(3, A) + still(3, replace(A, row=30, column=38, height=3, width=3))
    assert [ids(r) for r in by_slots(jump)] == [[1]] * 6
    assert ids(play(jump)[-1]) == [2]
    # ... and after a gap, until gap_s is over.
    back = still(3, A) + still(8) + still(3, replace(A, row=30, column=38))
    assert [ids(r) for r in by_slots(back)] == [[1]] * 3 + [[]] * 8 + [[1]] * 3
    assert ids(by_slots(back, gap_s=0.85)[-1]) == [2]


def test_an_id_never_moves_to_another_slot():
    script = still(3, A) + still(2) + still(3, replace(A, query=3))
    assert [ids(r) for r in by_slots(script)] == [[1]] * 3 + [[]] * 2 + [[2]] * 3
    assert ids(play(script)[-1]) == [1]


def test_a_class_that_changes_for_certain_begins_a_track():
    script = still(9, A) + still(8, replace(A, class_id=DOG))
    results = by_slots(script)
    kept = 9 + TrackerConstants().class_change_frames - 1
    assert [ids(r) for r in results] == [[1]] * kept + [[2]] * (len(script) - kept)
    assert results[-1].segments[0].class_name == 'dog'
    unsure = still(9, A) + still(20, replace(A, class_id=DOG, score=0.55))
    noisy = [[replace(A, class_id=DOG if t % 3 == 2 else CAT)] for t in range(12)]
    for lasting in (unsure, noisy):
        assert {tuple(ids(r)) for r in by_slots(lasting, score_threshold=0.3)} == {(1,)}


def test_two_slots_on_one_object_are_two_tracks_that_share_its_pixels():
    twin = replace(A, query=3, column=6, score=0.99)
    result = by_slots(still(3, A, twin))[-1]
    assert ids(result) == [1, 2]
    areas = {s.track_id: s.area for s in result.segments}
    assert areas[1] > areas[2]  # the surer one wins what both show
    assert ids(play(still(3, A, twin))[-1]) == [1]


def test_confirmation_smallest_area_and_score_are_those_of_full():
    flicker = still(2) + still(1, A) + still(3) + still(2, A) + still(2) + still(5, A)
    assert [ids(r) for r in by_slots(flicker, confirm_frames=3)] == [[]] * 12 + [[1]] * 3
    tiny = replace(A, height=1, width=1)
    states = ('tentative', 'confirmed', 'lost')
    script = still(3, A) + still(1, tiny)
    result = by_slots(script, min_area=65, track_states=states)[-1]
    assert [(s.track_id, s.state) for s in result.segments] == [(1, TrackState.LOST)]
    weak = replace(A, score=0.3)
    assert [ids(r) for r in by_slots(still(4, A) + still(1, weak) + still(2, A))] == [[1]] * 7
    assert ids(by_slots(still(1, weak))[0]) == []


def test_stuff_of_one_class_is_one_segment():
    sky = [Obj(0, SKY, 0, 0, 6, 20), Obj(1, SKY, 0, 28, 6, 20)]
    result = by_slots(still(3, *sky), task='panoptic')[-1]
    assert ids(result) == [1]
    assert ids_at(result, *sky) == [1, 1]


@pytest.mark.parametrize('task', ['instance', 'panoptic'])
def test_the_order_of_queries_does_not_matter(task):
    script = random_script(0, 20)
    order = np.random.default_rng(0).permutation(6)
    shuffled = [[replace(o, query=int(order[o.query])) for o in frame] for frame in script]
    for a, b in zip(by_slots(script, task=task), by_slots(shuffled, task=task), strict=True):
        assert summary(a) == summary(b)


@pytest.mark.parametrize(('before', 'after'), [('full', 'slots'), ('slots', 'full')])
def test_it_may_change_while_a_stream_runs(before, after):
    stream = scripted_stream(still(9, A), association=before)
    for t in range(3):
        assert ids(stream.push(IMAGE, t * STEP_NS)) == [1]
    stream.update(association=after)
    for t in range(3, 6):
        assert ids(stream.push(IMAGE, t * STEP_NS)) == [1]


def test_tracks_are_bounded_by_the_slots():
    script = random_script(1, 60)
    stream = scripted_stream(script, association='slots')
    for t in range(len(script)):
        stream.push(IMAGE, t * STEP_NS)
        held = [track.query for track in stream._memory.tracker.tracks]
        assert len(held) == len(set(held)) <= 6
        assert None not in held
