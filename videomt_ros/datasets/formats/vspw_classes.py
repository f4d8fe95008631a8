"""Classes of a VSPW folder: {name: value in the masks}, from VSPW's own file or a user's.

Category ids are 0..123, one below the values of the true masks.
"""

from __future__ import annotations

import re
from pathlib import Path

from videomt_ros.datasets.dataset import Category, DatasetError
from videomt_ros.datasets.json_files import load_json
from videomt_ros.labels import load_classes

NUM_CLASSES = 124
"""Values 1..124 of a true mask are classes; others are not looked at."""
CLASS_FILES = ('classes.json', 'label_num_dic_final.json')
"""Where classes are looked for in a data set, the first that is there counts."""

_NUMBER = re.compile('[0-9]{1,4}')


def read_vspw_classes(base: Path, faults: list[str]) -> list[Category]:
    """Classes of a data set by rising id.

    They are those of `classes.json`, a file of the user's own; else those of
    `label_num_dic_final.json`; else the official ones. In both files a value is a number or the
    text of one, as in the official file, and 0 ("others") is void and no class.

    Args:
        base: folder of the data set.
        faults: what is wrong is added to them.
    """
    official = load_classes('vspw')
    kinds = dict(zip(official.class_names, official.thing_classes, strict=True))
    path = next((base / each for each in CLASS_FILES if (base / each).exists()), None)
    if path is None:
        pairs = zip(official.category_ids, official.class_names, strict=True)
        return [Category(number, name, kinds[name]) for number, name in sorted(pairs)]
    try:
        content = load_json(path)
    except DatasetError as error:
        faults.append(f'{path}: {" ".join(error.faults)}')
        return []
    if not isinstance(content, dict) or not content:
        faults.append(f'Expected {{name: value in the masks}} in {path}, got {str(content)[:80]}.')
        return []
    names: dict[int, str] = {}
    for name, value in content.items():
        # The official file has its numbers as texts.
        number = int(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
        if type(number) is not int or not 0 <= number <= NUM_CLASSES:
            faults.append(
                f'Expected a value from 0 to {NUM_CLASSES} for {name!r} in {path}, '
                f'got {value!r:.80}.'
            )
        elif number in names:
            faults.append(
                f'Expected each value once in {path}, got {number} for {names[number]!r} and '
                f'{name!r}.'
            )
        else:
            names[number] = name
    # Only what the official list knows is told apart into things and stuff.
    return [
        Category(number - 1, name, kinds.get(name, False))
        for number, name in sorted(names.items())
        if number > 0
    ]
