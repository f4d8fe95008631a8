"""`videomt score`: score result files of any origin, without a network and torch."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from videomt_ros.cli.argument_types import add_skip_bad
from videomt_ros.progress import Progress

if TYPE_CHECKING:
    from videomt_ros.evaluation.figures import Figures
    from videomt_ros.evaluation.score_report import ScoreReport

HELP = 'score result files against annotation files'

FAMILY_NAMES = ('ytvis', 'vipseg', 'coco_panoptic', 'vspw')
"""Names in `evaluation.families.FAMILIES`, whose import of SciPy the help would wait for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument(
        '--benchmark',
        choices=FAMILY_NAMES,
        required=True,
        help='format and figures: ytvis (YouTube-VIS, OVIS, instances of COCO), vipseg, '
        'coco_panoptic or vspw',
    )
    parser.add_argument(
        '--truth',
        type=Path,
        nargs='+',
        required=True,
        help='annotation file; for vspw the folder of the data set; several for ytvis: their mean',
    )
    parser.add_argument(
        '--results',
        type=Path,
        required=True,
        help='ytvis: results.json, or a zip or folder that holds it; vipseg: folder of pred.json '
        'and pan_pred/; coco_panoptic: the JSON of panopticapi, or its folder of PNGs; vspw: '
        'folder of <video>/<frame>.png',
    )
    parser.add_argument(
        '--truth-masks',
        type=Path,
        help='vipseg: folder of the true PNGs; default: panomasksRGB beside the truth',
    )
    parser.add_argument('--split', help='vspw: which list of videos; default: val')
    parser.add_argument(
        '--track-score',
        type=finite,
        default=0.0,
        help='ytvis: HOTA, IDF1 and the counts look only at tracks of this score or more; '
        'default: 0, all, as TrackEval does',
    )
    add_skip_bad(parser)
    parser.add_argument(
        '--strict',
        action='store_true',
        help='refuse masks that cannot be used and results of videos that the truth lacks; '
        'default: such videos are named and the others are scored',
    )
    parser.add_argument('--json', type=Path, help='file to write: all figures, and more detail')


def finite(text: str) -> float:
    """Parse a finite number; no score would reach an infinite one or NaN."""
    with suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    raise argparse.ArgumentTypeError(f'expected a number, got {text}')


def main(args: argparse.Namespace) -> int:
    """Score, print a table, and write the file; the last line is the main figure."""
    from videomt_ros.datasets.dataset import left_out_summary
    from videomt_ros.datasets.json_files import write_json
    from videomt_ros.evaluation.families import FAMILIES
    from videomt_ros.evaluation.figures import as_text
    from videomt_ros.evaluation.scoring import score_files

    for name, is_given in (
        ('truth_masks', args.truth_masks is not None),
        ('split', args.split is not None),
        ('track_score', args.track_score != 0),
    ):
        takers = [family.name for family in FAMILIES.values() if name in family.score_options]
        if is_given and args.benchmark not in takers:
            option = f'--{name.replace("_", "-")}'
            raise ValueError(
                f'{option} is for {", ".join(takers)}; leave it out for {args.benchmark}.'
            )
    with Progress(None, 'video') as bar:
        report = score_files(
            args.benchmark,
            args.truth,
            args.results,
            args.truth_masks,
            args.split or '',
            track_score=args.track_score,
            skip_bad=args.skip_bad,
            is_strict=args.strict,
            progress=bar.show,
        )
    print(_table(report))
    for note in report.notes:
        print(f'note: {note}')
    for line in left_out_summary(report.left_out):
        print(f'note: {line}', file=sys.stderr)
    if args.json:
        # The figures are at the top level, too, under their own names.
        write_json(args.json, report.figures | report.to_json(), indent=1)
    main_figure = FAMILIES[report.family].main_figure
    print(f'{main_figure} {as_text(main_figure, report.figures[main_figure])}')
    return 0


def _table(report: ScoreReport) -> str:
    """Format the figures in groups, in percent but for counts, with their meanings."""
    from videomt_ros.evaluation.families import family_of
    from videomt_ros.evaluation.figures import as_text

    columns = _columns(report)
    width = max(8, *map(len, columns)) + 2
    first = next(iter(columns.values()))
    lines = []
    for group in family_of(report.family).groups:
        rows = {name: text for name, text in group.meanings.items() if name in first}
        if not rows:
            continue
        shown = {title: column for title, column in columns.items() if rows.keys() & column.keys()}
        heads = ''.join(f'{title:>{width}}' for title in shown) if len(shown) > 1 else ''
        lines.append(f'{group.title:<18}{heads}'.rstrip())
        for name, meaning in rows.items():
            cells = ''.join(
                f'{as_text(name, column[name]) if name in column else "":>{width}}'
                for column in shown.values()
            )
            lines.append(f'  {name:<16}{cells}{"" if heads else f"   {meaning}"}'.rstrip())
        lines.append('')
    return '\n'.join(lines)


def _columns(report: ScoreReport) -> Mapping[str, Figures]:
    """Return the figures by the title of their column."""
    if report.parts:
        return {'mean': report.figures, **report.parts}
    sides: dict[str, Figures] = {'all': {}, 'things': {}, 'stuff': {}}
    titles = {'th': 'things', 'st': 'stuff'}
    for name, value in report.figures.items():
        base, _, end = name.rpartition('_')
        if end in titles:
            sides[titles[end]][base] = value
        else:
            sides['all'][name] = value
    return sides
