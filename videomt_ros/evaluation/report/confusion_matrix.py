"""Confusion of classes in the report: a matrix, and the pairs that are confused most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomt_ros.evaluation.metrics.confusion import ClassConfusion
from videomt_ros.evaluation.report.scores import Column

_MOST_CLASSES = 12
"""Largest number of classes in a matrix; of more, the largest have a row and a column each."""
_NARROW = 7
"""Largest number of columns of classes with which two matrices fit side by side."""
_MOST_PAIRS = 15
"""Number of pairs of classes that are listed where the matrix has not all classes."""
_DEFINITIONS = {
    'masks': (
        'Each row is a true class: what its masks were found as, frame by frame, in percent of '
        'them. A mask is found by the surest prediction whose IoU with it is at least 0.5, '
        'whatever the class and the identity of that. Missed: no prediction was there. Spurious: '
        'predictions that found no mask. Predictions with a score below {least_score} do not '
        'count.'
    ),
    'pixels': (
        'Each row is a true class: what its pixels were predicted as, in percent of them. Missed: '
        'pixels without a predicted class. Pixels without a true class do not count.'
    ),
}


def confusion_matrices(
    columns: Sequence[Column], names: Mapping[int, str], least_score: float
) -> dict[str, Any] | None:
    """Build the matrix of each mode.

    Args:
        columns: the scores of each mode.
        names: names of the categories by id.
        least_score: lowest score of a prediction that counts, where masks are counted.

    Returns:
        None if no mode has one.
    """
    found = [
        (column, ClassConfusion.from_json(column.score['confusion']))
        for column in columns
        if column.score.get('confusion')
    ]
    found = [(column, confusion) for column, confusion in found if confusion.counts.any()]
    if not found:
        return None
    matrices = []
    for column, confusion in found:
        shown, labels = _largest(confusion, names)
        is_cut = len(labels) < len(confusion.category_ids)
        # Among the classes that are joined, right and wrong cannot be told apart.
        num_alone = len(labels) - is_cut
        matrices.append(
            {
                'title': column.title,
                'style': column.style,
                'unit': confusion.unit,
                'heads': [*labels, 'missed'],
                'rows': _rows(shown, labels, num_alone, confusion.unit),
                'pairs': _pairs(confusion, names) if is_cut else [],
            }
        )
    unit = found[0][1].unit
    return {
        'sentence': _DEFINITIONS[unit].format(least_score=least_score),
        'matrices': matrices,
        'is_narrow': all(len(matrix['heads']) <= _NARROW for matrix in matrices),
    }


def _largest(
    confusion: ClassConfusion, names: Mapping[int, str]
) -> tuple[NDArray[np.int64], list[str]]:
    """Join all classes but the largest; returns the counts and the names of the classes."""
    counts, num_classes = confusion.counts, len(confusion.category_ids)
    labels = [names.get(category, str(category)) for category in confusion.category_ids]
    if num_classes <= _MOST_CLASSES:
        return counts, labels
    size = (counts.sum(axis=0) + counts.sum(axis=1))[:-1]
    largest = sorted(np.argsort(-size, kind='stable')[: _MOST_CLASSES - 1].tolist())
    place = np.full(num_classes + 1, _MOST_CLASSES - 1)
    place[largest] = np.arange(len(largest))
    place[-1] = _MOST_CLASSES
    shown = np.zeros((_MOST_CLASSES + 1, _MOST_CLASSES + 1), np.int64)
    np.add.at(shown, (place[:, None], place[None]), counts)
    return shown, [*(labels[k] for k in largest), f'{num_classes - len(largest)} others']


def _rows(
    counts: NDArray[np.int64], labels: Sequence[str], num_alone: int, unit: str
) -> list[dict[str, Any]]:
    rows = []
    for row, name in enumerate([*labels, 'spurious']):
        total = int(counts[row].sum())
        if name == 'spurious' and not total:
            continue
        cells = []
        for column, count in enumerate(counts[row].tolist()):
            share = count / total if total else 0.0
            head = labels[column] if column < len(labels) else 'missed'
            cells.append(
                {
                    'text': _percent(count, share),
                    'heat': round(100 * share),
                    'style': _style(share, row == column, row >= num_alone),
                    'title': f'{name}, {head}: {count:,} of {total:,} {unit}' if count else '',
                }
            )
        rows.append({'name': name, 'total': f'{total:,}', 'cells': cells})
    return rows


def _pairs(confusion: ClassConfusion, names: Mapping[int, str]) -> list[dict[str, Any]]:
    """List the pairs of different classes with the largest counts."""
    counts = confusion.counts[:-1, :-1].copy()
    np.fill_diagonal(counts, 0)
    totals = confusion.counts[:-1].sum(axis=1)
    order = np.argsort(-counts, axis=None, kind='stable')[:_MOST_PAIRS]
    labels = [names.get(category, str(category)) for category in confusion.category_ids]
    return [
        {
            'name': labels[row],
            'cells': [labels[column], f'{count:,}', f'{100 * count / totals[row]:.1f}'],
        }
        for row, column in zip(*np.unravel_index(order, counts.shape), strict=True)
        if (count := int(counts[row, column]))
    ]


def _style(share: float, is_diagonal: bool, is_joined: bool) -> str:
    """Choose the class name in page.css of a cell."""
    if is_diagonal:
        return 'faint' if is_joined else 'right'
    return 'wrong' if share >= 0.005 else 'faint'


def _percent(count: int, share: float) -> str:
    """Format a share; one that rounds to nothing says that it is not nothing."""
    if not count:
        return ''
    return '<1' if 100 * share < 0.5 else f'{100 * share:.0f}'
