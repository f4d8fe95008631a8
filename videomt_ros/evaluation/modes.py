"""The published result of one video, frame by frame: see `evaluation.whole_video`.

The network's outputs come from a live stream where one runs beside it. Where that stream has
started the network anew within the video, as after a long pause, which the published protocol
does not know, the network runs here a second time from there on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from torch import Tensor

from videomt_ros.datasets.categories import ClassMap
from videomt_ros.datasets.dataset import Video, VideoFrame
from videomt_ros.evaluation.families.instance_results import (
    UNLABELLED,
    InstanceResults,
    PanopticResults,
    SemanticResults,
    TrackResult,
    VideoResults,
)
from videomt_ros.evaluation.whole_video import (
    MaskFrame,
    WholeVideo,
    choose_pairs,
    choose_segments,
    instance_masks,
    panoptic_frames,
)
from videomt_ros.inference import VideoStream
from videomt_ros.inference.postprocess import semantic_pixels
from videomt_ros.inference.preprocess import Geometry, Preprocessor
from videomt_ros.inference.timing import StageClock
from videomt_ros.model.network import Outputs, VidEoMT


class PublishedVideo:
    """One video under the published protocol; a context manager, since a file waits with it."""

    def __init__(
        self, net: VidEoMT, classes: ClassMap, scratch: Path, num_pairs: int, spool_limit: int
    ) -> None:
        """Start a video.

        Args:
            net: in evaluation mode.
            classes: of the model, in the numbers of the data set.
            scratch: folder for files that vanish.
            num_pairs: pairs of query and class in the result, for instances.
            spool_limit: bytes of mask logits that may wait on the disk.
        """
        self._net, self._classes, self._scratch = net, classes, scratch
        self._num_pairs = num_pairs
        self._whole = WholeVideo(scratch, spool_limit)
        self._run = _NetworkRun(net)
        self._follows_stream = True

    def __enter__(self) -> PublishedVideo:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._whole.close()

    def push(self, frame: VideoFrame, stream: VideoStream | None) -> tuple[float, ...]:
        """Take the next frame.

        Args:
            frame: the frame.
            stream: a stream that has just taken it too; None: there is none, or it failed.

        Returns:
            Milliseconds to prepare and to run the network, if it ran here for want of a stream.

        Raises:
            ValueError: the network's class logits are not finite.
        """
        is_first = self._run.state is None
        self._follows_stream &= stream is not None and stream.started_anew == is_first
        if self._follows_stream:
            assert stream is not None and stream.outputs is not None
            self._run.state = stream.next_state
            geometry = Geometry.of(frame.image.shape[:2], self._net.config)
            self._whole.add(frame.index, stream.outputs, geometry)
            return ()
        clock = StageClock(next(self._net.parameters()).device)
        outputs, geometry = self._run.step(frame, clock)
        self._whole.add(frame.index, outputs, geometry)
        # Adding has waited for the device, so that the clock can be read.
        return clock.times()[:2] if stream is None else ()

    def finish(self, video: Video, results: VideoResults) -> dict[str, Any]:
        """Decide what the video shows, and write its masks.

        Args:
            video: read again if its mask logits could not be kept.
            results: where to.

        Returns:
            What the results have to tell beside their files, for JSON.
        """
        frames = self._whole.frames() if self._whole.is_spooled else self._second_pass(video)
        if isinstance(results, InstanceResults):
            return self._write_instances(results, frames)
        if isinstance(results, PanopticResults):
            return self._write_panoptic(results, frames)
        return self._write_semantic(results, frames)

    def _second_pass(self, video: Video) -> Iterator[MaskFrame]:
        run = _NetworkRun(self._net)
        for frame in video.frames():
            outputs, geometry = run.step(frame)
            if frame.index is not None:
                masks = outputs.mask_logits[0]  # Q, h, w

                def read(queries: Sequence[int], masks: Tensor = masks) -> Tensor:
                    return masks[list(queries)]

                yield MaskFrame(frame.index, geometry, read)

    def _write_instances(
        self, results: InstanceResults, frames: Iterator[MaskFrame]
    ) -> dict[str, Any]:
        logits = self._whole.class_logits()
        pairs = choose_pairs(logits, self._classes.usable, self._num_pairs)
        queries = sorted({pair.query for pair in pairs})
        for frame in frames:
            masks = instance_masks(frame.read(queries), frame.geometry)
            for query, mask in zip(queries, masks, strict=True):
                results.add(frame.index, query, mask)
        category_ids = self._classes.category_ids
        tracks = []
        for query, class_id, score in pairs:
            category_id = category_ids[class_id]
            assert category_id is not None, 'choose_pairs leaves such classes out'
            tracks.append(TrackResult(query, category_id, score))
        return results.finish(tracks)

    def _write_panoptic(
        self, results: PanopticResults, frames: Iterator[MaskFrame]
    ) -> dict[str, Any]:
        chosen = choose_segments(self._whole.class_logits())
        thing_classes = self._net.config.thing_classes
        # Stuff of one class is one segment; a class that the data set lacks is void.
        first: dict[int, int] = {}
        ids = np.zeros(len(chosen) + 1, np.int32)
        category_ids = {}
        for k, item in enumerate(chosen):
            category_id = self._classes.category_ids[item.class_id]
            if category_id is None:
                continue
            is_thing = thing_classes[item.class_id]
            ids[k + 1] = k + 1 if is_thing else first.setdefault(item.class_id, k + 1)
            category_ids[int(ids[k + 1])] = category_id
        for index, pixels in panoptic_frames(frames, chosen, self._scratch):
            results.add(index, ids[pixels], category_ids)
        return results.finish()

    def _write_semantic(
        self, results: SemanticResults, frames: Iterator[MaskFrame]
    ) -> dict[str, Any]:
        logits = self._whole.class_logits()
        table = self._classes.table(UNLABELLED)
        queries = range(self._net.config.num_queries)
        for frame in frames:
            classes, _ = semantic_pixels(logits, frame.read(queries), frame.geometry)
            results.add(frame.index, table[classes])
        return results.finish()


class _NetworkRun:
    """The network along one video from its first frame, whatever the stamps say."""

    def __init__(self, net: VidEoMT) -> None:
        weight = next(net.parameters())
        self._net = net
        self._prepare = Preprocessor(net.config, weight.device, weight.dtype)
        self.state: Tensor | None = None
        """What enters the next frame; None before the first."""

    def step(self, frame: VideoFrame, clock: StageClock | None = None) -> tuple[Outputs, Geometry]:
        """Take the next frame, and note on the clock when it was prepared and done."""
        image, geometry = self._prepare(frame.image)
        if clock:
            clock.mark()
        state = self._net.initial_state(1) if self.state is None else self.state
        outputs, self.state = self._net.step(image, state)
        if clock:
            clock.mark()
        return outputs, geometry
