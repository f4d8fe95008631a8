"""Video panoptic quality (VPQ): segments matched as tubes over windows of k frames.

Kim, Woo, Lee and Kweon, Video Panoptic Segmentation, CVPR 2020, section 3, in the reading of the
scorer that VIPSeg (Miao et al., CVPR 2022) publishes:

    PQ_k(class) = sum of IoU over matches / (TP + FP / 2 + FN / 2)     over all windows and videos
    VPQ_k       = mean of PQ_k over the classes that are true or predicted anywhere
    VPQ         = mean of VPQ_k over k = 1, 2, 4, 6 (as the paper says) or 1, 2, 4, 6, 8 (VPQ_five,
                  as the released scripts print)

Windows of one frame are the panoptic quality of single images (Kirillov et al., Panoptic
Segmentation, CVPR 2019) as panopticapi computes it, which splits PQ of a class into two factors:

    SQ(class) = sum of IoU over matches / TP, 0 without a match
    RQ(class) = TP / (TP + FP / 2 + FN / 2)
    PQ, SQ, RQ = means over the classes that are true or predicted anywhere

Letters: H W image size in pixels, K classes, N true segments, M predicted ones.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomt_ros.evaluation.metrics.id_pairs import IdPairs, count_pairs, read_segments

WINDOWS = (1, 2, 4, 6, 8)
"""Numbers k of frames in a window."""
PAPER_WINDOWS = (1, 2, 4, 6)
"""Windows over which VPQ is the mean; VPQ_five is the mean over all of `WINDOWS`."""
_UNIT = 2.0**-53
"""Unit of sums of IoU. A double from 1/2 to 1 is a multiple of it, so that no sum is rounded, and
the order of videos and ids does not matter."""
_FRAME_NAMES = ('PQ', 'SQ', 'RQ')
VOID = 0
"""Id of pixels without a segment."""


@dataclass(frozen=True)
class VpqScores:
    """Result of `VideoPanopticQuality`."""

    is_thing: Mapping[int, bool]
    """Whether each category is a thing, by category id."""
    quality: NDArray[np.float64]
    """PQ_k of each class, (len(WINDOWS), K), classes in the order of `is_thing`; nan for a class
    that neither occurs nor is predicted."""
    frame_quality: NDArray[np.float64]
    """PQ, SQ and RQ of single frames for each class, (3, K), or nan."""

    def figures(self) -> dict[str, float | None]:
        """Compute VPQ, VPQ_five and VPQ1 .. VPQ8, each over all classes, _th things and _st stuff.

        A figure is None where no such class is in any window; a mean over windows needs all of
        them.
        """
        by_set = {
            suffix: _means([_mean(row[chosen & ~np.isnan(row)]) for row in self.quality])
            for suffix, chosen in self._sets()
        }
        return {
            name + suffix: means[name] for name in by_set[''] for suffix, means in by_set.items()
        }

    def frame_figures(self) -> dict[str, float | None]:
        """Compute PQ, SQ and RQ of single frames, over all classes, _th things and _st stuff."""
        return {
            name + suffix: _mean(row[chosen & ~np.isnan(row)])
            for name, row in zip(_FRAME_NAMES, self.frame_quality, strict=True)
            for suffix, chosen in self._sets()
        }

    def _sets(self) -> list[tuple[str, NDArray[np.bool_]]]:
        """List the sets of classes over which figures are means, (K,), by their suffix."""
        is_thing = np.array(list(self.is_thing.values()), bool)
        return [('', is_thing | True), ('_th', is_thing), ('_st', ~is_thing)]

    @property
    def per_class(self) -> dict[int, dict[str, float | None]]:
        """VPQ, VPQ_five and VPQ1 .. VPQ8 of each category id."""
        columns = self.quality.T
        return {
            category: _means([None if np.isnan(value) else float(value) for value in column])
            for category, column in zip(self.is_thing, columns, strict=True)
        }

    @property
    def frames_per_class(self) -> dict[int, dict[str, float | None]]:
        """PQ, SQ and RQ of single frames of each category id."""
        return {
            category: {
                name: None if np.isnan(value) else float(value)
                for name, value in zip(_FRAME_NAMES, column, strict=True)
            }
            for category, column in zip(self.is_thing, self.frame_quality.T, strict=True)
        }


class VideoPanopticQuality:
    """Compares id images and their lists of segments with the truth, frame by frame.

    In a window a segment consists of all pixels with its id, and has the class that the first
    frame that lists it says. A true and a predicted segment of one class match if their IoU is
    above 1/2; pixels of the prediction on void do not enlarge the union. True segments without a
    match are FN, except crowds. Predicted ones are FP, unless more than half of them
    lies on void and the crowd of their class (if there are several crowds, the one that the
    window lists last).

    Windows advance by one frame, and a video shorter than k has none. Each frame is read once and
    leaves a small table of areas; a window is the sum of its frames' tables.

    >>> quality = VideoPanopticQuality({0: False, 5: True})
    >>> true_ids = np.array([[1, 1, 1, 2]], np.uint32)
    >>> true_segments = [
    ...     {'id': 1, 'category_id': 0, 'iscrowd': 0, 'area': 3},
    ...     {'id': 2, 'category_id': 5, 'iscrowd': 0, 'area': 1},
    ... ]
    >>> pred_ids = np.array([[7, 7, 0, 0]], np.uint32)  # IoU 2/3, and nothing
    >>> quality.update(true_ids, true_segments, pred_ids, [{'id': 7, 'category_id': 0}])
    >>> figures = quality.result().figures()
    >>> [figures[name] for name in ('VPQ1', 'VPQ1_th', 'VPQ1_st', 'VPQ2')]
    [0.3333333333333333, 0.0, 0.6666666666666666, None]
    """

    def __init__(self, is_thing: Mapping[int, bool]) -> None:
        """Set the categories that are scored.

        Args:
            is_thing: whether each category id of the truth is a thing.
        """
        self._is_thing = dict(is_thing)
        self._class_ids = {category: number for number, category in enumerate(is_thing)}
        self._frames: deque[_FrameTable] = deque(maxlen=max(WINDOWS))
        # Each is (4, K) whole numbers: sum of IoU in units of `_UNIT`, TP, FP, FN.
        self._sums = {k: np.zeros((4, len(is_thing)), object) for k in WINDOWS}

    def start_video(self) -> None:
        """Prepare for the first frame of another video."""
        self._frames.clear()

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
            true_segments: true segments with `id`, `category_id`, `iscrowd` and `area`; the area
                counts, not the pixels, unless it is None.
            pred_ids: id of the predicted segment of each pixel, (H, W), 0 is void.
            pred_segments: exactly the segments in `pred_ids`, with `id` and `category_id`.

        Raises:
            ValueError: images and lists do not fit each other, or a category is unknown.
        """
        pairs = count_pairs(true_ids, pred_ids)
        true_numbers, true_classes = read_segments(true_segments, self._class_ids, 'true')
        pred_numbers, pred_classes = read_segments(pred_segments, self._class_ids, 'predicted')
        pred_areas = _areas_of(pred_numbers, pairs)
        self._frames.append(
            _FrameTable(
                pairs=pairs,
                true_ids=true_numbers,
                true_classes=true_classes,
                true_areas=_true_areas(true_segments, pairs),
                is_crowd=np.array([bool(segment['iscrowd']) for segment in true_segments], bool),
                pred_ids=pred_numbers,
                pred_classes=pred_classes,
                pred_areas=pred_areas,
            )
        )
        window = _Window(self._frames)
        for k, frame in enumerate(reversed(self._frames), start=1):
            window.add_earlier(frame)
            if k in self._sums:
                self._sums[k] += window.score(len(self._is_thing))

    def result(self) -> VpqScores:
        """Compute the scores over all frames so far."""
        quality = np.full((len(WINDOWS), len(self._is_thing)), np.nan)
        for row, sums in zip(quality, self._sums.values(), strict=True):
            iou, tp, count = _totals(sums)
            np.divide(iou, count, out=row, where=count > 0)
        iou, tp, count = _totals(self._sums[1])
        counts, zeros = count > 0, np.zeros_like(iou)
        frame_quality = np.full((3, len(self._is_thing)), np.nan)
        np.divide(iou, count, out=frame_quality[0], where=counts)
        frame_quality[1, counts] = np.divide(iou, tp, out=zeros, where=tp > 0)[counts]
        np.divide(tp, count, out=frame_quality[2], where=counts)
        return VpqScores(self._is_thing, quality, frame_quality)


@dataclass(frozen=True)
class _FrameTable:
    """Areas and segments of a frame, from which windows are summed up."""

    pairs: IdPairs
    true_ids: NDArray[np.int64]
    true_classes: NDArray[np.int64]
    true_areas: NDArray[np.float64]
    is_crowd: NDArray[np.bool_]
    pred_ids: NDArray[np.int64]
    pred_classes: NDArray[np.int64]
    pred_areas: NDArray[np.int64]


class _Window:
    """A window that grows backwards in time; row 0 is void, segments not yet in it have class -1.

    Class and crowd flag are those of the first frame that lists a segment: as the window grows
    backwards, an earlier frame overwrites them.
    """

    def __init__(self, frames: Iterable[_FrameTable]) -> None:
        """Allocate tables for all segments of some frames."""
        frames = list(frames)
        self._true_ids = np.unique(np.concatenate([[VOID], *(f.true_ids for f in frames)]))
        self._pred_ids = np.unique(np.concatenate([f.pred_ids for f in frames]))
        num_true, num_pred = len(self._true_ids), len(self._pred_ids)
        self._shared = np.zeros((num_true, num_pred), np.int64)
        self._true_areas = np.zeros(num_true)
        self._pred_areas = np.zeros(num_pred, np.int64)
        self._true_classes = np.full(num_true, -1)
        self._pred_classes = np.full(num_pred, -1)
        self._is_crowd = np.zeros(num_true, bool)
        self._places = np.zeros((num_true, 2), np.int64)
        """Rank of each true segment in the order in which the frames of the window list them:
        minus the frames that were added up to the first list that has it, and its place there."""
        self._num_frames = 0

    def add_earlier(self, frame: _FrameTable) -> None:
        """Add the frame that comes before those added so far."""
        self._num_frames += 1
        rows = np.searchsorted(self._true_ids, frame.true_ids)
        self._true_areas[rows] += frame.true_areas
        self._true_classes[rows] = frame.true_classes
        self._is_crowd[rows] = frame.is_crowd
        self._places[rows, 0] = -self._num_frames
        self._places[rows, 1] = np.arange(len(rows))
        columns = np.searchsorted(self._pred_ids, frame.pred_ids)
        self._pred_areas[columns] += frame.pred_areas
        self._pred_classes[columns] = frame.pred_classes
        # Pixels whose true id no frame lists are neither a segment nor void.
        true_ids, pred_ids, areas = frame.pairs
        counts = np.isin(true_ids, self._true_ids) & (pred_ids != VOID)
        rows = np.searchsorted(self._true_ids, true_ids[counts])
        columns = np.searchsorted(self._pred_ids, pred_ids[counts])
        self._shared[rows, columns] += areas[counts]

    def score(self, num_classes: int) -> NDArray[np.int64]:
        """Sum up IoU in units of `_UNIT`, TP, FP and FN of the window per class, (4, K) int64."""
        same_class = self._true_classes[:, None] == self._pred_classes
        rows, columns = np.nonzero(same_class & ~self._is_crowd[:, None] & (self._shared > 0))
        shared, on_void = self._shared[rows, columns], self._shared[0]
        union = self._pred_areas[columns] + self._true_areas[rows] - shared - on_void[columns]
        if (shared > union).any():
            wrong = sorted(set(self._true_ids[rows[shared > union]].tolist()))
            raise ValueError(
                f'Expected areas of true segments as large as the segments, got less for {wrong}; '
                'compute `area` from the masks.'
            )
        iou = shared / union
        matches = iou > 0.5
        rows, columns, iou = rows[matches], columns[matches], iou[matches]

        missed = (self._true_classes >= 0) & ~self._is_crowd
        missed[rows] = False
        wrong_ones = self._pred_classes >= 0
        wrong_ones[columns] = False
        ignored = on_void + self._on_crowd()
        wrong_ones &= 2 * ignored <= self._pred_areas

        classes = self._true_classes[rows]
        sums = np.zeros(num_classes, np.int64)
        np.add.at(sums, classes, (iou / _UNIT).astype(np.int64))
        return np.stack(
            [
                sums,
                np.bincount(classes, minlength=num_classes),
                np.bincount(self._pred_classes[wrong_ones], minlength=num_classes),
                np.bincount(self._true_classes[missed], minlength=num_classes),
            ]
        )

    def _on_crowd(self) -> NDArray[np.int64]:
        """Count the pixels of each predicted segment on the crowd of its class, (M,)."""
        crowds = np.flatnonzero(self._is_crowd)
        # The scorer of VIPSeg keeps one crowd per class, the last that it finds.
        crowds = crowds[np.lexsort(self._places[crowds].T[::-1])]
        crowd_of = dict(zip(self._true_classes[crowds].tolist(), crowds.tolist(), strict=True))
        on_crowd = np.zeros(len(self._pred_ids), np.int64)
        for class_id, row in crowd_of.items():
            same = self._pred_classes == class_id
            on_crowd[same] = self._shared[row, same]
        return on_crowd


def _pixels_of(ids: NDArray[np.int64], pairs: IdPairs) -> dict[int, float]:
    """Count the pixels of each id; `ids` are one side of the pairs."""
    drawn, place = np.unique(ids, return_inverse=True)
    return dict(zip(drawn.tolist(), np.bincount(place, pairs.areas).tolist(), strict=True))


def _true_areas(segments: Sequence[Mapping[str, Any]], pairs: IdPairs) -> NDArray[np.float64]:
    """List the areas of true segments: those of their list, or else their pixels."""
    areas = [segment['area'] for segment in segments]
    if None in areas:
        pixels = _pixels_of(pairs.true_ids, pairs)
        areas = [
            pixels.get(segment['id'], 0) if area is None else area
            for segment, area in zip(segments, areas, strict=True)
        ]
    return np.array(areas, np.float64)


def _areas_of(pred_ids: NDArray[np.int64], pairs: IdPairs) -> NDArray[np.int64]:
    """Count the pixels of each predicted segment; raises ValueError if list and image differ."""
    areas = _pixels_of(pairs.pred_ids, pairs)
    areas.pop(VOID, None)
    listed = set(pred_ids.tolist())
    if unlisted := sorted(areas.keys() - listed):
        raise ValueError(f'Expected every predicted id among the segments, not so {unlisted}.')
    if undrawn := sorted(listed - areas.keys()):
        raise ValueError(
            f'Expected every listed predicted segment in the image, not so {undrawn}; '
            'leave out segments without pixels.'
        )
    return np.array([areas[number] for number in pred_ids.tolist()], np.int64)


def _totals(
    sums: NDArray[np.object_],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum of IoU, TP and TP + FP / 2 + FN / 2 of each class, (K,) each."""
    iou, tp, fp, fn = sums
    return (
        (iou / (1 / _UNIT)).astype(float),
        tp.astype(float),
        (tp + fp / 2 + fn / 2).astype(float),
    )


def _mean(values: NDArray[np.float64]) -> float | None:
    return math.fsum(values.tolist()) / len(values) if len(values) else None


def _means(per_window: Sequence[float | None]) -> dict[str, float | None]:
    """Name the figures of all windows, preceded by their means."""
    by_window = dict(zip(WINDOWS, per_window, strict=True))
    figures: dict[str, float | None] = {}
    for name, windows in (('VPQ', PAPER_WINDOWS), ('VPQ_five', WINDOWS)):
        values = [value for k in windows if (value := by_window[k]) is not None]
        figures[name] = sum(values) / len(windows) if len(values) == len(windows) else None
    return figures | {f'VPQ{k}': value for k, value in by_window.items()}
