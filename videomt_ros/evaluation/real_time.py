"""The live mode scored in real time: each frame against the newest result ready on its arrival.

The measure is that of Li, Wang, Ramanan, Towards Streaming Perception (ECCV 2020), whose rules are
in `evaluation.latency`. The stream runs only on the frames that a node would have taken, since its
state and its ids depend on them. Time is simulated: videos are read as fast as possible.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from videomt_ros.datasets.dataset import Dataset, Video, VideoFrame
from videomt_ros.evaluation.latency import NewestWins, Schedule, arrivals, schedule
from videomt_ros.evaluation.overlap import FrameReader
from videomt_ros.evaluation.predict import Predictor
from videomt_ros.evaluation.run_folder import RunFolder
from videomt_ros.evaluation.scoring import score_results
from videomt_ros.structures import Segments

MODE = 'real_time'
"""Name of the folder of the result files."""


@dataclass(frozen=True)
class RealTime:
    """Speed at which videos are played, and processing time of a frame."""

    factor: float = 1.0
    """Speed of playing, as a multiple of that of the recording."""
    latency_ms: float | None = None
    """Processing time of every frame; None to measure it, frame by frame, on this machine."""
    sweep_ms: tuple[float, ...] = (0.0, 25.0, 50.0, 100.0, 200.0, 400.0)
    """Latencies at which the score is plotted."""

    def __post_init__(self) -> None:
        if not 0 < self.factor < float('inf'):
            raise ValueError(f'Expected a real-time factor above 0, got {self.factor}.')
        for latency_ms in (self.latency_ms, *self.sweep_ms):
            if latency_ms is not None and not 0 <= latency_ms < 1e9:
                raise ValueError(f'Expected a latency from 0 to below 1e9 ms, got {latency_ms}.')


@dataclass
class _Tally:
    """Counts of the frames of all videos at one latency."""

    frames: int = 0
    """Number of frames that arrived."""
    processed: int = 0
    """Number of frames that were processed."""
    dropped: int = 0
    """Number of frames that were replaced by a newer one."""
    annotated: int = 0
    """Number of frames that are scored."""
    without_result: int = 0
    """Number of annotated frames that arrived before the first result of their video."""
    durations_ms: list[float] = field(default_factory=list)
    """Processing times, where they were measured."""
    failures: list[dict[str, str]] = field(default_factory=list)
    """Videos without a result: `video`, `mode` and `error`."""

    def counts(self) -> dict[str, int]:
        """Return the counts as `metrics.json` has them."""
        return {
            'frames': self.frames,
            'processed': self.processed,
            'dropped': self.dropped,
            'annotated': self.annotated,
            'without_result': self.without_result,
        }

    def measured_ms(self) -> dict[str, float] | None:
        """Return median and mean of the processing times; None if none was measured."""
        if not self.durations_ms:
            return None
        return {
            'p50': round(float(np.median(self.durations_ms)), 3),
            'mean': round(float(np.mean(self.durations_ms)), 3),
        }


class _Results:
    """Writes and scores the result files at one latency."""

    def __init__(self, dataset: Dataset, predictor: Predictor, out: Path) -> None:
        self._dataset, self._predictor = dataset, predictor
        self._folder = RunFolder(out, predictor.family)
        self.tally = _Tally()

    def begin(self, position: int, video: Video) -> None:
        """Start a video."""
        self._position, self._video = position, video
        workplace, family = self._folder.workplace(MODE, position), self._predictor.family
        self._open = family.new_results(workplace, video, self._dataset.categories)
        self._live = family.live_video(self._open, self._predictor.classes)

    def add(self, index: int | None, segments: Segments | None) -> None:
        """Add a frame with the newest result; frames that are not annotated do not count."""
        if index is None:
            return
        self.tally.annotated += 1
        if segments is None:
            self.tally.without_result += 1
        else:
            self._live.add(index, segments)

    def end(self) -> None:
        """Complete the video."""
        content = self._live.finish()
        num_frames = len(self._video.frame_names)
        self._folder.finish(MODE, self._position, self._video, content, num_frames)

    def fail(self, error: Exception) -> None:
        """Mark the video as failed."""
        self._open.abort()
        reason = f'{type(error).__name__}: {error}'
        self._folder.fail(MODE, self._position, self._video, reason)
        self.tally.failures.append({'video': self._video.name, 'mode': MODE, 'error': reason})

    def score(self, videos: Sequence[Video]) -> dict[str, Any]:
        """Complete the result files, and score them if there is a truth."""
        results = self._folder.write_result_files(MODE, videos)
        if not self._dataset.truth:
            return {}
        return score_results(self._dataset, videos, results).to_json()


def evaluate_real_time(
    dataset: Dataset,
    videos: Sequence[Video],
    predictor: Predictor,
    asked: RealTime,
    out: Path,
    progress: Callable[[str], object] = lambda name: None,
) -> dict[str, Any]:
    """Score what a robot knows at each moment, at the latency asked for and at several others.

    Args:
        dataset: data set with or without truth.
        videos: those of its videos that are played.
        predictor: builds the streams of the live mode.
        asked: latency and speed.
        out: folder of the evaluation; result files go to `real_time` in it.
        progress: called with the name of each video that was played.

    Returns:
        For `metrics.json`: `factor`; `latency_ms` (null: measured); `measured_ms` with p50 and
        mean of the processing time, where measured; the counts `frames`, `processed`, `dropped`
        (replaced by a newer frame), `annotated`, `without_result`; `scores` as
        `ScoreReport.to_json` gives them; and `sweep`, one entry for each assumed latency with
        `latency_ms`, `figure` (`sweep_figure` says which), and the counts.
    """
    fixed = sorted({*asked.sweep_ms, *([] if asked.latency_ms is None else [asked.latency_ms])})
    with TemporaryDirectory(prefix='.sweep-', dir=out) as scratch:
        by_latency = {
            latency_ms: _Results(
                dataset,
                predictor,
                out if latency_ms == asked.latency_ms else Path(scratch, f'{latency_ms:g}'),
            )
            for latency_ms in fixed
        }
        measured = _Results(dataset, predictor, out) if asked.latency_ms is None else None
        for position, video in enumerate(videos):
            if measured is not None:
                _run_measured(position, video, predictor, asked.factor, measured)
            _run_fixed(position, video, predictor, asked.factor, by_latency)
            progress(video.name)
        scores = {latency_ms: by_latency[latency_ms].score(videos) for latency_ms in fixed}
        if measured is not None:
            tally, main_scores = measured.tally, measured.score(videos)
        else:
            assert asked.latency_ms is not None
            tally, main_scores = by_latency[asked.latency_ms].tally, scores[asked.latency_ms]
    figure = predictor.family.main_figure
    return {
        'factor': asked.factor,
        'latency_ms': asked.latency_ms,
        'measured_ms': tally.measured_ms(),
        **tally.counts(),
        'failures': tally.failures,
        'scores': main_scores,
        'sweep_figure': figure,
        'sweep': [
            {
                'latency_ms': latency_ms,
                'figure': scores[latency_ms].get('figures', {}).get(figure),
                **by_latency[latency_ms].tally.counts(),
            }
            for latency_ms in sorted(asked.sweep_ms)
        ],
    }


@torch.inference_mode()
def _run_measured(
    position: int, video: Video, predictor: Predictor, factor: float, results: _Results
) -> None:
    """Play a video; the processing time of each frame is measured.

    Nothing is read ahead meanwhile, since it would take time from the processing.
    """
    stream = predictor.new_stream()
    is_warm = False

    def process(frame: VideoFrame) -> tuple[Segments, int]:
        nonlocal is_warm
        if not is_warm:
            # The first call in a process is far slower than those of a running node.
            predictor.new_stream().push(frame.image, frame.stamp_ns)
            is_warm = True
        begin_ns = time.perf_counter_ns()
        segments = stream.push(frame.image, frame.stamp_ns)
        duration_ns = time.perf_counter_ns() - begin_ns
        results.tally.durations_ms.append(duration_ns / 1e6)
        return segments, duration_ns

    results.begin(position, video)
    worker = NewestWins(process)
    try:
        for frame, time_ns in _with_arrivals(video, factor):
            job = worker.arrive(frame, time_ns)
            results.add(frame.index, None if job is None else job.result)
        results.end()
    except Exception as error:  # as in Predictor, a video that fails is named and counted
        results.fail(error)
    tally = results.tally
    tally.frames += worker.num_arrived
    tally.processed += worker.num_taken
    tally.dropped += worker.num_dropped


@torch.inference_mode()
def _run_fixed(
    position: int,
    video: Video,
    predictor: Predictor,
    factor: float,
    by_latency: dict[float, _Results],
) -> None:
    """Play a video at several latencies in one pass.

    Latencies with which the same frames are taken share a stream.
    """
    for results in by_latency.values():
        results.begin(position, video)
    try:
        plans = _plan(video, factor, list(by_latency))
        streams = {plan.taken: _Shared(predictor, plan.taken) for plan in plans.values()}
        with FrameReader([video]) as reader:
            for number, (frame, _, _) in enumerate(reader.frames(0)):
                for stream in streams.values():
                    stream.push(number, frame)
                for latency_ms, plan in plans.items():
                    seen = plan.seen_by[number]
                    segments = None if seen is None else streams[plan.taken].results[seen]
                    by_latency[latency_ms].add(frame.index, segments)
                for taken, stream in streams.items():
                    users = [
                        plan.seen_by[number] for plan in plans.values() if plan.taken == taken
                    ]
                    stream.forget_before(min(-1 if seen is None else seen for seen in users))
        for latency_ms, results in by_latency.items():
            results.end()
            plan = plans[latency_ms]
            results.tally.frames += len(plan.seen_by)
            results.tally.processed += len(plan.taken)
            results.tally.dropped += plan.num_dropped
    except Exception as error:
        for results in by_latency.values():
            results.fail(error)


class _Shared:
    """A stream on some frames of a video, and those of its results that are still needed."""

    def __init__(self, predictor: Predictor, taken: tuple[int, ...]) -> None:
        self._stream, self._taken = predictor.new_stream(), frozenset(taken)
        self.results: dict[int, Segments] = {}

    def push(self, number: int, frame: VideoFrame) -> None:
        """Process a frame if it is among those that are taken."""
        if number in self._taken:
            self.results[number] = self._stream.push(frame.image, frame.stamp_ns)

    def forget_before(self, number: int) -> None:
        """Drop the results of frames before this one."""
        for old in [n for n in self.results if n < number]:
            del self.results[old]


def _plan(video: Video, factor: float, latencies_ms: Sequence[float]) -> dict[float, Schedule]:
    """Simulate a video at each latency; it is read once, for its stamps."""
    arrivals_ns = [time_ns for _, time_ns in _with_arrivals(video, factor)]
    if not arrivals_ns:
        raise ValueError('Expected a video with frames; none of its images came.')
    return {
        latency_ms: schedule(arrivals_ns, round(latency_ms * 1e6)) for latency_ms in latencies_ms
    }


def _with_arrivals(video: Video, factor: float) -> Iterator[tuple[VideoFrame, int]]:
    """Yield each frame and its time of arrival in ns."""
    latest: list[VideoFrame] = []

    def stamps() -> Iterator[int]:
        for frame in video.frames():
            latest[:] = [frame]
            yield frame.stamp_ns

    for time_ns in arrivals(stamps(), factor):
        yield latest[0], time_ns
