"""Panoptic segments along videos and in single images: VIPSeg, and the files of COCO panoptic."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.categories import ClassMap
from videomt_ros.datasets.dataset import Category, Dataset, DatasetError, Video
from videomt_ros.datasets.formats.panoptic_files import (
    PanopticFrames,
    VipsegResults,
    VipsegTruth,
    VipsegVideo,
)
from videomt_ros.datasets.formats.vipseg import (
    PredictedVideo,
    load_vipseg,
    load_vipseg_results,
    write_pred_json,
)
from videomt_ros.datasets.mask_png import segments_info, write_ids
from videomt_ros.evaluation.families.family import (
    Family,
    Label,
    ScoreRequest,
    StoredVideo,
    TruthLabels,
    VideoId,
    categories_by_id,
    png_names,
)
from videomt_ros.evaluation.families.score_parts import (
    RESULTS,
    TRUTH,
    Faults,
    check_frames,
    choose_videos,
    class_entries,
    missing_note,
    only_truth,
)
from videomt_ros.evaluation.figures import Figures, Group
from videomt_ros.evaluation.metrics.confusion import pixel_confusion
from videomt_ros.evaluation.metrics.overlap import ImageOverlaps
from videomt_ros.evaluation.metrics.stq import SegmentationTrackingQuality, StqScores
from videomt_ros.evaluation.metrics.tracking_scores import TrackingTally
from videomt_ros.evaluation.metrics.vpq import VideoPanopticQuality, VpqScores
from videomt_ros.evaluation.score_report import ScoreReport
from videomt_ros.structures import Segments

if TYPE_CHECKING:
    from videomt_ros.evaluation.whole_video import EndedVideo

_WINDOWS = {
    f'VPQ{k}{end}': f'VPQ over windows of {k} frame{"s" * (k > 1)}, {which}.'
    for k in (1, 2, 4, 6, 8)
    for end, which in (('', 'all classes'), ('_th', 'things'), ('_st', 'stuff'))
}


class Panoptic(Family):
    """Things and stuff as a PNG of ids per frame, and a JSON of what each id is. See `Family`."""

    name = 'vipseg'
    task = 'panoptic'
    group = Group(
        'Panoptic',
        {
            'VPQ': 'Video panoptic quality: mean over windows of 1, 2, 4, 6 frames (VIPSeg).',
            'VPQ_th': 'VPQ of things: countable objects.',
            'VPQ_st': 'VPQ of stuff: sky, road and the like.',
            'VPQ_five': 'VPQ with windows of 8 frames too, as the released scripts average it.',
            'VPQ_five_th': 'As above, things.',
            'VPQ_five_st': 'As above, stuff.',
            **_WINDOWS,
            'STQ': 'Segmentation and tracking quality: geometric mean of AQ and SQ.',
            'AQ': 'Association quality: pixels of things that keep their identity.',
            'SQ': 'Segmentation quality: mean IoU over classes.',
        },
    )
    main_figure = 'VPQ'
    class_figure = 'VPQ'
    logged_figures: ClassVar[tuple[str, ...]] = ('VPQ', 'STQ', 'HOTA', 'IDF1')
    score_options = frozenset({'truth_masks'})
    paper_note = (
        'Whether a printed VPQ is the mean over four windows (VPQ) or five (VPQ_five), papers do '
        'not say: look at both.'
    )

    def new_results(
        self, folder: Path, video: Video, categories: Sequence[Category]
    ) -> PanopticResults:
        """See `Family`."""
        return PanopticResults(folder, video)

    def live_video(self, results: PanopticResults, classes: ClassMap) -> LivePanoptic:
        """See `Family`."""
        return LivePanoptic(results, classes)

    def write_published(
        self, ended: EndedVideo, results: PanopticResults, classes: ClassMap
    ) -> dict[str, Any]:
        """See `Family`."""
        chosen = ended.choose_segments()
        # Stuff of one class is one segment; a class that the data set lacks is void.
        first: dict[int, int] = {}
        ids = np.zeros(len(chosen) + 1, np.int32)
        category_ids = {}
        for k, item in enumerate(chosen):
            category_id = classes.category_ids[item.class_id]
            if category_id is None:
                continue
            is_thing = ended.thing_classes[item.class_id]
            ids[k + 1] = k + 1 if is_thing else first.setdefault(item.class_id, k + 1)
            category_ids[int(ids[k + 1])] = category_id
        for index, pixels in ended.panoptic_pixels(chosen):
            results.add(index, ids[pixels], category_ids)
        return results.finish()

    def video_folder(self, target: Path, part: Path, video: Video) -> Path:
        """See `Family`."""
        return target / 'pan_pred' / str(video.video_id)

    def write_files(self, target: Path, videos: Iterable[StoredVideo]) -> Path:
        """See `Family`; the PNGs are in place already."""
        write_pred_json(
            target,
            (
                PredictedVideo(str(video.video_id), png_names(video), content['segments'])
                for video, _, content in videos
            ),
        )
        return target

    def check_truth(
        self, dataset: Dataset, videos: Sequence[Video], progress: Callable[[], object]
    ) -> dict[VideoId, str]:
        """See `Family`."""
        truth = load_vipseg(
            dataset.truth[0], dataset.truth_masks, skip_bad=dataset.skip_bad, keep_faulty=True
        )
        return check_frames(videos, truth.unusable, truth.ids, progress)

    def load_truth(self, dataset: Dataset, videos: Iterable[Video]) -> TruthLabels:
        """See `Family`."""
        truth = load_vipseg(
            dataset.truth[0], dataset.truth_masks, skip_bad=dataset.skip_bad, keep_faulty=True
        )
        segments = {
            (video.video_id, segment['id'], segment['category_id'])
            for video in videos
            if str(video.video_id) not in truth.unusable
            for t in range(len(video.frame_names))
            for segment in truth.segments(str(video.video_id), t)
        }
        counts = Counter(category for _, _, category in segments)
        return TruthLabels(PanopticLabels(truth, categories_by_id(dataset)), counts)

    def load_results(self, folder: Path, dataset: Dataset) -> PanopticLabels:
        """See `Family`."""
        videos = [
            VipsegVideo(str(video.video_id), video.size, png_names(video))
            for video in dataset.videos
        ]
        results = load_vipseg_results(folder, videos, dataset.categories)
        return PanopticLabels(results, categories_by_id(dataset))

    def score(self, request: ScoreRequest) -> ScoreReport:
        """See `Family`."""
        path = only_truth(self.name, request.truth)
        truth = load_vipseg(
            path,
            request.truth_masks,
            skip_bad=request.skip_bad,
            keep_faulty=not request.is_strict,
        )
        if not truth.has_annotations:
            raise DatasetError(
                path, ['Expected annotations, got none: there is nothing to score.']
            )
        results = load_vipseg_results(
            request.results,
            truth.videos,
            truth.categories,
            skip_bad=request.skip_bad,
            is_strict=request.is_strict,
        )
        chosen = choose_videos([video.video_id for video in truth.videos], request.video_ids)
        videos = [video for video in truth.videos if video.video_id in chosen]
        is_thing = {category.category_id: category.is_thing for category in truth.categories}
        vpq, stq = VideoPanopticQuality(is_thing), SegmentationTrackingQuality(is_thing)
        tracking = TrackingTally()
        faults = Faults(path, request.results, request.is_strict, truth.unusable, results.unusable)
        for number, video in enumerate(videos, start=1):
            vpq.start_video()
            stq.start_video()
            # A video that turns out to be at fault must leave no trace in the sums.
            scored = _score_video(video, truth, results, (vpq, stq), faults)
            if scored is not None:
                vpq, stq, overlaps = scored
                tracking.add_video(video, overlaps.sequences(video.video_id))
            request.progress(number, len(videos))
        failures, notes = faults.finish(videos)
        vpq_scores, stq_scores = vpq.result(), stq.result()
        # Single images have no windows of several frames: they have the figures of COCO.
        is_images = all(len(video.frame_names) == 1 for video in truth.videos)
        kind = _IMAGES if is_images else self
        per_class = kind.panoptic_classes(vpq_scores, stq_scores)
        return ScoreReport(
            kind.name,
            kind.select(kind.panoptic_figures(vpq_scores, stq_scores) | tracking.total.figures()),
            class_entries(truth.categories, per_class, tracking),
            tracking.per_video,
            switches=tracking.switches(),
            confusion=pixel_confusion(
                {category: place for place, category in enumerate(is_thing)}, stq_scores.confusion
            ).to_json(),
            notes=[
                *truth.notes,
                *results.notes,
                *notes,
                *missing_note(videos, results.missing, faults),
            ],
            failures=failures,
            left_out=[*truth.left_out, *results.left_out],
        )

    def panoptic_figures(self, vpq: VpqScores, stq: StqScores) -> Figures:
        """Compute the figures of `group`, among others."""
        return vpq.figures() | stq.figures()

    def panoptic_classes(self, vpq: VpqScores, stq: StqScores) -> dict[int, Figures]:
        """Compute the figures of each class by category id."""
        return {
            category: entry | stq.per_class[category] for category, entry in vpq.per_class.items()
        }


class PanopticImages(Panoptic):
    """Things and stuff in single images, with the figures of COCO panoptic. See `Family`."""

    name = 'coco_panoptic'
    group = Group(
        'Panoptic',
        {
            f'{name}{end}': f'{meaning}{which}.'
            for end, which in (('', ''), ('_th', ', things'), ('_st', ', stuff'))
            for name, meaning in (
                ('PQ', 'Panoptic quality: SQ x RQ of each class, mean over the classes'),
                ('SQ', 'Segmentation quality: mean IoU of the segments that match'),
                ('RQ', 'Recognition quality: F1 of segments, which match at an IoU above 0.50'),
            )
        },
    )
    main_figure = 'PQ'
    class_figure = 'PQ'
    logged_figures = ('PQ', 'SQ', 'RQ')
    paper_note = ''

    def panoptic_figures(self, vpq: VpqScores, stq: StqScores) -> Figures:
        """See `Panoptic`."""
        return vpq.frame_figures()

    def panoptic_classes(self, vpq: VpqScores, stq: StqScores) -> dict[int, Figures]:
        """See `Panoptic`."""
        return vpq.frames_per_class


_IMAGES = PanopticImages()


def _score_video(
    video: VipsegVideo,
    truth: VipsegTruth,
    results: VipsegResults,
    so_far: tuple[VideoPanopticQuality, SegmentationTrackingQuality],
    faults: Faults,
) -> tuple[VideoPanopticQuality, SegmentationTrackingQuality, ImageOverlaps] | None:
    """Score the frames of a video; None if its truth cannot be used.

    Faults are noted. If one is in the results, they count as missing.

    Returns:
        Copies of the scores so far with this video in them, and its overlaps.
    """
    video_id = video.video_id
    is_missing = video_id in results.missing or (RESULTS, video_id) in faults
    vpq, stq = copy.deepcopy(so_far)
    overlaps = ImageOverlaps(
        {category.category_id: category.is_thing for category in truth.categories}
    )
    for t, frame_name in enumerate(video.frame_names):
        if faults.ends((TRUTH, video_id)) or (not is_missing and faults.ends((RESULTS, video_id))):
            break
        true, predicted = None, None
        with faults.gathering(TRUTH, video, frame_name):
            true = truth.ids(video_id, t), truth.segments(video_id, t)
        with faults.gathering(RESULTS, video, frame_name):
            predicted = (
                (np.zeros(video.size, np.uint32), [])
                if is_missing
                else (results.ids(video_id, t), results.segments(video_id, t))
            )
        if true is None or predicted is None:
            continue
        # Lists and images of the results fit each other: what is wrong here is the truth.
        with faults.gathering(TRUTH, video, frame_name):
            for metric in (vpq, stq, overlaps):
                metric.update(*true, *predicted)
    if (TRUTH, video_id) in faults:
        return None
    if (RESULTS, video_id) in faults and not is_missing:
        return _score_video(video, truth, results, so_far, faults)
    return vpq, stq, overlaps


class PanopticResults:
    """Writes one PNG of ids per frame, and keeps what each id is. See `VideoResults`."""

    def __init__(self, folder: Path, video: Video) -> None:
        folder.mkdir(parents=True)
        self._folder, self._size = folder, video.size
        self._names = png_names(video)
        self._segments: dict[int, list[dict[str, Any]]] = {}

    def add(
        self, index: int, ids: NDArray[np.integer[Any]], category_ids: Mapping[int, int]
    ) -> None:
        """Add one annotated frame.

        Args:
            index: number of the frame.
            ids: (H, W), 0 is void.
            category_ids: category ids of at least every id in there.
        """
        write_ids(self._folder / self._names[index], ids)
        self._segments[index] = segments_info(ids, category_ids)

    def finish(self) -> dict[str, Any]:
        """Complete the video; frames that were not added are void.

        Returns:
            The segments of each frame, for JSON.
        """
        for index in set(range(len(self._names))) - set(self._segments):
            self.add(index, np.zeros(self._size, np.uint8), {})
        return {'segments': [self._segments[index] for index in range(len(self._names))]}

    def abort(self) -> None:
        """Do nothing, since no file is open."""


class LivePanoptic:
    """Writes the ids of a frame as the stream has them, with their categories in that frame.

    See `LiveVideo`.
    """

    def __init__(self, results: PanopticResults, classes: ClassMap) -> None:
        self._results, self._category_ids = results, classes.category_ids

    def add(self, index: int, segments: Segments) -> None:
        """See `LiveVideo`."""
        ids = segments.ids
        category_ids: dict[int, int] = {}
        for segment in segments.segments:
            category_id = self._category_ids[segment.class_id]
            if category_id is not None:
                category_ids[segment.track_id] = category_id
            elif segment.area:
                ids = np.where(ids == segment.track_id, 0, ids)
        self._results.add(index, ids, category_ids)

    def finish(self) -> dict[str, Any]:
        """See `LiveVideo`."""
        return self._results.finish()


class PanopticLabels:
    """Labels segments; the keys are their ids. See `Labels`."""

    def __init__(self, frames: PanopticFrames, categories: Mapping[int, Category]) -> None:
        self._frames = frames
        self._categories = categories

    def frame(self, video: Video, index: int) -> tuple[NDArray[np.int64], list[Label]]:
        """See `Labels`."""
        video_id = str(video.video_id)
        labels = []
        for segment in self._frames.segments(video_id, index):
            category = self._categories[segment['category_id']]
            labels.append(Label(segment['id'], category.name, category.is_thing, None))
        return self._frames.ids(video_id, index).astype(np.int64), labels
