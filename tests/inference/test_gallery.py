"""Objects that return after a long time, on hand-made logits and embeddings."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.inference.scripted import (
    CAT,
    DOG,
    IMAGE,
    SKY,
    STEP_NS,
    Obj,
    ScriptedNet,
    make_embeddings,
    make_logits,
    play,
    scripted_stream,
    summary,
)
from tests.inference.test_tracker import ids, random_script, still
from videomt_ros.inference import StreamSettings, VideoStream
from videomt_ros.inference.association import build_detections
from videomt_ros.inference.batch import StreamFrame, push_together, start_together
from videomt_ros.inference.gallery import MARGIN, MAX_ENDED, SLOT_BONUS, Gallery
from videomt_ros.inference.identities import Sight
from videomt_ros.inference.track import Track
from videomt_ros.inference.tracker import Tracker
from videomt_ros.inference.tracker_constants import TrackerConstants
from videomt_ros.structures import TrackState

RED, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
A = Obj(0, CAT, 10, 4, look=RED)
AWAY = still(15)
"""Longer than `gap_s`."""


def like(likeness: float) -> tuple[float, ...]:
    """Build a look of this similarity to RED, and of none to BLUE."""
    return likeness, 0.0, float(np.sqrt(1.0 - likeness**2))


def last(script, **settings) -> list[int]:
    return ids(play(script, **settings)[-1])


@pytest.mark.parametrize('association', ['full', 'slots'])
@pytest.mark.parametrize('query', [0, 3])
def test_an_object_gets_its_id_back_in_any_slot_and_place(query, association):
    back = replace(A, query=query, row=28, column=36)
    script = still(3, A) + AWAY + still(3, back)
    results = play(script, association=association)
    assert [ids(r) for r in results] == [[1]] * 3 + [[]] * 15 + [[1]] * 3
    segment = results[-1].segments[0]
    assert (segment.age, segment.state) == (21, TrackState.CONFIRMED)
    assert segment.last_seen_ns == 20 * STEP_NS
    assert last(script, association=association, memory_similarity=0.0) == [2]
    # It is remembered again, and the next new object gets the next new id.
    again = script + AWAY + still(3, A, Obj(4, DOG, 10, 20, look=BLUE))
    assert last(again, association=association) == [1, 2]


def test_the_same_slot_is_worth_some_likeness():
    for query, least in ((0, 0.7 - SLOT_BONUS), (3, 0.7)):
        for likeness, expected in ((least + 0.01, [1]), (least - 0.01, [2])):
            back = replace(A, query=query, look=like(likeness))
            assert last(still(3, A) + AWAY + still(3, back), memory_similarity=0.7) == expected


def test_a_slot_that_has_shown_another_object_is_worth_nothing():
    other = Obj(0, DOG, 28, 36, look=BLUE)
    back = replace(A, look=like(0.6))
    script = still(3, A) + AWAY + still(3, other) + AWAY + still(3, back)
    assert last(script, memory_similarity=0.7) == [3]


def test_another_class_is_another_object_unless_the_class_is_a_guess():
    dog = replace(A, class_id=DOG, query=3)
    assert last(still(3, A) + AWAY + still(3, dog)) == [2]
    guess = replace(dog, score=0.55)  # which leaves 0.11 for the cat
    results = play(still(3, A) + AWAY + still(3, guess))
    assert [ids(r) for r in results[-3:]] == [[1]] * 3
    # The classes of the past count on.
    assert results[-1].segments[0].class_name == 'cat'


def test_of_two_alike_none_is_chosen():
    b = replace(A, query=1, row=28, column=36, look=like(0.95))
    script = still(3, A, b) + AWAY
    between = like(0.97)
    assert last(script + still(3, replace(A, query=3, look=between))) == [3]
    # Both return at once: neither is told from the other.
    both = [replace(A, query=3, look=between), replace(b, query=4, look=between)]
    assert last(script + still(3, *both)) == [3, 4]
    # The slot tells them apart.
    assert last(script + still(3, replace(A, look=between))) == [1]
    # Two that differ come back as they were.
    c = replace(b, look=like(0.99 - MARGIN))
    script = still(3, A, c) + AWAY + still(3, replace(c, query=4), replace(A, query=3))
    results = play(script)
    before, after = results[0].ids, results[-1].ids
    assert (before == after).all()


def test_two_newcomers_are_not_one_object():
    twins = [replace(A, query=q, row=row) for q, row in ((3, 2), (4, 28))]
    assert last(still(3, A) + AWAY + still(3, *twins)) == [2, 3]


def test_an_object_in_view_never_gives_its_id_away():
    b = replace(A, query=1, row=28, column=36)
    results = play(still(3, A) + still(20, A, b))
    assert [ids(r) for r in results[3:]] == [[1, 2]] * 20
    # Nor is a track the one that it was seen beside, however long that has ended.
    c = replace(A, query=2, row=28, column=4)
    script = still(3, A, b) + still(15, b) + still(3, b, c)
    assert last(script) == [1, 2]


def test_an_id_that_was_published_never_changes():
    """Whatever is published: also of tracks that are not confirmed."""
    rng = np.random.default_rng(0)
    for states in (('confirmed',), ('tentative', 'confirmed', 'lost')):
        for seed in range(4):
            script = [
                [
                    replace(o, look=tuple(rng.normal(0, 0.3, 3) + np.eye(3)[o.class_id % 3]))
                    for o in frame
                ]
                for frame in random_script(seed, 60)
            ]
            place: dict[int, tuple[int, int]] = {}
            for result in play(script, confirm_frames=2, gap_s=0.2, track_states=states):
                listed = [s.track_id for s in result.segments]
                assert len(set(listed)) == len(listed)
                shown = {s.track_id for s in result.segments if s.area}
                assert shown == set(np.unique(result.ids).tolist()) - {0}
                for segment in result.segments:
                    age, stamp = segment.age, result.stamp_ns // STEP_NS
                    first, _ = place.setdefault(segment.track_id, (stamp - age, 0))
                    assert stamp - age == first  # the age of an id goes on


def test_a_tentative_track_that_is_dropped_leaves_the_id_remembered():
    settings = {'confirm_frames': 3, 'track_states': ('tentative', 'confirmed')}
    flicker = still(4, A) + AWAY + still(1, replace(A, query=2))
    results = play(flicker + still(3) + AWAY + still(4, replace(A, query=3)), **settings)
    assert ids(results[19]) == [1]
    assert results[19].segments[0].state == TrackState.TENTATIVE
    assert ids(results[-1]) == [1]
    assert results[-1].segments[0].state == TrackState.CONFIRMED


def test_a_lost_track_gives_its_id_to_a_new_one():
    """The object is where the track cannot have moved, before the track has ended."""
    back = replace(A, query=3, row=30, column=38)
    script = still(3, A) + still(4) + still(3, back)
    results = play(script, track_states=('confirmed', 'lost'))
    assert [ids(r) for r in results] == [[1]] * 10
    assert last(script, memory_similarity=0.0) == [2]


def test_memory_s_counts_from_the_end_of_a_track():
    for frames, expected in ((19, [1]), (21, [2])):
        script = still(3, A) + still(frames) + still(3, A)
        assert last(script, gap_s=0.5, memory_s=1.5) == expected


def test_a_memory_that_is_off_gives_what_there_was_without_embeddings():
    for seed in range(3):
        script = random_script(seed, 40)
        looks = [[replace(o, look=RED) for o in frame] for frame in script]
        settings = {'gap_s': 0.2, 'confirm_frames': 2}
        off = play(looks, memory_similarity=0.0, **settings)
        assert [summary(r) for r in off] == [summary(r) for r in play(script, **settings)]


@pytest.mark.parametrize('task', ['instance', 'panoptic'])
def test_the_order_of_queries_does_not_matter(task):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        script = [
            [replace(o, look=tuple(rng.normal(0, 0.2, 3) + np.eye(3)[o.query % 3])) for o in frame]
            for frame in random_script(seed, 50)
        ]
        order = rng.permutation(6)
        shuffled = [[replace(o, query=int(order[o.query])) for o in frame] for frame in script]
        results = [play(each, task=task, gap_s=0.2) for each in (script, shuffled)]
        for a, b in zip(*results, strict=True):
            assert summary(a) == summary(b)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.filterwarnings('error')
def test_embeddings_that_are_not_finite_are_harmless(value):
    bad = replace(A, look=(value, 0.0, 0.0))
    assert last(still(1, bad) + still(2, A) + still(2, bad) + AWAY + still(3, A)) == [1]
    assert last(still(3, A) + AWAY + still(3, bad)) == [2]
    assert last(still(3, bad) + AWAY + still(3, A)) == [2]


def test_stuff_needs_no_memory():
    sky = Obj(0, SKY, 0, 0, 6, 48, look=RED)
    script = still(3, sky, replace(A, query=1, look=BLUE)) + AWAY
    results = play(script + still(3, sky, replace(A, query=1, look=BLUE)), task='panoptic')
    names = {s.track_id: s.class_name for s in results[-1].segments}
    assert names == {2: 'cat', 3: 'sky'} or names == {1: 'cat', 3: 'sky'}


def test_settings_change_while_running():
    script = still(3, A) + AWAY + still(3, replace(A, query=3))
    for change, expected in (
        ({'memory_similarity': 0.0}, [2]),
        ({'memory_s': 0.0, 'gap_s': 0.3}, [2]),
        ({'memory_s': 3600.0}, [1]),
    ):
        stream = scripted_stream(script)
        for t in range(len(script)):
            if t == 10:
                stream.update(**change)
            result = stream.push(IMAGE, t * STEP_NS)
        assert ids(result) == expected
    # Turned on late, it knows what was seen since then.
    stream = scripted_stream(
        still(6, A) + AWAY + still(3, replace(A, query=3)), memory_similarity=0
    )
    for t in range(24):
        if t == 3:
            stream.update(memory_similarity=0.6)
        result = stream.push(IMAGE, t * STEP_NS)
    assert ids(result) == [1]


@pytest.mark.parametrize('how', ['reset', 'gap', 'stamp_back'])
def test_a_new_video_knows_no_objects_of_an_old_one(how):
    stream = scripted_stream(still(40, A))
    for t in range(3):
        assert ids(stream.push(IMAGE, t * STEP_NS)) == [1]
    if how == 'reset':
        stream.reset()
    start = {'reset': 3 * STEP_NS, 'gap': 60 * 10**9, 'stamp_back': -(10**9)}[how]
    assert ids(stream.push(IMAGE, start)) == [1 if how == 'reset' else 2]


def make_tracker(num_queries, max_id, **settings):
    config = ScriptedNet([make_logits([], num_queries)]).config
    return Tracker(config, 'instance', StreamSettings(**settings), max_id)


def show(tracker, t, query, look):
    """Show nothing in frame t - 1 and one object in frame t; returns its id."""
    for number in (0, 1):
        tracker.begin((t + number - 1) * STEP_NS)
        masks = np.zeros((number, 4, 12), bool)
        masks[:, :2, :2] = True
        logits = np.zeros((number, 5))
        logits[:, CAT] = 9.0
        matches = tracker.match(
            build_detections(np.full(number, query), logits, np.full(number, 0.9), masks)
        )
        segments = tracker.settle(
            {match: Sight(match.class_id, match.score, 99, (0, 0, 3, 3)) for match in matches},
            np.array([look] * number, np.float32).reshape(number, len(look)),
        )
    (segment,) = segments
    return segment.track_id


def test_ids_remembered_are_in_use_until_none_is_free():
    tracker = make_tracker(2, max_id=5, gap_s=0.0, confirm_frames=1, memory_s=3600.0)
    looks = np.eye(8)
    assert [show(tracker, 2 * n, 0, looks[n]) for n in range(5)] == [1, 2, 3, 4, 5]
    assert show(tracker, 10, 1, looks[1]) == 2
    assert show(tracker, 12, 0, looks[5]) == 1  # of the object that ended first
    assert show(tracker, 14, 1, looks[0]) == 3  # which is not known any more; nor is the next one
    assert show(tracker, 16, 0, looks[1]) == 2


def test_memory_is_bounded():
    tracker = make_tracker(2, max_id=65535, gap_s=0.0, confirm_frames=1, memory_s=3600.0)
    rng = np.random.default_rng(0)
    sizes = []
    for n in range(3 * MAX_ENDED):
        show(tracker, 2 * n, n % 2, rng.normal(size=64))
        if n in (MAX_ENDED + 9, 3 * MAX_ENDED - 1):
            sizes.append(len(pickle.dumps(tracker)))
    assert len(tracker._gallery.ids) == MAX_ENDED
    assert sizes[1] < 1.1 * sizes[0]


def looking(script):
    return ScriptedNet([(*make_logits(o), make_embeddings(o)) for o in script])


def test_cameras_have_a_gallery_each_and_pipelining_changes_nothing():
    net = looking(still(3, A) + AWAY + still(6, replace(A, query=3)))
    alone = VideoStream(net, confirm_frames=1)
    expected = [summary(alone.push(IMAGE, t * STEP_NS)) for t in range(24)]
    assert ids(alone.push(IMAGE, 24 * STEP_NS)) == [1]
    streams = [VideoStream(net, confirm_frames=1) for _ in range(2)]
    before, found = None, [[], []]
    for t in range(25):
        frames = [StreamFrame(stream, IMAGE, t * STEP_NS) for stream in streams]
        started = start_together(frames) if t < 24 else None
        for place, result in enumerate(before.finish() if before else ()):
            found[place].append(summary(result))
        before = started
    assert found == [expected, expected]
    # A camera that has not seen the object does not know it.
    fresh = VideoStream(looking(still(9, replace(A, query=3))), confirm_frames=1)
    (result,) = push_together([StreamFrame(fresh, IMAGE, 0)])
    assert ids(result) == [1]


def test_half_precision_and_the_code_of_a_gpu_recall_the_same(monkeypatch):
    from videomt_ros.inference import postprocess

    script = still(3, A, Obj(1, DOG, 28, 36, look=BLUE)) + AWAY
    script += still(3, replace(A, query=3), Obj(4, DOG, 28, 36, look=BLUE))
    expected = [summary(r) for r in play(script, confirm_frames=2)]
    for is_on_host in (True, False):
        monkeypatch.setattr(postprocess, 'is_on_host', lambda tensor, value=is_on_host: value)
        frames = [(*make_logits(o), make_embeddings(o).to(torch.bfloat16)) for o in script]
        stream = VideoStream(ScriptedNet(frames), confirm_frames=2)
        found = [summary(stream.push(IMAGE, t * STEP_NS)) for t in range(len(script))]
        assert found == expected


def remembered(query, class_id, frame, track_id=None):
    """Build a confirmed track that was seen in one frame."""
    logits = np.zeros((1, 5))
    logits[0, class_id] = 9.0
    masks = np.ones((1, 2, 2), bool)
    detections = build_detections(np.array([query]), logits, np.array([0.9]), masks)
    track = Track.begin(detections, 0, frame, frame * STEP_NS, TrackerConstants())
    track.identity.track_id, track.identity.class_id = track_id, class_id
    track.identity.confirmed = True
    return track


@pytest.mark.parametrize('classes', [(CAT,), (CAT, DOG, DOG, SKY)])
def test_of_many_objects_the_gallery_finds_those_that_return(classes):
    """Those of other classes may be few or most of all that are remembered."""
    rng = np.random.default_rng(0)
    looks = rng.normal(size=(60, 32)).astype(np.float32)
    gallery = Gallery(StreamSettings())
    known = [remembered(n, classes[n % len(classes)], 1, n + 1) for n in range(60)]
    gallery.observe(known, looks, 1)
    gallery.keep(set(known[:20]), STEP_NS)  # the others have ended
    news = {n: remembered(100 + n, CAT, 2) for n in (4, 24, 44)}
    gallery.observe(list(news.values()), looks[list(news)], 2)
    pairs = gallery.recall(list(news.values()), known[:20])
    assert pairs == [(track, known[n]) for n, track in news.items()]
    # Their looks are longer sums now, and are told from one more object just the same.
    gallery.keep(set(news.values()), 3 * STEP_NS)
    again = remembered(0, CAT, 4)
    gallery.keep({again}, 4 * STEP_NS)
    gallery.observe([again], looks[24:25], 4)
    assert gallery.recall([again], []) == [(again, news[24])]


def test_each_object_is_forgotten_in_its_time_whichever_ended_first():
    gallery = Gallery(StreamSettings(gap_s=0.0, memory_s=1.0))
    late, early = remembered(0, CAT, 8, 1), remembered(1, CAT, 1, 2)
    gallery.observe([late, early], np.eye(2, dtype=np.float32), 8)
    gallery.keep({early}, 9 * STEP_NS)
    assert gallery.ids == {1}
    gallery.keep(set(), 10 * STEP_NS)
    found = []
    for frame in range(10, 21):
        gallery.keep(set(), frame * STEP_NS)
        found.append(gallery.ids)
    assert found == [{1, 2}] * 2 + [{1}] * 7 + [set()] * 2
