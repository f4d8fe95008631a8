"""Pairs of true and predicted ids in an image: all that pixel metrics need to know of a frame.

Letters: H W image size in pixels, P pairs of ids, N segments of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class IdPairs(NamedTuple):
    """Every pair (true id, predicted id) that some pixel of a frame has, rising."""

    true_ids: NDArray[np.int64]
    """True id of each pair, (P,)."""
    pred_ids: NDArray[np.int64]
    """Predicted id of each pair, (P,)."""
    areas: NDArray[np.int64]
    """Number of pixels of each pair, (P,), above 0."""


def count_pairs(true_ids: NDArray[Any], pred_ids: NDArray[Any]) -> IdPairs:
    """Count the pixels of every pair of ids.

    Segments are mostly wide, so runs of equal pixels along the rows are counted, and only one
    value of each run is sorted.

    >>> count_pairs(np.array([[7, 7, 0]], np.uint8), np.array([[2, 2, 2]], np.uint8))
    IdPairs(true_ids=array([0, 7]), pred_ids=array([2, 2]), areas=array([1, 2]))

    Args:
        true_ids: true id of each pixel, (H, W), unsigned of at most 32 bits.
        pred_ids: predicted id of each pixel, (H, W), unsigned of at most 32 bits.

    Raises:
        ValueError: the arrays are no images, empty, of different size or of another type.
    """
    if true_ids.shape != pred_ids.shape or true_ids.ndim != 2 or not true_ids.size:
        raise ValueError(
            'Expected true and predicted image of one size (H, W), '
            f'got {true_ids.shape} and {pred_ids.shape}.'
        )
    for image in (true_ids, pred_ids):
        if image.dtype.kind != 'u' or image.itemsize > 4:
            raise ValueError(
                f'Expected ids as unsigned integers of at most 32 bits, got {image.dtype}.'
            )
    true_flat, pred_flat = true_ids.reshape(-1), pred_ids.reshape(-1)
    begins = np.ones(true_flat.size, bool)
    np.not_equal(true_flat[1:], true_flat[:-1], out=begins[1:])
    begins[1:] |= pred_flat[1:] != pred_flat[:-1]
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=true_flat.size)
    keys = true_flat[starts].astype(np.uint64) << np.uint64(32) | pred_flat[starts]
    pairs, pair_of_run = np.unique(keys, return_inverse=True)
    return IdPairs(
        (pairs >> np.uint64(32)).astype(np.int64),
        (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64),
        np.bincount(pair_of_run, lengths).astype(np.int64),
    )


def read_segments(
    segments: Sequence[Mapping[str, Any]], class_ids: Mapping[int, int], side: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Read ids and classes of the segments that a file lists for one frame.

    Args:
        segments: segments with `id` and `category_id`.
        class_ids: class 0..K-1 of each category id.
        side: 'true' or 'predicted', for the errors.

    Returns:
        Ids and classes, both (N,), in the order of the list.

    Raises:
        ValueError: an id is below 1 or comes twice, or a category is unknown.
    """
    ids = [segment['id'] for segment in segments]
    categories = [segment['category_id'] for segment in segments]
    if unknown := sorted(set(categories) - set(class_ids)):
        raise ValueError(
            f'Expected {side} segments of the categories of the truth, got category {unknown}; '
            'list it there, or leave these segments out.'
        )
    if len(set(ids)) < len(ids):
        twice = sorted({one for one in ids if ids.count(one) > 1})
        raise ValueError(f'Expected each {side} segment once in a frame, got id {twice} twice.')
    if min(ids, default=1) < 1:
        raise ValueError(
            f'Expected ids of {side} segments from 1 (0 stands for void), got {min(ids)}.'
        )
    return (
        np.array(ids, np.int64),
        np.array([class_ids[category] for category in categories], np.int64),
    )
