"""One video through the network: the results of both modes, in one pass over its frames.

The result of each mode is the same whether the other one is made or not.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from videomt_ros.datasets.categories import ClassMap
from videomt_ros.datasets.dataset import DatasetError, Video
from videomt_ros.engines.engine import Engine, EngineError
from videomt_ros.evaluation.families.family import Family, VideoResults
from videomt_ros.evaluation.modes import STAGES, LiveMode, Mode, PublishedMode
from videomt_ros.evaluation.overlap import FrameReader, ReadFrame, WrittenBehind
from videomt_ros.evaluation.run_folder import ModeName
from videomt_ros.evaluation.whole_video import SPOOL_LIMIT
from videomt_ros.inference import VideoStream

_logger = logging.getLogger(__name__)


@dataclass
class Prediction:
    """The outcome of one video."""

    contents: dict[ModeName, dict[str, Any]] = field(default_factory=dict)
    """Return value of `Mode.finish` of each mode that has not failed."""
    errors: dict[ModeName, str] = field(default_factory=dict)
    """The first error of each mode that has failed."""
    stages: dict[str, array[float]] = field(
        default_factory=lambda: {name: array('f') for name in STAGES}
    )
    """Milliseconds that each stage took, frame by frame."""
    num_frames: int = 0
    """Number of frames that were read."""

    def attempt(self, modes: Sequence[ModeName], work: Callable[[], object]) -> None:
        """Do work that modes depend on; an error in it fails those that have not failed before.

        Nothing is done once all of these modes have failed.

        Raises:
            EngineError: the engine cannot run here, which fails every video alike.
        """
        if all(mode in self.errors for mode in modes):
            return
        try:
            work()
        except EngineError:
            raise
        except Exception as error:
            _logger.debug('%s failed', ' and '.join(modes), exc_info=True)
            for mode in modes:
                self.errors.setdefault(mode, _in_words(error))


def _in_words(error: Exception) -> str:
    """Write an error; that of a file says all by itself."""
    return str(error) if isinstance(error, DatasetError) else f'{type(error).__name__}: {error}'


@dataclass(frozen=True)
class Predictor:
    """Predicts videos; holds what all videos of a run have in common."""

    net: Engine
    family: Family
    classes: ClassMap
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of StreamSettings that differ from the defaults, for the live mode."""
    num_pairs: int = 10
    """Number of pairs of query and class in a result of instances, for the published mode."""
    spool_limit: int = SPOOL_LIMIT
    """Bytes of mask logits that may wait on the disk for the end of a video."""

    def new_stream(self) -> VideoStream:
        """Build a stream like that of the node.

        Raises:
            ValueError: a setting is unknown or out of range.
        """
        return VideoStream(self.net, self.family.task, **self.settings)

    @torch.inference_mode()
    def predict(
        self,
        video: Video,
        results: Mapping[ModeName, VideoResults],
        scratch: Path,
        progress: Callable[[], object] = lambda: None,
        frames: Iterable[ReadFrame] | None = None,
    ) -> Prediction:
        """Predict a video.

        Args:
            video: read once, and once more where its mask logits are too large to be kept.
            results: the results of each mode that is asked for; a thread writes them.
            scratch: folder for files that disappear with the process.
            progress: called after each frame.
            frames: the frames of the video, if they are being read already.

        Returns:
            What each mode has returned, or why it failed. Nothing that goes wrong with a video is
            raised, and what fails one mode leaves the other one alone.

        Raises:
            EngineError: the engine cannot run here.
        """
        done = Prediction()
        with ExitStack() as stack:
            if frames is None:
                frames = stack.enter_context(FrameReader([video])).frames(0)
            written = {
                name: stack.enter_context(WrittenBehind(each)) for name, each in results.items()
            }
            modes = self._start_modes(written, scratch, done)
            for mode in modes:
                stack.enter_context(closing(mode))
            done.attempt(tuple(results), partial(_play, frames, modes, written, done, progress))
            for mode in modes:
                done.attempt((mode.name,), partial(_finish, mode, video, done))
            for name in done.errors:
                written[name].abort()
        return done

    def _start_modes(
        self, results: Mapping[ModeName, WrittenBehind], scratch: Path, done: Prediction
    ) -> list[Mode]:
        """Start the modes in the order in which they take a frame."""
        modes: list[Mode] = []
        live = None
        if 'live' in results:
            adapter = self.family.live_video(results['live'], self.classes)
            live = LiveMode(self.new_stream(), adapter, done.stages)
            modes.append(live)
        if 'published' in results:
            published = PublishedMode(
                self.net,
                self.family,
                results['published'],
                self.classes,
                live=live,
                scratch=scratch,
                num_pairs=self.num_pairs,
                spool_limit=self.spool_limit,
                stages=done.stages,
            )
            modes.append(published)
        return modes


def _play(
    frames: Iterable[ReadFrame],
    modes: Sequence[Mode],
    written: Mapping[ModeName, WrittenBehind],
    done: Prediction,
    progress: Callable[[], object],
) -> None:
    """Give the frames of a video to all modes, as long as one of them has not failed."""
    try:
        for frame, read_ms, wait_ms in frames:
            done.num_frames += 1
            done.stages['read'].append(read_ms)
            done.stages['wait'].append(wait_ms)
            for mode in modes:
                done.attempt((mode.name,), partial(mode.push, frame))
            if len(done.errors) == len(modes):
                return
            progress()
    except Exception:
        # Results of earlier frames that cannot be written went wrong before this frame did.
        for name, results in written.items():
            done.attempt((name,), results.wait)
        raise
    if not done.num_frames:
        raise ValueError('Expected a video with frames; none of its images came.')


def _finish(mode: Mode, video: Video, done: Prediction) -> None:
    done.contents[mode.name] = mode.finish(video)
