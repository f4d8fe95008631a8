"""A pipeline that starts frames before it finishes those before: the results stay the same."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import pytest
import torch

from tests.inference.scripted import CAT, DOG, IMAGE, STEP_NS, Obj, scripted_stream, summary
from tests.inference.test_stream import OPEN, video
from videomt_ros.inference import (
    OutlierError,
    StreamFrame,
    VideoStream,
    postprocess,
    push_together,
    start_together,
)
from videomt_ros.inference.pending import PendingFrame

TASKS = ['instance', 'panoptic', 'semantic']


@pytest.fixture(params=[True, False], ids=['cpu', 'gpu_code'])
def on_host(request, monkeypatch):
    """Both ways from outputs to pixels, that of a GPU run on the CPU."""
    monkeypatch.setattr(postprocess, 'is_on_host', lambda tensor: request.param)


def pipelined(rounds):
    """Results of rounds of frames, each started before the one before is finished."""
    results, pending = [], None
    for frames in rounds:
        started = start_together(frames)
        if pending is not None:
            results.append(pending.finish())
        pending = started
    return [*results, pending.finish()]


def told(results):
    """What results and errors say."""
    return [
        [
            repr(result) if isinstance(result, Exception) else (*summary(result), result.resets)
            for result in round_
        ]
        for round_ in results
    ]


def assert_same(net, rounds, tasks=TASKS, **settings):
    """Push rounds of (camera, image, stamp) both ways, and compare all that is told.

    Returns:
        The results, the streams of one frame after the other, and those of the pipeline.
    """
    alone, piped = (
        [VideoStream(net, task, **{**OPEN, **settings}) for task in tasks] for _ in range(2)
    )
    expected = [
        push_together([StreamFrame(alone[k], image, stamp_ns) for k, image, stamp_ns in frames])
        for frames in rounds
    ]
    results = pipelined(
        [StreamFrame(piped[k], image, stamp_ns) for k, image, stamp_ns in frames]
        for frames in rounds
    )
    assert told(results) == told(expected)
    for one, other in zip(alone, piped, strict=True):
        assert one.resets_by_reason == other.resets_by_reason
        assert one.started_anew == other.started_anew
        assert torch.equal(one.next_state, other.next_state)
    return results, alone, piped


@pytest.mark.usefixtures('on_host')
@pytest.mark.parametrize('seed', range(3))
def test_cameras_of_any_task_and_size_in_any_order(tiny_net, seed):
    rng = np.random.default_rng(seed)
    sizes = [(70, 90), (70, 90), (90, 70)]
    videos = [video(10 * seed + k, 16, size) for k, size in enumerate(sizes)]
    rounds = []
    for t in range(16):
        chosen = [k for k in rng.permutation(3) if t == 0 or rng.random() < 0.7] or [0]
        rounds.append([(k, videos[k][t], t * 10**8) for k in chosen])
    results, _, _ = assert_same(tiny_net, rounds)
    assert sum(len(result.segments) for round_ in results for result in round_) > 16


@pytest.mark.usefixtures('on_host')
@pytest.mark.parametrize('task', TASKS)
def test_videos_that_end_while_a_frame_is_pending(tiny_net, task):
    """By a jump of the stamps back and ahead, a pause and another size."""
    images, other = video(0, 20), video(1, 2, (90, 70))
    stamps_s = [0, 0.1, 0.2, 0.3, -5, -4.9, -4.8, 50, 50.1, 50.2, 50.3, 50.4, 99, 99.1]
    rounds = [[(0, image, round(s * 1e9))] for image, s in zip(images[:14], stamps_s, strict=True)]
    rounds += [[(0, image, round((99.2 + t / 10) * 1e9))] for t, image in enumerate(other)]
    rounds += [[(0, images[0], round(99.4 * 1e9))]]
    results, alone, _ = assert_same(tiny_net, rounds, [task])
    assert alone[0].resets == 5
    assert any(result.segments for (result,) in results[-4:])


@pytest.mark.usefixtures('on_host')
def test_outliers_that_are_held_and_images_that_are_none(tiny_net):
    images = video(0, 8)
    stamps_s = [0, 0.1, 0.2, 77, 0.3, 0.4, 0.5, 0.6]
    rounds = [[(0, image, round(s * 1e9))] for image, s in zip(images, stamps_s, strict=True)]
    rounds[5] = [(0, np.zeros((4, 4), np.uint8), 10**8)]
    results, _, _ = assert_same(tiny_net, rounds, ['instance'], hold_outliers=True)
    assert isinstance(results[3][0], OutlierError)
    assert isinstance(results[5][0], ValueError)
    assert results[7][0].segments


@pytest.mark.usefixtures('on_host')
@pytest.mark.parametrize('failing', [(2,), (2, 3), (0,), (5,)])
def test_a_network_that_fails_now_and_then(tiny_net, monkeypatch, failing):
    step, calls = tiny_net.step, []

    def broken(frames, state):
        calls.append(len(frames))
        if len(calls) - 1 in failing:
            raise RuntimeError('CUDA error')
        return step(frames, state)

    images = video(0, 8)
    streams = [VideoStream(tiny_net, **OPEN) for _ in range(2)]
    found = []
    for push in (lambda rounds: [push_together(frames) for frames in rounds], pipelined):
        calls.clear()
        stream = streams.pop()
        with monkeypatch.context() as patch:
            patch.setattr(tiny_net, 'step', broken)
            found.append(push([[StreamFrame(stream, i, t * 10**8)] for t, i in enumerate(images)]))
    assert told(found[0]) == told(found[1])
    assert sum(isinstance(result, Exception) for (result,) in found[1]) == len(failing)


@pytest.mark.usefixtures('on_host')
@pytest.mark.parametrize('task', TASKS)
def test_a_state_that_is_not_finite(tiny_net, monkeypatch, task, caplog):
    """The frame after it starts anew although it began before the host could know."""
    step, calls = tiny_net.step, []

    def overflowing(frames, state):
        outputs, state = step(frames, state)
        calls.append(state)
        return outputs, torch.full_like(state, float('inf')) if len(calls) in (3, 4) else state

    images, started = video(0, 8), []
    monkeypatch.setattr(tiny_net, 'step', overflowing)
    for push in (lambda rounds: [push_together(frames) for frames in rounds], pipelined):
        calls.clear()
        stream = VideoStream(tiny_net, task, **OPEN)
        started.append([])
        note = stream._note_state

        def noted(*args, note=note, stream=stream):
            note(*args)
            started[-1].append(stream.started_anew)

        stream._note_state = noted
        results = push([[StreamFrame(stream, i, t * 10**8)] for t, i in enumerate(images)])
        started.append(told(results))
    assert started[0] == started[2] == [True, False, False, True, True, False, False, False]
    assert started[1] == started[3]
    assert caplog.text.count('not finite') == 2  # once for each stream


@pytest.mark.usefixtures('on_host')
@pytest.mark.parametrize('task', TASKS)
def test_changes_complete_what_is_pending(tiny_net, task):
    """A reset, other settings and a jump of the clock concern the frames after them alone."""
    images = video(0, 12)
    changes = {
        3: lambda stream: stream.update(score_threshold=0.3, mask_threshold=0.6),
        5: lambda stream: stream.reset(),
        8: lambda stream: stream.restart('clock_jump'),
    }
    found = []
    for is_piped in (False, True):
        stream, results, pending = VideoStream(tiny_net, task, **OPEN), [], None
        for t, image in enumerate(images):
            changes.get(t, lambda stream: None)(stream)
            started = start_together([StreamFrame(stream, image, t * 10**8)])
            if not is_piped:
                results.append(started.finish())
            elif pending is not None:
                results.append(pending.finish())
            pending = started
        if is_piped:
            results.append(pending.finish())
        found.append(told(results))
    assert found[0] == found[1]


@pytest.mark.usefixtures('on_host')
def test_an_error_of_one_result_leaves_the_frame_after_it(tiny_net, monkeypatch):
    images = video(0, 5)
    stream = VideoStream(tiny_net, **OPEN)
    results, pending = [], None
    for t, image in enumerate(images):
        started = start_together([StreamFrame(stream, image, t * 10**8)])
        if pending is not None:
            with monkeypatch.context() as patch:
                if t == 3:  # while the frame 2 is finished, and 3 is started
                    broken = Mock(side_effect=RuntimeError('broken'))
                    patch.setattr(stream._memory.tracker, 'begin', broken)
                results += pending.finish()
        pending = started
    results += pending.finish()
    assert [str(r) for r in results if isinstance(r, Exception)] == ['broken']
    assert isinstance(results[2], RuntimeError)
    assert results[4].segments
    assert not stream.started_anew


def test_a_frame_may_be_finished_late_or_twice():
    """Whoever asks first, frames of a stream are completed in their order."""
    script = [[Obj(0, CAT, 4, 4 + t), Obj(1, DOG, 20, 20)] for t in range(4)]
    expected = scripted_stream(script)
    stream = scripted_stream(script)
    started = [start_together([StreamFrame(stream, IMAGE, t * STEP_NS)]) for t in range(4)]
    late = started[3].finish()
    results = [frames.finish()[0] for frames in started]
    assert results[3] is late[0]
    for t, result in enumerate(results):
        assert summary(result) == summary(expected.push(IMAGE, t * STEP_NS))


def test_a_frame_whose_times_cannot_be_read_fails_alone(monkeypatch):
    """As when the GPU fails after the last result was copied."""
    stream = scripted_stream([[Obj(0, CAT, 4, 4)]] * 2)
    started = [start_together([StreamFrame(stream, IMAGE, t * STEP_NS)]) for t in range(2)]
    error = RuntimeError('CUDA error')
    with monkeypatch.context() as patch:
        patch.setattr(PendingFrame, '_times', Mock(side_effect=error))
        assert started[0].finish() == [error]
    assert started[0].finish() == [error]
    (result,) = started[1].finish()
    assert result.segments


@pytest.mark.gpu
@pytest.mark.parametrize('task', TASKS)
def test_a_pipeline_on_a_gpu(tiny_net, task):
    rounds = [[(k, image, t * 10**8) for k in range(2)] for t, image in enumerate(video(0, 20))]
    assert_same(tiny_net.cuda(), rounds, [task, task])
