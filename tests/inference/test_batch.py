"""Several streams of one network that step together."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import pytest
import torch

from tests.inference.scripted import summary
from tests.inference.test_stream import OPEN, equal, run, video
from videomt_ros.inference import StreamFrame, VideoStream, postprocess, push_together

SIZES = [(70, 90), (70, 90), (90, 70), (140, 180), (64, 128), (71, 90)]
TASKS = ['instance', 'panoptic', 'semantic', 'instance', 'panoptic', 'semantic']


def streams_of(net, tasks):
    return [VideoStream(net, task, **OPEN) for task in tasks]


@pytest.fixture
def batch_sizes(tiny_net, monkeypatch):
    """The number of frames of each step of the network."""
    sizes = []
    step = tiny_net.step

    def counted(frames, state):
        sizes.append(len(frames))
        return step(frames, state)

    monkeypatch.setattr(tiny_net, 'step', counted)
    return sizes


def test_together_equals_alone(tiny_net, batch_sizes):
    """Any subset of streams, of several sizes and tasks, frame by frame."""
    length = 12
    videos = [video(k, length, size) for k, size in enumerate(SIZES)]
    alone, together = streams_of(tiny_net, TASKS), streams_of(tiny_net, TASKS)
    rng = np.random.default_rng(3)
    found = 0
    for t in range(length):
        chosen = [k for k in rng.permutation(len(SIZES)) if t == 0 or rng.random() < 0.7]
        stamp_ns = t * 10**8
        expected = [alone[k].push(videos[k][t], stamp_ns) for k in chosen]
        del batch_sizes[:]
        results = push_together([StreamFrame(together[k], videos[k][t], stamp_ns) for k in chosen])
        padded = [alone[k].prepare(videos[k][t], 0).geometry.padded_size for k in chosen]
        assert sorted(batch_sizes) == sorted(padded.count(size) for size in set(padded))
        assert equal_but_scores(results, expected)
        for k in chosen:
            for name in ('class_logits', 'mask_logits'):
                own, other = (getattr(s.outputs, name) for s in (together[k], alone[k]))
                assert own.shape == other.shape
                assert torch.allclose(own, other, rtol=0, atol=1e-5)
            assert torch.allclose(together[k].next_state, alone[k].next_state, rtol=0, atol=1e-5)
        found += sum(len(result.segments) for result in results)
    assert found > length


def test_streams_of_one_input_size_share_a_batch_whatever_their_images_are(tiny_net, batch_sizes):
    sizes = [(70, 90), (140, 180), (70, 90), (64, 64)]
    inputs = [None, None, 32, 32]
    alone, together = (
        [VideoStream(tiny_net, input_size=size, **OPEN) for size in inputs] for _ in range(2)
    )
    videos = [video(k, 3, size) for k, size in enumerate(sizes)]
    for t in range(3):
        expected = [stream.push(videos[k][t], t) for k, stream in enumerate(alone)]
        del batch_sizes[:]
        results = push_together([StreamFrame(s, videos[k][t], t) for k, s in enumerate(together)])
        assert batch_sizes == [2, 1, 1]
        assert equal_but_scores(results, expected)


def equal_but_scores(results, expected):
    """Whether pixels, tracks and their states are the same; scores may differ by rounding."""
    for result, other in zip(results, expected, strict=True):
        assert result.stamp_ns == other.stamp_ns
        assert (result.ids == other.ids).all()
        tell = [
            [(s.track_id, s.class_id, s.state, s.age, s.box) for s in r.segments]
            for r in (result, other)
        ]
        assert sorted(tell[0]) == sorted(tell[1])
    return True


def test_a_stream_keeps_no_tensor_of_the_others(tiny_net):
    streams = streams_of(tiny_net, TASKS[:2])
    push_together([StreamFrame(stream, video(0)[0], 0) for stream in streams])
    for stream in streams:
        for tensor in (*stream.outputs[:2], stream.next_state):
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        assert min(stream.times) > 0
    assert streams[0].times.network_ms == streams[1].times.network_ms  # that of the batch


def test_a_bad_image_leaves_the_others_and_its_stream_as_they_are(tiny_net):
    images = [video(k) for k in range(3)]
    expected = [run(VideoStream(tiny_net, **OPEN), images[k]) for k in range(3)]
    streams = [VideoStream(tiny_net, **OPEN) for _ in range(3)]
    results = [[], [], []]
    for t in range(6):
        if t == 3:
            frames = [images[0][t], np.zeros((4, 4), np.uint8), None]
            first, *bad = push_together(
                [StreamFrame(*pair, t * 10**8) for pair in zip(streams, frames, strict=True)]
            )
            results[0].append(first)
            for error in bad:
                with pytest.raises(ValueError, match='Expected an'):
                    raise error
        for k in range(3):
            if t != 3 or k:
                (result,) = push_together([StreamFrame(streams[k], images[k][t], t * 10**8)])
                results[k].append(result)
    for k in range(3):
        assert equal(results[k], expected[k])


def test_an_error_in_one_result_leaves_the_others(tiny_net, monkeypatch):
    streams = [VideoStream(tiny_net, task, **OPEN) for task in ('instance', 'semantic')]
    frames = [StreamFrame(stream, video(0)[0], 0) for stream in streams]
    with monkeypatch.context() as patch:
        patch.setattr(postprocess, 'read_classes', Mock(side_effect=RuntimeError('broken')))
        error, result = push_together(frames)
    assert str(error) == 'broken'
    assert (result.ids > 0).any()
    error, _ = push_together([frame._replace(stamp_ns=10**8) for frame in frames])
    assert not isinstance(error, Exception)
    assert not streams[0].started_anew  # the network itself had succeeded


def test_a_batch_that_fails_is_tried_one_by_one(tiny_net, monkeypatch, caplog):
    images = video(0)
    streams = [VideoStream(tiny_net, **OPEN) for _ in range(3)]
    alone = VideoStream(tiny_net, **OPEN)
    step, sizes = tiny_net.step, []

    def limited(frames, state):
        sizes.append(len(frames))
        if len(frames) > 1:
            raise torch.OutOfMemoryError('CUDA out of memory.')
        return step(frames, state)

    for t in range(4):
        expected = alone.push(images[t], t * 10**8)
        with monkeypatch.context() as patch:
            patch.setattr(tiny_net, 'step', limited)
            results = push_together([StreamFrame(s, images[t], t * 10**8) for s in streams])
        assert [summary(result) for result in results] == [summary(expected)] * 3
    assert sizes == [3, 1, 1, 1] * 4
    assert 'failed on a batch of 3 frames' in caplog.text and 'CUDA out of memory' in caplog.text


def test_after_an_error_of_the_network_its_state_is_new_and_tracks_stay(tiny_net, monkeypatch):
    images = video(0)
    streams = [VideoStream(tiny_net, **OPEN) for _ in range(2)]

    def push(t):
        return push_together([StreamFrame(s, images[t], t * 10**8) for s in streams])

    for t in range(3):
        before = push(t)
    with monkeypatch.context() as patch:
        patch.setattr(tiny_net, 'step', Mock(side_effect=RuntimeError('CUDA error')))
        assert [str(error) for error in push(3)] == ['CUDA error'] * 2
        with pytest.raises(RuntimeError, match='CUDA error'):
            streams[0].push(images[3], 3 * 10**8)
    after = push(2)  # its stamp is a small step back
    for stream, old, new in zip(streams, before, after, strict=True):
        assert stream.started_anew
        fresh = VideoStream(tiny_net, **OPEN)
        fresh.push(images[2], 0)
        assert torch.allclose(stream.outputs.mask_logits, fresh.outputs.mask_logits, atol=1e-5)
        assert {s.track_id for s in old.segments} & {s.track_id for s in new.segments}
        assert max(s.age for s in new.segments) > 3
    push(4)
    assert not streams[0].started_anew


def test_an_interrupt_is_no_result(tiny_net, monkeypatch):
    monkeypatch.setattr(tiny_net, 'step', Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        push_together([StreamFrame(s, video(0)[0], 0) for s in streams_of(tiny_net, TASKS[:2])])


def test_what_cannot_be_one_batch_is_refused(tiny_net):
    assert push_together([]) == []
    stream = VideoStream(tiny_net)
    frame = StreamFrame(stream, video(0)[0], 0)
    with pytest.raises(ValueError, match='at most one frame of each stream'):
        push_together([frame, frame])
    assert stream.outputs is None
