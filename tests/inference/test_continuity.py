"""Which frames continue a video, which are dropped, and which begin another one."""

from __future__ import annotations

import contextlib
import pickle

import numpy as np
import pytest

from tests.inference.scripted import CAT, Obj, scripted_stream
from videomt_ros.inference import OutlierError, VideoStream
from videomt_ros.inference.continuity import MAX_HELD, RESET_REASONS, Continuity, Moment

YEAR_S = 31_557_600
SIZE, OTHER = (4, 6), (6, 4)


def told(frames, hold_outliers=True, max_gap_s=5.0):
    """What becomes of each frame: `+` continues the video, `-` is dropped, or why it begins anew.

    Args:
        frames: stamp in seconds of each, or (stamp, arrival, size, whether it is the camera's),
            of which the last ones may be left out.
    """
    continuity = Continuity(hold_outliers)
    found = []
    for frame in frames:
        stamp_s, *rest = frame if isinstance(frame, tuple) else (frame,)
        arrival_s, size, is_stamped = (*rest, *(None, SIZE, True)[len(rest) :])
        moment = Moment(round(stamp_s * 1e9), size, arrival_s, is_stamped)
        try:
            broken = continuity.judge(moment, max_gap_s)
        except OutlierError as error:
            assert error.reason in RESET_REASONS
            found.append('-')
        else:
            found.append('+' if broken is None else broken.reason)
    return found


def live(stamps_s, period_s=0.1):
    """Frames that arrive in this period."""
    return [(stamp_s, 7.0 + n * period_s) for n, stamp_s in enumerate(stamps_s)]


def regular(count, start_s=1_000.0, period_s=0.1):
    return [start_s + n * period_s for n in range(count)]


@pytest.mark.parametrize('hold_outliers', [False, True])
def test_what_continues_a_video(hold_outliers):
    for stamps_s in (
        [3.0] * 6,  # equal
        [0.0] * 6,
        [-5.0, -4.9, -4.8],
        [1.0, 1.2, 1.1, 1.3, 1.1, 1.31],  # out of order by at most 0.2 s
        [1.0, 1.1, 6.1, 6.2],  # a step of max_gap_s
    ):
        assert told(stamps_s, hold_outliers) == ['+'] * len(stamps_s)


@pytest.mark.parametrize('stamp_s', [999.0, -1.0, 0.0, 1_000 + 50 * YEAR_S, 1_007.0])
def test_a_lone_wrong_stamp_is_dropped(stamp_s):
    frames = regular(20)
    frames[10] = stamp_s
    expected = ['+'] * 10 + ['-'] + ['+'] * 9
    assert told(frames) == expected
    assert told(live(frames)) == expected


def made_up(*stamps_s):
    """Frames that the camera did not stamp, with the times that they were given."""
    return [(stamp_s, None, SIZE, False) for stamp_s in stamps_s]


@pytest.mark.parametrize('wrong_s', [990.0, 1_500.0])
def test_frames_without_stamps_leave_open_which_stamps_are_right(wrong_s):
    frames = [1_000.0, wrong_s, *made_up(1_000.2, 1_000.3), 1_000.4, wrong_s, 1_000.6]
    assert told(frames) == ['+', '-', '+', '+', '+', '-', '+']
    reason = 'stamp_back' if wrong_s < 1_000 else 'stamp_ahead'
    frames = [1_000.0, wrong_s, *made_up(1_000.2), wrong_s + 0.2, *made_up(wrong_s + 0.3)]
    assert told(frames) == ['+', '-', '+', reason, '+']  # the clock was set


def test_a_lone_size_among_frames_without_stamps_is_dropped():
    other = (1_000.1, None, OTHER, False)
    assert told(made_up(1_000.0) + [other, *made_up(1_000.2)] * 3) == ['+', *['-', '+'] * 3]


def test_every_seventh_stamp_is_old():
    frames = [s - 0.35 * (n % 7 == 6) for n, s in enumerate(regular(60))]
    found = told(live(frames))
    assert (found.count('+'), found.count('-')) == (52, 8)


@pytest.mark.parametrize(
    ('step_s', 'reason'),
    [(-3600, 'stamp_back'), (3600, 'stamp_ahead'), (-0.9, 'stamp_back'), (9.0, 'stamp_ahead')],
)
def test_a_clock_that_is_set_costs_one_frame_and_begins_a_video(step_s, reason):
    frames = regular(5) + regular(9, 1_000.5 + step_s)
    expected = ['+'] * 5 + ['-', reason] + ['+'] * 7
    assert told(frames) == expected
    assert told(live(frames)) == expected
    at_once = ['+'] * 5 + [reason] + ['+'] * 8
    assert told(frames, hold_outliers=False) == at_once


def test_a_bag_in_a_loop_begins_a_video_each_time():
    found = told(live(regular(8) * 3))
    assert found == ['+'] * 8 + (['-', 'stamp_back'] + ['+'] * 6) * 2


def test_another_size():
    old, new = [(s, None, SIZE) for s in regular(6)], [(s, None, OTHER) for s in regular(6)]
    assert told([*old[:2], new[2], *old[3:]]) == ['+', '+', '-', '+', '+', '+']  # a lone one
    mixed = [(old, new)[n % 2][n] for n in range(6)]
    assert told(mixed) == ['+', '-'] * 3  # for ever
    assert told([*old[:2], *new[2:]]) == ['+', '+', '-', 'size', '+', '+']
    assert told([*old[:2], *new[2:]], hold_outliers=False) == ['+', '+', 'size', '+', '+', '+']
    still = [(5.0, None, size) for size in (SIZE, SIZE, OTHER, OTHER, OTHER)]
    assert told(still) == ['+', '+', '-', 'size', '+']  # stamps that never change


def test_two_outliers_that_disagree_are_both_dropped():
    frames = [*regular(3), 1_000 + YEAR_S, 1.0, *regular(3, 1_000.5)]
    assert told(frames) == ['+'] * 3 + ['-'] * 2 + ['+'] * 3
    sizes = [*regular(3), (1_000.3, None, OTHER), (1_000.4, None, (9, 9)), *regular(3, 1_000.5)]
    assert told(sizes) == ['+'] * 3 + ['-'] * 2 + ['+'] * 3


def test_no_stream_is_silent_for_ever():
    sizes = [(n * 0.1, None, (4, 6 + n)) for n in range(25)]
    held = ['-'] * (MAX_HELD - 1)
    assert told(sizes) == ['+', *held, 'size', *held, 'size', *held][:25]


def test_a_pause_of_the_camera_begins_a_video_without_a_drop():
    stamps_s = regular(5) + regular(5, 1_060.0)
    frames = [(stamp_s, stamp_s - 990.0) for stamp_s in stamps_s]
    expected = ['+'] * 5 + ['gap'] + ['+'] * 4
    assert told(frames) == expected
    assert told(frames, hold_outliers=False) == expected
    # Without arrivals, a pause cannot be told from a wrong stamp.
    assert told(stamps_s) == ['+'] * 5 + ['-', 'stamp_ahead'] + ['+'] * 3
    assert told(stamps_s, hold_outliers=False) == ['+'] * 5 + ['stamp_ahead'] + ['+'] * 4
    # An outlier before the pause does not matter.
    frames.insert(5, (1.0, 10.5))
    assert told(frames) == ['+'] * 5 + ['-', 'gap'] + ['+'] * 4


def test_a_wrong_stamp_after_a_pause_is_an_outlier():
    frames = [(s, s - 990.0) for s in regular(5)] + [(1_000 + YEAR_S, 70.0), (1_060.1, 70.1)]
    assert told(frames) == ['+'] * 5 + ['-', 'gap']


@pytest.mark.parametrize('rate', [1, 10, 1000])
def test_a_slow_camera_is_processed(rate):
    """One image every 10 s, live and from a bag that is replayed faster."""
    stamps_s = regular(12, period_s=10.0)
    frames = live(stamps_s, 10.0 / rate)
    begin = ['+'] if rate == 1 else ['+', '-', 'stamp_ahead']
    assert told(frames) == begin + ['+'] * (12 - len(begin))
    assert told(frames, hold_outliers=False) == ['+'] * 12
    assert told(stamps_s, hold_outliers=False) == ['+'] * 12
    # A camera that becomes slow, and one that becomes fast again.
    frames = live([*regular(20), *(1_010.0 + 10 * n for n in range(12)), *regular(20, 1_121.0)])
    found = told(frames)
    assert found[20:] == ['-', 'stamp_ahead'] + ['+'] * 30


def test_a_slow_camera_may_miss_an_image():
    stamps_s = [0, 10, 20, 30, 60, 70]  # three usual intervals
    assert told(stamps_s, hold_outliers=False) == ['+'] * 6
    assert told([*stamps_s, 110], hold_outliers=False)[-1] == 'stamp_ahead'


def test_a_long_gap_on_request():
    assert told([1, 1.1, 50, 50.1], max_gap_s=60.0) == ['+'] * 4


# --- In a stream

IMAGE = np.zeros((160, 192, 3), np.uint8)


def play(stamps_s, task='instance', images=None, **settings):
    """The stream after these frames, its results, and the reasons of dropped frames."""
    objects = [Obj(0, CAT, 4, 4), Obj(1, CAT, 20, 30)]
    stream = scripted_stream([objects], task=task, **settings)
    results, dropped = [], []
    for n, stamp_s in enumerate(stamps_s):
        image = IMAGE if images is None else images[n]
        try:
            results.append(stream.push(image, round(stamp_s * 1e9), n / 10))
        except OutlierError as error:
            dropped.append(error.reason)
    return stream, results, dropped


def ids(result):
    return sorted(segment.track_id for segment in result.segments)


@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
def test_outliers_leave_a_stream_as_it_is(task):
    stamps_s = [s - 0.35 * (n % 7 == 6) for n, s in enumerate(regular(60))]
    stamps_s[30], stamps_s[38] = 1_000 + 50 * YEAR_S, -1
    stream, results, dropped = play(stamps_s, task, hold_outliers=True)
    kept = [s for n, s in enumerate(stamps_s) if n % 7 != 6 and n not in (30, 38)]
    plain, expected, _ = play(kept, task)
    assert [r.segments for r in results] == [r.segments for r in expected]
    assert dropped.count('stamp_back') == 9 and dropped.count('stamp_ahead') == 1
    assert stream.resets == plain.resets == 0
    assert {r.resets for r in results} == {0}


@pytest.mark.parametrize('hold_outliers', [False, True])
@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
@pytest.mark.parametrize(('step_s', 'reason'), [(3600, 'stamp_ahead'), (-3600, 'stamp_back')])
def test_ids_go_on_after_an_automatic_reset(hold_outliers, task, step_s, reason, caplog):
    stamps_s = regular(5) + regular(5, 1_000 + step_s) + regular(5, 1_000 + 2 * step_s)
    stream, results, dropped = play(stamps_s, task, hold_outliers=hold_outliers)
    assert dropped == [reason] * 2 * hold_outliers
    assert stream.resets == stream.resets_by_reason[reason] == 2
    assert caplog.text.count('the stream starts anew, and ids go on') == 2
    numbers = {result.resets: ids(result) for result in results}
    if task == 'semantic':
        assert numbers == {0: [1], 1: [1], 2: [1]}
    else:
        assert numbers == {0: [1, 2], 1: [3, 4], 2: [5, 6]}
    ages = [max(s.age for s in result.segments) for result in results]
    video = 5 - hold_outliers
    assert ages == [*range(1, 6), *range(1, video + 1), *range(1, video + 1)]


def test_only_a_requested_reset_begins_at_1():
    stream, _, _ = play(regular(3))
    stream.restart('clock_jump')
    result = stream.push(IMAGE, 0)
    assert (ids(result), result.resets, result.segments[0].age) == ([3, 4], 1, 1)
    assert stream.started_anew
    stream.reset()
    assert stream.resets == 2
    result = stream.push(IMAGE, 10**18)
    assert (ids(result), result.resets) == ([1, 2], 2)
    assert stream.resets_by_reason == {
        **dict.fromkeys(RESET_REASONS, 0),
        'clock_jump': 1,
        'requested': 1,
    }


def test_a_reset_forgets_an_outlier():
    for begin_anew in (VideoStream.reset, lambda stream: stream.restart('clock_jump')):
        stream, _, dropped = play([*regular(3), 5.0], hold_outliers=True)
        assert dropped == ['stamp_back']
        begin_anew(stream)
        stream.push(IMAGE, 10**12)
        with pytest.raises(OutlierError, match='went back by 995.000 s: the frame is dropped'):
            stream.push(IMAGE, 5 * 10**9)


def test_a_gap_counts_and_the_camera_goes_on():
    images = [IMAGE] * 3 + [np.zeros((80, 96, 3), np.uint8)] * 3
    stream, results, dropped = play(regular(6), images=images, hold_outliers=True)
    assert dropped == ['size']
    assert stream.resets_by_reason['size'] == 1
    assert [result.ids.shape for result in results] == [(160, 192)] * 3 + [(80, 96)] * 2
    stream.push(images[-1], 1_060 * 10**9, 60.0)
    assert stream.resets_by_reason['gap'] == 1


def test_an_id_comes_again_only_after_all_others():
    stream, results, _ = play(regular(1))
    given = ids(results[0])
    while len(given) < 100:
        stream.restart('clock_jump')
        given += ids(stream.push(IMAGE, 0))
    assert given == list(range(1, 101))
    stream._memory.tracker.next_id = 65535  # as after as many objects
    stream.push(IMAGE, 0)
    stream.restart('clock_jump')
    assert ids(stream.push(IMAGE, 0)) == [1, 65535]


def test_outliers_and_resets_take_no_memory():
    """Wrong stamps and clocks that are set, over and over."""
    stream = scripted_stream([[Obj(0, CAT, 4, 4)]], hold_outliers=True)

    def run(rounds: int) -> int:
        for n in range(rounds):
            for stamp_s in (*regular(3), 1.0, 1_000.3, YEAR_S * (n % 3), *regular(3, 10.0)):
                with contextlib.suppress(OutlierError):
                    stream.push(IMAGE, round(stamp_s * 1e9))
        return len(pickle.dumps((stream._continuity, stream._memory, stream.resets_by_reason)))

    before = run(4)
    resets = stream.resets
    assert run(60) < 1.2 * before
    assert stream.resets >= resets + 60
