"""Confusion of classes: what each true class was predicted as, and what was predicted for nothing.

Instances are counted in masks: in each frame every true mask is matched with at most one predicted
mask, whatever the classes of the two. Where each pixel has a class, pixels are counted, from the
tables that `stq` and `semantic` fill anyway; pixels without a true class do not count there, so
nothing is spurious.

Letters: K categories.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.rle import MaskTrack
from videomt_ros.evaluation.metrics.overlap import VisibleMask, mask_iou, visible_masks

THRESHOLD = 0.5
"""Lowest IoU of two masks that are matched."""
_EPSILON = np.finfo(np.float64).eps


@dataclass(frozen=True)
class ClassConfusion:
    """Counts by true and predicted class; those of two sets of videos add up."""

    unit: str
    """What is counted: 'masks' or 'pixels'."""
    category_ids: tuple[int, ...]
    """Ids of the K categories."""
    counts: NDArray[np.int64]
    """Counts (K + 1, K + 1) by true class (row) and predicted class (column), in the order of
    `category_ids`. The last column counts what was missed: true, and predicted as none of the
    classes. The last row counts what is spurious: predicted, and true of no class."""

    def __add__(self, other: ClassConfusion) -> ClassConfusion:
        """Add up counts of one unit, whose categories may differ."""
        assert self.unit == other.unit, 'the confusions of one family have one unit'
        ids = tuple(dict.fromkeys((*self.category_ids, *other.category_ids)))
        counts = np.zeros((len(ids) + 1, len(ids) + 1), np.int64)
        for part in (self, other):
            places = [*(ids.index(category) for category in part.category_ids), len(ids)]
            counts[np.ix_(places, places)] += part.counts
        return ClassConfusion(self.unit, ids, counts)

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values, for `ScoreReport.confusion`.

        Categories that are neither true nor predicted anywhere are left out.
        """
        used = self.counts.sum(axis=0) + self.counts.sum(axis=1)
        kept = np.flatnonzero(used[:-1]).tolist()
        places = [*kept, len(self.category_ids)]
        return {
            'unit': self.unit,
            'category_ids': [self.category_ids[place] for place in kept],
            'counts': self.counts[np.ix_(places, places)].tolist(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ClassConfusion:
        """Read what `to_json` returns."""
        counts = np.array(content['counts'], np.int64)
        return cls(content['unit'], tuple(content['category_ids']), counts)


def pixel_confusion(places: Mapping[int, int], pixels: NDArray[np.int64]) -> ClassConfusion:
    """Build the confusion of classes from a table of pixels.

    >>> table = np.array([[5, 1, 2], [0, 7, 0]])  # the last column is of no class
    >>> pixel_confusion({10: 0}, table).counts.tolist()
    [[5, 3], [0, 0]]

    Args:
        places: row and column of each category id in the table; all other columns count as
            missed, and all other rows do not count.
        pixels: number of pixels by true class (row) and predicted class (column).
    """
    rows = np.array(list(places.values()), np.intp)
    counts = np.zeros((len(rows) + 1, len(rows) + 1), np.int64)
    counts[:-1, :-1] = pixels[np.ix_(rows, rows)]
    counts[:-1, -1] = pixels[rows].sum(axis=1) - counts[:-1, :-1].sum(axis=1)
    return ClassConfusion('pixels', tuple(places), counts)


class InstanceConfusion:
    """Takes videos one by one, and counts their masks frame by frame.

    The predicted masks of a frame whose track has at least a certain score are taken by falling
    score, equal ones in their order. Each is matched with the free true mask with which its IoU
    is highest, whatever the class of that, if it is at least 1/2; of equal ones with the first. A
    match counts for its two classes. A true mask that is left is missed, unless it is a crowd; a
    predicted one that is left is spurious, unless its IoU with a crowd is at least 1/2.

    >>> left, right = ({'size': [1, 4], 'counts': c} for c in (b'022', b'112'))  # oo.., .o..
    >>> confusion = InstanceConfusion([1, 2], least_score=0.3)
    >>> truth = [MaskTrack(1, 1, [left, left])]
    >>> confusion.add_video(truth, [MaskTrack(1, 2, [left, None], score=0.9)])
    >>> confusion.result().counts.tolist()  # called 2 in a frame, missed in the other
    [[0, 1, 1], [0, 0, 0], [0, 0, 0]]
    """

    def __init__(self, category_ids: Iterable[int], least_score: float) -> None:
        """Set the categories, and which tracks count.

        Args:
            category_ids: ids of the data set, in the order in which scores list them.
            least_score: lowest score of a predicted track that counts.
        """
        self._category_ids = tuple(category_ids)
        self._places = {category: place for place, category in enumerate(self._category_ids)}
        self._least_score = least_score
        size = len(self._category_ids) + 1
        self._counts = np.zeros((size, size), np.int64)

    def add_video(self, truth: Sequence[MaskTrack], results: Sequence[MaskTrack]) -> None:
        """Count the masks of one video.

        Args:
            truth: true objects.
            results: predictions; those of categories that the data set lacks have no effect.

        Raises:
            ValueError: masks of a frame differ in size.
        """
        shown = [
            track
            for track in results
            if track.score >= self._least_score and track.category_id in self._places
        ]
        shown.sort(key=lambda track: -track.score)
        num_frames = max((len(track.masks) for track in (*truth, *shown)), default=0)
        objects = visible_masks([track for track in truth if not track.is_crowd], num_frames)
        crowds = visible_masks([track for track in truth if track.is_crowd], num_frames)
        tracks = visible_masks(shown, num_frames)
        for frame in zip(objects, crowds, tracks, strict=True):
            self._count(*frame)

    def _count(
        self,
        objects: Sequence[VisibleMask],
        crowds: Sequence[VisibleMask],
        tracks: Sequence[VisibleMask],
    ) -> None:
        """Count the masks of a frame: true ones, those of crowds, predicted ones."""
        nothing = len(self._category_ids)
        matched = np.zeros(len(objects), bool)
        iou = mask_iou(objects, tracks)
        on_crowd = np.any(mask_iou(crowds, tracks) >= THRESHOLD - _EPSILON, axis=0).tolist()
        for column, seen in enumerate(tracks):
            row = nothing
            if iou.size:
                free = np.where(matched, -1.0, iou[:, column])
                best = int(free.argmax())
                if free[best] >= THRESHOLD - _EPSILON:
                    matched[best] = True
                    row = self._places[objects[best].track.category_id]
            if row != nothing or not on_crowd[column]:
                self._counts[row, self._places[seen.track.category_id]] += 1
        for seen, is_matched in zip(objects, matched.tolist(), strict=True):
            if not is_matched:
                self._counts[self._places[seen.track.category_id], nothing] += 1

    def result(self) -> ClassConfusion:
        """Return the counts of all videos so far."""
        return ClassConfusion('masks', self._category_ids, self._counts.copy())
