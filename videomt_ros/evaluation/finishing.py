"""Finished videos of a run -> result files, figures and report.

Needs no torch; without it the report alone is left out.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from videomt_ros.datasets.dataset import Dataset, Video
from videomt_ros.datasets.formats.vipseg import PredictedVideo, write_pred_json
from videomt_ros.datasets.formats.ytvis import write_ytvis_results
from videomt_ros.datasets.json_files import write_json
from videomt_ros.evaluation.families.instance_results import png_names, stored_tracks
from videomt_ros.evaluation.run_folder import RunFolder
from videomt_ros.evaluation.score_report import ScoreReport
from videomt_ros.evaluation.scoring import score_files


def finish(
    dataset: Dataset,
    videos: Sequence[Video],
    modes: Sequence[str],
    folder: RunFolder,
    run: dict[str, Any],
    published_score: Mapping[str, Any],
    real_time: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Result files, figures and report of all finished videos.

    Args:
        dataset: scored where it has truth.
        videos: of it, those that were asked for.
        modes: that were asked for.
        folder: holds what was predicted.
        run: what `metrics.json` says of the run.
        published_score: what the model's authors report.
        real_time: as `evaluation.real_time` gives it.

    Returns:
        What `metrics.json` holds.

    Raises:
        ValueError: a video is neither finished nor failed.
    """
    # First of all: figures of half of the videos would be worse than none.
    metrics: dict[str, Any] = {'run': run, 'failures': _failures(videos, modes, folder)}
    for mode in modes:
        results = write_result_files(dataset, videos, folder, mode)
        if dataset.truth:
            metrics[mode] = score_results(dataset, videos, results).to_json()
    metrics['timing_ms'] = _summarise(folder.times())
    if real_time is not None:
        metrics['real_time'] = real_time
    write_json(folder.out / 'metrics.json', metrics, indent=1)
    if find_spec('torch') is None:  # which the pictures' code lies beside
        return metrics
    from videomt_ros.evaluation.report.page import write_report

    write_report(folder.out / 'report.html', metrics, dataset, folder.out, published_score)
    return metrics


def score_results(dataset: Dataset, videos: Sequence[Video], results: Path) -> ScoreReport:
    """Score result files for these videos of a data set with truth.

    What the videos themselves have to tell, as those of bags do, comes first among the notes.
    """
    report = score_files(
        dataset.family,
        dataset.truth,
        results,
        dataset.truth_masks,
        dataset.split,
        [video.video_id for video in videos],
    )
    report.notes[:0] = [note for video in videos for note in getattr(video, 'notes', ())]
    return report


def _failures(
    videos: Sequence[Video], modes: Sequence[str], folder: RunFolder
) -> list[dict[str, str]]:
    """Videos without results, by mode.

    Raises:
        ValueError: a video is neither finished nor failed.
    """
    failures, lost = [], []
    for position, video in enumerate(videos):
        for mode in modes:
            marker = folder.marker(mode, position)
            if marker is None:
                lost.append(f'{video.name} ({mode})')
            elif marker['error'] is not None:
                failures.append({'video': video.name, 'mode': mode, 'error': marker['error']})
    if lost:
        raise ValueError(
            f'{len(lost)} results of other processes are not in {folder.out}: '
            f'{", ".join(lost[:20])}{" ..." if len(lost) > 20 else ""}. Name a folder with --out '
            'that all processes share, and go on by --resume.'
        )
    return failures


def write_result_files(
    dataset: Dataset, videos: Sequence[Video], folder: RunFolder, mode: str
) -> Path:
    """Write what the benchmark's server takes; PNGs are in place already.

    Returns:
        What `score_files` takes.
    """
    target = folder.out / mode
    target.mkdir(parents=True, exist_ok=True)
    finished = (
        (position, video, marker['content'])
        for position, video in enumerate(videos)
        if (marker := folder.marker(mode, position)) and marker['error'] is None
    )
    if dataset.family == 'ytvis':
        path = target / 'results.json'
        write_ytvis_results(
            path,
            (
                track
                for position, video, content in finished
                for track in stored_tracks(
                    folder.results_folder(mode, position, video), video.video_id, content
                )
            ),
        )
        return path
    if dataset.family == 'vipseg':
        write_pred_json(
            target,
            (
                PredictedVideo(str(video.video_id), png_names(video), content['segments'])
                for _, video, content in finished
            ),
        )
    return target


def _summarise(times: Iterable[Mapping[str, Sequence[float]]]) -> dict[str, dict[str, float]]:
    """Median and mean of each stage over all frames, in milliseconds.

    `total` is what a live frame takes from the image to its segments.
    """
    stages: dict[str, array[float]] = {}
    for video in times:
        for name, values in video.items():
            stages.setdefault(name, array('f')).extend(values)
        if video.get('live'):
            parts = zip(*(video[name] for name in ('prepare', 'network', 'live')), strict=False)
            stages.setdefault('total', array('f')).extend(map(sum, parts))
    return {
        name: {'p50': round(float(np.median(values)), 3), 'mean': round(float(np.mean(values)), 3)}
        for name, values in stages.items()
        if values
    }
