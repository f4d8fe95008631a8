"""HOTA, IDF1 and the counts of CLEAR MOT for a data set, its classes and its videos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from videomt_ros.evaluation.figures import TRACKING, Figures
from videomt_ros.evaluation.metrics.clear import ClearScores, clear
from videomt_ros.evaluation.metrics.hota import HotaScores, hota
from videomt_ros.evaluation.metrics.identity import IdentityScores, identity
from videomt_ros.evaluation.metrics.overlap import TrackSequence


@dataclass(frozen=True)
class TrackingScores:
    """HOTA, IDF1 and CLEAR MOT of some sequences; the scores of two sets of sequences add up."""

    hota: HotaScores = field(default_factory=HotaScores)
    identity: IdentityScores = field(default_factory=IdentityScores)
    clear: ClearScores = field(default_factory=ClearScores)

    @classmethod
    def of(cls, sequences: Sequence[TrackSequence]) -> TrackingScores:
        """Score sequences; their counts are added up."""
        return cls(hota(sequences), identity(sequences), clear(sequences))

    def __add__(self, other: TrackingScores) -> TrackingScores:
        return TrackingScores(
            self.hota + other.hota, self.identity + other.identity, self.clear + other.clear
        )

    def figures(self) -> Figures:
        """Compute the figures that `TRACKING` lists."""
        found = self.identity.figures() | self.hota.figures() | self.clear.figures()
        found['Merges'] = self.clear.num_merges
        return {name: found[name] for name in TRACKING}


class TrackingTally:
    """Scores videos one by one, and sums up over all videos and for each class."""

    def __init__(self) -> None:
        self.total = TrackingScores()
        self.per_video: dict[str, dict[str, Any]] = {}
        """Content of `ScoreReport.per_video`."""
        self._per_class: dict[int, TrackingScores] = {}

    def add_video(self, video: Any, sequences: Iterable[TrackSequence]) -> None:
        """Score a video.

        Args:
            video: has a `video_id` and a `name`.
            sequences: one for each class of the video.
        """
        in_video = TrackingScores()
        for sequence in sequences:
            scores = TrackingScores.of([sequence])
            in_video += scores
            category = sequence.category_id
            self._per_class[category] = self.of_class(category) + scores
        self.total += in_video
        figures = in_video.figures()
        self.per_video[str(video.video_id)] = {
            'name': video.name,
            **{name: figures[name] for name in ('HOTA', 'IDF1', 'IDSW')},
        }

    def of_class(self, category_id: int) -> TrackingScores:
        """Return the scores of one class over all videos."""
        return self._per_class.get(category_id, TrackingScores())

    def switches(self) -> list[dict[str, Any]]:
        """Build the content of `ScoreReport.switches`."""
        return [
            {
                'video_id': switch.video_id,
                'frame': switch.frame,
                'truth_id': switch.truth_id,
                'from': switch.old_track_id,
                'to': switch.new_track_id,
                'category_id': switch.category_id,
            }
            for switch in self.total.clear.switches
        ]
