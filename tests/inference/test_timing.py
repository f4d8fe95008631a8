"""Times of the stages of a frame: their order and sum, never how long they are."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from videomt_ros.inference import VideoStream, pending, timing

IMAGE = np.zeros((64, 80, 3), np.uint8)


def test_the_result_of_a_frame_counts_its_own_time_alone(monkeypatch):
    """The host labels two frames in turns, and waits for the network and the contest."""
    now_s = [10.0]
    monkeypatch.setattr(timing, 'time', SimpleNamespace(perf_counter=lambda: now_s[0]))
    monkeypatch.setattr(pending, 'time', timing.time)

    class Wait:
        def __init__(self, seconds):
            self.seconds = seconds

        def wait(self):
            now_s[0], self.seconds = now_s[0] + self.seconds, 0.0
            return [np.array(True)]

    def label(queue_s, network_s, choose_s, contest_s, settle_s):
        now_s[0] += queue_s
        yield Wait(network_s)
        now_s[0] += choose_s
        yield Wait(contest_s)
        now_s[0] += settle_s
        return np.zeros((1, 1), np.uint16), ()

    device = torch.device('cpu')

    def clock(seconds):
        marked = timing.DeviceClock(device)
        marked.mark()
        now_s[0] += seconds
        marked.mark()
        return marked

    network, found = clock(0.5), []
    frames = [
        pending.PendingFrame(
            label(*parts),
            Wait(0.0),
            pending.FrameClocks(
                clock(prepare_s), network, timing.DeviceClock(torch.device('cpu'))
            ),
            None,
            lambda state: None,
            lambda labels, times: found.append(times) or times,
        )
        for prepare_s, parts in ((0.02, (0.001, 0.3, 0.01, 0.004, 0.005)), (0.03, (0.002,) * 5))
    ]
    for frame in frames:
        frame.choose()
    assert [frame.result() for frame in frames] == found
    assert found[0] == pytest.approx((20, 500, 1 + 10 + 4 + 5))
    assert found[1] == pytest.approx((30, 500, 2 + 2 + 2 + 2))


@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
def test_a_stream_tells_the_times_of_its_newest_frame(tiny_net, task):
    stream = VideoStream(tiny_net, task)
    assert stream.times is None
    stream.push(IMAGE, 0)
    first = stream.times
    stream.push(IMAGE, 1)
    assert first is not None and stream.times is not None
    assert first is not stream.times
    assert min(*first, *stream.times) > 0


@pytest.mark.gpu
def test_a_gpu_is_timed_by_its_own_clock(tiny_net):
    stream = VideoStream(tiny_net.to('cuda'))
    for t in range(3):
        begin_s = time.perf_counter()
        stream.push(IMAGE, t)
        whole_ms = (time.perf_counter() - begin_s) * 1e3
        assert stream.times is not None
        assert 0 < stream.times.network_ms < whole_ms


@pytest.mark.gpu
def test_times_are_asked_for_before_the_gpu_has_passed_the_marks():
    clock = timing.DeviceClock(torch.device('cuda'))
    for _ in range(2):
        clock.mark()
        torch.cuda._sleep(10**8)
    clock.mark()
    assert min(clock.elapsed_ms()) > 0


def test_a_stream_says_when_the_network_starts_anew(tiny_net):
    stream = VideoStream(tiny_net, score_threshold=1.0)
    started = []
    for stamp_s in (0, 1, 100, 101):  # the pause is longer than a state lasts
        stream.push(IMAGE, stamp_s * 10**9)
        started.append(stream.started_anew)
    assert started == [True, False, True, False]
