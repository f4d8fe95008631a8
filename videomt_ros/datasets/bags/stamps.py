"""Annotated frames and images of a bag, brought together by their stamps.

An image belongs to the annotated frame whose stamp is nearest, if that is no farther than half
the median period of the truth; of several images of one annotated frame the nearest is its image.
The order of the images does not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def match_stamps(
    truth_ns: Sequence[int], stamps_ns: Sequence[int], tolerance_ns: int
) -> list[int | None]:
    """Find the image of each annotated frame.

    Args:
        truth_ns: T stamps of the annotated frames, rising.
        stamps_ns: N stamps of images, in any order.
        tolerance_ns: largest distance, allowed itself.

    Returns:
        For each annotated frame the number of its image, or None. No image serves two. Where two
        are equally near, the earlier stamp wins, and of equal stamps the first image.

    >>> match_stamps([100, 200, 300], [98, 206, 204, 350], tolerance_ns=50)
    [0, 2, 3]
    """
    matches: list[int | None] = [None] * len(truth_ns)
    if not len(truth_ns) or not len(stamps_ns):
        return matches
    # Whole numbers throughout: nanoseconds since 1970 are more than a float can hold.
    truth = np.asarray(truth_ns, np.int64)
    stamps = np.asarray(stamps_ns, np.int64)
    after = np.clip(np.searchsorted(truth, stamps), 1, max(1, len(truth) - 1))
    after = np.minimum(after, len(truth) - 1)
    before = np.maximum(after - 1, 0)
    is_after = np.abs(truth[after] - stamps) < np.abs(truth[before] - stamps)
    nearest = np.where(is_after, after, before)
    distances = np.abs(truth[nearest] - stamps)
    for number in np.lexsort((stamps, distances)).tolist():
        frame = int(nearest[number])
        if distances[number] <= tolerance_ns and matches[frame] is None:
            matches[frame] = number
    return matches


def half_period(stamps_ns: Sequence[int]) -> int:
    """Half the median distance of neighbouring stamps, in nanoseconds; 0 for fewer than two.

    >>> half_period([0, 100, 200, 900])
    50
    """
    if len(stamps_ns) < 2:
        return 0
    return int(np.median(np.diff(np.sort(np.asarray(stamps_ns, np.int64))))) // 2


def in_words(stamps_ns: Sequence[int]) -> str:
    """The range of some stamps, for a person."""
    if not len(stamps_ns):
        return 'none'
    first, last = min(stamps_ns), max(stamps_ns)
    return f'{_seconds(first)} to {_seconds(last)} s'


def _seconds(stamp_ns: int) -> str:
    return f'{stamp_ns // 10**9}.{stamp_ns % 10**9:09d}'
