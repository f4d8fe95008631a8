"""Average precision and recall of video instance segmentation, as YouTube-VIS and OVIS define it.

The definition is that of Yang et al., Video Instance Segmentation, ICCV 2019 (arXiv 1905.04804),
section 3, in the details of its public scorer: COCO's detection scores with the IoU of whole
videos (`volume_iou`) and other size ranges. Per category, with results by falling score,

    precision(r) = right / (right + wrong) among the first results that reach recall r
    AP           = mean of precision(r) over 101 recalls, 10 IoU thresholds and the categories
    ARk          = mean of the recall that k results per video and category reach

Letters: S = 10 IoU thresholds, A = 4 size ranges, R = 101 recall levels, K categories, D results
and G true objects of one category in one video (their pooled number in the sums at the end).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.rle import MaskTrack
from videomt_ros.evaluation.metrics.overlap import TrackSequence, id_array
from videomt_ros.evaluation.metrics.volume_iou import measure_overlap, overlap_of_sequences

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""The 10 IoU thresholds; arange would make 0.6 a little larger than 0.6."""
RECALL_LEVELS = np.linspace(0, 1, 101)
"""The 101 recall levels; i / 100 would differ from them in the last bit for ten values of i."""
SIZE_RANGES = {
    'all': (0.0, 1e10),
    'small': (0.0, 128.0**2),
    'medium': (128.0**2, 256.0**2),
    'large': (256.0**2, 1e10),
}
"""Smallest and largest mean area of each size range, in pixels; both belong to the range."""
LIMITS = (1, 10, 100)
"""Numbers of results per video and category at which recall is measured; results beyond the last
are ignored."""

_LOWEST, _HIGHEST = np.array(list(SIZE_RANGES.values())).T
_NEEDED_IOU = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)


@dataclass(frozen=True)
class ApScores:
    """Result of `VideoAP`."""

    category_ids: tuple[int, ...]
    """Ids of the K categories."""
    precision: NDArray[np.float64]
    """Precision (S, R, K) for all sizes and 100 results, 0..1; nan for a category without a true
    object that counts. `IOU_THRESHOLDS` and `RECALL_LEVELS` name the first two axes."""
    size_precision: NDArray[np.float64]
    """Precision (A, K) for each of `SIZE_RANGES`, mean over thresholds and recalls, or nan."""
    recall: NDArray[np.float64]
    """Highest recall (limits, K) for each of `LIMITS`, mean over the thresholds, or nan."""

    def figures(self) -> dict[str, float | None]:
        """Compute AP, AP50, AP75, APs, APm, APl, AR1, AR10 and AR100, 0..1.

        A figure is None where no category has a true object that counts (in that size range).
        """
        return self._figures(list(range(len(self.category_ids))))

    @property
    def per_class(self) -> dict[int, dict[str, float | None]]:
        """Figures as in `figures`, of each category alone, by category id."""
        return {
            category: self._figures([place]) for place, category in enumerate(self.category_ids)
        }

    def _figures(self, places: list[int]) -> dict[str, float | None]:
        precision = self.precision[:, :, places]
        _, small, medium, large = self.size_precision[:, places]
        first, ten, hundred = self.recall[:, places]
        values = {
            'AP': precision,
            'AP50': precision[0],
            'AP75': precision[5],
            'APs': small,
            'APm': medium,
            'APl': large,
            'AR1': first,
            'AR10': ten,
            'AR100': hundred,
        }
        return {name: _mean(value) for name, value in values.items()}


class VideoAP:
    """Takes videos one by one, and keeps scores and matches but no mask.

    >>> left, right = ({'size': [1, 4], 'counts': c} for c in (b'022', b'112'))  # oo.., .o..
    >>> ap = VideoAP([1])
    >>> truth = [MaskTrack(1, 1, [left], areas=[2]), MaskTrack(1, 1, [right], areas=[1])]
    >>> ap.add_video(1, truth, [MaskTrack(1, 1, [left], score=0.9)])
    >>> figures = ap.result().figures()  # half of the objects, without a false one
    >>> figures['AR100'], figures['AP'] == 51 / 101
    (0.5, True)
    """

    def __init__(self, category_ids: Iterable[int]) -> None:
        """Set the categories that are scored.

        Args:
            category_ids: ids of the data set, in the order in which scores list them.
        """
        self._category_ids = tuple(category_ids)
        if len(set(self._category_ids)) < len(self._category_ids):
            raise ValueError(f'Expected category ids that differ, got {self._category_ids}.')
        self._outcomes: dict[int, dict[int | str, _Outcome]] = defaultdict(dict)
        self._video_ids: set[int | str] = set()

    def add_video(
        self,
        video_id: int | str,
        truth: Sequence[MaskTrack],
        results: Sequence[MaskTrack],
        sequences: Sequence[TrackSequence] | None = None,
    ) -> None:
        """Match the results of one video with its objects.

        Args:
            video_id: decides between equal scores of different videos: lower ids come first.
            truth: true objects in the order of the annotation file, with `is_crowd` and `areas`;
                where `areas` is None, those of the masks count.
            results: predictions in the order of their file, which decides between equal scores;
                those of categories that the data set lacks have no effect.
            sequences: overlaps of all of these tracks from `overlap_tracks`, if they are known,
                which saves reading and comparing the masks once more.

        Raises:
            ValueError: the video was added before, a track belongs to another video, has masks
                of another size or number than the rest, or a true object has a category that the
                data set lacks.
        """
        if video_id in self._video_ids:
            raise ValueError(f'Expected each video once, got video {video_id} again.')
        for track in (*truth, *results):
            if track.video_id != video_id:
                raise ValueError(
                    f'Expected tracks of video {video_id}, got track {track.track_id} of video '
                    f'{track.video_id}.'
                )
        unknown = {track.category_id for track in truth} - set(self._category_ids)
        if unknown:
            raise ValueError(
                f'Expected true objects of the categories {self._category_ids}, got '
                f'{sorted(unknown)} in video {video_id}.'
            )

        kept = _best_by_category(results, self._category_ids)
        all_results, results = results, [results[index] for index in kept]
        result_categories = id_array(track.category_id for track in results)
        truth_categories = id_array(track.category_id for track in truth)
        categories = np.union1d(result_categories, truth_categories).tolist()
        groups = [
            (
                np.flatnonzero(result_categories == category),
                np.flatnonzero(truth_categories == category),
            )
            for category in categories
        ]
        if sequences is None:
            overlap = measure_overlap(results, truth, groups, least=_NEEDED_IOU[0])
        else:
            overlap = overlap_of_sequences(all_results, truth, sequences).of_results(kept)
        result_sizes = [_mean_area(areas) for areas in overlap.result_areas]
        truth_sizes = [
            _mean_area(overlap.truth_areas[index] if track.areas is None else track.areas)
            for index, track in enumerate(truth)
        ]
        self._video_ids.add(video_id)
        for category, (rows, columns) in zip(categories, groups, strict=True):
            self._outcomes[category][video_id] = _match(
                overlap.iou[np.ix_(rows, columns)],
                np.array([results[row].score for row in rows]),
                np.array([result_sizes[row] for row in rows]),
                np.array([truth_sizes[column] for column in columns]),
                np.array([truth[column].is_crowd for column in columns.tolist()], np.bool_),
            )

    def result(self) -> ApScores:
        """Compute the scores of all videos so far."""
        num_categories = len(self._category_ids)
        precision = np.full((len(IOU_THRESHOLDS), len(RECALL_LEVELS), num_categories), np.nan)
        size_precision = np.full((len(SIZE_RANGES), num_categories), np.nan)
        recall = np.full((len(LIMITS), num_categories), np.nan)
        for place, category in enumerate(self._category_ids):
            # Numbers before names: both in one data set cannot be compared.
            videos = sorted(
                self._outcomes[category].items(),
                key=lambda item: (isinstance(item[0], str), item[0]),
            )
            outcomes = [outcome for _, outcome in videos]
            num_counting = sum(
                (outcome.num_counting for outcome in outcomes),
                start=np.zeros(len(SIZE_RANGES), np.int64),
            )
            for index in np.flatnonzero(num_counting).tolist():
                curves = _precision_curves(outcomes, index, num_counting[index])
                size_precision[index, place] = curves.mean()
                if index == 0:
                    precision[:, :, place] = curves
                    recall[:, place] = [
                        sum(o.right[0, :, :limit].sum() for o in outcomes)
                        / (num_counting[0] * len(IOU_THRESHOLDS))
                        for limit in LIMITS
                    ]
        return ApScores(self._category_ids, precision, size_precision, recall)


@dataclass(frozen=True)
class _Outcome:
    """Comparison of the results of one category in one video with its objects."""

    scores: NDArray[np.float64]
    """Scores (D,), falling."""
    right: NDArray[np.bool_]
    """Whether each result matches an object that counts, (A, S, D)."""
    wrong: NDArray[np.bool_]
    """Whether each result is a false positive, (A, S, D); one that is neither right nor wrong is
    ignored."""
    num_counting: NDArray[np.int64]
    """Number of true objects that count in each size range, (A,)."""


def _best_by_category(results: Sequence[MaskTrack], category_ids: Iterable[int]) -> list[int]:
    """List the indices of the results that are scored, by falling score, then in their order."""
    order = np.argsort([-track.score for track in results], kind='stable').tolist()
    room = dict.fromkeys(category_ids, LIMITS[-1])
    kept = []
    for index in order:
        category = results[index].category_id
        if room.get(category, 0):
            room[category] -= 1
            kept.append(index)
    return kept


def _mean_area(areas: Iterable[float | None]) -> float:
    """Average the area over the frames in which an object has one; 0 if it has none at all."""
    present = [float(area) for area in areas if area]
    return sum(present) / len(present) if present else 0.0


def _match(
    iou: NDArray[np.float64],
    scores: NDArray[np.float64],
    result_sizes: NDArray[np.float64],
    truth_sizes: NDArray[np.float64],
    is_crowd: NDArray[np.bool_],
) -> _Outcome:
    """Match each result in turn with the best free object, for all thresholds and sizes at once.

    Args:
        iou: IoU of results and objects, (D, G).
        scores: scores of the results, (D,), falling.
        result_sizes: mean areas of the results, (D,).
        truth_sizes: mean areas of the objects, (G,).
        is_crowd: whether an object is a crowd, (G,).
    """
    num_results, num_truth = iou.shape
    counts = _in_range(truth_sizes) & ~is_crowd  # (A, G)
    shape = (len(SIZE_RANGES), len(IOU_THRESHOLDS))
    right = np.zeros((num_results, *shape), bool)
    matched = np.zeros((num_results, *shape), bool)
    is_free = np.ones((num_truth, *shape), bool)
    reaches = iou[:, :, None] >= _NEEDED_IOU  # (D, G, S)
    for index in np.flatnonzero(reaches.any((1, 2))).tolist():
        # By falling IoU, and among equal ones the last first.
        order = np.argsort(iou[index], kind='stable')[::-1]
        candidates = order[: np.count_nonzero(reaches[index, :, 0])].tolist()
        for wanted in (counts, ~counts):  # an ignored object only where no other is free
            for place in candidates:
                takes = is_free[place] & reaches[index, place] & wanted[:, place, None]
                takes &= ~matched[index]
                matched[index] |= takes
                if wanted is counts:
                    right[index] |= takes
                if not is_crowd[place]:
                    is_free[place] &= ~takes
    right, matched = np.moveaxis(right, 0, 2), np.moveaxis(matched, 0, 2)
    wrong = ~matched & _in_range(result_sizes)[:, None]
    return _Outcome(scores, right, wrong, counts.sum(1))


def _in_range(sizes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which mean areas lie in which size range, (A, len(sizes))."""
    return (sizes >= _LOWEST[:, None]) & (sizes <= _HIGHEST[:, None])


def _precision_curves(
    outcomes: Sequence[_Outcome], size_range: int, num_counting: int
) -> NDArray[np.float64]:
    """Compute precision at each recall level, (S, R), for a category in one size range.

    Args:
        outcomes: outcomes of the videos, by rising video id.
        size_range: index into `SIZE_RANGES`.
        num_counting: number of true objects in the size range, at least 1.
    """
    order = np.argsort(-np.concatenate([o.scores for o in outcomes]), kind='stable')
    right = np.concatenate([o.right[size_range] for o in outcomes], 1)[:, order].cumsum(1)
    wrong = np.concatenate([o.wrong[size_range] for o in outcomes], 1)[:, order].cumsum(1)
    recall = right / num_counting
    precision = right / np.maximum(right + wrong, 1)  # (S, D)
    # Best precision at this recall or a higher one; 0 for recalls that are never reached.
    envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    envelope = np.pad(envelope, ((0, 0), (0, 1)))
    curves = [
        row[np.searchsorted(reached, RECALL_LEVELS)]
        for row, reached in zip(envelope, recall, strict=True)
    ]
    return np.array(curves)


def _mean(values: NDArray[np.float64]) -> float | None:
    defined = values[~np.isnan(values)]
    # A rounded sum would depend on the order in which a file lists its categories.
    return math.fsum(defined.tolist()) / defined.size if defined.size else None
