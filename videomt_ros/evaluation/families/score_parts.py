"""Parts of the scoring of all families: choice of videos, gathered faults, notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from videomt_ros.datasets.dataset import AnnotatedVideo, Category, DatasetError
from videomt_ros.evaluation.metrics.tracking_scores import TrackingTally

_MAX_NAMES = 20
"""Largest number of videos that the note on missing results names."""
_MAX_FAULTS = 10
"""Number of frames with faults after which reading on brings nothing new."""


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
    """Faults of frames that are read one by one; raised together at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._faults: list[str] = []

    @contextmanager
    def gathering(self, place: str) -> Iterator[None]:
        """Note the fault of a frame and go on.

        Raises:
            DatasetError: there are so many faults that reading on is pointless.
        """
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


def missing_note(videos: Sequence[AnnotatedVideo]) -> list[str]:
    """Write the note on videos without results; none if there are no such videos."""
    if not videos:
        return []
    count = '1 video' if len(videos) == 1 else f'{len(videos)} videos'
    names = ', '.join(video.name for video in videos[:_MAX_NAMES])
    more = f' and {len(videos) - _MAX_NAMES} more' if len(videos) > _MAX_NAMES else ''
    return [f'{count} without results, whose objects count as missed: {names}{more}.']


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
