"""IoU of objects along a whole video, from run-length codes alone.

    IoU(d, g) = sum over frames of |d and g| / sum over frames of |d or g|

as in Yang et al., Video Instance Segmentation, ICCV 2019 (arXiv 1905.04804), section 3. A frame
with only one of the two adds to the union; it is no mean over frames.

pycocotools compares all masks of a frame in one call and skips pairs whose boxes are apart. It
gives each pair's IoU as a float, and the pixels they share follow from it exactly: with areas a
and b, shared = IoU (a + b) / (1 + IoU), whose rounding error is below 1e-5 pixels for any area
that fits into the codes (2^32).

Letters: T frames, N results, M true objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from videomt_ros.datasets.masks import MaskTrack, Rle


@dataclass(frozen=True)
class VolumeOverlap:
    """What is measured of the results and true objects of one video."""

    shared: NDArray[np.int64]
    """(N, M), pixels in common, summed over the frames; 0 for pairs that were not compared."""
    result_areas: NDArray[np.int64]
    """(N, T), pixels in each frame, 0 where absent."""
    truth_areas: NDArray[np.int64]
    """(M, T), likewise."""

    @property
    def iou(self) -> NDArray[np.float64]:
        """(N, M), 0 where both are empty or were not compared."""
        union = self.result_areas.sum(1)[:, None] + self.truth_areas.sum(1) - self.shared
        return self.shared / np.maximum(union, 1)


def volume_iou(results: Sequence[MaskTrack], truth: Sequence[MaskTrack]) -> NDArray[np.float64]:
    """IoU of every result with every true object of one video, whatever their categories.

    >>> left, right = ({'size': [1, 4], 'counts': c} for c in (b'022', b'112'))  # oo.., .o..
    >>> track = MaskTrack(1, 1, [left, left])
    >>> volume_iou([track], [track, MaskTrack(1, 1, [right, None])])
    array([[1.  , 0.25]])

    Args:
        results: N tracks.
        truth: M tracks of the same video.

    Returns:
        (N, M), 0..1.

    Raises:
        ValueError: two tracks differ in their number of frames or the size of their masks.
    """
    every_pair = (np.arange(len(results)), np.arange(len(truth)))
    return measure_overlap(results, truth, [every_pair]).iou


def measure_overlap(
    results: Sequence[MaskTrack],
    truth: Sequence[MaskTrack],
    groups: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
) -> VolumeOverlap:
    """Areas of all tracks of one video, and the pixels that some pairs share.

    Frame by frame, each mask is read once, and only those of one frame are held.

    Args:
        results: N tracks.
        truth: M tracks.
        groups: indices of results and of true objects; within each group every result is compared
            with every true object. No pair may be in two groups.

    Raises:
        ValueError: two tracks differ in their number of frames or the size of their masks.
    """
    tracks = [*truth, *results]
    num_frames = len(tracks[0].masks) if tracks else 0
    for index, track in enumerate(tracks):
        if len(track.masks) != num_frames:
            raise ValueError(
                f'Expected {num_frames} frames, as {_name(tracks, 0, len(truth))} has, got '
                f'{len(track.masks)} in {_name(tracks, index, len(truth))}.'
            )
    areas = np.zeros((len(tracks), num_frames), np.int64)
    shared = np.zeros((len(results), len(truth)), np.int64)
    compared = [(rows, columns) for rows, columns in groups if rows.size and columns.size]
    size: list[int] | None = None
    for frame in range(num_frames):
        masks = [track.masks[frame] for track in tracks]
        present = [index for index, mask in enumerate(masks) if mask is not None]
        for index in present:
            mask_size = list(masks[index]['size'])  # type: ignore[index]
            size = size or mask_size
            if mask_size != size:
                raise ValueError(
                    f'Expected masks of {size[0]} x {size[1]} pixels (height x width) as in the '
                    f'rest of the video, got {mask_size[0]} x {mask_size[1]} in frame {frame} of '
                    f'{_name(tracks, index, len(truth))}.'
                )
        if present:
            areas[present, frame] = coco_mask.area([masks[index] for index in present])
        for rows, columns in compared:
            _add_shared(shared, masks, areas[:, frame], rows, columns)
    return VolumeOverlap(shared, areas[len(truth) :], areas[: len(truth)])


def _add_shared(
    shared: NDArray[np.int64],
    masks: Sequence[Rle | None],
    areas: NDArray[np.int64],
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
) -> None:
    """Add the pixels that the masks of one frame share; true objects come first in the lists."""
    num_truth = shared.shape[1]
    rows, columns = rows[areas[num_truth + rows] > 0], columns[areas[columns] > 0]
    if not (rows.size and columns.size):
        return
    iou = coco_mask.iou(
        [masks[num_truth + row] for row in rows],
        [masks[column] for column in columns],
        [0] * len(columns),
    )
    sums = areas[num_truth + rows][:, None] + areas[columns]
    shared[np.ix_(rows, columns)] += np.rint(iou * sums / (1 + iou)).astype(np.int64)


def _name(tracks: Sequence[MaskTrack], index: int, num_truth: int) -> str:
    kind = 'annotation' if index < num_truth else 'result'
    track = tracks[index]
    return f'{kind} {track.track_id} of video {track.video_id}'
