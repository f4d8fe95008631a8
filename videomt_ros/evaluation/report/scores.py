"""Parts of the report that compare scores: headline, score table, paper, classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from videomt_ros.datasets.dataset import Dataset
from videomt_ros.evaluation.families import family_of
from videomt_ros.evaluation.families.family import Family, TruthLabels
from videomt_ros.evaluation.figures import as_text
from videomt_ros.evaluation.run_folder import MODES

BENCHMARKS = {
    'ytvis2019': 'YouTube-VIS 2019 val',
    'ytvis2021': 'YouTube-VIS 2021 val',
    'ytvis2022': 'YouTube-VIS 2022 long videos val',
    'ovis': 'OVIS val',
    'vipseg': 'VIPSeg val',
    'vspw': 'VSPW val',
}
"""Names in presets for the data that a paper's score was measured on, by name of the data set."""
_OF_PARTS = ('AP', 'AP50', 'AP75', 'AR1', 'AR10', 'HOTA', 'IDF1')
"""Figures that are shown for each annotation file, where there are several."""
_ONE_TABLE = 16
"""Largest number of classes in one table; more are split over two tables side by side."""


class Column(NamedTuple):
    """A column of the score table: the scores of one mode, or those in real time."""

    style: str
    """Class name in page.css, which sets the colour."""
    title: str
    score: Mapping[str, Any]
    """The scores in the form of `ScoreReport.to_json`."""


def score_columns(metrics: Mapping[str, Any]) -> list[Column]:
    """Build a column for each mode that was scored, and for the score in real time."""
    columns = [Column(mode, mode, metrics[mode]) for mode in MODES if metrics.get(mode)]
    clocked = metrics.get('real_time') or {}
    if clocked.get('scores'):
        columns.append(Column('real', f'real time ×{clocked["factor"]:g}', clocked['scores']))
    return columns


def headline_tiles(
    columns: Sequence[Column],
    metrics: Mapping[str, Any],
    dataset: Dataset,
    paper_score: Mapping[str, Any],
) -> list[dict[str, str]]:
    """Build the tiles with the main figures at the top of the page."""
    main = _family(columns, dataset).main_figure
    tiles = [
        _tile(column.style, f'{main}, {column.title}', as_text(main, value))
        for column in columns
        if (value := column.score['figures'].get(main)) is not None
    ]
    if columns and main in paper_score:
        where = paper_score['benchmark']
        tiles.append(_tile('', f'{main} in the paper, {where}', f'{paper_score[main]:.1f}'))
    tiles += [
        _tile('live', f'{name}, live', as_text(name, value))
        for column in columns
        if column.style == 'live'
        for name in ('HOTA', 'IDSW')
        if (value := column.score['figures'].get(name)) is not None
    ]
    total = metrics.get('timing_ms', {}).get('total')
    if total:
        tiles.append(_tile('', 'per frame, median', f'{total["p50"]:.1f}', 'ms'))
    return tiles


def _family(columns: Sequence[Column], dataset: Dataset) -> Family:
    """Return the family whose figures the scores have; images and videos may share a format."""
    names = [column.score.get('benchmark', dataset.family) for column in columns]
    return family_of(names[0] if names else dataset.family)


def _tile(style: str, name: str, value: str, unit: str = '') -> dict[str, str]:
    return {'style': style, 'name': name, 'value': value, 'unit': unit}


def table_heads(columns: Sequence[Column], paper_score: Mapping[str, Any]) -> list[dict[str, str]]:
    """Build the heads of the score table, except that of the column of names."""
    heads = [{'style': column.style, 'title': column.title} for column in columns]
    if paper_score:
        heads.append({'style': '', 'title': 'paper'})
    return heads


def table_groups(
    columns: Sequence[Column], dataset: Dataset, paper_score: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Build the score table: figures in groups, a cell per column, and one for the paper."""
    family = _family(columns, dataset)
    paper = family.renamed(paper_score)
    groups = []
    for group in family.groups:
        rows = []
        for name, meaning in group.meanings.items():
            if not any(name in column.score['figures'] for column in columns):
                continue
            cells = [as_text(name, column.score['figures'].get(name)) for column in columns]
            if paper_score:
                value = paper.get(name)
                cells.append('–' if value is None else f'{value:.1f}')
            rows.append(
                {
                    'name': name,
                    'meaning': meaning,
                    'cells': cells,
                    'is_main': name == family.main_figure,
                }
            )
        if rows:
            groups.append({'title': group.title, 'rows': rows})
    return groups


def comparison(
    run: Mapping[str, Any], dataset: Dataset, paper_score: Mapping[str, Any]
) -> list[str]:
    """Explain which figures may be compared with which, in sentences."""
    family, sentences = family_of(dataset.family), []
    if 'published' in run.get('modes', ()):
        sentences.append(
            'The column "published" follows the protocol of the paper, which looks at a whole '
            'video before it decides; live scores use the past of each frame alone, as a robot '
            'does. The two answer different questions.'
        )
        sentences.append(family.published_note)
    sentences.append(family.comparison_note)
    if not paper_score:
        return [*filter(None, sentences), 'The paper gives no score for this model.']
    benchmark = paper_score['benchmark']
    limit = run.get('limit')
    if dataset.is_drawn:
        verdict = 'This run scored drawn scenes in the format of such data: not comparable.'
    elif BENCHMARKS.get(dataset.name) != benchmark:
        verdict = 'This run scored other data: the two are not comparable.'
    elif limit:
        verdict = f'This run scored at most {limit} of its videos, a sample: not comparable.'
    else:
        verdict = (
            'It is comparable with the column "published" if the folder given here holds exactly '
            'that data, and with no other column.'
        )
    sentences.append(f'The score in the paper was measured on {benchmark}. {verdict}')
    if len(dataset.truth) > 1:
        sentences.append(
            'The figures are means over several annotation files; the score in the paper belongs '
            'beside that of its own videos, further down.'
        )
    sentences.append(family.paper_note)
    return list(filter(None, sentences))


def parts_table(columns: Sequence[Column]) -> dict[str, Any] | None:
    """Build the table of scores of each annotation file; None if there are not several."""
    rows = []
    for column in columns:
        for name, figures in column.score.get('parts', {}).items():
            cells = [as_text(figure, figures.get(figure)) for figure in _OF_PARTS]
            rows.append({'name': f'{name}, {column.title}', 'cells': cells})
    return {'heads': ('annotation file', *_OF_PARTS), 'rows': rows} if rows else None


def class_bars(
    columns: Sequence[Column], dataset: Dataset, truth: TruthLabels | None
) -> dict[str, Any] | None:
    """Build the tables of classes, those with the best figure in the first column first."""
    figure = _family(columns, dataset).class_figure
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
