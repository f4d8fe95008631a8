"""Masks of a frame as the run-length codes of COCO, all in one pass.

A code counts pixels along the columns, background and mask in turns. From the fourth on, a count
is written as its difference from the one before the last, five bits per character, lowest first,
from '0' on; 32 says that more follow, and 16 in the last is the sign (cocoapi, `maskApi.c`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from videomt_ros.inference.scratch import own_scratch
from videomt_ros.structures import Segments

_LIMITS = 1 << np.arange(4, 32, 5)
"""Magnitudes from which a number has 2, 3, 4, ... characters."""
_BOX_PIXELS = 32768
"""Number of pixels of a whole image that take as long as the work on a box, however small."""


def encode_segments(segments: Segments) -> dict[int, str]:
    """Encode every segment that has pixels, in one pass over their boxes.

    Returns:
        COCO's compressed run-length encoding of each id in the image, as `encode_masks` does.
    """
    ids = segments.ids
    boxes = {segment.track_id: segment.box for segment in segments.segments if segment.area}
    work = sum((x1 - x0) * (y1 - y0) + _BOX_PIXELS for x0, y0, x1, y1 in boxes.values())
    if not boxes or work > ids.size:
        return encode_masks(ids)
    found = _boxed_borders(ids, boxes)
    return encode_masks(ids) if found is None else _encode(*found, ids.size)


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
    borders = np.stack((starts, ends), axis=1).reshape(-1)
    return _encode(values[firsts].tolist(), borders, 2 * firsts, ids.size)


def _boxed_borders(
    ids: NDArray[np.uint16], boxes: Mapping[int, tuple[int, int, int, int]]
) -> tuple[list[int], NDArray[np.int64], NDArray[np.int64]] | None:
    """Find the borders of the runs of each id in its box.

    Returns:
        The ids, and their borders as `_encode` takes them; None if an id has no pixel in its box,
        or if not all pixels of the image are in the box of their id.
    """
    # Each column in a row of its own, which ends with a 0, so that every run ends within it.
    sizes = [(x1 - x0) * (y1 - y0 + 1) for x0, y0, x1, y1 in boxes.values()]
    offsets = np.cumsum([0, *sizes])
    flat = own_scratch().array('runs', (int(offsets[-1]) + 1,), np.uint8)
    flat[0] = 0
    for (track_id, (x0, y0, x1, y1)), (start, stop) in zip(
        boxes.items(), pairwise(offsets.tolist()), strict=True
    ):
        columns = flat[start + 1 : stop + 1].reshape(x1 - x0, y1 - y0 + 1)
        columns[:, -1] = 0
        mask = (ids[y0:y1, x0:x1] == track_id).view(np.uint8)
        cv2.transpose(mask, columns[:, :-1])
    places = np.flatnonzero(flat[1:] != flat[:-1])
    firsts = np.searchsorted(places, offsets)
    counts = np.diff(firsts)
    if (counts == 0).any():
        return None
    left, top, _, bottom = np.array(list(boxes.values())).T
    height, number = ids.shape[0], np.repeat(np.arange(len(boxes)), counts)
    places -= offsets[number]
    column = places.astype(np.int32) // (bottom - top + 1).astype(np.int32)[number]
    borders = places + column * (height - (bottom - top + 1))[number]
    borders += (left * height + top)[number]
    if np.sum(borders[1::2] - borders[::2]) != cv2.countNonZero(ids):
        return None
    # Where a run ends at the bottom and the next one begins at the top they are one.
    meet = np.flatnonzero(borders[1:-1:2] == borders[2::2]) * 2 + 1
    meet = meet[np.isin(meet + 1, firsts, invert=True)]
    if len(meet):
        gone = np.sort(np.append(meet, meet + 1))
        borders = np.delete(borders, gone)
        firsts = firsts - np.searchsorted(gone, firsts)
    return list(boxes), borders, firsts[:-1]


def _encode(
    track_ids: list[int], borders: NDArray[np.int64], firsts: NDArray[np.int64], size: int
) -> dict[int, str]:
    """Encode the runs of masks.

    Args:
        track_ids: ids of the masks.
        borders: first pixel of each run and the one after its last, along the columns, one mask
            after the other.
        firsts: place of the first border of each mask.
        size: number of pixels of the image.
    """
    # The borders alternate: background|track|background|... Their differences are the counts,
    # which begin with background (0 if the track has the first pixel) and omit a final 0.
    stops = np.append(firsts[1:], len(borders))
    is_open = borders[stops - 1] != size
    borders = np.insert(borders, stops[is_open], size)
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
        for track_id, (start, stop) in zip(track_ids, pairwise(edges), strict=True)
    }


def _write(numbers: NDArray[np.int64]) -> tuple[str, NDArray[np.int64]]:
    """Write numbers one after the other.

    Returns:
        The text, and the place of each number in it.
    """
    magnitudes = np.where(numbers < 0, ~numbers, numbers)
    lengths = np.ones(len(numbers), np.int64)
    for limit in _LIMITS[magnitudes.max() >= _LIMITS]:
        lengths += magnitudes >= limit
    ends = np.cumsum(lengths)
    places = ends - lengths
    characters = np.empty(ends[-1], np.uint8)
    chosen = np.arange(len(numbers))
    for digit in range(int(lengths.max())):
        chosen = chosen[lengths[chosen] > digit]
        bits = numbers[chosen] >> 5 * digit & 31 | (lengths[chosen] > digit + 1) << 5
        characters[places[chosen] + digit] = bits + 48
    return characters.tobytes().decode('ascii'), places
