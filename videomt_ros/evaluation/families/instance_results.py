"""The results of one video on the disk, in the making: one class per benchmark.

Each takes the annotated frames one by one and holds none of them, so that memory does not grow
with the length of a video. In frames that never come there is nothing.

Letters: H W image size.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from videomt_ros.datasets import rle
from videomt_ros.datasets.dataset import Category, Dataset, Video
from videomt_ros.datasets.formats.vspw import NUM_CLASSES
from videomt_ros.datasets.formats.vspw import VOID as UNLABELLED
from videomt_ros.datasets.mask_png import segments_info, write_ids, write_mask
from videomt_ros.datasets.masks import MaskTrack, Rle

_MASKS = 'masks.rle'


class TrackResult(NamedTuple):
    """One predicted object of a video."""

    masks_of: int
    """The key under which its masks were added; several tracks may share one."""
    category_id: int
    score: float


class InstanceResults:
    """Masks as run lengths, one after the other in a file."""

    def __init__(self, folder: Path, video: Video) -> None:
        folder.mkdir(parents=True)
        self._file = (folder / _MASKS).open('wb')
        self._num_frames, self._size = len(video.frame_names), video.size
        self._places: dict[int, array[int]] = {}  # frame, start and length, over and over

    def add(self, index: int, key: int, mask: NDArray[np.bool_]) -> None:
        """Add one mask (H, W) to those of a key; it may be empty."""
        counts = rle.encode(mask)['counts']
        place = (index, self._file.tell(), len(counts))
        self._places.setdefault(key, array('q')).extend(place)
        self._file.write(counts)

    def finish(self, tracks: Sequence[TrackResult]) -> dict[str, Any]:
        """End the video.

        Returns:
            What `stored_tracks` needs beside the file, for JSON.
        """
        self._file.close()
        used = {track.masks_of for track in tracks}
        return {
            'size': list(self._size),
            'num_frames': self._num_frames,
            'masks': {str(key): list(self._places.get(key, ())) for key in sorted(used)},
            'tracks': [list(track) for track in tracks],
        }

    def abort(self) -> None:
        """Close the file."""
        self._file.close()


class _StoredMasks(Sequence['Rle | None']):
    """The masks of one track, read when they are asked for."""

    def __init__(self, path: Path, content: Mapping[str, Any], key: int) -> None:
        self._path = path
        self._size: list[int] = content['size']
        self._num_frames: int = content['num_frames']
        places = content['masks'][str(key)]
        self._places = {
            index: (start, size)
            for index, start, size in zip(*(places[k::3] for k in range(3)), strict=True)
        }

    def __len__(self) -> int:
        return self._num_frames

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._num_frames:
            raise IndexError(index)
        if index not in self._places:
            return None
        start, size = self._places[index]
        with self._path.open('rb') as file:
            file.seek(start)
            return {'size': list(self._size), 'counts': file.read(size)}


def stored_tracks(
    folder: Path, video_id: int | str, content: Mapping[str, Any]
) -> list[MaskTrack]:
    """The tracks of a video that `InstanceResults` has finished; masks come from the file."""
    return [
        MaskTrack(video_id, category_id, _StoredMasks(folder / _MASKS, content, key), score)
        for key, category_id, score in content['tracks']
    ]


class PanopticResults:
    """One PNG of ids per frame, and what each id is."""

    def __init__(self, folder: Path, video: Video) -> None:
        folder.mkdir(parents=True)
        self._folder, self._size = folder, video.size
        self._names = png_names(video)
        self._segments: dict[int, list[dict[str, Any]]] = {}

    def add(
        self, index: int, ids: NDArray[np.integer[Any]], category_ids: Mapping[int, int]
    ) -> None:
        """Add one frame.

        Args:
            index: of the frame.
            ids: (H, W), 0 is void.
            category_ids: of at least every id in there.
        """
        write_ids(self._folder / self._names[index], ids)
        self._segments[index] = segments_info(ids, category_ids)

    def finish(self) -> dict[str, Any]:
        """End the video.

        Returns:
            The segments of each frame, for JSON.
        """
        for index in set(range(len(self._names))) - set(self._segments):
            self.add(index, np.zeros(self._size, np.uint8), {})
        return {'segments': [self._segments[index] for index in range(len(self._names))]}

    def abort(self) -> None:
        """Nothing is open."""


class SemanticResults:
    """One PNG of categories per frame.

    The format has no value for a pixel without a class, so each takes the class of the nearest
    pixel that has one. Where a whole frame has none, all is of one category: of a number that the
    data set does not use, if it leaves one free.
    """

    def __init__(self, folder: Path, video: Video, categories: Sequence[Category]) -> None:
        folder.mkdir(parents=True)
        self._folder, self._size = folder, video.size
        self._names = png_names(video)
        self._done: set[int] = set()
        free = set(range(NUM_CLASSES)) - {category.category_id for category in categories}
        self._nothing = min(free, default=0)

    def add(self, index: int, classes: NDArray[np.integer[Any]]) -> None:
        """Add one frame, (H, W) of category ids or UNLABELLED."""
        empty = classes == UNLABELLED
        if empty.all():
            classes = np.full(self._size, self._nothing, np.uint8)
        elif empty.any():
            rows, columns = ndimage.distance_transform_edt(
                empty, return_distances=False, return_indices=True
            )
            classes = classes[rows, columns]
        write_mask(self._folder / self._names[index], classes)
        self._done.add(index)

    def finish(self) -> dict[str, Any]:
        """End the video; there is nothing to tell beside the PNGs."""
        for index in set(range(len(self._names))) - self._done:
            self.add(index, np.full(self._size, UNLABELLED, np.uint8))
        return {}

    def abort(self) -> None:
        """Nothing is open."""


VideoResults: TypeAlias = InstanceResults | PanopticResults | SemanticResults


def open_results(dataset: Dataset, video: Video, folder: Path) -> VideoResults:
    """Begin the results of a video, in a folder that does not exist yet."""
    if dataset.family == 'ytvis':
        return InstanceResults(folder, video)
    if dataset.family == 'vipseg':
        return PanopticResults(folder, video)
    return SemanticResults(folder, video, dataset.categories)


def png_names(video: Video) -> list[str]:
    """File names of the results of each annotated frame."""
    return [f'{PurePosixPath(name).stem}.png' for name in video.frame_names]
