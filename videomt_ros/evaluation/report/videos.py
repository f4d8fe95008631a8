"""Part of the report on single videos: the worst and the best with pictures, and a list of all."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from videomt_ros.datasets.dataset import Dataset, Video
from videomt_ros.errors import fault_line
from videomt_ros.evaluation.families import family_of
from videomt_ros.evaluation.families.family import Labels, TruthLabels
from videomt_ros.evaluation.figures import as_text
from videomt_ros.evaluation.report.charts import timeline
from videomt_ros.evaluation.report.clip import Clip, clip_frames, make_clip
from videomt_ros.evaluation.report.overlays import Picture, VideoViews
from videomt_ros.evaluation.report.ranking import NUM_BEST, NUM_WORST, Ranking, rank
from videomt_ros.evaluation.report.scores import score_columns
from videomt_ros.evaluation.report.video_table import video_table
from videomt_ros.evaluation.run_folder import MODES

_NUM_PICTURES = 3
"""Number of pictures of each of them."""
_NUM_CANDIDATES = 5
"""Number of frames out of which the picture at the top is chosen, and of videos that are tried."""


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
    failures = metrics.get('failures', [])
    others = {name for name in MODES if name != mode}
    failed = {failure['video'] for failure in failures if failure.get('mode') not in others}
    ranking = rank(dataset.videos[: run.get('num_videos')], score, failed)
    chosen = ranking.chosen()
    sentences = []
    if ranking.is_choice:
        sentences.append(
            f'The {NUM_WORST} worst and the {NUM_BEST} best of {len(ranking.with_result)} videos '
            f'by {ranking.figure}, {mode}; the pictures are of that result.'
        )
    if problem:
        sentences.append(f'The truth cannot be shown: {problem}')
    family = family_of(dataset.family)
    hero, shown = None, []
    try:
        predicted = family.load_results(out / mode, dataset)
    except Exception as error:
        sentences.append(f'There are no pictures: {fault_line(error)}')
        problems.append(f'Pictures: {fault_line(error)}')
        chosen = []
    else:
        sentences += family.legend(truth is not None)
        sides = _Sides(truth.labels if truth else None, predicted, mode)
        try:
            hero = _picture_at_the_top(ranking, sides)
        except Exception as error:
            problems.append(f'The picture at the top: {fault_line(error)}')
        has_timeline = family.has_tracks and 'switches' in score
        switches = _switches_by_video(score)
        for place, video in enumerate(chosen):
            rank_name = ('worst' if place < NUM_WORST else 'best') if ranking.is_choice else ''
            try:
                pictures = _shown(
                    video,
                    sides,
                    switches.get(str(video.video_id), []),
                    has_timeline=has_timeline,
                    has_clip=place == 0,
                    problems=problems,
                )
            except Exception as error:
                problems.append(f'Pictures of {video.name}: {fault_line(error)}')
                continue
            shown.append(
                {
                    'title': video.name,
                    'anchor': f'video-{place + 1}',
                    'rank': rank_name,
                    'facts': _facts(ranking.scores(video), len(video.frame_names)),
                    **pictures,
                }
            )
    anchors = {entry['title']: entry['anchor'] for entry in shown}
    return {
        'sentences': sentences,
        'hero': hero,
        'shown': shown,
        'table': video_table(ranking, mode, score_columns(metrics), failures, anchors),
    }


class _Sides(NamedTuple):
    """What is shown side by side."""

    truth: Labels | None
    predicted: Labels
    side: str
    """Name of the side of the prediction."""

    def views(self, video: Video, frames: Sequence[int]) -> VideoViews:
        """Read some frames of a video."""
        return VideoViews(video, frames, self.truth, self.predicted)


def _switches_by_video(score: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    switches: dict[str, list[Mapping[str, Any]]] = {}
    for switch in score.get('switches', []):
        switches.setdefault(str(switch['video_id']), []).append(switch)
    return switches


def _picture_at_the_top(ranking: Ranking, sides: _Sides) -> dict[str, Any] | None:
    """Draw a frame with much in it of a video that is neither good nor bad.

    A video that has no picture gives way to the next; there may be none at all.
    """
    videos = ranking.with_result
    middle = len(videos) // 2
    nearest = sorted(range(len(videos)), key=lambda place: abs(place - middle))
    for place in nearest[:_NUM_CANDIDATES]:
        video = videos[place]
        index = _fullest_frame(video, sides.truth or sides.predicted)
        picture = sides.views(video, [index]).picture(index)
        if picture.problem:
            continue
        caption = f'{video.name}, frame {index}'
        if ranking.ranked and len(videos) > 2 and place == middle:
            value = as_text(ranking.figure, ranking.scores(video)[ranking.figure])
            caption += (
                f': neither good nor bad, the middle of {len(videos)} videos by '
                f'{ranking.figure} ({value})'
            )
        return {**_pair(picture, video, [], sides.side), 'caption': caption}
    return None


def _fullest_frame(video: Video, labels: Labels) -> int:
    """Find the frame with most objects among a few that lie evenly in time."""
    num_frames = len(video.frame_names)
    candidates = _evenly(num_frames, _NUM_CANDIDATES)
    counts: dict[int, int] = {}
    for index in candidates:
        try:
            keys, listed = labels.frame(video, index)
        except (OSError, ValueError):  # a mask that cannot be read; another frame will do
            continue
        counts[index] = sum(bool((keys == label.key).any()) for label in listed)
    # Of equal ones the one that is nearest to the middle: at the ends objects come and go.
    return max(candidates, key=lambda t: (counts.get(t, -1), -abs(t - num_frames // 2)))


def _shown(
    video: Video,
    sides: _Sides,
    switches: Sequence[Mapping[str, Any]],
    *,
    has_timeline: bool,
    has_clip: bool,
    problems: list[str],
) -> dict[str, Any]:
    """Draw timeline, pictures and clip of a video."""
    marked: dict[int, list[int]] = {}
    for switch in switches:
        marked.setdefault(switch['frame'], []).append(switch['truth_id'])
    num_frames = len(video.frame_names)
    frames = choose_frames(num_frames, sorted(marked))
    moving = clip_frames(num_frames, sorted(marked)) if has_clip and num_frames > 1 else []
    views = sides.views(video, [*frames, *moving])
    pictures = [views.picture(index, marked.get(index, ())) for index in frames]
    clip = make_clip(views, moving) if moving else None
    events = [(switch['frame'], _describe(switch, views)) for switch in switches]
    reasons = [picture.problem for picture in pictures if picture.problem]
    if reasons:
        problems.append(f'{len(reasons)} of {len(frames)} pictures of {video.name}: {reasons[0]}')
    if clip and clip.problem and reasons:
        clip = None  # the pictures say why
    if clip and clip.problem:
        problems.append(f'The clip of {video.name}: {clip.problem}')
    span = (clip.frames[0], clip.frames[-1]) if clip and clip.frames else None
    has_timeline &= num_frames > 1
    return {
        'timeline': _timeline(num_frames, events, frames, span) if has_timeline else '',
        'clip': _clip(clip, video, sides.side) if clip else None,
        'pairs': [
            _pair(picture, video, [text for t, text in events if t == picture.index], sides.side)
            for picture in pictures
        ],
    }


def _timeline(
    num_frames: int,
    events: Sequence[tuple[int, str]],
    shown: Sequence[int],
    span: tuple[int, int] | None,
) -> str:
    count = f'{len(events) or "No"} identity switch{"es" * (len(events) > 1)}'
    alt = f'{count} in {num_frames} frames'
    if events:
        alt += f', at frame {", ".join(map(str, sorted({frame for frame, _ in events})))}'
    return timeline(num_frames, events, shown, alt, span)


def _clip(clip: Clip, video: Video, side: str) -> dict[str, Any]:
    sides = f'truth on the left, {side} on the right' if clip.has_truth else side
    first, last = (clip.frames[0], clip.frames[-1]) if clip.frames else (0, 0)
    return {
        'problem': clip.problem,
        'webp': _data_uri(clip.webp, 'webp'),
        'still': _data_uri(clip.still, 'jpeg'),
        'caption': f'frames {first} to {last}, {sides}',
        'alt': f'Clip of {video.name}, frames {first} to {last}, {sides}',
    }


def _pair(picture: Picture, video: Video, events: Sequence[str], side: str) -> dict[str, Any]:
    where = f'Frame {picture.index} of {video.name}'
    return {
        'index': picture.index,
        'problem': picture.problem,
        'truth': _data_uri(picture.truth, 'jpeg'),
        'predicted': _data_uri(picture.predicted, 'jpeg'),
        'truth_alt': f'{where} with its true objects',
        'predicted_alt': f'{where} with what was predicted',
        'side': side,
        'events': events,
    }


def _evenly(num_frames: int, count: int) -> list[int]:
    """Choose frames in the middles of equal parts of a video."""
    return sorted({num_frames * (2 * i + 1) // (2 * count) for i in range(count)})


def choose_frames(num_frames: int, switches: Sequence[int]) -> list[int]:
    """Choose the frames with pictures: evenly in time, or around the first switch.

    >>> choose_frames(60, []), choose_frames(60, [12, 40]), choose_frames(1, [])
    ([10, 30, 50], [11, 12, 50], [0])
    """
    even = _evenly(num_frames, _NUM_PICTURES)
    if not switches:
        return even
    first = switches[0]
    farthest = max(even, key=lambda frame: abs(frame - first))
    return sorted({max(first - 1, 0), first, farthest})


def _describe(switch: Mapping[str, Any], views: VideoViews) -> str:
    """Describe a switch by the numbers in the pictures."""
    number = views.objects.get(switch['truth_id'])
    old = views.tracks.get(switch['from'])
    new = views.tracks.get(switch['to'])
    if number is None or old is None or new is None:
        return 'identity switch'
    return f'identity switch: object {number} goes on as track {new}, not {old}'


def _facts(scores: Mapping[str, Any], num_frames: int) -> str:
    parts = [f'{name} {as_text(name, value)}' for name, value in scores.items() if name != 'name']
    return ' · '.join([*parts, f'{num_frames} frame{"s" * (num_frames != 1)}'])


def _data_uri(data: bytes | None, kind: str) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(data).decode()}' if data else ''
