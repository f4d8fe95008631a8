"""The constants of the tracker's association `full`, each with its meaning, unit and range.

Lengths are in sizes of an object (square root of the area of its mask), in diagonals of the image
or in cells of the mask grid; shares and probabilities are 0..1. docs/identity.md has what each is
worth, and `videomt benchmark tracker` measures it again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


def _constant(default: Any, meaning: str, off: float, limit: float = math.inf) -> Any:
    """Build a field with a description that programs can read."""
    return field(default=default, metadata={'meaning': meaning, 'off': off, 'limit': limit})


@dataclass(frozen=True)
class TrackerConstants:
    """The constants of the tracker.

    The metadata of each field holds its `meaning`; `off`, the value with which the rule that it
    belongs to has no effect; and `limit`, the largest value that makes sense.
    """

    duplicate_iou: float = _constant(
        0.4,
        'Least IoU of two masks that show one object. Visible masks of two objects overlap less.',
        off=math.inf,
        limit=1.0,
    )
    part_share: float = _constant(
        0.9,
        'Least share of a mask that lies inside a larger mask of its class if it is a part of it.',
        off=math.inf,
        limit=1.0,
    )
    part_area: float = _constant(
        0.25,
        'Least area of a part, as a share of the larger mask; a smaller one may be another '
        'object.',
        off=0.0,
        limit=1.0,
    )
    same_place_iou: float = _constant(
        0.3,
        'Least IoU with the expected mask of a track that suffices to be the same object.',
        off=math.inf,
        limit=1.0,
    )
    jump_sizes: float = _constant(
        0.75,
        'Distance by which an object may miss its expected place in the next frame, in sizes.',
        off=0.0,
    )
    first_jump: float = _constant(
        2.0,
        "Factor on that distance in a track's second frame, when the velocity is unknown.",
        off=1.0,
    )
    jump_sizes_per_s: float = _constant(
        1.5,
        'Growth of that distance per second since the track was seen, in sizes.',
        off=0.0,
    )
    jump_speed_share: float = _constant(
        0.25,
        'Growth of that distance as a share of the movement expected since the track was seen.',
        off=0.0,
    )
    jump_floor: float = _constant(
        0.03,
        'Part of that distance that does not depend on the object, in diagonals of the image.',
        off=0.0,
    )
    jump_ceiling: float = _constant(
        0.5,
        'Largest value of that distance, in diagonals of the image.',
        off=math.inf,
        limit=1.0,
    )
    size_ratio: float = _constant(
        3.0,
        'Largest growth in size of an object away from its expected mask.',
        off=math.inf,
    )
    size_slack: float = _constant(
        2.0,
        'Growth in cells that is allowed besides: tiny masks double their size in one frame.',
        off=0.0,
    )
    class_gone: float = _constant(
        0.2,
        "Largest probability of a track's class in a frame in which it changed for certain.",
        off=1.0,
        limit=1.0,
    )
    class_new: float = _constant(
        0.6,
        'Least probability of another class in such a frame.',
        off=0.0,
        limit=1.0,
    )
    class_change_frames: int = _constant(
        5,
        'Number of consecutive frames after which a changed class means that another object has '
        'taken the slot over. Fewer frames would split objects that enter through an edge of the '
        'image: their class is a guess until more of them shows, and then the mean over the '
        'young track soon changes too.',
        off=10**9,
    )
    size_memory: float = _constant(
        0.9,
        "Share of an object's size that is remembered from frame to frame while less of it shows.",
        off=0.0,
        limit=1.0,
    )
    speck_ratio: float = _constant(
        0.2,
        "Largest size of a mask, as a share of the object's, that does not show where it is.",
        off=0.0,
        limit=1.0,
    )
    velocity_weight: float = _constant(
        0.5,
        'Weight of the newest velocity in the velocity of an object.',
        off=1.0,
        limit=1.0,
    )
    velocity_share: float = _constant(
        1.0,
        'Share of the movement expected from the velocity that counts.',
        off=0.0,
        limit=1.0,
    )
    tentative_cost: float = _constant(
        0.5,
        'Cost, in IoU, of giving a detection to a track that is not confirmed.',
        off=0.0,
    )
    tracks_per_query: int = _constant(
        4,
        'Largest number of tracks, lost ones included, over the number of queries.',
        off=10**6,
    )
