"""A labelled data set of videos behind one face, whatever its files look like.

Predicting needs the images alone, and scoring needs annotation files and result files alone; so a
`Dataset` gives images, and says where its truth lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_MAX_FAULTS = 20
"""Faults that an error prints; all of them are in its list."""
_MAX_NAMES = 10
"""Names that a note lists."""


def list_names(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are.

    >>> list_names(['a', 'b'])
    'a, b'
    """
    more = len(names) - _MAX_NAMES
    return ', '.join(names[:_MAX_NAMES]) + (f' and {more} more' if more > 0 else '')


class DatasetError(ValueError):
    """Files of a data set that cannot be used; lists everything that is wrong with them."""

    def __init__(self, path: Path, faults: Sequence[str]) -> None:
        """Sum up.

        Args:
            path: the file or folder at fault.
            faults: what was expected, what came, and what to do, one sentence or two each.
        """
        self.path = path
        self.faults = tuple(faults)
        text = ' '.join(
            f'({number}) {fault}' for number, fault in enumerate(faults[:_MAX_FAULTS], start=1)
        )
        more = len(faults) - _MAX_FAULTS
        tail = f' ... and {more} more.' if more > 0 else ''
        text = faults[0] if len(faults) == 1 else f'{len(faults)} faults: {text}{tail}'
        super().__init__(f'{path}: {text}')

    def __reduce__(self) -> tuple[type[DatasetError], tuple[Path, tuple[str, ...]]]:
        # Exceptions are pickled by their text, which is not what this one is made from.
        return DatasetError, (self.path, self.faults)


@dataclass(frozen=True)
class Category:
    """One class as the annotation files number it."""

    category_id: int
    name: str
    is_thing: bool = True


@dataclass(frozen=True)
class VideoFrame:
    """One image of a video."""

    index: int | None
    """Its place among the annotated frames, 0..T-1; None for an image that is only watched."""
    stamp_ns: int
    """When it was taken; only differences count."""
    image: NDArray[np.uint8]
    """RGB, (H, W, 3)."""


class AnnotatedVideo(Protocol):
    """What annotation and result files say of one video."""

    @property
    def video_id(self) -> int | str:
        """As the annotation file has it."""
        ...

    @property
    def name(self) -> str:
        """Of its folder; differs from that of all other videos of the data set."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of its annotated frames, in pixels."""
        ...

    @property
    def frame_names(self) -> tuple[str, ...]:
        """Of the T annotated frames, as the annotation file has them, such as 'v1/00005.jpg'."""
        ...


class Video(AnnotatedVideo, Protocol):
    """One video of a data set; images are read when they are asked for."""

    def frames(self) -> Iterator[VideoFrame]:
        """The images in the order of time.

        Each annotated frame comes at most once; one without an image does not come.

        Raises:
            DatasetError: an image cannot be read, or has another size than annotated.
        """
        ...


@dataclass(frozen=True)
class Dataset:
    """Videos, the classes they are labelled with, and where the labels lie."""

    name: str
    """As the user named it, such as 'ytvis2019'."""
    family: str
    """Family of its file formats and metrics, a name in `evaluation.families.FAMILIES`."""
    categories: tuple[Category, ...]
    videos: Sequence[Video]
    truth: tuple[Path, ...] = ()
    """What `evaluation.scoring` reads; empty without truth (a test split). Several files: the
    figures are those of each, and their mean (YouTube-VIS 2022)."""
    truth_masks: Path | None = None
    """Folder of the true PNGs, for VIPSeg."""
    split: str = ''
    """For VSPW, whose truth is a folder: which of its lists of videos."""
