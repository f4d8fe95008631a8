"""Finished videos of a run -> result files, figures and report.

Needs no torch; without it the report alone is left out.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from videomt_ros.datasets.dataset import Dataset, Video
from videomt_ros.datasets.json_files import write_json
from videomt_ros.evaluation.run_folder import RunFolder
from videomt_ros.evaluation.scoring import score_results


def finish(
    dataset: Dataset,
    videos: Sequence[Video],
    modes: Sequence[str],
    folder: RunFolder,
    run: dict[str, Any],
    paper_score: Mapping[str, Any],
    real_time: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Result files, figures and report of all finished videos.

    Args:
        dataset: scored where it has truth.
        videos: of it, those that were asked for.
        modes: that were asked for.
        folder: holds what was predicted.
        run: what `metrics.json` says of the run.
        paper_score: what the model's authors report.
        real_time: as `evaluation.real_time` gives it.

    Returns:
        What `metrics.json` holds.

    Raises:
        ValueError: a video is neither finished nor failed.
    """
    # First of all: figures of half of the videos would be worse than none.
    metrics: dict[str, Any] = {'run': run, 'failures': _failures(videos, modes, folder)}
    for mode in modes:
        results = folder.write_result_files(mode, videos)
        if dataset.truth:
            metrics[mode] = score_results(dataset, videos, results).to_json()
    metrics['timing_ms'] = _summarise(folder.times())
    if real_time is not None:
        metrics['real_time'] = real_time
    write_json(folder.out / 'metrics.json', metrics, indent=1)
    if find_spec('torch') is None:  # which the pictures' code lies beside
        return metrics
    from videomt_ros.evaluation.report.page import write_report

    write_report(folder.out / 'report.html', metrics, dataset, folder.out, paper_score)
    return metrics


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
