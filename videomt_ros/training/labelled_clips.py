"""Clips of annotated videos: YouTube-VIS, OVIS, COCO, VIPSeg, VSPW, and data in their formats.

A source reads only the frames and masks of a clip, and augments masks one at a time, so that no
clip is held at the size of its files.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, cast

import numpy as np

from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.categories import map_classes
from videomt_ros.datasets.dataset import Category, DatasetError, left_out_summary, list_names
from videomt_ros.datasets.image_folder import ImageFolderVideo
from videomt_ros.training.augment import ClipTransform, draw_transform
from videomt_ros.training.clip_truth import ClipTruth, open_clip_truth
from videomt_ros.training.clips import Clip, list_frames
from videomt_ros.training.run_settings import Augmentation, DataSource

logger = logging.getLogger(__name__)


class LabelledVideos:
    """The videos of a data set that show an object of a class that the network knows."""

    def __init__(
        self,
        name: str,
        videos: Sequence[ImageFolderVideo],
        truth: ClipTruth,
        weight: float = 1.0,
        classes: Mapping[str, str] = MappingProxyType({}),
        num_bytes: int = 0,
        skip_bad: bool = False,
    ) -> None:
        """Select the videos with such an object.

        Args:
            name: name for messages, such as 'data.0 (ytvis2019 in /data/ytvis2019, split train)'.
            videos: all videos of the data set.
            truth: annotations of the videos.
            weight: share of the clips of a run, relative to the sum of all weights.
            classes: class of the network by category of the data set.
            num_bytes: size of the annotation files.
            skip_bad: leave out a video with a damaged mask before its first object.

        Raises:
            ValueError: no video is left.
            DatasetError: a mask is damaged.
        """
        self.name = name
        self.weight = weight
        self.truth = truth
        self.classes, self.num_bytes = dict(classes), num_bytes
        self.videos = []
        left_out = []
        for video in videos:
            try:
                if truth.has_objects(video.video_id, len(video.image_paths)):
                    self.videos.append(video)
            except DatasetError as error:
                if not skip_bad:
                    raise
                left_out.append(f'{video.name}: {error}')
        for line in left_out_summary(left_out):
            logger.info('%s: %s', name, line)
        if not self.videos:
            raise ValueError(
                f'Expected a valid clip in {name}, but none of its {len(videos)} videos has an '
                'object of a class that the network knows. Choose another split or data set.'
            )

    def read(
        self, video: ImageFolderVideo, times: Sequence[int], transform: ClipTransform
    ) -> Clip:
        """Read a clip; objects that are not visible in it are left out.

        Args:
            video: one of `videos`.
            times: T indices of frames.
            transform: augmentation of the clip.

        Raises:
            DatasetError: an image or a mask is damaged; names the file.
        """
        # All frames of a pseudo-clip are the same image.
        images = {t: video.image(t) for t in sorted(set(times))}
        frames = np.stack([transform.image(images[t], i) for i, t in enumerate(times)])
        class_ids, masks = self.truth.objects(video.video_id, times, transform)
        visible = masks.any(axis=(1, 2, 3))
        name = '' if video.name == str(video.video_id) else f' ({video.name})'
        origin = f'{self.name}, video {video.video_id}{name}, {list_frames(times)}'
        return Clip(frames, class_ids[visible], masks[visible], origin)


def open_source(
    name: str, source: DataSource, class_names: Sequence[str], skip_bad: bool = False
) -> LabelledVideos:
    """Open a data set to train on; reads annotations, but no images.

    Args:
        name: name of the setting for messages, such as 'data.0'.
        source: data set to open.
        class_names: class names of the network in the order of its class head.
        skip_bad: leave out records with faults.

    Raises:
        ValueError: the data set has no annotations, or no object that the network knows.
        DatasetError: files cannot be used; names file and record of every fault.
    """
    dataset = open_dataset(source.dataset, Path(source.root), source.split, skip_bad=skip_bad)
    name = f'{name} ({source.dataset} in {source.root}, split {source.split})'
    for remark in dataset.remarks():
        logger.info('%s: %s', name, remark)
    if not dataset.truth:
        raise ValueError(
            f'Expected annotations in {name}, got none: there is nothing to learn. '
            'Name a split that has some.'
        )
    class_of = class_table(name, class_names, dataset.categories, source.dataset, source.renamed)
    videos = cast(Sequence[ImageFolderVideo], dataset.videos)
    names = {item.category_id: item.name for item in dataset.categories}
    opened = LabelledVideos(
        name,
        videos,
        open_clip_truth(dataset, class_of),
        source.weight,
        {names[number]: class_names[k] for number, k in class_of.items()},
        sum(path.stat().st_size for path in dataset.truth if path.is_file()),
        skip_bad,
    )
    logger.info('%s: %d of %d videos.', name, len(opened.videos), len(videos))
    return opened


def class_table(
    name: str,
    class_names: Sequence[str],
    categories: Sequence[Category],
    dataset: str,
    renamed: Sequence[tuple[str, str | None]] = (),
) -> dict[int, int]:
    """Map the categories of a data set to classes of the network.

    Args:
        name: name of the source for messages.
        class_names: class names of the network.
        categories: categories of the data set.
        dataset: name of the data set, such as 'ytvis2019'.
        renamed: see `DataSource`; several categories may map to one class.

    Returns:
        Class id by category id; categories that the network does not know are left out.

    Raises:
        ValueError: no category is known, or a name in `renamed` does not exist.
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
    # These replace `classes.notes`, which are about scores.
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
    """A source of clips, such as VideoClips and SceneClips."""

    weight: float
    """Share of the clips from this source, relative to the sum of all weights."""

    def draw(self, rng: np.random.Generator, clip_frames: int, max_stride: int) -> Clip:
        """Draw a clip of `clip_frames` frames at a stride of at most `max_stride`."""
        ...


class VideoClips:
    """Source of augmented clips of annotated videos; all videos are equally likely."""

    def __init__(
        self, videos: LabelledVideos, augmentation: Augmentation, frame_range: int | None = None
    ) -> None:
        self.weight = videos.weight
        self._videos = videos
        self._augmentation = augmentation
        self._frame_range = frame_range

    def draw(self, rng: np.random.Generator, clip_frames: int, max_stride: int) -> Clip:
        """See `ClipSource`; a video of one image becomes a pseudo-clip.

        Raises:
            DatasetError: an image or a mask is damaged; names the file.
        """
        video = self._videos.videos[rng.integers(len(self._videos.videos))]
        length = len(video.image_paths)
        if self._frame_range is None:
            times = frame_times(rng, length, clip_frames, max_stride)
        else:
            times = near_times(rng, length, clip_frames, self._frame_range)
        turned = clip_frames if length == 1 and clip_frames > 1 else 0
        transform = draw_transform(rng, video.size, self._augmentation, turned)
        return self._videos.read(video, times, transform)


def frame_times(
    rng: np.random.Generator, num_frames: int, clip_frames: int, max_stride: int
) -> list[int]:
    """Draw the frames of a clip.

    All strides that fit are equally likely, and so are all windows of a stride, including the last
    one, which the released code never draws. A video that is too short is played forwards and
    backwards in turn.

    Args:
        rng: source of the random draws.
        num_frames: number of frames of the video, 1 or more.
        clip_frames: number of frames of the clip, T.
        max_stride: largest distance of neighbouring frames; less if the video is too short.

    Returns:
        T frame indices, 0..num_frames - 1.
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


def near_times(
    rng: np.random.Generator, num_frames: int, clip_frames: int, frame_range: int
) -> list[int]:
    """Draw the frames of a clip near one of them, in order; frames may repeat.

    Args:
        rng: source of the random draws.
        num_frames: number of frames of the video, 1 or more.
        clip_frames: number of frames of the clip, T.
        frame_range: largest distance from the one frame.

    Returns:
        T frame indices, 0..num_frames - 1.
    """
    centre = int(rng.integers(num_frames))
    first, last = max(0, centre - frame_range), min(num_frames - 1, centre + frame_range)
    others = [t for t in range(first, last + 1) if t != centre] or [centre]
    return sorted([centre, *rng.choice(others, clip_frames - 1).tolist()])
