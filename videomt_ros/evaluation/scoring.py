"""Scores of result files against annotation files: what `videomt score` and `evaluate` report.

Files that anyone produced are read, one video at a time, and no network is needed. A video of the
truth without results counts as missed; results of a video outside the truth are an error.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from videomt_ros.datasets.dataset import Category, DatasetError, FamilyName
from videomt_ros.datasets.formats.vipseg import load_vipseg, load_vipseg_results
from videomt_ros.datasets.formats.vspw import NUM_CLASSES, load_vspw, load_vspw_results
from videomt_ros.datasets.formats.ytvis import YtvisTruth, load_ytvis, load_ytvis_results
from videomt_ros.datasets.masks import MaskTrack
from videomt_ros.evaluation.metrics.ap import IOU_THRESHOLDS, RECALL_LEVELS, ApScores, VideoAP
from videomt_ros.evaluation.metrics.overlap import ImageOverlaps, overlap_tracks
from videomt_ros.evaluation.metrics.semantic import SemanticQuality
from videomt_ros.evaluation.metrics.stq import SegmentationTrackingQuality
from videomt_ros.evaluation.metrics.tracking_scores import TrackingTally
from videomt_ros.evaluation.metrics.vpq import VideoPanopticQuality
from videomt_ros.evaluation.score_report import (
    FIGURES,
    Figures,
    ScoreReport,
    mean_report,
)

VideoId = int | str
_MAX_NAMES = 20
"""Videos without results that a note names."""
_MAX_FAULTS = 10
"""Frames that cannot be scored, after which nothing is gained by reading on."""
Progress = Callable[[int, int], object]
"""Takes the number of videos scored, and of all."""


def score_files(
    family: FamilyName,
    truth: Sequence[Path],
    results: Path,
    truth_masks: Path | None = None,
    split: str = '',
    video_ids: Collection[VideoId] | None = None,
    *,
    track_score: float = 0.0,
    progress: Progress = lambda done, total: None,
) -> ScoreReport:
    """Score results in the benchmark's own file format.

    Args:
        family: ytvis (YouTube-VIS, OVIS), vipseg or vspw.
        truth: annotation file; for VSPW the folder. Several, for ytvis alone: the mean over them,
            and each in `parts`.
        results: ytvis: results.json, or a zip or a folder that holds it; vipseg: the folder with
            pred.json and pan_pred; vspw: the folder with <video>/<frame>.png.
        truth_masks: vipseg: folder of the true PNGs; else panomasksRGB beside the JSON.
        split: vspw: which list of videos; else val.
        video_ids: score these videos alone; others are looked at neither in truth nor in results.
        track_score: ytvis: tracks with a lower score are left out of the figures of tracking. 0
            counts all, as TrackEval does. Results of the published protocol hold ten guesses for
            each video, however unlikely, and no measure of tracking is kind to that.
        progress: called after each video.

    Raises:
        DatasetError: files are missing, broken, or do not belong together; lists every fault.
        ValueError: arguments that do not fit the family.
    """
    if family == 'ytvis':
        return _score_ytvis(truth, results, video_ids, track_score, progress)
    if len(truth) != 1:
        raise ValueError(f'Expected one truth for {family}, got {len(truth)}.')
    if family == 'vipseg':
        return _score_vipseg(truth[0], results, truth_masks, video_ids, progress)
    return _score_vspw(truth[0], results, split or 'val', video_ids, progress)


def _score_ytvis(
    paths: Sequence[Path],
    results_path: Path,
    video_ids: Collection[VideoId] | None,
    track_score: float,
    progress: Progress,
) -> ScoreReport:
    if not paths:
        raise ValueError('Expected at least one truth, got none.')
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        raise ValueError(f'Expected truth files of different names, got {", ".join(names)}.')
    truths = [load_ytvis(path) for path in paths]
    for path, truth in zip(paths, truths, strict=True):
        if not truth.has_annotations:
            raise DatasetError(
                path, ['Expected annotations, got none: there is nothing to score.']
            )
    results = load_ytvis_results(
        results_path,
        [video for truth in truths for video in truth.videos],
        [category for truth in truths for category in truth.categories],
    )
    chosen = _choose([video.video_id for truth in truths for video in truth.videos], video_ids)
    total, done = sum(chosen.values()), itertools.count(1)
    reports: dict[str, ScoreReport] = {}
    notes = list(results.notes)
    for name, truth in zip(names, truths, strict=True):
        videos = [video for video in truth.videos if video.video_id in chosen]
        if videos:
            reports[name] = _score_ytvis_truth(
                truth, videos, results, track_score, lambda: progress(next(done), total)
            )
        else:
            notes.append(f'{name}: none of its videos was scored, so it is left out of the mean.')
    if len(truths) == 1:
        [report] = reports.values()
    else:
        report = mean_report(reports)
    report.notes[:0] = notes
    return report


def _score_ytvis_truth(
    truth: YtvisTruth,
    videos: Sequence[Any],
    results: Mapping[VideoId, Sequence[MaskTrack]],
    track_score: float,
    progress: Callable[[], object],
) -> ScoreReport:
    ap = VideoAP(category.category_id for category in truth.categories)
    tracking = TrackingTally()
    num_crowds = num_tracks = num_left_out = 0
    for video in videos:
        true_tracks, tracks = truth.tracks(video.video_id), results.get(video.video_id, [])
        followed = [track for track in tracks if track.score >= track_score]
        with _naming(f'Video {video.video_id}'):
            ap.add_video(video.video_id, true_tracks, tracks)
            tracking.add_video(video, overlap_tracks(video.video_id, true_tracks, followed))
        num_crowds += sum(track.is_crowd for track in true_tracks)
        num_tracks += len(tracks)
        num_left_out += len(tracks) - len(followed)
        progress()
    notes = _missing_note([video for video in videos if video.video_id not in results])
    if track_score > 0:
        notes.append(
            f'Figures of tracking leave out {num_left_out} of {num_tracks} tracks, whose score is '
            f'below {track_score:g}.'
        )
    if num_crowds:
        notes.append(
            f'Crowds ({num_crowds}) are ignored by AP and AR, but are single objects in figures '
            'of tracking, as in TrackEval.'
        )
    scores = ap.result()
    return ScoreReport(
        'ytvis',
        _select('ytvis', scores.figures() | tracking.total.figures()),
        _per_class(truth.categories, scores.per_class, tracking),
        tracking.per_video,
        curves=_curves(scores),
        switches=tracking.switches(),
        notes=notes,
    )


def _score_vipseg(
    path: Path,
    folder: Path,
    masks_folder: Path | None,
    video_ids: Collection[VideoId] | None,
    progress: Progress,
) -> ScoreReport:
    truth = load_vipseg(path, masks_folder)
    if not truth.has_annotations:
        raise DatasetError(path, ['Expected annotations, got none: there is nothing to score.'])
    results = load_vipseg_results(folder, truth.videos, truth.categories)
    chosen = _choose([video.video_id for video in truth.videos], video_ids)
    videos = [video for video in truth.videos if video.video_id in chosen]
    is_thing = {category.category_id: category.is_thing for category in truth.categories}
    vpq, stq = VideoPanopticQuality(is_thing), SegmentationTrackingQuality(is_thing)
    tracking, faults = TrackingTally(), _Faults(folder)
    for number, video in enumerate(videos, start=1):
        vpq.start_video()
        stq.start_video()
        overlaps = ImageOverlaps(is_thing)
        for t, frame_name in enumerate(video.frame_names):
            with faults.gathering(f'Video {video.video_id}, frame {frame_name}'):
                frame = (
                    truth.ids(video.video_id, t),
                    truth.segments(video.video_id, t),
                    results.ids(video.video_id, t),
                    results.segments(video.video_id, t),
                )
                vpq.update(*frame)
                stq.update(*frame)
                overlaps.update(*frame)
        tracking.add_video(video, overlaps.sequences(video.video_id))
        progress(number, len(videos))
    faults.finish()
    vpq_scores, stq_scores = vpq.result(), stq.result()
    figures = vpq_scores.figures() | stq_scores.figures() | tracking.total.figures()
    per_class = {
        category: entry | stq_scores.per_class[category]
        for category, entry in vpq_scores.per_class.items()
    }
    return ScoreReport(
        'vipseg',
        _select('vipseg', figures),
        _per_class(truth.categories, per_class, tracking),
        tracking.per_video,
        switches=tracking.switches(),
        notes=_missing_note([video for video in videos if video.video_id in results.missing]),
    )


def _score_vspw(
    root: Path,
    folder: Path,
    split: str,
    video_ids: Collection[VideoId] | None,
    progress: Progress,
) -> ScoreReport:
    truth = load_vspw(root, split)
    results = load_vspw_results(folder, truth.videos)
    chosen = _choose([video.video_id for video in truth.videos], video_ids)
    videos = [video for video in truth.videos if video.video_id in chosen]
    total = SemanticQuality(NUM_CLASSES).result()
    per_video: dict[str, dict[str, Any]] = {}
    faults = _Faults(folder)
    for number, video in enumerate(videos, start=1):
        quality = SemanticQuality(NUM_CLASSES)
        for t, frame_name in enumerate(video.frame_names):
            with faults.gathering(f'Video {video.video_id}, frame {frame_name}'):
                true_mask = truth.mask(video.video_id, t)
                pred_mask = None
                if video.video_id not in results.missing:
                    pred_mask = results.mask(video.video_id, t, true_mask)
                quality.update(true_mask, pred_mask)
        scores = quality.result()
        total += scores
        per_video[video.video_id] = {'name': video.name, 'mIoU': scores.figures()['mIoU']}
        progress(number, len(videos))
    faults.finish()
    return ScoreReport(
        'vspw',
        _select('vspw', total.figures()),
        _per_class(truth.categories, total.per_class, None),
        per_video,
        notes=_missing_note([video for video in videos if video.video_id in results.missing]),
    )


def _choose(known: Sequence[VideoId], video_ids: Collection[VideoId] | None) -> Counter[VideoId]:
    """The videos to score, and how many truths have each."""
    if video_ids is not None:
        if unknown := sorted(set(video_ids) - set(known), key=str):
            raise ValueError(f'Expected videos of the truth, got {", ".join(map(str, unknown))}.')
        known = [video_id for video_id in known if video_id in video_ids]
    if not known:
        raise ValueError('Expected at least one video to score, got none.')
    return Counter(known)


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Say where it was that metrics found something wrong."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f'{place}: {error}') from error


class _Faults:
    """Faults of frames, which are read one by one: told at the end, or once they are many."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._faults: list[str] = []

    @contextmanager
    def gathering(self, place: str) -> Iterator[None]:
        """Note what is wrong with a frame, and go on to the next."""
        try:
            yield
        except DatasetError as error:
            self._faults.append(f'{error.path}: {" ".join(error.faults)}')
        except ValueError as error:
            self._faults.append(f'{place}: {error}')
        if len(self._faults) == _MAX_FAULTS:
            self._faults.append('Frames after that were not looked at.')
            self.finish()

    def finish(self) -> None:
        """Raise DatasetError if there was any fault."""
        if self._faults:
            raise DatasetError(self._folder, self._faults)


def _missing_note(videos: Sequence[Any]) -> list[str]:
    if not videos:
        return []
    count = '1 video' if len(videos) == 1 else f'{len(videos)} videos'
    names = ', '.join(video.name for video in videos[:_MAX_NAMES])
    more = f' and {len(videos) - _MAX_NAMES} more' if len(videos) > _MAX_NAMES else ''
    return [f'{count} without results, whose objects count as missed: {names}{more}.']


def _select(family: FamilyName, figures: Mapping[str, float | None]) -> Figures:
    return {name: figures[name] for name in FIGURES[family]}


def _per_class(
    categories: Iterable[Category],
    figures: Mapping[int, Mapping[str, float | None]],
    tracking: TrackingTally | None,
) -> list[dict[str, Any]]:
    """Entries of `ScoreReport.per_class`."""
    entries = []
    for category in categories:
        number = category.category_id
        entry: dict[str, Any] = {
            'category_id': number,
            'name': category.name,
            'is_thing': category.is_thing,
            **figures[number],
        }
        if tracking and category.is_thing:
            entry |= tracking.of_class(number).figures()
        entries.append(entry)
    return entries


def _curves(scores: ApScores) -> dict[str, Any]:
    counting = ~np.isnan(scores.precision).all(axis=(0, 1))
    if not counting.any():
        return {}
    curves = scores.precision[:, :, counting].mean(axis=2)  # thresholds, recall levels
    rows = {value: int(np.argmin(abs(IOU_THRESHOLDS - value))) for value in (0.5, 0.75)}
    return {
        'recall': RECALL_LEVELS.tolist(),
        'precision': {
            **{str(value): curves[row].tolist() for value, row in rows.items()},
            'mean': curves.mean(axis=0).tolist(),
        },
    }
