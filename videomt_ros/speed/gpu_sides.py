"""The sides of `benchmark gpu`: how each is built, and what it does in each measurement."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.engines.build import build_engine
from videomt_ros.inference import StreamFrame, VideoStream, push_together
from videomt_ros.inference.batch import StartedFrames, start_together
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.model import VideoNetwork
from videomt_ros.speed.frame import FRAME_NS, matching_test_size, random_images
from videomt_ros.speed.gpu_plan import PIPELINED, PORTS, PUSH, STEP, Group
from videomt_ros.speed.transformers_port import Port, build_pair, fit_class_head

PIPELINED_FRAMES = 8
"""Number of frames that one sample of the pipelined push is the mean of."""
NUM_CLASSES = 40


@dataclass(frozen=True)
class Measure:
    """One measurement of a side."""

    run: Callable[[int], object]
    """Does the work for the n-th time."""
    input_size: tuple[int, int]
    """(height, width) of the network's input."""
    batch_size: int
    """Number of frames that the network takes at once."""
    num_frames: int
    """Number of frames in one run."""


class Pair:
    """Our network and the port with the same weights, and the images that both see."""

    def __init__(
        self,
        group: Group,
        sizes: dict[str, int],
        frame: tuple[int, int],
        num_segments: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Build both, in float32, on the device.

        Args:
            group: what is measured.
            sizes: sizes of the network; see `transformers_port.port_sizes`.
            frame: (height, width) of the cameras' images.
            num_segments: number of segments in each frame.
            device: device of both.
            dtype: type of weights and activations of the sides, the recipe excepted.
        """
        self.group, self.frame, self.device, self.dtype = group, frame, device, dtype
        height, width = group.input_size
        patch_size = 16
        self.square = math.ceil((height * width) ** 0.5 / patch_size) * patch_size
        """Side of the port's input, which has as many patches as ours or a few more."""
        self.net, self.network = build_pair(sizes, self.square, NUM_CLASSES)
        test_size = (
            matching_test_size(self.net.config, height, frame)
            if height == width
            else min(group.input_size)
        )
        self.net.config = replace(self.net.config, test_size=test_size)
        self.images = random_images(frame)
        port = Port(self.network.to(device), self.square)
        fit_class_head(
            self.net.to(device),
            self.network,
            port.prepare(self.images[0]),
            self.images,
            num_segments,
        )

    def image(self, n: int) -> NDArray[np.uint8]:
        """Return the n-th image of a video."""
        return self.images[n % len(self.images)]

    def measures(self, side: str) -> dict[str, Measure]:
        """Build a side.

        Returns:
            What is measured of it, by name.
        """
        build = _of_port if side in PORTS else _of_ours
        return build(self, side)


def _of_ours(pair: Pair, side: str) -> dict[str, Measure]:
    net: VideoNetwork = copy.deepcopy(pair.net).to(pair.dtype)
    engine, group = build_engine(net, side), pair.group
    number = group.batch_size
    if group.kind != 'cameras':
        frames = torch.randn(number, 3, *group.input_size, device=pair.device, dtype=pair.dtype)
        state = net.initial_state(number)
        step = Measure(lambda _: engine.step(frames, state), group.input_size, number, number)
        if group.kind == 'batch':
            return {STEP: step}
    padded = Geometry.of(pair.frame, net.config).padded_size
    if group.kind == 'cameras':
        streams = [VideoStream(engine) for _ in range(number)]
        return {'cameras': Measure(lambda n: _round(pair, streams, n), padded, number, number)}
    stream, pipelined = VideoStream(engine), VideoStream(engine)
    return {
        STEP: step,
        PUSH: Measure(lambda n: stream.push(pair.image(n), n * FRAME_NS), padded, 1, 1),
        PIPELINED: Measure(lambda n: _pipeline(pair, pipelined, n), padded, 1, PIPELINED_FRAMES),
    }


def _round(pair: Pair, streams: Sequence[VideoStream], n: int) -> None:
    """Push a frame of each camera."""
    frames = [
        StreamFrame(stream, pair.image(n + place), n * FRAME_NS)
        for place, stream in enumerate(streams)
    ]
    _check(push_together(frames))


def _pipeline(pair: Pair, stream: VideoStream, n: int) -> None:
    """Push some frames of a video, each of which starts before the one before is complete."""
    started: StartedFrames | None = None
    for k in range(n * PIPELINED_FRAMES, (n + 1) * PIPELINED_FRAMES):
        before, started = (
            started,
            start_together([StreamFrame(stream, pair.image(k), k * FRAME_NS)]),
        )
        if before is not None:
            _check(before.finish())
    assert started is not None
    _check(started.finish())


def _check(results: Sequence[object]) -> None:
    for result in results:
        if isinstance(result, Exception):
            raise result


def _of_port(pair: Pair, side: str) -> dict[str, Measure]:
    network: Any = copy.deepcopy(pair.network)
    if side == 'recipe':
        half = torch.float16 if pair.device.type == 'cuda' else torch.bfloat16
        port: Port = AutocastPort(torch.compile(network, dynamic=True), pair.square, half)
    else:
        network = network.to(pair.dtype)
        port = Port(torch.compile(network) if side == 'port compiled' else network, pair.square)
    number, size = pair.group.batch_size, (pair.square, pair.square)
    frames = port.prepare(pair.images[0]).repeat(number, 1, 1, 1)
    step = Measure(lambda _: port.step(frames), size, number, number)
    if pair.group.kind == 'batch':
        return {STEP: step}

    def push(n: int) -> None:
        port.finish(port.step(port.prepare(pair.image(n))), pair.frame)

    return {STEP: step, PUSH: Measure(push, size, 1, 1)}


class AutocastPort(Port):
    """The port as it was published to be timed: float32 weights under half precision autocast."""

    def __init__(self, port: Any, image_size: int, dtype: torch.dtype) -> None:
        super().__init__(port, image_size)
        self._dtype = dtype

    def step(self, frames: Tensor) -> Any:
        """Run the network on frames (B, 3, side, side)."""
        with torch.autocast(frames.device.type, self._dtype):
            return super().step(frames)
