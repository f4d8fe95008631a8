"""IoU of objects along a whole video, from run-length codes alone.

    IoU(d, g) = sum over frames of |d and g| / sum over frames of |d or g|

as in Yang et al., Video Instance Segmentation, ICCV 2019 (arXiv 1905.04804), section 3. A frame
with only one of the two adds to the union. This is not the mean of the IoU of the frames.

pycocotools compares all masks of a frame in one call and skips pairs whose boxes are apart. It
gives each pair's IoU as a float, and the pixels they share follow from it exactly: with areas a
and b, shared = IoU (a + b) / (1 + IoU), whose rounding error is below 1e-5 pixels for any area
that fits into the codes (2^32).

Letters: T frames, F of them in one part, N results, M true objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from videomt_ros.datasets.rle import MaskTrack, Rle
from videomt_ros.evaluation.metrics.overlap import TrackSequence

_NUM_PARTS = 6
"""Number of parts of a video; before each, pairs that can no longer reach the wanted IoU are
dropped. Two objects of one size that never meet are dropped after a third of the frames."""


@dataclass(frozen=True)
class VolumeOverlap:
    """Areas and IoU of the results and true objects of one video."""

    iou: NDArray[np.float64]
    """IoU of each result with each true object, (N, M), 0..1; 0 for pairs not compared."""
    result_areas: NDArray[np.int64]
    """Area of each result in each frame, (N, T), in pixels; 0 where it is absent."""
    truth_areas: NDArray[np.int64]
    """Area of each true object in each frame, (M, T), in pixels; 0 where it is absent."""

    def of_results(self, rows: Sequence[int]) -> VolumeOverlap:
        """Return the overlap of some results, in the given order."""
        chosen = np.array(rows, np.intp)
        return VolumeOverlap(self.iou[chosen], self.result_areas[chosen], self.truth_areas)


def volume_iou(results: Sequence[MaskTrack], truth: Sequence[MaskTrack]) -> NDArray[np.float64]:
    """Compute the IoU of every result with every true object of one video, in any category.

    >>> left, right = ({'size': [1, 4], 'counts': c} for c in (b'022', b'112'))  # oo.., .o..
    >>> track = MaskTrack(1, 1, [left, left])
    >>> volume_iou([track], [track, MaskTrack(1, 1, [right, None])])
    array([[1.  , 0.25]])

    Args:
        results: N tracks.
        truth: M tracks of the same video.

    Returns:
        (N, M), 0..1; 0 where both are empty.

    Raises:
        ValueError: two tracks differ in their number of frames or the size of their masks.
    """
    every_pair = (np.arange(len(results)), np.arange(len(truth)))
    return measure_overlap(results, truth, [every_pair]).iou


def measure_overlap(
    results: Sequence[MaskTrack],
    truth: Sequence[MaskTrack],
    groups: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
    least: float = 0.0,
) -> VolumeOverlap:
    """Measure the areas of all tracks of one video and the IoU of some pairs.

    Each mask is read once. All run-length codes of the video are in memory, but no pixels.

    Args:
        results: N tracks.
        truth: M tracks.
        groups: indices of results and of true objects; within each group every result is compared
            with every true object. No pair may be in two groups.
        least: an IoU below it may be returned as any other value below it, which saves time.

    Raises:
        ValueError: two tracks differ in their number of frames or the size of their masks.
    """
    names = [f'annotation {track.track_id} of video {track.video_id}' for track in truth]
    names += [f'result {track.track_id} of video {track.video_id}' for track in results]
    masks, areas = _read([*truth, *results], names)
    truth_masks, truth_areas = masks[: len(truth)], areas[: len(truth)]
    result_masks, result_areas = masks[len(truth) :], areas[len(truth) :]
    iou = np.zeros((len(results), len(truth)))
    for rows, columns in groups:
        iou[np.ix_(rows, columns)] = _iou(
            [result_masks[row] for row in rows],
            [truth_masks[column] for column in columns],
            result_areas[rows],
            truth_areas[columns],
            least,
        )
    return VolumeOverlap(iou, result_areas, truth_areas)


def overlap_of_sequences(
    results: Sequence[MaskTrack], truth: Sequence[MaskTrack], sequences: Iterable[TrackSequence]
) -> VolumeOverlap:
    """Sum up the overlaps of the frames, as `measure_overlap` finds them, without a mask.

    Args:
        results: N tracks.
        truth: M tracks.
        sequences: what `overlap_tracks` makes of the same tracks; pairs of two classes get IoU 0.
    """
    sequences = list(sequences)
    num_frames = len(sequences[0].frames) if sequences else 0
    iou = np.zeros((len(results), len(truth)))
    result_areas = np.zeros((len(results), num_frames), np.int64)
    truth_areas = np.zeros((len(truth), num_frames), np.int64)
    for sequence in sequences:
        result_of_id, truth_of_id = (
            {
                track.track_id: index
                for index, track in enumerate(side)
                if track.category_id == sequence.category_id
            }
            for side in (results, truth)
        )
        shared = np.zeros((len(results), len(truth)), np.int64)
        for number, frame in enumerate(sequence.frames):
            if frame.truth_areas is None or frame.track_areas is None:
                raise ValueError('Expected frames with areas, as those of overlap_tracks have.')
            rows = [result_of_id[track_id] for track_id in frame.track_ids.tolist()]
            columns = [truth_of_id[truth_id] for truth_id in frame.truth_ids.tolist()]
            result_areas[rows, number] = frame.track_areas
            truth_areas[columns, number] = frame.truth_areas
            if rows and columns:
                total = frame.track_areas[:, None] + frame.truth_areas
                shared[np.ix_(rows, columns)] += _shared_pixels(frame.iou.T, total)
        own = np.ix_(list(result_of_id.values()), list(truth_of_id.values()))
        total = result_areas[own[0][:, 0]].sum(1)[:, None] + truth_areas[own[1][0]].sum(1)
        iou[own] = shared[own] / np.maximum(total - shared[own], 1)
    return VolumeOverlap(iou, result_areas, truth_areas)


def _shared_pixels(iou: NDArray[np.float64], total: NDArray[np.int64]) -> NDArray[np.int64]:
    """Compute the pixels that two masks share from their IoU and the sum of their areas."""
    return np.rint(iou * total / (1 + iou)).astype(np.int64)


def _read(
    tracks: Sequence[MaskTrack], names: Sequence[str]
) -> tuple[list[list[Rle]], NDArray[np.int64]]:
    """Read the masks of each track, with empty masks for None, and their areas (tracks, T)."""
    num_frames = len(tracks[0].masks) if tracks else 0
    areas = np.zeros((len(tracks), num_frames), np.int64)
    size: tuple[int, ...] | None = None
    all_masks: list[list[Rle | None]] = []
    for index, (track, name) in enumerate(zip(tracks, names, strict=True)):
        if len(track.masks) != num_frames:
            raise ValueError(
                f'Expected {num_frames} frames, as {names[0]} has, got {len(track.masks)} in '
                f'{name}.'
            )
        masks, areas[index] = track.read()
        for frame, mask in enumerate(masks):
            if mask is None:
                continue
            mask_size = tuple(mask['size'])
            size = size or mask_size
            if mask_size != size:
                raise ValueError(
                    f'Expected masks of {_text(size)} pixels (height x width) as in the rest of '
                    f'the video, got {_text(mask_size)} in frame {frame} of {name}.'
                )
        all_masks.append(masks)
    height, width = size or (1, 1)
    empty = {'size': [height, width], 'counts': [height * width]}
    empty = coco_mask.frPyObjects(empty, height, width)
    filled = [[empty if mask is None else mask for mask in masks] for masks in all_masks]
    return filled, areas


def _iou(
    results: Sequence[Sequence[Rle]],
    truth: Sequence[Sequence[Rle]],
    result_areas: NDArray[np.int64],
    truth_areas: NDArray[np.int64],
    least: float,
) -> NDArray[np.float64]:
    """Compute IoU (N, M); see `measure_overlap`."""
    num_frames = result_areas.shape[1]
    # Upper bound of the pixels that each pair shares, (N, M); each part lowers it.
    shared = np.array([np.minimum(areas, truth_areas).sum(1) for areas in result_areas])
    shared = shared.reshape(len(results), len(truth))
    total = result_areas.sum(1)[:, None] + truth_areas.sum(1)
    for part in range(min(_NUM_PARTS, num_frames)):
        can_reach = (shared > 0) & (shared >= least * (total - shared))
        rows, columns = _indices(can_reach.any(1)), _indices(can_reach.any(0))
        if not rows:
            break
        frames = slice(part, num_frames, _NUM_PARTS)  # spread, since objects move
        is_crowd = np.zeros(len(columns), np.uint8)
        iou = np.array(
            [
                coco_mask.iou(
                    [results[row][frame] for row in rows],
                    [truth[column][frame] for column in columns],
                    is_crowd,
                )
                for frame in range(part, num_frames, _NUM_PARTS)
            ]
        )  # (F, rows, columns)
        a = result_areas[rows, frames].T[:, :, None]
        b = truth_areas[columns, frames].T[:, None]
        excess = np.minimum(a, b) - _shared_pixels(iou, a + b)
        shared[np.ix_(rows, columns)] -= excess.sum(0)
    return shared / np.maximum(total - shared, 1)


def _text(size: Sequence[int]) -> str:
    return f'{size[0]} x {size[1]}'


def _indices(mask: NDArray[np.bool_]) -> list[int]:
    return np.flatnonzero(mask).tolist()
