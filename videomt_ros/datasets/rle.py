"""Masks as COCO run-length codes, read from the forms that annotation files have, and checked.

A mask of H x W pixels is read column by column as runs, background first. A file holds the runs as
a list of numbers, as a string (see `rle_strings`), or as polygons. pycocotools decodes whatever it
gets, so a file is checked first, without a pixel.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from videomt_ros.datasets.json_files import as_whole, shown
from videomt_ros.datasets.rle_strings import count_pixels, without_empty

Rle = dict[str, Any]
"""Code as pycocotools has it: `size` [height, width], and compressed `counts` as bytes."""

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
    inspection = inspect([segmentation], height, width)
    for _, fault in inspection.faults:
        raise ValueError(fault)
    return convert(inspection.segmentations[0], height, width)


def convert(segmentation: Any, height: int, width: int) -> Rle | None:
    """Convert as `to_rle` does, for a segmentation that `inspect` has passed."""
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        counts = segmentation['counts']
        if isinstance(counts, (str, bytes)):
            data = counts.encode('ascii') if isinstance(counts, str) else counts
            return {'size': [height, width], 'counts': data}
        runs = without_empty(np.array(counts, np.uint32))
        return coco_mask.frPyObjects({'size': [height, width], 'counts': runs}, height, width)
    return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))


def rle_to_json(rle: Rle) -> dict[str, Any]:
    """Return a compressed code whose `counts` are a string, as JSON needs."""
    height, width = rle['size']
    return {'size': [int(height), int(width)], 'counts': rle['counts'].decode('ascii')}


def pack_runs(record: dict[str, Any]) -> dict[str, Any]:
    """Store a list of runs in a tenth of the memory; an `object_hook` of `json.loads`.

    A list that holds anything but runs stays as it is, so that `inspect` reports it.
    """
    counts = record.get('counts')
    if type(counts) is list:
        with suppress(TypeError, OverflowError):
            record['counts'] = array('I', counts)
    return record


class Inspection(NamedTuple):
    """What `inspect` has found in the masks of one track."""

    faults: list[tuple[int, str]]
    """Positions and faults, worded to follow 'frame 3: '."""
    pixels: NDArray[np.int64] | None
    """Areas of the masks in pixels, 0 for no mask; None where some are neither strings nor empty,
    or have a fault."""
    segmentations: Sequence[Any]
    """The masks in forms that `convert` takes: those given, but for what had to be rewritten."""
    num_flat: int = 0
    """Number of masks of which polygons of fewer than three points, which cover no pixel, were
    removed."""


def inspect(segmentations: Sequence[Any], height: int, width: int) -> Inspection:
    """Check the masks of one track in the form that a file has, and count their pixels on the way.

    Forms that tools write beside the usual ones are rewritten: empty runs, which split a run in
    two; a polygon that is in no list, and an RLE that is in one; polygons without points.
    """
    faults: list[tuple[int, str]] = []
    strings: list[tuple[int, bytes]] = []
    rewritten: dict[int, Any] = {}
    num_empty = num_flat = 0
    for position, segmentation in enumerate(segmentations):
        if segmentation is None or segmentation == []:
            num_empty += 1
            continue
        if (
            isinstance(segmentation, list)
            and len(segmentation) == 1
            and isinstance(segmentation[0], dict)
        ):
            [segmentation] = segmentation
            rewritten[position] = segmentation
        if isinstance(segmentation, dict):
            fault, string = _check_record(segmentation, height, width)
            if string is not None:
                strings.append((position, string))
        elif isinstance(segmentation, list):
            fault = _check_polygons(segmentation)
            if fault:
                usual, fault = _usual_polygons(segmentation)
                if not fault:
                    rewritten[position] = usual or None
                    num_empty += not usual
                    num_flat += any(map(_is_flat, segmentation))
        else:
            fault = f'expected null, RLE or polygons, got {shown(segmentation)}.'
        if fault:
            faults.append((position, fault))
    counts = count_pixels([string for _, string in strings])
    for (position, string), pixels in zip(strings, counts.sums, strict=True):
        if pixels < 0:
            faults.append(
                (position, f'the RLE string {shown(string.decode("latin-1"))} is damaged.')
            )
        elif pixels != height * width:
            faults.append((position, _wrong_sum(pixels, height, width)))
    for number, string in counts.rewritten.items():
        rewritten[strings[number][0]] = {'size': [height, width], 'counts': string}
    if rewritten:
        segmentations = [rewritten.get(k, given) for k, given in enumerate(segmentations)]
    if faults or len(strings) + num_empty < len(segmentations):
        return Inspection(sorted(faults), None, segmentations, num_flat)
    areas = np.zeros(len(segmentations), np.int64)
    areas[[position for position, _ in strings]] = counts.areas
    return Inspection([], areas, segmentations, num_flat)


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
        counts = pack_runs({'counts': [as_whole(run) for run in counts]})['counts']
    if not isinstance(counts, array):
        return f'expected counts as a string or as runs of 0 or more, got {shown(counts)}.', None
    pixels = int(np.frombuffer(counts, np.uint32).sum(dtype=np.int64)) if counts else 0
    return (_wrong_sum(pixels, height, width) if pixels != height * width else None), None


def _usual_polygons(polygons: list[Any]) -> tuple[list[Any], str | None]:
    """Bring polygons into the usual form, without those that cover no pixel.

    Returns:
        Polygons of three points or more; and the fault, if there is one.
    """
    if set(map(type, polygons)) <= {int, float}:
        polygons = [polygons]  # as VGG Image Annotator writes it
    usual = [polygon for polygon in polygons if polygon != [] and not _is_flat(polygon)]
    return usual, _check_polygons(usual)


def _is_flat(polygon: Any) -> bool:
    """Tell whether a polygon has one or two points."""
    return (
        isinstance(polygon, list)
        and len(polygon) in (2, 4)
        and set(map(type, polygon)) <= {int, float}
        and all(-_MAX_COORDINATE <= value <= _MAX_COORDINATE for value in polygon)
    )


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
