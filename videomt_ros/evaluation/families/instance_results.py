"""Tracks of one video with their masks, in one file that is written and read piece by piece."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets import rle
from videomt_ros.datasets.dataset import Video
from videomt_ros.datasets.rle import MaskTrack, Rle

_MASKS = 'masks.rle'


class TrackResult(NamedTuple):
    """One predicted object of a video."""

    masks_of: int
    """The key under which its masks were added; several tracks may share one."""
    category_id: int
    score: float


class InstanceResults:
    """Writes masks as run lengths, one after the other in a file. See `VideoResults`."""

    def __init__(self, folder: Path, video: Video) -> None:
        folder.mkdir(parents=True)
        self._file = (folder / _MASKS).open('wb')
        self._num_frames, self._size = len(video.frame_names), video.size
        # Frame, start and length of each mask in turn: an array holds them in little memory.
        self._places: dict[int, array[int]] = {}

    def add(self, index: int, key: int, mask: NDArray[np.bool_]) -> None:
        """Add the mask (H, W) of an annotated frame to those of a key; it may be empty."""
        counts = rle.encode(mask)['counts']
        place = (index, self._file.tell(), len(counts))
        self._places.setdefault(key, array('q')).extend(place)
        self._file.write(counts)

    def finish(self, tracks: Sequence[TrackResult]) -> dict[str, Any]:
        """Complete the video.

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
    """The masks of one track, each read from the file when it is asked for."""

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
    """Open the tracks of a video that `InstanceResults` has finished.

    Args:
        folder: the folder of its file.
        video_id: id of the video.
        content: what `InstanceResults.finish` has returned.
    """
    return [
        MaskTrack(video_id, category_id, _StoredMasks(folder / _MASKS, content, key), score)
        for key, category_id, score in content['tracks']
    ]
