"""The settings of a stream, each with its meaning and range."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any

TRACK_STATES = ('tentative', 'confirmed', 'lost')
"""Names of the members of `videomt_ros.structures.TrackState`, in lower case."""
ASSOCIATIONS = ('full', 'slots')
"""Ways in which tracks find their detections; see `videomt_ros.inference.tracker`."""


def _setting(default: Any, meaning: str, **limits: Any) -> Any:
    """Build a field with a description that programs can read, such as the node's parameters."""
    return field(default=default, metadata={'meaning': meaning, **limits})


@dataclass(frozen=True)
class StreamSettings:
    """Settings of a VideoStream, which may change while it runs; they are checked when built.

    The metadata of each field holds its `meaning` (one sentence with the unit) and its `range`
    (lowest and highest value, both allowed). For a name, and for a tuple of names if these are
    fixed, it holds the `choices` instead.
    """

    score_threshold: float = _setting(
        0.5,
        'Lowest class probability, averaged over a track, with which a segment is published. '
        'Not used by semantic segmentation, which labels every pixel.',
        range=(0.0, 1.0),
    )
    mask_threshold: float = _setting(
        0.5,
        'Mask probability above which a pixel belongs to a segment. '
        'Not used by semantic segmentation.',
        range=(0.0, 1.0),
    )
    overlap_threshold: float = _setting(
        0.8,
        'Panoptic only: lowest share of its own mask that a segment must win against the others.',
        range=(0.0, 1.0),
    )
    min_area: int = _setting(
        16,
        'Fewest image pixels of a segment; a smaller one counts as not seen.',
        range=(0, 100_000_000),
    )
    speck_share: float = _setting(
        0.1,
        'Area of a part of a mask, as a share of its largest part, below which the part is left '
        'out if it is far from the rest: if the gap is wider than 1.5 times the side of a square '
        'of its area. 0 leaves nothing out. Things only; not used by semantic segmentation.',
        range=(0.0, 1.0),
    )
    association: str = _setting(
        'full',
        'How tracks find their objects. full: by query slot, place, mask and class, and several '
        'masks of one object become one. slots: by query slot alone, as suits networks that keep '
        'an object in its slot. Not used by semantic segmentation.',
        choices=ASSOCIATIONS,
    )
    same_object_iou: float = _setting(
        0.4,
        'Least IoU (intersection over union) of two masks that show one object: two of one image '
        'become one, and a mask that overlaps the one expected of a track by so much continues '
        'it. Only with association full.',
        range=(0.05, 1.0),
    )
    jump_sizes: float = _setting(
        2.0,
        'Distance by which an object may miss its expected place, in multiples of its size (the '
        'square root of its area). Only with association full.',
        range=(0.0, 100.0),
    )
    gap_s: float = _setting(
        1.0,
        'Longest time in seconds for which a track that is not seen keeps its id.',
        range=(0.0, 3600.0),
    )
    max_gap_s: float = _setting(
        5.0,
        'Longest step ahead of the stamps in seconds over which the video goes on; gap_s or three '
        'usual intervals of the images, where one of them is longer. After a longer step it '
        'begins anew, with new ids.',
        range=(0.0, 3600.0),
    )
    memory_s: float = _setting(
        60.0,
        'Longest time in seconds for which an object is remembered after gap_s, so that it gets '
        'its id back when it returns, wherever that is. Not used for stuff of panoptic results, '
        'nor by semantic segmentation.',
        range=(0.0, 3600.0),
    )
    memory_similarity: float = _setting(
        0.6,
        'Least similarity of an object that returns to the one that is remembered: the cosine of '
        'what the network tells of their looks. A larger value confuses fewer objects and knows '
        'fewer again; 0 turns the memory off.',
        range=(0.0, 1.0),
    )
    confirm_frames: int = _setting(
        2,
        'Number of consecutive frames in which a track must be seen to be confirmed. '
        'Not used by semantic segmentation.',
        range=(1, 1000),
    )
    class_filter: tuple[str, ...] = _setting(
        (), 'Names of the classes to publish; empty: all. The others are tracked all the same.'
    )
    track_states: tuple[str, ...] = _setting(
        ('confirmed',), 'States in which a track is published.', choices=TRACK_STATES
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            object.__setattr__(self, item.name, _checked(item, value))

    def changed(self, changes: Mapping[str, Any], class_names: Sequence[str]) -> StreamSettings:
        """Build settings with other values.

        Args:
            changes: new values by the names of the fields; the others stay.
            class_names: names of the network's classes, from which class_filter may choose.

        Raises:
            ValueError: a name is unknown, or a value is out of range.
        """
        known = [item.name for item in fields(self)]
        unknown = sorted(set(changes) - set(known))
        if unknown:
            raise ValueError(
                f'Unknown settings: {", ".join(unknown)}. Expected some of: {", ".join(known)}.'
            )
        changed = replace(self, **changes)
        missing = [name for name in changed.class_filter if name not in class_names]
        if missing:
            raise ValueError(
                f'The model has no class {", ".join(missing)}. It knows: {", ".join(class_names)}.'
            )
        return changed


def _checked(item: Field[Any], value: Any) -> Any:
    """Convert a value to the field's own type.

    Raises:
        ValueError: the value has another type or is out of range.
    """
    limits = item.metadata
    if isinstance(item.default, tuple):
        is_list = isinstance(value, Iterable) and not isinstance(value, str)
        if not is_list or not all(isinstance(name, str) for name in value):
            raise ValueError(f'Expected {item.name} to be a list of names, got {value!r}.')
        unknown = [name for name in value if name not in limits.get('choices', value)]
        if unknown:
            raise ValueError(
                f'Expected names in {item.name} from {", ".join(limits["choices"])}, '
                f'got {", ".join(unknown)}.'
            )
        return tuple(value)
    if isinstance(item.default, str):
        if value not in limits['choices']:
            raise ValueError(
                f'Expected {item.name} from {", ".join(limits["choices"])}, got {value!r}. '
                f'{limits["meaning"]}'
            )
        return value
    kind: Any = type(item.default)
    lowest, highest = limits['range']
    is_number = not isinstance(value, bool) and hasattr(value, '__float__')
    if not is_number or math.isnan(value) or not lowest <= value <= highest:
        raise ValueError(
            f'Expected {item.name} from {lowest} to {highest}, got {value!r}. {limits["meaning"]}'
        )
    if kind(value) != value:
        raise ValueError(f'Expected {item.name} to be a whole number, got {value!r}.')
    return kind(value)
