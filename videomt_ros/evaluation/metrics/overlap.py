"""IoU of true objects and tracks, frame by frame: all that tracking metrics need to know.

One sequence is one class of one video, so tracks of another class can never match. A sequence
holds a small matrix per frame and no pixels.

A mask without pixels counts as absent (TrackEval counts it as a detection that matches
nothing). Crowds are objects like others, as in TrackEval for YouTube-VIS.

Letters: H W image size in pixels, T frames, n true objects and m tracks in a frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from videomt_ros.datasets.rle import MaskTrack, Rle
from videomt_ros.evaluation.metrics.id_pairs import count_pairs


@dataclass(frozen=True)
class FrameOverlap:
    """The true objects and the tracks of one frame."""

    truth_ids: NDArray[np.int64]
    """Ids of the true objects, (n,), each once."""
    track_ids: NDArray[np.int64]
    """Ids of the tracks, (m,), each once."""
    iou: NDArray[np.float64]
    """IoU of each true object with each track, (n, m), 0..1."""
    truth_areas: NDArray[np.int64] | None = None
    """Areas of the true objects in pixels, (n,); None: not kept."""
    track_areas: NDArray[np.int64] | None = None
    """Areas of the tracks in pixels, (m,); None: not kept."""

    def __post_init__(self) -> None:
        expected = len(self.truth_ids), len(self.track_ids)
        if self.iou.shape != expected:
            raise ValueError(f'Expected IoU of shape {expected}, got {self.iou.shape}.')
        for name, ids in (('truth', self.truth_ids), ('track', self.track_ids)):
            if len(set(ids.tolist())) < len(ids):
                raise ValueError(f'Expected each {name} id once in a frame, got {ids.tolist()}.')


class IndexedFrame(NamedTuple):
    """A frame whose ids are replaced by their places in the id lists of the sequence."""

    number: int
    """Number of the frame, from 0."""
    rows: NDArray[np.int64]
    """Places of the true objects in `TrackSequence.truth_ids`, (n,)."""
    columns: NDArray[np.int64]
    """Places of the tracks in `TrackSequence.track_ids`, (m,)."""
    iou: NDArray[np.float64]
    """IoU of each true object with each track, (n, m), 0..1."""


@dataclass(frozen=True)
class TrackSequence:
    """Objects and tracks of one class in one video."""

    video_id: int | str
    category_id: int
    frames: Sequence[FrameOverlap]
    """All T frames, including those without objects and tracks."""

    @property
    def truth_ids(self) -> NDArray[np.int64]:
        """Ids of all true objects of the sequence, (N,), rising."""
        return self._truth[0]

    @property
    def track_ids(self) -> NDArray[np.int64]:
        """Ids of all tracks of the sequence, (M,), rising."""
        return self._tracks[0]

    @property
    def truth_frames(self) -> NDArray[np.int64]:
        """Number of frames in which each true object is, (N,)."""
        return self._truth[1]

    @property
    def track_frames(self) -> NDArray[np.int64]:
        """Number of frames in which each track is, (M,)."""
        return self._tracks[1]

    @cached_property
    def pairs(self) -> tuple[IndexedFrame, ...]:
        """Frames with both objects and tracks; nothing can match in the others."""
        return tuple(
            IndexedFrame(
                number,
                np.searchsorted(self.truth_ids, frame.truth_ids),
                np.searchsorted(self.track_ids, frame.track_ids),
                frame.iou,
            )
            for number, frame in enumerate(self.frames)
            if frame.iou.size
        )

    @cached_property
    def _truth(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return _count_ids(frame.truth_ids for frame in self.frames)

    @cached_property
    def _tracks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return _count_ids(frame.track_ids for frame in self.frames)


def overlap_tracks(
    video_id: int | str, truth: Sequence[MaskTrack], results: Sequence[MaskTrack]
) -> list[TrackSequence]:
    """Compare the masks of one video within each class.

    Args:
        video_id: id of the video.
        truth: true objects; `track_id` tells them apart.
        results: predicted objects, whose masks may overlap; `track_id` tells them apart.

    Returns:
        One sequence for each class that occurs, by rising category id.

    Raises:
        ValueError: tracks or masks of one video differ in their number of frames or their size,
            or two tracks of a class have one id.
    """
    tracks = [*truth, *results]
    lengths = {len(track.masks) for track in tracks}
    if len(lengths) > 1:
        raise ValueError(
            f'Expected tracks of one length in video {video_id}, got {sorted(lengths)} frames.'
        )
    num_frames = max(lengths, default=0)
    sequences = []
    for category in sorted({track.category_id for track in tracks}):
        sides = (
            visible_masks([each for each in side if each.category_id == category], num_frames)
            for side in (truth, results)
        )
        frames = list(itertools.starmap(_overlap_masks, zip(*sides, strict=True)))
        sequences.append(TrackSequence(video_id, category, frames))
    return sequences


class ImageOverlaps:
    """Collects the overlaps of things in the id images of one video.

    Pixels whose truth is void or a crowd are removed from the predicted segments before these are
    compared. A predicted segment that changes its class continues as another track.

    >>> overlaps = ImageOverlaps({0: False, 5: True})
    >>> true_ids = np.array([[1, 1, 1, 0]], np.uint32)
    >>> pred_ids = np.array([[0, 7, 7, 7]], np.uint32)  # 2 shared of 3, as the last is void
    >>> segment = {'category_id': 5, 'iscrowd': 0}
    >>> overlaps.update(true_ids, [{'id': 1, **segment}], pred_ids, [{'id': 7, **segment}])
    >>> [sequence] = overlaps.sequences('v1')
    >>> sequence.frames[0].iou.tolist()
    [[0.6666666666666666]]
    """

    def __init__(self, is_thing: Mapping[int, bool]) -> None:
        """Set the categories that are compared.

        Args:
            is_thing: whether each category id is a thing; stuff is left out.
        """
        self._things = sorted(category for category, thing in is_thing.items() if thing)
        self._frames: dict[int, list[FrameOverlap]] = {}
        self._num_frames = 0

    def update(
        self,
        true_ids: NDArray[np.uint32],
        true_segments: Sequence[Mapping[str, Any]],
        pred_ids: NDArray[np.uint32],
        pred_segments: Sequence[Mapping[str, Any]],
    ) -> None:
        """Add the next frame.

        Args:
            true_ids: id of the true segment of each pixel, (H, W), 0 is void.
            true_segments: true segments with `id`, `category_id` and `iscrowd`.
            pred_ids: id of the predicted segment of each pixel, (H, W), 0 is void.
            pred_segments: predicted segments with `id` and `category_id`.

        Raises:
            ValueError: the images differ in size or are of another type, or a segment is listed
                twice.
        """
        pairs = count_pairs(true_ids, pred_ids)
        crowds = [segment['id'] for segment in true_segments if segment['iscrowd']]
        counts = ~np.isin(pairs.true_ids, [0, *crowds])
        truth, row_of_pair = np.unique(pairs.true_ids[counts], return_inverse=True)
        tracks, column_of_pair = np.unique(pairs.pred_ids[counts], return_inverse=True)
        shared = np.zeros((len(truth), len(tracks)), np.int64)
        shared[row_of_pair, column_of_pair] = pairs.areas[counts]
        union = shared.sum(axis=1)[:, None] + shared.sum(axis=0) - shared
        for category in self._things:
            rows = np.isin(truth, _ids_of(true_segments, category))
            columns = np.isin(tracks, _ids_of(pred_segments, category))
            if not (rows.any() or columns.any()):
                continue
            chosen = np.ix_(rows, columns)
            self._pad(category).append(
                FrameOverlap(truth[rows], tracks[columns], shared[chosen] / union[chosen])
            )
        self._num_frames += 1

    def sequences(self, video_id: int | str) -> list[TrackSequence]:
        """Build one sequence for each class of things that has occurred, by rising category id."""
        return [
            TrackSequence(video_id, category, self._pad(category))
            for category in sorted(self._frames)
        ]

    def _pad(self, category: int) -> list[FrameOverlap]:
        """Return the frames of a class, after adding empty ones for frames without the class."""
        frames = self._frames.setdefault(category, [])
        frames += [NOTHING] * (self._num_frames - len(frames))
        return frames


def id_array(ids: Iterable[int]) -> NDArray[np.int64]:
    """Return ids as an array (N,), whose items are Python's integers where 64 bits are too few.

    >>> id_array([3, 1]).dtype, id_array([2**70]).dtype
    (dtype('int64'), dtype('O'))
    """
    numbers = list(ids)
    try:
        return np.array(numbers, np.int64)
    except OverflowError:
        return np.array(numbers, object)


_NO_IDS = np.zeros(0, np.int64)
NOTHING = FrameOverlap(_NO_IDS, _NO_IDS, np.zeros((0, 0)), _NO_IDS, _NO_IDS)
"""A frame without objects and tracks."""


def _count_ids(
    per_frame: Iterable[NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids, counts = np.unique(np.concatenate([_NO_IDS, *per_frame]), return_counts=True)
    return ids, counts.astype(np.int64, copy=False)


def _ids_of(segments: Sequence[Mapping[str, Any]], category: int) -> list[int]:
    return [segment['id'] for segment in segments if segment['category_id'] == category]


class VisibleMask(NamedTuple):
    """A mask with pixels in one frame."""

    track: MaskTrack
    """The object or track that it belongs to."""
    area: int
    """Number of its pixels."""
    mask: Rle


def visible_masks(tracks: Sequence[MaskTrack], num_frames: int) -> list[list[VisibleMask]]:
    """List all that is visible of some tracks in each frame, in their order."""
    frames: list[list[VisibleMask]] = [[] for _ in range(num_frames)]
    for track in tracks:
        masks, areas = track.read()
        for seen, mask, area in zip(frames, masks, areas.tolist(), strict=True):
            if mask is not None and area:
                seen.append(VisibleMask(track, area, mask))
    return frames


def mask_iou(truth: Sequence[VisibleMask], tracks: Sequence[VisibleMask]) -> NDArray[np.float64]:
    """Compute the IoU of all masks of a frame, (n, m).

    Raises:
        ValueError: they differ in size.
    """
    if not truth or not tracks:
        return np.zeros((len(truth), len(tracks)))
    # A crowd would turn IoU into the share of the detection that it covers.
    no_crowds = [0] * len(tracks)
    iou = coco_mask.iou([seen.mask for seen in truth], [seen.mask for seen in tracks], no_crowds)
    if (iou < 0).any():
        sizes = sorted({tuple(seen.mask['size']) for seen in (*truth, *tracks)})
        raise ValueError(f'Expected masks of one size (height, width) in a frame, got {sizes}.')
    return iou


def _overlap_masks(truth: list[VisibleMask], tracks: list[VisibleMask]) -> FrameOverlap:
    if not truth and not tracks:
        return NOTHING
    return FrameOverlap(
        id_array(seen.track.track_id for seen in truth),
        id_array(seen.track.track_id for seen in tracks),
        mask_iou(truth, tracks),
        np.array([seen.area for seen in truth], np.int64),
        np.array([seen.area for seen in tracks], np.int64),
    )
