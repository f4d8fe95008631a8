"""Time of scoring by `ap.py`, beside the plain loop of `plain_scoring.py`, on random videos.

The videos are crowded, each with objects of one category, like a flock: masks of
1280 x 720 pixels with outlines that move and change, as run-length codes alone. The plain loop
spends its time on pairs of one category, `ap.py` on reading masks; so the ratio grows with the
number of objects in a video. It needs no torch.

Letters: T frames, L columns of an object.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from videomt_ros.datasets.rle import MaskTrack, Rle
from videomt_ros.evaluation.metrics.ap import VideoAP
from videomt_ros.speed.plain_scoring import VideoTracks, plain_figures

SIZE = (720, 1280)
"""Size (height, width) of the masks."""
NUM_FRAMES = 36
CATEGORIES = tuple(range(1, 41))
"""Category ids, as many as YouTube-VIS has."""
TOLERANCE = 1e-9
"""Largest allowed difference between the figures of both ways."""

_FOUND_SHARE = 0.7
"""Share of results that follow a true object more or less closely; the others are random."""


@dataclass(frozen=True)
class ScoreComparison:
    """Times and figures of both ways on one case."""

    ours_samples_s: list[float]
    """CPU seconds of ours from tracks in memory to figures, one for each repeat."""
    plain_samples_s: list[float]
    """CPU seconds of the plain loop for the same."""
    figures: dict[str, float | None]
    difference: float
    """Largest difference of a figure between both ways."""
    peak_bytes: int
    """Highest memory that Python and numpy use while ours scores, beyond that of the case."""

    @property
    def ours_s(self) -> float:
        """Median seconds of ours."""
        return median(self.ours_samples_s)

    @property
    def plain_s(self) -> float:
        """Median seconds of the plain loop."""
        return median(self.plain_samples_s)

    @property
    def ratio(self) -> float:
        """Time of the plain loop as a multiple of ours."""
        return self.plain_s / self.ours_s


def make_case(
    num_videos: int, num_results: int, num_objects: int, seed: int, num_frames: int = NUM_FRAMES
) -> list[VideoTracks]:
    """Draw random true objects and results.

    Args:
        num_videos: number of videos, at least 1.
        num_results: number of results in all videos, spread evenly.
        num_objects: number of true objects in each video.
        seed: seed of the random numbers; the same seed gives the same case.
        num_frames: length T of each video.

    Raises:
        ValueError: the seed is below 0.
    """
    if seed < 0:
        raise ValueError(f'Expected a seed of 0 or more, got {seed}.')
    rng = np.random.default_rng(seed)
    videos: list[VideoTracks] = []
    for video_id in range(1, num_videos + 1):
        category = int(rng.choice(CATEGORIES))
        shapes = [_Shape.random(rng, num_frames) for _ in range(num_objects)]
        truth = []
        for number, shape in enumerate(shapes, start=1):
            masks = shape.masks()
            areas = [None if mask is None else int(coco_mask.area(mask)) for mask in masks]
            truth.append(MaskTrack(video_id, category, masks, areas=areas, track_id=number))
        results = []
        share = num_results // num_videos + (video_id <= num_results % num_videos)
        for number in range(1, share + 1):
            if shapes and rng.random() < _FOUND_SHARE:
                shape = shapes[rng.integers(len(shapes))].disturbed(rng)
            else:
                shape = _Shape.random(rng, num_frames)
            score = round(float(rng.random()), 3)
            results.append(MaskTrack(video_id, category, shape.masks(), score, track_id=number))
        videos.append((video_id, truth, results))
    return videos


def count_pairs(case: list[VideoTracks]) -> int:
    """Count the pairs of a result and a true object of one video and category."""
    return sum(
        result.category_id == true.category_id
        for _, truth, results in case
        for true in truth
        for result in results
    )


def compare_scoring(case: list[VideoTracks], repeats: int = 1) -> ScoreComparison:
    """Score a case in both ways, in turns.

    Args:
        case: case that `make_case` has drawn.
        repeats: number of times that each way is measured.
    """

    def ours() -> dict[str, float | None]:
        ap = VideoAP(CATEGORIES)
        for video in case:
            ap.add_video(*video)
        return ap.result().figures()

    def plain() -> dict[str, float | None]:
        return plain_figures(CATEGORIES, case)

    ours_s, plain_s = [], []
    for _ in range(repeats):
        seconds, figures = _timed(ours)
        ours_s.append(seconds)
        seconds, expected = _timed(plain)
        plain_s.append(seconds)
    # Separate from the timed runs, since tracing memory slows them down.
    tracemalloc.start()
    ours()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return ScoreComparison(ours_s, plain_s, figures, largest_difference(figures, expected), peak)


def largest_difference(first: dict[str, float | None], second: dict[str, float | None]) -> float:
    """Compare figures of the same names; infinite where only one of two is undefined."""
    return max(
        (0.0 if a is b else np.inf) if a is None or b is None else abs(a - b)
        for a, b in ((value, second[name]) for name, value in first.items())
    )


def _timed(
    work: Callable[[], dict[str, float | None]],
) -> tuple[float, dict[str, float | None]]:
    start = time.process_time()
    figures = work()
    return time.process_time() - start, figures


@dataclass(frozen=True)
class _Shape:
    """A moving outline with one run of pixels in each column."""

    centres: NDArray[np.float64]
    """Centres (x, y) in each frame, (T, 2)."""
    tops: NDArray[np.float64]
    """Pixels above the centre in each column, (T, L)."""
    bottoms: NDArray[np.float64]
    """Pixels below the centre in each column, (T, L)."""

    @classmethod
    def random(cls, rng: np.random.Generator, num_frames: int) -> _Shape:
        """Draw a shape in the image that moves straight and has an uneven, changing edge."""
        height, width = SIZE
        half_width = int(rng.integers(40, 180))
        half_height = half_width * rng.uniform(0.6, 1.6)
        start = rng.uniform((0, 0), (width, height))
        speed = rng.normal(scale=4, size=2)
        columns = np.linspace(-1, 1, 2 * half_width + 1)[1:-1]
        ellipse = half_height * np.sqrt(1 - columns**2)
        waves = rng.uniform(1, 12, (2, 1, 1)) * columns + np.linspace(0, 3, num_frames)[:, None]
        edges = ellipse * (1 + 0.15 * np.sin(waves)) + rng.normal(size=waves.shape)  # (2, T, L)
        return cls(start + speed * np.arange(num_frames)[:, None], *edges)

    def disturbed(self, rng: np.random.Generator) -> _Shape:
        """Return the shape as a network might predict it: moved, scaled and rough."""
        size = self.tops.shape[1]
        error = rng.uniform(0, 0.3)
        centres = self.centres + rng.normal(scale=error * size / 4, size=2)
        scale = rng.normal(1, error / 2, (2, 1, 1))
        edges = np.stack([self.tops, self.bottoms]) * scale
        return _Shape(centres, *(edges + rng.normal(size=edges.shape)))

    def masks(self) -> list[Rle | None]:
        """Encode the T masks; None where the shape is outside of the image."""
        return [
            _encode(*frame) for frame in zip(self.centres, self.tops, self.bottoms, strict=True)
        ]


def _encode(
    centre: NDArray[np.float64], above: NDArray[np.float64], below: NDArray[np.float64]
) -> Rle | None:
    height, width = SIZE
    x, y = centre
    columns = np.arange(len(above)) + round(x - len(above) / 2)
    top = np.clip(np.rint(y - above), 0, height).astype(np.int64)
    bottom = np.clip(np.rint(y + below), 0, height).astype(np.int64)
    inside = (columns >= 0) & (columns < width) & (bottom > top)
    if not inside.any():
        return None
    # Run-length codes follow the columns.
    edges = (columns[:, None] * height + np.stack([top, bottom], 1))[inside].reshape(-1)
    counts = np.diff(edges, prepend=0, append=height * width)
    return coco_mask.frPyObjects({'size': [height, width], 'counts': counts}, height, width)
