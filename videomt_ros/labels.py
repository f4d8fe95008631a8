"""Class names and the thing/stuff split of each benchmark, in the order of the class heads.

The lists are in `models/classes/`, one file per benchmark. Each line holds the id that the data
set's own annotations use, which differs from the position in the head (`class_id`).
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from videomt_ros.resources import resource

SAME_CLASSES = {'ytvis2022': 'ytvis2021'}
"""Benchmarks that use the class list of another one, and which one."""


class LabelsError(ValueError):
    """A class list cannot be used; the message names the file and the faulty line."""


@dataclass(frozen=True)
class ClassList:
    """Classes of one benchmark; the position in each tuple is the `class_id`, 0..K-1."""

    name: str
    """Name of the benchmark, as in `models/classes/`."""
    class_names: tuple[str, ...]
    """Name of each class."""
    thing_classes: tuple[bool, ...]
    """Whether each class is a thing (countable objects); False for stuff."""
    category_ids: tuple[int, ...]
    """Id of each class in the data set's annotation files."""

    def class_id(self, category_id: int) -> int:
        """Look up the position in the head of the class that annotations call `category_id`.

        Raises:
            ValueError: the data set has no such category.
        """
        try:
            return self.category_ids.index(category_id)
        except ValueError:
            raise ValueError(
                f'Expected a category id of {self.name} ({min(self.category_ids)} to '
                f'{max(self.category_ids)}), got {category_id}.'
            ) from None


def benchmarks() -> tuple[str, ...]:
    """List the names that `load_classes` takes, sorted."""
    files = resource('models', 'classes').glob('*.yaml')
    return tuple(sorted({path.stem for path in files} | set(SAME_CLASSES)))


@cache
def load_classes(name: str) -> ClassList:
    """Load the class list of a benchmark, such as 'ytvis2019'.

    Raises:
        LabelsError: there is no such benchmark, or its file is damaged.
    """
    known = benchmarks()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        meant = f' Did you mean {near[0]}?' if near else ''
        raise LabelsError(f'Expected a benchmark out of {", ".join(known)}, got {name!r}.{meant}')
    return read_classes(
        resource('models', 'classes', f'{SAME_CLASSES.get(name, name)}.yaml'), name
    )


def read_classes(path: Path, name: str) -> ClassList:
    """Read one class list: a YAML list of `{id, name, isthing}` in the order of the head.

    Raises:
        LabelsError: the file holds something else, or an id or a name twice.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LabelsError(
            f"{path}: can't be read as YAML: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(entries, list) or not entries:
        raise LabelsError(f'{path}: expected a list of classes, got {type(entries).__name__}.')
    for position, entry in enumerate(entries):
        if not _is_class(entry):
            raise LabelsError(
                f'{path}: expected {{id: number, name: text, isthing: true or false}} '
                f'for class {position}, got {entry!r}.'
            )
    for field in ('id', 'name'):
        values = [entry[field] for entry in entries]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise LabelsError(f'{path}: {field} occurs twice: {", ".join(map(str, twice))}.')
    return ClassList(
        name,
        tuple(entry['name'] for entry in entries),
        tuple(entry['isthing'] for entry in entries),
        tuple(entry['id'] for entry in entries),
    )


def _is_class(entry: Any) -> bool:
    """Whether a value is a complete line of a class list."""
    types = {'id': int, 'name': str, 'isthing': bool}
    return (
        isinstance(entry, dict)
        and set(entry) == set(types)
        # isinstance would take true for an id.
        and all(type(entry[field]) is kind for field, kind in types.items())
        and bool(entry['name'])
    )
