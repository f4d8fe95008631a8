"""report.html: what an evaluation found, on one page that needs no network.

report.html beside this file is the template; here it is decided what stands on the page. Whatever
is missing in the metrics is missing on the page, and the rest of it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from videomt_ros.datasets.dataset import Dataset
from videomt_ros.datasets.whole_file import whole_file
from videomt_ros.evaluation.charts import Line, line_chart, round_up
from videomt_ros.evaluation.frame_labels import Truth, open_truth
from videomt_ros.evaluation.glossary import CLASS_FIGURE, GROUPS, MAIN, as_text
from videomt_ros.evaluation.report_videos import videos_section

BENCHMARKS = {
    'ytvis2019': 'YouTube-VIS 2019 val',
    'ytvis2021': 'YouTube-VIS 2021 val',
    'ytvis2022': 'YouTube-VIS 2022 long videos val',
    'ovis': 'OVIS val',
    'vipseg': 'VIPSeg val',
    'vspw': 'VSPW val',
}
"""What presets call the data that a published score was measured on, by name of the data set."""
_TITLES = {'published': 'published', 'live': 'live'}
_LINE_STYLES = {'mean': '', '0.5': 'dashed', '0.75': 'dotted'}
_OF_PARTS = ('AP', 'AP50', 'AP75', 'AR1', 'AR10', 'HOTA', 'IDF1')
"""Figures of one annotation file out of several."""
_STAGES = {
    'read': 'read the image',
    'prepare': "make it the network's input",
    'network': 'network',
    'live': 'live result: masks and tracks',
    'published': 'published protocol: keep the masks',
    'total': 'a live frame in all, once it is read',
}
_RUN_NAMES = {
    'videos': 'digest of the videos',
    'weights': 'digest of the weights',
    'num_videos': 'videos',
    'num_resumed': 'videos finished before a break',
    'predict_s': 'time to predict, s',
    'peak_memory_mb': 'most memory, MB',
}
"""Better names for fields of a run."""
_ONE_TABLE = 16
"""Classes that fit below each other; more stand in two tables side by side."""


class Column(NamedTuple):
    """Scores of one way of predicting."""

    style: str
    title: str
    score: Mapping[str, Any]
    """As `ScoreReport.to_json` gives it."""


def write_report(
    path: Path,
    metrics: Mapping[str, Any],
    dataset: Dataset,
    out: Path,
    published_score: Mapping[str, Any],
) -> None:
    """Write the page.

    Args:
        path: of the HTML file; it is there as a whole or not at all.
        metrics: what metrics.json holds.
        dataset: its images, and its truth where it has one, are read again for the pictures.
        out: folder of the result files, in a folder for each mode.
        published_score: scores that the authors of the model report, in percent, and `benchmark`,
            the data they were measured on; empty if there are none.

    Raises:
        ModuleNotFoundError: jinja2 is not installed.
        OSError: the file cannot be written.
    """
    import jinja2

    home = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(home), autoescape=True, undefined=jinja2.StrictUndefined
    )
    style = (home / 'report.css').read_text(encoding='utf-8')
    page = build_page(metrics, dataset, out, published_score)
    text = environment.get_template('report.html').render(style=style, **page)
    with whole_file(path) as file:
        file.write(text.encode())


def build_page(
    metrics: Mapping[str, Any],
    dataset: Dataset,
    out: Path,
    published_score: Mapping[str, Any],
) -> dict[str, Any]:
    """What the template asks for."""
    run = metrics.get('run', {})
    columns = _columns(metrics)
    truth, problem = None, ''
    try:
        truth = open_truth(dataset, dataset.videos[: run.get('num_videos')])
    except (OSError, ValueError) as error:
        problem = str(error)
    page: dict[str, Any] = {
        'title': f'{run.get("model", "Model")} on {run.get("dataset", dataset.name)}',
        'lead': _lead(metrics, dataset, run),
        'tiles': _tiles(columns, metrics, dataset, published_score),
        'failures': [
            *metrics.get('failures', []),
            *metrics.get('real_time', {}).get('failures', []),
        ],
        'columns': _score_columns(columns, published_score),
        'scores': _score_groups(columns, dataset, published_score),
        'comparison': _comparison(run, dataset, published_score),
        'score_parts': _score_parts(columns),
        'classes': _classes(columns, dataset, truth),
        'curves': _curves(columns),
        'real_time': _real_time(metrics.get('real_time')),
        'speed': _speed(metrics.get('timing_ms', {})),
        'videos': videos_section(metrics, dataset, out, truth, problem),
        'notes': [*run.get('notes', ()), *_notes(columns)],
        'run': list(_run(run)),
    }
    page['parts'] = [
        (name, anchor)
        for name, anchor, part in (
            ('Failures', 'failures', 'failures'),
            ('Scores', 'scores', 'scores'),
            ('Classes', 'classes', 'classes'),
            ('Precision and recall', 'curves', 'curves'),
            ('Real time', 'real-time', 'real_time'),
            ('Speed', 'speed', 'speed'),
            ('Videos', 'videos', 'videos'),
            ('Notes', 'notes', 'notes'),
            ('How it was run', 'run', 'run'),
        )
        if page[part]
    ]
    return page


def _columns(metrics: Mapping[str, Any]) -> list[Column]:
    """Every way of predicting that was scored."""
    columns = [
        Column(mode, title, metrics[mode]) for mode, title in _TITLES.items() if metrics.get(mode)
    ]
    clocked = metrics.get('real_time') or {}
    if clocked.get('scores'):
        columns.append(Column('real', f'real time ×{clocked["factor"]:g}', clocked['scores']))
    return columns


def _lead(metrics: Mapping[str, Any], dataset: Dataset, run: Mapping[str, Any]) -> str:
    count = run.get('num_videos', len(dataset.videos))
    parts = [f'{count} video{"s" * (count != 1)}']
    if run.get('split'):
        parts.append(f'split {run["split"]}')
    parts += [title for mode, title in _TITLES.items() if mode in run.get('modes', ())]
    if metrics.get('real_time'):
        parts.append('real time')
    if not dataset.truth:
        parts.append('no truth: predictions only')
    return ', '.join(parts)


def _tiles(
    columns: Sequence[Column],
    metrics: Mapping[str, Any],
    dataset: Dataset,
    published_score: Mapping[str, Any],
) -> list[dict[str, str]]:
    """The few figures that stand above all."""
    main = MAIN[dataset.benchmark]
    tiles = [
        _tile(column.style, f'{main}, {column.title}', as_text(main, value))
        for column in columns
        if (value := column.score['figures'].get(main)) is not None
    ]
    if main in published_score:
        where = published_score['benchmark']
        tiles.append(_tile('', f'{main} in the paper, {where}', f'{published_score[main]:.1f}'))
    for column in columns:
        if column.style == 'live':
            for name in ('HOTA', 'IDSW'):
                value = column.score['figures'].get(name)
                if value is not None:
                    tiles.append(_tile('live', f'{name}, live', as_text(name, value)))
    total = metrics.get('timing_ms', {}).get('total')
    if total:
        tiles.append(_tile('', 'per frame, median', f'{total["p50"]:.1f}', 'ms'))
    return tiles


def _tile(style: str, name: str, value: str, unit: str = '') -> dict[str, str]:
    return {'style': style, 'name': name, 'value': value, 'unit': unit}


def _score_columns(
    columns: Sequence[Column], published_score: Mapping[str, Any]
) -> list[dict[str, str]]:
    heads = [{'style': column.style, 'title': column.title} for column in columns]
    if published_score:
        heads.append({'style': '', 'title': 'paper'})
    return heads


def _score_groups(
    columns: Sequence[Column], dataset: Dataset, published_score: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The score table: figures in groups, a cell for each column, and one for the paper."""
    paper = dict(published_score)
    # What the released script prints under this name is another figure, see the glossary.
    paper['mVC16_as_printed'] = paper.pop('mVC16', None)
    groups = []
    for group in GROUPS:
        rows = []
        for name, meaning in group.meanings.items():
            if not any(name in column.score['figures'] for column in columns):
                continue
            cells = [as_text(name, column.score['figures'].get(name)) for column in columns]
            if published_score:
                value = paper.get(name)
                cells.append('–' if value is None else f'{value:.1f}')
            rows.append(
                {
                    'name': name,
                    'meaning': meaning,
                    'cells': cells,
                    'is_main': name == MAIN[dataset.benchmark],
                }
            )
        if rows:
            groups.append({'title': group.title, 'rows': rows})
    return groups


def _comparison(
    run: Mapping[str, Any], dataset: Dataset, published_score: Mapping[str, Any]
) -> list[str]:
    """What may be compared with what."""
    protocol = (
        'Published scores follow the protocol of the paper, which looks at a whole video before '
        'it decides; live scores use the past of each frame alone, as a robot does. The two '
        'answer different questions.'
    )
    if not published_score:
        return [protocol, 'No published score of this model is known.']
    benchmark = published_score['benchmark']
    limit = run.get('limit')
    if BENCHMARKS.get(dataset.name) != benchmark:
        verdict = 'This run scored other data: the two are not comparable.'
    elif limit:
        verdict = f'This run scored at most {limit} of its videos, a sample: not comparable.'
    else:
        verdict = (
            'It is comparable with the column "published" if the folder given here holds exactly '
            'that data, and with no other column.'
        )
    sentences = [protocol, f'The score in the paper was measured on {benchmark}. {verdict}']
    if dataset.benchmark == 'vipseg':
        sentences.append(
            'Whether a printed VPQ is the mean over four windows (VPQ) or five (VPQ_five), papers '
            'do not say: look at both.'
        )
    elif dataset.benchmark == 'vspw':
        sentences.append(
            'The released script prints as mVC16 what is called mVC16_as_printed here, and so the '
            'score in the paper stands there.'
        )
    return sentences


def _score_parts(columns: Sequence[Column]) -> dict[str, Any] | None:
    """The score of each annotation file, where there are several."""
    rows = []
    for column in columns:
        for name, figures in column.score.get('parts', {}).items():
            cells = [as_text(figure, figures.get(figure)) for figure in _OF_PARTS]
            rows.append({'name': f'{name}, {column.title}', 'cells': cells})
    return {'heads': ('annotation file', *_OF_PARTS), 'rows': rows} if rows else None


def _classes(
    columns: Sequence[Column], dataset: Dataset, truth: Truth | None
) -> dict[str, Any] | None:
    """Bars for each class, the best by the first column first."""
    figure = CLASS_FIGURE[dataset.benchmark]
    columns = [column for column in columns if column.score.get('per_class')]
    if not columns:
        return None
    tables = [
        {entry['category_id']: entry for entry in column.score['per_class']} for column in columns
    ]
    first = tables[0]
    scored = [key for key, entry in first.items() if entry.get(figure) is not None]
    scored.sort(key=lambda key: -first[key][figure])
    counts = truth.num_objects if truth else {}
    rows = []
    for key in scored:
        values = [table.get(key, {}).get(figure) for table in tables]
        rows.append(
            {
                'name': first[key]['name'],
                'cells': [
                    *([counts.get(key, 0)] if counts else []),
                    *(as_text(figure, value) for value in values),
                ],
                'bars': [
                    (column.style, 100 * (value or 0.0))
                    for column, value in zip(columns, values, strict=True)
                ],
            }
        )
    heads = [('', 'class'), *([('', 'objects')] if counts else [])]
    heads += [(column.style, column.title) for column in columns]
    half = len(rows) if len(rows) <= _ONE_TABLE else (len(rows) + 1) // 2
    return {
        'sentence': f'{figure} of each class in percent, the best first.',
        'tables': [{'heads': heads, 'rows': part} for part in (rows[:half], rows[half:]) if part],
        'without': [entry['name'] for key, entry in first.items() if key not in scored],
    }


def _curves(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """A chart of precision over recall for each column that has curves."""
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
    """How the score falls with the processing time."""
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
    """Notes of all columns, each once, with the column where it is not that of all."""
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
    """Settings as pairs of name and value, those within settings under both names."""
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
