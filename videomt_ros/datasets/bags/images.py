"""Image topics of a bag as sources of images, read without ROS; see `messages.py` for formats."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from videomt_ros.datasets.bags.files import BagError
from videomt_ros.datasets.bags.messages import BagMessage, BagTopic
from videomt_ros.datasets.bags.times import PlayClock, Times, choose_times
from videomt_ros.datasets.compressed import decode_compressed_image, orientation_of
from videomt_ros.datasets.images import FrameError, GreyRange, decode_image, grey_remark
from videomt_ros.datasets.source import SourceFrame


class _Decoder(Protocol):
    """A function that turns a message into pixels."""

    def __call__(
        self, msg: Any, grey_range: GreyRange | None = None, keep_depth: bool = False
    ) -> NDArray[Any]:
        """Decode a message."""
        ...


_COMPRESSED = 'sensor_msgs/msg/CompressedImage'
_DECODERS: dict[str, _Decoder] = {
    'sensor_msgs/msg/Image': decode_image,
    _COMPRESSED: decode_compressed_image,
}
_FIRST_IMAGES = 30
"""Number of first images that decide how they are timed; one of them must be readable."""


class BagImage(NamedTuple):
    """One image of a bag that is not decoded yet."""

    time_ns: int
    """Time at which to play the image; the one at which it was recorded, if that can be used."""
    stamp_ns: int
    """Stamp in the image's header; 0 where the driver set none, or the same for all images."""
    frame_id: str
    decode: Callable[[], NDArray[Any]]
    """Returns the pixels, (H, W, 3) RGB that may be read-only, or raises a FrameError."""


class BagImages:
    """The images of one topic of a bag, in the order of recording.

    Times are those at which the recorder received the images, which `ros2 bag play` keeps, too,
    unless they are of no use; see `times.py`. The images' own stamps are given beside. An image
    that was recorded twice, with one stamp and the same bytes, is given once. See
    `datasets.source.Source`.
    """

    is_endless = False

    def __init__(
        self,
        path: Path,
        topic: str = '',
        grey_range: GreyRange | None = None,
        keep_depth: bool = False,
    ) -> None:
        """Open the bag, choose the topic, and read its first images.

        Args:
            path: a bag's folder, or one .mcap, .db3 or .bag file.
            topic: topic of `sensor_msgs/Image` or `sensor_msgs/CompressedImage`; may be empty if
                there is only one.
            grey_range: values of 16-bit images that become black and white; see
                `datasets.images.to_eight_bits`.
            keep_depth: give 16-bit images as they are, for a node that reduces them by itself.

        Raises:
            BagError: the bag or the topic cannot be used.
        """
        wanted = 'a topic of sensor_msgs/Image or CompressedImage'
        self._bag = BagTopic(path, _DECODERS, topic, wanted)
        self.path, self.topic = path, self._bag.topic
        self.num_frames: int | None = self._bag.num_stored
        self._grey_range, self._keep_depth = grey_range, keep_depth
        messages = list(islice(self._bag.messages(), _FIRST_IMAGES))
        if not messages and not self._bag.first_fault:
            raise BagError(f'Expected images on {self.topic} of {path}, got none to be read.')
        first = self._first_readable(messages)
        self._times = choose_times(
            [message.time_ns for message in messages],
            [message.stamp_ns for message in messages],
        )
        self.fps = 1e9 / self._times.period_ns
        self._grey = grey_remark(f'Images on {self.topic}', first)
        turns = {orientation_of(m.content.data) for m in messages if m.kind == _COMPRESSED}
        self.orientation = max(turns, default=1)
        """EXIF orientation of one of the first images that is not upright; 1 if all are."""
        self._found = [*self._bag.notes, *self._remarks_on()]
        self.notes: list[str] = self._remarks()

    @property
    def description(self) -> str:
        """Description of the source for people."""
        return (
            f'topic {self.topic} of the bag {self.path}, '
            f'{self.num_frames} images, {self.fps:.3g} a second'
        )

    @property
    def time_name(self) -> str:
        """Name of the time at which an image is played, for people."""
        if self._times.source == 'record':
            return 'the time of their recording'
        return 'the time between their neighbours' if self._times.has_stamps else 'an assumed time'

    def with_grey_range(self, grey_range: GreyRange | None) -> BagImages:
        """Return the same images, read with another range of grey values."""
        other = copy.copy(self)
        other._grey_range = grey_range
        gone = set(self._remarks()) - set(other._remarks())
        other.notes = [note for note in self.notes if note not in gone]
        return other

    def images(self) -> Iterator[BagImage]:
        """Read the images from the first on, without decoding them.

        Every pass gives the same images. After a whole pass `notes` says what was lost.
        """
        counts = _Pass(self._times)
        for message in self._bag.messages():
            if (image := self._image_of(message, counts)) is not None:
                yield image
        self._note_losses(counts, [])

    def frames(self) -> Iterator[SourceFrame]:
        """Read the images from the first on; those that cannot be read are left out, and noted."""
        counts = _Pass(self._times)
        faults: list[str] = []
        for message in self._bag.messages():
            if (image := self._image_of(message, counts)) is None:
                continue
            try:
                pixels = image.decode()
            except FrameError as error:
                faults.append(str(error))
                continue
            stamp_ns = image.stamp_ns if self._times.has_stamps else None
            yield SourceFrame(image.time_ns, pixels, stamp_ns, image.frame_id)
        self._note_losses(counts, faults)

    def _image_of(self, message: BagMessage, counts: _Pass) -> BagImage | None:
        """Describe the image of a message; None if it was recorded before."""
        counts.num_read += 1
        stamp_ns = message.stamp_ns if self._times.has_stamps else 0
        if stamp_ns:
            content = zlib.crc32(message.content.data)
            if counts.contents.get(stamp_ns) == content:
                counts.num_twice += 1
                return None
            counts.contents.setdefault(stamp_ns, content)
        return BagImage(
            counts.clock.time_of(message.time_ns, stamp_ns),
            stamp_ns,
            message.content.header.frame_id,
            partial(_decode, message, self._grey_range, self._keep_depth),
        )

    def _first_readable(self, messages: Sequence[BagMessage]) -> NDArray[Any]:
        """Decode the first image that can be read, with all of its bits.

        Raises:
            BagError: there is none among the first images.
        """
        fault = ''
        for message in messages:
            try:
                return _decode(message, None, keep_depth=True)
            except FrameError as error:
                fault = fault or str(error)
        fault = fault or self._bag.first_fault
        raise BagError(f'Cannot read the images on {self.topic} of {self.path}: {fault}')

    def _remarks_on(self) -> Iterator[str]:
        """Remark on what a user does not expect of the images."""
        if self._times.note:
            yield f'The images on {self.topic} have {self._times.note}.'
        if self.orientation != 1:
            yield (
                f'The images on {self.topic} have an EXIF orientation ({self.orientation}), which '
                'is ignored: labels have to count the pixels as they are stored.'
            )

    def _remarks(self) -> list[str]:
        """List what was found at the opening."""
        is_reduced = self._grey_range is None and not self._keep_depth
        return [*self._found, *(self._grey if is_reduced else [])]

    def _note_losses(self, counts: _Pass, faults: list[str]) -> None:
        """Note what a whole pass has lost; `faults` are those of images that cannot be decoded."""
        bag = self._bag
        self.notes = self._remarks()
        num_messages = counts.num_read + bag.num_faulty
        if counts.num_twice:
            self.notes.append(
                f'{counts.num_twice} of {num_messages} images on {self.topic} are in the bag a '
                'second time, with one stamp and the same bytes; each was taken once.'
            )
        if counts.clock.num_back:
            self.notes.append(
                f'The times of the images on {self.topic} go back {counts.clock.num_back} times; '
                'there they follow each other at the usual rate.'
            )
        if faults or bag.num_faulty:
            first = faults[0] if faults else bag.first_fault
            self.notes.append(
                f'{len(faults) + bag.num_faulty} of {num_messages} images are unreadable: {first}'
            )
        is_short = num_messages < bag.num_announced
        if bag.is_cut_off or (is_short and num_messages < bag.num_stored):
            announced = f' of {bag.num_announced}' if is_short else ''
            self.notes.append(
                f'The bag {self.path} is damaged or was cut off: '
                f'{num_messages}{announced} images on {self.topic} could be read.'
            )
        elif is_short:
            self.notes.append(
                f'Of {bag.num_announced} images on {self.topic} that metadata.yaml counts, '
                f'{num_messages} could be read.'
            )


class _Pass:
    """What is counted while the images are read once."""

    def __init__(self, times: Times) -> None:
        self.clock = PlayClock(times)
        self.num_read = self.num_twice = 0
        self.contents: dict[int, int] = {}
        """Checksum of the first image of each stamp."""


def _decode(message: BagMessage, grey_range: GreyRange | None, keep_depth: bool) -> NDArray[Any]:
    try:
        return _DECODERS[message.kind](message.content, grey_range, keep_depth)
    except FrameError:
        raise
    except Exception as error:  # a decoder's own, such as OpenCV's
        raise FrameError(f'{type(error).__name__}: {error}') from error
