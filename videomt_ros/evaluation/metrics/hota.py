"""HOTA: how well objects are found and how long they keep one track, equally weighted.

Luiten et al., HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking, IJCV 2021, in the
reading of TrackEval. For an IoU threshold alpha, with the matches of all frames as TP:

    DetA(alpha) = TP / (TP + FN + FP)
    AssA(alpha) = 1/TP * sum over TP of A(object, track)
    A(o, r)     = frames in which o and r match
                  / (frames of o + frames of r - frames in which they match)
    HOTA(alpha) = sqrt(DetA(alpha) * AssA(alpha))

and the figures are the means over alpha = 0.05, 0.10, ..., 0.95. Frames are matched so that the
sum of (alignment of the two over the whole video) * IoU is largest.

Letters: N true objects and M tracks of a sequence, A thresholds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from videomt_ros.evaluation.metrics.overlap import TrackSequence

ALPHAS = np.arange(0.05, 0.99, 0.05)
"""IoU thresholds (A,), 0.05 .. 0.95, computed as in TrackEval down to the last bit."""
_EPSILON = np.finfo(np.float64).eps


def _no_counts() -> NDArray[np.float64]:
    return np.zeros(len(ALPHAS))


@dataclass(frozen=True)
class HotaScores:
    """Sums per threshold; the sums of two sets of sequences add up."""

    num_matches: NDArray[np.float64] = field(default_factory=_no_counts)
    """TP: number of matches, summed over the frames, (A,)."""
    num_missed: NDArray[np.float64] = field(default_factory=_no_counts)
    """FN: number of true objects without a match, summed over the frames, (A,)."""
    num_false: NDArray[np.float64] = field(default_factory=_no_counts)
    """FP: number of tracks without a match, summed over the frames, (A,)."""
    association: NDArray[np.float64] = field(default_factory=_no_counts)
    """Sum over the matches of A(object, track), (A,)."""

    def __add__(self, other: HotaScores) -> HotaScores:
        return HotaScores(
            self.num_matches + other.num_matches,
            self.num_missed + other.num_missed,
            self.num_false + other.num_false,
            self.association + other.association,
        )

    def figures(self) -> dict[str, float | None]:
        """Compute HOTA, DetA and AssA, 0..1; None where there is neither object nor track."""
        count = self.num_matches + self.num_missed + self.num_false
        if not count.any():
            return {'HOTA': None, 'DetA': None, 'AssA': None}
        det_a = self.num_matches / count
        # Where nothing matches, nothing is associated: 0, as in the reference.
        ass_a = self.association / np.maximum(1, self.num_matches)
        return {
            'HOTA': float(np.sqrt(det_a * ass_a).mean()),
            'DetA': float(det_a.mean()),
            'AssA': float(ass_a.mean()),
        }


def hota(sequences: Iterable[TrackSequence]) -> HotaScores:
    """Score sequences; their counts are added up, so each detection weighs the same in any class.

    >>> from videomt_ros.evaluation.metrics.overlap import FrameOverlap
    >>> found = FrameOverlap(np.array([1]), np.array([7]), np.array([[1.0]]))
    >>> missed = FrameOverlap(np.array([1]), np.array([], int), np.zeros((1, 0)))
    >>> hota([TrackSequence('v1', 1, [found, missed])]).figures()
    {'HOTA': 0.5, 'DetA': 0.5, 'AssA': 0.5}
    """
    return sum(map(_score, sequences), HotaScores())


def _score(sequence: TrackSequence) -> HotaScores:
    num_truth, num_tracks = sequence.truth_frames.sum(), sequence.track_frames.sum()
    frames_of_both = sequence.truth_frames[:, None] + sequence.track_frames  # (N, M)
    alignment = _alignment(sequence, frames_of_both)
    matches = np.zeros((len(ALPHAS), *alignment.shape))  # (A, N, M)
    for _, rows, columns, iou in sequence.pairs:
        pairs = linear_sum_assignment(-alignment[rows[:, None], columns] * iou)
        is_match = iou[pairs] >= ALPHAS[:, None] - _EPSILON
        matches[:, rows[pairs[0]], columns[pairs[1]]] += is_match
    num_matches = matches.sum(axis=(1, 2))
    shares = matches / np.maximum(1, frames_of_both - matches)
    return HotaScores(
        num_matches=num_matches,
        num_missed=num_truth - num_matches,
        num_false=num_tracks - num_matches,
        association=(matches * shares).sum(axis=(1, 2)),
    )


def _alignment(sequence: TrackSequence, frames_of_both: NDArray[np.int64]) -> NDArray[np.float64]:
    """Measure how well each object fits each track over the video, before matching, (N, M)."""
    potential = np.zeros(frames_of_both.shape)
    for _, rows, columns, iou in sequence.pairs:
        rivals = iou.sum(axis=0) + iou.sum(axis=1)[:, None] - iou
        share = np.zeros_like(iou)
        np.divide(iou, rivals, out=share, where=rivals > _EPSILON)
        potential[rows[:, None], columns] += share
    return potential / (frames_of_both - potential)
