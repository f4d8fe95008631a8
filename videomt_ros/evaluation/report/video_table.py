"""Table of all videos in the report: the scores of each, sorted by a click on a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from videomt_ros.evaluation.figures import as_text
from videomt_ros.evaluation.report.ranking import Ranking
from videomt_ros.evaluation.report.scores import Column


def video_table(
    ranking: Ranking,
    mode: str,
    columns: Sequence[Column],
    failures: Sequence[Mapping[str, str]],
    anchors: Mapping[str, str],
) -> dict[str, Any] | None:
    """List all videos, first those with a score, the worst first.

    Args:
        ranking: all videos, in the order of the scores of one mode.
        mode: that mode, which has the first columns.
        columns: the scores of each mode.
        failures: videos without a result or a score, with `video`, `mode` and `error`.
        anchors: place on the page of each video that has one, by its name.

    Returns:
        None if there is nothing to compare: one video, or no score and no failure.
    """
    columns = [column for column in columns if column.score.get('per_video')]
    columns.sort(key=lambda column: column.style != mode)
    reasons = _reasons(failures)
    # Such as bags that could not be opened, and so are no videos of the data set.
    unknown = [name for name in reasons if name not in {video.name for video in ranking.videos}]
    if len(ranking.videos) + len(unknown) < 2 or not (columns or failures):
        return None
    figures = {
        column.style: _figures(column.score['per_video'].values(), ranking.figure)
        for column in columns
    }
    heads = [{'title': 'frames', 'style': ''}]
    heads += [
        {
            'title': figure if len(columns) == 1 else f'{figure}, {column.title}',
            'style': column.style,
        }
        for column in columns
        for figure in figures[column.style]
    ]
    scored = {video.video_id for video in ranking.ranked}
    others = [video for video in ranking.videos if video.video_id not in scored]
    rows = []
    for video in [*ranking.ranked, *others]:
        cells = [str(len(video.frame_names))]
        for column in columns:
            scores = column.score['per_video'].get(str(video.video_id), {})
            cells += [as_text(figure, scores.get(figure)) for figure in figures[column.style]]
        rows.append(
            {
                'name': video.name,
                'anchor': anchors.get(video.name, ''),
                'cells': cells,
                'problem': reasons.get(video.name, ''),
            }
        )
    rows += [
        {
            'name': name,
            'anchor': '',
            'cells': [as_text('', None)] * len(heads),
            'problem': reasons[name],
        }
        for name in unknown
    ]
    return {
        'heads': heads,
        'rows': rows,
        # Of the heads: the rows are in the order of the figure that ranks them.
        'sorted': 1 if ranking.figure else -1,
        'has_problems': any(row['problem'] for row in rows),
        'sentence': _sentence(ranking, len(rows)),
    }


def _reasons(failures: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Write why each video failed, by its name; modes with one reason share it."""
    modes: dict[str, dict[str, list[str]]] = {}
    for failure in failures:
        by_error = modes.setdefault(failure['video'], {})
        by_error.setdefault(failure['error'], []).append(failure.get('mode', ''))
    return {
        video: '; '.join(
            f'{", ".join(filter(None, names))}: {error}' if any(names) else error
            for error, names in by_error.items()
        )
        for video, by_error in modes.items()
    }


def _sentence(ranking: Ranking, num_rows: int) -> str:
    first = f'the worst by {ranking.figure} first' if ranking.figure else 'in their order'
    return f'All {num_rows} videos, {first}; in percent, but for counts.'


def _figures(per_video: Any, first: str) -> list[str]:
    """Name the figures that any video has; that of the ranking comes first."""
    names = dict.fromkeys(name for scores in per_video for name in scores if name != 'name')
    return sorted(names, key=lambda name: name != first)
