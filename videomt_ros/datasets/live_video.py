"""Cameras of this machine, and videos behind a URL, as sources of images, read by OpenCV.

Each wait for a server has a limit of some seconds, where OpenCV's own is half a minute. Texts for
people never hold the password in a URL.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import cv2

from videomt_ros.datasets.source import SourceFrame
from videomt_ros.datasets.video import (
    VideoError,
    announced_frames,
    live_frames,
    missing_frames,
    opened,
    recorded_frames,
    usable_fps,
)

TIMEOUT_S = 10.0
"""Longest time to wait for a stream to open, and for each of its images, in seconds."""
_URL = re.compile(r'[a-z][a-z0-9+.-]+://', re.IGNORECASE)
_PASSWORD = re.compile(r'(?<=://)([^/@:\s]*):[^/@\s]*@')
_PIPELINE = re.compile(r'\s!\s')
_PORTS = {'http': 80, 'https': 443, 'rtsp': 554, 'rtsps': 322, 'rtmp': 1935, 'tcp': None}
"""Usual port of each scheme of URLs whose server takes a TCP connection."""
_ALWAYS_LIVE = frozenset(('rtsp', 'rtsps', 'udp', 'rtp', 'srt', 'tcp', 'rtmp'))
"""Schemes of streams that are live even if they announce a length, as some cameras do."""
_PROBE_S = 3.0
"""Longest time to ask a server why OpenCV got no video, in seconds."""


class Webcam:
    """A camera of this machine; see `datasets.source.Source`."""

    is_endless = True
    topic = ''
    num_frames = None

    def __init__(self, index_or_device: int | Path) -> None:
        """Open the camera and read its first frame.

        Args:
            index_or_device: its index, or its file, such as /dev/video0.

        Raises:
            VideoError: there is no such camera, or it gives no image.
        """
        self._name = f'webcam {index_or_device}'
        if isinstance(index_or_device, int):
            self._input: tuple[int | str, int] = (index_or_device, cv2.CAP_ANY)
            wanted, device = f'with index {index_or_device}', Path(f'/dev/video{index_or_device}')
        else:
            self._input = (str(index_or_device), cv2.CAP_V4L2)
            wanted, device = f'at {index_or_device}', index_or_device
        try:
            with opened(*self._input) as capture:
                image = capture.read()[1] if capture.isOpened() else None
                self.fps = usable_fps(capture)
        except cv2.error:  # an index that is no number of 32 bits
            image = None
        if image is None:
            raise VideoError(
                f'Expected a webcam {wanted}, but OpenCV gets no image from it. '
                f'{_why_no_camera(device)}'
            )
        self.notes: list[str] = []

    @property
    def description(self) -> str:
        """Description of the source for people."""
        return f'{self._name}, {self.fps:.4g} frames a second'

    def frames(self) -> Iterator[SourceFrame]:
        """Read frames as they come, without end, with the time at which they were read."""
        with opened(*self._input) as capture:
            yield from live_frames(capture)
        self.notes.append(f'{self._name[0].upper()}{self._name[1:]} stopped giving images.')


class Stream:
    """A video behind a URL or a GStreamer pipeline; see `datasets.source.Source`.

    One that has a length, such as a file on a web server, is played by its own times; all others
    are taken as they come, like a camera.
    """

    topic = ''

    def __init__(self, address: str) -> None:
        """Open the stream and read its first frame.

        Raises:
            VideoError: it cannot be opened, or gives no image in time; says why as far as that is
                known.
        """
        self._address = address
        self._name = without_password(address)
        if is_pipeline(address) and not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
            raise VideoError(
                f'Expected a source that OpenCV opens, got the GStreamer pipeline {self._name}, '
                'but this OpenCV is built without GStreamer, as all from PyPI are. Give the URL '
                'of the stream instead, or install the OpenCV of your distribution '
                '(python3-opencv).'
            )
        begin_s = time.monotonic()
        with self._opened() as capture:
            image = capture.read()[1] if capture.isOpened() else None
            if image is None:
                raise VideoError(self._explain(time.monotonic() - begin_s))
            self.fps = usable_fps(capture)
            self.num_frames = announced_frames(capture)
            if _scheme(address) in _ALWAYS_LIVE:
                self.num_frames = None
        self.is_endless = self.num_frames is None
        self.notes: list[str] = []

    @property
    def description(self) -> str:
        """Description of the source for people."""
        kind = 'stream' if self.is_endless else 'video'
        return f'{kind} {self._name}, {self.fps:.4g} frames a second'

    def frames(self) -> Iterator[SourceFrame]:
        """Read the frames until the stream ends, or gives none for `TIMEOUT_S`."""
        number, last_s = 0, time.monotonic()
        with self._opened() as capture:
            frames = live_frames(capture)
            if not self.is_endless:
                frames = recorded_frames(capture, self.fps)
            for frame in frames:
                yield frame
                number, last_s = number + 1, time.monotonic()
        if time.monotonic() - last_s >= 0.9 * TIMEOUT_S:
            self.notes.append(
                f'{self._name} gave no image for {TIMEOUT_S:.0f} s after {number} images, so it '
                'was taken to be over.'
            )
        elif self.is_endless:
            self.notes.append(f'{self._name} ended after {number} images.')
        else:
            self.notes += missing_frames(self._name, self.num_frames, number)

    def _opened(self) -> AbstractContextManager[cv2.VideoCapture]:
        limit_ms = round(1000 * TIMEOUT_S)
        return opened(
            self._address,
            cv2.CAP_GSTREAMER if is_pipeline(self._address) else cv2.CAP_FFMPEG,
            (
                *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit_ms),
                *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit_ms),
            ),
        )

    def _explain(self, waited_s: float) -> str:
        """Say why no image came."""
        if is_pipeline(self._address):
            return (
                f'Expected images of the GStreamer pipeline {self._name}, got none. Does it end '
                'with appsink, and does it run with gst-launch-1.0 and autovideosink instead?'
            )
        text = f'Expected a video at {self._name}, but'
        if waited_s >= 0.9 * TIMEOUT_S:
            return (
                f'{text} no image came within {TIMEOUT_S:.0f} s. Is the sender on, and does a '
                'player such as ffplay or VLC show it from this machine?'
            )
        if reason := _why_no_answer(self._address):
            return f'{text} {reason}. Is the address right, and the sender on?'
        return (
            f'{text} OpenCV finds none there. Are path, user and password right, and does a '
            'player such as ffplay or VLC show it from this machine? Usual are rtsp://, '
            'http://, https://, rtmp:// and udp://.'
        )


def is_url(name: str) -> bool:
    """Tell whether a name is a URL.

    >>> is_url('rtsp://10.0.0.5/stream'), is_url('clips/a.mp4')
    (True, False)
    """
    return _URL.match(name) is not None


def is_pipeline(name: str) -> bool:
    """Tell whether a name is a GStreamer pipeline, whose elements are joined by exclamation marks.

    >>> is_pipeline('videotestsrc ! appsink'), is_pipeline('wow!.mp4')
    (True, False)
    """
    return _PIPELINE.search(name) is not None


def without_password(name: str) -> str:
    """Hide the password of a URL.

    >>> without_password('rtsp://me:secret@10.0.0.5/stream')
    'rtsp://me:***@10.0.0.5/stream'
    """
    return _PASSWORD.sub(r'\1:***@', name)


def _scheme(address: str) -> str:
    return address.partition('://')[0].lower()


def _why_no_answer(address: str) -> str:
    """Ask the server of a URL; returns what it, or the system, says is wrong, or nothing."""
    scheme = _scheme(address)
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or _PORTS.get(scheme)
    except ValueError as error:
        return f'this is no URL: {error}'
    if host is None or port is None:
        return ''
    try:
        socket.create_connection((host, port), _PROBE_S).close()
    except OSError as error:
        return f'{host}:{port} cannot be reached ({error.strerror or error})'
    if scheme in ('http', 'https') and not parts.username:
        try:
            with urllib.request.urlopen(address, timeout=_PROBE_S):
                return ''
        except urllib.error.HTTPError as error:
            return f'the server answers {error.code} {error.reason}'
        except (OSError, ValueError, HTTPException):
            return ''  # it answers, though in another way
    return ''


def _why_no_camera(device: Path) -> str:
    """Say what is wrong with a camera that gives no image, as far as the system tells."""
    if sys.platform != 'linux':
        return 'Is it plugged in, free, and allowed by the settings of the system?'
    if not device.exists():
        there = sorted(str(path) for path in Path('/dev').glob('video*'))
        known = f'this machine has {", ".join(there)}' if there else 'this machine has no camera'
        return (
            f'There is no {device}; {known}. Is it plugged in (ls /dev/video*)? A container '
            'needs --device=/dev/video0.'
        )
    if not device.is_char_device():
        return f'{device} is no device. Name a camera, such as /dev/video0.'
    if not os.access(device, os.R_OK | os.W_OK):
        return f'{device} is not yours to read: be a member of its group (video).'
    return (
        f'Does another program have it (fuser -v {device})? Some cameras have several devices, of '
        'which one has the images: try its neighbours.'
    )
