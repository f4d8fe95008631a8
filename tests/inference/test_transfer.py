"""Copies between host and device, and what the host reads of a frame; on a CPU and on a GPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.inference import plain_postprocess as plain
from tests.inference.scripted import summary
from tests.inference.test_stream import OPEN, run, video
from videomt_ros.inference import StreamFrame, VideoStream, postprocess, start_together
from videomt_ros.inference.readback import DeviceReadback, HostReadback, pack_bits
from videomt_ros.inference.transfer import Download, side_stream, upload
from videomt_ros.model import VidEoMT

DEVICES = ['cpu', pytest.param('cuda', marks=pytest.mark.gpu)]


@pytest.mark.parametrize('device', DEVICES)
def test_one_download_carries_tensors_of_any_type(device):
    tensors = [
        torch.randn(3, 5),
        torch.tensor(True),
        torch.zeros(0, 4),
        torch.arange(7, dtype=torch.uint8),
        torch.arange(24, dtype=torch.int16).view(4, 6).T,  # begins at an odd byte
        torch.arange(3),
    ]
    download = Download(*(tensor.to(device) for tensor in tensors))
    for array, tensor in zip(download.wait(), tensors, strict=True):
        np.testing.assert_array_equal(array, tensor.numpy(), strict=True)


@pytest.mark.parametrize('device', DEVICES)
def test_an_upload_takes_any_array_and_later_ones_leave_it(device):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    expected = image.copy()
    image.flags.writeable = False
    views = [image, image[::-1, 3:], image.transpose(1, 0, 2)]
    with side_stream(torch.device(device), 'input').active():
        tensors = [upload(view, torch.device(device)) for view in views * 20]
    for tensor, view in zip(tensors, views * 20, strict=True):
        np.testing.assert_array_equal(tensor.cpu().numpy(), view)
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize('columns', [1, 7, 8, 9, 100])
def test_bits_are_packed_as_numpy_does(columns):
    values = np.random.default_rng(columns).random((5, columns)) < 0.5
    packed = pack_bits(torch.from_numpy(values)).numpy()
    np.testing.assert_array_equal(packed, np.packbits(values, axis=1), strict=True)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.5, 1.0])
def test_a_readback_from_a_device_is_what_the_host_would_read(device, threshold):
    rng = np.random.default_rng(0)
    logits = plain.random_logits(rng, 12, (24, 47))
    logits[3, 4, 5], logits[5, 6, 7], logits[7, 8, 9] = np.nan, np.inf, -np.inf
    inside, class_logits = logits[:, :22, :45], torch.randn(12, 6)
    own = HostReadback(class_logits, logits, (22, 45), threshold)
    other = DeviceReadback(class_logits.to(device), inside.to(device), threshold)
    other.wait()
    np.testing.assert_array_equal(other.class_logits(), own.class_logits())
    for queries in (np.arange(12), np.array([9, 3, 5]), np.array([], np.intp)):
        masks = other.masks(queries)
        np.testing.assert_array_equal(masks, own.masks(queries), strict=True)
    for readback in (own, other):
        is_finite = [readback.is_finite(np.array([q])) for q in (3, 5, 7, 8)]
        assert is_finite == [False, False, False, True]


@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
@pytest.mark.parametrize('seed', range(3))
def test_a_stream_gives_the_same_with_the_code_of_a_gpu(tiny_net, monkeypatch, task, seed):
    """The same ids image and list of segments, float32, with the tensor code run on the CPU."""
    images = video(seed, 12)
    expected = run(VideoStream(tiny_net, task, **OPEN), images)
    monkeypatch.setattr(postprocess, 'is_on_host', lambda tensor: False)
    found = run(VideoStream(tiny_net, task, **OPEN), images)
    assert [result.ids.tobytes() for result in found] == [r.ids.tobytes() for r in expected]
    if task == 'semantic':  # their scores are means of shares, which differ by rounding
        for result, other in zip(found, expected, strict=True):
            scores = ([s.score for s in r.segments] for r in (result, other))
            np.testing.assert_allclose(*scores, atol=1e-5)
    else:
        assert [summary(result) for result in found] == [summary(result) for result in expected]
    assert any(result.segments for result in found)


@pytest.mark.gpu
@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
@pytest.mark.parametrize('cameras', [1, 4])
@pytest.mark.parametrize('is_piped', [False, True])
@pytest.mark.parametrize('family', ['dinov2', 'dinov3', 'eva02'])
def test_a_gpu_never_makes_the_host_wait_but_for_its_copies(
    tiny_config, task, cameras, is_piped, family
):
    torch.manual_seed(0)
    net = VidEoMT(replace(tiny_config, family=family)).eval().cuda()
    streams = [VideoStream(net, task, **OPEN) for _ in range(cameras)]
    pending, found = None, 0
    try:
        for t, image in enumerate(video(0, 10)):
            if t == 4:  # memory was allocated and kernels were loaded
                torch.cuda.synchronize()
                torch.cuda.set_sync_debug_mode('error')
            started = start_together([StreamFrame(s, image, t * 10**8) for s in streams])
            due, pending = (pending, started) if is_piped else (started, None)
            for result in due.finish() if due else ():
                found += len(result.segments)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert found


@pytest.mark.gpu
@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
def test_a_stream_on_a_gpu_gives_what_its_code_gives_on_a_cpu(tiny_net, monkeypatch, task):
    images = video(0, 12)
    monkeypatch.setattr(postprocess, 'is_on_host', lambda tensor: False)
    expected = run(VideoStream(tiny_net, task, **OPEN), images)
    found = run(VideoStream(tiny_net.cuda(), task, **OPEN), images)
    for result, other in zip(found, expected, strict=True):
        assert (result.ids == other.ids).mean() > 0.99


@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
def test_what_is_copied_for_a_frame(tiny_net, monkeypatch, task):
    """The state's norm and flag; classes, flags and masks together; pixels and embeddings."""
    monkeypatch.setattr(postprocess, 'is_on_host', lambda tensor: False)
    copies, start = [], Download.__init__

    def counted(download, *tensors):
        copies.append(len(tensors))
        start(download, *tensors)

    monkeypatch.setattr(Download, '__init__', counted)
    VideoStream(tiny_net, task, **OPEN).push(video(0)[0], 0)
    assert copies == ([2, 2] if task == 'semantic' else [2, 3, 2])
