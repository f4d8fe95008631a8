"""A labelled data set of videos, behind one interface for all file formats.

Prediction needs the images alone, and scoring needs annotation files and result files alone; so a
`Dataset` gives images, and says where its truth lies.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from videomt_ros.datasets.images import GreyRange

_MAX_FAULTS = 20
"""Number of kinds of faults that an error prints; its `faults` hold all of them."""
_PLACE = re.compile(r'[^:]*\d[^:]*: |[A-Z]\w* [^:]*: ')
"""Name of the record, such as 'Video a, frame 3: ', with which a fault begins."""
_VARYING = re.compile(r"""'[^']*'|"[^"]*"|(\S*/\S*\s?)+|\S*\d\S*""")
"""Parts of a fault that differ between faults of one kind: quotes, paths, numbers."""
_MAX_NAMES = 10
"""Number of names that a note lists."""
_MAX_LEFT_OUT = 3
"""Number of records that the summary of those left out names."""


def list_names(names: Sequence[str]) -> str:
    """List the first few names, and say how many more there are.

    >>> list_names(['a', 'b'])
    'a, b'
    """
    more = len(names) - _MAX_NAMES
    return ', '.join(names[:_MAX_NAMES]) + (f' and {more} more' if more > 0 else '')


def left_out_summary(left_out: Sequence[str]) -> list[str]:
    """Say in one line how many bad records were left out, and which are the first.

    >>> left_out_summary(['a.json: Annotation 3: iscrowd is 7.'])
    ['1 bad record was left out (--skip-bad): a.json: Annotation 3: iscrowd is 7.']
    >>> left_out_summary([])
    []
    """
    if not left_out:
        return []
    count = '1 bad record was' if len(left_out) == 1 else f'{len(left_out):,} bad records were'
    more = len(left_out) - _MAX_LEFT_OUT
    tail = f' And {more:,} more.' if more > 0 else ''
    return [f'{count} left out (--skip-bad): {" ".join(left_out[:_MAX_LEFT_OUT])}{tail}']


class DatasetError(ValueError):
    """Raised when files of a data set cannot be used; lists everything that is wrong with them."""

    def __init__(self, path: Path, faults: Sequence[str]) -> None:
        """Build the message from the faults.

        Args:
            path: the file or folder at fault.
            faults: sentences that say what was expected, what came, and what to do.
        """
        self.path = path
        self.faults = tuple(faults)
        super().__init__(f'{path}: {_listed(self.faults)}')

    def __reduce__(self) -> tuple[type[DatasetError], tuple[Path, tuple[str, ...]]]:
        # Exceptions are pickled by their text, which is not what this one is made from.
        return DatasetError, (self.path, self.faults)


def _listed(faults: Sequence[str]) -> str:
    """List faults, those of one kind by their count and the first two."""
    if len(faults) == 1:
        return faults[0]
    kinds: dict[str, list[str]] = {}
    for fault in faults:
        kinds.setdefault(kind_of_fault(fault), []).append(fault)
    texts = []
    for number, alike in enumerate(list(kinds.values())[:_MAX_FAULTS], start=1):
        more = f' [and {len(alike) - 2:,} more like this]' if len(alike) > 2 else ''
        texts.append(f'({number}) {" ".join(alike[:2])}{more}')
    left = len(kinds) - _MAX_FAULTS
    tail = f' ... and {left} more kinds.' if left > 0 else ''
    return f'{len(faults):,} faults: {" ".join(texts)}{tail}'


def kind_of_fault(fault: str) -> str:
    """Reduce a fault to its kind: without the place before it, numbers, paths, and what came.

    >>> kind_of_fault("Annotation 3, frame 2: expected id to be a whole number, got 'a'.")
    'expected id to be a whole number'
    >>> kind_of_fault('There is no /data/v1/00001.jpg.')
    'There is no #'
    """
    text = _PLACE.sub('', fault, count=1).partition(', got ')[0]
    return _VARYING.sub('#', text)


@dataclass(frozen=True)
class Category:
    """One class, with the number that the annotation files give it."""

    category_id: int
    name: str
    is_thing: bool = True


@dataclass(frozen=True)
class VideoFrame:
    """One image of a video."""

    index: int | None
    """Position among the annotated frames, 0..T-1; None for an image that is not annotated."""
    stamp_ns: int
    """Time at which the image was taken; only differences count."""
    image: NDArray[np.uint8]
    """Pixels, (H, W, 3) RGB."""


class AnnotatedVideo(Protocol):
    """One video as annotation and result files describe it."""

    @property
    def video_id(self) -> int | str:
        """Id of the video in the annotation file."""
        ...

    @property
    def name(self) -> str:
        """Name of the video's folder, which no other video of the data set has."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Size (height, width) of the annotated frames in pixels."""
        ...

    @property
    def frame_names(self) -> tuple[str, ...]:
        """T names of the annotated frames in the annotation file, such as 'v1/00005.jpg'."""
        ...


class Video(AnnotatedVideo, Protocol):
    """One video of a data set; images are read when they are asked for."""

    def frames(self) -> Iterator[VideoFrame]:
        """Read the images in the order of time.

        Each annotated frame comes at most once; one without an image is left out.

        Raises:
            DatasetError: an image cannot be read, or has another size than annotated.
        """
        ...


@runtime_checkable
class GreyVideo(Video, Protocol):
    """A video whose images may have 16 bits."""

    def with_grey_range(self, grey_range: GreyRange | None) -> GreyVideo:
        """Return the same video, read with another range of grey values."""
        ...


@dataclass(frozen=True)
class Dataset:
    """Videos, the classes that they are labelled with, and the paths of the labels."""

    name: str
    """Name that the user gave, such as 'ytvis2019'."""
    family: str
    """Family of its file formats and metrics, a name in `evaluation.families.FAMILIES`."""
    categories: tuple[Category, ...]
    videos: Sequence[Video]
    truth: tuple[Path, ...] = ()
    """Annotation files that scoring reads; empty without truth (a test split). With several files
    (YouTube-VIS 2022) each is scored, and the figures are averaged."""
    truth_masks: Path | None = None
    """Folder of the true PNGs of VIPSeg."""
    split: str = ''
    """Name of the list of videos of VSPW, whose truth is a folder."""
    is_drawn: bool = False
    """Whether its files say that the images are drawn; see `datasets.formats.origin`."""
    skip_bad: bool = False
    """Whether bad records of the truth are left out, also when scoring reads it again."""
    notes: tuple[str, ...] = ()
    """Remarks on the files as they were read, one line each, such as on a field that all records
    lack and what was taken in its place."""
    left_out: tuple[str, ...] = ()
    """One line per bad record that was left out, with its fault; empty without `skip_bad`."""
    faulty: Mapping[int | str, str] = field(default_factory=dict)
    """Why a video cannot be predicted, such as for a missing image, by its id. There are such
    videos only where `open_dataset` was asked to keep them."""
    unopened: tuple[tuple[str, str], ...] = ()
    """Name of each recording that could not become a video, such as a bag without truth, and the
    reason."""
    grey_range: GreyRange | None = None
    """Values of 16-bit images that become black and white; None: their full range."""
    scratch: Path | None = None
    """Folder with files that were written for this object alone, if there are any."""

    def readable(self, text: str) -> str:
        """Replace the paths of links in `scratch`, of which users know nothing, by their targets.

        Other paths in there become relative to it.
        """
        if self.scratch is None:
            return text
        start = len(str(self.scratch)) + 1

        def original(found: re.Match[str]) -> str:
            path = Path(found[0])
            return os.readlink(path) if path.is_symlink() else found[0][start:]

        return re.sub(rf'{re.escape(str(self.scratch))}/[^\s:\'"]*[^\s:\'".,;]', original, text)

    def with_grey_range(self, grey_range: GreyRange | None) -> Dataset:
        """Return the same data set, whose 16-bit images are read with another range."""
        videos = tuple(
            video.with_grey_range(grey_range) if isinstance(video, GreyVideo) else video
            for video in self.videos
        )
        return replace(self, videos=videos, grey_range=grey_range)

    def remarks(self) -> list[str]:
        """List the notes, and one line on the records that were left out, for a user."""
        return [*self.notes, *left_out_summary(self.left_out)]
