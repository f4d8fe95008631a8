"""The correspondence of the classes of a model to the categories of a data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videomt_ros.datasets.dataset import Category, list_names
from videomt_ros.labels import benchmarks, load_classes


@dataclass(frozen=True)
class ClassMap:
    """Maps the K classes of a model to the category ids of a data set."""

    category_ids: tuple[int | None, ...]
    """K category ids in the order of the classes; None: the data set has no such category."""
    notes: tuple[str, ...] = ()
    """Remarks that a reader of the figures needs."""

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Whether the data set has each class, (K,)."""
        return np.array([category_id is not None for category_id in self.category_ids], bool)

    def table(self, missing: int) -> NDArray[np.int64]:
        """Return the category ids as an array (K,), with `missing` where there is none."""
        return np.array(
            [missing if number is None else number for number in self.category_ids], np.int64
        )


def map_classes(
    class_names: Sequence[str], categories: Sequence[Category], benchmark: str
) -> ClassMap:
    """Match the classes of a model with the categories of a data set.

    Names count, whatever their case, spaces, '_' and '-'. Where the model knows exactly the
    classes of the benchmark, and the data set numbers its categories as that benchmark does and
    names most of them alike, the number decides for the others: files differ in the spelling of
    names.

    Args:
        class_names: names of the model's classes, in the order of its class head.
        categories: classes of the data set.
        benchmark: name of the data set, such as 'ytvis2019'.

    Raises:
        ValueError: no class is a category, or two classes or two categories have one name.
    """
    by_name: dict[str, Category] = {}
    for category in categories:
        key = normalised(category.name)
        if key in by_name:
            raise ValueError(
                f'Expected categories with different names, got {by_name[key].name!r} '
                f'({by_name[key].category_id}) and {category.name!r} ({category.category_id}).'
            )
        by_name[key] = category
    keys = [normalised(name) for name in class_names]
    twice = sorted({key for key in keys if keys.count(key) > 1 and key in by_name})
    if twice:
        raise ValueError(
            f'Expected a model with different names for its classes; it has {", ".join(twice)} '
            'more than once.'
        )
    found = [by_name[key].category_id if key in by_name else None for key in keys]
    by_number = _numbers_of_benchmark(class_names, categories, benchmark)
    if by_number is not None:
        pairs = list(zip(found, by_number, strict=True))
        alike = sum(name == number for name, number in pairs)
        contrary = sum(name not in (number, None) for name, number in pairs)
        if alike > len(pairs) / 2 and not contrary:
            found = list(by_number)
    if all(number is None for number in found):
        raise ValueError(
            f'Expected a model and a data set with classes in common. The model knows '
            f'{list_names(class_names)}; the data set has '
            f'{list_names([category.name for category in categories])}. '
            'Choose a model that was trained on this data set.'
        )
    unknown = [name for name, number in zip(class_names, found, strict=True) if number is None]
    missed = [item.name for item in categories if item.category_id not in found]
    notes = []
    if unknown:
        notes.append(
            f'Classes of the model that the data set does not have: {list_names(unknown)}.'
        )
    if missed:
        notes.append(
            f'{len(missed)} of {len(categories)} categories are unknown to the model, and are '
            f'missed where they occur: {list_names(missed)}.'
        )
    return ClassMap(tuple(found), tuple(notes))


def _numbers_of_benchmark(
    class_names: Sequence[str], categories: Sequence[Category], benchmark: str
) -> tuple[int, ...] | None:
    """Return the category ids by class id, if both model and data set have the benchmark's."""
    if benchmark not in benchmarks():
        return None
    classes = load_classes(benchmark)
    is_model = classes.class_names == tuple(class_names)
    is_numbering = set(classes.category_ids) == {item.category_id for item in categories}
    return classes.category_ids if is_model and is_numbering else None


def normalised(name: str) -> str:
    """Reduce a name to what tells classes apart: neither case, spaces, '_' nor '-' count."""
    return re.sub(r'[\s_-]+', '', name.casefold())
