"""Clips of synthetic scenes, each of a new scene that neither demo nor evaluation shows.

Letters: T frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from videomt_ros.datasets.dataset import Category
from videomt_ros.datasets.synthetic.scene import ALL_NAMES, CLASS_NAMES, Scene
from videomt_ros.training.clips import Clip, list_frames, objects_of_ids
from videomt_ros.training.labelled_clips import class_table
from videomt_ros.training.run_settings import SYNTHETIC

FIRST_TRAINING_SEED = 1_000_000
"""Smallest seed of a training scene; those below belong to the demo and the evaluation."""

MOST_SHAPES = 8
"""Largest number of shapes of a training scene, more than in the demo."""


class SceneClips:
    """Source of clips of synthetic scenes, with stuff if the network knows a class of it."""

    def __init__(
        self,
        class_of: Sequence[int | None],
        sizes: Sequence[tuple[int, int]],
        supersample: int = 1,
        weight: float = 1.0,
        hidden_frames: tuple[int, int] | None = None,
        hidden_share: float = 1.0,
        hard_share: float = 0.0,
    ) -> None:
        """Set up the source; draws nothing yet.

        Args:
            class_of: class id of the network for each class of `datasets.synthetic.scene`, shapes
                first, or None for an unknown one. Stuff may be left out.
            sizes: (height, width) of the scenes in pixels; each clip has one at random.
            supersample: see `draw_scene`.
            weight: see `ClipSource`.
            hidden_frames: see `draw_scene`.
            hidden_share: share of the scenes that have the wall of `hidden_frames`.
            hard_share: share of the scenes that are hard.
        """
        self.weight = weight
        self._hidden_frames = hidden_frames
        self._hidden_share, self._hard_share = hidden_share, hard_share
        self._class_of = np.array([-1 if k is None else k for k in class_of], np.int64)
        self._stuff = bool((self._class_of[len(CLASS_NAMES) :] >= 0).any())
        self._sizes = list(sizes)
        self._supersample = supersample

    def draw(self, rng: np.random.Generator, clip_frames: int, max_stride: int) -> Clip:
        """See `ClipSource`."""
        size = self._sizes[rng.integers(len(self._sizes))]
        clip = draw_scene(
            rng,
            size,
            clip_frames,
            max_stride,
            self._supersample,
            self._hidden_frames if rng.random() < self._hidden_share else None,
            self._stuff,
            rng.random() < self._hard_share,
        )
        class_ids = self._class_of[clip.class_ids]
        known = class_ids >= 0
        return Clip(clip.frames, class_ids[known], clip.masks[known], clip.origin)


def draw_scene(
    rng: np.random.Generator,
    size: tuple[int, int],
    clip_frames: int,
    max_stride: int,
    supersample: int,
    hidden_frames: tuple[int, int] | None = None,
    stuff: bool = False,
    hard: bool = False,
) -> Clip:
    """Draw a clip of a new scene; class ids are those of `datasets.synthetic.scene`.

    Args:
        rng: source of the random scene, start and stride.
        size: (height, width) in pixels.
        clip_frames: number of frames, T.
        max_stride: largest distance of neighbouring frames of the clip in the scene.
        supersample: factor by which the scene is drawn larger and then reduced, which softens
            textures and noise as resizing a camera's image for the network does.
        hidden_frames: see `datasets.synthetic.scene.Scene`.
        stuff: see `datasets.synthetic.scene.Scene`.
        hard: see `datasets.synthetic.scene.Scene`.
    """
    height, width = size
    scene = Scene(
        int(rng.integers(FIRST_TRAINING_SEED, 2**31)),
        height * supersample,
        width * supersample,
        num_frames=60,
        num_objects=int(rng.integers(3, MOST_SHAPES + 1)),
        hidden_frames=hidden_frames,
        stuff=stuff,
        hard=hard,
    )
    stride = int(rng.integers(1, max_stride + 1))
    last = len(scene) - 1 - stride * (clip_frames - 1)
    start = int(rng.integers(0, max(1, last + 1)))
    times = [start + stride * i for i in range(clip_frames)]
    images, ids = zip(*(scene.reduced_frame(t, supersample) for t in times), strict=True)
    origin = f'synthetic scene {scene.seed}, {list_frames(times)}'
    return Clip(np.stack(images), *objects_of_ids(np.stack(ids), scene.class_of), origin)


def scene_table(
    where: str, class_names: Sequence[str], renamed: Sequence[tuple[str, str | None]] = ()
) -> list[int | None]:
    """Find the class id of the network for each class of `datasets.synthetic.scene`.

    Args:
        where: name of the source for messages.
        class_names: class names of the network.
        renamed: see `DataSource`.

    Returns:
        Class ids, None for classes that the network does not know.

    Raises:
        ValueError: no class is known, or a name of `renamed` does not exist.
    """
    categories = [
        Category(k, name, is_thing=name in CLASS_NAMES) for k, name in enumerate(ALL_NAMES)
    ]
    table = class_table(where, class_names, categories, SYNTHETIC, renamed)
    return [table.get(k) for k in range(len(ALL_NAMES))]
