"""Sequences that the tests of the tracking metrics share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from videomt_ros.evaluation.metrics.overlap import FrameOverlap, TrackSequence


def frame(
    truth: Sequence[int], tracks: Sequence[int], iou: Mapping[tuple[int, int], float]
) -> FrameOverlap:
    """Build a frame of these ids; pairs that are not named do not overlap."""
    table = [[float(iou.get((one, other), 0)) for other in tracks] for one in truth]
    return FrameOverlap(
        np.array(truth, np.int64),
        np.array(tracks, np.int64),
        np.array(table).reshape(len(truth), len(tracks)),
    )


def sequence(*frames: FrameOverlap, video_id: int | str = 'v1') -> TrackSequence:
    return TrackSequence(video_id, 3, frames)


def random_sequences(
    seed: int, count: int, most: int = 5, ties: bool = True
) -> Iterator[TrackSequence]:
    """Draw sequences of up to 12 frames and up to `most` objects and tracks, some of them empty.

    Args:
        seed: decides all.
        count: how many.
        most: objects, and tracks.
        ties: IoU partly from a few values, thresholds among them.
    """
    generator = np.random.default_rng(seed)
    for number in range(count):
        ids = [generator.permutation(50)[: generator.integers(0, most + 1)] for _ in range(2)]
        shares = generator.choice([0, 0.3, 0.7, 1], 2)
        frames = []
        for _ in range(generator.integers(1, 13)):
            truth, tracks = (
                side[generator.random(len(side)) < share]
                for side, share in zip(ids, shares, strict=True)
            )
            shape = len(truth), len(tracks)
            iou = generator.random(shape)
            if ties and number % 2:
                iou = generator.choice([0, 0.35, 0.5, 0.6, 0.75, 1], shape)
            frames.append(
                FrameOverlap(truth, tracks, np.where(generator.random(shape) < 0.6, iou, 0))
            )
        yield TrackSequence(number, 1, frames)


def matchings(num_truth: int, num_tracks: int) -> Iterator[list[tuple[int, int]]]:
    """Yield all ways to pair rows and columns one to one, with as many pairs as possible."""
    if num_truth <= num_tracks:
        for columns in itertools.permutations(range(num_tracks), num_truth):
            yield list(enumerate(columns))
    else:
        for rows in itertools.permutations(range(num_truth), num_tracks):
            yield [(row, column) for column, row in enumerate(rows)]


def trackeval_data(one: TrackSequence) -> dict:
    """Convert a sequence to the form that TrackEval's metrics take."""
    rows, columns = (
        [np.searchsorted(ids, getattr(f, name)) for f in one.frames]
        for ids, name in ((one.truth_ids, 'truth_ids'), (one.track_ids, 'track_ids'))
    )
    return {
        'num_timesteps': len(one.frames),
        'num_gt_ids': len(one.truth_ids),
        'num_tracker_ids': len(one.track_ids),
        'num_gt_dets': sum(map(len, rows)),
        'num_tracker_dets': sum(map(len, columns)),
        'gt_ids': rows,
        'tracker_ids': columns,
        'similarity_scores': [f.iou for f in one.frames],
    }
