"""Reads the objects of a clip from the annotations of each family of data sets.

Each mask is augmented as soon as it is decoded, so that only one mask at a time is held at the
size of its file. Crowds, void and categories that the network does not know are left out.

Letters: T frames, N objects of a clip, H W size of the source, h w size of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.dataset import Dataset
from videomt_ros.datasets.formats.vipseg import load_vipseg
from videomt_ros.datasets.formats.vspw import load_vspw
from videomt_ros.datasets.formats.ytvis import load_ytvis
from videomt_ros.datasets.rle import MaskTrack, decode
from videomt_ros.training.augment import ClipTransform
from videomt_ros.training.clips import Objects, objects_of_ids

VideoId = int | str


class ClipTruth(Protocol):
    """Access to the annotations of a data set that all families share."""

    def has_objects(self, video_id: VideoId, num_frames: int) -> bool:
        """Whether any frame of the video has an object of a class that the network knows."""
        ...

    def most_objects(self, video_id: VideoId, num_frames: int) -> int:
        """Return a number of objects that no clip of the video exceeds, without reading masks."""
        ...

    def visible(self, video_id: VideoId, num_frames: int) -> list[Set[Hashable]]:
        """List what each frame shows, as far as few files tell it: of all frames or of the first.

        Returns:
            For each frame, keys of its objects, the same in all frames of the video.
        """
        ...

    def objects(
        self, video_id: VideoId, times: Sequence[int], transform: ClipTransform
    ) -> Objects:
        """Read the objects of a clip; some of them may not be visible in it.

        Args:
            video_id: id of the video.
            times: T indices of annotated frames.
            transform: augmentation of the masks.
        """
        ...


class InstanceTruth:
    """Annotations as run-length codes or polygons per object: YouTube-VIS, OVIS, COCO."""

    def __init__(self, dataset: Dataset, class_of: Mapping[int, int]) -> None:
        """Read the annotation files; for the arguments see `open_clip_truth`."""
        self._class_of = class_of
        self._tracks: dict[VideoId, list[MaskTrack]] = {}
        for path in dataset.truth:
            truth = load_ytvis(path, skip_bad=dataset.skip_bad)
            for video in truth.videos:
                self._tracks.setdefault(video.video_id, []).extend(
                    track
                    for track in truth.tracks(video.video_id)
                    if track.category_id in class_of and not track.is_crowd
                )

    def has_objects(self, video_id: VideoId, num_frames: int) -> bool:
        """See `ClipTruth`."""
        return any(mask is not None for track in self._tracks[video_id] for mask in track.masks)

    def most_objects(self, video_id: VideoId, num_frames: int) -> int:
        """See `ClipTruth`."""
        return len(self._tracks[video_id])

    def visible(self, video_id: VideoId, num_frames: int) -> list[Set[Hashable]]:
        """See `ClipTruth`."""
        tracks = self._tracks[video_id]
        return [
            {number for number, track in enumerate(tracks) if track.masks[t] is not None}
            for t in range(num_frames)
        ]

    def objects(
        self, video_id: VideoId, times: Sequence[int], transform: ClipTransform
    ) -> Objects:
        """See `ClipTruth`."""
        tracks = self._tracks[video_id]
        masks = np.zeros((len(tracks), len(times), *transform.size), bool)
        for number, track in enumerate(tracks):
            coded = {t: track.masks[t] for t in times}
            decoded = {t: decode(rle) for t, rle in coded.items() if rle is not None}
            for i, t in enumerate(times):
                if t in decoded:
                    masks[number, i] = transform.mask(decoded[t], i)
        class_ids = [self._class_of[track.category_id] for track in tracks]
        return np.array(class_ids, np.int64), masks


class PanopticTruth:
    """Annotations as images of segment ids: VIPSeg and the panoptic files of COCO."""

    def __init__(self, dataset: Dataset, class_of: Mapping[int, int]) -> None:
        """Read the annotation file; for the arguments see `open_clip_truth`."""
        self._truth = load_vipseg(dataset.truth[0], dataset.truth_masks, skip_bad=dataset.skip_bad)
        self._class_of = class_of

    def has_objects(self, video_id: VideoId, num_frames: int) -> bool:
        """See `ClipTruth`."""
        return any(self._known(str(video_id), t) for t in range(num_frames))

    def most_objects(self, video_id: VideoId, num_frames: int) -> int:
        """See `ClipTruth`."""
        return len(set().union(*self.visible(video_id, num_frames)))

    def visible(self, video_id: VideoId, num_frames: int) -> list[Set[Hashable]]:
        """See `ClipTruth`."""
        return [set(self._known(str(video_id), t).items()) for t in range(num_frames)]

    def objects(
        self, video_id: VideoId, times: Sequence[int], transform: ClipTransform
    ) -> Objects:
        """See `ClipTruth`."""
        numbers: dict[tuple[int, int], int] = {}
        ids = np.empty((len(times), *transform.size), np.uint16)
        small: dict[int, NDArray[np.uint16]] = {}
        for i, t in enumerate(times):
            if t not in small:
                known = self._known(str(video_id), t)
                for segment in known.items():
                    # A segment that changes its class becomes another object.
                    numbers.setdefault(segment, len(numbers) + 1)
                small[t] = _renumbered(
                    self._truth.ids(str(video_id), t),
                    {number: numbers[number, k] for number, k in known.items()},
                )
            ids[i] = transform.ids(small[t], i)
        return objects_of_ids(ids, {number: k for (_, k), number in numbers.items()})

    def _known(self, video_id: str, t: int) -> dict[int, int]:
        """Return the class id by segment id of those segments that the network knows."""
        return {
            segment['id']: self._class_of[segment['category_id']]
            for segment in self._truth.segments(video_id, t)
            if segment['category_id'] in self._class_of and not segment['iscrowd']
        }


class SemanticTruth:
    """Annotations as images of classes: VSPW. All pixels of a class make one object."""

    def __init__(self, dataset: Dataset, class_of: Mapping[int, int]) -> None:
        """Read the list of videos; for the arguments see `open_clip_truth`."""
        self._truth = load_vspw(dataset.truth[0], dataset.split, skip_bad=dataset.skip_bad)
        self._table = np.zeros(256, np.uint16)  # value in the image -> class id + 1
        for category_id, class_id in class_of.items():
            self._table[category_id + 1] = class_id + 1

    def has_objects(self, video_id: VideoId, num_frames: int) -> bool:
        """See `ClipTruth`; reads masks up to the first one with an object."""
        return any(self._ids(video_id, t).any() for t in range(num_frames))

    def most_objects(self, video_id: VideoId, num_frames: int) -> int:
        """See `ClipTruth`."""
        return len(set(self._table.tolist()) - {0})

    def visible(self, video_id: VideoId, num_frames: int) -> list[Set[Hashable]]:
        """See `ClipTruth`; reads the mask of the first frame alone."""
        return [set(np.unique(self._ids(video_id, 0)).tolist()) - {0}]

    def objects(
        self, video_id: VideoId, times: Sequence[int], transform: ClipTransform
    ) -> Objects:
        """See `ClipTruth`."""
        small = {t: self._ids(video_id, t) for t in sorted(set(times))}
        ids = np.stack([transform.ids(small[t], i) for i, t in enumerate(times)])
        return objects_of_ids(ids, {k + 1: k for k in range(int(self._table.max()))})

    def _ids(self, video_id: VideoId, t: int) -> NDArray[np.uint16]:
        return self._table[self._truth.mask(str(video_id), t)]


_TRUTHS: dict[str, Callable[[Dataset, Mapping[int, int]], ClipTruth]] = {
    'ytvis': InstanceTruth,
    'vipseg': PanopticTruth,
    'coco_panoptic': PanopticTruth,
    'vspw': SemanticTruth,
}
"""Class that reads the annotations of each family of data sets."""


def open_clip_truth(dataset: Dataset, class_of: Mapping[int, int]) -> ClipTruth:
    """Open the annotations of a data set for training.

    Args:
        dataset: a data set that has annotations.
        class_of: class id of the network by category id; other categories are left out.

    Raises:
        DatasetError: the files cannot be used; lists every fault.
    """
    return _TRUTHS[dataset.family](dataset, class_of)


def _renumbered(ids: NDArray[np.uint32], numbers: Mapping[int, int]) -> NDArray[np.uint16]:
    """Replace ids of a frame by their numbers in the clip, and all others by 0."""
    listed = np.array(sorted(numbers), np.uint32)
    new = np.array([0, *(numbers[number] for number in listed.tolist())], np.uint16)
    if not len(listed):
        return np.zeros(ids.shape, np.uint16)
    place = np.searchsorted(listed, ids).clip(max=len(listed) - 1)
    return new[np.where(listed[place] == ids, place + 1, 0)]
