"""Video files as sources of images, and what all videos that OpenCV reads have in common."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.source import SOURCES, SourceFrame

# OpenCV reads it when it opens its first video. -8 is quiet: our errors say what went wrong.
os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')

_USUAL_FPS = 30.0
"""Frame rate that is assumed where a file or a camera gives none, or an impossible one."""


class VideoError(ValueError):
    """Raised for a source of images that cannot be used; the text says why."""


class VideoFile:
    """A video file, played by its own time stamps; see `datasets.source.Source`."""

    is_endless = False
    topic = ''

    def __init__(self, path: Path) -> None:
        """Open the file and read its first frame.

        Raises:
            VideoError: it is not a video that OpenCV reads, or holds no frame.
        """
        if not path.is_file():
            raise VideoError(f'Expected a video file, got {path}, which is not a file.')
        if not os.access(path, os.R_OK):
            raise VideoError(f'Expected a video file that you may read, but {path} is not one.')
        self._path = path
        with opened(str(path)) as capture:
            if not capture.isOpened():
                raise VideoError(
                    f'Expected {SOURCES}, but OpenCV finds no video in {path} '
                    f'({path.stat().st_size} bytes).'
                )
            self.fps = usable_fps(capture)
            self.num_frames = announced_frames(capture)
            if not capture.read()[0]:
                raise VideoError(f'Expected a video file, but {path} holds no frame to be read.')
        self.notes: list[str] = []

    @property
    def description(self) -> str:
        """Description of the source for people."""
        return f'video {self._path}, {self.fps:.4g} frames a second'

    def frames(self) -> Iterator[SourceFrame]:
        """Read the frames from the first on; their times are those of the file, and rise."""
        number = 0
        with opened(str(self._path)) as capture:
            for frame in recorded_frames(capture, self.fps):
                yield frame
                number += 1
        self.notes += missing_frames(str(self._path), self.num_frames, number)


@contextmanager
def opened(
    source: str | int, api: int = cv2.CAP_ANY, options: Sequence[int] = ()
) -> Iterator[cv2.VideoCapture]:
    """Open a video with OpenCV, whose log is silent meanwhile.

    Args:
        source: path, URL or pipeline, or the index of a camera.
        api: one of OpenCV's readers; by default, it tries those that it has.
        options: properties of the video and their values in turn.
    """
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(source, api, list(options))
    try:
        yield capture
    finally:
        capture.release()
        cv2.utils.logging.setLogLevel(level)


def recorded_frames(capture: cv2.VideoCapture, fps: float) -> Iterator[SourceFrame]:
    """Read a recording to its end, with the times of its own, which rise."""
    last_ns, number = -1, 0
    while True:
        is_read, image = capture.read()
        if not is_read:
            return
        # Phones record at a varying rate, so the file's own time comes first.
        time_ns = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        if number and time_ns <= last_ns:
            time_ns = last_ns + round(1e9 / fps)
        yield SourceFrame(time_ns, _to_rgb(image))
        last_ns, number = time_ns, number + 1


def live_frames(capture: cv2.VideoCapture) -> Iterator[SourceFrame]:
    """Read frames as they come until none does, with the times at which they were read."""
    while True:
        is_read, image = capture.read()
        if not is_read:
            return
        yield SourceFrame(time.monotonic_ns(), _to_rgb(image))


def missing_frames(name: str, announced: int | None, number: int) -> list[str]:
    """Return a note if clearly fewer frames of a recording could be read than it announces."""
    if announced is None or number >= 0.95 * announced:
        return []
    return [f'{name} announces {announced} frames, but {number} could be read.']


def usable_fps(capture: cv2.VideoCapture) -> float:
    """Return the frame rate that a video states, or a usual one where it states none."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if math.isfinite(fps) and 0.1 <= fps <= 240 else _USUAL_FPS


def announced_frames(capture: cv2.VideoCapture) -> int | None:
    """Return the number of frames that a recording claims to have, which some only estimate.

    Returns:
        None if it claims none; a stream has no such number.
    """
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return count if count > 0 else None


def _to_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
