from __future__ import annotations

import hashlib

import pytest

from videomt_ros.labels import LabelsError, benchmarks, load_classes, read_classes

# Classes and things of each benchmark, and its first and last class.
KNOWN = {
    'ytvis2019': (40, 40, 'person', 'tennis_racket'),
    'ytvis2021': (40, 40, 'airplane', 'zebra'),
    'ytvis2022': (40, 40, 'airplane', 'zebra'),
    'ovis': (25, 25, 'Person', 'Vehical'),
    'vspw': (124, 58, 'wall', 'train'),
    'vipseg': (124, 58, 'door', 'food'),
}
DIGESTS = {
    'ytvis2019': '6ede72188daf8231',
    'ytvis2021': '8f4f87c6ff97089e',
    'ytvis2022': '8f4f87c6ff97089e',
    'ovis': '27135869d0829026',
    'vspw': 'a6ecfc2a0f7858e1',
    'vipseg': '0957f66b1c6aa433',
}
"""Hashes of the lines `id:name:isthing` of all classes."""


def test_these_benchmarks_are_shipped():
    assert benchmarks() == tuple(sorted(KNOWN))


@pytest.mark.parametrize('name', KNOWN)
def test_a_list_is_complete(name):
    count, things, first, last = KNOWN[name]
    classes = load_classes(name)
    assert classes.name == name
    assert len(classes.class_names) == len(classes.category_ids) == count
    assert sum(classes.thing_classes) == things
    assert (classes.class_names[0], classes.class_names[-1]) == (first, last)
    assert [classes.class_id(i) for i in classes.category_ids] == list(range(count))


@pytest.mark.parametrize('name', KNOWN)
def test_no_class_has_changed_its_place(name):
    """Two swapped names would give every result of a published model a wrong word."""
    classes = load_classes(name)
    lines = zip(classes.category_ids, classes.class_names, classes.thing_classes, strict=True)
    text = '\n'.join(f'{i}:{name}:{is_thing:d}' for i, name, is_thing in lines)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == DIGESTS[name]


@pytest.mark.parametrize('name', ['ytvis2019', 'ytvis2021', 'ovis'])
def test_instance_sets_count_categories_from_one(name):
    classes = load_classes(name)
    assert classes.category_ids == tuple(range(1, len(classes.class_names) + 1))


def test_vspw_keeps_the_order_of_its_ids_and_vipseg_puts_things_first():
    vspw, vipseg = load_classes('vspw'), load_classes('vipseg')
    assert vspw.category_ids == tuple(range(124))
    assert vipseg.thing_classes == (True,) * 58 + (False,) * 66
    assert list(vipseg.category_ids[:58]) == sorted(vipseg.category_ids[:58])
    assert list(vipseg.category_ids[58:]) == sorted(vipseg.category_ids[58:])
    # The same 124 classes, by another order.
    by_id = {
        i: (n, t)
        for i, n, t in zip(vspw.category_ids, vspw.class_names, vspw.thing_classes, strict=True)
    }
    for i, name, thing in zip(
        vipseg.category_ids, vipseg.class_names, vipseg.thing_classes, strict=True
    ):
        assert by_id[i] == (name, thing)


def test_an_unknown_category_or_benchmark_is_named():
    with pytest.raises(ValueError, match=r'category id of ovis \(1 to 25\), got 26'):
        load_classes('ovis').class_id(26)
    with pytest.raises(LabelsError, match=r"got 'vipsec'\. Did you mean vipseg\?"):
        load_classes('vipsec')


@pytest.mark.parametrize(
    ('text', 'fault'),
    [
        ('', 'expected a list of classes, got NoneType'),
        ('a: 1', 'expected a list of classes, got dict'),
        ('[', "can't be read as YAML"),
        ('- {id: 1, name: cat}', 'for class 0, got'),
        ('- {id: 1, name: cat, isthing: 1}', 'for class 0, got'),
        ('- {id: 1, name: no, isthing: true}', 'for class 0, got'),
        ('- {id: 1, name: "", isthing: true}', 'for class 0, got'),
        (
            '- {id: 1, name: cat, isthing: true}\n- {id: 1, name: dog, isthing: true}',
            'id occurs twice: 1',
        ),
        (
            '- {id: 1, name: cat, isthing: true}\n- {id: 2, name: cat, isthing: true}',
            'name occurs twice: cat',
        ),
    ],
)
def test_a_damaged_list_says_what_is_wrong(tmp_path, text, fault):
    path = tmp_path / 'mine.yaml'
    path.write_text(text)
    with pytest.raises(LabelsError) as caught:
        read_classes(path, 'mine')
    assert fault in str(caught.value)
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)
