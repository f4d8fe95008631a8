"""A class per pixel along videos: VSPW."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from videomt_ros.datasets.categories import ClassMap
from videomt_ros.datasets.dataset import Category, Dataset, Video
from videomt_ros.datasets.formats.semantic_files import (
    NUM_CLASSES,
    VOID,
    VspwResults,
    VspwTruth,
    VspwVideo,
)
from videomt_ros.datasets.formats.vspw import load_vspw, load_vspw_results
from videomt_ros.datasets.mask_png import write_mask
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
from videomt_ros.evaluation.figures import Group
from videomt_ros.evaluation.metrics.confusion import pixel_confusion
from videomt_ros.evaluation.metrics.semantic import SemanticQuality, SemanticScores
from videomt_ros.evaluation.score_report import ScoreReport
from videomt_ros.structures import Segments

if TYPE_CHECKING:
    from videomt_ros.evaluation.whole_video import EndedVideo
    from videomt_ros.inference.stream_settings import StreamSettings


class Semantic(Family):
    """Classes as a PNG of category ids per frame, without objects and tracks. See `Family`."""

    name = 'vspw'
    task = 'semantic'
    group = Group(
        'Classes per pixel',
        {
            'mIoU': 'Mean over classes of the intersection over union of all pixels.',
            'FWIoU': 'The same, classes weighted by their share of the pixels.',
            'mVC8': 'Video consistency: pixels that stay alike over 8 frames where truth does.',
            'mVC16': 'The same over 16 frames.',
            'mVC16_as_printed': 'Mean over windows of 8 and of 16, as the released script prints.',
        },
    )
    main_figure = 'mIoU'
    class_figure = 'IoU'
    logged_figures = ('mIoU', 'mVC8', 'mVC16')
    has_tracks = False
    # The released script prints a mean over windows of 8 and of 16 as mVC16.
    paper_names = {'mVC16': 'mVC16_as_printed'}
    score_options = frozenset({'split'})
    comparison_note = (
        'mVC asks for one class along the frames, right or wrong, of pixels without a label too.'
    )
    paper_note = (
        'The released script prints as mVC16 what is called mVC16_as_printed here, and so the '
        'score in the paper stands there.'
    )

    def check_settings(self, settings: StreamSettings) -> None:
        """See `Family`."""
        if settings.class_filter:
            raise ValueError('VSPW wants a class in every pixel: leave class_filter empty.')

    def new_results(
        self, folder: Path, video: Video, categories: Sequence[Category]
    ) -> SemanticResults:
        """See `Family`."""
        return SemanticResults(folder, video, categories)

    def live_video(self, results: SemanticResults, classes: ClassMap) -> LiveSemantic:
        """See `Family`."""
        return LiveSemantic(results, classes)

    def write_published(
        self, ended: EndedVideo, results: SemanticResults, classes: ClassMap
    ) -> dict[str, Any]:
        """See `Family`."""
        table = classes.table(VOID)
        for index, class_ids in ended.semantic_pixels():
            results.add(index, table[class_ids])
        return results.finish()

    def video_folder(self, target: Path, part: Path, video: Video) -> Path:
        """See `Family`."""
        return target / video.name

    def write_files(self, target: Path, videos: Iterable[StoredVideo]) -> Path:
        """See `Family`; the PNGs are in place already, and there is no other file."""
        return target

    def check_truth(
        self, dataset: Dataset, videos: Sequence[Video], progress: Callable[[], object]
    ) -> dict[VideoId, str]:
        """See `Family`."""
        truth = load_vspw(
            dataset.truth[0], dataset.split, skip_bad=dataset.skip_bad, keep_faulty=True
        )
        return check_frames(videos, truth.unusable, truth.mask, progress)

    def load_truth(self, dataset: Dataset, videos: Iterable[Video]) -> TruthLabels:
        """See `Family`."""
        truth = load_vspw(
            dataset.truth[0], dataset.split, skip_bad=dataset.skip_bad, keep_faulty=True
        )
        return TruthLabels(SemanticLabels(truth.mask, categories_by_id(dataset), 1), {})

    def load_results(self, folder: Path, dataset: Dataset) -> SemanticLabels:
        """See `Family`."""
        videos = [
            VspwVideo(str(video.video_id), video.size, png_names(video))
            for video in dataset.videos
        ]
        results = load_vspw_results(folder, videos)
        return SemanticLabels(results.mask, categories_by_id(dataset), 0)

    def legend(self, has_truth: bool) -> list[str]:
        """See `Family`."""
        return ['A class has the same number and colour on both sides.']

    def score(self, request: ScoreRequest) -> ScoreReport:
        """See `Family`."""
        path = only_truth(self.name, request.truth)
        truth = load_vspw(
            path,
            request.split or 'val',
            skip_bad=request.skip_bad,
            keep_faulty=not request.is_strict,
        )
        results = load_vspw_results(
            request.results,
            truth.videos,
            skip_bad=request.skip_bad,
            is_strict=request.is_strict,
        )
        chosen = choose_videos([video.video_id for video in truth.videos], request.video_ids)
        videos = [video for video in truth.videos if video.video_id in chosen]
        total = SemanticQuality(NUM_CLASSES).result()
        per_video: dict[str, dict[str, Any]] = {}
        faults = Faults(path, request.results, request.is_strict, truth.unusable, results.unusable)
        for number, video in enumerate(videos, start=1):
            scores = _score_video(video, truth, results, faults)
            if scores is not None:
                total += scores
                per_video[video.video_id] = {'name': video.name, 'mIoU': scores.figures()['mIoU']}
            request.progress(number, len(videos))
        failures, notes = faults.finish(videos)
        return ScoreReport(
            self.name,
            self.select(total.figures()),
            class_entries(truth.categories, total.per_class, None),
            per_video,
            confusion=pixel_confusion(
                {category.category_id: category.category_id for category in truth.categories},
                total.confusion,
            ).to_json(),
            notes=[
                *results.notes,
                *notes,
                *missing_note(videos, results.missing, faults),
            ],
            failures=failures,
            left_out=[*truth.left_out, *results.left_out],
        )


def _score_video(
    video: VspwVideo, truth: VspwTruth, results: VspwResults, faults: Faults
) -> SemanticScores | None:
    """Score the frames of a video; None if its truth cannot be used.

    Faults are noted. If one is in the results, they count as missing.
    """
    quality, video_id = SemanticQuality(NUM_CLASSES), video.video_id
    is_missing = video_id in results.missing or (RESULTS, video_id) in faults
    for t, frame_name in enumerate(video.frame_names):
        if faults.ends((TRUTH, video_id)) or (not is_missing and faults.ends((RESULTS, video_id))):
            break
        true_mask = pred_mask = None
        with faults.gathering(TRUTH, video, frame_name):
            true_mask = truth.mask(video_id, t)
        with faults.gathering(RESULTS, video, frame_name):
            if true_mask is not None and not is_missing:
                pred_mask = results.mask(video_id, t, true_mask)
            if true_mask is not None and (is_missing or pred_mask is not None):
                quality.update(true_mask, pred_mask)
    if (TRUTH, video_id) in faults:
        return None
    if (RESULTS, video_id) in faults and not is_missing:
        return _score_video(video, truth, results, faults)
    return quality.result()


class SemanticResults:
    """Writes one PNG of category ids per frame. See `VideoResults`.

    The format has no value for a pixel without a class, so each takes the class of the nearest
    pixel that has one. A frame without any class gets one category throughout: a number that the
    data set does not use, if there is one.
    """

    def __init__(self, folder: Path, video: Video, categories: Sequence[Category]) -> None:
        folder.mkdir(parents=True)
        self._folder, self._size = folder, video.size
        self._names = png_names(video)
        self._done: set[int] = set()
        free = set(range(NUM_CLASSES)) - {category.category_id for category in categories}
        self._nothing = min(free, default=0)

    def add(self, index: int, classes: NDArray[np.integer[Any]]) -> None:
        """Add one annotated frame: (H, W) category ids, VOID in pixels without a class."""
        empty = classes == VOID
        if empty.all():
            classes = np.full(self._size, self._nothing, np.uint8)
        elif empty.any():
            rows, columns = ndimage.distance_transform_edt(
                empty, return_distances=False, return_indices=True
            )
            classes = classes[rows, columns]
        write_mask(self._folder / self._names[index], classes)
        self._done.add(index)

    def finish(self) -> dict[str, Any]:
        """Complete the video; frames that were not added are without any class."""
        for index in set(range(len(self._names))) - self._done:
            self.add(index, np.full(self._size, VOID, np.uint8))
        return {}

    def abort(self) -> None:
        """Do nothing, since no file is open."""


class LiveSemantic:
    """Writes the category of each pixel. See `LiveVideo`."""

    def __init__(self, results: SemanticResults, classes: ClassMap) -> None:
        self._results = results
        # The last entry stands for pixels without a class.
        self._table = np.append(classes.table(VOID), VOID).astype(np.uint8)

    def add(self, index: int, segments: Segments) -> None:
        """See `LiveVideo`."""
        classes = segments.semantic().astype(np.intp)
        self._results.add(index, self._table[np.minimum(classes, len(self._table) - 1)])

    def finish(self) -> dict[str, Any]:
        """See `LiveVideo`."""
        return self._results.finish()


class SemanticLabels:
    """Labels classes; the keys are category ids + 1. See `Labels`."""

    def __init__(
        self,
        mask: Callable[[str, int], NDArray[np.uint8]],
        categories: Mapping[int, Category],
        first: int,
    ) -> None:
        """Wrap masks that are read when they are asked for.

        Args:
            mask: returns the mask (H, W) of a frame, by video id and index.
            categories: categories by id.
            first: value in a mask that stands for category 0.
        """
        self._mask = mask
        self._categories = categories
        self._first = first

    def frame(self, video: Video, index: int) -> tuple[NDArray[np.int64], list[Label]]:
        """See `Labels`."""
        keys = self._mask(str(video.video_id), index).astype(np.int64) + 1 - self._first
        known = [key for key in np.unique(keys).tolist() if key - 1 in self._categories]
        keys[~np.isin(keys, known)] = 0
        return keys, [Label(key, self._categories[key - 1].name, False, None) for key in known]
