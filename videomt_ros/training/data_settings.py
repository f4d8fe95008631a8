"""What a run trains on and how clips are varied: the `data` and `augmentation` of a run file."""

from __future__ import annotations

from dataclasses import dataclass

from videomt_ros.datasets.benchmarks import BENCHMARK_NAMES
from videomt_ros.training.ranges import check_range

SYNTHETIC = 'synthetic'
"""The data set that is drawn rather than read."""


@dataclass(frozen=True)
class DataSource:
    """One data set of a mixture."""

    dataset: str
    """Its format: ytvis2019, ytvis2021, ytvis2022, ovis, vipseg, vspw, coco, coco_panoptic; or
    synthetic. One's own data has the name of the format it is in."""
    root: str = ''
    """Its folder; synthetic has none."""
    split: str = 'train'
    weight: float = 1.0
    """Share of the clips that come from it, over the sum of all weights."""
    renamed: tuple[tuple[str, str | None], ...] = ()
    """Pairs of a category's name and the network's name for it, such as [car, sedan], or null to
    leave it out: the mouse of COCO is no animal. Names that are alike need none; categories that
    the network does not know are left out."""

    def __post_init__(self) -> None:
        names = (*BENCHMARK_NAMES, SYNTHETIC)
        if self.dataset not in names:
            raise ValueError(f'Expected dataset out of {", ".join(names)}, got {self.dataset!r}.')
        if bool(self.root) == (self.dataset == SYNTHETIC):
            wanted = 'no root' if self.root else 'a root, the folder of the data set,'
            raise ValueError(
                f'Expected {wanted} for the data set {self.dataset}, got {self.root!r}.'
            )
        check_range(self, 'weight', 0, open_=True)


@dataclass(frozen=True)
class Augmentation:
    """How clips of annotated videos are varied; the same for all frames of a clip.

    The defaults are those of the published recipe for YouTube-VIS and OVIS. For VIPSeg and VSPW it
    takes short sides from 480 to 800, a long side of 1333, and no crops. Synthetic scenes are not
    varied: each is drawn anew.
    """

    short_sides: tuple[int, ...] = (320, 352, 392, 416, 448, 480, 512, 544, 576, 608, 640)
    """Pixels; each clip has one of them."""
    max_long_side: int = 768
    """Pixels; the short side is less where the long one would exceed it."""
    crop_probability: float = 0.5
    flip_probability: float = 0.5
    """Of left and right."""
    max_rotation_deg: float = 15.0
    """Of a frame of a pseudo-clip, either way."""

    def __post_init__(self) -> None:
        if not self.short_sides or min(self.short_sides) < 8:
            raise ValueError(
                'Expected short_sides, one or more of 8 pixels or more, '
                f'got {list(self.short_sides)}.'
            )
        if self.max_long_side < max(self.short_sides):
            raise ValueError(
                'Expected max_long_side of the largest of short_sides or more, '
                f'{max(self.short_sides)}, got {self.max_long_side}.'
            )
        check_range(self, 'crop_probability flip_probability', 0, 1)
        check_range(self, 'max_rotation_deg', 0, 180)
