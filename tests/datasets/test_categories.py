"""Classes of a model in the numbers of a data set."""

from __future__ import annotations

import numpy as np
import pytest

from videomt_ros.datasets.categories import map_classes
from videomt_ros.datasets.dataset import Category
from videomt_ros.labels import load_classes


def categories(*names, first=1):
    return [Category(number, name) for number, name in enumerate(names, start=first)]


def test_names_decide_whatever_their_order_and_spelling():
    found = map_classes(('Giant panda', 'sky', 'car'), categories('car', 'giant_panda', 'SKY'), '')
    assert found.category_ids == (2, 3, 1)
    assert found.notes == ()
    assert found.table(255).tolist() == [2, 3, 1]


@pytest.mark.parametrize('name', ['traffic light', 'Traffic-Light', 'traffic_light'])
def test_what_separates_words_does_not_count(name):
    assert map_classes((name,), categories('traffic light'), '').category_ids == (1,)


def test_what_the_two_do_not_share_is_noted():
    found = map_classes(('cat', 'dog'), categories('cat', 'cow'), '')
    assert found.category_ids == (1, None)
    assert found.notes == (
        'Classes of the model that the data set does not have: dog.',
        '1 of 2 categories are unknown to the model, and are missed where they occur: cow.',
    )
    np.testing.assert_array_equal(found.usable, [True, False])
    assert found.table(255).tolist() == [1, 255]


def test_nothing_in_common_is_an_error_that_names_both_sides():
    with pytest.raises(ValueError, match='The model knows cat, dog; the data set has car, sky'):
        map_classes(('cat', 'dog'), categories('car', 'sky'), '')


def test_a_name_that_stands_for_two_is_an_error():
    with pytest.raises(ValueError, match=r"'traffic light' \(1\) and 'Traffic-Light' \(2\)"):
        map_classes(('cat',), categories('traffic light', 'Traffic-Light'), '')
    with pytest.raises(ValueError, match='more than once'):
        map_classes(('cat', 'Cat'), categories('cat'), '')


@pytest.mark.parametrize('benchmark', ['ytvis2019', 'ytvis2021', 'ytvis2022', 'ovis', 'vspw'])
def test_the_official_categories_are_those_of_the_class_list(benchmark):
    classes = load_classes(benchmark)
    pairs = zip(classes.category_ids, classes.class_names, strict=True)
    found = map_classes(
        classes.class_names, [Category(*pair) for pair in sorted(pairs)], benchmark
    )
    assert found.category_ids == classes.category_ids
    assert found.notes == ()


def test_vipseg_numbers_differ_from_places_in_the_head():
    classes = load_classes('vipseg')
    pairs = zip(classes.category_ids, classes.class_names, strict=True)
    found = map_classes(classes.class_names, [Category(*p) for p in sorted(pairs)], 'vipseg')
    assert found.category_ids == classes.category_ids
    assert found.category_ids != tuple(range(124))


def official(benchmark, changed):
    """Categories of a benchmark, some under other names."""
    classes = load_classes(benchmark)
    return classes, [
        Category(number, changed.get(name, name))
        for number, name in zip(classes.category_ids, classes.class_names, strict=True)
    ]


def test_numbers_decide_where_a_file_of_the_benchmark_spells_a_name_otherwise():
    classes, spelt = official('ytvis2019', {'giant_panda': 'panda (giant)'})
    found = map_classes(classes.class_names, spelt, 'ytvis2019')
    assert found.category_ids == classes.category_ids
    # Not so for a data set of another name, whose numbers mean nothing to us.
    assert map_classes(classes.class_names, spelt, 'mine').category_ids[1] is None


def test_numbers_do_not_decide_over_names():
    classes = load_classes('ytvis2019')
    other = [Category(i, f'thing {i}') for i in classes.category_ids[1:]]
    other.append(Category(classes.category_ids[0], classes.class_names[1]))
    found = map_classes(classes.class_names, other, 'ytvis2019')
    assert found.category_ids[1] == classes.category_ids[0]
    assert found.category_ids[2:] == (None,) * 38


def test_a_users_own_classes_in_the_folders_of_a_benchmark_go_by_name():
    """The demo's six shapes have the numbers 1..6, as have persons and pandas."""
    names = load_classes('ytvis2019').class_names
    with pytest.raises(ValueError, match='classes in common'):
        map_classes(names, categories('circle', 'square'), 'ytvis2019')
