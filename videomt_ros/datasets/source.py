"""A source of images in time: synthetic scene, video file, webcam or bag, behind one face."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class SourceFrame(NamedTuple):
    """One image of a source."""

    time_ns: int
    """When it is to be shown, on a clock of the source's own: only differences count."""
    image: NDArray[np.uint8]
    """RGB, (H, W, 3)."""
    stamp_ns: int | None = None
    """The stamp that the image was recorded with, if it has one."""
    frame_id: str = 'camera'
    """Frame of reference, for the message's header."""


class Source(Protocol):
    """What every source offers. Opening one tries its first image, so that errors come early."""

    fps: float
    """Usual number of images in a second."""
    is_live: bool
    """True if images come when they come, and waiting for one is waiting for the world."""
    topic: str
    """Of a bag; else empty."""
    notes: list[str]
    """What a user should hear about the images that `frames` gave, such as a cut off file."""

    @property
    def num_frames(self) -> int | None:
        """How many there are, as far as it is known; None if it never ends."""
        ...

    @property
    def description(self) -> str:
        """What it is, for a person."""
        ...

    def frames(self) -> Iterator[SourceFrame]:
        """The images from the first, in the order of time."""
        ...
