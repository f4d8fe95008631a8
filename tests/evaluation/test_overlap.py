"""Frames that are read ahead and results that are written behind: order, errors, and threads."""

from __future__ import annotations

import threading

import pytest

from tests.evaluation.made_videos import MadeVideo
from videomt_ros.evaluation.overlap import FrameReader, WrittenBehind


class Watched:
    """A video that notes in which thread each step of its reading is done."""

    def __init__(self, video, log):
        self._video, self._log = video, log

    def frames(self):
        name = self._video.name
        try:
            for t, frame in enumerate(self._video.frames()):
                self._log.append((name, t, threading.current_thread()))
                yield frame
        finally:
            self._log.append((name, 'closed', threading.current_thread()))


class Kept:
    """Results in memory; adding `error` raises it, and adding an event waits for it."""

    def __init__(self):
        self.added, self.threads = [], set()

    def add(self, *result):
        self.threads.add(threading.current_thread())
        if isinstance(result[0], Exception):
            raise result[0]
        if isinstance(result[0], threading.Event):
            result[0].wait()
        self.added.append(result)

    def finish(self, *summary):
        return {'added': list(self.added), 'summary': summary}

    def abort(self):
        self.added.append('aborted')


def threads_left(name):
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


def test_videos_come_in_their_order_from_one_thread():
    log = []
    videos = [
        Watched(MadeVideo(video_id=k, num_frames=n), log) for k, n in ((1, 7), (2, 0), (3, 2))
    ]
    with FrameReader(videos) as reader:
        found = [
            [(item.frame.index, item.frame.stamp_ns) for item in reader.frames(k)]
            for k in range(3)
        ]
    assert found == [[(t, t * 100_000_000) for t in range(n)] for n in (7, 0, 2)]
    [thread] = {thread for _, _, thread in log}
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_no_more_is_read_ahead_than_was_asked_for():
    log = []
    videos = [Watched(MadeVideo(video_id=k, num_frames=3), log) for k in range(9)]
    with FrameReader(videos, depth=2) as reader:
        for k in range(2):
            for item in reader.frames(k):
                assert item.read_ms >= 0 <= item.wait_ms
                taken = 3 * k + item.frame.index + 1
                read = len([name for name, t, _ in list(log) if t != 'closed'])
                assert read <= taken + 2
    assert len({name for name, _, _ in log}) <= 3
    assert [name for name, t, _ in log if t == 'closed'] == sorted({name for name, _, _ in log})


def test_an_error_comes_after_the_frames_before_it_and_the_next_video_follows():
    videos = [MadeVideo(video_id=1, num_frames=4, fails_at=2), MadeVideo(video_id=2, num_frames=3)]
    with FrameReader(videos) as reader:
        first = reader.frames(0)
        assert [next(first).frame.index for _ in range(2)] == [0, 1]
        with pytest.raises(ValueError, match='video_1/00002.jpg is no image'):
            next(first)
        assert len(list(reader.frames(1))) == 3


def test_the_rest_of_a_video_that_is_left_is_not_read():
    log = []
    videos = [Watched(MadeVideo(video_id=k, num_frames=100), log) for k in (1, 2, 3)]
    with FrameReader(videos) as reader:
        next(reader.frames(0))
        item = next(reader.frames(2))  # the second video was finished by an earlier run
        assert item.frame.index == 0
    assert len([name for name, _, _ in log if name == 'video_1']) < 20
    assert [name for name, _, _ in log if name == 'video_2'] == []
    assert [name for name, t, _ in log if t == 'closed'] == ['video_1', 'video_3']


def test_the_reading_thread_ends_on_an_error_of_the_caller():
    log = []
    with (
        pytest.raises(KeyboardInterrupt),
        FrameReader([Watched(MadeVideo(num_frames=100), log)]) as reader,
    ):
        next(reader.frames(0))
        raise KeyboardInterrupt
    assert not threads_left('read frames')
    assert len(log) < 20
    assert {thread for _, _, thread in log} == {log[0][2]}
    assert log[-1][:2] == ('video_1', 'closed')


def test_results_are_written_in_order_by_one_thread():
    kept = Kept()
    with WrittenBehind(kept) as results:
        for k in range(50):
            results.add(k, 'mask')
        assert results.finish('tracks') == {
            'added': [(k, 'mask') for k in range(50)],
            'summary': ('tracks',),
        }
    [thread] = kept.threads
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_adding_waits_while_too_many_results_do():
    gate, kept = threading.Event(), Kept()
    with WrittenBehind(kept, depth=2) as results:
        results.add(gate)
        results.add(1)
        threading.Timer(0.01, gate.set).start()
        results.add(2)  # one place is free once the gate has opened
        assert kept.added[0] == (gate,)
        results.wait()
    assert kept.added == [(gate,), (1,), (2,)]


def test_the_first_error_is_raised_at_the_end_at_the_latest():
    with WrittenBehind(Kept()) as results:
        results.add(1)
        results.add(OSError('full'))
        with pytest.raises(OSError, match='full'):
            results.finish()


def test_what_waits_is_dropped_when_the_results_are_given_up():
    gate, kept = threading.Event(), Kept()
    with WrittenBehind(kept) as results:
        results.add(gate)
        for k in range(5):
            results.add(k)
        threading.Timer(0.01, gate.set).start()
        results.abort()
        assert kept.added in ([(gate,), 'aborted'], ['aborted'])
    assert not threads_left('write results')
