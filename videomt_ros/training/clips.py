"""Clips to train on: batches of uint8 frames and their truth.

Here the synthetic scenes; `training.labelled_clips` reads annotated videos.

Letters: B batch, T frames, N objects of a clip, H W size in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomt_ros.datasets.synthetic import Scene
from videomt_ros.training.criterion import Targets, build_targets

FIRST_TRAINING_SEED = 1_000_000
"""Scenes below this seed are never trained on: they are the demo's and the evaluation's."""


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


def draw_scene(
    rng: np.random.Generator,
    size: tuple[int, int],
    clip_frames: int,
    max_stride: int,
    supersample: int,
    hidden_frames: tuple[int, int] | None = None,
    stuff: bool = False,
) -> Clip:
    """Draw a clip of a new scene; class ids are those of `datasets.synthetic`.

    Args:
        rng: decides on scene, start and stride.
        size: (height, width) in pixels.
        clip_frames: T.
        max_stride: frames of the scene from one clip frame to the next, 1 up to this.
        supersample: the scene is drawn so many times larger, and reduced as the camera's image is
            before it enters the network: fine textures and noise fade by it.
        hidden_frames: see `datasets.synthetic.Scene`.
        stuff: the same.
    """
    height, width = size
    scene = Scene(
        int(rng.integers(FIRST_TRAINING_SEED, 2**31)),
        height * supersample,
        width * supersample,
        num_frames=60,
        num_objects=int(rng.integers(3, 9)),  # fuller than the demo's: more to learn from
        hidden_frames=hidden_frames,
        stuff=stuff,
    )
    stride = int(rng.integers(1, max_stride + 1))
    last = len(scene) - 1 - stride * (clip_frames - 1)
    start = int(rng.integers(0, max(1, last + 1)))
    times = [start + stride * i for i in range(clip_frames)]
    drawn = [scene.frame(t) for t in times]
    images = [cv2.resize(im, (width, height), interpolation=cv2.INTER_AREA) for im, _ in drawn]
    middle = supersample // 2
    ids = [truth[middle::supersample, middle::supersample] for _, truth in drawn]
    origin = f'synthetic scene {scene.seed}, {list_frames(times)}'
    return Clip(np.stack(images), *objects_of_ids(np.stack(ids), scene.class_of), origin)


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
    )
    planes = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 1, 4, 2, 3)))
    return Batch(planes, targets, tuple(clip.origin for clip in clips))
