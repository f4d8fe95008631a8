"""Image topics of a bag as sources of images, read without ROS; see `messages.py` for formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.bags.messages import BagError, BagMessage, BagTopic
from videomt_ros.datasets.compressed import decode_compressed_image
from videomt_ros.datasets.images import FrameError, decode_image
from videomt_ros.datasets.source import SourceFrame

_DECODERS: dict[str, Callable[[Any], NDArray[np.uint8]]] = {
    'sensor_msgs/msg/Image': decode_image,
    'sensor_msgs/msg/CompressedImage': decode_compressed_image,
}
_FIRST_IMAGES = 30
"""Number of first images that decide the frame rate; one of them must be readable."""


class BagImage(NamedTuple):
    """One image of a bag that is not decoded yet."""

    time_ns: int
    """Time at which the recorder received the image."""
    stamp_ns: int
    """Stamp in the image's header; 0 where the driver set none."""
    frame_id: str
    decode: Callable[[], NDArray[np.uint8]]
    """Returns the pixels, (H, W, 3) uint8 RGB that may be read-only, or raises a FrameError."""


class BagImages:
    """The images of one topic of a bag, in the order and time of recording.

    Times are those at which the recorder received the images, which `ros2 bag play` keeps, too;
    the images' own stamps are given beside. See `datasets.source.Source`.
    """

    is_endless = False

    def __init__(self, path: Path, topic: str = '') -> None:
        """Open the bag, choose the topic, and read its first images.

        Args:
            path: a bag's folder, or one .mcap, .db3 or .bag file.
            topic: topic of `sensor_msgs/Image` or `sensor_msgs/CompressedImage`; may be empty if
                there is only one.

        Raises:
            BagError: the bag or the topic cannot be used.
        """
        wanted = 'a topic of sensor_msgs/Image or CompressedImage'
        self._bag = BagTopic(path, _DECODERS, topic, wanted)
        self.path, self.topic = path, self._bag.topic
        self.num_frames: int | None = self._bag.num_announced
        self.notes: list[str] = []
        times: list[int] = []
        first_error, is_readable = '', False
        for image in self._images():
            times.append(image.time_ns)
            if not is_readable:
                error = _error_in(image)
                first_error, is_readable = first_error or error, not error
            if len(times) == _FIRST_IMAGES:
                break
        first_error = first_error or self._bag.first_fault
        if not times and not first_error:
            raise BagError(f'Expected images on {self.topic} of {path}, got none to be read.')
        if not is_readable:
            raise BagError(f'Cannot read the images on {self.topic} of {path}: {first_error}')
        period_s = float(np.median(np.diff(times))) / 1e9 if len(times) > 1 else 0.0
        self.fps = 1 / period_s if period_s > 0 else 10.0

    @property
    def description(self) -> str:
        """Description of the source for people."""
        return (
            f'topic {self.topic} of the bag {self.path}, '
            f'{self.num_frames} images, {self.fps:.3g} a second'
        )

    def images(self) -> Iterator[BagImage]:
        """Read the images from the first on, without decoding them.

        Every pass gives the same images. After a whole pass `notes` says what was lost.
        """
        num_read = 0
        for image in self._images():
            num_read += 1
            yield image
        self._note_losses(num_read, [])

    def frames(self) -> Iterator[SourceFrame]:
        """Read the images from the first on; those that cannot be read are left out, and noted."""
        num_read = 0
        faults: list[str] = []
        for image in self._images():
            num_read += 1
            try:
                pixels = image.decode()
            except FrameError as error:
                faults.append(str(error))
                continue
            yield SourceFrame(image.time_ns, pixels, image.stamp_ns, image.frame_id)
        self._note_losses(num_read, faults)

    def _images(self) -> Iterator[BagImage]:
        for message in self._bag.messages():
            yield BagImage(
                message.time_ns,
                message.stamp_ns,
                message.content.header.frame_id,
                partial(_decode, message),
            )

    def _note_losses(self, num_read: int, faults: list[str]) -> None:
        """Note what a whole pass has lost; `faults` are those of images that cannot be decoded."""
        bag = self._bag
        self.notes = []
        num_messages = num_read + bag.num_faulty
        if faults or bag.num_faulty:
            first = faults[0] if faults else bag.first_fault
            self.notes.append(
                f'{len(faults) + bag.num_faulty} of {num_messages} images are unreadable: {first}'
            )
        is_short = num_messages < bag.num_announced
        if bag.is_cut_off or is_short:
            announced = f' of {bag.num_announced}' if is_short else ''
            self.notes.append(
                f'The bag {self.path} is damaged or was cut off: '
                f'{num_messages}{announced} images on {self.topic} could be read.'
            )


def _decode(message: BagMessage) -> NDArray[np.uint8]:
    try:
        return _DECODERS[message.kind](message.content)
    except FrameError:
        raise
    except Exception as error:  # a decoder's own, such as OpenCV's
        raise FrameError(f'{type(error).__name__}: {error}') from error


def _error_in(image: BagImage) -> str:
    try:
        image.decode()
    except FrameError as error:
        return str(error)
    return ''
