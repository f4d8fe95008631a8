"""Masks as COCO run-length codes, read from the forms that annotation files have, and checked.

A mask of H x W pixels is read column by column as runs, background first. A file holds the runs as
a list of numbers, as a string, or as polygons. The string (cocoapi, `maskApi.c`) holds each run as
five bits per character, lowest first, from '0' on; 32 says that more follow, 16 in the last is the
sign; from the fourth run on it is the difference to the run two before.

pycocotools decodes whatever it gets, so a file is checked first: many strings at once, with numpy
alone, and without a pixel.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from videomt_ros.datasets.json_files import shown

Rle = dict[str, Any]
"""Code as pycocotools has it: `size` [height, width], and compressed `counts` as bytes."""

_MAX_CHARACTERS = 7
"""Characters of one run: they hold 35 bits with the sign, more than any number of pixels."""
_MOST_AREAS = 255
"""Largest number of masks in a call of `area` of pycocotools 2.0.11, which counts them in a byte
with numpy 2."""
_MAX_COORDINATE = 1e6
"""Limit for coordinates of polygons, which pycocotools draws outside of the image too."""


@dataclass(frozen=True)
class MaskTrack:
    """One object, true or predicted, along one video of T frames."""

    video_id: int | str
    category_id: int
    masks: Sequence[Rle | None]
    """T masks; None: absent. Reading one may decode it, so read each once."""
    score: float = 1.0
    """Confidence of a prediction."""
    is_crowd: bool = False
    """Whether a true object is a group, which counts as ignored."""
    areas: Sequence[float | None] | None = None
    """T areas in pixels from the annotation file; None: the areas of the masks."""
    track_id: int = 0
    """Number of the annotation, or position of the prediction in its file, from 1."""
    pixels: NDArray[np.int64] | None = None
    """Areas of the T masks, (T,), 0 where one is absent; None: not counted yet."""

    def read(self) -> tuple[list[Rle | None], NDArray[np.int64]]:
        """Read each mask once; returns the T masks and their areas in pixels, (T,)."""
        masks = list(self.masks)
        if self.pixels is not None:
            return masks, self.pixels
        areas = np.zeros(len(masks), np.int64)
        present = [frame for frame, mask in enumerate(masks) if mask is not None]
        for start in range(0, len(present), _MOST_AREAS):
            part = present[start : start + _MOST_AREAS]
            areas[part] = coco_mask.area([masks[frame] for frame in part])
        return masks, areas


def encode(mask: NDArray[np.bool_]) -> Rle:
    """Encode a mask, (H, W) bool."""
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def decode(rle: Rle) -> NDArray[np.bool_]:
    """Decode a valid code to a mask, (H, W) bool."""
    return coco_mask.decode(rle).astype(bool)


def to_rle(segmentation: Any, height: int, width: int) -> Rle | None:
    """Check a mask of a file and convert it to a code.

    Args:
        segmentation: None or an empty list, for nothing; a dictionary of `size` and `counts`, a
            string or bytes or a list of runs; or a list of polygons [x, y, x, y, ...] in pixels,
            which stands for all that any of them covers.
        height: expected height of the mask.
        width: expected width of the mask.

    Returns:
        The compressed code, or None for nothing.

    Raises:
        ValueError: it is none of these, or has another size.
    """
    for _, fault in find_faults([segmentation], height, width):
        raise ValueError(fault)
    return convert(segmentation, height, width)


def convert(segmentation: Any, height: int, width: int) -> Rle | None:
    """Convert as `to_rle` does, for a segmentation that `find_faults` has passed."""
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        counts = segmentation['counts']
        if isinstance(counts, (str, bytes)):
            data = counts.encode('ascii') if isinstance(counts, str) else counts
            return {'size': [height, width], 'counts': data}
        runs = _without_empty(np.array(counts, np.uint32))
        return coco_mask.frPyObjects({'size': [height, width], 'counts': runs}, height, width)
    return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))


def _without_empty(runs: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Join the neighbours of empty runs, which leaves the mask as it is.

    pycocotools stops comparing two masks where both have an empty run.
    """
    if runs[1:].all():
        return runs
    is_object = np.arange(len(runs)) % 2 == 1
    filled = np.flatnonzero(runs)
    colours = is_object[filled]
    starts = np.flatnonzero(np.append(True, colours[1:] != colours[:-1]))
    joined = np.add.reduceat(runs[filled], starts, dtype=np.uint32)
    return np.append(np.uint32(0), joined) if colours[0] else joined


def rle_to_json(rle: Rle) -> dict[str, Any]:
    """Return a compressed code whose `counts` are a string, as JSON needs."""
    height, width = rle['size']
    return {'size': [int(height), int(width)], 'counts': rle['counts'].decode('ascii')}


def pack_runs(record: dict[str, Any]) -> dict[str, Any]:
    """Store a list of runs in a tenth of the memory; an `object_hook` of `json.loads`.

    A list that holds anything but runs stays as it is, so that `find_faults` reports it.
    """
    counts = record.get('counts')
    if type(counts) is list:
        with suppress(TypeError, OverflowError):
            record['counts'] = array('I', counts)
    return record


def find_faults(segmentations: Sequence[Any], height: int, width: int) -> list[tuple[int, str]]:
    """Check the masks of one track in the form that a file has.

    Returns:
        Positions and faults, worded to follow 'frame 3: '.
    """
    return inspect(segmentations, height, width)[0]


def inspect(
    segmentations: Sequence[Any], height: int, width: int
) -> tuple[list[tuple[int, str]], NDArray[np.int64] | None]:
    """Check the masks of one track as `find_faults` does, and count their pixels on the way.

    Returns:
        Positions and faults; and the areas of the masks in pixels, 0 for no mask, or None where
        some have another form than that of strings, or a fault.
    """
    faults: list[tuple[int, str]] = []
    strings: list[tuple[int, bytes]] = []
    num_empty = 0
    for position, segmentation in enumerate(segmentations):
        if segmentation is None or segmentation == []:
            num_empty += 1
            continue
        if isinstance(segmentation, dict):
            fault, string = _check_record(segmentation, height, width)
            if string is not None:
                strings.append((position, string))
        elif isinstance(segmentation, list):
            fault = _check_polygons(segmentation)
        else:
            fault = f'expected null, RLE or polygons, got {shown(segmentation)}.'
        if fault:
            faults.append((position, fault))
    sums, object_sums = _count([string for _, string in strings])
    for (position, string), pixels in zip(strings, sums, strict=True):
        if pixels < 0:
            faults.append(
                (position, f'the RLE string {shown(string.decode("latin-1"))} is damaged.')
            )
        elif pixels != height * width:
            faults.append((position, _wrong_sum(pixels, height, width)))
    if faults or len(strings) + num_empty < len(segmentations):
        return sorted(faults), None
    areas = np.zeros(len(segmentations), np.int64)
    areas[[position for position, _ in strings]] = object_sums
    return [], areas


def pixels_of_strings(strings: Sequence[bytes]) -> list[int]:
    """Count the pixels, of object and background, that each RLE string describes.

    Returns:
        One number for each string; -1 where it is not an RLE string, or has an empty run between
        others, at which pycocotools may stop to compare two masks.
    """
    return _count(strings)[0]


def _count(strings: Sequence[bytes]) -> tuple[list[int], NDArray[np.int64]]:
    """Count the pixels of `pixels_of_strings`, and those of the object alone."""
    return _count_sound(strings) or _count_any(strings)


def _count_sound(strings: Sequence[bytes]) -> tuple[list[int], NDArray[np.int64]] | None:
    """Count as `_count_any`, in a third of its time; None if a string may be damaged."""
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
    return (even + odd).tolist(), np.where(first % 2, even, odd)


def _count_any(strings: Sequence[bytes]) -> tuple[list[int], NDArray[np.int64]]:
    """Count the pixels of any strings, -1 for a damaged one."""
    # Letters: S strings, C characters of all of them, V values (runs, or differences of runs).
    sound = [number for number, string in enumerate(strings) if string]
    sums = np.full(len(strings), -1, np.int64)
    if not sound:
        return sums.tolist(), sums
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
    is_inside = np.ones(len(runs), bool)
    is_inside[first] = is_inside[last - 1] = False
    is_damaged |= np.logical_or.reduceat(is_inside & (runs == 0), first)
    is_damaged |= np.maximum.reduceat(bits, np.concatenate([[0], stops[:-1]])) > 63
    sums[sound] = np.where(is_damaged, -1, np.add.reduceat(runs, first))
    areas = np.full(len(strings), -1, np.int64)
    areas[sound] = np.where(is_damaged, -1, np.add.reduceat(np.where(is_odd, runs, 0), first))
    return sums.tolist(), areas


def _check_record(
    record: dict[str, Any], height: int, width: int
) -> tuple[str | None, bytes | None]:
    """Return the fault of a record {size, counts}, or the string that is still to be checked."""
    if 'counts' not in record or 'size' not in record:
        return f'expected an RLE of size and counts, got {shown(record)}.', None
    size, counts = record['size'], record['counts']
    if size != [height, width] and size != (height, width):
        return f'expected an RLE of size [{height}, {width}], got {shown(size)}.', None
    if isinstance(counts, (str, bytes)):
        try:
            return None, counts.encode('ascii') if isinstance(counts, str) else counts
        except UnicodeEncodeError:
            return f'the RLE string {shown(counts)} is damaged.', None
    if isinstance(counts, list):
        counts = pack_runs({'counts': counts})['counts']
    if not isinstance(counts, array):
        return f'expected counts as a string or as runs of 0 or more, got {shown(counts)}.', None
    pixels = int(np.frombuffer(counts, np.uint32).sum(dtype=np.int64)) if counts else 0
    return (_wrong_sum(pixels, height, width) if pixels != height * width else None), None


def _check_polygons(polygons: list[Any]) -> str | None:
    for number, polygon in enumerate(polygons, start=1):
        if not (
            isinstance(polygon, list)
            and len(polygon) >= 6  # pycocotools takes four numbers for a box
            and len(polygon) % 2 == 0
            and set(map(type, polygon)) <= {int, float}
            # NaN fails every comparison.
            and all(-_MAX_COORDINATE <= value <= _MAX_COORDINATE for value in polygon)
        ):
            return (
                f'expected polygons [x, y, x, y, ...] of three points or more, got '
                f'{shown(polygon)} as polygon {number}.'
            )
    return None


def _wrong_sum(pixels: int, height: int, width: int) -> str:
    return (
        f'the runs of the RLE make {pixels} pixels, expected '
        f'{height} x {width} = {height * width}.'
    )
