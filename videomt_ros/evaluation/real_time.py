"""The live score on the clock: each frame against the newest result there is at its moment.

Li, Wang, Ramanan, Towards Streaming Perception (ECCV 2020); `evaluation.latency` has the rules.
The stream runs on the frames alone that a node would have taken, since its state and its ids
depend on them. Time is simulated: a video is read as fast as it goes.
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
from videomt_ros.evaluation.predict import Predictor
from videomt_ros.evaluation.run_folder import RunFolder
from videomt_ros.evaluation.scoring import score_results
from videomt_ros.structures import Segments

MODE = 'real_time'
"""Folder of the result files."""


@dataclass(frozen=True)
class RealTime:
    """What is asked for."""

    factor: float = 1.0
    """The videos are played so many times as fast as they were recorded."""
    latency_ms: float | None = None
    """Of every frame; None: as measured, frame by frame, on this machine."""
    sweep_ms: tuple[float, ...] = (0.0, 25.0, 50.0, 100.0, 200.0, 400.0)
    """Latencies for the plot."""

    def __post_init__(self) -> None:
        if not 0 < self.factor < float('inf'):
            raise ValueError(f'Expected a real-time factor above 0, got {self.factor}.')
        for latency_ms in (self.latency_ms, *self.sweep_ms):
            if latency_ms is not None and not 0 <= latency_ms < 1e9:
                raise ValueError(f'Expected a latency from 0 to below 1e9 ms, got {latency_ms}.')


@dataclass
class _Tally:
    """Frames of all videos at one latency."""

    frames: int = 0
    processed: int = 0
    dropped: int = 0
    annotated: int = 0
    without_result: int = 0
    """Annotated frames before the first result of their video."""
    durations_ms: list[float] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)


class _Results:
    """The result files at one latency, in the making."""

    def __init__(self, dataset: Dataset, predictor: Predictor, out: Path) -> None:
        self._dataset, self._predictor = dataset, predictor
        self._folder = RunFolder(out, predictor.family)
        self.tally = _Tally()

    def begin(self, position: int, video: Video) -> None:
        """Begin with a video."""
        self._position, self._video = position, video
        workplace, family = self._folder.workplace(MODE, position), self._predictor.family
        self._open = family.new_results(workplace, video, self._dataset.categories)
        self._live = family.live_video(self._open, self._predictor.classes)

    def add(self, index: int | None, segments: Segments | None) -> None:
        """Give a frame its newest result."""
        if index is None:
            return
        self.tally.annotated += 1
        if segments is None:
            self.tally.without_result += 1
        else:
            self._live.add(index, segments)

    def end(self) -> None:
        """End the video."""
        content = self._live.finish()
        num_frames = len(self._video.frame_names)
        self._folder.finish(MODE, self._position, self._video, content, num_frames)

    def fail(self, error: Exception) -> None:
        """Note that the video has no result."""
        self._open.abort()
        reason = f'{type(error).__name__}: {error}'
        self._folder.fail(MODE, self._position, self._video, reason)
        self.tally.failures.append({'video': self._video.name, 'mode': MODE, 'error': reason})

    def score(self, videos: Sequence[Video]) -> dict[str, Any]:
        """Write the result files, and score them if there is a truth."""
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
    """Score what a robot has at each moment, at one latency and at several.

    Args:
        dataset: with or without truth.
        videos: of it, those that are played.
        predictor: makes streams as the live score has them.
        asked: latency and speed.
        out: folder; result files go to `real_time` in it.
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
        main = measured or by_latency[asked.latency_ms]  # type: ignore[index]
        scores = {latency_ms: by_latency[latency_ms].score(videos) for latency_ms in fixed}
        main_scores = measured.score(videos) if measured else scores[asked.latency_ms]  # type: ignore[index]
    figure = predictor.family.main_figure
    durations = main.tally.durations_ms
    return {
        'factor': asked.factor,
        'latency_ms': asked.latency_ms,
        'measured_ms': {
            'p50': round(float(np.median(durations)), 3),
            'mean': round(float(np.mean(durations)), 3),
        }
        if durations
        else None,
        **_counts(main.tally),
        'failures': main.tally.failures,
        'scores': main_scores,
        'sweep_figure': figure,
        'sweep': [
            {
                'latency_ms': latency_ms,
                'figure': scores[latency_ms].get('figures', {}).get(figure),
                **_counts(by_latency[latency_ms].tally),
            }
            for latency_ms in sorted(asked.sweep_ms)
        ],
    }


def _counts(tally: _Tally) -> dict[str, int]:
    return {
        'frames': tally.frames,
        'processed': tally.processed,
        'dropped': tally.dropped,
        'annotated': tally.annotated,
        'without_result': tally.without_result,
    }


@torch.inference_mode()
def _run_measured(
    position: int, video: Video, predictor: Predictor, factor: float, results: _Results
) -> None:
    """Play a video; each frame takes as long as it takes."""
    stream = predictor.new_stream()
    is_warm = False

    def process(frame: VideoFrame) -> tuple[Segments, int]:
        nonlocal is_warm
        if not is_warm:
            # A node has been running for a while; the first call of a process is far slower.
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
    except Exception as error:  # as in Predictor: a video that fails is named and counted
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

    Those that take the same frames share a stream.
    """
    for results in by_latency.values():
        results.begin(position, video)
    try:
        plans = _plan(video, factor, list(by_latency))
        streams = {plan.taken: _Shared(predictor, plan.taken) for plan in plans.values()}
        for number, frame in enumerate(video.frames()):
            for stream in streams.values():
                stream.push(number, frame)
            for latency_ms, plan in plans.items():
                seen = plan.seen_by[number]
                segments = None if seen is None else streams[plan.taken].results[seen]
                by_latency[latency_ms].add(frame.index, segments)
            for taken, stream in streams.items():
                users = [plan.seen_by[number] for plan in plans.values() if plan.taken == taken]
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
    """A stream on some frames of a video, and those of its results that are still of use."""

    def __init__(self, predictor: Predictor, taken: tuple[int, ...]) -> None:
        self._stream, self._taken = predictor.new_stream(), frozenset(taken)
        self.results: dict[int, Segments] = {}

    def push(self, number: int, frame: VideoFrame) -> None:
        """Process a frame, if it is one of these."""
        if number in self._taken:
            self.results[number] = self._stream.push(frame.image, frame.stamp_ns)

    def forget_before(self, number: int) -> None:
        """No older result will be asked for."""
        for old in [n for n in self.results if n < number]:
            del self.results[old]


def _plan(video: Video, factor: float, latencies_ms: Sequence[float]) -> dict[float, Schedule]:
    """What is taken and seen at each latency. Reads the video once, for its stamps."""
    arrivals_ns = [time_ns for _, time_ns in _with_arrivals(video, factor)]
    if not arrivals_ns:
        raise ValueError('Expected a video with frames; none of its images came.')
    return {
        latency_ms: schedule(arrivals_ns, round(latency_ms * 1e6)) for latency_ms in latencies_ms
    }


def _with_arrivals(video: Video, factor: float) -> Iterator[tuple[VideoFrame, int]]:
    """Each frame, and when it comes."""
    latest: list[VideoFrame] = []

    def stamps() -> Iterator[int]:
        for frame in video.frames():
            latest[:] = [frame]
            yield frame.stamp_ns

    for time_ns in arrivals(stamps(), factor):
        yield latest[0], time_ns
