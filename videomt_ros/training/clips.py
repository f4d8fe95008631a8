"""Clips to train on, and batches of them.

`training.scene_clips` draws clips, and `training.labelled_clips` reads them from annotated videos.

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
    """Some frames of a video and the objects in them; masks may overlap."""

    frames: NDArray[np.uint8]
    """Frames (T, H, W, 3) in RGB."""
    class_ids: NDArray[np.int64]
    """Class ids (N,) of the objects, 0..K-1."""
    masks: NDArray[np.bool_]
    """Masks (N, T, H, W) of the objects, empty in frames where an object is hidden."""
    origin: str
    """Source of the clip for messages: data set, video and frames, or the seed of the scene."""


class Batch(NamedTuple):
    """Clips padded to one size, with the ground truth of all of them."""

    frames: Tensor
    """Frames (B, T, 3, H, W), uint8 RGB."""
    targets: Targets
    origins: tuple[str, ...]
    """Source of each of the B clips."""
    step: int = 0
    """Step of the plan of a run that the batch belongs to; see `training.pace`."""


Objects = tuple[NDArray[np.int64], NDArray[np.bool_]]
"""Class ids (N,) and masks (N, T, H, W) of a clip; see `Clip`."""


def list_frames(times: Sequence[int]) -> str:
    """Name the frames of a clip for messages.

    >>> list_frames([3, 4, 5])
    'frames 3 4 5'
    """
    return f'frames {" ".join(map(str, times))}'


def objects_of_ids(ids: NDArray[np.integer[Any]], class_of: Mapping[int, int]) -> Objects:
    """Split images of ids into the objects of a clip.

    Args:
        ids: (T, H, W), 0 where there is no object.
        class_of: class id by id; may hold more ids than the clip has.
    """
    present = [identity for identity in np.unique(ids).tolist() if identity]
    class_ids = np.array([class_of[identity] for identity in present], np.int64)
    return class_ids, ids == np.array(present, ids.dtype)[:, None, None, None]


def collate(clips: Sequence[Clip], divisor: int = 1, fill: Sequence[int] = (0, 0, 0)) -> Batch:
    """Join clips into a batch; smaller ones are padded right and bottom, as in a stream.

    Args:
        clips: clips with equal numbers of frames.
        divisor: number of which height and width of the batch become multiples.
        fill: RGB colour of the padding. The mean colour becomes 0 in the network.
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
