"""Evaluates a model on a data set: predict, write result files, score them, report.

Predicting reads only images, and scoring reads only files. So an evaluation that was split over
processes, or was killed and resumed, gives the same figures as one that ran without a break, and
so does `videomt score` on the result files.
"""

from __future__ import annotations

import dataclasses
import logging
import resource
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomt_ros.datasets.categories import map_classes
from videomt_ros.datasets.dataset import Dataset, DatasetError, Video
from videomt_ros.engines.engine import Engine
from videomt_ros.evaluation.families import family_of
from videomt_ros.evaluation.finishing import finish, list_failures, note_speed, unopened
from videomt_ros.evaluation.merging import write_record
from videomt_ros.evaluation.overlap import FrameReader
from videomt_ros.evaluation.predict import Prediction, Predictor
from videomt_ros.evaluation.real_time import RealTime, evaluate_real_time
from videomt_ros.evaluation.run_folder import MODES, ModeName, RunFolder, dataset_request
from videomt_ros.evaluation.sharding import Shard
from videomt_ros.evaluation.whole_video import NUM_PAIRS, SPOOL_LIMIT
from videomt_ros.inference.stream_settings import StreamSettings
from videomt_ros.progress import Progress

_logger = logging.getLogger(__name__)


def evaluate(
    dataset: Dataset,
    net: Engine,
    out: Path,
    *,
    modes: Sequence[ModeName] = MODES,
    limit: int | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    spool_limit: int = SPOOL_LIMIT,
    about: Mapping[str, Any] | None = None,
    paper_score: Mapping[str, Any] | None = None,
    shard: Shard | None = None,
    source: Mapping[str, Any] | None = None,
    real_time: RealTime | None = None,
    begin_s: float | None = None,
) -> dict[str, Any] | None:
    """Evaluate a model on a data set.

    Args:
        dataset: its videos are predicted; if it has truth, the results are scored.
        net: network in evaluation mode, on its device and in its number type.
        out: folder for everything that is written; see `evaluation.run_folder`.
        modes: published, live or both; both take one pass over the frames.
        limit: number of videos to take from the start; may differ from that of a resumed run.
        resume: go on with what is in the folder.
        settings: fields of StreamSettings that differ from the defaults, for the live mode.
        spool_limit: bytes of mask logits that may wait on the disk for the end of a video; with
            more, the network runs over the video twice.
        about: further facts of the run for `metrics.json` that do not decide the figures, such as
            the model's name and the hardware.
        paper_score: what the model's authors report, in percent; see `Preset.paper_score`.
        shard: the share of this process; None for all videos. With a number it leaves the videos
            of one shard in the folder, and a record for `evaluation.merging`.
        source: how the data set was opened, as plain JSON values, for that record.
        real_time: how to score the live mode in real time, too; done by the first process.
        begin_s: the `time.perf_counter` from which the whole run is timed; None for now.

    Returns:
        The content of `metrics.json`, of a shard `run` and `failures` alone; None in all processes
        but the first.

    Raises:
        ValueError: model and data set have no class in common, a setting is wrong, the folder
            holds other results, or not all processes see the same folder.
    """
    begin_s = time.perf_counter() if begin_s is None else begin_s
    shard = shard or Shard()
    settings = dict(settings or {})
    # Shared from the start: else the others would wait for a process that fails here.
    plan = shard.all_do(lambda: _plan(dataset, net, modes, limit, settings, spool_limit))
    folder = RunFolder(out, plan.predictor.family)
    with closing(folder):
        run = {
            **plan.request,
            **(about or {}),
            'benchmark': dataset.family,
            'limit': limit,
            'paper': dict(paper_score or {}),
            'live_parameters': plan.live_parameters(),
            'num_videos': len(plan.videos),
            'processes': shard.world_size,
            'notes': plan.notes,
        }
        resumed = shard.first_does(lambda: _start(plan, folder, resume, shard, source, run))
        seconds = shard.all_do(lambda: _predict_all(plan, folder, shard))
        if not shard.is_first:
            return None
        run |= {
            'num_resumed': len(resumed),
            'predict_s': round(seconds, 3),
            'peak_memory_mb': _peak_memory_mb(),
        }
        if shard.number is not None:
            write_record(out, shard.number, source or {}, run)
            mine = shard.number.positions(len(plan.videos))
            return {
                'run': run,
                'failures': [
                    *list_failures(plan.videos, modes, folder, mine),
                    *unopened(dataset),
                ],
            }
        clocked = None
        if real_time is not None:
            with Progress(len(plan.videos), 'video', 'real time') as bar:
                clocked = evaluate_real_time(
                    dataset,
                    plan.videos,
                    plan.predictor,
                    real_time,
                    out,
                    lambda name: bar.update(),
                )
        metrics = finish(dataset, plan.videos, modes, folder, run, paper_score or {}, clocked)
        predicted = sorted(set(range(len(plan.videos))) - set(resumed))
        note_speed(metrics, folder, modes, predicted, begin_s)
        return metrics


@dataclass(frozen=True)
class _Plan:
    """An evaluation whose arguments have been checked."""

    dataset: Dataset
    videos: Sequence[Video]
    predictor: Predictor
    modes: Sequence[ModeName]
    stream_settings: StreamSettings
    request: Mapping[str, Any]
    """Everything that decides the figures."""
    notes: Sequence[str]
    """Notes for the user."""

    def live_parameters(self) -> dict[str, Any]:
        """Return all settings of the live mode as plain JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self.stream_settings).items()
        }


def _plan(
    dataset: Dataset,
    net: Engine,
    modes: Sequence[ModeName],
    limit: int | None,
    settings: Mapping[str, Any],
    spool_limit: int,
) -> _Plan:
    """Check the arguments; they and the errors are those of `evaluate`."""
    videos = list(dataset.videos)[:limit]
    if not videos:
        raise ValueError(f'Expected a data set with videos, {dataset.name} has none to evaluate.')
    classes = map_classes(net.config.class_names, dataset.categories, dataset.name)
    family = family_of(dataset.family)
    predictor = Predictor(
        net,
        family,
        classes,
        settings,
        num_pairs=NUM_PAIRS.get(dataset.name, 10),
        spool_limit=spool_limit,
    )
    stream_settings = predictor.new_stream().settings  # checks them before any work
    family.check_settings(stream_settings)
    notes = list(classes.notes)
    if 'live' in modes and family.has_tracks:
        notes += _confirmation_note(videos, stream_settings.confirm_frames)
    request = {
        **dataset_request(dataset),
        'model': net.config.name,
        'weights': net.digest(),
        'precision': str(net.dtype).removeprefix('torch.'),
        'device': net.device.type,
        'engine': net.engine_name,
        'modes': sorted(modes),
        'settings': settings,
    }
    return _Plan(dataset, videos, predictor, modes, stream_settings, request, notes)


def _confirmation_note(videos: Sequence[Video], confirm_frames: int) -> list[str]:
    """Note that the videos, or some, end before a live track is published; empty if none does."""
    short = [video for video in videos if _num_images(video) < confirm_frames]
    if not short:
        return []
    which = f'{len(short):,} of {len(videos):,} videos have fewer images'
    if len(short) == len(videos):
        is_single = all(_num_images(video) == 1 for video in short)
        which = 'These are single images' if is_single else 'These videos have fewer images'
    return [
        f'{which}, and a live track is published from its frame {confirm_frames} on, which they '
        'do not have. --set confirm_frames=1 publishes it from the first.'
    ]


def _num_images(video: Video) -> int:
    """Count the images of a video, which may have more of them than are annotated."""
    return max(len(getattr(video, 'stamps_ns', None) or ()), len(video.frame_names))


def _start(
    plan: _Plan,
    folder: RunFolder,
    resume: bool,
    shard: Shard,
    source: Mapping[str, Any] | None,
    run: Mapping[str, Any],
) -> list[int]:
    """Start or resume the run, and list the videos that are finished already."""
    positions = range(len(plan.videos))
    if shard.number is not None:
        positions = shard.number.positions(len(plan.videos))
    folder.check(plan.request, resume)
    # Another shard may have videos that can be scored.
    must_score = shard.number is None
    _check_truth(plan.dataset, [plan.videos[n] for n in positions], must_score)
    folder.start(plan.request, resume)
    if shard.number is not None:
        # Written now, so that a shard that is killed can be named.
        write_record(folder.out, shard.number, source or {}, run)
    return [
        position
        for position in positions
        if all(folder.is_finished(mode, position) for mode in plan.modes)
    ]


def _check_truth(dataset: Dataset, videos: Sequence[Video], must_score: bool) -> None:
    """Name the videos that cannot be scored before hours are spent on them.

    They are predicted all the same: once their truth is mended, the run can be resumed.

    Raises:
        DatasetError: none of the videos can be scored, though one must be.
    """
    if not dataset.truth or not videos:
        return
    num_frames = sum(len(video.frame_names) for video in videos)
    with Progress(num_frames, 'frame', 'check the truth') as bar:
        unusable = family_of(dataset.family).check_truth(dataset, videos, bar.update)
    if must_score and len(unusable) == len(videos):
        faults = [dataset.readable(reason) for reason in unusable.values()]
        raise DatasetError(dataset.truth[0], faults)
    for video in videos:
        if video.video_id in unusable:
            _logger.warning(
                'Video %s cannot be scored, and is left out of the figures: %s',
                video.name, dataset.readable(unusable[video.video_id]),
            )  # fmt: skip


def _predict_all(plan: _Plan, folder: RunFolder, shard: Shard) -> float:
    """Predict the videos of this process that are not finished yet; returns the seconds taken."""
    begin_s = time.perf_counter()
    mine = shard.positions(len(plan.videos))
    missing = {
        position: [mode for mode in plan.modes if not folder.is_finished(mode, position)]
        for position in mine
    }
    faulty = plan.dataset.faulty
    for position in mine:
        video = plan.videos[position]
        if missing[position] and video.video_id in faulty:
            reason = faulty[video.video_id]
            _fail(folder, position, video, dict.fromkeys(missing.pop(position), reason))
    todo = [position for position in mine if missing.get(position)]
    videos = [plan.videos[position] for position in todo]
    num_frames = sum(len(video.frame_names) for video in videos)
    with (
        Progress(num_frames, 'frame', is_quiet=not shard.is_first) as bar,
        FrameReader(videos) as reader,
    ):
        for number, (position, video) in enumerate(zip(todo, videos, strict=True)):
            bar.show(bar.done, what=video.name)
            results = {
                mode: plan.predictor.family.new_results(
                    folder.workplace(mode, position), video, plan.dataset.categories
                )
                for mode in missing[position]
            }
            done = plan.predictor.predict(
                video, results, folder.parts, lambda: bar.update(), reader.frames(number)
            )
            _keep(folder, position, video, done)
    return time.perf_counter() - begin_s


def _keep(folder: RunFolder, position: int, video: Video, done: Prediction) -> None:
    """Store the outcome of a video in the folder."""
    folder.note_times(position, done.stages)
    for mode, content in done.contents.items():
        folder.finish(mode, position, video, content, done.num_frames)
    _fail(folder, position, video, done.errors)


def _fail(folder: RunFolder, position: int, video: Video, errors: Mapping[ModeName, str]) -> None:
    """Tell why a video failed, once if it is the same reason in all modes, and store it."""
    for error in dict.fromkeys(errors.values()):
        modes = [mode for mode, other in errors.items() if other == error]
        _logger.warning('Video %s failed (%s): %s', video.name, ', '.join(modes), error)
    for mode, error in errors.items():
        folder.fail(mode, position, video, error)


def _peak_memory_mb() -> float:
    """Return the largest resident memory of this process so far in MB; Linux counts in KiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)
