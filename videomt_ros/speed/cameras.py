"""Frames per second of several cameras that share one network, by the number of cameras."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from videomt_ros.engines.engine import Engine
from videomt_ros.inference import StartedFrames, StreamFrame, VideoStream, start_together
from videomt_ros.model import VideoNetwork
from videomt_ros.speed.frame import (
    FRAME_NS,
    WARM_UP,
    matching_test_size,
    random_images,
)
from videomt_ros.speed.transformers_port import Port, build_pair, fit_class_head


@dataclass(frozen=True)
class Round:
    """Times of rounds in which each camera has one frame."""

    cameras: int
    """Number of cameras, whose frames are one batch of the network."""
    samples_ms: dict[str, list[float]]
    """Milliseconds of each round: `round`, from the images on the host to the segments of all
    cameras on the host, or with a pipeline from those of one round to those of the next;
    `network`, the part that the network takes; `cpu`, processor time of all threads, which other
    load on the machine does not count in."""
    memory_bytes: int
    """Largest memory of the GPU so far; 0 on a CPU."""

    @property
    def round_ms(self) -> float:
        """Median time of a round."""
        return median(self.samples_ms['round'])

    @property
    def network_ms(self) -> float:
        """Median time of the network in a round."""
        return median(self.samples_ms['network'])

    @property
    def cpu_ms(self) -> float:
        """Median processor time of a round."""
        return median(self.samples_ms['cpu'])

    @property
    def frames_per_s(self) -> float:
        """Number of frames of all cameras per second."""
        return self.cameras / self.round_ms * 1e3


def build_network(
    sizes: dict[str, int],
    *,
    image_size: int,
    frame: tuple[int, int],
    num_segments: int,
    device: torch.device,
    dtype: torch.dtype,
) -> VideoNetwork:
    """Build a network with random weights that sees segments in random images.

    Args:
        sizes: sizes of the network; see `transformers_port.port_sizes`.
        image_size: side of a square that has as many patches as the network's input.
        frame: (height, width) of the cameras' images.
        num_segments: number of segments in each frame.
        device: device of the network.
        dtype: type of weights and activations.
    """
    net, network = build_pair(sizes, image_size, num_classes=40)
    net.config = replace(net.config, test_size=matching_test_size(net.config, image_size, frame))
    port = Port(network.to(device), image_size)
    images = random_images(frame)
    fit_class_head(net.to(device), network, port.prepare(images[0]), images, num_segments)
    return net.to(dtype)


def time_rounds(
    net: Engine,
    images: Sequence[NDArray[np.uint8]],
    numbers: Sequence[int],
    repeats: int,
    pipeline_depth: int = 1,
) -> list[Round]:
    """Time rounds of several cameras.

    Args:
        net: network on its device, in its dtype.
        images: images that the cameras send in turns, RGB, (H, W, 3).
        numbers: numbers of cameras to try.
        repeats: number of rounds timed for each.
        pipeline_depth: 2 to start each round before the one before is finished, as the node does
            with images that wait.
    """
    device = net.device
    rounds = []
    for cameras in numbers:
        streams = [VideoStream(net) for _ in range(cameras)]
        samples_ms: dict[str, list[float]] = {'round': [], 'network': [], 'cpu': []}
        pending = None
        for n in range(WARM_UP + repeats):
            frames = [
                StreamFrame(stream, images[(n + place) % len(images)], n * FRAME_NS)
                for place, stream in enumerate(streams)
            ]
            start_s, start_cpu_s = time.perf_counter(), time.process_time()
            started = start_together(frames)
            if pipeline_depth == 1:
                _finish(started)
            elif pending is not None:
                _finish(pending)
            pending = started
            times = streams[0].times
            if n >= WARM_UP and times is not None:
                samples_ms['round'].append((time.perf_counter() - start_s) * 1e3)
                samples_ms['cpu'].append((time.process_time() - start_cpu_s) * 1e3)
                samples_ms['network'].append(times.network_ms)
        peak = torch.cuda.max_memory_allocated(device) if device.type == 'cuda' else 0
        rounds.append(Round(cameras, samples_ms, peak))
    return rounds


def _finish(started: StartedFrames) -> None:
    """Wait for the results of a round: they are on the host, so the device is done with it.

    Raises:
        Exception: a frame failed.
    """
    for result in started.finish():
        if isinstance(result, Exception):
            raise result
