"""The videos of an evaluation in the order of their scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from videomt_ros.datasets.dataset import Video

NUM_WORST, NUM_BEST = 3, 2
"""Numbers of videos with pictures."""
_FIGURES = ('HOTA', 'IDF1', 'mIoU')
"""Figures by which videos are ranked; the first that any video has is taken."""


@dataclass(frozen=True)
class Ranking:
    """The videos of a data set in the order of their scores."""

    videos: Sequence[Video]
    """All videos, in the order of the data set."""
    ranked: Sequence[Video]
    """Videos with a score, the worst first."""
    figure: str
    """Figure by which they are ranked; empty if no video has a score."""
    per_video: Mapping[str, Mapping[str, Any]]
    """The content of `ScoreReport.per_video`."""

    failed: Collection[str] = ()
    """Names of videos without a result, which have no pictures; one may have a score of 0."""

    @property
    def with_result(self) -> list[Video]:
        """Videos with a result: those with a score, the worst first; if none has one, all."""
        ranked = [video for video in self.ranked if video.name not in self.failed]
        return ranked or [video for video in self.videos if video.name not in self.failed]

    @property
    def is_choice(self) -> bool:
        """Whether only the worst and the best videos have pictures."""
        return bool(self.ranked) and len(self.with_result) > NUM_WORST + NUM_BEST

    def chosen(self) -> list[Video]:
        """Choose the videos with pictures, the worst first."""
        videos = self.with_result
        if self.is_choice:
            return [*videos[:NUM_WORST], *videos[: -NUM_BEST - 1 : -1]]
        return videos[: NUM_WORST + NUM_BEST]

    def scores(self, video: Video) -> Mapping[str, Any]:
        """Return name and figures of a video; empty if it has none."""
        return self.per_video.get(str(video.video_id), {})


def rank(
    videos: Sequence[Video], score: Mapping[str, Any], failed: Collection[str] = ()
) -> Ranking:
    """Rank videos by the first figure of `_FIGURES` that any of them has.

    Args:
        videos: the videos that were asked for.
        score: scores of a mode in the form of `ScoreReport.to_json`; empty without truth.
        failed: names of the videos without a result.
    """
    per_video: Mapping[str, Mapping[str, Any]] = score.get('per_video') or {}
    figure = next(
        (
            name
            for name in _FIGURES
            if any(scores.get(name) is not None for scores in per_video.values())
        ),
        '',
    )
    values = {
        video.video_id: value
        for video in videos
        if (value := per_video.get(str(video.video_id), {}).get(figure)) is not None
    }
    ranked = sorted(
        (video for video in videos if video.video_id in values),
        key=lambda video: values[video.video_id],
    )
    return Ranking(videos, ranked, figure, per_video, failed)
