"""Finds the bags of a folder and the truth of each, by the names that `videomt bag make` gives.

NAME/ or NAME.mcap, .db3, .bag     a bag
NAME.json, or NAME_vspw/           its truth, beside it; see `datasets.bags.truth_formats`
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from videomt_ros.datasets.bags.files import is_bag
from videomt_ros.datasets.bags.truth import load_bag_truth
from videomt_ros.datasets.dataset import DatasetError

_SUFFIX = re.compile(r'(\.(mcap|db3|bag))?(\.(zstd|zst))?$')
"""End of the name of a file that is a bag."""
TRUTH_FOLDER = 'truth'
"""Name of the folder, among the results of an evaluation, with the truth of all bags."""
_VSPW = '_vspw'
"""End of the name of a folder with the truth of VSPW."""
_MASKS = 'panomasksRGB'
"""Name of the folder beside bags with the truth of VIPSeg."""


@dataclass(frozen=True)
class FleetBag:
    """A bag and its truth, of which one may be missing."""

    name: str
    """Name that no other one has, of letters, digits, '_', '-' and '.'."""
    bag: Path | None
    truth: Path | None
    problem: str = ''
    """Why bag and truth cannot be used together; empty if they can."""


def find_fleet(folder: Path) -> list[FleetBag]:
    """Find all bags in a folder and in those below it, and the truth beside each.

    A bag is a folder with a metadata.yaml, or a file. A folder of files without a metadata.yaml,
    as a recorder leaves that was killed, is one bag, unless a file in it has a truth of its own.

    Args:
        folder: the folder, or a single bag.

    Returns:
        The bags in the order of their paths. A bag without truth, and a truth without bag, are
        among them, with a `problem`.

    Raises:
        DatasetError: there is no bag.
    """
    if not folder.is_dir() and not is_bag(folder):
        raise DatasetError(folder, ['Expected a folder of bags, but there is none.'])
    bags: list[Path] = []
    folders: list[Path] = []
    if (folder / 'metadata.yaml').exists() or not folder.is_dir():
        bags = [folder]
    else:
        for path, is_one in _walk(folder):
            (bags if is_one else folders).append(path)
    if not bags:
        raise DatasetError(
            folder,
            [
                'Expected bags in it or below: folders with metadata.yaml, .mcap, .db3 or .bag '
                'files. Got none.'
            ],
        )
    found = [truth_beside(bag) for bag in bags]
    used = {each.truth for each in found} | {
        path for each in found if each.bag for path in _possible_truths(each.bag)
    }
    found += [
        FleetBag(
            path.name.removesuffix('.json').removesuffix(_VSPW),
            None,
            path,
            'Expected its bag beside it, got the truth alone.',
        )
        for each in folders
        for path in sorted(each.iterdir())
        if path not in used and _is_truth(path)
    ]
    return _with_names(found)


def name_fleet(bags: Sequence[Path], truths: Sequence[Path]) -> list[FleetBag]:
    """Pair bags with truths that were named one by one.

    Args:
        bags: the bags.
        truths: one for each bag in the same order, one for all, or none: that beside each bag.

    Raises:
        ValueError: there is another number of truths, or a bag was named twice.
    """
    twice = [str(bag) for bag, times in Counter(bags).items() if times > 1]
    if twice:
        raise ValueError(f'Expected each bag once, got {", ".join(twice)} again.')
    if not truths:
        return _with_names([truth_beside(bag) for bag in bags])
    if len(truths) not in (1, len(bags)):
        raise ValueError(
            f'Expected a --truth for each of the {len(bags)} bags, or one for all of them, got '
            f'{len(truths)}.'
        )
    paired = list(truths) * (len(bags) // len(truths))
    return _with_names(
        [FleetBag(_stem(bag), bag, truth) for bag, truth in zip(bags, paired, strict=True)]
    )


def truth_beside(bag: Path) -> FleetBag:
    """Find the truth beside a bag by its name."""
    present = [path for path in _possible_truths(bag) if path.exists()]
    if len(present) == 1:
        return FleetBag(_stem(bag), bag, present[0])
    expected = ' or '.join(path.name for path in _possible_truths(bag))
    got = 'both' if present else 'none'
    problem = f'Expected the truth of {bag} beside it, {expected}, got {got}.'
    return FleetBag(_stem(bag), bag, None, problem)


def _walk(folder: Path, is_top: bool = True) -> Iterator[tuple[Path, bool]]:
    """Yield each bag with True, and each folder around bags with False, in the order of names."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith('.'))
    if any(path.name == 'run.json' for path in paths):  # the results of an evaluation
        if not is_top:
            return
        paths = [path for path in paths if path.name != TRUTH_FOLDER]
    files = [path for path in paths if path.is_file() and is_bag(path)]
    if files and not is_top and not any(truth_beside(path).truth for path in files):
        yield folder, True
        return
    yield folder, False
    for path in paths:
        if path in files or (path / 'metadata.yaml').exists():
            yield path, True
        elif path.is_dir() and not path.name.endswith(_VSPW) and path.name != _MASKS:
            if path.is_symlink() and folder.resolve().is_relative_to(path.resolve()):
                continue  # a link to a folder around this one
            yield from _walk(path, is_top=False)


def _possible_truths(bag: Path) -> list[Path]:
    stem = _stem(bag)
    return [bag.parent / f'{stem}.json', bag.parent / f'{stem}{_VSPW}']


def _stem(bag: Path) -> str:
    bag = bag if bag.name not in ('', '..') else bag.resolve()
    return bag.name if bag.is_dir() else _SUFFIX.sub('', bag.name)


def _is_truth(path: Path) -> bool:
    """Tell whether a file or folder is labels with stamps; other files of JSON may lie there."""
    if not (path.suffix == '.json' if path.is_file() else path.name.endswith(_VSPW)):
        return False
    try:
        load_bag_truth(path)
    except (DatasetError, OSError):
        return False
    return True


def _with_names(bags: Sequence[FleetBag]) -> list[FleetBag]:
    """Give each bag a name of its own.

    It is that of its file or folder; if others have the same, its path below the folder that all
    are in; if that is the same, too, the path with a number.
    """
    folders = [(each.bag or each.truth or Path()).absolute().parent for each in bags]
    home = os.path.commonpath(folders)
    names = [_plain(each.name) for each in bags]
    times = Counter(names)
    names = [
        name if times[name] == 1 else _plain(os.path.join(os.path.relpath(folder, home), name))
        for folder, name in zip(folders, names, strict=True)
    ]
    times = Counter(names)
    for place, name in enumerate(names):
        if times[name] > 1:
            numbered = (f'{name}_{number}' for number in itertools.count(1))
            names[place] = next(each for each in numbered if each not in names)
    return [replace(each, name=name) for each, name in zip(bags, names, strict=True)]


def _plain(name: str) -> str:
    """Write a name or path as a name that can be a folder's."""
    return re.sub(r'[^\w.-]+', '_', name).strip('._') or 'bag'
