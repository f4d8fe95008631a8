"""Warnings of networks whose outputs are the same everywhere or not finite, once per network."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest
import torch

from tests.model.layout_files import build
from videomt_ros.datasets.dataset import VideoFrame
from videomt_ros.errors import OUTPUT_FAULT
from videomt_ros.evaluation.modes import _NetworkRun
from videomt_ros.inference import StreamFrame, VideoStream, push_together

IMAGE = np.random.default_rng(2).integers(0, 256, (60, 80, 3), np.uint8)


def told(caplog):
    return [text for text in caplog.messages if OUTPUT_FAULT in text]


def zero(net):
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)


def little(net):
    """Make the encoder like a file of differences."""
    for parameter in net.backbone.parameters():
        torch.nn.init.normal_(parameter, std=1e-6)


def flat(net):
    """Let the features of all pixels be the same."""
    torch.nn.init.zeros_(net.upscale[-1].norm.weight)


def overflow(net):
    torch.nn.init.constant_(net.class_head.weight, 3e38)


@pytest.mark.parametrize(
    ('spoil', 'fault'),
    [
        (zero, 'of the network tiny are the same for all queries'),
        (little, 'are the same for all queries'),
        (flat, 'are the same at all pixels'),
        (overflow, r'are not finite\. Use precision fp32'),
    ],
)
def test_a_network_that_computes_nothing_is_told_of_once(tiny_config, caplog, spoil, fault):
    net = build(tiny_config)
    with torch.no_grad():
        spoil(net)
    streams = [VideoStream(net, name='front'), VideoStream(net)]
    for t in range(3):
        push_together([StreamFrame(stream, IMAGE, t * 10**8) for stream in streams])
    (text,) = told(caplog)
    assert re.search(fault, text) and text.startswith('Camera front: ')


def test_a_network_with_random_weights_is_not_told_of(tiny_config, caplog):
    caplog.set_level(logging.INFO)
    stream = VideoStream(build(tiny_config))
    for t, image in enumerate((np.zeros_like(IMAGE), np.full_like(IMAGE, 255), IMAGE)):
        stream.push(image, t * 10**8)
    assert not told(caplog)


def test_flat_masks_of_a_blank_image_are_judged_on_the_next_one(tiny_config, caplog):
    net = build(tiny_config)
    with torch.no_grad():
        flat(net)
    stream = VideoStream(net)
    stream.push(np.zeros_like(IMAGE), 0)
    assert not told(caplog)
    stream.push(IMAGE, 10**8)
    assert len(told(caplog)) == 1


def test_the_published_mode_of_an_evaluation_tells_of_it_too(tiny_config, caplog):
    net = build(tiny_config)
    with torch.no_grad():
        zero(net)
    run = _NetworkRun(net)
    for index in range(2):
        run.step(VideoFrame(index, index * 10**8, IMAGE))
    assert len(told(caplog)) == 1
