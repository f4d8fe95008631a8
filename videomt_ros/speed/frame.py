"""Time of one frame through our network and stream, alone or beside the port in `transformers`.

Where there are two sides, both have the same random weights and take the same random images in
turns, in one run, so that other load on the machine slows both alike. The first frames warm up and
are not counted, the device is synchronised before the clock is read, and the results are medians.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.engines.build import build_engine
from videomt_ros.engines.engine import Engine
from videomt_ros.inference import VideoStream
from videomt_ros.inference.preprocess import Geometry, Preprocessor
from videomt_ros.inference.timing import DeviceClock
from videomt_ros.model import NetworkConfig, build_network
from videomt_ros.speed.analysis import Analysis, analyse
from videomt_ros.speed.clock import wall_and_cpu_ms
from videomt_ros.speed.transformers_port import Port, build_pair, fit_class_head
from videomt_ros.training.updater import start_updater

WARM_UP = 5
"""Number of frames before the clock counts; more than a stream needs to confirm its tracks."""
NUM_IMAGES = 4
"""Number of different images that are pushed in turns."""
PARTS = ('step', 'step_cpu', 'frame', 'frame_cpu', 'prepare', 'network', 'finish')
"""What `Side.samples_ms` holds."""
FRAME_NS = 33_333_333
"""Time between two stamps, that of a camera with 30 images a second."""


@dataclass(frozen=True)
class Side:
    """Times of one side."""

    samples_ms: dict[str, list[float]]
    """Milliseconds of each repeat, by part: `step`, the network alone on the square input;
    `frame`, from the image on the host to the map of segments on the host, with its parts
    `prepare`, from the image to the network's input, `network`, and `finish`, from the network's
    outputs to the map of segments, including tracking; `step_cpu` and `frame_cpu`, processor time
    of all threads."""
    num_segments: int
    """Number of segments in the last frame."""
    input_size: tuple[int, int]
    """Size (height, width) of the network's input in a frame."""

    def median_ms(self, part: str) -> float:
        """Return the median time of a part."""
        return median(self.samples_ms[part])


@dataclass(frozen=True)
class Comparison:
    """Times of both sides, measured in one run."""

    ours: Side
    port: Side
    difference: float
    """Largest absolute difference of the mask logits on the same input."""
    config: NetworkConfig
    """Configuration of the network on both sides."""
    analysis: Analysis
    """Where work, time and memory of a step on the square go."""


@dataclass
class Runner:
    """Runs one side and collects its times."""

    step: Callable[[], object]
    """Runs the network alone, on the square."""
    frame: Callable[[int], int]
    """Takes frame number n from image to map, and returns the number of segments."""
    parts_ms: Callable[[], Sequence[float]]
    """Returns the milliseconds of prepare, network and finish in the last frame."""
    input_size: tuple[int, int]
    device: torch.device
    num_segments: int = 0
    samples_ms: dict[str, list[float]] = field(
        default_factory=lambda: {part: [] for part in PARTS}
    )

    def run(self, n: int) -> None:
        """Time frame n, then the square."""

        def frame() -> None:
            self.num_segments = self.frame(n)

        frame_ms, frame_cpu_ms = wall_and_cpu_ms(frame, self.device)
        parts_ms = self.parts_ms()
        step_ms, step_cpu_ms = wall_and_cpu_ms(self.step, self.device)
        if n >= WARM_UP:
            for part, milliseconds in zip(
                self.samples_ms,
                (step_ms, step_cpu_ms, frame_ms, frame_cpu_ms, *parts_ms),
                strict=True,
            ):
                self.samples_ms[part].append(milliseconds)

    def side(self) -> Side:
        """Return the times, without those of the warm-up."""
        return Side(self.samples_ms, self.num_segments, self.input_size)


def matching_test_size(config: NetworkConfig, image_size: int, frame: tuple[int, int]) -> int:
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
    engine: str = 'eager',
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
        engine: name of the engine that runs our network; see `engines.build`.
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

    runs = build_engine(net, engine)
    square, state = port.prepare(images[0]), net.initial_state(1)
    ours = _our_runner(runs, square, images)
    clock = DeviceClock(device)

    def run_port(n: int) -> int:
        nonlocal clock
        clock = DeviceClock(device)
        clock.mark()
        inputs = port.prepare(images[n % NUM_IMAGES])
        clock.mark()
        outputs = port.step(inputs)
        clock.mark()
        num_segments = len(port.finish(outputs, frame)[1])
        clock.mark()
        return num_segments

    theirs = Runner(
        lambda: port.step(square),
        run_port,
        lambda: clock.elapsed_ms(),
        (image_size, image_size),
        device,
    )
    for n in range(WARM_UP + repeats):
        ours.run(n)
        theirs.run(n)
    difference = _largest_difference(
        runs.step(square, state)[0].mask_logits, port.step(square).masks_queries_logits
    )
    analysis = analyse(net, square, repeats)
    return Comparison(ours.side(), theirs.side(), difference, net.config, analysis)


@torch.inference_mode()
def measure(
    config: NetworkConfig,
    *,
    frame: tuple[int, int] = (720, 1280),
    num_segments: int = 10,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    engine: str = 'eager',
    repeats: int = 10,
) -> tuple[Side, Analysis]:
    """Time a network that has no counterpart in transformers, with random weights.

    Args:
        config: configuration of the network; `step` takes the input that its frames have.
        frame: (height, width) of the camera's images.
        num_segments: see `compare`, like all that follow.
        device: device of the network; None: the CPU.
        dtype: type of weights and activations.
        engine: name of the engine that runs the network.
        repeats: number of timed frames.

    Returns:
        Its times, and where work, time and memory of a step go.
    """
    device = device or torch.device('cpu')
    images = random_images(frame)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_network(config).eval()
    start_updater(net)
    net.to(device)
    prepare = Preprocessor(config, device, torch.float32)
    fit_class_head(net, None, prepare(images[0])[0], images, num_segments)
    net.to(dtype)
    inputs = prepare(images[0])[0].to(dtype)
    runner = _our_runner(build_engine(net, engine), inputs, images)
    for n in range(WARM_UP + repeats):
        runner.run(n)
    return runner.side(), analyse(net, inputs, repeats)


def _our_runner(engine: Engine, inputs: Tensor, images: Sequence[NDArray[np.uint8]]) -> Runner:
    """Build the runner of our side: inputs of a step, and the images of frames."""
    stream, state = VideoStream(engine), engine.initial_state(1)

    def push(n: int) -> int:
        return len(stream.push(images[n % NUM_IMAGES], n * FRAME_NS).segments)

    def parts_ms() -> Sequence[float]:
        assert stream.times is not None
        return stream.times

    height, width = images[0].shape[:2]
    padded = Geometry.of((height, width), engine.config).padded_size
    return Runner(lambda: engine.step(inputs, state), push, parts_ms, padded, engine.device)


def _largest_difference(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().max())
