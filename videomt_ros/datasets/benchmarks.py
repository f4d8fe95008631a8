"""The benchmarks by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from videomt_ros.datasets.dataset import Dataset
from videomt_ros.datasets.formats.coco_folders import coco_dataset, coco_panoptic_dataset
from videomt_ros.datasets.formats.vipseg import vipseg_dataset
from videomt_ros.datasets.formats.vspw import vspw_dataset
from videomt_ros.datasets.formats.ytvis_folders import ytvis_dataset

_OPENERS: dict[str, tuple[Callable[[str, Path, str], Dataset], str]] = {
    'ytvis2019': (ytvis_dataset, 'valid'),
    'ytvis2021': (ytvis_dataset, 'valid'),
    'ytvis2022': (ytvis_dataset, 'valid'),
    'ovis': (ytvis_dataset, 'valid'),
    'vipseg': (vipseg_dataset, 'val'),
    'vspw': (vspw_dataset, 'val'),
    'coco': (coco_dataset, 'val2017'),
    'coco_panoptic': (coco_panoptic_dataset, 'val2017'),
}
"""How each is opened, and the split that is meant if none is named."""
BENCHMARK_NAMES = tuple(_OPENERS)
"""Names that `open_dataset` takes; a data set of one's own has the name of its format."""


def open_dataset(name: str, root: Path, split: str | None = None) -> Dataset:
    """Open a data set as it was unpacked; reads annotations, and no image.

    Args:
        name: one of `BENCHMARK_NAMES`.
        root: its folder.
        split: such as 'train'; the format's own for validation if not given.

    Raises:
        ValueError: there is no such benchmark or split.
        DatasetError: says before any work starts what is missing or wrong: the annotation file,
            its records, the images of the videos.
    """
    if name not in _OPENERS:
        raise ValueError(f'Expected a data set out of {", ".join(BENCHMARK_NAMES)}, got {name!r}.')
    opener, usual_split = _OPENERS[name]
    return opener(name, Path(root), split or usual_split)
