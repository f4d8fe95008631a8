"""Time of one frame through our network and stream, beside the port in `transformers`.

Both sides have the same random weights and take the same random images in turn, in one run, so
that whatever else the machine does falls on both alike. Warm-up, synchronised, medians.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.inference import VideoStream
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.model import VidEoMTConfig
from videomt_ros.speed.transformers_port import Port, build_pair, let_pass

WARM_UP = 5
"""Frames before the clock counts; more than a stream needs to confirm its tracks."""
NUM_IMAGES = 4
"""Different images that are pushed in turn."""
FRAME_NS = 33_333_333
"""Between two stamps, as of a camera with 30 images a second."""


@dataclass(frozen=True)
class Side:
    """Medians of one side in milliseconds."""

    step_ms: float
    """The network alone, on the square input."""
    frame_ms: float
    """From the image on the host to the map of segments on the host."""
    prepare_ms: float
    """Part of a frame: image to network input."""
    network_ms: float
    """Part of a frame: the network."""
    finish_ms: float
    """Part of a frame: the network's outputs to the map of segments; ours includes tracking."""
    num_segments: int
    """In the last frame."""
    input_size: tuple[int, int]
    """(height, width) of the network's input in a frame."""


@dataclass(frozen=True)
class Comparison:
    """What was measured, both sides in one run."""

    ours: Side
    port: Side
    difference: float
    """Largest absolute difference of the mask logits on the same input."""
    config: VidEoMTConfig


class Stopwatch:
    """Milliseconds of a piece of work and of its parts.

    Marks between parts are taken as the device reaches them and do not make the host wait.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._marks: list[float | torch.cuda.Event] = []

    def mark(self) -> None:
        """A part ends here, the next begins."""
        if self.device.type == 'cuda':
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.device))
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def time(self, work: Callable[[], object]) -> tuple[float, list[float]]:
        """Do the work on an idle device and wait for its end.

        Returns:
            Time of the whole, by the host's clock, and of each part.
        """
        self._synchronize()
        start = time.perf_counter()
        self._marks = []
        self.mark()
        work()
        self.mark()
        self._synchronize()
        whole_ms = (time.perf_counter() - start) * 1e3
        pairs = zip(self._marks[:-1], self._marks[1:], strict=True)
        return whole_ms, [_elapsed_ms(*pair) for pair in pairs]

    def _synchronize(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)


def _elapsed_ms(start: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    if isinstance(start, float) and isinstance(end, float):
        return (end - start) * 1e3
    assert isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event)
    return start.elapsed_time(end)


@dataclass
class Runner:
    """One side while it is measured."""

    step: Callable[[], object]
    """The network alone, on the square."""
    frame: Callable[[int], int]
    """Frame number n from image to map; returns the number of segments."""
    input_size: tuple[int, int]
    num_segments: int = 0
    step_ms: list[float] = field(default_factory=list)
    frame_ms: list[float] = field(default_factory=list)
    parts_ms: list[list[float]] = field(default_factory=list)

    def run(self, n: int, watch: Stopwatch) -> None:
        """Take frame n, then the square."""

        def frame() -> None:
            self.num_segments = self.frame(n)

        frame_ms, parts_ms = watch.time(frame)
        step_ms, _ = watch.time(self.step)
        if n >= WARM_UP:
            self.frame_ms.append(frame_ms)
            self.parts_ms.append(parts_ms)
            self.step_ms.append(step_ms)

    def medians(self) -> Side:
        """What was measured."""
        prepare_ms, network_ms, finish_ms = zip(*self.parts_ms, strict=True)
        return Side(
            step_ms=median(self.step_ms),
            frame_ms=median(self.frame_ms),
            prepare_ms=median(prepare_ms),
            network_ms=median(network_ms),
            finish_ms=median(finish_ms),
            num_segments=self.num_segments,
            input_size=self.input_size,
        )


def matching_test_size(config: VidEoMTConfig, image_size: int, frame: tuple[int, int]) -> int:
    """Short side for which our input, aspect kept, has as many patches as a square or a few more.

    Args:
        config: the network's.
        image_size: side of the square.
        frame: (height, width) of the camera's images.

    Returns:
        The smallest such multiple of the size divisor.
    """
    size = config.size_divisor
    while True:
        height, width = Geometry.of(frame, replace(config, test_size=size)).padded_size
        if height * width >= image_size**2:
            return size
        size += config.size_divisor


def random_images(frame: tuple[int, int], seed: int = 0) -> list[NDArray[np.uint8]]:
    """Images (H, W, 3) of random bytes."""
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (*frame, 3), dtype=np.uint8) for _ in range(NUM_IMAGES)]


@torch.inference_mode()
def compare(
    sizes: dict[str, int],
    *,
    image_size: int = 640,
    frame: tuple[int, int] = (720, 1280),
    num_classes: int = 40,
    num_segments: int = 10,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    repeats: int = 10,
) -> Comparison:
    """Time both sides, batch 1.

    Args:
        sizes: of the network, in the names of the port; see `transformers_port.port_sizes`.
        image_size: side of the square that the step takes on both sides, and to which the port
            squeezes its frames.
        frame: (height, width) of the camera's images.
        num_classes: K.
        num_segments: queries that pass the score threshold in each frame, on both sides.
        device: None for the CPU.
        dtype: of weights and activations.
        repeats: frames timed on each side.

    Raises:
        ValueError: this transformers has no port, or the sizes do not fit together.
    """
    device = device or torch.device('cpu')
    images = random_images(frame)
    net, network = build_pair(sizes, image_size, num_classes)
    test_size = matching_test_size(net.config, image_size, frame)
    net.config = replace(net.config, test_size=test_size)
    port = Port(network.to(device), image_size)
    let_pass(net.to(device), network, port.prepare(images[0]), images, num_segments)
    net.to(dtype)
    network.to(dtype)

    watch = Stopwatch(device)
    stream = VideoStream(net)
    square, state = port.prepare(images[0]), net.initial_state(1)

    def push(n: int) -> int:
        return len(stream.push(images[n % NUM_IMAGES], n * FRAME_NS).segments)

    def run_port(n: int) -> int:
        inputs = port.prepare(images[n % NUM_IMAGES])
        watch.mark()
        outputs = port.step(inputs)
        watch.mark()
        return len(port.finish(outputs, frame)[1])

    padded = Geometry.of(frame, net.config).padded_size
    ours = Runner(lambda: net.step(square, state), push, padded)
    theirs = Runner(lambda: port.step(square), run_port, (image_size, image_size))
    # Where the network begins and ends within a push.
    with (
        net.backbone.vit.patch_embed.register_forward_pre_hook(lambda *_: watch.mark()),
        net.query_updater.register_forward_hook(lambda *_: watch.mark()),
    ):
        for n in range(WARM_UP + repeats):
            ours.run(n, watch)
            theirs.run(n, watch)
    difference = _largest_difference(
        net.step(square, state)[0].mask_logits, port.step(square).masks_queries_logits
    )
    return Comparison(ours.medians(), theirs.medians(), difference, net.config)


def _largest_difference(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().max())
