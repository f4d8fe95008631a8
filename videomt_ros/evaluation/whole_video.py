"""The published protocol: queries are classified by their mean logits over the whole video.

VidEoMT (arXiv 2602.17807) and the DVIS family of methods score a video after its last frame. The
class logits of each query are averaged over all frames, which decides what is in the video. Then
each frame's mask logits are resized to the padded input, the padding is cut off, and they are
resized to the image. Until the end of the video the mask logits of all queries wait in a file.

- instances: the pairs of query and class with the largest probabilities; a mask is logits > 0.
- panoptic: queries whose likeliest class is an object or stuff and above SCORE_THRESHOLD compete
  for each pixel with score x mask probability. A segment is kept if, over all frames together,
  it wins OVERLAP_THRESHOLD of the area of its own masks.
- semantic: the class with the largest sum over the queries of class x mask probability.

Letters: Q queries, N chosen queries, K classes, h w mask grid, H W image size.
"""

from __future__ import annotations

import logging
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.inference import postprocess
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.model.network import Outputs

SPOOL_LIMIT = 8 * 2**30
"""Largest number of bytes of mask logits that wait on the disk for the end of a video. A frame of
the released models takes 46 MB at 720p in half precision, so this is enough for 180 frames."""
NUM_PAIRS = {'ovis': 20}
"""Number of pairs of query and class in the result of a video, by data set; 10 for all others. The
released configurations set 10 for YouTube-VIS, and OVIS has the default of the code, 20."""
SCORE_THRESHOLD = 0.8
OVERLAP_THRESHOLD = 0.8
MASK_THRESHOLD = 0.5
_CHUNK = 8
"""Number of masks resized at once, which bounds the memory."""

_logger = logging.getLogger(__name__)


class Choice(NamedTuple):
    """A query that is part of the result of a video."""

    query: int
    class_id: int
    score: float
    """Probability of the class according to the averaged logits."""


@dataclass(frozen=True)
class MaskFrame:
    """The mask logits of one annotated frame at the size of the mask grid."""

    index: int
    geometry: Geometry
    read: Callable[[Sequence[int]], Tensor]
    """Reads the mask logits (N, h, w) of queries; they are on the network's device."""


class WholeVideo:
    """Accumulates the outputs of the frames of a video, with at most one frame in memory."""

    def __init__(self, folder: Path, limit: int = SPOOL_LIMIT) -> None:
        """Start a video.

        Args:
            folder: folder for a file of mask logits, which disappears with the process.
            limit: largest size of that file in bytes. With more, or on a full disk, `is_spooled`
                turns False, and the masks must come from a second pass.
        """
        self._sum: Tensor | None = None
        self._num_frames = 0
        self._folder = folder
        self._limit = limit
        self._file: IO[bytes] | None = None
        self._frames: list[tuple[int, Geometry]] = []
        self._shape: tuple[int, ...] = ()
        self._dtype = torch.float32
        self._device = torch.device('cpu')
        self.is_spooled = True
        """Whether the mask logits of all frames so far are in the file."""

    def close(self) -> None:
        """Close the file."""
        self._drop()

    def add(self, index: int | None, outputs: Outputs, geometry: Geometry) -> None:
        """Take the next frame.

        Args:
            index: place among the annotated frames; None if only the classes of the frame count.
            outputs: outputs of the network for the frame, (1, Q, ...).
            geometry: sizes of the frame.

        Raises:
            ValueError: class logits are not finite, as can happen in half precision.
        """
        # In double precision, so that the order of the frames does not change the mean.
        logits = outputs.class_logits[0].double()
        if not bool(torch.isfinite(logits).all().cpu()):
            raise ValueError(
                f'The class logits of frame {self._num_frames} are not finite numbers. '
                'Use another precision.'
            )
        self._sum = logits if self._sum is None else self._sum + logits
        self._num_frames += 1
        if index is not None and self.is_spooled:
            self._spool(index, outputs.mask_logits[0], geometry)

    def class_logits(self) -> Tensor:
        """Return the mean over the frames, (Q, K + 1) float64."""
        assert self._sum is not None, 'a video of no frames has no classes'
        return self._sum / self._num_frames

    def frames(self) -> Iterator[MaskFrame]:
        """Yield the annotated frames in their order; only while `is_spooled`."""
        for number, (index, geometry) in enumerate(self._frames):

            def read(queries: Sequence[int], number: int = number) -> Tensor:
                return self._read(number, queries)

            yield MaskFrame(index, geometry, read)

    def _spool(self, index: int, mask_logits: Tensor, geometry: Geometry) -> None:
        self._shape, self._dtype = tuple(mask_logits.shape), mask_logits.dtype
        self._device = mask_logits.device
        data = mask_logits.contiguous().cpu().view(torch.uint8).numpy()
        if self._frames and geometry != self._frames[-1][1]:
            self._drop('its frames differ in size')
            return
        if (len(self._frames) + 1) * data.nbytes > self._limit:
            self._drop(f'{self._limit / 2**30:.3g} GiB of mask logits wait already')
            return
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(  # noqa: SIM115 (closed by close)
                dir=self._folder, prefix='spool-', buffering=0
            )
        try:
            self._write(data)
        except OSError as error:
            self._drop(f'writing them failed ({error})')
            return
        self._frames.append((index, geometry))

    def _write(self, data: NDArray[np.uint8]) -> None:
        assert self._file is not None
        view = data.data.cast('B')
        while view:
            view = view[self._file.write(view) :]

    def _read(self, number: int, queries: Sequence[int]) -> Tensor:
        assert self._file is not None
        mask_size = self._shape[1] * self._shape[2] * self._dtype.itemsize
        data = bytearray(len(queries) * mask_size)
        view = memoryview(data)
        for k, query in enumerate(queries):
            start = (number * self._shape[0] + query) * mask_size
            count = os.preadv(self._file.fileno(), [view[k * mask_size :][:mask_size]], start)
            assert count == mask_size
        shape = (len(queries), *self._shape[1:])
        if not queries:
            return torch.zeros(shape, dtype=self._dtype, device=self._device)
        return torch.frombuffer(data, dtype=self._dtype).view(shape).to(self._device)

    def _drop(self, reason: str = '') -> None:
        if reason:
            _logger.warning(
                'The mask logits of this video are not kept: %s. The network will run over it '
                'a second time, with the same results.',
                reason,
            )
        if self._file is not None:
            self._file.close()
        self._file, self._frames, self.is_spooled = None, [], False


@dataclass(frozen=True)
class EndedVideo:
    """A video after its last frame; each family asks for what its results need."""

    class_logits: Tensor
    """Mean over all frames, (Q, K + 1) float64."""
    frames: Iterator[MaskFrame]
    """The annotated frames, which can be read once."""
    thing_classes: Sequence[bool]
    """Whether each of the K classes is countable."""
    num_pairs: int
    """Largest number of pairs of query and class in a result of instances."""
    scratch: Path
    """Folder for files that disappear with the process."""

    def choose_pairs(self, usable: NDArray[np.bool_]) -> list[Choice]:
        """Choose the result of instances; see the function of this name. `usable` is (K,)."""
        return choose_pairs(self.class_logits, usable, self.num_pairs)

    def choose_segments(self) -> list[Choice]:
        """Choose the segments that compete for pixels; see the function of this name."""
        return choose_segments(self.class_logits)

    def instance_masks(
        self, queries: Sequence[int]
    ) -> Iterator[tuple[int, Iterator[NDArray[np.bool_]]]]:
        """Yield each frame's index and the masks (H, W) of queries, which may overlap."""
        for frame in self.frames:
            yield frame.index, instance_masks(frame.read(queries), frame.geometry)

    def panoptic_pixels(self, chosen: Sequence[Choice]) -> Iterator[tuple[int, NDArray[np.int16]]]:
        """Yield each frame's index and pixels; see `panoptic_frames`."""
        return panoptic_frames(self.frames, chosen, self.scratch)

    def semantic_pixels(self) -> Iterator[tuple[int, NDArray[np.int16]]]:
        """Yield each frame's index and the class (H, W) of each pixel."""
        queries = range(len(self.class_logits))
        for frame in self.frames:
            classes, _ = postprocess.semantic_pixels(
                self.class_logits, frame.read(queries), frame.geometry
            )
            yield frame.index, classes


def choose_pairs(class_logits: Tensor, usable: NDArray[np.bool_], limit: int) -> list[Choice]:
    """Choose the pairs of query and class with the largest probabilities, for instances.

    Args:
        class_logits: mean class logits, (Q, K + 1).
        usable: whether the data set has each class, (K,).
        limit: largest number of pairs.

    Returns:
        The pairs by falling score; equal ones by query, then by class.
    """
    probs = class_logits.softmax(-1)[:, :-1].cpu().numpy()  # Q, K
    order = np.argsort(-probs.ravel(), kind='stable')
    queries, classes = np.divmod(order, probs.shape[1])
    chosen = np.flatnonzero(usable[classes])[:limit]
    return [
        Choice(int(q), int(k), float(probs[q, k]))
        for q, k in zip(queries[chosen], classes[chosen], strict=True)
    ]


def choose_segments(class_logits: Tensor) -> list[Choice]:
    """Choose the queries that compete for pixels, for panoptic segmentation, by rising number.

    Args:
        class_logits: mean class logits, (Q, K + 1).
    """
    scores, classes = (value.cpu().numpy() for value in class_logits.softmax(-1).max(-1))
    no_object = class_logits.shape[1] - 1
    kept = np.flatnonzero((classes != no_object) & (scores > SCORE_THRESHOLD))
    return [Choice(int(q), int(classes[q]), float(scores[q])) for q in kept]


def instance_masks(mask_logits: Tensor, geometry: Geometry) -> Iterator[NDArray[np.bool_]]:
    """Yield masks (H, W) of queries, which may overlap; both resizes are done on logits.

    Args:
        mask_logits: mask logits of the queries, (N, h, w).
        geometry: sizes of the frame.
    """
    for start in range(0, len(mask_logits), _CHUNK):
        logits = mask_logits[start : start + _CHUNK].float()
        yield from (geometry.to_image(geometry.to_padded(logits)) > 0).cpu().numpy()


def panoptic_frames(
    frames: Iterator[MaskFrame], chosen: Sequence[Choice], folder: Path
) -> Iterator[tuple[int, NDArray[np.int16]]]:
    """Decide which segment gets each pixel of a video.

    All frames are read before the first result is yielded, since the areas in the whole video
    decide which segments are kept; meanwhile the results wait in a compressed file.

    Args:
        frames: annotated frames of the video.
        chosen: segments that compete.
        folder: folder for that file, which disappears with the process.

    Yields:
        The frame's index, and (H, W) with k + 1 for segment k and 0 for none.
    """
    queries = [item.query for item in chosen]
    scores = np.array([item.score for item in chosen])
    won, inside, areas = (np.zeros(len(chosen), np.int64) for _ in range(3))
    waiting: list[tuple[int, int, tuple[int, ...], np.dtype[Any]]] = []
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder, prefix='pixels-') as file:
        for frame in frames:
            pixels, frame_won, frame_areas = postprocess.panoptic_contest(
                frame.read(queries), scores, frame.geometry, MASK_THRESHOLD
            )
            won += frame_won
            areas += frame_areas
            inside += np.bincount(pixels.ravel(), minlength=len(chosen) + 1)[1:]
            size = file.write(zlib.compress(pixels.data, 1))
            waiting.append((frame.index, size, pixels.shape, pixels.dtype))
        kept = np.zeros(len(chosen) + 1, bool)
        kept[1:] = (inside > 0) & (won / np.maximum(areas, 1) >= OVERLAP_THRESHOLD)
        file.seek(0)
        for index, size, shape, dtype in waiting:
            data = zlib.decompress(file.read(size))
            pixels = np.frombuffer(data, dtype).reshape(shape)
            yield index, np.where(kept[pixels], pixels, 0).astype(np.int16)
