"""report.html: the results of an evaluation on one page that needs no other file.

page.html beside this file is the template; this file computes its content. A part of the page is
left out if the metrics lack what it shows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from videomt_ros.datasets.dataset import Dataset
from videomt_ros.errors import fault_line
from videomt_ros.evaluation.families import family_of
from videomt_ros.evaluation.families.instances import SHOWN_SCORE
from videomt_ros.evaluation.families.score_parts import TRUTH
from videomt_ros.evaluation.figures import as_text
from videomt_ros.evaluation.report.charts import Line, line_chart, round_up
from videomt_ros.evaluation.report.confusion_matrix import confusion_matrices
from videomt_ros.evaluation.report.scores import (
    Column,
    class_bars,
    comparison,
    headline_tiles,
    parts_table,
    score_columns,
    table_groups,
    table_heads,
)
from videomt_ros.evaluation.report.videos import videos_section
from videomt_ros.evaluation.run_folder import MODES
from videomt_ros.files import whole_file

_logger = logging.getLogger(__name__)

_LINE_STYLES = {'mean': '', '0.5': 'dashed', '0.75': 'dotted'}
_STAGES = {
    'read': 'read the image, ahead of the network',
    'wait': 'wait for an image that is not read yet',
    'prepare': "make it the network's input",
    'network': 'network',
    'live': 'live result: masks and tracks',
    'published': 'published protocol: keep the masks',
    'total': 'a live frame in all, once it is read',
}
"""Descriptions of the stages in `timing_ms`."""
_RUN_NAMES = {
    'videos': 'digest of the videos',
    'weights': 'digest of the weights',
    'num_videos': 'videos',
    'num_resumed': 'videos finished before a break',
    'predict_s': 'time to predict, s',
    'peak_memory_mb': 'most memory, MB',
    'live_parameters': 'live:',
}
"""Names on the page for fields of a run that do not explain themselves."""


def write_report(
    path: Path,
    metrics: Mapping[str, Any],
    dataset: Dataset,
    out: Path,
    paper_score: Mapping[str, Any],
) -> list[str]:
    """Write the page.

    A part that cannot be made is left out, and named on the page and in what is returned.

    Args:
        path: path of the HTML file, which is written as a whole or not at all.
        metrics: content of metrics.json.
        dataset: data set whose images and truth, if any, are read again for the pictures.
        out: folder of the evaluation, with the result files in a folder for each mode.
        paper_score: scores that the authors of the model report, in percent, and `benchmark`,
            the data that they were measured on; empty if there are none.

    Returns:
        A line for each part or picture that is missing, with the reason.

    Raises:
        ModuleNotFoundError: jinja2 is not installed.
        OSError: the file cannot be written.
    """
    import jinja2

    home = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(home), autoescape=True, undefined=jinja2.StrictUndefined
    )
    style = (home / 'page.css').read_text(encoding='utf-8')
    page = build_page(metrics, dataset, out, paper_score)
    text = environment.get_template('page.html').render(style=style, **page)
    with whole_file(path) as file:
        file.write(text.encode())
    return page['problems']


def build_page(
    metrics: Mapping[str, Any],
    dataset: Dataset,
    out: Path,
    paper_score: Mapping[str, Any],
) -> dict[str, Any]:
    """Build the values for the template; arguments are those of `write_report`."""
    run = metrics.get('run', {})
    columns = score_columns(metrics)
    truth, problem = None, ''
    try:
        if dataset.truth:
            videos = dataset.videos[: run.get('num_videos')]
            truth = family_of(dataset.family).load_truth(dataset, videos)
    except Exception as error:
        problem = fault_line(error)
    problems: list[str] = [f'The truth cannot be shown: {problem}'] if problem else []

    def part(name: str, build: Callable[[], Any], missing: Any = None) -> Any:
        """Build a part of the page; one that cannot be made is noted."""
        try:
            return build()
        except Exception as error:
            _logger.debug('Part %s of the report failed', name, exc_info=True)
            problems.append(f'{name}: {fault_line(error)}')
            return missing

    page: dict[str, Any] = {
        'title': _title(dataset, run),
        'lead': _lead(metrics, dataset, run),
        'tiles': part(
            'Headline', lambda: headline_tiles(columns, metrics, dataset, paper_score), []
        ),
        'unscored': [each for each in metrics.get('failures', []) if each.get('mode') == TRUTH],
        'failures': [
            *(each for each in metrics.get('failures', []) if each.get('mode') != TRUTH),
            *metrics.get('real_time', {}).get('failures', []),
        ],
        'columns': table_heads(columns, paper_score),
        'scores': part('Scores', lambda: table_groups(columns, dataset, paper_score), []),
        'comparison': part('Comparison', lambda: comparison(run, dataset, paper_score), []),
        'score_parts': part('Annotation files', lambda: parts_table(columns)),
        'classes': part('Classes', lambda: class_bars(columns, dataset, truth)),
        'curves': part('Precision and recall', lambda: _curves(columns), []),
        'real_time': part('Real time', lambda: _real_time(metrics.get('real_time'))),
        'speed': part('Speed', lambda: _speed(metrics.get('timing_ms', {}))),
        'confusion': part(
            'Confusion of classes',
            lambda: confusion_matrices(
                columns, {c.category_id: c.name for c in dataset.categories}, SHOWN_SCORE
            ),
        ),
        'videos': part(
            'Videos', lambda: videos_section(metrics, dataset, out, truth, problem, problems)
        ),
        'left_out': dataset.left_out,
        'run': list(_run(run)),
    }
    page['hero'] = page['videos'] and page['videos']['hero']
    page['table'] = page['videos'] and page['videos']['table']
    page['problems'] = problems
    page['notes'] = [
        *dataset.notes,
        *run.get('notes', ()),
        *(note for note in _notes(columns) if note not in dataset.notes),
        *(f'Missing in this report: {problem}' for problem in problems),
    ]
    page['parts'] = [
        (name, anchor)
        for name, anchor, part in (
            ('Failures', 'failures', 'failures'),
            ('Not scored', 'unscored', 'unscored'),
            ('Scores', 'scores', 'scores'),
            ('All videos', 'all-videos', 'table'),
            ('Classes', 'classes', 'classes'),
            ('Confusion', 'confusion', 'confusion'),
            ('Precision and recall', 'curves', 'curves'),
            ('Real time', 'real-time', 'real_time'),
            ('Speed', 'speed', 'speed'),
            ('Videos', 'videos', 'videos'),
            ('Left out', 'left-out', 'left_out'),
            ('Notes', 'notes', 'notes'),
            ('How it was run', 'run', 'run'),
        )
        if page[part]
    ]
    return page


def _title(dataset: Dataset, run: Mapping[str, Any]) -> str:
    drawn = ' (drawn scenes)' if dataset.is_drawn else ''
    return f'{run.get("model", "Model")} on {run.get("dataset", dataset.name)}{drawn}'


def _lead(metrics: Mapping[str, Any], dataset: Dataset, run: Mapping[str, Any]) -> str:
    count = run.get('num_videos', len(dataset.videos))
    parts = [f'{count} video{"s" * (count != 1)}']
    if run.get('split'):
        parts.append(f'split {run["split"]}')
    parts += [mode for mode in MODES if mode in run.get('modes', ())]
    if metrics.get('real_time'):
        parts.append('real time')
    if not dataset.truth:
        parts.append('no truth: predictions only')
    return ', '.join(parts)


def _curves(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Draw precision over recall for each column that has curves."""
    charts = []
    for column in columns:
        curves = column.score.get('curves')
        if not curves:
            continue
        lines = [
            Line(
                f'IoU {name}' if name != 'mean' else 'mean of 0.50 to 0.95',
                [
                    (100 * recall, 100 * precision)
                    for recall, precision in zip(curves['recall'], values, strict=True)
                ],
                f'{column.style} {_LINE_STYLES[name]}'.strip(),
            )
            for name, values in curves['precision'].items()
        ]
        alt = f'Precision over recall, {column.title}: ' + '; '.join(
            f'{line.name} begins at {line.points[0][1]:.0f} percent' for line in lines
        )
        svg = line_chart(lines, alt, 'recall, %', 'precision, %', 100, 100)
        charts.append({'title': column.title, 'style': column.style, 'svg': svg, 'lines': lines})
    return charts


def _speed(timing_ms: Mapping[str, Mapping[str, float]]) -> dict[str, Any] | None:
    if not timing_ms:
        return None
    longest = max(times['p50'] for times in timing_ms.values()) or 1.0
    rows = [
        {
            'name': _STAGES.get(stage, stage),
            'cells': [f'{times["p50"]:.1f}', f'{times["mean"]:.1f}'],
            'bars': [('', 100 * times['p50'] / longest)],
        }
        for stage, times in timing_ms.items()
    ]
    return {
        'sentence': 'Milliseconds per frame on the machine named below; the bar is the median.',
        'table': {'heads': [('', 'stage'), ('', 'median'), ('', 'mean')], 'rows': rows},
    }


def _real_time(clocked: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Show how the score depends on the processing time."""
    if not clocked:
        return None
    figure = clocked['sweep_figure']
    times = '' if clocked['factor'] == 1 else f'{clocked["factor"]:g} times '
    sentences = [
        'Each frame is scored against the newest result there is at its moment, as the world '
        f'does not wait (streaming perception). The videos are played {times}as fast as they '
        'were recorded; a frame that comes while another one waits replaces it.'
    ]
    if clocked['latency_ms'] is not None:
        sentences.append(f'Every frame is taken to need {clocked["latency_ms"]:g} ms.')
    elif clocked['measured_ms']:
        sentences.append(
            f'On this machine a frame needs {clocked["measured_ms"]["p50"]:.1f} ms (median): '
            f'of {clocked["frames"]} frames {clocked["processed"]} were processed and '
            f'{clocked["dropped"]} dropped.'
        )
    sweep = [entry for entry in clocked['sweep'] if entry['figure'] is not None]
    points = [(entry['latency_ms'], 100 * entry['figure']) for entry in sweep]
    svg = ''
    if points:
        alt = f'{figure} over the assumed latency: ' + ', '.join(
            f'{value:.1f} at {latency_ms:g} ms' for latency_ms, value in points
        )
        x_max = round_up(max([latency_ms for latency_ms, _ in points] + [1.0]))
        line = Line(figure, points, 'real', marked=True)
        svg = line_chart([line], alt, 'assumed latency, ms', f'{figure}, %', x_max, 100)
    rows = [
        {
            'name': f'{entry["latency_ms"]:g} ms',
            'cells': [
                as_text(figure, entry['figure']),
                entry['processed'],
                entry['dropped'],
                entry['without_result'],
            ],
        }
        for entry in clocked['sweep']
    ]
    heads = ('latency', figure, 'processed', 'dropped', 'before a result')
    return {'sentences': sentences, 'svg': svg, 'heads': heads, 'rows': rows}


def _notes(columns: Iterable[Column]) -> list[str]:
    """Collect the notes of all columns, each once; one that not all have names its columns."""
    notes: dict[str, list[str]] = {}
    columns = list(columns)
    for column in columns:
        for note in column.score.get('notes', []):
            notes.setdefault(note, []).append(column.title)
    return [
        note if len(titles) == len(columns) else f'{", ".join(titles)}: {note}'
        for note, titles in notes.items()
    ]


def _run(run: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, str]]:
    """Yield the settings as pairs of name and value; nested ones have both names."""
    for key, value in run.items():
        name = _RUN_NAMES.get(key, key)
        if key == 'notes':
            continue
        if isinstance(value, Mapping):
            yield from _run(value, f'{prefix}{name} ')
        elif isinstance(value, (list, tuple)):
            yield f'{prefix}{name}', ', '.join(map(str, value))
        elif value is not None and value != '':
            yield f'{prefix}{name}', str(value)
