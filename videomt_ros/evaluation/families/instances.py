"""Instances along videos: YouTube-VIS, OVIS and the instances of COCO."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.categories import ClassMap
from videomt_ros.datasets.dataset import AnnotatedVideo, Category, Dataset, DatasetError, Video
from videomt_ros.datasets.formats.ytvis import (
    YtvisTruth,
    load_ytvis,
    load_ytvis_results,
    write_ytvis_results,
)
from videomt_ros.datasets.rle import MaskTrack, decode
from videomt_ros.evaluation.families.family import (
    Family,
    Label,
    ScoreRequest,
    StoredVideo,
    TruthLabels,
    VideoId,
    categories_by_id,
)
from videomt_ros.evaluation.families.instance_results import (
    InstanceResults,
    TrackResult,
    stored_tracks,
)
from videomt_ros.evaluation.families.score_parts import (
    choose_videos,
    class_entries,
    missing_note,
    naming,
)
from videomt_ros.evaluation.figures import Group
from videomt_ros.evaluation.metrics.ap import IOU_THRESHOLDS, RECALL_LEVELS, ApScores, VideoAP
from videomt_ros.evaluation.metrics.confusion import InstanceConfusion
from videomt_ros.evaluation.metrics.overlap import overlap_tracks
from videomt_ros.evaluation.metrics.tracking_scores import TrackingTally
from videomt_ros.evaluation.score_report import ScoreReport, mean_report
from videomt_ros.structures import Segments

if TYPE_CHECKING:
    from videomt_ros.evaluation.whole_video import EndedVideo

SHOWN_SCORE = 0.3
"""Lowest score of a predicted instance in a picture and in the confusion of classes; the published
mode has many weak ones."""


class Instances(Family):
    """Objects as tracks, whose masks may overlap, in one JSON for all videos. See `Family`."""

    name = 'ytvis'
    task = 'instance'
    group = Group(
        'Instances',
        {
            'AP': 'Average precision: mean over classes and the IoU thresholds 0.50 to 0.95.',
            'AP50': 'AP at the IoU threshold 0.50 alone: found, however roughly outlined.',
            'AP75': 'AP at the IoU threshold 0.75 alone: found and outlined well.',
            'APs': 'AP of small objects, up to 128 x 128 pixels.',
            'APm': 'AP of medium objects, between 128 x 128 and 256 x 256 pixels.',
            'APl': 'AP of large objects, from 256 x 256 pixels.',
            'AR1': 'Average recall with the surest prediction per video and class.',
            'AR10': 'Average recall with the ten surest predictions per video and class.',
            'AR100': 'Average recall with the hundred surest predictions per video and class.',
        },
    )
    main_figure = 'AP'
    class_figure = 'AP'
    logged_figures = ('AP', 'AP50', 'AR10', 'HOTA', 'IDF1')
    score_options = frozenset({'track_score'})
    reads_zip = True
    published_note = (
        'That protocol lists ten or more tracks a video, sure or not, which its tracking figures '
        'count as false.'
    )

    def new_results(
        self, folder: Path, video: Video, categories: Sequence[Category]
    ) -> InstanceResults:
        """See `Family`."""
        return InstanceResults(folder, video)

    def live_video(self, results: InstanceResults, classes: ClassMap) -> LiveInstances:
        """See `Family`."""
        return LiveInstances(results, classes)

    def write_published(
        self, ended: EndedVideo, results: InstanceResults, classes: ClassMap
    ) -> dict[str, Any]:
        """See `Family`."""
        pairs = ended.choose_pairs(classes.usable)
        queries = sorted({pair.query for pair in pairs})
        for index, masks in ended.instance_masks(queries):
            for query, mask in zip(queries, masks, strict=True):
                results.add(index, query, mask)
        tracks = []
        for query, class_id, score in pairs:
            category_id = classes.category_ids[class_id]
            assert category_id is not None, 'choose_pairs leaves such classes out'
            tracks.append(TrackResult(query, category_id, score))
        return results.finish(tracks)

    def video_folder(self, target: Path, part: Path, video: Video) -> Path:
        """See `Family`."""
        return part

    def write_files(self, target: Path, videos: Iterable[StoredVideo]) -> Path:
        """See `Family`."""
        path = target / 'results.json'
        write_ytvis_results(
            path,
            (
                track
                for video, folder, content in videos
                for track in stored_tracks(folder, video.video_id, content)
            ),
        )
        return path

    def load_truth(self, dataset: Dataset, videos: Iterable[Video]) -> TruthLabels:
        """See `Family`."""
        tracks: dict[VideoId, Sequence[MaskTrack]] = {}
        for path in dataset.truth:
            truth = load_ytvis(path, skip_bad=dataset.skip_bad)
            tracks |= {video.video_id: truth.tracks(video.video_id) for video in truth.videos}
        counts = Counter(
            track.category_id
            for video in videos
            for track in tracks[video.video_id]
            if not track.is_crowd
        )
        labels = TrackLabels(tracks.__getitem__, categories_by_id(dataset), has_scores=False)
        return TruthLabels(labels, counts)

    def load_results(self, folder: Path, dataset: Dataset) -> TrackLabels:
        """See `Family`."""
        path = folder / 'results.json'
        tracks = load_ytvis_results(path, dataset.videos, dataset.categories)
        return TrackLabels(
            lambda video_id: tracks.get(video_id, ()), categories_by_id(dataset), has_scores=True
        )

    def legend(self, has_truth: bool) -> list[str]:
        """See `Family`."""
        return [
            *super().legend(has_truth),
            f'Predictions with a score of at least {SHOWN_SCORE} are shown.',
        ]

    def score(self, request: ScoreRequest) -> ScoreReport:
        """Score one file, or the mean over several truth files. See `Family`."""
        paths = request.truth
        if not paths:
            raise ValueError('Expected at least one truth, got none.')
        names = [path.stem for path in paths]
        if len(set(names)) < len(names):
            raise ValueError(f'Expected truth files of different names, got {", ".join(names)}.')
        truths = [_load_annotated(path, request.skip_bad) for path in paths]
        all_videos = [video for truth in truths for video in truth.videos]
        all_categories = [category for truth in truths for category in truth.categories]
        results = load_ytvis_results(
            request.results,
            all_videos,
            all_categories,
            skip_bad=request.skip_bad,
            is_strict=request.is_strict,
        )
        chosen = choose_videos([video.video_id for video in all_videos], request.video_ids)
        total, done = sum(chosen.values()), itertools.count(1)
        reports: dict[str, ScoreReport] = {}
        notes = [*(note for truth in truths for note in truth.notes), *results.notes]
        for name, truth in zip(names, truths, strict=True):
            videos = [video for video in truth.videos if video.video_id in chosen]
            if videos:
                reports[name] = self._score_truth(
                    truth,
                    videos,
                    results,
                    request.track_score,
                    lambda: request.progress(next(done), total),
                )
            else:
                notes.append(
                    f'{name}: none of its videos was scored, so it is left out of the mean.'
                )
        if len(truths) == 1:
            [report] = reports.values()
        else:
            report = mean_report(reports)
        report.notes[:0] = notes
        for truth in truths:
            report.left_out.extend(truth.left_out)
        report.left_out.extend(results.left_out)
        return report

    def _score_truth(
        self,
        truth: YtvisTruth,
        videos: Sequence[AnnotatedVideo],
        results: Mapping[VideoId, Sequence[MaskTrack]],
        track_score: float,
        progress: Callable[[], object],
    ) -> ScoreReport:
        ap = VideoAP(category.category_id for category in truth.categories)
        tracking = TrackingTally()
        confusion = InstanceConfusion(
            [category.category_id for category in truth.categories],
            max(SHOWN_SCORE, track_score),
        )
        num_crowds = num_tracks = num_left_out = 0
        for video in videos:
            true_tracks, tracks = truth.tracks(video.video_id), results.get(video.video_id, [])
            followed = [track for track in tracks if track.score >= track_score]
            with naming(f'Video {video.video_id}'):
                sequences = overlap_tracks(video.video_id, true_tracks, followed)
                has_all = len(followed) == len(tracks)
                ap.add_video(video.video_id, true_tracks, tracks, sequences if has_all else None)
                tracking.add_video(video, sequences)
                confusion.add_video(true_tracks, tracks)
            num_crowds += sum(track.is_crowd for track in true_tracks)
            num_tracks += len(tracks)
            num_left_out += len(tracks) - len(followed)
            progress()
        notes = missing_note(
            videos, {video.video_id for video in videos if video.video_id not in results}
        )
        if track_score > 0:
            notes.append(
                f'Figures of tracking leave out {num_left_out} of {num_tracks} tracks, whose '
                f'score is below {track_score:g}.'
            )
        if not any(truth.tracks(video.video_id) for video in videos):
            notes.append('The truth has no objects, so that there is nothing to find.')
        if num_crowds:
            notes.append(
                f'Crowds ({num_crowds}) are ignored by AP and AR, but are single objects in '
                'figures of tracking, as in TrackEval.'
            )
        scores = ap.result()
        return ScoreReport(
            self.name,
            self.select(scores.figures() | tracking.total.figures()),
            class_entries(truth.categories, scores.per_class, tracking),
            tracking.per_video,
            curves=_curves(scores),
            switches=tracking.switches(),
            confusion=confusion.result().to_json(),
            notes=notes,
        )


class LiveInstances:
    """Collects one result for each track id. See `LiveVideo`.

    Its category is that of the class that it was given in most frames (the latest of these at a
    tie), its score the mean of its scores over the frames with pixels.
    """

    def __init__(self, results: InstanceResults, classes: ClassMap) -> None:
        self._results, self._category_ids = results, classes.category_ids
        self._class_counts: dict[int, Counter[int]] = {}
        self._latest: dict[tuple[int, int], int] = {}
        self._scores: dict[int, tuple[float, int]] = {}

    def add(self, index: int, segments: Segments) -> None:
        """See `LiveVideo`."""
        for segment in segments.segments:
            if not segment.area:
                continue
            track_id, class_id = segment.track_id, segment.class_id
            self._results.add(index, track_id, segments.mask(track_id))
            self._class_counts.setdefault(track_id, Counter())[class_id] += 1
            self._latest[track_id, class_id] = index
            total, count = self._scores.get(track_id, (0.0, 0))
            self._scores[track_id] = (total + segment.score, count + 1)

    def finish(self) -> dict[str, Any]:
        """See `LiveVideo`."""
        tracks = []
        for track_id, counts in self._class_counts.items():
            class_id = max(counts, key=lambda k: (counts[k], self._latest[track_id, k]))
            category_id = self._category_ids[class_id]
            total, count = self._scores[track_id]
            if category_id is not None:
                tracks.append(TrackResult(track_id, category_id, total / count))
        return self._results.finish(tracks)


class TrackLabels:
    """Labels instances; where they overlap, the highest score is in front. See `Labels`.

    Keys count the tracks of a video from 1, since the ids in a file may be 0, negative or large.
    """

    def __init__(
        self,
        tracks: Callable[[VideoId], Iterable[MaskTrack]],
        categories: Mapping[int, Category],
        has_scores: bool,
    ) -> None:
        """Wrap tracks that are loaded already.

        Args:
            tracks: returns the tracks of a video, always in the same order.
            categories: categories by id.
            has_scores: True for predictions; those below SHOWN_SCORE are left out.
        """
        self._tracks = tracks
        self._categories = categories
        self._has_scores = has_scores

    def frame(self, video: Video, index: int) -> tuple[NDArray[np.int64], list[Label]]:
        """See `Labels`."""
        keys = np.zeros(video.size, np.int64)
        labels = []
        tracks = enumerate(self._tracks(video.video_id), start=1)
        for key, track in sorted(tracks, key=lambda item: item[1].score):
            mask = track.masks[index]
            if mask is not None and (track.score >= SHOWN_SCORE or not self._has_scores):
                keys[decode(mask)] = key
                category = self._categories[track.category_id]
                score = track.score if self._has_scores else None
                labels.append(Label(key, category.name, category.is_thing, score, track.track_id))
        return keys, labels


def _load_annotated(path: Path, skip_bad: bool) -> YtvisTruth:
    """Load an annotation file that must have annotations."""
    truth = load_ytvis(path, skip_bad=skip_bad)
    if not truth.has_annotations:
        raise DatasetError(path, ['Expected annotations, got none: there is nothing to score.'])
    return truth


def _curves(scores: ApScores) -> dict[str, Any]:
    """Build `ScoreReport.curves`: precision over recall, mean over the classes."""
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
