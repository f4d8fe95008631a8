"""Videos stored as folders of images, one file per frame; images are read one at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.compressed import decode_image_file, orientation_of, turn_hint
from videomt_ros.datasets.dataset import DatasetError, VideoFrame
from videomt_ros.datasets.images import FrameError, GreyRange, grey_remark

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')
_NUM_LOOKED_AT = 20
"""Number of videos whose first image is looked at before a run."""
_FIRST_STAMP_NS = 10**15
"""Smallest number that is taken for a stamp (11 days after 1970) and not for a frame number."""


@dataclass(frozen=True)
class ImageFolderVideo:
    """One video whose frames are image files; see `datasets.dataset.Video`."""

    video_id: int | str
    name: str
    size: tuple[int, int]
    """Size (height, width) that every image must have."""
    frame_names: tuple[str, ...]
    """T names of the frames in the annotations."""
    image_paths: tuple[Path, ...]
    """T image files in the order of time."""
    stamps_ns: tuple[int, ...]
    """T stamps in nanoseconds."""
    grey_range: GreyRange | None = None
    """Values of 16-bit images that become black and white; see `images.to_eight_bits`."""

    def with_grey_range(self, grey_range: GreyRange | None) -> ImageFolderVideo:
        """Return the same video, read with another range of grey values."""
        return replace(self, grey_range=grey_range)

    def frames(self) -> Iterator[VideoFrame]:
        """Read the T images; one is in memory at a time.

        Raises:
            DatasetError: an image cannot be read, ends early, or has another size.
        """
        for index in range(len(self.image_paths)):
            yield VideoFrame(index, self.stamps_ns[index], self.image(index))

    def image(self, index: int) -> NDArray[np.uint8]:
        """Read one image, (H, W, 3) RGB.

        Raises:
            DatasetError: it cannot be read, ends early, or has another size.
        """
        return read_image(self.image_paths[index], self.size, self.grey_range)[1]


def read_image(
    path: Path, size: tuple[int, int], grey_range: GreyRange | None = None
) -> tuple[bytes, NDArray[np.uint8]]:
    """Read an image file that must have a `size` (height, width).

    Returns:
        The file, and its pixels, (H, W, 3) RGB.

    Raises:
        DatasetError: it cannot be read, ends early, or has another size.
    """
    try:
        data = path.read_bytes()
        # EXIF orientation is ignored, since the masks count pixels as they are stored.
        image = decode_image_file(data, grey_range=grey_range)
    except FileNotFoundError as error:
        raise DatasetError(path, ['There is no such file.']) from error
    except OSError as error:
        raise DatasetError(path, [f'Expected an image that can be read: {error}.']) from error
    except FrameError as error:
        raise DatasetError(path, [str(error)]) from error
    height, width = image.shape[:2]
    if (height, width) != size:
        raise DatasetError(
            path,
            [
                f'Expected {size[1]} x {size[0]} pixels (width x height), '
                f'got {width} x {height}.{turn_hint(orientation_of(data))}'
            ],
        )
    return data, image


def remarks_on_images(videos: Sequence[object]) -> list[str]:
    """Remark on what a user does not expect of images, by the first one of the first videos.

    Args:
        videos: videos of a data set; those that are no folders of images are passed over.
    """
    remarks = []
    for video in videos[:_NUM_LOOKED_AT]:
        if not isinstance(video, ImageFolderVideo) or not video.image_paths:
            continue
        path = video.image_paths[0]
        try:
            data = path.read_bytes()
            pixels = decode_image_file(data, keep_depth=True)
        except (OSError, FrameError):
            continue  # reading the video says what is wrong
        if (orientation := orientation_of(data)) != 1:
            remarks.append(
                f'{path} has an EXIF orientation ({orientation}), which is ignored, as in all '
                'images: labels have to count the pixels as they are stored.'
            )
        if video.grey_range is None:
            remarks += grey_remark(path, pixels)
        if remarks:
            break
    return remarks


def find_files(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Map the stems of a folder's files to their paths, in order of name; empty without a folder.

    Hidden files are left out: macOS leaves some beside each file.
    """
    if not folder.is_dir():
        return {}
    return {
        path.stem: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in suffixes and not path.name.startswith('.')
    }


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names by the numbers in them.

    >>> sorted(['frame10', 'frame2'], key=natural_key)
    ['frame2', 'frame10']
    """
    words = re.split(r'(\d+)', name)
    return [(int(word) if word.isdecimal() else 0, word) for word in words]


def regular_stamps(count: int, fps: float) -> tuple[int, ...]:
    """Return `count` stamps from 0 on, `fps` of them per second."""
    return tuple(round(index * 1e9 / fps) for index in range(count))


def stamps_of_names(names: Sequence[str]) -> tuple[int, ...] | None:
    """Return stamps if all stems are rising numbers of nanoseconds, else None."""
    stems = [Path(name).stem for name in names]
    if not stems or not all(stem.isascii() and stem.isdigit() for stem in stems):
        return None
    stamps = tuple(int(stem) for stem in stems)
    rising = all(later > earlier for earlier, later in zip(stamps, stamps[1:], strict=False))
    return stamps if rising and stamps[0] >= _FIRST_STAMP_NS else None


def is_plain_name(name: object) -> bool:
    """Tell whether a name stays within its folder when it is used for a file."""
    return (
        isinstance(name, str)
        and name not in ('', '.', '..')
        and not any(sign in name for sign in '/\\\0')
    )
