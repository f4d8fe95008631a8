"""Clips to train on: batches of uint8 frames and their truth.

Here the synthetic scenes; data sets of annotated videos give the same `Batch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from videomt_ros.datasets.synthetic import Scene
from videomt_ros.training.criterion import Targets

FIRST_TRAINING_SEED = 1_000_000
"""Scenes below this seed are never trained on: they are the demo's and the evaluation's."""


class Batch(NamedTuple):
    """Clips of one size and length, and the truth of them all."""

    frames: Tensor
    """(B, T, 3, H, W) uint8 RGB."""
    targets: Targets


class SyntheticClips(Dataset[Batch]):
    """Batches of clips, each clip from a scene of its own that is drawn when asked for.

    Args:
        seed: of the whole data set; equal seeds give equal batches.
        num_batches: length.
        batch_size: B.
        clip_frames: T.
        image_sizes: (height, width) of the batches, one chosen at random per batch.
        max_stride: frames of a scene from one clip frame to the next, 1 up to this.
        supersample: the scenes are drawn so many times larger, and reduced as the camera's image
            is before it enters the network: fine textures and noise fade by it.
    """

    def __init__(
        self,
        seed: int,
        num_batches: int,
        batch_size: int,
        clip_frames: int,
        image_sizes: Sequence[tuple[int, int]],
        max_stride: int,
        supersample: int = 1,
    ) -> None:
        self.seed = seed
        self.num_batches = num_batches
        self.batch_size = batch_size
        self.clip_frames = clip_frames
        self.image_sizes = [(int(height), int(width)) for height, width in image_sizes]
        self.max_stride = max_stride
        self.supersample = supersample

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng((self.seed, index))
        height, width = self.image_sizes[rng.integers(len(self.image_sizes))]
        clips = [self._clip(rng, height, width) for _ in range(self.batch_size)]
        return collate(clips)

    def _clip(
        self, rng: np.random.Generator, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint16], dict[int, int]]:
        factor = self.supersample
        scene = Scene(
            int(rng.integers(FIRST_TRAINING_SEED, 2**31)),
            height * factor,
            width * factor,
            num_frames=60,
            num_objects=int(rng.integers(3, 9)),  # fuller than the demo's: more to learn from
        )
        stride = int(rng.integers(1, self.max_stride + 1))
        last = len(scene) - 1 - stride * (self.clip_frames - 1)
        start = int(rng.integers(0, max(1, last + 1)))
        drawn = [scene.frame(start + stride * i) for i in range(self.clip_frames)]
        images = [cv2.resize(im, (width, height), interpolation=cv2.INTER_AREA) for im, _ in drawn]
        ids = [truth[factor // 2 :: factor, factor // 2 :: factor] for _, truth in drawn]
        return np.stack(images), np.stack(ids), scene.class_of


def collate(
    clips: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint16], dict[int, int]]],
) -> Batch:
    """Join clips into a batch.

    Args:
        clips: of each, images (T, H, W, 3) uint8 RGB, identities (T, H, W) uint16, 0 background,
            and the class of each identity. Identities that are never visible are left out.
    """
    frames = np.stack([images for images, _, _ in clips]).transpose(0, 1, 4, 2, 3)
    clip_of, class_ids, masks = [], [], []
    for index, (_, ids, class_of) in enumerate(clips):
        for identity in np.unique(ids[ids > 0]):
            clip_of.append(index)
            class_ids.append(class_of[int(identity)])
            masks.append(ids == identity)
    shape = (0, *clips[0][1].shape)
    targets = Targets(
        torch.tensor(clip_of, dtype=torch.int64),
        torch.tensor(class_ids, dtype=torch.int64),
        torch.from_numpy(np.stack(masks) if masks else np.zeros(shape, bool)),
    )
    return Batch(torch.from_numpy(np.ascontiguousarray(frames)), targets)
