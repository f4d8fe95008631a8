"""How the tracks of a stream look, and which of those out of sight an object is that returns.

The look of a track is the direction of the sum of its embeddings, each scaled to length 1. An
embedding is the query token after the final norm, which stays alike for one object whichever query
shows it. Likeness is the cosine of two looks, plus `SLOT_BONUS` if the query slot is the same,
since networks tend to show an object that returns in its old slot.

A newcomer is a track that is about to get an id. It goes on with the id of a track that is out of
sight if

- that track was last seen before the newcomer was first seen;
- the newcomer may be of that track's class, by `CLASS_SHARE`;
- their likeness is at least `memory_similarity`; and
- neither of them is as like any other, to within `MARGIN`.

Letters: N tracks, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videomt_ros.inference.association import softmax
from videomt_ros.inference.stream_settings import StreamSettings
from videomt_ros.inference.track import Track

CLASS_SHARE = 0.1
"""Least probability that a newcomer gives to the class of the track that it goes on with. The part
of an object that shows first often looks like another class, but not for certain."""
MARGIN = 0.1
"""Least lead in likeness over every other pair of one of the two."""
SLOT_BONUS = 0.2
"""Likeness that the same query slot is worth."""
MAX_ENDED = 512
"""Largest number of ended tracks that are remembered; of more, those that ended first are
forgotten."""


@dataclass(eq=False)
class _Known:
    """A track with an id that is out of sight, alive or ended."""

    track: Track
    class_id: int
    """Class when it was last seen, 0..K-1."""
    row: int
    """Row of its look."""
    query: int | None
    """Slot that showed it last; None once the slot shows another object."""


class Gallery:
    """Remembers the looks of the tracks of one stream, and those of ended ones for `memory_s`.

    In each frame, call `observe`, `keep` and `recall`.
    """

    def __init__(self, settings: StreamSettings) -> None:
        """Start without tracks."""
        self._settings = settings
        self._clear()

    def _clear(self) -> None:
        """Forget everything."""
        self._sums = np.zeros((0, 0), np.float32)
        """Sum of the scaled embeddings of a track per row, (rows, C)."""
        self._last_frames = np.zeros(0, np.int64)
        """Number of the newest frame that shows the track of a row, (rows,)."""
        self._lengths = np.zeros(0, np.float32)
        """Lengths of the sums, (rows,); 0: to be measured, as the sum has changed."""
        self._rows: dict[Track, int] = {}
        """Rows of the tracks that are alive."""
        self._free: list[int] = []
        """Rows that no track has."""
        self._ended: dict[int, _Known] = {}
        """Ended tracks by their ids, in the order in which they ended."""
        self._oldest_ns = 0
        """Time at or before that at which any of the ended tracks was last seen."""

    @property
    def is_on(self) -> bool:
        """Whether tracks are remembered."""
        return self._settings.memory_similarity > 0.0

    @property
    def ids(self) -> set[int]:
        """Ids of the ended tracks, which are in use as long as they are remembered."""
        return set(self._ended)

    def update(self, settings: StreamSettings) -> None:
        """Use other settings from now on; turning the memory off forgets everything."""
        self._settings = settings
        if not self.is_on:
            self._clear()

    def observe(
        self, tracks: Sequence[Track], embeddings: NDArray[np.float32], frame: int
    ) -> None:
        """Add a frame to the looks of the tracks that are seen in it.

        Args:
            tracks: N different tracks.
            embeddings: their embeddings, (N, C). Those with infinities or NaNs, as half precision
                may give, and zeros say nothing and are left out.
            frame: number of the frame.
        """
        with np.errstate(over='ignore', invalid='ignore'):
            lengths = np.sqrt(np.einsum('nc,nc->n', embeddings, embeddings))
        is_usable = np.isfinite(lengths) & (lengths > 0.0)
        usable = np.flatnonzero(is_usable)
        if len(usable):
            rows = [self._row(tracks[n], embeddings.shape[1]) for n in usable.tolist()]
            if not is_usable.all():
                embeddings, lengths = embeddings[usable], lengths[usable]
            self._sums[rows] += embeddings / lengths[:, None]
            self._lengths[rows] = 0.0
        self._last_frames[[self._rows[track] for track in tracks if track in self._rows]] = frame

    def keep(self, alive: Set[Track], stamp_ns: int) -> None:
        """Remember the tracks that have ended since the frame before, and forget old ones.

        Args:
            alive: all tracks that are alive.
            stamp_ns: time of the frame.
        """
        for track in [track for track in self._rows if track not in alive]:
            row, identity = self._rows.pop(track), track.identity
            if identity.track_id is None or not (identity.confirmed or identity.returned):
                self._release(row)
            else:
                known = _Known(track, identity.class_id, row, track.query)
                self._ended[identity.track_id] = known
                self._oldest_ns = min(self._oldest_ns, identity.last_seen_ns)
        settings = self._settings
        oldest_ns = stamp_ns - (settings.gap_s + settings.memory_s) * 1e9
        if self._oldest_ns < oldest_ns:
            for track_id, known in list(self._ended.items()):
                if known.track.identity.last_seen_ns < oldest_ns:
                    self._forget(track_id)
            times_ns = (known.track.identity.last_seen_ns for known in self._ended.values())
            self._oldest_ns = min(times_ns, default=stamp_ns)
        while len(self._ended) > MAX_ENDED:
            self.forget_first()

    def forget_first(self) -> int:
        """Forget the track that ended first, and return its id, which is free from now on."""
        track_id = next(iter(self._ended))
        self._forget(track_id)
        return track_id

    def recall(
        self, newcomers: Sequence[Track], lost: Sequence[Track]
    ) -> list[tuple[Track, Track]]:
        """Find the tracks with which newcomers go on, and add what is known of these to them.

        Args:
            newcomers: tracks that are about to get an id.
            lost: tracks that are alive, have an id and are out of sight.

        Returns:
            Pairs of a newcomer and the track with which it goes on, which is forgotten. No track
            is in two pairs.
        """
        newcomers = [track for track in newcomers if track in self._rows]
        pairs: list[tuple[Track, Track]] = []
        known = list(self._ended.values()) if newcomers else []
        for track in lost if newcomers else ():
            row = self._rows.get(track)
            if row is not None:
                known.append(_Known(track, track.identity.class_id, row, track.query))
        if known:
            likeness = self._likeness(newcomers, known)
            for n, m in self._certain_pairs(likeness):
                self._join(newcomers[n], known[m])
                pairs.append((newcomers[n], known[m].track))
        recalled = {track for track, _ in pairs}
        others = {track.query for track in newcomers if track not in recalled}
        for item in self._ended.values():
            if item.query in others:
                item.query = None
        return pairs

    def _likeness(
        self, newcomers: Sequence[Track], known: Sequence[_Known]
    ) -> NDArray[np.float64]:
        """Compare newcomers with known tracks, (newcomers, known); -inf: not the same object."""
        rows = np.array([item.row for item in known])
        own = np.array([self._rows[track] for track in newcomers])
        begun = np.array([track.identity.first_frame for track in newcomers])
        probs = softmax(np.array([track.mean_logits for track in newcomers]))
        is_other = self._last_frames[rows] >= begun[:, None]
        is_other |= probs[:, [item.class_id for item in known]] < CLASS_SHARE
        likeness = np.full(is_other.shape, -np.inf)
        able = np.flatnonzero(~is_other.all(0))  # to be one of the newcomers
        rows, top = rows[able], rows.max() + 1
        if 3 * len(rows) < top:
            sums = self._sums[rows] @ self._sums[own].T
        else:  # A product with all rows, in use or not, is faster than to gather most of them.
            sums = (self._sums[:top] @ self._sums[own].T)[rows]
        cosines = sums / (self._measured(rows)[:, None] * self._measured(own))
        slots = np.array([-1 if item.query is None else item.query for item in known])
        is_slot = slots[able] == np.array([track.query for track in newcomers])[:, None]
        likeness[:, able] = cosines.T.astype(np.float64) + SLOT_BONUS * is_slot
        return np.where(is_other, -np.inf, likeness)

    def _certain_pairs(self, likeness: NDArray[np.float64]) -> list[tuple[int, int]]:
        """Find the pairs (newcomer, known) that are alike and have no rival; see `_likeness`."""
        pairs = []
        for n, m in enumerate(likeness.argmax(1).tolist()):
            own = likeness[n, m]
            if own < self._settings.memory_similarity:
                continue
            rivals = np.concatenate([np.delete(likeness[n], m), np.delete(likeness[:, m], n)])
            if own >= rivals.max(initial=-np.inf) + MARGIN:
                pairs.append((n, m))
        return pairs

    def _join(self, track: Track, known: _Known) -> None:
        """Let a newcomer go on as a known track, which is forgotten."""
        old = known.track
        self._sums[self._rows[track]] += self._sums[known.row]
        self._lengths[self._rows[track]] = 0.0
        track.logit_sum = track.logit_sum + old.logit_sum
        track.num_logits += old.num_logits
        identity = track.identity
        identity.track_id, identity.first_frame = old.identity.track_id, old.identity.first_frame
        identity.returned = True
        if self._rows.pop(old, None) is None:
            assert identity.track_id is not None
            self._forget(identity.track_id)
        else:
            self._release(known.row)

    def _measured(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Get the lengths of sums; that of a row without a look is 1."""
        changed = rows[self._lengths[rows] == 0.0]
        if len(changed):
            lengths = np.linalg.norm(self._sums[changed], axis=1)
            self._lengths[changed] = np.where(lengths > 0.0, lengths, np.float32(1.0))
        return self._lengths[rows]

    def _row(self, track: Track, channels: int) -> int:
        """Get the row of a track; it gets one if it has none."""
        row = self._rows.get(track)
        if row is None:
            if not self._free:
                self._add_rows(max(16, len(self._sums)), channels)
            row = self._rows[track] = self._free.pop()
        return row

    def _add_rows(self, count: int, channels: int) -> None:
        before = len(self._sums)
        sums = self._sums.reshape(before, channels)
        self._sums = np.concatenate([sums, np.zeros((count, channels), np.float32)])
        self._last_frames = np.concatenate([self._last_frames, np.zeros(count, np.int64)])
        self._lengths = np.concatenate([self._lengths, np.zeros(count, np.float32)])
        self._free = list(range(before + count - 1, before - 1, -1))

    def _forget(self, track_id: int) -> None:
        self._release(self._ended.pop(track_id).row)

    def _release(self, row: int) -> None:
        self._sums[row], self._lengths[row] = 0.0, 0.0
        self._free.append(row)
