"""Clips to train on: batches of uint8 frames and their truth.

`training.scene_clips` draws them, and `training.labelled_clips` reads annotated videos.

Letters: B batch, T frames, N objects of a clip, H W size in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.training.criterion import Targets, build_targets


class Clip(NamedTuple):
    """A few frames of a video and the objects in them, whose masks may overlap."""

    frames: NDArray[np.uint8]
    """(T, H, W, 3) RGB."""
    class_ids: NDArray[np.int64]
    """(N,), 0..K-1."""
    masks: NDArray[np.bool_]
    """(N, T, H, W); empty in frames where the object is hidden."""
    origin: str
    """Where it is from, for messages: data set, video and frames, or the scene's seed."""


class Batch(NamedTuple):
    """Clips of one size and length, and the truth of them all."""

    frames: Tensor
    """(B, T, 3, H, W) uint8 RGB."""
    targets: Targets
    origins: tuple[str, ...]
    """Of the B clips."""


Objects = tuple[NDArray[np.int64], NDArray[np.bool_]]
"""Classes and masks of a clip, as `Clip` has them."""


def list_frames(times: Sequence[int]) -> str:
    """Frames of a clip as messages name them.

    >>> list_frames([3, 4, 5])
    'frames 3 4 5'
    """
    return f'frames {" ".join(map(str, times))}'


def objects_of_ids(ids: NDArray[np.integer[Any]], class_of: Mapping[int, int]) -> Objects:
    """The objects of a clip from images of ids.

    Args:
        ids: (T, H, W), 0 where there is no object.
        class_of: class id of each id; may know more ids than the clip has.
    """
    present = [identity for identity in np.unique(ids).tolist() if identity]
    class_ids = np.array([class_of[identity] for identity in present], np.int64)
    return class_ids, ids == np.array(present, ids.dtype)[:, None, None, None]


def collate(clips: Sequence[Clip], divisor: int = 1, fill: Sequence[int] = (0, 0, 0)) -> Batch:
    """Join clips into a batch; smaller ones are padded right and bottom, as a stream pads.

    Args:
        clips: of one number of frames.
        divisor: height and width of the batch are multiples of it.
        fill: colour of the padding, RGB. The mean of the network is its zero.
    """
    height, width = (
        -(-max(clip.frames.shape[axis] for clip in clips) // divisor) * divisor for axis in (1, 2)
    )
    shape = (len(clips), len(clips[0].frames), height, width)
    frames = np.empty((*shape, 3), np.uint8)
    frames[:] = np.array(fill, np.uint8)
    masks = np.zeros((sum(len(clip.class_ids) for clip in clips), *shape[1:]), bool)
    first = 0
    for index, clip in enumerate(clips):
        rows, columns = clip.frames.shape[1:3]
        frames[index, :, :rows, :columns] = clip.frames
        last = first + len(clip.class_ids)
        masks[first:last, :, :rows, :columns] = clip.masks
        first = last
    clip_of = np.repeat(np.arange(len(clips)), [len(clip.class_ids) for clip in clips])
    targets = build_targets(
        torch.from_numpy(clip_of),
        torch.from_numpy(np.concatenate([clip.class_ids for clip in clips])),
        torch.from_numpy(masks),
        len(clips),
        torch.tensor(
            [[clip.frames.shape[2] / width, clip.frames.shape[1] / height] for clip in clips]
        ),
    )
    planes = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 1, 4, 2, 3)))
    return Batch(planes, targets, tuple(clip.origin for clip in clips))
