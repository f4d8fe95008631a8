"""Strings of COCO run-length codes: their pixels, counted and checked with numpy alone.

A string (cocoapi, `maskApi.c`) holds each run as five bits per character, lowest first, from '0'
on; 32 says that more follow, 16 in the last is the sign; from the fourth run on it is the
difference to the run two before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

_Runs = TypeVar('_Runs', np.uint32, np.int64)

_MAX_CHARACTERS = 7
"""Characters of one run: they hold 35 bits with the sign, more than any number of pixels."""


class Counts(NamedTuple):
    """What `count_pixels` has found in some strings."""

    sums: list[int]
    """Pixels, of object and background, that each string describes; -1: it is damaged."""
    areas: NDArray[np.int64]
    """Pixels of the object alone."""
    rewritten: dict[int, bytes] = {}
    """Strings without the empty runs that they had between others, by position."""


def count_pixels(strings: Sequence[bytes]) -> Counts:
    """Count the pixels of many strings at once."""
    return _count_sound(strings) or _count_any(strings)


def without_empty(runs: NDArray[_Runs]) -> NDArray[_Runs]:
    """Join the neighbours of empty runs, which leaves the mask as it is.

    pycocotools stops comparing two masks where both have an empty run.
    """
    if runs[1:].all():
        return runs
    is_object = np.arange(len(runs)) % 2 == 1
    filled = np.flatnonzero(runs)
    colours = is_object[filled]
    starts = np.flatnonzero(np.append(True, colours[1:] != colours[:-1]))
    joined = np.add.reduceat(runs[filled], starts, dtype=runs.dtype)
    return np.append(np.zeros(1, runs.dtype), joined) if colours[0] else joined


def _count_sound(strings: Sequence[bytes]) -> Counts | None:
    """Count as `_count_any`, in a third of its time; None if a string may be unusual."""
    lengths = np.array([len(string) for string in strings], np.int64)
    if not lengths.all() or not strings:
        return None
    digits = np.frombuffer(b''.join(strings), np.uint8) - np.uint8(48)  # (C,), wraps below '0'
    is_more = digits > 31
    stops = lengths.cumsum()
    if digits.max() > 63 or is_more[stops - 1].any():
        return None
    # Nearly all values have one digit, so the others are put together apart from them.
    values = (digits[~is_more] ^ np.uint8(16)).astype(np.int32)  # (V,)
    values -= 16
    more = np.flatnonzero(is_more)
    if more.size:
        order = np.arange(len(more))
        owner = more - order
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        sizes = np.diff(starts, append=len(more))
        if sizes.max() > 5:  # longer than the 30 bits of six digits
            return None
        low = (digits[more] & 31).astype(np.int32) << 5 * (order - np.repeat(starts, sizes))
        long = owner[starts]
        values[long] = (values[long] << 5 * sizes) + np.add.reduceat(low, starts)
    last = stops - np.searchsorted(more, stops)  # (S,), one past the last value of each string
    first = np.append(0, last[:-1])

    # Sums of 32 bits may wrap, but each string is taken up to its first run that is out of range,
    # which differs by less than 2^29 from one in range: no run below 0 looks like another.
    runs = values.copy()
    runs[first] = 0
    bounds = [np.append(first, len(runs)) + 1 >> 1, np.append(first, len(runs)) >> 1]
    for parity, bound in enumerate(bounds):
        chain = np.cumsum(runs[parity::2], dtype=np.int32)
        before = np.append(np.int32(0), chain)[bound[:-1]]
        runs[parity::2] = chain - np.repeat(before, np.diff(bound))
    runs[first] = values[first]
    ends = np.concatenate([runs[first], runs[last - 1]])
    inner = runs.copy()
    inner[first] = inner[last - 1] = 1
    if ends.min() < 0 or inner.min() < 1 or max(ends.max(), inner.max()) >= 1 << 30:
        return None
    even, odd = (
        np.diff(np.append(0, np.cumsum(runs[parity::2], dtype=np.int64))[bound])
        for parity, bound in enumerate(bounds)
    )
    return Counts((even + odd).tolist(), np.where(first % 2, even, odd))


def _count_any(strings: Sequence[bytes]) -> Counts:
    """Count the pixels of any strings."""
    # Letters: S strings, C characters of all of them, V values (runs, or differences of runs).
    sound = [number for number, string in enumerate(strings) if string]
    sums = np.full(len(strings), -1, np.int64)
    if not sound:
        return Counts(sums.tolist(), sums)
    bits = np.frombuffer(b''.join(strings), np.uint8) - np.uint8(48)  # (C,), wraps below '0'
    stops = np.cumsum([len(strings[number]) for number in sound])
    is_last = bits < 32
    is_damaged = ~is_last[stops - 1]  # (S,), of the strings that are not empty
    is_last[stops - 1] = True  # a number that its string cuts off must not run into the next
    ends = np.flatnonzero(is_last)  # (V,)
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    size = ends - starts

    values = np.zeros(len(ends), np.int64)
    for place in range(min(int(size.max()) + 1, _MAX_CHARACTERS)):
        longer = np.flatnonzero(size >= place) if place else slice(None)
        values[longer] |= (bits[starts[longer] + place] & 31).astype(np.int64) << (5 * place)
    is_negative = np.flatnonzero(bits[ends] & 16)
    values[is_negative] -= 1 << (5 * np.minimum(size[is_negative] + 1, _MAX_CHARACTERS))

    # Runs 1, 3, 5, ... of a string add up, and so do runs 2, 4, 6, ...: two sums over all values,
    # less what they were before the string's first one.
    total = np.empty(len(values) + 2, np.int64)
    total[:2] = 0
    total[2::2], total[3::2] = np.cumsum(values[::2]), np.cumsum(values[1::2])
    last = np.searchsorted(ends, stops)  # (S,), one past the last value of each string
    first = np.concatenate([[0], last[:-1]])
    numbers = last - first
    is_odd = (np.arange(len(values)) - np.repeat(first, numbers)) % 2 == 1
    runs = total[2:] - np.repeat(total[first + 2], numbers)
    runs[is_odd] = (total[2:] - np.repeat(total[first + 1], numbers))[is_odd]
    runs[first] = values[first]

    is_damaged |= np.maximum.reduceat(size, first) >= _MAX_CHARACTERS
    is_damaged |= np.minimum.reduceat(runs, first) < 0
    is_damaged |= np.maximum.reduceat(bits, np.concatenate([[0], stops[:-1]])) > 63
    sums[sound] = np.where(is_damaged, -1, np.add.reduceat(runs, first))
    areas = np.full(len(strings), -1, np.int64)
    areas[sound] = np.where(is_damaged, -1, np.add.reduceat(np.where(is_odd, runs, 0), first))
    is_empty = runs == 0
    is_empty[first] = is_empty[last - 1] = False
    has_empty = np.logical_or.reduceat(is_empty, first) & ~is_damaged
    rewritten = {
        sound[place]: _to_string(without_empty(runs[first[place] : last[place]]))
        for place in np.flatnonzero(has_empty).tolist()
        if sums[sound[place]] < 1 << 32
    }
    return Counts(sums.tolist(), areas, rewritten)


def _to_string(runs: NDArray[np.int64]) -> bytes:
    """Compress runs to the string of an RLE."""
    num_pixels = int(runs.sum())
    code = {'size': [num_pixels, 1], 'counts': runs.astype(np.uint32)}
    string: bytes = coco_mask.frPyObjects(code, num_pixels, 1)['counts']
    return string
