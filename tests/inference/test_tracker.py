"""The guarantees of tracker.py, on hand-made logits."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from tests.inference.scripted import (
    CAT,
    DOG,
    IMAGE,
    ROAD,
    SKY,
    STEP_NS,
    Obj,
    ScriptedNet,
    ids_at,
    make_logits,
    play,
    scripted_stream,
    summary,
)
from videomt_ros.inference import StreamSettings, VideoStream
from videomt_ros.inference.association import build_detections
from videomt_ros.inference.identities import Sight
from videomt_ros.inference.tracker import Tracker
from videomt_ros.inference.tracker_constants import TrackerConstants
from videomt_ros.structures import MAX_TRACK_ID, TrackState


def ids(result):
    return sorted(segment.track_id for segment in result.segments)


def still(count, *objects):
    return [list(objects)] * count


A = Obj(0, CAT, 10, 4)


def test_nothing_in_view():
    for result in play(still(3)):
        assert result.segments == ()
        assert not result.ids.any()


def test_an_object_keeps_its_id_and_its_entry_tells_its_life():
    results = play(still(4, A))
    assert [ids(r) for r in results] == [[1]] * 4
    (segment,) = results[3].segments
    assert segment.class_name == 'cat'
    assert segment.is_thing
    assert segment.score == pytest.approx(0.95, abs=1e-6)
    assert segment.state == TrackState.CONFIRMED
    assert segment.age == 4
    assert segment.last_seen_ns == 3 * STEP_NS
    assert segment.area == (results[3].ids == 1).sum()


def test_all_slots_full():
    objects = [Obj(q, CAT, 12 * (q // 3), 16 * (q % 3)) for q in range(6)]
    results = play(still(4, *objects))
    assert [ids(r) for r in results] == [[1, 2, 3, 4, 5, 6]] * 4
    assert len({tuple(ids_at(r, *objects)) for r in results}) == 1


def test_takeover_by_another_class_elsewhere():
    results = play(still(3, A) + still(3, Obj(0, DOG, 10, 36)))
    assert [ids(r) for r in results] == [[1]] * 3 + [[2]] * 3


def test_takeover_by_another_class_nearby():
    # 6 cells away: a cat could have moved there, a dog is not that cat.
    results = play(still(3, A) + still(1, Obj(0, CAT, 10, 10)))
    assert ids(results[-1]) == [1]
    results = play(still(3, A) + still(3, Obj(0, DOG, 10, 10)))
    assert [ids(r) for r in results] == [[1]] * 3 + [[2]] * 3


def test_takeover_by_the_same_class_in_the_next_frame():
    results = play(still(3, A) + still(3, replace(A, column=36)))
    assert [ids(r) for r in results] == [[1]] * 3 + [[2]] * 3


def test_takeover_by_the_same_class_elsewhere_after_a_gap():
    results = play(still(3, A) + still(4) + still(3, replace(A, row=30, column=38)))
    assert [ids(r) for r in results] == [[1]] * 3 + [[]] * 4 + [[2]] * 3


def test_takeover_by_a_much_larger_object_nearby():
    small = Obj(0, CAT, 20, 20, 3, 3)
    results = play(still(3, small) + still(2, Obj(0, CAT, 15, 15, 15, 15)))
    assert [ids(r) for r in results] == [[1]] * 3 + [[2]] * 2


def test_constants_and_settings_decide_what_is_the_same_object():
    small = Obj(0, CAT, 20, 20, 3, 3)
    larger = still(3, small) + still(2, Obj(0, CAT, 15, 15, 15, 15))
    any_size = TrackerConstants(size_ratio=10.0)
    assert ids(play(larger, constants=any_size)[-1]) == [1]
    # A jump by 3 times its size.
    jump = still(3, A) + still(3, replace(A, column=28))
    assert [ids(play(jump, jump_sizes=sizes)[-1]) for sizes in (2.0, 4.0)] == [[2], [1]]
    # Two masks of IoU 1/3.
    twins = still(3, A, Obj(3, CAT, 10, 8))
    assert [len(ids(play(twins, same_object_iou=iou)[-1])) for iou in (0.3, 0.4)] == [1, 2]


@pytest.mark.parametrize('query', [0, 3])
def test_gap_and_return(query):
    results = play(still(3, A) + still(8) + still(3, replace(A, query=query, column=6)))
    assert [ids(r) for r in results] == [[1]] * 3 + [[]] * 8 + [[1]] * 3
    assert results[-1].segments[0].age == 14


@pytest.mark.parametrize('query', [0, 3])
def test_too_long_a_gap(query):
    script = still(3, A) + still(8) + still(3, replace(A, query=query))
    assert ids(play(script, gap_s=0.95)[-1]) == [1]
    assert ids(play(script, gap_s=0.85)[-1]) == [2]


def test_a_hidden_object_has_no_pixels_whatever_its_class_score():
    hidden = replace(A, logit=-8.0)
    script = still(3, A) + still(3, hidden) + still(1, A)
    results = play(script, track_states=('confirmed', 'lost'))
    assert [r.ids.any() for r in results] == [True] * 3 + [False] * 3 + [True]
    lost = results[5].segments[0]
    assert (lost.track_id, lost.state, lost.area) == (1, TrackState.LOST, 0)
    assert lost.box == results[2].segments[0].box
    assert lost.last_seen_ns == 2 * STEP_NS
    assert ids(results[6]) == [1]


def test_another_class_after_a_gap_at_the_same_place_is_another_object():
    results = play(still(3, A) + still(3) + still(3, replace(A, class_id=DOG)))
    assert [ids(r) for r in results] == [[1]] * 3 + [[]] * 3 + [[2]] * 3


def test_return_after_moving_on_behind_an_occluder():
    path = [replace(A, column=2 * t) for t in range(20)]
    script = [[path[t]] if t < 5 or t > 10 else [] for t in range(20)]
    assert {tuple(ids(r)) for r in play(script) if r.segments} == {(1,)}


def test_flicker_never_shows():
    script = still(2) + still(1, A) + still(3) + still(2, A) + still(2) + still(5, A)
    results = play(script, confirm_frames=3)
    assert [ids(r) for r in results] == [[]] * 12 + [[1]] * 3
    # ... and cuts no hole into what is there.
    big = Obj(1, DOG, 0, 0, 30, 40, score=0.7)
    results = play([[big], [big], [big], [big, A], [big]], confirm_frames=3)
    assert (results[3].ids == results[2].ids).all()


@pytest.mark.parametrize('task', ['instance', 'panoptic'])
def test_one_frame_flickers_never_show_with_default_settings(task):
    script = [[A] if t % 3 == 1 else [] for t in range(9)] + still(3, A)
    stream = VideoStream(ScriptedNet([make_logits(objects) for objects in script], task))
    results = [stream.push(IMAGE, t * STEP_NS) for t in range(len(script))]
    assert [ids(r) for r in results] == [[]] * 10 + [[1]] * 2
    assert not any(r.ids.any() for r in results[:10])


def test_tentative_tracks_on_request():
    results = play(still(3, A), confirm_frames=3, track_states=('tentative', 'confirmed'))
    assert [ids(r) for r in results] == [[1]] * 3
    assert [r.segments[0].state for r in results] == [
        TrackState.TENTATIVE,
        TrackState.TENTATIVE,
        TrackState.CONFIRMED,
    ]
    results = play(still(4, A), confirm_frames=3, track_states=('tentative',))
    assert [ids(r) for r in results] == [[1], [1], [], []]


def test_class_flicker_keeps_the_id_and_a_lasting_change_does_not():
    noisy = [[replace(A, class_id=DOG if t % 3 == 2 else CAT)] for t in range(12)]
    results = play(noisy, confirm_frames=3)
    assert [ids(r) for r in results[2:]] == [[1]] * 10
    # In an undecided frame neither class is for certain gone.
    unsure = [[replace(A, class_id=DOG, score=0.4)] for _ in range(10)]
    assert ids(play(still(5, A) + unsure, score_threshold=0.1)[-1]) == [1]
    results = play(still(9, A) + still(8, replace(A, class_id=DOG)), confirm_frames=3)
    assert [ids(r) for r in results] == [[]] * 2 + [[1]] * 11 + [[2]] * 4
    assert results[13].segments[0].class_name == 'dog'
    assert results[13].segments[0].age == 5


def test_a_young_track_may_change_its_mind_about_its_class():
    results = play(still(3, A) + still(9, replace(A, class_id=DOG)), score_threshold=0.3)
    assert [ids(r) for r in results] == [[1]] * 12
    assert results[-1].segments[0].class_name == 'dog'


def test_small_fast_objects_keep_their_id():
    # 3 cells long, 5 cells a frame: no two masks overlap.
    path = [Obj(0, CAT, 20, 5 * t, 3, 3) for t in range(9)]
    assert [ids(r) for r in play([[o] for o in path])] == [[1]] * 9
    # ... also in a frame that is not sure of the class.
    unsure = [replace(o, class_id=DOG, score=0.55) if t == 1 else o for t, o in enumerate(path)]
    assert [ids(r) for r in play([[o] for o in unsure])] == [[1]] * 9
    # The same speed, then a jump against it that the object cannot have made.
    jump = path[:6] + [replace(path[0], row=2, column=2)]
    assert [ids(r) for r in play([[o] for o in jump])] == [[1]] * 6 + [[2]]


def test_leaving_at_one_edge_and_entering_at_the_other():
    leaving = [[replace(A, column=c)] for c in range(28, 48, 4)]
    entering = [[replace(A, column=c)] for c in range(-6, 14, 4)]
    for gap in (0, 2, 5):
        results = play(leaving + still(gap) + entering)
        assert {tuple(ids(r)) for r in results[: len(leaving)]} == {(1,)}
        assert {tuple(ids(r)) for r in results[len(leaving) + gap :]} == {(2,)}


def test_two_objects_that_cross_keep_their_slots_ids():
    right = [Obj(0, CAT, 16, 2 + 3 * t) for t in range(13)]
    left = [Obj(1, CAT, 19, 38 - 3 * t) for t in range(13)]
    results = play([[a, b] for a, b in zip(right, left, strict=True)])
    first = ids_at(results[0], right[0], left[0])
    assert ids_at(results[-1], right[-1], left[-1]) == first
    assert all(set(ids(r)) <= {1, 2} for r in results)


def test_one_hides_the_other_while_they_cross():
    right = [Obj(0, CAT, 16, 2 + 3 * t) for t in range(13)]
    left = [Obj(1, CAT, 16, 38 - 3 * t) for t in range(13)]
    script = []
    for a, b in zip(right, left, strict=True):
        hidden = abs(a.column - b.column) < 6
        script.append([a, replace(b, logit=-8.0) if hidden else b])
    results = play(script)
    assert ids_at(results[-1], right[-1], left[-1]) == ids_at(results[0], right[0], left[0])


def test_two_queries_on_one_object_are_one_segment():
    twin = Obj(3, CAT, 10, 5, score=0.99)
    results = play(still(3, A, twin))
    assert [ids(r) for r in results] == [[1]] * 3
    # Also one of another class.
    assert ids(play(still(1, A, replace(twin, class_id=DOG)))[0]) == [1]
    # Neighbours, and a small one of another class in front, are two.
    assert ids(play(still(1, A, replace(twin, column=12)))[0]) == [1, 2]
    assert ids(play(still(1, A, Obj(4, DOG, 11, 5, 4, 6, score=0.99)))[0]) == [1, 2]


def test_a_twin_does_not_take_the_id_and_inherits_it_when_the_slot_lets_go():
    twin = replace(A, query=3, score=0.99)
    script = still(3, A) + still(3, A, twin) + still(3, twin) + still(3, A, twin) + still(3, A)
    assert {tuple(ids(r)) for r in play(script)} == {(1,)}
    # One that is surer of another class has to wait until the slot lets go.
    other = replace(twin, class_id=DOG)
    assert {tuple(ids(r)) for r in play(still(3, A) + still(3, A, other))} == {(1,)}


def test_a_twin_takes_over_when_the_slot_no_longer_believes_in_its_class():
    weak = replace(A, score=0.05)
    twin = replace(A, query=3)
    results = play(still(3, A) + still(60, weak, twin))
    assert {tuple(ids(r)) for r in results} == {(1,)}


def test_a_slot_that_jumps_onto_another_object_leaves_its_id_behind():
    b = Obj(1, CAT, 10, 12)
    heir = replace(A, query=2)
    # Slot 0 jumps to b, within its reach; slot 2 shows what slot 0 did show.
    script = still(3, A, b) + still(3, replace(b, query=0), b, heir)
    results = play(script)
    assert {tuple(ids_at(r, A, b)) for r in results} == {tuple(ids_at(results[0], A, b))}
    assert all(len(ids(r)) == 2 for r in results)


def test_an_averaged_score_bridges_weak_frames():
    weak = replace(A, score=0.3)
    results = play(still(4, A) + still(1, weak) + still(2, A))
    assert [ids(r) for r in results] == [[1]] * 7
    # Causal: the mean of the logits so far, not of those to come.
    assert results[3].segments[0].score == pytest.approx(0.95, abs=1e-6)
    assert results[4].segments[0].score < 0.95
    # Without a past it is no detection.
    assert ids(play(still(1, weak))[0]) == []


def test_a_remnant_does_not_drag_the_object_away():
    # While hidden, single cells flicker ever further away; the object returns where it was.
    specks = [[replace(A, row=10 + 2 * t, column=4 + 4 * t, height=1, width=1)] for t in range(6)]
    results = play(still(3, A) + specks + still(2, A), min_area=64)
    assert ids(results[-1]) == [1]


def test_too_small_is_not_seen():
    tiny = Obj(0, CAT, 10, 10, 1, 1)
    states = ('tentative', 'confirmed', 'lost')
    assert ids(play(still(3, tiny), min_area=1, track_states=states)[-1]) == [1]
    assert ids(play(still(3, tiny), min_area=65, track_states=states)[-1]) == []
    # Hidden behind another object but for a few pixels: lost, and its few pixels are nothing.
    front = Obj(1, DOG, 8, 5, 12, 12, score=0.99)
    results = play(still(3, A) + still(1, A, front), min_area=200, track_states=states)
    by_id = {s.track_id: s for s in results[-1].segments}
    assert by_id[1].state == TrackState.LOST
    assert not (results[-1].ids == 1).any()


def test_slow_streams_keep_ids_and_pauses_end_them():
    script = still(6, A)
    slow = play(script, step_ns=3_000_000_000, gap_s=1.0)
    assert {tuple(ids(r)) for r in slow} == {(1,)}
    stream = scripted_stream(script)
    for t in range(5):
        assert ids(stream.push(IMAGE, t * STEP_NS)) == [1]
    assert ids(stream.push(IMAGE, 60_000_000_000)) == [2]


def test_equal_stamps_are_frames_at_one_time():
    stream = scripted_stream([[replace(A, column=4 + t)] for t in range(5)])
    results = [stream.push(IMAGE, 7) for _ in range(5)]
    assert [ids(r) for r in results] == [[1]] * 5
    assert results[-1].segments[0].age == 5


def test_stuff_of_one_class_is_one_segment_in_panoptic_results():
    sky = [Obj(0, SKY, 0, 0, 6, 20), Obj(1, SKY, 0, 28, 6, 20)]
    road = Obj(2, ROAD, 30, 0, 10, 48)
    cats = [Obj(3, CAT, 12, 4), Obj(4, CAT, 12, 30)]
    results = play(still(3, *sky, road, *cats), task='panoptic')
    for result in results:
        names = sorted(s.class_name for s in result.segments)
        assert names == ['cat', 'cat', 'road', 'sky']
        assert ids_at(result, sky[0]) == ids_at(result, sky[1]) != [0]
    (entry,) = (s for s in results[-1].segments if s.class_name == 'sky')
    assert entry.area == pytest.approx(2 * 24 * 80, abs=4)  # rounded corners
    assert entry.box == (0, 0, 192, 24)
    # As instances they are what the network says: two.
    assert len(play(still(1, *sky), task='instance')[0].segments) == 2


def test_stuff_keeps_its_id_when_its_queries_change():
    left, right = Obj(0, SKY, 0, 0, 6, 24), Obj(1, SKY, 0, 24, 6, 24)
    other = Obj(5, SKY, 20, 0, 6, 48)
    script = still(3, left, right) + still(3, right) + still(3, right, other) + still(3, other)
    results = play(script, task='panoptic', confirm_frames=3)
    assert [ids(r) for r in results] == [[]] * 2 + [[1]] * 10
    results = play(still(3, left) + still(20) + still(3, left), task='panoptic')
    assert ids(results[-1]) == [2]


def test_class_filter_hides_classes_but_tracks_them():
    dog = Obj(1, DOG, 10, 8, score=0.99)
    stream = scripted_stream(still(10, A, dog), class_filter=('cat',), confirm_frames=2)
    stream.push(IMAGE, 0)
    result = stream.push(IMAGE, STEP_NS)
    assert [s.class_name for s in result.segments] == ['cat']
    # The dog in front takes no pixels from the cat while it is filtered out.
    assert (result.ids == 1).sum() == pytest.approx(32 * 32, abs=4)  # rounded corners
    stream.update(class_filter=())
    result = stream.push(IMAGE, 2 * STEP_NS)
    # Known for two frames already, so it is confirmed at once; ids follow first publication.
    assert [(s.class_name, s.track_id, s.age) for s in result.segments] == [
        ('dog', 2, 3),
        ('cat', 1, 3),
    ]
    stream.update(class_filter=('dog',))
    assert ids(stream.push(IMAGE, 3 * STEP_NS)) == [2]


def test_thresholds_change_without_losing_tracks():
    stream = scripted_stream(still(10, A))
    stream.push(IMAGE, 0)
    stream.update(score_threshold=0.99)
    assert ids(stream.push(IMAGE, STEP_NS)) == []
    stream.update(score_threshold=0.5)
    assert ids(stream.push(IMAGE, 2 * STEP_NS)) == [1]


def random_script(seed: int, length: int, num_queries: int = 6):
    """Objects that appear, move, flicker and vanish at random."""
    rng = np.random.default_rng(seed)
    script = []
    objects: dict[int, Obj] = {}
    for _ in range(length):
        for query in range(num_queries):
            if rng.random() < 0.1:
                objects.pop(query, None)
            if query not in objects and rng.random() < 0.2:
                row, column, height, width = rng.integers((0, 0, 3, 3), (32, 40, 16, 16))
                # No two scores are equal, so that no tie depends on an order.
                score = 0.6 + 0.39 * rng.random()
                kind = int(rng.integers(4))
                objects[query] = Obj(
                    query, kind, int(row), int(column), int(height), int(width), score
                )
            elif query in objects:
                o = objects[query]
                down, right = rng.integers(-2, 3, 2)
                objects[query] = replace(o, row=o.row + int(down), column=o.column + int(right))
        script.append([o for o in objects.values() if rng.random() < 0.9])
    return script


@pytest.mark.parametrize('task', ['instance', 'panoptic'])
def test_the_order_of_queries_does_not_matter(task):
    for seed in range(3):
        script = random_script(seed, 20)
        order = np.random.default_rng(seed).permutation(6)
        shuffled = [[replace(o, query=int(order[o.query])) for o in frame] for frame in script]
        for a, b in zip(play(script, task=task), play(shuffled, task=task), strict=True):
            assert summary(a) == summary(b)


def test_the_order_of_queries_does_not_decide_between_equals():
    pairs = [(Obj(0, CAT, 10, 4), Obj(1, DOG, 10, 5)), (Obj(0, DOG, 10, 5), Obj(1, CAT, 10, 4))]
    assert summary(play([pairs[0]])[0]) == summary(play([pairs[1]])[0])


@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
def test_results_and_entries_agree(task):
    states = ('tentative', 'confirmed', 'lost')
    for seed in range(3):
        script = random_script(seed, 25)
        for result in play(script, task=task, confirm_frames=2, track_states=states):
            entries = {s.track_id: s for s in result.segments}
            assert len(entries) == len(result.segments)
            present = set(np.unique(result.ids).tolist()) - {0}
            shown = {i for i, s in entries.items() if s.state != TrackState.LOST}
            assert present == shown
            for i, segment in entries.items():
                rows, columns = np.nonzero(result.ids == i)
                assert segment.area == len(rows)
                if len(rows):
                    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                    assert segment.box == box


def make_tracker(num_queries, task='instance', max_id=MAX_TRACK_ID, **settings):
    config = ScriptedNet([make_logits([], num_queries)], task).config
    return Tracker(config, task, StreamSettings(**settings), max_id)


def settle(tracker, matches):
    """Close a frame in which each of the numbered matches has pixels; returns the segments."""
    return tracker.settle(
        {match: Sight(match.class_id, match.score, 99, (0, n, 3, 3)) for n, match in matches}
    )


def test_ids_follow_one_another_and_start_again_after_the_last():
    tracker = make_tracker(num_queries=2, max_id=5, gap_s=0.0, confirm_frames=1)
    lasting, given = [], []
    for t in range(12):
        # Slot 1 shows another object in each frame: of another class, and elsewhere.
        masks = np.zeros((2, 4, 12), bool)
        masks[0, :, :4] = masks[1, :, 4 + 4 * (t % 2) : 8 + 4 * (t % 2)] = True
        logits = np.zeros((2, 5))
        logits[0, CAT] = 9.0
        logits[1, (DOG, SKY, ROAD)[t % 3]] = 9.0
        tracker.begin(t * STEP_NS)
        matches = tracker.match(
            build_detections(np.array([0, 1]), logits, np.array([0.9, 0.8]), masks)
        )
        settle(tracker, enumerate(matches))
        by_query = {match.query: match.identity.track_id for match in matches}
        lasting.append(by_query[0])
        given.append(by_query[1])
    assert lasting == [1] * 12
    assert given == [2, 3, 4, 5] * 3


def test_memory_does_not_grow_with_the_stream():
    rng = np.random.default_rng(0)
    tracker = make_tracker(3, 'panoptic', gap_s=0.3, track_states=('tentative', 'confirmed'))

    def run(start: int, stop: int) -> int:
        """Frames of boxes anywhere, of any class, seen or not; returns the largest id."""
        largest = 0
        for t in range(start, stop):
            tracker.begin(t * STEP_NS)
            number = int(rng.integers(1, 4))
            masks = np.zeros((number, 10, 12), bool)
            for mask in masks:
                row, column = rng.integers((0, 0), (8, 10))
                mask[row : row + 3, column : column + 3] = True
            detections = build_detections(
                rng.permutation(3)[:number],
                rng.normal(0.0, 3.0, (number, 5)),
                rng.uniform(0.3, 1.0, number),
                masks,
            )
            matches = tracker.match(detections)
            segments = settle(tracker, [(0, match) for match in matches if rng.random() < 0.9])
            largest = max(largest, *(segment.track_id for segment in segments), 0)
            assert len(tracker.tracks) <= 4 * 3
        return largest

    run(0, 1000)
    before = len(pickle.dumps(tracker))
    assert run(1000, 10_000) > 1000
    # Which tracks are alive differs; nothing else may.
    assert len(pickle.dumps(tracker)) < 2 * before


def test_tracks_are_bounded_even_if_time_stands_still():
    rng = np.random.default_rng(0)
    # 32 objects too far apart or too different to be one another; 6 are seen at a time.
    objects = [
        Obj(0, kind, 10 * row, 11 * column, 4, 4)
        for kind in (CAT, DOG)
        for row in range(4)
        for column in range(4)
    ]
    script = [
        [replace(objects[n], query=q) for q, n in enumerate(rng.permutation(32)[:6])]
        for _ in range(40)
    ]
    stream = scripted_stream(script)
    counts = []
    for _ in script:
        stream.push(IMAGE, 0)
        counts.append(len(stream._memory.tracker.tracks))
    assert max(counts) == 4 * 6
