"""Masks of an image of ids as the run-length codes of COCO, all in one pass."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask


def encode_masks(ids: NDArray[np.uint16]) -> dict[int, str]:
    """Encode every track of an image in one pass over its pixels.

    The result equals that of `pycocotools.mask.encode` on each mask, byte by byte, which would
    read the whole image once per track.

    Args:
        ids: track id of each pixel, (H, W); 0 is nothing.

    Returns:
        COCO's compressed run-length encoding of each id in the image.
    """
    height, width = ids.shape
    # COCO counts along columns; OpenCV transposes several times faster than numpy.
    column_major = cv2.transpose(ids).reshape(-1)
    starts = np.flatnonzero(column_major[1:] != column_major[:-1]) + 1
    starts = np.concatenate(([0], starts))
    ends = np.concatenate((starts[1:], [column_major.size]))
    values = column_major[starts]
    # A stable sort keeps each id's runs in the order of the pixels.
    order = np.argsort(values, kind='stable')
    values, starts, ends = values[order], starts[order], ends[order]
    track_ids, firsts = np.unique(values, return_index=True)
    lasts = np.append(firsts[1:], values.size)

    found, codes = [], []
    for track_id, first, last in zip(track_ids.tolist(), firsts, lasts, strict=True):
        if track_id == 0:
            continue
        # The borders alternate: background|track|background|... Their differences are COCO's
        # counts, which begin with background (0 if the track has the first pixel) and omit a
        # final 0.
        borders = np.stack((starts[first:last], ends[first:last]), axis=1).reshape(-1)
        if borders[-1] != column_major.size:
            borders = np.append(borders, column_major.size)
        counts = np.diff(borders, prepend=0).tolist()
        found.append(track_id)
        codes.append({'size': [height, width], 'counts': counts})
    if not found:
        return {}
    compressed = coco_mask.frPyObjects(codes, height, width)
    return {i: code['counts'].decode() for i, code in zip(found, compressed, strict=True)}
