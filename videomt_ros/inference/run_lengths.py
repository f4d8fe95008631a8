"""Masks of an image of ids as the run-length codes of COCO, all in one pass.

A code counts pixels along the columns, background and mask in turns. From the fourth on, a count
is written as its difference from the one before the last, five bits per character, lowest first,
from '0' on; 32 says that more follow, and 16 in the last is the sign (cocoapi, `maskApi.c`).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_LIMITS = 1 << np.arange(4, 32, 5)
"""Magnitudes from which a number has 2, 3, 4, ... characters."""


def encode_masks(ids: NDArray[np.uint16]) -> dict[int, str]:
    """Encode every track of an image in one pass over its pixels.

    The result equals that of `pycocotools.mask.encode` on each mask, byte by byte, which would
    read the whole image once per track.

    Args:
        ids: track id of each pixel, (H, W); 0 is nothing.

    Returns:
        COCO's compressed run-length encoding of each id in the image.
    """
    # COCO counts along columns; OpenCV transposes several times faster than numpy.
    column_major = cv2.transpose(ids).reshape(-1)
    starts = np.flatnonzero(column_major[1:] != column_major[:-1]) + 1
    starts = np.concatenate(([0], starts))
    ends = np.concatenate((starts[1:], [column_major.size]))
    values = column_major[starts]
    # A stable sort keeps each id's runs in the order of the pixels; the background's are first.
    order = np.argsort(values, kind='stable')
    order = order[np.count_nonzero(values == 0) :]
    values, starts, ends = values[order], starts[order], ends[order]
    if not len(values):
        return {}
    firsts = np.concatenate(([0], np.flatnonzero(values[1:] != values[:-1]) + 1))
    track_ids = values[firsts].tolist()

    # The borders alternate: background|track|background|... Their differences are the counts,
    # which begin with background (0 if the track has the first pixel) and omit a final 0.
    borders = np.stack((starts, ends), axis=1).reshape(-1)
    stops = np.append(2 * firsts[1:], len(borders))
    is_open = borders[stops - 1] != column_major.size
    borders = np.insert(borders, stops[is_open], column_major.size)
    stops += np.cumsum(is_open)
    firsts = np.concatenate(([0], stops[:-1]))
    counts = np.diff(borders, prepend=0)
    counts[firsts] = borders[firsts]
    numbers = counts.copy()
    numbers[2:] -= counts[:-2]
    for place in range(3):
        heads = (firsts + place)[firsts + place < stops]
        numbers[heads] = counts[heads]
    text, places = _write(numbers)
    edges = places[firsts].tolist() + [len(text)]
    return {
        track_id: text[start:stop]
        for track_id, start, stop in zip(track_ids, edges[:-1], edges[1:], strict=True)
    }


def _write(numbers: NDArray[np.int64]) -> tuple[str, NDArray[np.int64]]:
    """Write numbers one after the other.

    Returns:
        The text, and the place of each number in it.
    """
    magnitudes = np.where(numbers < 0, ~numbers, numbers)
    lengths = np.searchsorted(_LIMITS, magnitudes, 'right') + 1
    ends = np.cumsum(lengths)
    places = ends - lengths
    characters = np.empty(ends[-1], np.uint8)
    chosen = np.arange(len(numbers))
    for digit in range(int(lengths.max())):
        chosen = chosen[lengths[chosen] > digit]
        bits = numbers[chosen] >> 5 * digit & 31 | (lengths[chosen] > digit + 1) << 5
        characters[places[chosen] + digit] = bits + 48
    return characters.tobytes().decode('ascii'), places
