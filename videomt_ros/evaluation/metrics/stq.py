"""Segmentation and tracking quality (STQ) of panoptic videos.

Weber et al., STEP: Segmenting and Tracking Every Pixel, NeurIPS Datasets and Benchmarks 2021, in
the reading of the scorer that VIPSeg publishes:

    SQ  = mean of IoU over the classes (and void) that have a union, in pixels of all videos
    AQ  = mean over true tracks g of  1 / |g| * sum over predicted tracks p of
          TPA * TPA / (|g| + |p| - TPA),  TPA = pixels of both
    STQ = sqrt(AQ * SQ)

Letters: H W image size in pixels, K classes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomt_ros.evaluation.metrics.id_pairs import count_pairs, read_segments

Track = tuple[int, int]
"""Class 0..K-1 and number of an id within its video; an id with another class is another track."""


@dataclass(frozen=True)
class StqScores:
    """Result of `SegmentationTrackingQuality`; a score that is undefined is None."""

    stq: float | None
    aq: float | None
    """Association quality; None if there is no true track."""
    sq: float | None
    """Segmentation quality; None if there is no labelled pixel."""
    iou: Mapping[int, float | None]
    """IoU by category id; None for a class that neither occurs nor is predicted on labelled
    pixels."""
    confusion: NDArray[np.int64] = field(compare=False)  # arrays do not compare to one bool
    """Number of pixels by true class (row) and predicted class (column), (K, K + 1), in the order
    of `iou`; the last column counts pixels without a predicted class."""

    def figures(self) -> dict[str, float | None]:
        """Return STQ, AQ and SQ."""
        return {'STQ': self.stq, 'AQ': self.aq, 'SQ': self.sq}

    @property
    def per_class(self) -> dict[int, dict[str, float | None]]:
        """IoU of each category, by category id."""
        return {category: {'IoU': iou} for category, iou in self.iou.items()}


class SegmentationTrackingQuality:
    """Compares id images and their lists of segments with the truth, frame by frame.

    Pixels whose id no list names are void. As in the scorer of VIPSeg:

    - the segment that a video lists first is a crowd if it is a thing: it is no true track, and
      predicted pixels on it belong to no predicted track;
    - things predicted on void count in the size of their track;
    - void predicted on labelled pixels is one more class, with IoU 0, and so is a class that is
      only predicted; pixels of void truth do not count in SQ.

    >>> quality = SegmentationTrackingQuality({0: False, 5: True})
    >>> true_ids = np.array([[1, 1, 2, 2]], np.uint32)
    >>> segments = [{'id': 1, 'category_id': 0}, {'id': 2, 'category_id': 5}]
    >>> quality.update(true_ids, segments, np.array([[1, 1, 1, 2]], np.uint32), segments)
    >>> scores = quality.result()  # IoU 2/3 and 1/2; 1 of 2 pixels tracked, by a track of 1
    >>> round(scores.sq, 4), scores.aq, round(scores.stq, 4)
    (0.5833, 0.25, 0.3819)
    """

    def __init__(self, is_thing: Mapping[int, bool]) -> None:
        """Set the categories that are scored.

        Args:
            is_thing: whether each category id of the truth is a thing.
        """
        self._class_ids = {category: number for number, category in enumerate(is_thing)}
        self._void = len(is_thing)
        self._is_thing = [*is_thing.values(), False]
        # Rows are true classes, columns are predicted ones; void comes last.
        self._confusion = np.zeros((self._void + 1, self._void + 1), np.int64)
        self._video = _VideoTracks()
        self._qualities: list[float] = []
        self._num_tracks = 0

    def start_video(self) -> None:
        """Prepare for the first frame of another video."""
        sum_quality, num_tracks = self._video.score()
        self._qualities.append(sum_quality)
        self._num_tracks += num_tracks
        self._video = _VideoTracks()

    def update(
        self,
        true_ids: NDArray[np.uint32],
        true_segments: Sequence[Mapping[str, Any]],
        pred_ids: NDArray[np.uint32],
        pred_segments: Sequence[Mapping[str, Any]],
    ) -> None:
        """Add the next frame of the video.

        Args:
            true_ids: id of the true segment of each pixel, (H, W), 0 is void.
            true_segments: true segments with `id` and `category_id`; their order counts.
            pred_ids: id of the predicted segment of each pixel, (H, W), 0 is void.
            pred_segments: predicted segments with `id` and `category_id`; their order counts.

        Raises:
            ValueError: images differ in size, a segment is listed twice, or a category is unknown.
        """
        pairs = count_pairs(true_ids, pred_ids)
        true_listed = read_segments(true_segments, self._class_ids, 'true')
        pred_listed = read_segments(pred_segments, self._class_ids, 'predicted')
        video = self._video
        true_tracks = _number(true_listed, video.true_numbers)
        pred_tracks = _number(pred_listed, video.pred_numbers)
        nothing = (self._void, -1)
        for true_id, pred_id, area in zip(*(part.tolist() for part in pairs), strict=True):
            true_track = true_tracks.get(true_id, nothing)
            pred_track = pred_tracks.get(pred_id, nothing)
            self._confusion[true_track[0], pred_track[0]] += area
            on_thing, by_thing = self._is_thing[true_track[0]], self._is_thing[pred_track[0]]
            if on_thing and true_track[1] == 0:
                continue
            if on_thing:
                video.true_areas[true_track] += area
            if by_thing:
                video.pred_areas[pred_track] += area
            if on_thing and by_thing:
                video.shared[true_track, pred_track] += area

    def result(self) -> StqScores:
        """Compute the scores over all frames so far."""
        confusion = self._confusion.copy()
        confusion[self._void] = 0
        right = np.diag(confusion)
        union = confusion.sum(axis=0) + confusion.sum(axis=1) - right
        iou = np.divide(right, union, out=np.full(len(union), np.nan), where=union > 0)
        # Rounded sums would depend on the order of classes, videos and ids in a file.
        occurring = iou[union > 0].tolist()
        sq = math.fsum(occurring) / len(occurring) if occurring else None
        sum_quality, num_tracks = self._video.score()
        num_tracks += self._num_tracks
        aq = math.fsum([*self._qualities, sum_quality]) / num_tracks if num_tracks else None
        return StqScores(
            stq=None if sq is None or aq is None else math.sqrt(sq * aq),
            aq=aq,
            sq=sq,
            iou={
                category: None if np.isnan(iou[number]) else float(iou[number])
                for category, number in self._class_ids.items()
            },
            confusion=confusion[: self._void],
        )


class _VideoTracks:
    """Sizes of the tracks of one video, in pixels."""

    def __init__(self) -> None:
        self.true_numbers: dict[int, int] = {}
        """Number of each true id, from 0 in the order in which the lists first name the ids."""
        self.pred_numbers: dict[int, int] = {}
        self.true_areas: Counter[Track] = Counter()
        self.pred_areas: Counter[Track] = Counter()
        self.shared: Counter[tuple[Track, Track]] = Counter()

    def score(self) -> tuple[float, int]:
        """Sum up association quality over the true tracks; returns the sum and their number."""
        qualities = []
        for (true_track, pred_track), shared in self.shared.items():
            true_area = self.true_areas[true_track]
            union = true_area + self.pred_areas[pred_track] - shared
            qualities.append(shared * shared / union / true_area)
        return math.fsum(qualities), len(self.true_areas)


def _number(
    listed: tuple[NDArray[np.int64], NDArray[np.int64]], numbers: dict[int, int]
) -> dict[int, Track]:
    """Find the track of each id of a frame; ids that are new in the video get a number."""
    ids, classes = (part.tolist() for part in listed)
    return {
        number: (class_id, numbers.setdefault(number, len(numbers)))
        for number, class_id in zip(ids, classes, strict=True)
    }
