"""The two modes of an evaluation: `live`, as a robot sees a video, and `published`, as papers do.

Each mode takes the frames of one video in turn and writes the results of that video in the end.
The live mode is a stream as in the node. The published mode is described in
`evaluation.whole_video`. If the live mode runs too, the published mode takes the network's outputs
from its stream. In the published mode the network never starts anew within a video. If the stream
starts it anew, as after a long pause, the network runs a second time from there on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from videomt_ros.datasets.categories import ClassMap
from videomt_ros.datasets.dataset import Video, VideoFrame
from videomt_ros.engines.engine import Engine
from videomt_ros.evaluation.families.family import Family, LiveVideo
from videomt_ros.evaluation.overlap import FrameReader, WrittenBehind
from videomt_ros.evaluation.run_folder import ModeName
from videomt_ros.evaluation.whole_video import EndedVideo, MaskFrame, WholeVideo
from videomt_ros.inference import VideoStream
from videomt_ros.inference.first_outputs import find_fault, measure_outputs
from videomt_ros.inference.preprocess import Geometry, Preprocessor
from videomt_ros.inference.timing import DeviceClock
from videomt_ros.model.network import Outputs

_logger = logging.getLogger(__name__)

Stages = Mapping[str, MutableSequence[float]]
"""Milliseconds that each stage took, frame by frame, by the names in `STAGES`."""
STAGES = ('read', 'wait', 'prepare', 'network', 'live', 'published')
"""Stages whose time is taken: read the image, which a thread does ahead of the network; wait for
it; turn it into network input; run the network; form masks and tracks of the live mode; form masks
of the published mode (a video's mean per frame). Results are written by another thread."""


class Mode(Protocol):
    """One way to predict one video."""

    name: ModeName

    def push(self, frame: VideoFrame) -> None:
        """Take the next frame."""
        ...

    def finish(self, video: Video) -> dict[str, Any]:
        """Complete the results, after the last frame of the video.

        Returns:
            What `Family.write_files` needs beside the files, for JSON.
        """
        ...

    def close(self) -> None:
        """Release what is held, after `finish` or in its place."""
        ...


class LiveMode:
    """Predicts frame by frame, with a stream as in the node. See `Mode`."""

    name: ModeName = 'live'

    def __init__(self, stream: VideoStream, results: LiveVideo, stages: Stages) -> None:
        """Start a video.

        Args:
            stream: a new stream.
            results: takes the segments of annotated frames.
            stages: the times of each frame are added to them.
        """
        self._stream, self._results, self._stages = stream, results, stages
        self.current: VideoStream | None = None
        """The stream, if it has taken the latest frame without an error."""

    def push(self, frame: VideoFrame) -> None:
        """See `Mode`."""
        self.current = None
        segments = self._stream.push(frame.image, frame.stamp_ns)
        if frame.index is not None:
            self._results.add(frame.index, segments)
        _note(self._stages, self._stream.times)
        self.current = self._stream

    def finish(self, video: Video) -> dict[str, Any]:
        """See `Mode`."""
        return self._results.finish()

    def close(self) -> None:
        """Do nothing, since nothing is held."""


class PublishedMode:
    """Predicts by the published protocol, which decides after the last frame. See `Mode`."""

    name: ModeName = 'published'

    def __init__(
        self,
        net: Engine,
        family: Family,
        results: WrittenBehind,
        classes: ClassMap,
        *,
        live: LiveMode | None,
        scratch: Path,
        num_pairs: int,
        spool_limit: int,
        stages: Stages,
    ) -> None:
        """Start a video.

        Args:
            net: network in evaluation mode.
            family: writes the results.
            results: the results of the video.
            classes: category ids of the model's classes.
            live: live mode that takes each frame before this one; None if there is none.
            scratch: folder for files that disappear with the process.
            num_pairs: pairs of query and class in the result, for instances.
            spool_limit: bytes of mask logits that may wait on the disk.
            stages: the times of each frame are added to them.
        """
        self._net, self._family, self._results, self._classes = net, family, results, classes
        self._live, self._scratch, self._num_pairs = live, scratch, num_pairs
        self._stages = stages
        self._whole = WholeVideo(scratch, spool_limit)
        self._run = _NetworkRun(net)
        self._follows_stream = True
        self._num_frames = 0

    def push(self, frame: VideoFrame) -> None:
        """See `Mode`.

        Raises:
            ValueError: the network's class logits are not finite.
        """
        self._num_frames += 1
        stream = None if self._live is None else self._live.current
        is_first = self._run.state is None
        self._follows_stream &= stream is not None and stream.started_anew == is_first
        if self._follows_stream:
            assert stream is not None and stream.outputs is not None
            self._run.state = stream.next_state
            geometry = Geometry.of(frame.image.shape[:2], self._net.config)
            self._whole.add(frame.index, stream.outputs, geometry)
            return
        clock = DeviceClock(self._net.device)
        clock.mark()
        outputs, geometry = self._run.step(frame, clock)
        self._whole.add(frame.index, outputs, geometry)
        if stream is None:
            # Adding has waited for the device, so that the clock can be read.
            _note(self._stages, clock.elapsed_ms())

    def finish(self, video: Video) -> dict[str, Any]:
        """See `Mode`; the video is read again if its mask logits could not be kept."""
        begin_s = time.perf_counter()
        ended = EndedVideo(
            self._whole.class_logits(),
            self._whole.frames() if self._whole.is_spooled else self._second_pass(video),
            self._net.config.thing_classes,
            self._num_pairs,
            self._scratch,
        )
        content = self._family.write_published(ended, self._results, self._classes)
        mean_ms = (time.perf_counter() - begin_s) * 1e3 / self._num_frames
        self._stages['published'].extend([mean_ms] * self._num_frames)
        return content

    def close(self) -> None:
        """Release the file in which mask logits wait."""
        self._whole.close()

    def _second_pass(self, video: Video) -> Iterator[MaskFrame]:
        run = _NetworkRun(self._net)
        with FrameReader([video]) as reader:
            for frame, _, _ in reader.frames(0):
                outputs, geometry = run.step(frame)
                if frame.index is not None:
                    masks = outputs.mask_logits[0]  # Q, h, w

                    def read(queries: Sequence[int], masks: Tensor = masks) -> Tensor:
                        return masks[list(queries)]

                    yield MaskFrame(frame.index, geometry, read)


class _NetworkRun:
    """Runs the network along one video, and never starts it anew, whatever the stamps are."""

    def __init__(self, net: Engine) -> None:
        self._net = net
        self._prepare = Preprocessor(net.config, net.device, net.dtype)
        self.state: Tensor | None = None
        """State that enters the next frame; None before the first."""

    def step(
        self, frame: VideoFrame, clock: DeviceClock | None = None
    ) -> tuple[Outputs, Geometry]:
        """Run on the next frame, and mark on the clock when it was prepared and done."""
        image, geometry = self._prepare(frame.image)
        if clock:
            clock.mark()
        state = self._net.initial_state(1) if self.state is None else self.state
        outputs, self.state = self._net.step(image, state)
        if clock:
            clock.mark()
        measured = measure_outputs(self._net, outputs, image, geometry)
        if measured is not None and (fault := find_fault(self._net, measured.tolist())):
            _logger.warning('%s', fault)
        return outputs, geometry


def _note(stages: Stages, times: Sequence[float] | None) -> None:
    """Keep the times of a frame; without a live stream there are only the first two."""
    for name, value in zip(('prepare', 'network', 'live'), times or (), strict=False):
        stages[name].append(value)
