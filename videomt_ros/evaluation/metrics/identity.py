"""IDF1: share of the detections that carry the one track id that fits their object best.

Ristani et al., Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking, ECCV
workshops 2016. Each object of a video gets at most one track and each track at most one object, so
that they agree (IoU >= 1/2) in as many frames as possible; these frames are IDTP:

    IDF1 = IDTP / (IDTP + IDFP / 2 + IDFN / 2)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from videomt_ros.evaluation.metrics.overlap import TrackSequence

THRESHOLD = 0.5
"""Lowest IoU with which object and track agree in a frame."""


@dataclass(frozen=True)
class IdentityScores:
    """Counts of detections, summed over the frames; those of two sets of sequences add up."""

    num_agreed: int = 0
    """IDTP: number of frames in which an object agrees with its own track."""
    num_missed: int = 0
    """IDFN: number of true objects whose own track is not there."""
    num_false: int = 0
    """IDFP: number of tracks whose own object is not there."""

    def __add__(self, other: IdentityScores) -> IdentityScores:
        return IdentityScores(
            self.num_agreed + other.num_agreed,
            self.num_missed + other.num_missed,
            self.num_false + other.num_false,
        )

    def figures(self) -> dict[str, float | None]:
        """Compute IDF1, 0..1; None where there is neither object nor track."""
        count = self.num_agreed + self.num_missed / 2 + self.num_false / 2
        return {'IDF1': self.num_agreed / count if count else None}


def identity(sequences: Iterable[TrackSequence]) -> IdentityScores:
    """Score sequences; their counts are added up.

    >>> from videomt_ros.evaluation.metrics.overlap import FrameOverlap
    >>> found = FrameOverlap(np.array([1]), np.array([7]), np.array([[0.5]]))
    >>> missed = FrameOverlap(np.array([1]), np.array([], int), np.zeros((1, 0)))
    >>> identity([TrackSequence('v1', 1, [found, missed])]).figures()  # 1 / (1 + 1/2)
    {'IDF1': 0.6666666666666666}
    """
    return sum(map(_score, sequences), IdentityScores())


def _score(sequence: TrackSequence) -> IdentityScores:
    agreed = np.zeros((len(sequence.truth_ids), len(sequence.track_ids)), np.int64)
    for _, rows, columns, iou in sequence.pairs:
        agreed[rows[:, None], columns] += iou >= THRESHOLD
    num_agreed = int(agreed[linear_sum_assignment(agreed, maximize=True)].sum())
    return IdentityScores(
        num_agreed,
        int(sequence.truth_frames.sum()) - num_agreed,
        int(sequence.track_frames.sum()) - num_agreed,
    )
