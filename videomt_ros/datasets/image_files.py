"""Image files as a source of images: a folder of them, those of a pattern, or a single one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path

from videomt_ros.datasets.compressed import decode_image_file, orientation_of
from videomt_ros.datasets.dataset import list_names
from videomt_ros.datasets.image_folder import natural_key, regular_stamps, stamps_of_names
from videomt_ros.datasets.images import FrameError, GreyRange, grey_remark
from videomt_ros.datasets.source import SourceFrame
from videomt_ros.datasets.video import VideoError

READ_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff')
"""Ends of the names of the files that are taken for images."""
FPS = 10.0
"""Images per second of files whose names tell no times."""
_NUMBERED = re.compile(r'%(0?)(\d*)d')
"""Place of the number in a pattern such as frame_%05d.png."""


class ImageFiles:
    """Image files in the order of their names; see `datasets.source.Source`.

    Names that are stamps in nanoseconds give the times, as in the folders of data sets.
    """

    is_endless = False
    topic = ''

    def __init__(
        self,
        paths: Sequence[Path],
        name: str,
        grey_range: GreyRange | None = None,
        keep_depth: bool = False,
    ) -> None:
        """Read the first image.

        Args:
            paths: the files, one or more, in any order.
            name: name of the source for people.
            grey_range: values of 16-bit images that become black and white; see
                `images.to_eight_bits`.
            keep_depth: give 16-bit images as they are, for a node that reduces them by itself.

        Raises:
            VideoError: none of the files is an image that can be read.
        """
        self._paths = sorted(paths, key=_in_order)
        self._name = name
        stamps = stamps_of_names([path.name for path in self._paths])
        self._has_stamps = stamps is not None
        self._stamps = stamps or regular_stamps(len(self._paths), FPS)
        span_s = (self._stamps[-1] - self._stamps[0]) * 1e-9
        self.fps = (len(self._paths) - 1) / span_s if span_s else FPS
        self.num_frames = len(self._paths)
        self.notes: list[str] = []
        self._grey_range, self._keep_depth = grey_range, keep_depth
        faults = []
        for path in self._paths:
            try:
                data = path.read_bytes()
                is_reduced = grey_range is None and not keep_depth
                self._remarks = list(_remarks_on(path.name, data, is_reduced))
                self.notes = list(self._remarks)
                return
            except (FrameError, OSError) as error:
                faults.append(f'{path}: {error}')
        others = ['', ' So is the other file.', ' So are all others.'][min(len(faults), 3) - 1]
        raise VideoError(f'Expected an image that can be read. {faults[0]}{others}')

    @property
    def description(self) -> str:
        """Description of the source for people."""
        if len(self._paths) == 1:
            return f'image {self._name}'
        return (
            f'{self._name}, {len(self._paths)} images, {self.fps:.4g} a second'
            f'{"" if self._has_stamps else " (their names tell no times)"}'
        )

    def frames(self) -> Iterator[SourceFrame]:
        """Read the images that can be read."""
        self.notes = list(self._remarks)
        faults = []
        for path, time_ns in zip(self._paths, self._stamps, strict=True):
            try:
                image = decode_image_file(
                    path.read_bytes(), '', self._grey_range, self._keep_depth
                )
            except (FrameError, OSError) as error:
                faults.append(f'{path.name}: {error}')
                continue
            yield SourceFrame(time_ns, image, time_ns if self._has_stamps else None)
        if faults:
            self.notes.append(
                f'{len(faults)} of {len(self._paths)} images could not be read and were left '
                f'out: {list_names(faults)}'
            )


def is_image(path: Path) -> bool:
    """Tell by its name whether a file is taken for an image; hidden files are not."""
    return path.suffix.lower() in READ_SUFFIXES and not path.name.startswith('.')


def images_in(folder: Path) -> list[Path]:
    """List the images of a folder.

    Raises:
        VideoError: it holds none; says what it holds instead.
    """
    content = sorted(path for path in folder.iterdir() if not path.name.startswith('.'))
    if images := [path for path in content if is_image(path) and path.is_file()]:
        return images
    folders = [path.name for path in content if path.is_dir()]
    files = [path.name for path in content if not path.is_dir()]
    held = 'it is empty' if not content else 'it holds'
    held += f' the folders {list_names(folders)}' if folders else ''
    held += ' and' if folders and files else ''
    held += f' the files {list_names(files)}' if files else ''
    more = ' Name one of them.' if content else ''
    raise VideoError(
        f'Expected a rosbag2 folder (metadata.yaml, .db3 or .mcap files) or a folder of images '
        f'({" ".join(READ_SUFFIXES)}), got the folder {folder}: {held}.{more}'
    )


def is_pattern(name: str) -> bool:
    """Tell whether a name stands for several files, as `frames/*.jpg` and `frame_%05d.png` do."""
    return has_magic(name) or _NUMBERED.search(Path(name).name) is not None


def files_of(pattern: str) -> list[Path]:
    """List the files that a pattern stands for, in order of name."""
    if has_magic(pattern):
        return [path for path in map(Path, sorted(glob(pattern))) if path.is_file()]
    folder, name = Path(pattern).parent, Path(pattern).name
    parts, place = [], 0
    for match in _NUMBERED.finditer(name):
        # As printf writes it: at least so many digits.
        digits = f'{{{match[2]},}}' if match[1] and match[2] else '+'
        parts += [re.escape(name[place : match.start()]), rf'\d{digits}']
        place = match.end()
    wanted = re.compile(''.join([*parts, re.escape(name[place:])]))
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if wanted.fullmatch(path.name))


def _remarks_on(name: str, data: bytes, is_reduced: bool) -> Iterator[str]:
    """Remark on what a user does not expect of an image.

    Args:
        name: name of the file.
        data: the file.
        is_reduced: whether 16 bits are reduced to 8 by their full range.

    Raises:
        FrameError: it cannot be read.
    """
    image = decode_image_file(data, keep_depth=True)
    if is_reduced:
        yield from grey_remark(name, image)
    if (orientation := orientation_of(data)) != 1:
        yield (
            f'{name} has an EXIF orientation ({orientation}), which is ignored as in data sets: '
            'it is shown as it is stored. Turn the pixels themselves, such as by mogrify '
            '-auto-orient.'
        )


def _in_order(path: Path) -> tuple[str, list[tuple[int, str]]]:
    return str(path.parent), natural_key(path.name)
