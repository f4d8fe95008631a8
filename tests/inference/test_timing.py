"""Times of the stages of a frame: their order and sum, never how long they are."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from videomt_ros.inference import VideoStream, timing

IMAGE = np.zeros((64, 80, 3), np.uint8)


def test_the_stages_of_frames_that_share_a_step_are_told_apart(monkeypatch):
    # Begin; two preparations; one step of the network; two results.
    moments_s = iter([10.0, 10.0, 10.02, 10.02, 10.05, 10.05, 10.09, 10.15, 10.22])
    clock_s = SimpleNamespace(perf_counter=lambda: next(moments_s))
    monkeypatch.setattr(timing, 'time', clock_s)
    device = torch.device('cpu')
    clock = timing.StageClock(device)
    stages = [timing.DeviceClock(device) for _ in range(3)]
    for stage in stages:
        stage.mark()
        stage.mark()
        clock.queue(stage)
    assert clock.times(stages[0], stages[2]) == pytest.approx((20, 40, 60))
    assert clock.times(stages[1], stages[2]) == pytest.approx((30, 40, 70))


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


def test_a_stream_says_when_the_network_starts_anew(tiny_net):
    stream = VideoStream(tiny_net, score_threshold=1.0)
    started = []
    for stamp_s in (0, 1, 100, 101):  # the pause is longer than a state lasts
        stream.push(IMAGE, stamp_s * 10**9)
        started.append(stream.started_anew)
    assert started == [True, False, True, False]
