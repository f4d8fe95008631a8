"""A short animated clip of a video, truth beside prediction, small enough to live in the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from videomt_ros.errors import fault_line
from videomt_ros.evaluation.report.overlays import VideoViews, as_jpeg

MAX_BYTES = 300_000
"""Largest size of a clip."""
_MAX_FRAMES = 40
"""Largest number of frames of a clip."""
_ATTEMPTS = ((320, 60, 1), (320, 40, 1), (240, 40, 1), (240, 30, 2), (160, 25, 2), (120, 15, 4))
"""Width of each side in pixels, quality 0..100, and step between frames, tried in turn until the
clip is small enough."""
_GAP = 6
"""Pixels between the two sides."""
_SHORTEST_MS, _USUAL_MS, _LONGEST_MS = 20, 100, 1000
"""Time for which a frame is shown: browsers slow down what is shorter, and stamps may be far
apart."""


@dataclass(frozen=True)
class Clip:
    """An animated picture of some frames of a video."""

    frames: tuple[int, ...]
    """Numbers of the frames in it, rising; empty if there is a problem."""
    webp: bytes = b''
    """The clip, which repeats for ever."""
    still: bytes = b''
    """JPEG of its middle frame, for readers who do not want motion."""
    has_truth: bool = False
    """Whether the truth is on the left side."""
    problem: str = ''
    """Reason why there is no clip; empty if there is one."""


def clip_frames(num_frames: int, switches: Sequence[int]) -> list[int]:
    """Choose successive frames for a clip: all, or those around the first switch, or the middle.

    >>> clip_frames(3, []), clip_frames(100, [90])[::39], clip_frames(100, [])[::39]
    ([0, 1, 2], [60, 99], [30, 69])

    Args:
        num_frames: length of the video.
        switches: numbers of frames in which an object changes its track, rising.
    """
    middle = switches[0] if switches else num_frames // 2
    count = min(num_frames, _MAX_FRAMES)
    start = min(max(middle - count // 2, 0), num_frames - count)
    return list(range(start, start + count))


def make_clip(views: VideoViews, frames: Sequence[int]) -> Clip:
    """Draw a clip.

    Args:
        views: views of the video that have read these frames.
        frames: numbers of successive frames; those that cannot be drawn are left out.
    """
    kept: list[int] = []
    pages: list[NDArray[np.uint8]] = []
    has_truth, problem = False, 'Expected at least two frames.'
    for index in frames:
        try:
            view, true_view = views.draw(index)
        except Exception as error:
            problem = fault_line(error)
            continue
        has_truth = true_view is not None
        pages.append(view if true_view is None else _side_by_side(true_view, view))
        kept.append(index)
    if len(kept) < 2:
        return Clip((), problem=problem)
    stamps_ns = [views.stamp_ns(index) for index in kept]
    try:
        for width, quality, step in _ATTEMPTS:
            sides = 2 if has_truth else 1
            shown = [_narrowed(page, sides * width + (sides - 1) * _GAP) for page in pages[::step]]
            data = _encode(shown, _durations_ms(stamps_ns[::step]), quality)
            if len(data) <= MAX_BYTES:
                return Clip(tuple(kept[::step]), data, as_jpeg(shown[len(shown) // 2]), has_truth)
    except Exception as error:  # such as a Pillow without WebP
        return Clip((), problem=fault_line(error))
    return Clip((), problem=f'Even the smallest has {len(data)} bytes.')


def _side_by_side(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.uint8]:
    gap = np.full((left.shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def _narrowed(page: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    if page.shape[1] <= width:
        return page
    size = (width, max(1, round(page.shape[0] * width / page.shape[1])))
    return cv2.resize(page, size, interpolation=cv2.INTER_AREA)


def _durations_ms(stamps_ns: Sequence[int]) -> list[int]:
    """Return how long each frame is shown; the last one a while longer, before it starts again."""
    steps = [(after - before) // 10**6 for before, after in pairwise(stamps_ns)]
    usual = sorted(steps)[len(steps) // 2] if steps else _USUAL_MS
    shown = [min(max(step, _SHORTEST_MS), _LONGEST_MS) for step in [*steps, usual]]
    return [*shown[:-1], max(shown[-1], _LONGEST_MS)]


def _encode(pages: Sequence[NDArray[np.uint8]], durations_ms: list[int], quality: int) -> bytes:
    """Encode an animated WebP."""
    first, *others = map(Image.fromarray, pages)
    file = BytesIO()
    first.save(
        file,
        'WEBP',
        save_all=True,
        append_images=others,
        duration=durations_ms,
        loop=0,
        quality=quality,
        method=2,
    )
    return file.getvalue()
