"""Videos that are folders of images, one file per frame: found at opening, read one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from videomt_ros.datasets.dataset import DatasetError, VideoFrame
from videomt_ros.datasets.mask_png import UNREADABLE

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')
_FIRST_STAMP_NS = 10**15
"""Whole numbers from here on are stamps (11 days after 1970) rather than counts of frames."""


@dataclass(frozen=True)
class ImageFolderVideo:
    """One video whose frames are image files. See `datasets.dataset.Video`."""

    video_id: int | str
    name: str
    size: tuple[int, int]
    """(height, width) that every image must have."""
    frame_names: tuple[str, ...]
    """T names, as the annotations have them."""
    image_paths: tuple[Path, ...]
    """T files, in the order of time."""
    stamps_ns: tuple[int, ...]
    """T stamps."""

    def frames(self) -> Iterator[VideoFrame]:
        """The T images; one is held at a time.

        Raises:
            DatasetError: an image cannot be read, ends early, or has another size.
        """
        for index in range(len(self.image_paths)):
            yield VideoFrame(index, self.stamps_ns[index], self.image(index))

    def image(self, index: int) -> NDArray[np.uint8]:
        """Read one image alone: RGB, (H, W, 3).

        Raises:
            DatasetError: it cannot be read, ends early, or has another size.
        """
        path = self.image_paths[index]
        try:
            with Image.open(path) as file:
                # As it is stored, whatever turn its EXIF asks for: so masks count pixels.
                image = file.convert('RGB')
        except UNREADABLE as error:
            raise DatasetError(
                path, [f'Expected an image that Pillow can read: {error}.']
            ) from error
        if (image.height, image.width) != self.size:
            raise DatasetError(
                path,
                [
                    f'Expected {self.size[1]} x {self.size[0]} pixels (width x height), '
                    f'got {image.width} x {image.height}.'
                ],
            )
        return np.array(image)


def find_files(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Stem -> file, by name, of the files of a folder; empty where there is no folder.

    Hidden files are no frames: macOS leaves some beside each file.
    """
    if not folder.is_dir():
        return {}
    return {
        path.stem: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in suffixes and not path.name.startswith('.')
    }


def regular_stamps(count: int, fps: float) -> tuple[int, ...]:
    """Stamps of frames that come `fps` times a second, from 0."""
    return tuple(round(index * 1e9 / fps) for index in range(count))


def stamps_of_names(names: Sequence[str]) -> tuple[int, ...] | None:
    """Stamps where the stem of every name is a rising number of nanoseconds, else None."""
    stems = [Path(name).stem for name in names]
    if not stems or not all(stem.isascii() and stem.isdigit() for stem in stems):
        return None
    stamps = tuple(int(stem) for stem in stems)
    rising = all(later > earlier for earlier, later in zip(stamps, stamps[1:], strict=False))
    return stamps if rising and stamps[0] >= _FIRST_STAMP_NS else None


def is_plain_name(name: object) -> bool:
    """True for the name of a file or folder that cannot lead out of the folder it is put in."""
    return (
        isinstance(name, str)
        and name not in ('', '.', '..')
        and not any(sign in name for sign in '/\\\0')
    )
