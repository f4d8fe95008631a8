"""Parts of the scoring of all families: choice of videos, gathered faults, notes."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from videomt_ros.datasets.dataset import AnnotatedVideo, Category, DatasetError, list_names
from videomt_ros.datasets.formats.record_checks import in_short
from videomt_ros.evaluation.metrics.tracking_scores import TrackingTally

VideoId = int | str

_MAX_NAMES = 20
"""Largest number of videos that the note on missing results names."""
_MAX_FAULTS = 10
"""Number of frames with faults after which reading on brings nothing new."""
_MAX_THREADS = 8
"""Largest number of threads that check the truth."""
_BATCH = 512
"""Number of frames that they are given at once."""
_MAX_REASONS = 3
"""Largest number of videos for which a note gives the reason."""
TRUTH, RESULTS = 'truth', 'results'
"""The two sides of a scoring, either of which may be at fault."""


def only_truth(family: str, truth: Sequence[Path]) -> Path:
    """Return the one truth of a family that cannot be scored against several."""
    if len(truth) != 1:
        raise ValueError(f'Expected one truth for {family}, got {len(truth)}.')
    return truth[0]


def choose_videos(
    known: Sequence[int | str], video_ids: Collection[int | str] | None
) -> Counter[int | str]:
    """Choose the videos to score.

    Args:
        known: ids of the videos of all truth files.
        video_ids: ids to score; None for all.

    Returns:
        The number of truth files that have each chosen video.

    Raises:
        ValueError: an id is unknown, or no video is left.
    """
    if video_ids is not None:
        if unknown := sorted(set(video_ids) - set(known), key=str):
            raise ValueError(f'Expected videos of the truth, got {", ".join(map(str, unknown))}.')
        known = [video_id for video_id in known if video_id in video_ids]
    if not known:
        raise ValueError('Expected at least one video to score, got none.')
    return Counter(known)


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Add the place to the message of a ValueError that a metric raises."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f'{place}: {error}') from error


class Faults:
    """Faults of the files of single videos, found while frames are read one by one.

    A video whose truth is at fault is left out of the figures, since what is to be found in it is
    not known; one whose results are at fault counts as missed. If strict, or if all videos are at
    fault, the faults are an error.
    """

    def __init__(
        self,
        truth: Path,
        results: Path,
        is_strict: bool,
        bad_truth: Mapping[VideoId, str],
        bad_results: Mapping[VideoId, str],
    ) -> None:
        """Start a scoring.

        Args:
            truth: file or folder of the truth, for errors.
            results: file or folder of the results, for errors.
            is_strict: whether any fault is an error.
            bad_truth: why the truth of a video cannot be used, by its id, where it is known.
            bad_results: the same for results.
        """
        self.is_strict = is_strict
        self._places = {TRUTH: truth, RESULTS: results}
        self._found: dict[str, dict[VideoId, list[str]]] = {
            TRUTH: {video_id: [reason] for video_id, reason in bad_truth.items()},
            RESULTS: {video_id: [reason] for video_id, reason in bad_results.items()},
        }
        self._last = ''

    @contextmanager
    def gathering(self, side: str, video: AnnotatedVideo, frame: str) -> Iterator[None]:
        """Note the fault of a frame and go on.

        Args:
            side: whose fault it is, TRUTH or RESULTS.
            video: the video.
            frame: name of the frame.

        Raises:
            DatasetError: if strict, there are so many faults that reading on is pointless.
        """
        try:
            yield
        except DatasetError as error:
            self._note(side, video, f'{error.path}: {" ".join(error.faults)}')
        except ValueError as error:
            self._note(side, video, f'Video {video.video_id}, frame {frame}: {error}')

    def __contains__(self, item: tuple[str, VideoId]) -> bool:
        """Tell whether a side of a video is at fault: (side, video id)."""
        side, video_id = item
        return video_id in self._found[side]

    def ends(self, item: tuple[str, VideoId]) -> bool:
        """Tell whether to read no more frames of a video: not if all faults are to be listed."""
        return not self.is_strict and item in self

    def finish(self, videos: Sequence[AnnotatedVideo]) -> tuple[list[dict[str, str]], list[str]]:
        """End the scoring of some videos.

        Returns:
            Content of `ScoreReport.failures`, and the notes that tell of them.

        Raises:
            DatasetError: there was a fault, if strict; or no video is without one.
        """
        chosen = {video.video_id for video in videos}
        faulty = {
            side: [video for video in videos if (side, video.video_id) in self]
            for side in (TRUTH, RESULTS)
        }
        num_faulty = len({video.video_id for each in faulty.values() for video in each})
        if num_faulty and (self.is_strict or num_faulty == len(chosen)):
            self._raise(chosen)
        failures = [
            {
                'video': video.name,
                'side': side,
                'error': in_short(self._found[side][video.video_id]),
            }
            for side in (TRUTH, RESULTS)
            for video in faulty[side]
        ]
        notes = [
            _faulty_note([each for each in failures if each['side'] == side], text)
            for side, text in (
                (TRUTH, 'without usable truth, left out of the figures'),
                (RESULTS, 'whose results cannot be used, whose objects count as missed'),
            )
            if faulty[side]
        ]
        return failures, notes

    def _note(self, side: str, video: AnnotatedVideo, fault: str) -> None:
        self._found[side].setdefault(video.video_id, []).append(fault)
        num_faults = sum(
            len(faults) for videos in self._found.values() for faults in videos.values()
        )
        if self.is_strict and num_faults >= _MAX_FAULTS:
            self._last = 'Frames after that were not looked at.'
            self._raise({*self._found[TRUTH], *self._found[RESULTS]})

    def _raise(self, chosen: Collection[VideoId]) -> None:
        faults = {
            side: [
                fault for video_id, each in videos.items() if video_id in chosen for fault in each
            ]
            for side, videos in self._found.items()
        }
        side = RESULTS if faults[RESULTS] else TRUTH
        last = [self._last] if self._last else []
        raise DatasetError(self._places[side], [*faults[TRUTH], *faults[RESULTS], *last])


def _faulty_note(failures: Sequence[Mapping[str, str]], text: str) -> str:
    count = '1 video' if len(failures) == 1 else f'{len(failures)} videos'
    reasons = '; '.join(f'{each["video"]}: {each["error"]}' for each in failures[:_MAX_REASONS])
    others = [each['video'] for each in failures[_MAX_REASONS:]]
    more = f'; {list_names(others)}' if others else ''
    return f'{count} {text}: {reasons}{more}'


def missing_note(
    videos: Sequence[AnnotatedVideo],
    missing: Collection[VideoId],
    faults: Faults | None = None,
) -> list[str]:
    """Write the note on videos without results; none if there are no such videos.

    Args:
        videos: the videos that are scored.
        missing: ids of the videos without results.
        faults: videos without usable truth are not told again.
    """
    videos = [
        video
        for video in videos
        if video.video_id in missing
        and not (faults is not None and (TRUTH, video.video_id) in faults)
    ]
    if not videos:
        return []
    count = '1 video' if len(videos) == 1 else f'{len(videos)} videos'
    names = ', '.join(video.name for video in videos[:_MAX_NAMES])
    more = f' and {len(videos) - _MAX_NAMES} more' if len(videos) > _MAX_NAMES else ''
    return [f'{count} without results, whose objects count as missed: {names}{more}.']


def check_frames(
    videos: Sequence[AnnotatedVideo],
    unusable: Mapping[VideoId, str],
    read: Callable[[str, int], object],
    progress: Callable[[], object],
) -> dict[VideoId, str]:
    """Read the truth of each frame by several threads; see `Family.check_truth`.

    Args:
        videos: the videos.
        unusable: reasons that are known already, by video id.
        read: reads the truth of a frame by video id and number.
        progress: called after each frame.
    """
    found: dict[VideoId, list[str]] = {}

    def check(place: tuple[AnnotatedVideo, int]) -> tuple[VideoId, str] | None:
        video, t = place
        try:
            read(str(video.video_id), t)
        except DatasetError as error:
            return video.video_id, f'{error.path}: {" ".join(error.faults)}'
        except (OSError, ValueError) as error:
            return video.video_id, f'Frame {video.frame_names[t]}: {error}'
        return None

    reasons = {
        video.video_id: unusable[key]
        for video in videos
        for key in (video.video_id, str(video.video_id))
        if key in unusable
    }
    places = (
        (video, t)
        for video in videos
        if video.video_id not in reasons
        for t in range(len(video.frame_names))
    )
    # Decoders leave Python to the other threads.
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1), 'check truth') as threads:
        while batch := list(itertools.islice(places, _BATCH)):
            for fault in threads.map(check, batch):
                if fault is not None:
                    found.setdefault(fault[0], []).append(fault[1])
                progress()
    return reasons | {video_id: in_short(faults) for video_id, faults in found.items()}


def class_entries(
    categories: Iterable[Category],
    figures: Mapping[int, Mapping[str, float | None]],
    tracking: TrackingTally | None,
) -> list[dict[str, Any]]:
    """Build `ScoreReport.per_class` from the figures of each category id."""
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
