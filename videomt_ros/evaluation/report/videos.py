"""Part of the report on single videos: the worst and the best with pictures, and a list of all."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomt_ros.datasets.dataset import Dataset, Video
from videomt_ros.errors import fault_line
from videomt_ros.evaluation.families import family_of
from videomt_ros.evaluation.families.family import Labels, TruthLabels
from videomt_ros.evaluation.figures import as_text
from videomt_ros.evaluation.report.charts import timeline
from videomt_ros.evaluation.report.overlays import Picture, Pictures, make_pictures

NUM_WORST, NUM_BEST = 3, 2
"""Numbers of videos with pictures."""
_NUM_PICTURES = 3
"""Number of pictures of each of them."""
_RANKING = ('HOTA', 'IDF1', 'mIoU')
"""Figures by which videos are ranked; the first that any video has is taken."""


def videos_section(
    metrics: Mapping[str, Any],
    dataset: Dataset,
    out: Path,
    truth: TruthLabels | None,
    problem: str,
    problems: list[str],
) -> dict[str, Any] | None:
    """Build what the template shows of single videos.

    Args:
        metrics: content of metrics.json.
        dataset: data set whose images are read.
        out: folder of the evaluation, with the result files in a folder for each mode.
        truth: labels of the true objects; None if there are none, or a problem.
        problem: reason why the truth cannot be used; empty if it can.
        problems: receives a line for each video that lacks pictures, with the reason.

    Returns:
        None if nothing was predicted.
    """
    run = metrics.get('run', {})
    mode = next((name for name in ('live', 'published') if name in run.get('modes', ())), None)
    if mode is None or not dataset.videos:
        return None
    score = metrics.get(mode, {})  # a test split has no score
    ranking = _rank(dataset.videos[: run.get('num_videos')], score)
    failed = {failure['video'] for failure in metrics.get('failures', [])}
    chosen = ranking.chosen(failed)
    sentences = []
    if ranking.is_choice:
        sentences.append(
            f'The {NUM_WORST} worst and the {NUM_BEST} best of {len(ranking.ranked)} videos by '
            f'{ranking.figure}, {mode}; the pictures are of that result.'
        )
    if problem:
        sentences.append(f'The truth cannot be shown: {problem}')
    family = family_of(dataset.family)
    try:
        predicted = family.load_results(out / mode, dataset)
    except Exception as error:
        sentences.append(f'There are no pictures: {fault_line(error)}')
        problems.append(f'Pictures: {fault_line(error)}')
        chosen = []
    else:
        sentences += family.legend(truth is not None)
    labels = truth.labels if truth else None
    switches: dict[str, list[Mapping[str, Any]]] = {}
    for switch in score.get('switches', []):
        switches.setdefault(str(switch['video_id']), []).append(switch)
    shown = [
        {
            'title': video.name,
            'rank': ('worst' if place < NUM_WORST else 'best') if ranking.is_choice else '',
            'facts': _facts(ranking.scores(video), len(video.frame_names)),
            **_pictures(video, labels, predicted, switches.get(str(video.video_id), []), mode),
        }
        for place, video in enumerate(chosen)
    ]
    for video, entry in zip(chosen, shown, strict=True):
        reasons = [pair['problem'] for pair in entry['pairs'] if pair['problem']]
        if reasons:
            problems.append(
                f'{len(reasons)} of {len(entry["pairs"])} pictures of {video.name}: {reasons[0]}'
            )
    return {
        'sentences': sentences,
        'shown': shown,
        'table': _table(ranking, mode) if len(ranking.ranked) > 1 else None,
    }


@dataclass(frozen=True)
class _Ranking:
    """The videos of a data set in the order of their scores."""

    videos: Sequence[Video]
    """All videos, in the order of the data set."""
    ranked: Sequence[Video]
    """Videos with a score, the worst first."""
    figure: str
    """Figure by which they are ranked; empty if no video has a score."""
    per_video: Mapping[str, Mapping[str, Any]]
    """The content of `ScoreReport.per_video`."""

    @property
    def is_choice(self) -> bool:
        """Whether only the worst and the best videos have pictures."""
        return len(self.ranked) > NUM_WORST + NUM_BEST

    def chosen(self, failed: Collection[str]) -> Sequence[Video]:
        """Choose the videos with pictures.

        Args:
            failed: names of videos that have no result.
        """
        if self.is_choice:
            return [*self.ranked[:NUM_WORST], *self.ranked[: -NUM_BEST - 1 : -1]]
        others = [video for video in self.videos if video.name not in failed]
        return self.ranked or others[: NUM_WORST + NUM_BEST]

    def scores(self, video: Video) -> Mapping[str, Any]:
        """Return name and figures of a video; empty if it has none."""
        return self.per_video.get(str(video.video_id), {})


def _rank(videos: Sequence[Video], score: Mapping[str, Any]) -> _Ranking:
    """Rank videos by the first figure of `_RANKING` that any of them has."""
    per_video: Mapping[str, Mapping[str, Any]] = score.get('per_video') or {}
    figure = next(
        (
            name
            for name in _RANKING
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
    return _Ranking(videos, ranked, figure, per_video)


def _pictures(
    video: Video,
    truth: Labels | None,
    predicted: Labels,
    switches: Sequence[Mapping[str, Any]],
    side: str,
) -> dict[str, Any]:
    """Draw timeline and pictures of a video."""
    marked: dict[int, list[int]] = {}
    for switch in switches:
        marked.setdefault(switch['frame'], []).append(switch['truth_id'])
    num_frames = len(video.frame_names)
    found = make_pictures(
        video, choose_frames(num_frames, sorted(marked)), truth, predicted, marked
    )
    events = [(switch['frame'], _describe(switch, found)) for switch in switches]
    line = ''
    if events:
        count = f'{len(events)} identity switch{"es" * (len(events) > 1)}'
        frames = ', '.join(map(str, sorted(marked)))
        alt = f'{count} in {num_frames} frames, at frame {frames}'
        line = timeline(num_frames, events, [picture.index for picture in found.pictures], alt)
    pairs = [
        _pair(picture, video, [text for frame, text in events if frame == picture.index], side)
        for picture in found.pictures
    ]
    return {'timeline': line, 'pairs': pairs}


def _pair(picture: Picture, video: Video, events: Sequence[str], side: str) -> dict[str, Any]:
    where = f'Frame {picture.index} of {video.name}'
    return {
        'index': picture.index,
        'problem': picture.problem,
        'truth': _data_uri(picture.truth),
        'predicted': _data_uri(picture.predicted),
        'truth_alt': f'{where} with its true objects',
        'predicted_alt': f'{where} with what was predicted',
        'side': side,
        'events': events,
    }


def choose_frames(num_frames: int, switches: Sequence[int]) -> list[int]:
    """Choose the frames with pictures: evenly in time, or around the first switch.

    >>> choose_frames(60, []), choose_frames(60, [12, 40]), choose_frames(1, [])
    ([10, 30, 50], [11, 12, 50], [0])
    """
    even = [num_frames * (2 * i + 1) // (2 * _NUM_PICTURES) for i in range(_NUM_PICTURES)]
    if not switches:
        return sorted(set(even))
    first = switches[0]
    farthest = max(even, key=lambda frame: abs(frame - first))
    return sorted({max(first - 1, 0), first, farthest})


def _describe(switch: Mapping[str, Any], found: Pictures) -> str:
    """Describe a switch by the numbers in the pictures."""
    number = found.objects.get(switch['truth_id'])
    old = found.tracks.get(switch['from'])
    new = found.tracks.get(switch['to'])
    if number is None or old is None or new is None:
        return 'identity switch'
    return f'identity switch: object {number} goes on as track {new}, not {old}'


def _facts(scores: Mapping[str, Any], num_frames: int) -> str:
    parts = [f'{name} {as_text(name, value)}' for name, value in scores.items() if name != 'name']
    return ' · '.join([*parts, f'{num_frames} frame{"s" * (num_frames != 1)}'])


def _table(ranking: _Ranking, style: str) -> dict[str, Any]:
    """List all videos with a score, with a bar for the figure that ranks them."""
    names = [name for name in ranking.scores(ranking.ranked[0]) if name != 'name']
    rows = []
    for video in ranking.ranked:
        scores = ranking.scores(video)
        rows.append(
            {
                'name': video.name,
                'cells': [as_text(name, scores.get(name)) for name in names],
                'bars': [(style, 100 * scores[ranking.figure])],
            }
        )
    return {'heads': [('', name) for name in ('video', *names)], 'rows': rows}


def _data_uri(jpeg: bytes | None) -> str:
    return '' if jpeg is None else f'data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}'
