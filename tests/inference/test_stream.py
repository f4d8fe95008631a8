"""VideoStream on the real network."""

from __future__ import annotations

import logging
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from tests.inference.scripted import CAT, IMAGE, STEP_NS, Obj, scripted_stream, summary
from videomt_ros.inference import VideoStream, postprocess
from videomt_ros.model import VidEoMT

OPEN = {
    'score_threshold': 0.1,
    'min_area': 1,
    'confirm_frames': 2,
    'track_states': ('tentative', 'confirmed', 'lost'),
}
"""Random weights are sure of nothing."""


def video(seed, length=6, size=(70, 90)):
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, 256, (size[0] + 40, size[1] + 40, 3), dtype=np.uint8)
    return [scene[3 * t : size[0] + 3 * t, 2 * t : size[1] + 2 * t] for t in range(length)]


def run(stream, images, start=0):
    return [stream.push(image, (start + t) * 10**8) for t, image in enumerate(images)]


def equal(a, b):
    return [summary(x) for x in a] == [summary(x) for x in b]


def last_id(results):
    """The largest id that was given."""
    return max(segment.track_id for result in results for segment in result.segments)


def shifted(results, offset):
    """What the results say, with ids that begin after the offset counted from 1."""
    told = []
    for result in results:
        ids = np.where(result.ids > 0, result.ids - np.minimum(result.ids, offset), 0)
        segments = [replace(s, track_id=s.track_id - offset) for s in result.segments]
        told.append((result.stamp_ns, ids.tolist(), segments))
    return told


@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
def test_results_of_the_real_network(tiny_net, task):
    results = run(VideoStream(tiny_net, task, **OPEN), video(0))
    assert any(r.segments for r in results)
    for result in results:
        assert result.ids.shape == (70, 90)
        assert result.num_classes == 3


def test_the_task_is_the_networks_own_unless_told(tiny_net):
    assert VideoStream(tiny_net).task == 'instance'
    with pytest.raises(ValueError, match="instance, panoptic, semantic, got 'depth'"):
        VideoStream(tiny_net, 'depth')


def test_reset_equals_a_new_stream(tiny_net):
    stream = VideoStream(tiny_net, **OPEN)
    first = run(stream, video(0))
    run(stream, video(1), start=6)
    stream.reset()
    assert stream.outputs is None
    assert equal(run(stream, video(0)), first)
    assert any(r.segments for r in first)


def test_two_streams_that_alternate_give_what_each_gives_alone(tiny_net):
    videos = video(0), video(1)
    alone = [run(VideoStream(tiny_net, **OPEN), images) for images in videos]
    streams = [VideoStream(tiny_net, **OPEN) for _ in videos]
    together = [[], []]
    for t in range(6):
        for k in range(2):
            together[k].append(streams[k].push(videos[k][t], t * 10**8))
    assert equal(together[0], alone[0])
    assert equal(together[1], alone[1])
    assert not equal(alone[0], alone[1])


def test_results_depend_on_the_past_alone(tiny_net):
    past, future = video(0), video(1)
    whole = run(VideoStream(tiny_net, **OPEN), past + future)
    other = run(VideoStream(tiny_net, **OPEN), past + video(2))
    assert equal(whole[:6], other[:6])
    assert not equal(whole[6:], other[6:])


def test_outputs_are_the_networks(tiny_net):
    stream = VideoStream(tiny_net)
    state = tiny_net.initial_state(1)
    for t, image in enumerate(video(0, 3, (64, 80))):
        stream.push(image, t)
        frame = stream.prepare(image, t).input
        with torch.inference_mode():
            expected, state = tiny_net.step(frame, state)
        assert torch.equal(stream.outputs.class_logits, expected.class_logits)
        assert torch.equal(stream.outputs.mask_logits, expected.mask_logits)


def test_time_that_goes_back_starts_anew(tiny_net, caplog):
    stream = VideoStream(tiny_net, name='front', **OPEN)
    images = video(0)
    first = run(stream, images)
    with caplog.at_level(logging.WARNING):
        again = run(stream, images)  # a bag in a loop
    words = 'Camera front: The stamps went back by 0.500 s: the stream starts anew, and ids go on'
    assert words in caplog.text
    assert {result.resets for result in first} == {0} and {r.resets for r in again} == {1}
    assert shifted(again, last_id(first)) == shifted(first, 0)


@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
def test_a_small_step_back_is_an_equal_stamp(tiny_net, task, caplog):
    images = video(0)
    stamps = [0, 10**8, 10**8 - 1000, 2 * 10**8, 0, 2 * 10**8 + 1]
    clock = [0, 10**8, 10**8, 2 * 10**8, 2 * 10**8, 2 * 10**8 + 1]
    streams = VideoStream(tiny_net, task, **OPEN), VideoStream(tiny_net, task, **OPEN)
    with caplog.at_level(logging.INFO):
        for image, stamp_ns, now_ns in zip(images, stamps, clock, strict=True):
            result, expected = streams[0].push(image, stamp_ns), streams[1].push(image, now_ns)
            assert result.stamp_ns == stamp_ns  # that of the image
            assert summary(result)[1:] == summary(expected)[1:]
    assert not caplog.records
    assert result.segments
    streams[0].push(images[0], 0)
    assert 'went back by 0.200 s' in caplog.text


@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
def test_a_state_that_is_not_finite_starts_anew_and_tracks_stay(tiny_net, task, caplog):
    """One poisoned frame must not blind the stream for ever."""
    images = video(0)
    stream = VideoStream(tiny_net, task, **OPEN)
    run(stream, images[:3])
    old = {s.track_id for s in stream.push(images[3], 3 * 10**8).segments}
    assert not caplog.records
    for poison in (float('nan'), float('inf')):
        stream._state = stream._state.clone()
        stream._state[0, 0, 0] = poison
        caplog.clear()
        stream.push(images[4], 4 * 10**8)
        assert 'not finite' in caplog.text
        caplog.clear()
        result = stream.push(images[3], 5 * 10**8)
        fresh = VideoStream(tiny_net, task, **OPEN)
        fresh.push(images[3], 0)
        assert torch.equal(stream.outputs.mask_logits, fresh.outputs.mask_logits)
        assert torch.equal(stream.outputs.class_logits, fresh.outputs.class_logits)
        assert old & {s.track_id for s in result.segments}
        assert max(s.age for s in result.segments) > 3
        assert not caplog.records


@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
def test_a_state_that_is_not_finite_is_dropped_in_a_frame_that_fails_too(
    tiny_net, task, monkeypatch
):
    image = video(0)[0]
    stream = VideoStream(tiny_net, task, **OPEN)
    stream.push(image, 0)
    stream._state = torch.full_like(stream._state, float('nan'))
    with monkeypatch.context() as patch:
        for name in ('read_classes', 'semantic_pixels'):
            patch.setattr(postprocess, name, Mock(side_effect=RuntimeError('out of memory')))
        with pytest.raises(RuntimeError, match='out of memory'):
            stream.push(image, 10**8)
    stream.push(image, 2 * 10**8)
    assert stream.started_anew
    assert stream.next_state.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_a_stream_tells_the_norm_of_its_state(tiny_net, dtype):
    stream = VideoStream(tiny_net.to(dtype), **OPEN)
    assert stream.state_norm is None
    seen = set()
    for t, image in enumerate(video(0)):
        stream.push(image, t * 10**8)
        queries = stream.next_state[0].double().numpy()
        norms = [np.sqrt(np.square(query).sum()) for query in queries]
        assert stream.state_norm == pytest.approx(np.mean(norms), rel=1e-5)
        seen.add(stream.state_norm)
    assert len(seen) > 1
    stream._state = torch.full_like(stream._state, float('inf'))
    stream.push(image, (t + 1) * 10**8)
    assert not np.isfinite(stream.state_norm)
    stream.push(image, (t + 2) * 10**8)
    assert np.isfinite(stream.state_norm)
    stream.reset()
    assert stream.state_norm is None


def test_a_network_that_always_overflows_says_so_once(tiny_net, caplog):
    with torch.no_grad():
        tiny_net.q.weight.fill_(float('nan'))
    results = run(VideoStream(tiny_net, **OPEN), video(0))
    assert not any(r.segments for r in results)
    assert caplog.text.count('not finite') == 1


@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
@pytest.mark.parametrize(
    ('gap_s', 'pause_s', 'is_new'), [(1, 4, False), (1, 6, True), (7, 6, False)]
)
def test_a_long_pause_starts_the_state_anew_and_ids_go_on(task, gap_s, pause_s, is_new):
    stream = scripted_stream([[Obj(0, CAT, 4, 4)]] * 9, task=task, gap_s=gap_s)
    for t in range(4):
        (segment, *_) = stream.push(IMAGE, t * STEP_NS).segments
        assert stream._state[0, 0, 0] == t + 1  # frames since the first state
    first_id = segment.track_id
    (segment, *_) = stream.push(IMAGE, 3 * STEP_NS + pause_s * 10**9).segments
    assert stream._state[0, 0, 0] == (1 if is_new else 5)
    if task != 'semantic':  # there, ids are those of the classes
        assert segment.track_id == first_id + (pause_s > gap_s)


def test_a_slow_stream_keeps_its_state_and_a_long_empty_view_too():
    slow = scripted_stream([[Obj(0, CAT, 4, 4)]] * 9)
    empty = scripted_stream([[]] * 9)
    for t in range(9):
        slow.push(IMAGE, t * 10**10)
        empty.push(IMAGE, t * 10**9)
    assert slow._state[0, 0, 0] == empty._state[0, 0, 0] == 9


def test_another_size_starts_anew(tiny_net, caplog):
    stream = VideoStream(tiny_net, **OPEN)
    first = run(stream, video(0))
    with caplog.at_level(logging.WARNING):
        result = stream.push(video(0, 1, (90, 70))[0], 10**9)
    assert 'The image size changed from 70 x 90 to 90 x 70: the stream starts' in caplog.text
    new = VideoStream(tiny_net, **OPEN).push(video(0, 1, (90, 70))[0], 10**9)
    assert shifted([result], last_id(first)) == shifted([new], 0)


def test_a_bad_image_leaves_the_stream_as_it_was(tiny_net):
    images = video(0)
    expected = run(VideoStream(tiny_net, **OPEN), images)
    stream = VideoStream(tiny_net, **OPEN)
    results = run(stream, images[:3])
    with pytest.raises(ValueError, match='Expected an RGB image'):
        stream.push(np.zeros((4, 4), np.uint8), 3 * 10**8)
    results += run(stream, images[3:], start=3)
    assert equal(results, expected)


@pytest.mark.parametrize('size', [(1, 1), (3, 2000), (2000, 3), (17, 5)])
@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
def test_odd_images(tiny_net, size, task):
    stream = VideoStream(tiny_net, task, **OPEN)
    for t in range(2):
        assert stream.push(np.full((*size, 3), 99, np.uint8), t).ids.shape == size


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_reduced_precision(tiny_net, dtype):
    stream = VideoStream(tiny_net.to(dtype), **OPEN)
    run(stream, video(0))
    assert stream.outputs.mask_logits.dtype == dtype


@pytest.mark.parametrize('family', ['dinov2', 'dinov3', 'eva02'])
@pytest.mark.parametrize('input_size', [16, 48, 64, 160])
def test_another_input_size(tiny_config, family, input_size):
    """As if the model had been tested with this size; its own one changes nothing."""
    config = replace(tiny_config, family=family)
    torch.manual_seed(0)
    net = VidEoMT(config).eval()
    other = VidEoMT(replace(config, test_size=input_size)).eval()
    other.load_state_dict(net.state_dict())
    own = VideoStream(net, **OPEN)
    streams = VideoStream(net, input_size=input_size, **OPEN), VideoStream(other, **OPEN)
    for t, image in enumerate(video(0, size=(70, 130))):
        result, expected = (stream.push(image, t * 10**8) for stream in streams)
        assert summary(result) == summary(expected)
        assert torch.equal(streams[0].outputs.mask_logits, streams[1].outputs.mask_logits)
        assert streams[0].outputs.mask_logits.isfinite().all()
        if input_size == config.test_size:
            assert summary(own.push(image, t * 10**8)) == summary(result)
    assert result.segments
    streams[0].reset()
    geometry = streams[0].prepare(image, 0).geometry
    assert geometry.resized_size == (input_size, round(input_size * 130 / 70))


def test_an_input_size_that_the_network_does_not_take(tiny_net):
    with pytest.raises(ValueError, match=r'multiple of .* 16 from 16 to 2048, got 70\. The own'):
        VideoStream(tiny_net, input_size=70)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_picture(tiny_net):
    images = video(0)
    expected = run(VideoStream(tiny_net, **OPEN), images)
    for result, truth in zip(
        run(VideoStream(tiny_net.cuda(), **OPEN), images), expected, strict=True
    ):
        assert (result.ids == truth.ids).mean() > 0.99


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'score_threshold': 1.5}, 'score_threshold from 0.0 to 1.0, got 1.5'),
        ({'mask_threshold': -0.1}, 'mask_threshold from 0.0 to 1.0'),
        ({'overlap_threshold': float('nan')}, 'overlap_threshold from 0.0 to 1.0, got nan'),
        ({'score_threshold': '0.5'}, "score_threshold from 0.0 to 1.0, got '0.5'"),
        ({'score_threshold': True}, 'score_threshold from 0.0 to 1.0, got True'),
        ({'min_area': -1}, 'min_area from 0'),
        ({'min_area': 1.5}, 'min_area to be a whole number, got 1.5'),
        ({'gap_s': -1.0}, 'gap_s from 0.0'),
        ({'association': 'slot'}, "association from full, slots, got 'slot'"),
        ({'association': 1}, 'association from full, slots, got 1'),
        ({'confirm_frames': 0}, 'confirm_frames from 1'),
        ({'class_filter': 'circle'}, 'class_filter to be a list of names'),
        ({'class_filter': 3}, 'class_filter to be a list of names'),
        ({'class_filter': ('dragon',)}, 'no class dragon. It knows: circle, square, sky'),
        ({'track_states': ('gone',)}, 'from tentative, confirmed, lost, got gone'),
        ({'colour': 1}, 'Unknown settings: colour. Expected some of: score_threshold'),
    ],
)
def test_bad_settings_name_the_range_and_change_nothing(tiny_net, settings, message):
    with pytest.raises(ValueError, match=message):
        VideoStream(tiny_net, **settings)
    stream = VideoStream(tiny_net, **OPEN)
    before = stream.settings
    with pytest.raises(ValueError, match=message):
        stream.update(**{'gap_s': 5.0, **settings})
    assert stream.settings == before


def test_pushing_leaves_no_graph_and_no_gradient(tiny_net):
    stream = VideoStream(tiny_net, **OPEN)
    run(stream, video(0, 2))
    assert not stream.outputs.mask_logits.requires_grad
    assert all(weight.grad is None for weight in tiny_net.parameters())


def test_the_image_and_results_are_the_callers_own():
    stream = scripted_stream([[Obj(0, CAT, 4, 4)]] * 3)
    image = IMAGE.copy()
    first = stream.push(image, 0)
    first.ids[:] = 9
    assert (stream.push(image, 1).ids <= 1).all()
    assert (image == IMAGE).all()
