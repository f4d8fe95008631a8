"""The interface of all sources of images, such as synthetic scenes, videos, cameras and bags."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

SOURCES = (
    'a video file, an image, a folder of images, a pattern such as frames/*.jpg or '
    'frame_%05d.png, a bag (rosbag2 folder, .mcap, .db3), a webcam (0 or /dev/video0), a URL that '
    'OpenCV opens (rtsp://, http://, ...), or synthetic'
)
"""What `datasets.opening.open_source` takes, for people."""


class SourceFrame(NamedTuple):
    """One image of a source."""

    time_ns: int
    """Time at which to show the image, on the source's own clock; only differences count."""
    image: NDArray[Any]
    """Pixels, (H, W, 3) RGB of 8 bits, or of 16 where a source was asked to keep them."""
    stamp_ns: int | None = None
    """Stamp that the image was recorded with, if it has one."""
    frame_id: str = 'camera'
    """Frame of reference in the message's header."""


class Source(Protocol):
    """A source of images; opening one reads its first image, so that errors come early."""

    fps: float
    """Usual number of images per second."""
    is_endless: bool
    """Whether the source is a camera, which has no end and gives images in real time."""
    topic: str
    """Image topic of a bag; empty for other sources."""
    notes: list[str]
    """Remarks for the user on the images that `frames` gave, such as a file that was cut off."""

    @property
    def num_frames(self) -> int | None:
        """Number of images as far as it is known; None if the source has no end."""
        ...

    @property
    def description(self) -> str:
        """Description of the source for people."""
        ...

    def frames(self) -> Iterator[SourceFrame]:
        """Read the images from the first on, in the order of time."""
        ...
