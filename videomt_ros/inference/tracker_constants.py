"""The constants of the tracker's association `full`, each with its meaning and its limit.

Two more are settings of a stream, since they depend on what a camera sees: `same_object_iou` and
`jump_sizes`. The size of an object is the square root of the area of its mask. docs/identity.md
has what each is worth, and `videomt benchmark tracker` measures it again.
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

    size_ratio: float = _constant(
        3.0,
        'Largest growth in size, as a factor, of an object away from its expected mask.',
        off=math.inf,
    )
    class_certain: float = _constant(
        0.6,
        'Least probability of another class in a frame in which the class of a track changed for '
        'certain.',
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
