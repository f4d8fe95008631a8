"""Videos and data sets that tests make in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.dataset import Category, Dataset, VideoFrame

STEP_NS = 100_000_000


def noise_image(seed: int, t: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Crop an image of noise in blocks; the crop moves with t."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    scene = blocks.repeat(6, 0).repeat(6, 1)
    row, column = 3 * t % 100, 2 * t % 100
    return scene[row : row + size[0], column : column + size[1]]


@dataclass
class MadeVideo:
    """A video whose frames are made when they are asked for."""

    video_id: int | str = 1
    num_frames: int = 6
    size: tuple[int, int] = (70, 90)
    stamps_ns: Sequence[int] | None = None
    image: Callable[[int, int, tuple[int, int]], NDArray[np.uint8]] = noise_image
    unwatched: tuple[int, ...] = ()
    """Positions of images that are not annotated."""
    fails_at: int | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        return f'video_{self.video_id}'

    @property
    def frame_names(self) -> tuple[str, ...]:
        count = self.num_frames - len(self.unwatched)
        return tuple(f'{self.name}/{t:05d}.jpg' for t in range(count))

    def frames(self) -> Iterator[VideoFrame]:
        index = 0
        for t in range(self.num_frames):
            if t == self.fails_at:
                raise ValueError(f'{self.name}/{t:05d}.jpg is no image.')
            stamp_ns = self.stamps_ns[t] if self.stamps_ns else t * STEP_NS
            annotated = t not in self.unwatched
            image = self.image(self.seed, t, self.size)
            yield VideoFrame(index if annotated else None, stamp_ns, image)
            index += annotated


def made_dataset(
    family: str, videos: Sequence[MadeVideo], names: Sequence[str] = ('circle', 'square', 'sky')
) -> Dataset:
    """Build a data set without truth, whose categories are the classes of the tiny network."""
    categories = tuple(Category(10 + k, name, name != 'sky') for k, name in enumerate(names))
    return Dataset('made', family, categories, tuple(videos))
