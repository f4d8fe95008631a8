"""The figures of `ap.py` computed pair by pair and result by result, in the most obvious way.

The public YouTube-VIS scorer proceeds like this: it compares every result with every true object
of its category, frame by frame, by merging their run-length codes. `videomt benchmark score`
times this beside `ap.py`, and the tests compare the two; so nothing is shared with `ap.py`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from pycocotools import mask as coco_mask

from videomt_ros.datasets.rle import MaskTrack

_THRESHOLDS = np.linspace(0.5, 0.95, 10).tolist()
_LEVELS = np.linspace(0, 1, 101).tolist()
_RANGES = {'': (0, 1e10), 's': (0, 128**2), 'm': (128**2, 256**2), 'l': (256**2, 1e10)}

VideoTracks = tuple['int | str', Sequence[MaskTrack], Sequence[MaskTrack]]
"""Id, true objects and results of a video."""


@dataclass
class _Group:
    """Objects and results of one category in one video."""

    truth: list[MaskTrack]
    truth_areas: list[float]
    results: list[MaskTrack]
    """Results with the 100 highest scores, by falling score."""
    result_areas: list[float]
    iou: list[list[float]]
    """IoU of each result with each true object."""


def plain_figures(
    category_ids: Iterable[int], videos: Iterable[VideoTracks]
) -> dict[str, float | None]:
    """Compute AP, AP50, AP75, APs, APm, APl, AR1, AR10 and AR100, as `ap.VideoAP` does.

    Args:
        category_ids: categories that are scored.
        videos: videos, each once; tracks of other categories have no effect.
    """
    ordered = sorted(videos, key=lambda video: video[0])
    groups = [
        [_group(truth, results, category) for _, truth, results in ordered]
        for category in category_ids
    ]
    precision: dict[tuple[str, float], list[float]] = {
        (name, threshold): [] for name in _RANGES for threshold in _THRESHOLDS
    }
    recall: dict[int, list[float]] = {limit: [] for limit in (1, 10, 100)}
    for (name, sizes), of_category in product(_RANGES.items(), groups):
        num_objects = sum(sum(_counting(group, sizes)) for group in of_category)
        if not num_objects:
            continue
        for threshold in _THRESHOLDS:
            outcomes = [_outcomes(group, threshold, sizes) for group in of_category]
            precision[name, threshold] += _curve(outcomes, num_objects)
            for limit in () if name else recall:
                recall[limit].append(_recall(outcomes, limit, num_objects))
    figures = {'AP': _mean([precision['', threshold] for threshold in _THRESHOLDS])}
    figures['AP50'] = _mean([precision['', _THRESHOLDS[0]]])
    figures['AP75'] = _mean([precision['', _THRESHOLDS[5]]])
    for size in 'sml':
        figures[f'AP{size}'] = _mean([precision[size, threshold] for threshold in _THRESHOLDS])
    for limit in (1, 10, 100):
        figures[f'AR{limit}'] = _mean([recall[limit]])
    return figures


def plain_iou(result: MaskTrack, truth: MaskTrack) -> float:
    """Compute the volume IoU of one pair."""
    shared = union = 0
    for first, second in zip(result.masks, truth.masks, strict=True):
        if first is not None and second is not None:
            shared += int(coco_mask.area(coco_mask.merge([first, second], True)))
            union += int(coco_mask.area(coco_mask.merge([first, second], False)))
        elif first is not None or second is not None:
            union += int(coco_mask.area(second if first is None else first))
    return shared / union if union else 0.0


def _group(truth: Iterable[MaskTrack], results: Iterable[MaskTrack], category: int) -> _Group:
    objects = [track for track in truth if track.category_id == category]
    found = [track for track in results if track.category_id == category]
    found = sorted(found, key=lambda track: -track.score)[:100]
    return _Group(
        objects,
        [
            _mean_area(_mask_areas(track) if track.areas is None else track.areas)
            for track in objects
        ],
        found,
        [_mean_area(_mask_areas(track)) for track in found],
        [[plain_iou(result, true) for true in objects] for result in found],
    )


def _mask_areas(track: MaskTrack) -> list[float]:
    return [0 if mask is None else int(coco_mask.area(mask)) for mask in track.masks]


def _mean_area(areas: Iterable[float | None]) -> float:
    present = [area for area in areas if area]
    return sum(present) / len(present) if present else 0


def _outcomes(
    group: _Group, threshold: float, sizes: tuple[float, float]
) -> list[tuple[float, bool | None]]:
    """Match the results of one video one after the other.

    Returns:
        The score of each result, and whether it is right; None: it does not count.
    """
    counts = _counting(group, sizes)
    taken: set[int] = set()
    outcomes: list[tuple[float, bool | None]] = []
    for result, area, iou in zip(group.results, group.result_areas, group.iou, strict=True):
        chosen = None
        for wanted in (True, False):  # objects that count come first
            highest = min(threshold, 1 - 1e-10)
            for index, value in enumerate(iou):
                is_free = index not in taken or group.truth[index].is_crowd
                if counts[index] == wanted and is_free and value >= highest:
                    chosen, highest = index, value
            if chosen is not None:
                break
        if chosen is not None:
            taken.add(chosen)
            outcomes.append((result.score, True if counts[chosen] else None))
        else:
            outcomes.append((result.score, False if sizes[0] <= area <= sizes[1] else None))
    return outcomes


def _counting(group: _Group, sizes: tuple[float, float]) -> list[bool]:
    """Tell which true objects count."""
    return [
        not track.is_crowd and sizes[0] <= area <= sizes[1]
        for track, area in zip(group.truth, group.truth_areas, strict=True)
    ]


def _recall(
    outcomes: Iterable[Sequence[tuple[float, bool | None]]], limit: int, num_objects: int
) -> float:
    """Compute the recall of the first `limit` results of each video."""
    firsts = [outcome for video in outcomes for outcome in video[:limit]]
    return sum(is_right is True for _, is_right in firsts) / num_objects


def _curve(
    videos_outcomes: Iterable[Iterable[tuple[float, bool | None]]], num_objects: int
) -> list[float]:
    """Compute the precision at the recall levels."""
    pooled = [outcome for video in videos_outcomes for outcome in video if outcome[1] is not None]
    pooled.sort(key=lambda outcome: -outcome[0])
    num_right = 0
    recall, precision = [], []  # after each result
    for rank, (_, is_right) in enumerate(pooled, start=1):
        num_right += bool(is_right)
        recall.append(num_right / num_objects)
        precision.append(num_right / rank)
    for index in reversed(range(len(pooled) - 1)):
        precision[index] = max(precision[index], precision[index + 1])
    precision.append(0.0)  # for recalls that are never reached
    return [precision[bisect_left(recall, level)] for level in _LEVELS]


def _mean(values: Iterable[Iterable[float]]) -> float | None:
    flat = [value for row in values for value in row]
    return sum(flat) / len(flat) if flat else None
