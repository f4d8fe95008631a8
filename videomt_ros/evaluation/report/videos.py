"""The part of the report that looks at single videos: the worst, the best, and a list of all."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videomt_ros.datasets.dataset import Dataset, Video
from videomt_ros.evaluation.families import family_of
from videomt_ros.evaluation.families.family import Labels, TruthLabels
from videomt_ros.evaluation.figures import as_text
from videomt_ros.evaluation.report.charts import timeline
from videomt_ros.evaluation.report.overlays import Picture, Pictures, make_pictures

NUM_WORST, NUM_BEST = 3, 2
"""Videos with pictures."""
_NUM_PICTURES = 3
"""Of each of them."""
_RANKING = ('HOTA', 'IDF1', 'mIoU')
"""What videos are ranked by, the first of these that they have."""


def videos_section(
    metrics: Mapping[str, Any],
    dataset: Dataset,
    out: Path,
    truth: TruthLabels | None,
    problem: str,
) -> dict[str, Any] | None:
    """What the template shows of single videos.

    Args:
        metrics: what metrics.json holds.
        dataset: its images are read.
        out: folder of the result files, in a folder for each mode.
        truth: None where there is none, or a problem.
        problem: why the truth cannot be used.

    Returns:
        None where nothing was predicted.
    """
    run = metrics.get('run', {})
    mode = next((name for name in ('live', 'published') if name in run.get('modes', ())), None)
    if mode is None or not dataset.videos:
        return None
    # A test split has no score.
    score = metrics.get(mode, {})
    videos = dataset.videos[: run.get('num_videos')]
    per_video: Mapping[str, Mapping[str, Any]] = score.get('per_video') or {}
    failed = {failure['video'] for failure in metrics.get('failures', [])}
    figure = next(
        (
            name
            for name in _RANKING
            if any(scores.get(name) is not None for scores in per_video.values())
        ),
        '',
    )

    def value(video: Video) -> float | None:
        return per_video.get(str(video.video_id), {}).get(figure)

    ranked = sorted(
        (video for video in videos if value(video) is not None),
        key=lambda video: value(video) or 0.0,
    )
    others = [video for video in videos if video.name not in failed]
    if len(ranked) > NUM_WORST + NUM_BEST:
        chosen = [*ranked[:NUM_WORST], *ranked[: -NUM_BEST - 1 : -1]]
    else:
        chosen = ranked or others[: NUM_WORST + NUM_BEST]
    family, sentences = family_of(dataset.family), []
    is_choice = len(chosen) < len(ranked)
    if is_choice:
        sentences.append(
            f'The {NUM_WORST} worst and the {NUM_BEST} best of {len(ranked)} videos by {figure}, '
            f'{mode}; the pictures are of that result.'
        )
    if problem:
        sentences.append(f'The truth cannot be shown: {problem}')
    try:
        predicted = family.load_results(out / mode, dataset)
    except (OSError, ValueError) as error:
        sentences.append(f'There are no pictures: {error}')
        chosen = []
    else:
        sentences += family.legend(truth is not None)
    labels = truth.labels if truth else None
    switches: dict[str, list[Mapping[str, Any]]] = {}
    for switch in score.get('switches', []):
        switches.setdefault(str(switch['video_id']), []).append(switch)
    shown = []
    for place, video in enumerate(chosen):
        events = switches.get(str(video.video_id), [])
        shown.append(
            {
                'title': video.name,
                'rank': ('worst' if place < NUM_WORST else 'best') if is_choice else '',
                'facts': _facts(per_video.get(str(video.video_id), {}), len(video.frame_names)),
                **_pictures(video, labels, predicted, events, mode),
            }
        )
    return {
        'sentences': sentences,
        'shown': shown,
        'table': _table(ranked, per_video, figure, mode) if len(ranked) > 1 else None,
    }


def _pictures(
    video: Video,
    truth: Labels | None,
    predicted: Labels,
    switches: Sequence[Mapping[str, Any]],
    side: str,
) -> dict[str, Any]:
    """Timeline and pictures of a video."""
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
    """Frames of which there will be pictures: evenly in time, or around the first switch.

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
    """What happens at a switch, in the numbers of the pictures."""
    number = found.objects.get(switch['truth_id'])
    old = found.tracks.get(switch['from'])
    new = found.tracks.get(switch['to'])
    if number is None or old is None or new is None:
        return 'identity switch'
    return f'identity switch: object {number} goes on as track {new}, not {old}'


def _facts(scores: Mapping[str, Any], num_frames: int) -> str:
    parts = [f'{name} {as_text(name, value)}' for name, value in scores.items() if name != 'name']
    return ' · '.join([*parts, f'{num_frames} frame{"s" * (num_frames != 1)}'])


def _table(
    videos: Sequence[Video], per_video: Mapping[str, Mapping[str, Any]], figure: str, style: str
) -> dict[str, Any]:
    """All videos with a bar for the figure that ranks them."""
    names = [name for name in per_video[str(videos[0].video_id)] if name != 'name']
    rows = []
    for video in videos:
        scores = per_video[str(video.video_id)]
        rows.append(
            {
                'name': video.name,
                'cells': [as_text(name, scores.get(name)) for name in names],
                'bars': [(style, 100 * scores[figure])],
            }
        )
    return {'heads': [('', name) for name in ('video', *names)], 'rows': rows}


def _data_uri(jpeg: bytes | None) -> str:
    return '' if jpeg is None else f'data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}'
