"""What a robot would have seen: the results of a VideoStream, frame by frame, as a video's result.

Each frame's result depends on the past alone. What follows only puts it into the form that a
benchmark asks for; nothing is decided again.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from videomt_ros.datasets.categories import ClassMap
from videomt_ros.evaluation.families.instance_results import (
    UNLABELLED,
    InstanceResults,
    PanopticResults,
    SemanticResults,
    TrackResult,
    VideoResults,
)
from videomt_ros.structures import Segments


class LiveInstances:
    """Each track id is one result.

    Its category is that of the class with which it was published in most frames (the latest of
    these at a tie), its score the mean of its published scores over the frames with pixels.
    """

    def __init__(self, results: InstanceResults, classes: ClassMap) -> None:
        self._results, self._category_ids = results, classes.category_ids
        self._class_counts: dict[int, Counter[int]] = {}
        self._latest: dict[tuple[int, int], int] = {}
        self._scores: dict[int, tuple[float, int]] = {}

    def add(self, index: int, segments: Segments) -> None:
        """Take the result of an annotated frame."""
        for segment in segments.segments:
            if not segment.area:
                continue
            track_id, class_id = segment.track_id, segment.class_id
            self._results.add(index, track_id, segments.mask(track_id))
            self._class_counts.setdefault(track_id, Counter())[class_id] += 1
            self._latest[track_id, class_id] = index
            total, count = self._scores.get(track_id, (0.0, 0))
            self._scores[track_id] = (total + segment.score, count + 1)

    def finish(self) -> dict[str, Any]:
        """End the video; see `InstanceResults.finish`."""
        tracks = []
        for track_id, counts in self._class_counts.items():
            class_id = max(counts, key=lambda k: (counts[k], self._latest[track_id, k]))
            category_id = self._category_ids[class_id]
            total, count = self._scores[track_id]
            if category_id is not None:
                tracks.append(TrackResult(track_id, category_id, total / count))
        return self._results.finish(tracks)


class LivePanoptic:
    """The image of track ids as it was published, and each id's category in that frame."""

    def __init__(self, results: PanopticResults, classes: ClassMap) -> None:
        self._results, self._category_ids = results, classes.category_ids

    def add(self, index: int, segments: Segments) -> None:
        """Take the result of an annotated frame."""
        ids = segments.ids
        category_ids: dict[int, int] = {}
        for segment in segments.segments:
            category_id = self._category_ids[segment.class_id]
            if category_id is not None:
                category_ids[segment.track_id] = category_id
            elif segment.area:
                ids = np.where(ids == segment.track_id, 0, ids)
        self._results.add(index, ids, category_ids)

    def finish(self) -> dict[str, Any]:
        """End the video."""
        return self._results.finish()


class LiveSemantic:
    """The category of each pixel."""

    def __init__(self, results: SemanticResults, classes: ClassMap) -> None:
        self._results = results
        table = classes.table(UNLABELLED)
        self._table = np.append(table, UNLABELLED).astype(np.uint8)  # the last: no class

    def add(self, index: int, segments: Segments) -> None:
        """Take the result of an annotated frame."""
        classes = segments.semantic().astype(np.intp)
        self._results.add(index, self._table[np.minimum(classes, len(self._table) - 1)])

    def finish(self) -> dict[str, Any]:
        """End the video."""
        return self._results.finish()


def live_video(
    results: VideoResults, classes: ClassMap
) -> LiveInstances | LivePanoptic | LiveSemantic:
    """What turns the segments of a stream into these results."""
    if isinstance(results, InstanceResults):
        return LiveInstances(results, classes)
    if isinstance(results, PanopticResults):
        return LivePanoptic(results, classes)
    return LiveSemantic(results, classes)
