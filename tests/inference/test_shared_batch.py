"""Streams of several networks that step together, and encode each image once where they can."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.inference.scripted import summary
from tests.inference.test_batch import equal_but_scores
from tests.inference.test_stream import OPEN, video
from videomt_ros.inference import StreamFrame, VideoStream, push_together
from videomt_ros.model import NetworkGroup, build_network

SIZES = [(70, 90), (70, 90), (90, 70), (140, 180)]


@pytest.fixture
def nets(tiny_config, tiny_net):
    """Two networks that share an encoder, and one of another architecture."""
    config = replace(tiny_config, architecture='pmt', family='dinov3')
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = build_network(config).eval()
        second = build_network(
            replace(config, propagation='gru', num_queries=8, task='panoptic', name='other')
        ).eval()
    second.backbone.load_state_dict(first.backbone.state_dict())
    group = NetworkGroup([first, second, tiny_net])
    assert list(group.apart) == [2]
    return list(group)


@pytest.fixture
def passes(nets):
    """The number of frames of each pass of the shared encoder."""
    sizes: list[int] = []
    nets[0].backbone.vit.patch_embed.register_forward_pre_hook(
        lambda _, inputs: sizes.append(len(inputs[0]))
    )
    return sizes


def streams_of(nets):
    return [VideoStream(net, **OPEN) for net in nets]


def test_each_stream_of_each_camera_gets_what_it_would_alone(nets, passes):
    videos = [video(k, 5, size) for k, size in enumerate(SIZES)]
    alone, together = ([streams_of(nets) for _ in SIZES] for _ in range(2))
    found = 0
    for t in range(5):
        stamp_ns = t * 10**8
        expected = [
            stream.push(videos[k][t], stamp_ns)
            for k, streams in enumerate(alone)
            for stream in streams
        ]
        del passes[:]
        results = push_together(
            [
                StreamFrame(stream, videos[k][t], stamp_ns)
                for k, streams in enumerate(together)
                for stream in streams
            ]
        )
        assert sorted(passes) == [1, 3]  # the last camera's input is as large as the first ones'
        assert equal_but_scores(results, expected)
        for ours, theirs in zip(together, alone, strict=True):
            for stream, other in zip(ours, theirs, strict=True):
                close = {'rtol': 0, 'atol': 1e-5}
                torch.testing.assert_close(stream.next_state, other.next_state, **close)
                for own, expected_ in zip(stream.outputs[:3], other.outputs[:3], strict=True):
                    torch.testing.assert_close(own, expected_, **close)
                assert stream.state_norm == pytest.approx(other.state_norm, rel=1e-5)
        found += sum(len(result.segments) for result in results)
    assert found > 20


def test_one_camera_is_bit_for_bit_what_it_would_be_alone(nets, passes):
    alone, together = streams_of(nets[:2]), streams_of(nets[:2])
    for t, image in enumerate(video(0, 4)):
        expected = [stream.push(image, t) for stream in alone]
        del passes[:]
        results = push_together([StreamFrame(stream, image, t) for stream in together])
        assert passes == [1]
        assert [summary(result) for result in results] == [summary(e) for e in expected]


def test_other_input_sizes_are_encoded_apart(nets, passes):
    streams = [VideoStream(nets[0], **OPEN), VideoStream(nets[1], input_size=32, **OPEN)]
    image = video(0)[0]
    results = push_together([StreamFrame(stream, image, 0) for stream in streams])
    assert passes == [1, 1]
    fresh = VideoStream(nets[1], input_size=32, **OPEN)
    assert summary(results[1]) == summary(fresh.push(image, 0))


def test_a_network_that_fails_leaves_the_other_as_it_is(nets, monkeypatch):
    images = video(0, 4)
    alone, together = streams_of(nets[:2]), streams_of(nets[:2])
    for t, image in enumerate(images):
        expected = [stream.push(image, t) for stream in alone]
        with monkeypatch.context() as patch:
            if t == 1:
                patch.setattr(nets[1], '_entering', broken)
            results = push_together([StreamFrame(stream, image, t) for stream in together])
        assert summary(results[0]) == summary(expected[0])
        if t == 1:
            assert str(results[1]) == 'no memory'
        else:
            assert together[1].started_anew == (t in (0, 2))


def test_an_encoder_that_fails_for_all_is_tried_for_each(nets, monkeypatch, caplog):
    streams = [stream for _ in range(2) for stream in streams_of(nets[:2])]
    images = [image for k in range(2) for image in [video(k)[0]] * 2]
    encode = nets[0].encode

    def limited(frames):
        if len(frames) > 1:
            raise torch.OutOfMemoryError('CUDA out of memory.')
        return encode(frames)

    for net in nets[:2]:
        monkeypatch.setattr(net, 'encode', limited)
    results = push_together(
        [StreamFrame(stream, image, 0) for stream, image in zip(streams, images, strict=True)]
    )
    monkeypatch.undo()
    for net, stream, image, result in zip(nets[:2] * 2, streams, images, results, strict=True):
        fresh = VideoStream(net, **OPEN)
        assert summary(result) == summary(fresh.push(image, 0))
        torch.testing.assert_close(stream.next_state, fresh.next_state, rtol=0, atol=1e-5)
    assert 'failed to encode 2 frames together' in caplog.text


def broken(encoded):
    raise RuntimeError('no memory')


def test_a_stream_that_drops_its_frame_leaves_the_others_of_its_network(nets):
    """The decoders then have different frames of what was encoded together."""
    cameras = [streams_of(nets[:2]) for _ in range(3)]
    alone = [streams_of(nets[:2]) for _ in range(3)]
    videos = [video(k, 2) for k in range(3)]
    chosen = [(0, 0), (1, 0), (2, 0), (0, 1), (2, 1)]
    for t in range(2):
        results = push_together([StreamFrame(cameras[k][n], videos[k][t], t) for k, n in chosen])
        expected = [alone[k][n].push(videos[k][t], t) for k, n in chosen]
        assert equal_but_scores(results, expected)
        for k, n in chosen:
            torch.testing.assert_close(
                cameras[k][n].next_state, alone[k][n].next_state, rtol=0, atol=1e-5
            )
