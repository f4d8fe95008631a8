"""Recordings of the segmenter's results on the disk: tracks, id images and overlay.

A folder holds `tracks.jsonl` (one line per frame), `ids/<stamp_ns>.png` (16 bits, the pixel is the
track id), `overlay.mp4`, and `stills/<stamp_ns>.npy`, some overlay images without loss.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_STILLS = 32
"""Limit of stills: beyond it every second one is deleted, and half as many are kept thereafter."""


class RecordingWriter:
    """Writes a recording as results arrive; memory does not grow with its length."""

    def __init__(self, folder: Path, fps: float) -> None:
        """Start a recording.

        Args:
            folder: new or empty folder.
            fps: frame rate of `overlay.mp4`, in which a missing frame repeats the one before it.
        """
        (folder / 'ids').mkdir(parents=True)
        (folder / 'stills').mkdir()
        self._folder, self._fps = folder, fps
        self._tracks: TextIO = (folder / 'tracks.jsonl').open('w', encoding='utf-8')
        self._video: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._first_ns = 0
        self._last_image: NDArray[np.uint8] | None = None
        self._num_shown = 0
        self._num_overlays = 0
        self._stills: list[Path] = []
        self._still_stride = 1

    def add_tracks(self, record: dict[str, Any]) -> None:
        """Add the list of tracks of one frame, a record that JSON can hold."""
        self._tracks.write(json.dumps(record) + '\n')

    def add_ids(self, stamp_ns: int, ids: NDArray[np.uint16]) -> None:
        """Add the id image of one frame, (H, W)."""
        path = self._folder / 'ids' / f'{stamp_ns}.png'
        # The lowest compression, since the recorder must keep up with the node.
        if not cv2.imwrite(str(path), ids, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
            raise OSError(f'Cannot write {path}. Is the disk full?')

    def add_overlay(self, stamp_ns: int, image: NDArray[np.uint8]) -> None:
        """Add the overlay of one frame, (H, W, 3) RGB."""
        if self._num_overlays % self._still_stride == 0:
            self._add_still(stamp_ns, image)
        self._num_overlays += 1
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if self._video is None or self._last_image is None:
            self._open_video(image)
            self._first_ns, self._last_image = stamp_ns, image
        assert self._video is not None
        if image.shape[:2] != self._size:
            image = cv2.resize(image, self._size[::-1])
        place = round((stamp_ns - self._first_ns) * 1e-9 * self._fps)
        for _ in range(place - self._num_shown):
            self._video.write(self._last_image)
            self._num_shown += 1
        self._video.write(image)
        self._num_shown += 1
        self._last_image = image

    def close(self) -> None:
        """Complete the files."""
        self._tracks.close()
        if self._video is not None:
            self._video.release()
            self._video = None

    def _open_video(self, image: NDArray[np.uint8]) -> None:
        path = self._folder / 'overlay.mp4'
        self._size = image.shape[:2]
        code = cv2.VideoWriter.fourcc(*'mp4v')
        self._video = cv2.VideoWriter(str(path), code, self._fps, self._size[::-1])
        if not self._video.isOpened():
            raise OSError(
                f'OpenCV cannot write {path} as MPEG-4 at {self._fps:.4g} frames a second.'
            )

    def _add_still(self, stamp_ns: int, image: NDArray[np.uint8]) -> None:
        # Uncompressed: the PNG of a noisy image takes longer than everything else here together.
        path = self._folder / 'stills' / f'{stamp_ns}.npy'
        np.save(path, image)
        self._stills.append(path)
        if len(self._stills) > MAX_STILLS:
            for given_up in self._stills[1::2]:
                given_up.unlink()
            self._stills = self._stills[::2]
            self._still_stride *= 2


class Recording:
    """Reads a recording that `RecordingWriter` wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.video = folder / 'overlay.mp4'

    def tracks(self) -> Iterator[dict[str, Any]]:
        """Read the records in the order of arrival."""
        with (self.folder / 'tracks.jsonl').open(encoding='utf-8') as file:
            for line in file:
                yield json.loads(line)

    def ids(self, stamp_ns: int) -> NDArray[np.uint16] | None:
        """Read the id image of a frame, (H, W); None if it did not arrive."""
        path = self.folder / 'ids' / f'{stamp_ns}.png'
        if not path.exists():
            return None
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert image is not None, path
        return image.astype(np.uint16)

    def stills(self) -> list[int]:
        """List the stamps of the overlay images that are kept as stills, in the order of time."""
        return sorted(int(path.stem) for path in (self.folder / 'stills').glob('*.npy'))

    def still(self, stamp_ns: int) -> NDArray[np.uint8]:
        """Read one of the stills, (H, W, 3) RGB."""
        return np.load(self.folder / 'stills' / f'{stamp_ns}.npy')
