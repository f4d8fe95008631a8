"""Video files and webcams as sources of images, read by OpenCV."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.source import SourceFrame

# OpenCV reads it when it opens its first video. -8 is quiet: our errors say what went wrong.
os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')

_USUAL_FPS = 30.0
"""Frame rate that is assumed where a file or a camera gives none, or an impossible one."""


class VideoError(ValueError):
    """Raised for a video file or webcam that cannot be used; the text says why."""


class VideoFile:
    """A video file, played by its own time stamps; see `datasets.source.Source`."""

    is_endless = False
    topic = ''

    def __init__(self, path: Path) -> None:
        """Open the file and read its first frame.

        Raises:
            VideoError: it is missing, is not a video that OpenCV reads, or holds no frame.
        """
        if not path.exists():
            raise VideoError(f'Expected a video file, but there is no {path}.')
        if not path.is_file():
            raise VideoError(f'Expected a video file, got {path}, which is not a file.')
        self._path = path
        with _opened(str(path)) as capture:
            if not capture.isOpened():
                raise VideoError(
                    f'Expected a video file, but OpenCV finds no video in {path} '
                    f'({path.stat().st_size} bytes).'
                )
            self.fps = _usable_fps(capture.get(cv2.CAP_PROP_FPS))
            # What the file claims: some formats only estimate it.
            count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            if not capture.read()[0]:
                raise VideoError(f'Expected a video file, but {path} holds no frame to be read.')
        self.num_frames = count if count > 0 else None
        self.notes: list[str] = []

    @property
    def description(self) -> str:
        """Description of the source for people."""
        return f'video {self._path}, {self.fps:.4g} frames a second'

    def frames(self) -> Iterator[SourceFrame]:
        """Read the frames from the first on; their times are those of the file, and rise."""
        with _opened(str(self._path)) as capture:
            last_ns, number = -1, 0
            while True:
                is_read, image = capture.read()
                if not is_read:
                    break
                # Phones record at a varying rate, so the file's own time comes first.
                time_ns = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
                if number and time_ns <= last_ns:
                    time_ns = last_ns + round(1e9 / self.fps)
                yield SourceFrame(time_ns, _to_rgb(image))
                last_ns, number = time_ns, number + 1
        if self.num_frames is not None and number < 0.95 * self.num_frames:
            self.notes.append(
                f'{self._path} announces {self.num_frames} frames, but {number} could be read.'
            )


class Webcam:
    """A camera of this machine; see `datasets.source.Source`."""

    is_endless = True
    topic = ''
    num_frames = None

    def __init__(self, index: int) -> None:
        """Open the camera and read its first frame.

        Raises:
            VideoError: there is no such camera, or it gives no image.
        """
        self._index = index
        with _opened(index) as capture:
            image = capture.read()[1] if capture.isOpened() else None
            if image is None:
                raise VideoError(
                    f'Expected a webcam with index {index}, but OpenCV gets no image from it. '
                    'Is it plugged in (ls /dev/video*), free, and yours to read (group video)?'
                )
            self.fps = _usable_fps(capture.get(cv2.CAP_PROP_FPS))
        self.notes: list[str] = []

    @property
    def description(self) -> str:
        """Description of the source for people."""
        return f'webcam {self._index}, {self.fps:.4g} frames a second'

    def frames(self) -> Iterator[SourceFrame]:
        """Read frames as they come, without end, with the time at which they were read."""
        with _opened(self._index) as capture:
            while True:
                is_read, image = capture.read()
                if not is_read:
                    self.notes.append(f'Webcam {self._index} stopped giving images.')
                    return
                yield SourceFrame(time.monotonic_ns(), _to_rgb(image))


@contextmanager
def _opened(source: str | int) -> Iterator[cv2.VideoCapture]:
    """Open a video with OpenCV, whose log is silent meanwhile."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(source)
    try:
        yield capture
    finally:
        capture.release()
        cv2.utils.logging.setLogLevel(level)


def _to_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _usable_fps(fps: float) -> float:
    return fps if math.isfinite(fps) and 0.1 <= fps <= 240 else _USUAL_FPS
