"""Which of the two times of an image can be used: that of its recording, or its stamp.

Both are usual and both may be missing: converters write bags whose record times are all 0, all the
same, or those of the conversion; drivers leave stamps out, or repeat one. The first images of a
topic decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

USUAL_FPS = 10.0
"""Frame rate that is assumed where neither time can be used."""
_USUAL_NS = round(1e9 / USUAL_FPS)
_MIN_SHARE = 0.25
"""Smallest share of times that differ. More of them are equal if a clock is coarse or stands."""
_MIN_SHARE_BESIDE_STAMPS = 0.75
"""Smallest share of record times that differ where more of the stamps do."""
_MAX_SPEED = 4.0
"""Largest speed of the record times over the stamps. More of it is that of a conversion."""


@dataclass(frozen=True)
class Times:
    """How the images of a topic are timed."""

    source: str
    """Times by which the images are played: 'record', 'stamp' or 'rate'."""
    has_stamps: bool
    """Whether the stamps tell the images apart."""
    period_ns: int
    """Usual time between two images."""
    note: str
    """Remark for the user, as the end of a sentence; empty if the record times are used."""


def choose_times(record_ns: Sequence[int], stamps_ns: Sequence[int]) -> Times:
    """Choose the times of a topic by those of its first images.

    Args:
        record_ns: times at which the first N images were recorded, N >= 1.
        stamps_ns: their stamps; 0 where a driver set none.

    >>> choose_times([5, 5, 5], [100, 200, 300]).source
    'stamp'
    >>> choose_times([5, 5, 5], [0, 0, 0]).source
    'rate'
    """
    has_stamps = _tells_apart([stamp for stamp in stamps_ns if stamp])
    pairs = list(zip(record_ns, stamps_ns, strict=True))
    if has_stamps:  # images that were recorded twice say nothing of the rate
        first = {stamp: pair for pair in reversed(pairs) if (stamp := pair[1])}
        pairs = [pair for pair in pairs if not pair[1] or first[pair[1]] is pair]
    record = [pair[0] for pair in pairs]
    stamps = [pair[1] for pair in pairs if pair[1]]
    is_recorded = _tells_apart(record) and not (
        has_stamps and _share(record) < min(_MIN_SHARE_BESIDE_STAMPS, _share(stamps))
    )
    is_converted = (
        is_recorded
        and has_stamps
        and _MAX_SPEED * _period(record) < _period(stamps)
        and _MAX_SPEED * (max(record) - min(record)) < max(stamps) - min(stamps)
    )
    if is_recorded and not is_converted:
        return Times('record', has_stamps, _period(record) or _USUAL_NS, '')
    if has_stamps and len(stamps) > 1:
        wrong = 'pass much faster than the stamps' if is_converted else 'are equal'
        note = f'times of recording that {wrong}: the images are played by their stamps'
        return Times('stamp', True, _period(stamps) or _USUAL_NS, note)
    note = (
        'neither times of recording nor stamps that tell them apart: '
        f'{USUAL_FPS:g} images a second are assumed'
    )
    return Times('rate', False, _USUAL_NS, note)


class PlayClock:
    """Gives each image the time at which it is played, which never goes back."""

    def __init__(self, times: Times) -> None:
        self._times = times
        self._given_ns: int | None = None
        self._own_ns: int | None = None
        """Last time that an image had by itself."""
        self._ahead_ns = 0
        """Given times minus those that the images have."""
        self.num_back = 0
        """Number of images whose own time was before that of the image before them."""

    def time_of(self, record_ns: int, stamp_ns: int) -> int:
        """Return the time of the next image in nanoseconds.

        Args:
            record_ns: time at which it was recorded.
            stamp_ns: its stamp; 0 where the driver set none.
        """
        times = self._times
        own_ns = {'record': record_ns, 'stamp': stamp_ns or None, 'rate': None}[times.source]
        if self._given_ns is None:
            # 0 would be a stamp that is missing.
            self._given_ns = max(1, record_ns if own_ns is None else own_ns)
        elif own_ns is None or self._own_ns is None:
            self._given_ns += times.period_ns
        elif own_ns < self._own_ns:
            self._given_ns += times.period_ns
            self._ahead_ns = self._given_ns - own_ns
            self.num_back += 1
        else:
            self._given_ns = max(self._given_ns, own_ns + self._ahead_ns)
        if own_ns is not None:
            if self._own_ns is None:
                self._ahead_ns = self._given_ns - own_ns
            self._own_ns = own_ns
        return self._given_ns


def _tells_apart(times_ns: Sequence[int]) -> bool:
    """Whether times are more than a clock that stands or is coarse."""
    return len(set(times_ns)) >= min(2, len(times_ns)) and _share(times_ns) >= _MIN_SHARE


def _share(times_ns: Sequence[int]) -> float:
    """Return the share of times that differ; 0 of none."""
    return len(set(times_ns)) / max(1, len(times_ns))


def _period(times_ns: Sequence[int]) -> int:
    """Return the median of the steps between different times; 0 for fewer than two."""
    steps = np.diff(np.unique(np.asarray(times_ns, np.int64)))
    return int(np.median(steps)) if len(steps) else 0
