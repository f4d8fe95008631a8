"""Turns the finished videos of a run into result files, figures and report, without torch."""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from videomt_ros.datasets.dataset import Dataset, Video
from videomt_ros.datasets.json_files import write_json
from videomt_ros.errors import fault_line
from videomt_ros.evaluation.families.score_parts import TRUTH
from videomt_ros.evaluation.run_folder import RunFolder
from videomt_ros.evaluation.scoring import score_results

_logger = logging.getLogger(__name__)


def finish(
    dataset: Dataset,
    videos: Sequence[Video],
    modes: Sequence[str],
    folder: RunFolder,
    run: dict[str, Any],
    paper_score: Mapping[str, Any],
    real_time: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write result files, figures and report of all finished videos.

    Nothing that goes wrong in the report costs a figure: a part that cannot be made is named in
    the field `report_problems`, and the others are written.

    Args:
        dataset: data set; it is scored if it has truth.
        videos: those of its videos that were asked for.
        modes: names of the modes that were asked for.
        folder: folder with the finished videos.
        run: content of the field `run` of `metrics.json`.
        paper_score: what the model's authors report.
        real_time: what `evaluate_real_time` has returned; None if it was not asked for.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: a video is neither finished nor failed.
    """
    if dataset.unopened:
        run = {**run, 'num_unopened': len(dataset.unopened)}
    # Failures are checked first: figures of half of the videos would be worse than none.
    metrics: dict[str, Any] = {
        'run': run,
        'failures': [*list_failures(videos, modes, folder), *unopened(dataset)],
        'notes': list(dataset.notes),
        'left_out': list(dataset.left_out),
    }
    for mode in modes:
        results = folder.write_result_files(mode, videos)
        if dataset.truth:
            notes = [note for n in range(len(videos)) for note in folder.notes(mode, n)]
            score = score_results(dataset, videos, results, notes)
            score.notes[:] = map(dataset.readable, score.notes)
            for failure in score.failures:
                failure['error'] = dataset.readable(failure['error'])
            metrics[mode] = score.to_json()
            # The truth is that of all modes, so its failures are told once.
            for failure in score.failures:
                is_of_truth = failure['side'] == TRUTH
                entry = {
                    'video': failure['video'],
                    'mode': TRUTH if is_of_truth else mode,
                    'error': failure['error'],
                }
                if entry not in metrics['failures']:
                    metrics['failures'].append(entry)
    metrics['timing_ms'] = _summarise(folder.times())
    if real_time is not None:
        metrics['real_time'] = real_time
    # The figures are on the disk before a picture can fail.
    write_json(folder.out / 'metrics.json', metrics, indent=1)
    metrics['report_problems'] = _report(folder.out, metrics, dataset, paper_score)
    _write_again(folder.out, metrics)
    return metrics


def _report(
    out: Path, metrics: Mapping[str, Any], dataset: Dataset, paper_score: Mapping[str, Any]
) -> list[str]:
    """Write the report; returns a line for each part that is missing, with the reason."""
    from videomt_ros.evaluation.report.page import write_report

    path = out / 'report.html'
    try:
        return write_report(path, metrics, dataset, out, paper_score)
    except Exception as error:
        _logger.debug('The report failed', exc_info=True)
        # One of an earlier run would show other figures.
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return [f'There is no {path.name}: {fault_line(error)}']


def joined_modes(failures: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Join the failures of a video that have one reason; the `mode` of such a one names all."""
    modes: dict[tuple[str, str], list[str]] = {}
    for failure in failures:
        modes.setdefault((failure['video'], failure['error']), []).append(failure['mode'])
    return [
        {'video': video, 'mode': ', '.join(each), 'error': error}
        for (video, error), each in modes.items()
    ]


def nothing_left(
    failures: Sequence[Mapping[str, str]], modes: Sequence[str], num_videos: int
) -> bool:
    """Tell whether no video at all has a result that counts.

    Args:
        failures: content of the field `failures` of `metrics.json`.
        modes: names of the modes that were asked for.
        num_videos: number of videos that were asked for.
    """
    return bool(failures) and all(
        len({each['video'] for each in failures if each['mode'] in (mode, TRUTH)}) >= num_videos
        for mode in modes
    )


def note_speed(
    metrics: dict[str, Any],
    folder: RunFolder,
    modes: Sequence[str],
    predicted: Sequence[int],
    begin_s: float,
) -> None:
    """Add the frames per second of a whole run to its metrics, beside those of the network.

    The field `speed` of `metrics.json` has `frames`, the number of frames of the videos that were
    predicted; `seconds` until now; `whole_fps`, their ratio; and `network_fps`, from the mean time
    of the network's step, times the number of processes. There is none if no video was predicted.

    Args:
        metrics: what `finish` has returned.
        folder: folder with the finished videos.
        modes: names of the modes that were asked for.
        predicted: positions of the videos that were predicted, and not finished before.
        begin_s: the `time.perf_counter` at which the run began.
    """
    network = metrics['timing_ms'].get('network')
    num_frames = sum(
        max((folder.marker(mode, position) or {'num_frames': 0})['num_frames'] for mode in modes)
        for position in predicted
    )
    if not network or not num_frames:
        return
    seconds = time.perf_counter() - begin_s
    metrics['speed'] = {
        'frames': num_frames,
        'seconds': round(seconds, 3),
        'whole_fps': round(num_frames / seconds, 3),
        'network_fps': round(metrics['run']['processes'] * 1e3 / network['mean'], 3),
    }
    _write_again(folder.out, metrics)


def _write_again(out: Path, metrics: Mapping[str, Any]) -> None:
    """Write metrics.json with more in it; the one that is there, with the figures, may have to do.

    A disk that is full by now is no reason to print no figure.
    """
    try:
        write_json(out / 'metrics.json', metrics, indent=1)
    except OSError as error:
        _logger.warning('metrics.json has no more than the figures: %s', error)


def list_failures(
    videos: Sequence[Video],
    modes: Sequence[str],
    folder: RunFolder,
    positions: Iterable[int] | None = None,
) -> list[dict[str, str]]:
    """List the videos without results, by mode.

    Args:
        videos: the videos that were asked for.
        modes: names of the modes that were asked for.
        folder: folder with the finished videos.
        positions: positions of the videos to look at; None for all.

    Returns:
        For each its `video`, `mode` and `error`.

    Raises:
        ValueError: a video is neither finished nor failed.
    """
    failures, lost = [], []
    for position in range(len(videos)) if positions is None else positions:
        video = videos[position]
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


def unopened(dataset: Dataset) -> list[dict[str, str]]:
    """List the recordings that could not become videos, as failures of their truth."""
    return [{'video': name, 'mode': 'truth', 'error': why} for name, why in dataset.unopened]


def _summarise(times: Iterable[Mapping[str, Sequence[float]]]) -> dict[str, dict[str, float]]:
    """Compute median and mean of each stage over all frames, in milliseconds.

    `total` is the time of a frame of the live mode from image to segments.
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
