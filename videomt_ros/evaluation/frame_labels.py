"""Truth and predictions of single frames behind one face, from the files of any benchmark.

Letters: H W image size in pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.dataset import Category, Dataset, Video
from videomt_ros.datasets.formats.panoptic_files import PanopticFrames, VipsegVideo
from videomt_ros.datasets.formats.vipseg import load_vipseg, load_vipseg_results
from videomt_ros.datasets.formats.vspw import VspwVideo, load_vspw, load_vspw_results
from videomt_ros.datasets.formats.ytvis import load_ytvis, load_ytvis_results
from videomt_ros.datasets.masks import MaskTrack
from videomt_ros.datasets.rle import decode

SHOWN_SCORE = 0.3
"""Predicted instances are shown from this score on: a published result has many that are weak."""


class Label(NamedTuple):
    """One object or track of a frame."""

    key: int
    """Its value in the image of keys, at least 1; one for the whole video."""
    class_name: str
    is_thing: bool
    score: float | None
    """None where it is not known."""


class Labels(Protocol):
    """Who is where in each frame of a data set: its truth, or a prediction."""

    def frame(self, video: Video, index: int) -> tuple[NDArray[np.int64], list[Label]]:
        """Image of keys (H, W), 0 for nothing, and a label for each key in it.

        Raises:
            OSError, ValueError: the file of this frame cannot be read.
        """
        ...


class TrackLabels:
    """Instances; where they overlap, the surest is in front."""

    def __init__(
        self,
        tracks: Callable[[int | str], Iterable[MaskTrack]],
        categories: Mapping[int, Category],
        has_scores: bool,
    ) -> None:
        """Keep what is known.

        Args:
            tracks: gives those of a video; their ids differ.
            categories: by id.
            has_scores: for predictions, of which those below SHOWN_SCORE are left out.
        """
        self._tracks = tracks
        self._categories = categories
        self._has_scores = has_scores

    def frame(self, video: Video, index: int) -> tuple[NDArray[np.int64], list[Label]]:
        """As of `Labels`."""
        keys = np.zeros(video.size, np.int64)
        labels = []
        for track in sorted(self._tracks(video.video_id), key=lambda track: track.score):
            mask = track.masks[index]
            if mask is not None and (track.score >= SHOWN_SCORE or not self._has_scores):
                keys[decode(mask)] = track.track_id
                category = self._categories[track.category_id]
                score = track.score if self._has_scores else None
                labels.append(Label(track.track_id, category.name, category.is_thing, score))
        return keys, labels


class PanopticLabels:
    """Segments of things and stuff."""

    def __init__(self, frames: PanopticFrames, categories: Mapping[int, Category]) -> None:
        self._frames = frames
        self._categories = categories

    def frame(self, video: Video, index: int) -> tuple[NDArray[np.int64], list[Label]]:
        """As of `Labels`."""
        video_id = str(video.video_id)
        labels = []
        for segment in self._frames.segments(video_id, index):
            category = self._categories[segment['category_id']]
            labels.append(Label(segment['id'], category.name, category.is_thing, None))
        return self._frames.ids(video_id, index).astype(np.int64), labels


class SemanticLabels:
    """Classes; the key is the category id + 1."""

    def __init__(
        self,
        mask: Callable[[str, int], NDArray[np.uint8]],
        categories: Mapping[int, Category],
        first: int,
    ) -> None:
        """Keep what is known.

        Args:
            mask: gives a mask (H, W) of a video and a frame.
            categories: by id.
            first: value in a mask of category 0.
        """
        self._mask = mask
        self._categories = categories
        self._first = first

    def frame(self, video: Video, index: int) -> tuple[NDArray[np.int64], list[Label]]:
        """As of `Labels`."""
        keys = self._mask(str(video.video_id), index).astype(np.int64) + 1 - self._first
        known = [key for key in np.unique(keys).tolist() if key - 1 in self._categories]
        keys[~np.isin(keys, known)] = 0
        return keys, [Label(key, self._categories[key - 1].name, False, None) for key in known]


class Truth(NamedTuple):
    """The truth of some videos."""

    labels: Labels
    num_objects: Mapping[int, int]
    """By category id; empty for classes of pixels, which have no objects."""


def open_truth(dataset: Dataset, videos: Iterable[Video]) -> Truth | None:
    """The truth of a data set; None where it has none.

    Args:
        dataset: says where it lies.
        videos: of it, those whose objects are counted.

    Raises:
        DatasetError: its files cannot be used.
    """
    if not dataset.truth:
        return None
    categories = _by_id(dataset)
    if dataset.family == 'vspw':
        semantic = load_vspw(dataset.truth[0], dataset.split)
        return Truth(SemanticLabels(semantic.mask, categories, 1), {})
    if dataset.family == 'vipseg':
        panoptic = load_vipseg(dataset.truth[0], dataset.truth_masks)
        segments = {
            (video.video_id, segment['id'], segment['category_id'])
            for video in videos
            for t in range(len(video.frame_names))
            for segment in panoptic.segments(str(video.video_id), t)
        }
        counts = Counter(category for _, _, category in segments)
        return Truth(PanopticLabels(panoptic, categories), counts)
    tracks: dict[int | str, Sequence[MaskTrack]] = {}
    for truth in map(load_ytvis, dataset.truth):
        tracks |= {video.video_id: truth.tracks(video.video_id) for video in truth.videos}
    counts = Counter(
        track.category_id
        for video in videos
        for track in tracks[video.video_id]
        if not track.is_crowd
    )
    return Truth(TrackLabels(tracks.__getitem__, categories, has_scores=False), counts)


def open_results(folder: Path, dataset: Dataset) -> Labels:
    """Result files of the videos of a data set, which may have no truth.

    Raises:
        DatasetError: the files cannot be used.
    """
    categories = _by_id(dataset)
    if dataset.family == 'vipseg':
        panoptic = [
            VipsegVideo(str(video.video_id), video.size, _png_names(video))
            for video in dataset.videos
        ]
        frames = load_vipseg_results(folder, panoptic, dataset.categories)
        return PanopticLabels(frames, categories)
    if dataset.family == 'vspw':
        semantic = [
            VspwVideo(str(video.video_id), video.size, _png_names(video))
            for video in dataset.videos
        ]
        results = load_vspw_results(folder, semantic)
        return SemanticLabels(results.mask, categories, 0)
    tracks = load_ytvis_results(folder / 'results.json', dataset.videos, dataset.categories)
    return TrackLabels(lambda video_id: tracks.get(video_id, ()), categories, has_scores=True)


def _by_id(dataset: Dataset) -> dict[int, Category]:
    return {category.category_id: category for category in dataset.categories}


def _png_names(video: Video) -> tuple[str, ...]:
    return tuple(f'{PurePosixPath(name).stem}.png' for name in video.frame_names)
