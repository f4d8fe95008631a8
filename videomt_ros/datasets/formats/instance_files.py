"""Instances along videos in the annotation files of YouTube-VIS, OVIS and COCO."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.dataset import Category
from videomt_ros.datasets.rle import MaskTrack, Rle, convert


@dataclass(frozen=True)
class YtvisVideo:
    """One video of an annotation file."""

    video_id: int
    name: str
    """Name of the video's folder, such as '0a49f5265b', which no other video of the file has."""
    size: tuple[int, int]
    """Size (height, width) in pixels."""
    frame_names: tuple[str, ...]
    """Names of the frames in the file, such as '0a49f5265b/00005.jpg'."""
    stamps_ns: tuple[int, ...] | None = None
    """Time at which each frame was taken, if the file has a field `stamps_ns`."""
    fps: float | None = None
    """Frames per second, if the file has a field `fps`."""


class YtvisTruth:
    """The checked content of an annotation file."""

    def __init__(
        self,
        path: Path,
        categories: Iterable[Category],
        videos: Iterable[YtvisVideo],
        tracks: Iterable[MaskTrack] | None,
        is_drawn: bool = False,
        notes: Sequence[str] = (),
        left_out: Sequence[str] = (),
    ) -> None:
        """Sort the tracks by video; `tracks` is None for a file without annotations.

        For `notes` and `left_out` see `Dataset`.
        """
        self.path = path
        self.is_drawn = is_drawn
        self.categories = tuple(categories)
        self.videos = tuple(sorted(videos, key=lambda video: video.video_id))
        self.has_annotations = tracks is not None
        self.notes, self.left_out = tuple(notes), tuple(left_out)
        self._tracks: dict[int | str, list[MaskTrack]] = {v.video_id: [] for v in self.videos}
        for track in tracks or ():
            self._tracks[track.video_id].append(track)

    def tracks(self, video_id: int | str) -> tuple[MaskTrack, ...]:
        """Return the objects of a video in the order of the file, with the areas of the file."""
        return tuple(self._tracks[video_id])


class FileMasks(Sequence[Rle | None]):
    """Checked masks of one track in the form of its file; each becomes an RLE when it is read."""

    def __init__(
        self,
        segmentations: Sequence[Any],
        size: tuple[int, int],
        pixels: NDArray[np.int64] | None = None,
    ) -> None:
        """Wrap segmentations that `inspect` has passed.

        Args:
            segmentations: one for each frame, in the form of the file.
            size: size (height, width) of the masks.
            pixels: areas of the masks, if `inspect` has counted them.
        """
        self.pixels = pixels
        self._size = size
        self._segmentations = segmentations
        strings = [_string(segmentation) for segmentation in segmentations]
        packed = [string for string in strings if string is not None]
        if len(packed) == len(strings):
            # All strings in one object take half of the memory of one object for each of them.
            self._segmentations = _Strings(packed)

    def __len__(self) -> int:
        return len(self._segmentations)

    @overload
    def __getitem__(self, index: int) -> Rle | None: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Rle | None]: ...
    def __getitem__(self, index: int | slice) -> Rle | None | Sequence[Rle | None]:
        if isinstance(index, slice):
            return [self[frame] for frame in range(len(self))[index]]
        segmentation = self._segmentations[index]
        if isinstance(segmentation, bytes):
            height, width = self._size
            return {'size': [height, width], 'counts': segmentation} if segmentation else None
        return convert(segmentation, *self._size)

    def __iter__(self) -> Iterator[Rle | None]:
        if not isinstance(self._segmentations, _Strings):
            yield from (convert(segmentation, *self._size) for segmentation in self._segmentations)
            return
        height, width = self._size
        for string in self._segmentations:
            yield {'size': [height, width], 'counts': string} if string else None


class _Strings(Sequence[bytes]):
    """Many byte strings in the memory of one."""

    def __init__(self, strings: Sequence[bytes]) -> None:
        self._joined = b''.join(strings)
        self._ends = array('Q', accumulate(map(len, strings)))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        index = range(len(self))[index]
        return self._joined[self._ends[index - 1] if index else 0 : self._ends[index]]

    def __iter__(self) -> Iterator[bytes]:
        start = 0
        for end in self._ends:
            yield self._joined[start:end]
            start = end


def _string(segmentation: Any) -> bytes | None:
    """Return the RLE string of a segmentation, empty for no mask; None for another form."""
    if not segmentation:
        return b''
    counts = segmentation['counts'] if isinstance(segmentation, dict) else None
    if isinstance(counts, str):
        return counts.encode('ascii')
    return counts if isinstance(counts, bytes) else None


def plain_name(text: str) -> str:
    """Return a text as the name of a folder, which may be empty.

    >>> plain_name('MOT17-02/img 1')
    'MOT17-02_img_1'
    """
    return re.sub(r'[^\w.-]+', '_', text).strip('._')


def with_names(videos: Iterable[YtvisVideo]) -> list[YtvisVideo]:
    """Name each video after its folder, or else as its file does; two of one name get their ids.

    Names become folders of results, so they consist of letters, digits, '_', '-' and '.'.
    """
    videos = list(videos)
    names: list[str] = []
    for video in videos:
        parents = {str(PurePosixPath(name).parent) for name in video.frame_names}
        folder = parents.pop() if len(parents) == 1 else ''
        names.append(plain_name(folder) or plain_name(video.name) or str(video.video_id))
    times = Counter(names)
    if len(times) < len(names):
        names = [
            name if times[name] == 1 else f'{name}_{video.video_id}'
            for name, video in zip(names, videos, strict=True)
        ]
    if len(set(names)) < len(names):
        names = [str(video.video_id) for video in videos]
    return [replace(video, name=name) for video, name in zip(videos, names, strict=True)]
