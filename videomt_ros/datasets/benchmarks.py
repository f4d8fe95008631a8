"""Data sets opened by the name of their benchmark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from videomt_ros.datasets.dataset import Dataset
from videomt_ros.datasets.formats.coco_folders import coco_dataset, coco_panoptic_dataset
from videomt_ros.datasets.formats.vipseg import vipseg_dataset
from videomt_ros.datasets.formats.vspw import vspw_dataset
from videomt_ros.datasets.formats.ytvis_folders import ytvis_dataset

_OPENERS: dict[str, tuple[Callable[[str, Path, str, bool, bool], Dataset], str]] = {
    'ytvis2019': (ytvis_dataset, 'valid'),
    'ytvis2021': (ytvis_dataset, 'valid'),
    'ytvis2022': (ytvis_dataset, 'valid'),
    'ovis': (ytvis_dataset, 'valid'),
    'vipseg': (vipseg_dataset, 'val'),
    'vspw': (vspw_dataset, 'val'),
    'coco': (coco_dataset, 'val2017'),
    'coco_panoptic': (coco_panoptic_dataset, 'val2017'),
}
"""Function that opens each data set, and the split to open if none is named."""
BENCHMARK_NAMES = tuple(_OPENERS)
"""Names that `open_dataset` takes; a user's own data set has the name of its format."""


def open_dataset(
    name: str,
    root: Path,
    split: str | None = None,
    *,
    skip_bad: bool = False,
    keep_faulty: bool = False,
) -> Dataset:
    """Open a data set as it was unpacked; its annotations are read, but no image.

    Args:
        name: one of `BENCHMARK_NAMES`.
        root: folder of the data set.
        split: name such as 'train'; by default the split for validation, or that of an export of
            CVAT, which is 'default'.
        skip_bad: leave out records with faults and list them in `Dataset.left_out`, instead of
            refusing the whole data set.
        keep_faulty: keep videos that lack images or true masks, instead of refusing the whole data
            set, for an evaluation: the first are named in `Dataset.faulty`, and scoring finds
            the others. `skip_bad` leaves them out.

    Raises:
        ValueError: there is no such benchmark or split.
        DatasetError: the annotations or images are missing or wrong; lists every fault.
    """
    if name not in _OPENERS:
        raise ValueError(f'Expected a data set out of {", ".join(BENCHMARK_NAMES)}, got {name!r}.')
    opener, usual_split = _OPENERS[name]
    split = split or _only_split(Path(root)) or usual_split
    return opener(name, Path(root), split, skip_bad, keep_faulty)


def _only_split(root: Path) -> str | None:
    """Return 'default', where CVAT puts a task without a subset, if there is nothing else."""
    files = [
        path.name for folder in (root, root / 'annotations') for path in folder.glob('*.json')
    ]
    return 'default' if files == ['instances_default.json'] else None
