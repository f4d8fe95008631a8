"""Time of one frame through our network and stream, beside the port in `transformers`.

Both sides have the same random weights and take the same random images in turns, in one run, so
that other load on the machine slows both alike. The first frames warm up and are not counted, the
device is synchronised before the clock is read, and the results are medians.
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
from videomt_ros.inference.timing import DeviceClock
from videomt_ros.model import VidEoMTConfig
from videomt_ros.speed.transformers_port import Port, build_pair, fit_class_head

WARM_UP = 5
"""Number of frames before the clock counts; more than a stream needs to confirm its tracks."""
NUM_IMAGES = 4
"""Number of different images that are pushed in turns."""
FRAME_NS = 33_333_333
"""Time between two stamps, that of a camera with 30 images a second."""


@dataclass(frozen=True)
class Side:
    """Median times of one side in milliseconds."""

    step_ms: float
    """Time of the network alone, on the square input."""
    frame_ms: float
    """Time from the image on the host to the map of segments on the host."""
    prepare_ms: float
    """Part of a frame from the image to the network's input."""
    network_ms: float
    """Part of a frame that the network takes."""
    finish_ms: float
    """Part of a frame from the network's outputs to the map of segments, including tracking."""
    num_segments: int
    """Number of segments in the last frame."""
    input_size: tuple[int, int]
    """Size (height, width) of the network's input in a frame."""


@dataclass(frozen=True)
class Comparison:
    """Times of both sides, measured in one run."""

    ours: Side
    port: Side
    difference: float
    """Largest absolute difference of the mask logits on the same input."""
    config: VidEoMTConfig
    """Configuration of the network on both sides."""


class Stopwatch:
    """Times a piece of work as a whole and in parts."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._clock = DeviceClock(device)

    def mark(self) -> None:
        """Mark where one part of the work ends and the next begins; the host does not wait."""
        self._clock.mark()

    def time(self, work: Callable[[], object]) -> tuple[float, list[float]]:
        """Do the work on an idle device and wait for its end.

        Returns:
            Milliseconds of the whole, by the host's clock, and of each part.
        """
        self._synchronize()
        start_s = time.perf_counter()
        self._clock = DeviceClock(self._device)
        self.mark()
        work()
        self.mark()
        self._synchronize()
        return (time.perf_counter() - start_s) * 1e3, self._clock.elapsed_ms()

    def _synchronize(self) -> None:
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)


@dataclass
class Runner:
    """Runs one side and collects its times."""

    step: Callable[[], object]
    """Runs the network alone, on the square."""
    frame: Callable[[int], int]
    """Takes frame number n from image to map, and returns the number of segments."""
    input_size: tuple[int, int]
    num_segments: int = 0
    step_ms: list[float] = field(default_factory=list)
    frame_ms: list[float] = field(default_factory=list)
    parts_ms: list[list[float]] = field(default_factory=list)

    def run(self, n: int, watch: Stopwatch) -> None:
        """Time frame n, then the square."""

        def frame() -> None:
            self.num_segments = self.frame(n)

        frame_ms, parts_ms = watch.time(frame)
        step_ms, _ = watch.time(self.step)
        if n >= WARM_UP:
            self.frame_ms.append(frame_ms)
            self.parts_ms.append(parts_ms)
            self.step_ms.append(step_ms)

    def medians(self) -> Side:
        """Return the median times, without those of the warm-up."""
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
    """Find the short side for which our input has as many patches as a square, or a few more.

    Args:
        config: configuration of the network, which keeps the aspect of its images.
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
    """Draw NUM_IMAGES images (H, W, 3) of random bytes."""
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
    """Time both sides with a batch of 1.

    Args:
        sizes: sizes of the network, in the names of the port; see `transformers_port.port_sizes`.
        image_size: side of the square that the step takes on both sides, and to which the port
            squeezes its frames.
        frame: (height, width) of the camera's images.
        num_classes: number of classes.
        num_segments: number of queries that exceed the score threshold in each frame, on both
            sides.
        device: device of both networks; None: the CPU.
        dtype: type of weights and activations.
        repeats: number of frames timed on each side.

    Raises:
        ValueError: this transformers has no port, or the sizes do not fit together.
    """
    device = device or torch.device('cpu')
    images = random_images(frame)
    net, network = build_pair(sizes, image_size, num_classes)
    test_size = matching_test_size(net.config, image_size, frame)
    net.config = replace(net.config, test_size=test_size)
    port = Port(network.to(device), image_size)
    fit_class_head(net.to(device), network, port.prepare(images[0]), images, num_segments)
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
