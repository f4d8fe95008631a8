"""Clips of annotated videos: YouTube-VIS, OVIS, COCO, VIPSeg, VSPW, and data in their formats.

A source reads the frames and masks of a clip, and nothing else; masks are varied one at a time, so
that no clip is ever held at the size of its files.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.categories import map_classes
from videomt_ros.datasets.dataset import Category, list_names
from videomt_ros.datasets.image_folder import ImageFolderVideo
from videomt_ros.training.augment import ClipTransform, draw_transform
from videomt_ros.training.clip_truth import ClipTruth, open_clip_truth
from videomt_ros.training.clips import Clip, list_frames
from videomt_ros.training.run_settings import Augmentation, DataSource

logger = logging.getLogger(__name__)


class LabelledVideos:
    """The videos of a data set that hold an object which the network knows."""

    def __init__(
        self, name: str, videos: Sequence[ImageFolderVideo], truth: ClipTruth, weight: float = 1.0
    ) -> None:
        """Leave out the videos without an object.

        Args:
            name: for messages, such as 'data.0 (ytvis2019 in /data/ytvis2019, split train)'.
            videos: all of them.
            truth: their annotations.
            weight: share of the clips of a run, over the sum of all sources'.

        Raises:
            ValueError: no video is left.
            DatasetError: a mask is damaged.
        """
        self.name = name
        self.weight = weight
        self.truth = truth
        self.videos = [
            video for video in videos if truth.has_objects(video.video_id, len(video.image_paths))
        ]
        if not self.videos:
            raise ValueError(
                f'Expected a valid clip in {name}, but none of its {len(videos)} videos has an '
                'object of a class that the network knows. Choose another split or data set.'
            )

    def read(
        self, video: ImageFolderVideo, times: Sequence[int], variation: ClipTransform
    ) -> Clip:
        """Read a clip; objects that are never visible in it are left out.

        Args:
            video: one of `videos`.
            times: T places among its frames.
            variation: of the clip.

        Raises:
            DatasetError: an image or a mask is damaged; names the file.
        """
        # A pseudo-clip is one image, and need be read once.
        images = {t: video.image(t) for t in sorted(set(times))}
        frames = np.stack([variation.image(images[t], i) for i, t in enumerate(times)])
        class_ids, masks = self.truth.objects(video.video_id, times, variation)
        visible = masks.any(axis=(1, 2, 3))
        name = '' if video.name == str(video.video_id) else f' ({video.name})'
        origin = f'{self.name}, video {video.video_id}{name}, {list_frames(times)}'
        return Clip(frames, class_ids[visible], masks[visible], origin)


def open_source(name: str, source: DataSource, class_names: Sequence[str]) -> LabelledVideos:
    """Open a data set to train on; reads annotations, and no image.

    Args:
        name: of the setting, such as 'data.0', for messages.
        source: what to open.
        class_names: of the network, in the order of its class head.

    Raises:
        ValueError: it has no annotations, or no class or object that the network knows.
        DatasetError: its files cannot be used; names file and record of every fault.
    """
    dataset = open_dataset(source.dataset, Path(source.root), source.split)
    name = f'{name} ({source.dataset} in {source.root}, split {source.split})'
    if not dataset.truth:
        raise ValueError(
            f'Expected annotations in {name}, got none: there is nothing to learn. '
            'Name a split that has some.'
        )
    class_of = class_table(name, class_names, dataset.categories, source.dataset, source.renamed)
    videos = cast(Sequence[ImageFolderVideo], dataset.videos)
    opened = LabelledVideos(name, videos, open_clip_truth(dataset, class_of), source.weight)
    logger.info('%s: %d of %d videos.', name, len(opened.videos), len(videos))
    return opened


def class_table(
    name: str,
    class_names: Sequence[str],
    categories: Sequence[Category],
    dataset: str,
    renamed: Sequence[tuple[str, str | None]] = (),
) -> dict[int, int]:
    """Class id of each category that the network knows, by category id.

    Args:
        name: of the source, for messages.
        class_names: of the network.
        categories: of the data set.
        dataset: its name, such as 'ytvis2019'.
        renamed: see `DataSource`; several categories may be one class.

    Raises:
        ValueError: none is known, or a name of `renamed` does not exist.
    """
    names = dict(renamed)
    for kind, wanted, known in (
        ('category of the data set', names, [category.name for category in categories]),
        ('class of the network', filter(None, names.values()), class_names),
    ):
        if unknown := sorted(set(wanted) - set(known)):
            raise ValueError(
                f'Expected renamed in {name} to pair a category of the data set with a class of '
                f'the network, but there is no {kind} {", ".join(unknown)}.'
            )
    kept = {
        category.category_id: ours
        for category in categories
        if (ours := names.get(category.name, category.name)) is not None
    }
    first: dict[str, Category] = {}
    for category in categories:
        if ours := kept.get(category.category_id):
            first.setdefault(ours, replace(category, name=ours))
    try:
        classes = map_classes(class_names, list(first.values()), dataset)
    except ValueError as error:
        raise ValueError(
            f'{name}: {error} For training, network.class_names says what the model is to know, '
            'and renamed which category that is.'
        ) from error
    class_of = {number: k for k, number in enumerate(classes.category_ids) if number is not None}
    table = {
        number: class_of[first[ours].category_id]
        for number, ours in kept.items()
        if first[ours].category_id in class_of
    }
    # The notes of `classes` speak of scores.
    for what, left in (
        (
            'Categories that are left out',
            [item.name for item in categories if item.category_id not in table],
        ),
        (
            'Classes of the network that the data set does not have',
            [label for k, label in enumerate(class_names) if k not in class_of.values()],
        ),
    ):
        if left:
            logger.info('%s: %s: %s.', name, what, list_names(left))
    return table


class ClipSource(Protocol):
    """Where clips come from."""

    weight: float
    """Share of the clips, over the sum of all sources'."""

    def draw(self, rng: np.random.Generator, clip_frames: int, max_stride: int) -> Clip:
        """Draw a clip of `clip_frames` frames, up to `max_stride` frames of the video apart."""
        ...


class VideoClips:
    """Varied clips of annotated videos; each video is as likely as another."""

    def __init__(self, videos: LabelledVideos, augmentation: Augmentation) -> None:
        self.weight = videos.weight
        self._videos = videos
        self._augmentation = augmentation

    def draw(self, rng: np.random.Generator, clip_frames: int, max_stride: int) -> Clip:
        """See `ClipSource`. A video of one image becomes a pseudo-clip.

        Raises:
            DatasetError: an image or a mask is damaged; names the file.
        """
        video = self._videos.videos[rng.integers(len(self._videos.videos))]
        length = len(video.image_paths)
        times = frame_times(rng, length, clip_frames, max_stride)
        turned = clip_frames if length == 1 and clip_frames > 1 else 0
        variation = draw_transform(rng, video.size, self._augmentation, turned)
        return self._videos.read(video, times, variation)


def frame_times(
    rng: np.random.Generator, num_frames: int, clip_frames: int, max_stride: int
) -> list[int]:
    """Draw the frames of a clip.

    Every window of every stride that fits is as likely as another of that stride, the last one
    too, which the released code never takes. A video that is too short is played to its end and
    back, as often as need be.

    Args:
        rng: decides.
        num_frames: of the video, 1 or more.
        clip_frames: T.
        max_stride: largest distance of neighbours; less where the video is too short for it.

    Returns:
        T places, 0..num_frames - 1.
    """
    if num_frames == 1:
        return [0] * clip_frames
    fitting = (num_frames - 1) // max(1, clip_frames - 1)
    stride = int(rng.integers(1, max(1, min(max_stride, fitting)) + 1))
    last = num_frames - 1 - stride * (clip_frames - 1)
    start = int(rng.integers(0, max(0, last) + 1))
    turn = 2 * (num_frames - 1)
    steps = (np.arange(start, start + stride * clip_frames, stride) % turn).tolist()
    return [min(step, turn - step) for step in steps]
