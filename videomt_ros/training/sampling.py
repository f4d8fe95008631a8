"""Where clips come from, and which frames of a video make one."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from videomt_ros.training.augment import draw_transform
from videomt_ros.training.clips import Clip
from videomt_ros.training.labelled_clips import LabelledVideos
from videomt_ros.training.run_settings import Augmentation


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
