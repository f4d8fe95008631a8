"""A page of labelled pictures side by side, such as a few frames of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.recording import Recording

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BACKGROUND, _TEXT, _FAINT = 255, (30, 30, 30), (110, 110, 110)
_WARNING = (200, 30, 0)
_MARGIN = 12


def write_contact_sheet(
    recording: Recording,
    start_ns: int,
    title: str,
    path: Path,
    num_images: int = 8,
    note: str = '',
) -> None:
    """Write a page of overlay images of a recording, with time and number of tracks.

    Args:
        recording: a recording with at least one still.
        start_ns: stamp from which time is counted.
        title: title of the page, one line.
        path: path of the PNG file to write.
        num_images: number of images, chosen evenly in time; fewer if the recording has fewer.
        note: warning below the title, one line.
    """
    stamps = _evenly_in_time(recording.stills(), num_images)
    num_seen = {
        record['stamp_ns']: sum(track['area'] > 0 for track in record['tracks'])
        for record in recording.tracks()
    }
    captions = [
        f'{(stamp_ns - start_ns) / 1e9:.1f} s, {num_seen.get(stamp_ns, 0)} tracks'
        for stamp_ns in stamps
    ]
    images = [recording.still(stamp_ns) for stamp_ns in stamps]
    page = contact_sheet(images, captions, title, note=note)
    if not cv2.imwrite(str(path), cv2.cvtColor(page, cv2.COLOR_RGB2BGR)):
        raise OSError(f'Cannot write {path}. Is the disk full?')


def _evenly_in_time(stamps: Sequence[int], count: int) -> list[int]:
    """Divide time into `count` equal parts, and choose the stamp nearest to the middle of each."""
    count = min(count, len(stamps))
    left = list(stamps)
    chosen = []
    for part in range(count):
        middle_ns = stamps[0] + (stamps[-1] - stamps[0]) * (part + 0.5) / count
        nearest = min(left, key=lambda stamp_ns: abs(stamp_ns - middle_ns))
        left.remove(nearest)
        chosen.append(nearest)
    return sorted(chosen)


def contact_sheet(
    images: Sequence[NDArray[np.uint8]],
    captions: Sequence[str],
    title: str,
    columns: int = 4,
    tile_width: int = 480,
    note: str = '',
) -> NDArray[np.uint8]:
    """Lay images out row by row, each with its caption below.

    Args:
        images: at least one image, (H, W, 3) uint8 RGB.
        captions: caption of each image, one line.
        title: title of the page, one line.
        columns: number of images in a row.
        tile_width: width of an image on the page in pixels; larger ones shrink, smaller ones grow
            by a whole factor, so that their pixels stay sharp.
        note: warning below the title, one line.

    Returns:
        The page, (H, W, 3) uint8 RGB.
    """
    tiles = [_tile(image, tile_width) for image in images]
    height = max(tile.shape[0] for tile in tiles)
    width = max(tile.shape[1] for tile in tiles)
    head, below = (72 if note else 44), 34
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    page = np.full(
        (
            head + rows * (height + below + _MARGIN),
            _MARGIN + columns * (width + _MARGIN),
            3,
        ),
        _BACKGROUND,
        np.uint8,
    )
    _write(page, title, (_MARGIN, 30), 0.7, _TEXT)
    _write(page, note, (_MARGIN, 58), 0.6, _WARNING)
    for place, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        row, column = divmod(place, columns)
        y = head + row * (height + below + _MARGIN)
        x = _MARGIN + column * (width + _MARGIN)
        page[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        _write(page, caption, (x, y + tile.shape[0] + 23), 0.55, _FAINT)
    return page


def _tile(image: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    scale = width / image.shape[1]
    if scale < 1:
        size = (width, max(1, round(image.shape[0] * scale)))
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    steps = int(scale)
    return np.repeat(np.repeat(image, steps, axis=0), steps, axis=1)


def _write(
    page: NDArray[np.uint8],
    text: str,
    place: tuple[int, int],
    scale: float,
    colour: tuple[int, int, int],
) -> None:
    # OpenCV's font has only ASCII.
    text = text.encode('ascii', 'replace').decode()
    cv2.putText(page, text, place, _FONT, scale, colour, 1, cv2.LINE_AA)
