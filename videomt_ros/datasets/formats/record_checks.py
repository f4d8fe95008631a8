"""Checks of the records of an annotation file, which collect all faults for one error.

Each check returns the value, or None where it noted a fault.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from videomt_ros.datasets.categories import normalised
from videomt_ros.datasets.dataset import Category, DatasetError, list_names
from videomt_ros.datasets.formats.instance_files import FileMasks
from videomt_ros.datasets.json_files import as_whole, shown
from videomt_ros.datasets.rle import Inspection, inspect

Record = TypeVar('Record')
"""Type of what `Checks.each` gives."""

_MASK_FIELDS = {'segmentation', 'segmentations'}
"""Fields for the masks of an object in an image and along a video."""
_MAX_PIXELS = 2**32 - 1
"""Limit of an image: pycocotools counts in 32 bits, and loops endlessly where the count wraps."""


class Checks:
    """Checks records and collects their faults; `where` names a record in these.

    With `skip_bad`, the faults of single records move to `left_out`, and those of the file as a
    whole remain. With `keep_faulty`, the faults of a video's own files move to `without_images`
    and `without_masks`, unless `skip_bad` leaves such a video out.
    """

    def __init__(self, path: Path, skip_bad: bool = False, keep_faulty: bool = False) -> None:
        """Start the checks of a file; see the class."""
        self.path = path
        self.skip_bad = skip_bad
        self.keep_faulty = keep_faulty and not skip_bad
        self.without_images: dict[int | str, str] = {}
        """Why a video cannot be predicted, by its id; only with `keep_faulty`."""
        self.without_masks: dict[int | str, str] = {}
        """Why the masks of a video cannot be used, by its id; only with `keep_faulty`."""
        self.faults: list[str] = []
        self.left_out: list[str] = []
        """One line per record that was left out: the file, the record and its faults."""
        self._notes: list[str] = []
        self._counts = Counter[tuple[str, str]]()
        self._begin = 0
        self._lost: set[tuple[str, Any]] = set()
        self._no_lists: set[str] = set()

    def fault(self, text: str) -> None:
        """Add a fault."""
        self.faults.append(text)

    def lacks_images(self, video_id: int | str, faults: Sequence[str]) -> None:
        """Add the faults of the images of a video, if there are any."""
        self._lacks(self.without_images, video_id, faults)

    def lacks_masks(self, video_id: int | str, faults: Sequence[str]) -> None:
        """Add the faults of the masks of a video, true or predicted, if there are any."""
        self._lacks(self.without_masks, video_id, faults)

    def _lacks(
        self, reasons: dict[int | str, str], video_id: int | str, faults: Sequence[str]
    ) -> None:
        if self.keep_faulty and faults:
            reasons.setdefault(video_id, in_short(faults))
        elif faults:
            self.faults += faults

    @property
    def notes(self) -> list[str]:
        """Remarks on the file: what it was read as, what records lack, and how many of them."""
        counts = [
            f'{self.path.name}: {counted(count, noun)} {text}.'
            for (noun, text), count in self._counts.items()
        ]
        return [*self._notes, *counts]

    def note(self, text: str) -> None:
        """Add a remark on the file, a sentence without its full stop."""
        self._notes.append(f'{self.path.name}: {text}.')

    def count(self, noun: str, text: str, number: int = 1) -> None:
        """Count something of which one note tells: '10 masks with empty runs'.

        Args:
            noun: singular of what is counted.
            text: text that follows its singular and its plural.
            number: number to add.
        """
        self._counts[noun, text] += number

    @property
    def keeps(self) -> bool:
        """Whether to keep the record that `section` or `each` gave last.

        A record with a fault is kept where faults end the reading, so that others may refer to it.
        """
        return not self.skip_bad or self.is_sound

    @property
    def is_sound(self) -> bool:
        """Whether the record that `section` or `each` gave last has no fault so far."""
        return len(self.faults) == self._begin

    def finish(self) -> None:
        """End the checks.

        Raises:
            DatasetError: lists the faults, if there are any.
        """
        if self.faults:
            raise DatasetError(self.path, self.faults)

    def each(self, records: Iterable[Record]) -> Iterator[Record]:
        """Give records one by one; with `skip_bad`, one with a fault ends in `left_out`.

        The caller checks each record in the body of its loop, and keeps it where `keeps` says so.
        """
        for record in records:
            self._begin = len(self.faults)
            yield record
            if not self.keeps:
                self.left_out.append(f'{self.path.name}: {" ".join(self.faults[self._begin :])}')
                del self.faults[self._begin :]

    def section(self, content: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Check a list of records; see `each`.

        Yields:
            The name of each record for faults, by its id if it has one, and the record.
        """
        if not isinstance(content, dict):
            self.fault(f'Expected an object with {name}, got {kind(content)}.')
            return
        records = content.get(name)
        if not isinstance(records, list):
            got = kind(records) if name in content else 'nothing'
            self.fault(f'Expected a list of {name}, got {got}.')
            self._no_lists.add(name)
            return
        singular = {'categories': 'Category'}.get(name, name[:-1].capitalize())
        for number, record in self.each(enumerate(records)):
            if isinstance(record, dict):
                own = record.get('id')
                yield (f'{name}[{number}]' if own is None else f'{singular} {own}'), record
                if not self.is_sound:
                    self.lose(name, own)
            else:
                self.fault(f'{name}[{number}]: expected an object, got {kind(record)}.')

    def lose(self, name: str, number: Any) -> None:
        """Note that a record cannot be used, of which a fault tells; see `known`.

        Args:
            name: list of the record, such as 'images'.
            number: its id as the file has it.
        """
        if isinstance(number, (int, float)):
            self._lost.add((name, as_whole(number)))

    def whole(
        self, record: dict[str, Any], field: str, where: str, least: int | None = None
    ) -> int | None:
        """Check that a value is a whole number."""
        value = as_whole(record.get(field))
        if type(value) is int and (least is None or value >= least):
            return value
        limit = '' if least is None else f' of {least} or more'
        self._unusable(record, field, where, f'a whole number{limit}')
        return None

    def size(self, record: dict[str, Any], where: str) -> tuple[int, int]:
        """Check an image's size; returns (height, width), with 0 in place of a faulty value."""
        height = self.whole(record, 'height', where, least=1) or 0
        width = self.whole(record, 'width', where, least=1) or 0
        if height * width > _MAX_PIXELS:
            self.fault(f'{where}: expected fewer than 2^32 pixels, got {width} x {height}.')
            return 0, 0
        return height, width

    def number(
        self, record: dict[str, Any], field: str, where: str, least: float | None = None
    ) -> float | None:
        """Check that a value is a finite number."""
        value = record.get(field)
        if is_number(value) and (least is None or value >= least):
            return float(value)
        limit = '' if least is None else f' of {least:g} or more'
        self._unusable(record, field, where, f'a finite number{limit}')
        return None

    def known(
        self, record: dict[str, Any], field: str, where: str, ids: Container[int | str], whose: str
    ) -> int | None:
        """Check the id of another record.

        Where that record cannot be used, or the list of them is missing, the fault of that is the
        one to mend.
        """
        value = self.whole(record, field, where)
        if value is None or value in ids:
            return value
        name = whose.removeprefix('the ')
        if name in self._no_lists:
            return None
        if (name, value) in self._lost:
            if self.skip_bad:
                self.fault(f'{where}: {field} {value} is that of a record that was left out.')
            return None
        self.fault(f'{where}: {field} {value} is not among {whose}.')
        return None

    def file_name(self, record: dict[str, Any], where: str) -> str | None:
        """Check the name of a file, and write it with '/' and without a leading './'."""
        name = self.text(record, 'file_name', where)
        return name and usual_path(name)

    def text(self, record: dict[str, Any], field: str, where: str) -> str | None:
        """Check that a value is a text that is not empty."""
        value = record.get(field)
        if isinstance(value, str) and value:
            return value
        self._unusable(record, field, where, 'a text')
        return None

    def flag(self, record: dict[str, Any], field: str, where: str) -> bool | None:
        """Check that a value is 0 or 1."""
        value = as_whole(record.get(field))
        if type(value) in (int, bool) and value in (0, 1):
            return bool(value)
        self._unusable(record, field, where, '0 or 1')
        return None

    def is_crowd(self, record: dict[str, Any], where: str) -> bool:
        """Check whether an annotation is a crowd; one that does not say so is none."""
        if record.get('iscrowd') is None:
            self.count('annotation', 'without iscrowd, which was taken as 0')
            return False
        return bool(self.flag(record, 'iscrowd', where))

    def per_frame(
        self, record: dict[str, Any], field: str, where: str, length: int
    ) -> list[Any] | None:
        """Check a list with one entry for each frame."""
        value = record.get(field)
        if isinstance(value, list) and len(value) == length:
            return value
        got = f'{len(value)}' if isinstance(value, list) else kind(value)
        if field not in record:
            self._unusable(record, field, where, '')
            return None
        self.fault(
            f'{where}: expected {field} with one entry for each of {length} frames, got {got}.'
        )
        return None

    def segmentations(
        self, record: dict[str, Any], where: str, size: tuple[int, int], length: int
    ) -> FileMasks | None:
        """Check the masks of a track; `size` is (height, width)."""
        value = self.per_frame(record, 'segmentations', where, length)
        if value is None:
            return None
        found = inspect(value, *size)
        for frame, text in found.faults:
            self.fault(f'{where}, frame {frame}: {text}')
        self._count_flat(found)
        return None if found.faults else FileMasks(found.segmentations, size, found.pixels)

    def segmentation(self, record: dict[str, Any], where: str, size: tuple[int, int]) -> Any:
        """Check the mask of an image; returns None also for an empty mask."""
        if 'segmentation' not in record:
            self.fault(f'{where}: segmentation is missing.')
            return None
        found = inspect([record['segmentation']], *size)
        for _, text in found.faults:
            self.fault(f'{where}: {text}')
        self._count_flat(found)
        return None if found.faults else found.segmentations[0]

    def _count_flat(self, found: Inspection) -> None:
        if found.num_flat:
            text = 'with polygons of one or two points, which cover no pixel and were left out'
            self.count('mask', text, found.num_flat)

    def area(self, record: dict[str, Any], where: str) -> Sequence[float | None] | None:
        """Check the area of an object in an image, as the one frame of a track."""
        if record.get('area') is None:
            self.count('annotation', 'without area, which was computed from the mask')
            return None
        return (self.number(record, 'area', where, least=0),)

    def areas(
        self, record: dict[str, Any], where: str, length: int
    ) -> Sequence[float | None] | None:
        """Check the areas of a track: pixels or null; None where the file has none."""
        if record.get('areas') is None:
            self.count('annotation', 'without areas, which were computed from the masks')
            return None
        value = self.per_frame(record, 'areas', where, length)
        wrong = [
            (frame, area)
            for frame, area in enumerate(value or ())
            if area is not None and not (is_number(area) and area >= 0)
        ]
        for frame, area in wrong:
            self.fault(f'{where}, frame {frame}: expected an area or null, got {shown(area)}.')
        return None if wrong else value

    def new(self, number: int | None, seen: dict[int, Any], where: str) -> bool:
        """Check that an id exists and is new."""
        if number is not None and number in seen:
            self.fault(f'{where}: the id occurs twice.')
        return number is not None and number not in seen

    def _unusable(self, record: dict[str, Any], field: str, where: str, expected: str) -> None:
        if field in record:
            self.fault(f'{where}: expected {field} to be {expected}, got {shown(record[field])}.')
        else:
            self.fault(f'{where}: {field} is missing.')


def read_categories(content: Any, checks: Checks, with_things: bool = False) -> list[Category]:
    """Read the classes of a file of COCO's kind; `with_things` if each must have `isthing`."""
    found: dict[int, Category] = {}
    for where, record in checks.section(content, 'categories'):
        number = checks.whole(record, 'id', where)
        name = checks.text(record, 'name', where)
        has_flag = with_things or 'isthing' in record
        is_thing = checks.flag(record, 'isthing', where) if has_flag else True
        if checks.new(number, found, where) and number is not None and checks.keeps:
            found[number] = Category(number, name or '', is_thing is not False)
    return list(found.values())


def check_masks(content: Any, checks: Checks) -> None:
    """Check that some annotation of a file of instances has a mask, unless there are none.

    Raises:
        DatasetError: all have boxes alone, or nothing at all.
    """
    records = content.get('annotations') if isinstance(content, dict) else None
    known = (
        [each for each in records if isinstance(each, dict)] if isinstance(records, list) else []
    )
    if any(_has_mask(record) for record in known):
        return
    has_boxes = any(map(_has_box, known))
    if known and (has_boxes or not any(_MASK_FIELDS & record.keys() for record in known)):
        what = 'a box and no mask' if has_boxes else 'no mask'
        checks.fault(
            f'No annotation has a mask: all {len(known):,} have {what}, but masks are what is '
            'learnt and scored. Export them as instance segmentation (polygons or RLE); boxes '
            'alone do not say which pixels an object has.'
        )
        checks.finish()


def _has_box(record: dict[str, Any]) -> bool:
    boxes = record.get('bboxes')
    return bool(record.get('bbox')) or (isinstance(boxes, list) and any(boxes))


def _has_mask(record: dict[str, Any]) -> bool:
    masks = [record.get('segmentation')]
    if isinstance(record.get('segmentations'), list):
        masks = record['segmentations']
    return any(any(mask) if isinstance(mask, list) else mask for mask in masks)


def without_unused(
    categories: Sequence[Category], content: Any, used: Container[int], checks: Checks
) -> list[Category]:
    """Drop categories that no annotation uses and that stand beside the classes of a file.

    Roboflow puts a group of all classes first, which is the `supercategory` of the others, and may
    have the name of one of them. Of several unused categories with one name the last is kept.

    Args:
        categories: the classes of the file.
        content: content of the JSON, of which `categories` are read.
        used: ids of categories that annotations have.
        checks: receives a note on what was dropped.
    """
    parent_of = {
        as_whole(record.get('id')): record.get('supercategory')
        for record in content['categories']
        if isinstance(record, dict) and isinstance(record.get('id'), (int, float))
    }
    names = Counter(normalised(category.name) for category in categories)
    used_names = {normalised(c.name) for c in categories if c.category_id in used}
    dropped = []
    for category in categories:
        number, name = category.category_id, normalised(category.name)
        if number in used:
            continue
        groups = [key for key, parent in parent_of.items() if parent == category.name]
        is_group = parent_of.get(number) in ('none', None, '') and groups and used_names
        if is_group or names[name] > 1:
            names[name] -= 1
            dropped.append(category)
    if dropped:
        listed = list_names([f'{each.name} ({each.category_id})' for each in dropped])
        checks.note(
            'dropped categories that no annotation uses, and that have the name of another one or '
            f'are its supercategory: {listed}'
        )
    return [category for category in categories if category not in dropped]


def in_short(faults: Sequence[str]) -> str:
    """Write the first of some faults, and how many more there are.

    >>> in_short(['There is no a.png.', 'There is no b.png.'])
    'There is no a.png. And 1 more.'
    """
    return faults[0] + (f' And {len(faults) - 1} more.' if len(faults) > 1 else '')


class Unknown:
    """Counts the results of videos that the truth lacks.

    They are left out and told in a note. If there are no others, the truth is a wrong one.
    """

    def __init__(self) -> None:
        self._counts = Counter[Any]()

    def add(self, video_id: Any, count: int = 1) -> None:
        """Count results of a video that the truth lacks."""
        self._counts[video_id] += count

    def notes(self, num_known: int, checks: Checks) -> list[str]:
        """Write the note on them, if there are any.

        Args:
            num_known: number of results of videos of the truth.
            checks: gets a fault if there is none of these.
        """
        if not self._counts:
            return []
        names = list_names([str(video_id) for video_id in self._counts])
        count = counted(len(self._counts), 'video')
        results = counted(self._counts.total(), 'result')
        if not num_known and not checks.faults:
            checks.fault(
                f'Expected results of videos of the truth, got {results} of {count} that it '
                f'lacks: {names}. Is this the truth of these results?'
            )
        return [f'Ignored {results} of {count} that the truth lacks: {names}.']


def is_number(value: Any) -> TypeGuard[int | float]:
    """Tell whether a value is a number that a float can hold; a bool is none."""
    # NaN fails every comparison, and whole numbers of any length can be compared.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def counted(number: int, what: str) -> str:
    """Write a count with its noun.

    >>> counted(1, 'frame'), counted(1200, 'frame')
    ('1 frame', '1,200 frames')
    """
    return f'{number:,} {what}{"" if number == 1 else "s"}'


def usual_path(name: str) -> str:
    r"""Write a relative path of any system with '/' and without a leading './'.

    >>> usual_path('.\\v1\\00001.jpg')
    'v1/00001.jpg'
    """
    return name.replace('\\', '/').removeprefix('./')


def kind(value: Any) -> str:
    """Name the kind of a value in the words of JSON."""
    names = {dict: 'an object', list: 'a list', str: 'a text', bool: 'true or false'}
    return 'null' if value is None else names.get(type(value), 'a number')
