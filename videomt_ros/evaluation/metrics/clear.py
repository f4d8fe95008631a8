"""CLEAR MOT: identity switches, fragmentations, and objects that are mostly tracked or lost.

Bernardin and Stiefelhagen, Evaluating Multiple Object Tracking Performance: The CLEAR MOT Metrics,
EURASIP Journal on Image and Video Processing 2008, in the reading of TrackEval: in each frame
objects and tracks with IoU >= 1/2 are matched one to one, first so that as many pairs as possible
go on from the frame before, then by the largest sum of IoU.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from videomt_ros.evaluation.metrics.overlap import TrackSequence

THRESHOLD = 0.5
"""Lowest IoU of a match."""
MOSTLY_TRACKED, MOSTLY_LOST = 0.8, 0.2
"""An object is mostly tracked in more, mostly lost in less than this share of its frames."""
_GOES_ON = 1000.0
"""Weight of a pair that goes on from the frame before, far above any sum of IoU."""
_EPSILON = np.finfo(np.float64).eps
_NONE = -1
"""Stands for no track where the place of a track is expected."""


class Switch(NamedTuple):
    """An object that is found under another track than when it was last found."""

    video_id: int | str
    category_id: int
    frame: int
    """Number of the frame, from 0."""
    truth_id: int
    old_track_id: int
    new_track_id: int


@dataclass(frozen=True)
class ClearScores:
    """Counts; those of two sets of sequences add up."""

    num_matches: int = 0
    """TP: number of matched pairs, summed over the frames."""
    num_missed: int = 0
    """FN: number of true objects without a match, summed over the frames."""
    num_false: int = 0
    """FP: number of tracks without a match, summed over the frames."""
    num_fragments: int = 0
    """Number of times that an object is found again after frames in which it was not found. Frames
    in which it is out of view are such frames; those in which its class has no object or no track
    at all are not."""
    num_mostly_tracked: int = 0
    """Number of objects that are found in more than MOSTLY_TRACKED of their frames."""
    num_mostly_lost: int = 0
    """Number of objects that are found in less than MOSTLY_LOST of their frames."""
    num_merges: int = 0
    """Number of times that a track goes on with another object after frames in which it matched
    none: two objects under one id. It is counted in the same matches, but no figure of CLEAR MOT.
    """
    switches: tuple[Switch, ...] = ()
    """All identity switches, sequence by sequence and frame by frame."""

    def __add__(self, other: ClearScores) -> ClearScores:
        return ClearScores(
            self.num_matches + other.num_matches,
            self.num_missed + other.num_missed,
            self.num_false + other.num_false,
            self.num_fragments + other.num_fragments,
            self.num_mostly_tracked + other.num_mostly_tracked,
            self.num_mostly_lost + other.num_mostly_lost,
            self.num_merges + other.num_merges,
            self.switches + other.switches,
        )

    def figures(self) -> dict[str, float | None]:
        """Return the whole numbers IDSW, Frag, MT and ML."""
        return {
            'IDSW': len(self.switches),
            'Frag': self.num_fragments,
            'MT': self.num_mostly_tracked,
            'ML': self.num_mostly_lost,
        }


def clear(sequences: Iterable[TrackSequence]) -> ClearScores:
    """Score sequences; their counts are added up.

    >>> from videomt_ros.evaluation.metrics.overlap import FrameOverlap
    >>> one, overlap = np.array([1]), np.array([[0.9]])
    >>> frames = [FrameOverlap(one, np.array([track]), overlap) for track in (7, 7, 8)]
    >>> scores = clear([TrackSequence('v1', 1, frames)])
    >>> scores.figures()
    {'IDSW': 1, 'Frag': 0, 'MT': 1, 'ML': 0}
    >>> tuple(scores.switches[0])
    ('v1', 1, 2, 1, 7, 8)
    """
    return sum(map(_score, sequences), ClearScores())


def _score(sequence: TrackSequence) -> ClearScores:
    found_frames = np.zeros_like(sequence.truth_frames)
    starts = np.zeros_like(found_frames)
    last = np.full(len(found_frames), _NONE)
    # `last` is the track of each object when it was found last, `before` in the frame before.
    before = last.copy()
    switches = []
    # The object of each track when it was last matched, and the number of that frame.
    shown = np.full(len(sequence.track_ids), _NONE)
    shown_frames = np.zeros(len(shown), np.int64)
    num_merges = 0
    # As in TrackEval, pairs go on across a frame in which nothing can match.
    for t, rows, columns, iou in sequence.pairs:
        places, partners = _match(iou, before[rows][:, None] == columns)
        objects, tracks = rows[places], columns[partners]
        for row, column in zip(objects.tolist(), tracks.tolist(), strict=True):
            if last[row] not in (_NONE, column):
                switches.append(
                    Switch(
                        sequence.video_id,
                        sequence.category_id,
                        t,
                        int(sequence.truth_ids[row]),
                        int(sequence.track_ids[last[row]]),
                        int(sequence.track_ids[column]),
                    )
                )
        is_other = (shown[tracks] != _NONE) & (shown[tracks] != objects)
        num_merges += int((is_other & (t - shown_frames[tracks] > 1)).sum())
        shown[tracks], shown_frames[tracks] = objects, t
        found_frames[objects] += 1
        starts[objects] += before[objects] == _NONE
        last[objects] = tracks
        before[:] = _NONE
        before[objects] = tracks
    num_matches = int(found_frames.sum())
    share = found_frames / sequence.truth_frames
    return ClearScores(
        num_matches=num_matches,
        num_missed=int(sequence.truth_frames.sum()) - num_matches,
        num_false=int(sequence.track_frames.sum()) - num_matches,
        num_fragments=int(np.maximum(starts - 1, 0).sum()),
        num_mostly_tracked=int((share > MOSTLY_TRACKED).sum()),
        num_mostly_lost=int((share < MOSTLY_LOST).sum()),
        num_merges=num_merges,
        switches=tuple(switches),
    )


def _match(
    iou: NDArray[np.float64], goes_on: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Match the objects and tracks of a frame; returns the places of both for each pair."""
    allowed = iou >= THRESHOLD - _EPSILON
    weight = np.where(allowed, _GOES_ON * goes_on + iou, 0)
    places, partners = linear_sum_assignment(-weight)
    chosen = allowed[places, partners]
    return places[chosen], partners[chosen]
