"""One video through the network: the live and the published result, in one pass over its frames.

Each result is the same whether the other one is made or not.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from videomt_ros.datasets.categories import ClassMap
from videomt_ros.datasets.dataset import FamilyName, Video, VideoFrame
from videomt_ros.evaluation.families.instance_results import VideoResults
from videomt_ros.evaluation.live_video import live_video
from videomt_ros.evaluation.modes import PublishedVideo
from videomt_ros.evaluation.whole_video import SPOOL_LIMIT
from videomt_ros.inference import VideoStream
from videomt_ros.model.config import Task
from videomt_ros.model.network import VidEoMT

Mode = Literal['published', 'live']
TASKS: Mapping[FamilyName, Task] = {
    'ytvis': 'instance',
    'vipseg': 'panoptic',
    'vspw': 'semantic',
}
"""The benchmark decides what is made of the outputs, whatever the model was trained for."""
STAGES = {
    'read': 'read the image',
    'prepare': 'image to network input',
    'network': 'network',
    'live': 'live: masks and tracks',
    'published': 'published: masks, at the end of the video',
}
"""Stages whose time is taken, in milliseconds per frame, and what they are."""

_logger = logging.getLogger(__name__)


@dataclass
class Prediction:
    """The outcome of one video."""

    contents: dict[Mode, dict[str, Any]] = field(default_factory=dict)
    """What the results of each mode that went well have to tell beside their files."""
    errors: dict[Mode, str] = field(default_factory=dict)
    """Why the others failed."""
    stages: dict[str, array[float]] = field(
        default_factory=lambda: {name: array('f') for name in STAGES}
    )
    num_frames: int = 0

    @contextmanager
    def caught(self, *modes: Mode) -> Iterator[None]:
        """Note an error as the end of these modes, unless one has failed before."""
        try:
            yield
        except Exception as error:
            _logger.debug('%s failed', ' and '.join(modes), exc_info=True)
            for mode in modes:
                self.errors.setdefault(mode, f'{type(error).__name__}: {error}')


@dataclass(frozen=True)
class Predictor:
    """What all videos of a run have in common."""

    net: VidEoMT
    family: FamilyName
    classes: ClassMap
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of StreamSettings that differ from the defaults, for the live result."""
    num_pairs: int = 10
    """Of query and class, in the published result of instances."""
    spool_limit: int = SPOOL_LIMIT

    def new_stream(self) -> VideoStream:
        """A stream as the node has one.

        Raises:
            ValueError: a setting is unknown or out of range.
        """
        return VideoStream(self.net, TASKS[self.family], **self.settings)

    @torch.inference_mode()
    def predict(
        self,
        video: Video,
        results: Mapping[Mode, VideoResults],
        scratch: Path,
        progress: Callable[[], object] = lambda: None,
    ) -> Prediction:
        """Run over a video.

        Args:
            video: read once, and once more where its mask logits are too large to be kept.
            results: where the result of each mode goes; only these are made.
            scratch: folder for files that vanish.
            progress: called after each frame.

        Returns:
            What each mode has to tell, or why it failed. Nothing that goes wrong with a video is
            raised, and what fails one mode leaves the other one alone.
        """
        done = Prediction()
        stream = self.new_stream()
        live = live_video(results['live'], self.classes) if 'live' in results else None
        with PublishedVideo(
            self.net, self.classes, scratch, self.num_pairs, self.spool_limit
        ) as published:
            with done.caught(*results):
                for frame in _timed(video.frames(), done.stages['read']):
                    done.num_frames += 1
                    if live and 'live' not in done.errors:
                        with done.caught('live'):
                            segments = stream.push(frame.image, frame.stamp_ns)
                            if frame.index is not None:
                                live.add(frame.index, segments)
                            _note(done.stages, stream.times)
                    if 'published' in results and 'published' not in done.errors:
                        with done.caught('published'):
                            shown = stream if live and 'live' not in done.errors else None
                            _note(done.stages, published.push(frame, shown))
                    if len(done.errors) == len(results):
                        break
                    progress()
                if not done.num_frames:
                    raise ValueError('Expected a video with frames; none of its images came.')
            if live and 'live' not in done.errors:
                with done.caught('live'):
                    done.contents['live'] = live.finish()
            if 'published' in results and 'published' not in done.errors:
                with done.caught('published'):
                    begin_s = time.perf_counter()
                    content = published.finish(video, results['published'])
                    mean_ms = (time.perf_counter() - begin_s) * 1e3 / done.num_frames
                    done.stages['published'].extend([mean_ms] * done.num_frames)
                    done.contents['published'] = content
        for mode in done.errors:
            results[mode].abort()
        return done


def _timed(frames: Iterator[VideoFrame], samples: array[float]) -> Iterator[VideoFrame]:
    """The same frames; notes how long each took to come."""
    while True:
        begin_s = time.perf_counter()
        frame = next(frames, None)
        if frame is None:
            return
        samples.append((time.perf_counter() - begin_s) * 1e3)
        yield frame


def _note(stages: Mapping[str, array[float]], times: tuple[float, ...] | None) -> None:
    """Keep the durations of a frame; those of the network alone are two."""
    for name, value in zip(('prepare', 'network', 'live'), times or (), strict=False):
        stages[name].append(value)
