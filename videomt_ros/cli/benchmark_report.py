"""What every `videomt benchmark` prints and writes: a header, tables, and a JSON file."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from videomt_ros.files import whole_file


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Declare `--json`, the file that the figures go to."""
    parser.add_argument(
        '--json',
        type=Path,
        metavar='FILE',
        help='file for all figures: medians, samples, hardware, versions and this command',
    )


class Report:
    """Prints a measurement while it runs, and keeps its figures for the JSON file.

    The file is an object with `metadata`, which says what was measured and on what machine, and
    `results`, a list of objects.
    """

    def __init__(
        self, args: argparse.Namespace, name: str, machine: Mapping[str, str], **about: Any
    ) -> None:
        """Print the header.

        Args:
            args: options of the command line, with `json` and the words of the command.
            name: what is measured: model, stream, ...
            machine: hardware and versions; see `videomt_ros.speed.machine.header`.
            about: conditions of the measurement; those that are text are printed.
        """
        self._path: Path | None = args.json
        self._results: list[dict[str, Any]] = []
        self._metadata = {
            'Test Name': f'videomt benchmark {name}',
            'Test Datetime': datetime.now(timezone.utc).isoformat(timespec='seconds'),
            'command': getattr(args, 'command', None),
            **machine,
            'load_average_before': list(os.getloadavg()),
            **about,
        }
        for key, value in {**machine, **about}.items():
            if isinstance(value, str):
                print(f'{key}: {value}')
        if self._path is not None:
            self._write()  # a place that cannot be written to is named before the measurement

    def add(self, **result: Any) -> None:
        """Add an object to the results and bring the file up to date."""
        self._results.append(result)
        if self._path is not None:
            self._write()

    def table(self, rows: Sequence[Sequence[str]], left: int = 1) -> None:
        """Print a table after an empty line; see `markdown`."""
        print('', *markdown(rows, left), sep='\n', flush=True)

    def head(self, cells: Sequence[str], widths: Sequence[int], left: int = 1) -> None:
        """Print the head of a table whose rows come one by one; see `row`."""
        print()
        for line in _lines([cells], widths, left):
            print(line, flush=True)

    def row(self, cells: Sequence[str], widths: Sequence[int], left: int = 1) -> None:
        """Print one more row of a table, with columns of given widths."""
        print(_line(cells, widths, left), flush=True)

    def end(self, line: str = '') -> None:
        """Print the last lines: a sentence, and where the file is."""
        if line:
            print(f'\n{line}')
        if self._path is not None:
            print(f'\nAll figures: {self._path}')

    def _write(self) -> None:
        assert self._path is not None
        report = {'metadata': self._metadata, 'results': self._results}
        with whole_file(self._path) as file:
            file.write((json.dumps(report, indent=2) + '\n').encode())


def markdown(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Write a Markdown table whose columns are aligned as text, too.

    Args:
        rows: cells of each row; the first row is the head.
        left: number of columns, from the first, that are flush left; the others hold numbers.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return _lines(rows, widths, left)


def _lines(rows: Sequence[Sequence[str]], widths: Sequence[int], left: int) -> list[str]:
    """Write the head, the rule below it, and the other rows."""
    rules = ['-' * (width + 1) + ('-' if n < left else ':') for n, width in enumerate(widths)]
    head, *others = [_line(row, widths, left) for row in rows]
    return [head, f'|{"|".join(rules)}|', *others]


def _line(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = [
        cell.ljust(width) if n < left else cell.rjust(width)
        for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f'| {" | ".join(padded)} |'


def digits(value: float) -> str:
    """Write a number above 0 with three significant figures, without an exponent."""
    return f'{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}'
