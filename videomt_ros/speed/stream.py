"""Time of a frame from image to results, stage by stage, without ROS.

The demo model sees drawn scenes. To vary the number of objects, a network of no weights answers
with made-up ellipses that drift over the image; its step takes no time, and the other stages are
those of any network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.datasets.synthetic.scene import Scene
from videomt_ros.engines.engine import Engine
from videomt_ros.inference import VideoStream
from videomt_ros.inference.draw import draw
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.inference.run_lengths import encode_segments
from videomt_ros.model import NetworkConfig, Outputs
from videomt_ros.model.config import Task
from videomt_ros.speed.frame import FRAME_NS, WARM_UP

STAGES = ('prepare', 'network', 'masks to segments', 'semantic()', 'run lengths', 'overlay')
"""Stages of a frame: image to input, the step, outputs to segments, and what is made of these."""
NUM_SCENE_FRAMES = 8
"""Number of different frames of a scene, which are pushed in turns."""
_FIRST_FRAME = 40
"""First of these frames, in which several objects are in view."""


@dataclass(frozen=True)
class FrameTimes:
    """Times of one size of images."""

    frame: tuple[int, int]
    """(height, width) of the images."""
    num_segments: int
    """Number of segments in the last frame."""
    samples_ms: dict[str, list[float]]
    """Milliseconds of each of `STAGES` in each frame."""

    @property
    def stages_ms(self) -> dict[str, float]:
        """Median milliseconds of each of `STAGES`."""
        return {stage: median(samples) for stage, samples in self.samples_ms.items()}


class MadeNetwork:
    """Answers every frame with logits of ellipses, which move from frame to frame."""

    engine_name = 'made'
    device = torch.device('cpu')
    dtype = torch.float32

    def __init__(self, num_objects: int, frame: tuple[int, int], task: Task) -> None:
        """Draw the objects.

        Args:
            num_objects: number of objects, at most 200.
            frame: (height, width) of the images.
            task: kind of results; in panoptic and semantic ones three bands of stuff lie behind.
        """
        num_stuff = 0 if task == 'instance' else 3
        names = tuple(f'class {k}' for k in range(40))
        self.config = NetworkConfig(
            num_classes=len(names),
            num_queries=max(200, num_objects + num_stuff),
            test_size=480,
            size_divisor=32,
            task=task,
            class_names=names,
            thing_classes=tuple(k < 37 for k in range(40)),
        )
        padded = Geometry.of(frame, self.config).padded_size
        rng = np.random.default_rng(0)
        self._frames = [
            self._outputs(rng, n, num_objects, num_stuff, (padded[0] // 4, padded[1] // 4))
            for n in range(NUM_SCENE_FRAMES)
        ]

    def _outputs(
        self, rng: np.random.Generator, n: int, num_objects: int, num_stuff: int, grid: Any
    ) -> Outputs:
        """Draw the logits of frame n."""
        queries, places = self.config.num_queries, np.random.default_rng(1)
        rows, columns = np.mgrid[: grid[0], : grid[1]]
        scale = min(1.0, (10 / num_objects) ** 0.5)  # many objects are smaller
        masks = rng.normal(-9.0, 0.5, (queries, *grid))
        logits = np.full((queries, self.config.num_classes + 1), -3.0)
        logits[:, -1] = 5.0
        for q in range(num_objects):
            y, x, height, width = places.uniform((0.1, 0.1, 0.05, 0.05), (0.9, 0.9, 0.15, 0.12))
            x, height, width = x + 0.004 * n, height * scale, width * scale
            distance = np.hypot((rows / grid[0] - y) / height, (columns / grid[1] - x) / width)
            masks[q] = np.clip(40.0 * (1.0 - distance), -12.0, 8.0)
            logits[q, -1], logits[q, q % 37] = 0.0, places.uniform(4.0, 9.0)
        for k in range(num_stuff):
            band = np.abs(rows - (k + 0.5) * grid[0] / num_stuff) <= 0.5 * grid[0] / num_stuff + 1
            masks[num_objects + k] = np.where(band, 2.0, -6.0)
            logits[num_objects + k, -1], logits[num_objects + k, 37 + k] = 0.0, 4.0
        embeddings = np.random.default_rng(0).normal(size=(1, queries, self.config.embed_dim))
        return Outputs(
            torch.tensor(logits[None]).float(),
            torch.tensor(masks[None]).float(),
            torch.tensor(embeddings).float(),
        )

    def digest(self) -> str:
        """Return a name in place of a hash, since there are no weights."""
        return self.engine_name

    def initial_state(self, batch_size: int = 1) -> Tensor:
        """Get the number of the next frame, which is all the state."""
        return torch.zeros(batch_size, self.config.num_queries, 1)

    def step(self, frames: Tensor, state: Tensor) -> tuple[Outputs, Tensor]:
        """Answer with the next frame, whatever the image."""
        return self._frames[int(state[0, 0, 0]) % NUM_SCENE_FRAMES], state + 1


def draw_scene(frame: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Draw frames of a scene, (H, W, 3), in a size."""
    scene = Scene(0)
    times = range(_FIRST_FRAME, _FIRST_FRAME + NUM_SCENE_FRAMES)
    return [cv2.resize(scene.frame(t)[0], frame[::-1]) for t in times]


@torch.inference_mode()
def time_frames(
    net: Engine,
    images: Sequence[NDArray[np.uint8]],
    repeats: int,
) -> FrameTimes:
    """Time the stages of frames of one stream.

    Args:
        net: network on its device.
        images: images of one size, (H, W, 3) uint8, which are pushed in turns.
        repeats: number of frames that are timed.
    """
    stream = VideoStream(net)
    found: dict[str, list[float]] = {stage: [] for stage in STAGES}
    segments = None
    for n in range(WARM_UP + repeats):
        image = images[n % len(images)]
        segments = result = stream.push(image, n * FRAME_NS)
        assert stream.times is not None
        times = [*stream.times]
        work: tuple[Callable[[], object], ...] = (
            result.semantic,
            lambda result=result: encode_segments(result),  # type: ignore[misc]
            lambda image=image, result=result: draw(image, result),  # type: ignore[misc]
        )
        for function in work:
            start_s = time.perf_counter()
            function()
            times.append((time.perf_counter() - start_s) * 1e3)
        if n >= WARM_UP:
            for stage, milliseconds in zip(STAGES, times, strict=True):
                found[stage].append(milliseconds)
    assert segments is not None
    return FrameTimes(segments.ids.shape, len(segments.segments), found)
