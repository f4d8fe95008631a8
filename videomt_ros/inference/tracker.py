"""Query slots -> track ids.

A query slot is not a track: the network gives a slot that lost its object to another one. The
promise kept here:

- An id names one object for as long as the stream lives. It stays over a gap of at most
  `gap_s` seconds, if the object returns where it can have moved to, in the same slot or another.
- A slot taken over by another object gets a new id: one that appears where the old object cannot
  be, or that has another class and another mask. A noisy class alone does not change an id; a
  class that changed for certain and stays so does, after `CLASS_CHANGE_FRAMES` frames.
- Ids are 1..65535 and are given in that order, starting again at 1 after the last; an id in use
  is passed over. An id is therefore given again only after all others were.
- A track gets its id when it is first published, so flickers use none up.
- A track is tentative until it was seen in `confirm_frames` frames in a row, and is dropped if
  it is missed before. Later it is confirmed when seen and lost when not.
- Memory is bounded by the number of queries and classes.
- In panoptic results all stuff of one class is one segment with one id.

A track is seen in a frame if the result has at least `min_area` pixels of it and its class,
averaged over its past, has at least `score_threshold`. Class scores say nothing of presence:
they stay high for a hidden object.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Set

import numpy as np
from numpy.typing import NDArray

from videomt_ros.inference import association
from videomt_ros.inference.association import Detections
from videomt_ros.inference.identities import Identity, Sight
from videomt_ros.inference.track import CLASS_CHANGE_FRAMES, Motion, Track, changed_class
from videomt_ros.structures import MAX_TRACK_ID

_TRACKS_PER_QUERY = 4
"""Tracks kept at once, lost ones included, over the number of queries."""
_INTERVALS = 9
"""Frame intervals whose median is the stream's usual one."""


class Tracker:
    """The tracks of one stream. Each frame: `match`, then draw, then `settle`."""

    def __init__(
        self, num_queries: int, merged_classes: Set[int] = frozenset(), max_id: int = MAX_TRACK_ID
    ) -> None:
        """Start without tracks.

        Args:
            num_queries: Q.
            merged_classes: classes all of whose segments are one.
            max_id: ids are 1..max_id; it must exceed the number of queries and merged classes.
        """
        self.tracks: list[Track] = []
        self.merged: dict[int, Identity] = {}
        """One identity per merged class that is alive."""
        self._merged_classes = merged_classes
        self._max_id = max_id
        self._max_tracks = max(
            num_queries, min(_TRACKS_PER_QUERY * num_queries, max_id - len(merged_classes))
        )
        self._next_id = 1
        self._frame = 0
        self._stamp_ns: int | None = None
        self._intervals_s: deque[float] = deque(maxlen=_INTERVALS)

    def begin(self, stamp_ns: int, gap_s: float) -> None:
        """Start a frame: end the tracks that were not seen for longer than `gap_s`.

        A track seen in the frame before also ends if the stream itself paused for that long and
        for three of its usual intervals: a stream slower than `gap_s` still keeps its tracks.
        """
        pause_s = gap_s
        if self._stamp_ns is not None:
            interval_s = (stamp_ns - self._stamp_ns) * 1e-9
            usual_s = statistics.median(self._intervals_s or [interval_s])
            pause_s = max(gap_s, 3.0 * usual_s)
            self._intervals_s.append(interval_s)
        self._stamp_ns = stamp_ns
        self._frame += 1

        def is_alive(item: Track | Identity) -> bool:
            limit_s = pause_s if item.seen else gap_s
            return (stamp_ns - item.last_seen_ns) * 1e-9 <= limit_s

        self.tracks = [track for track in self.tracks if is_alive(track)]
        self.merged = {key: item for key, item in self.merged.items() if is_alive(item)}

    def owned_queries(self) -> NDArray[np.intp]:
        """Slots that a live track holds."""
        return np.array([t.query for t in self.tracks if t.query is not None], np.intp)

    def match(
        self, detections: Detections, score_threshold: float, confirm_frames: int
    ) -> list[tuple[Track, int]]:
        """Decide which track each detection shows; new tracks begin for what none explains.

        Returns:
            Pairs of a track and a detection, in the detections' order. Detections that show an
            object a second time, and weak ones without a track, are in no pair.
        """
        stamp_ns = self._stamp_ns
        assert stamp_ns is not None, 'begin() opens a frame'
        if not len(detections):
            return []
        tracks = self.tracks
        expected = np.zeros((len(tracks), *detections.masks.shape[1:]), bool)
        for m, track in enumerate(tracks):
            expected[m] = track.motion.expected_mask(stamp_ns)
        ious = association.ious(expected, detections.masks)  # M, N
        own = self._own_tracks(detections, ious)
        stay = self._without_duplicates(detections, own, ious, score_threshold)

        pairs = [(own[n], n) for n in stay if n in own]
        taken = {m for m, _ in pairs}
        rest = [n for n in stay if n not in own]
        left = [m for m in range(len(tracks)) if m not in taken]
        costs = np.full((len(left), len(rest)), np.inf)
        for row, m in enumerate(left):
            costs[row] = self._costs(tracks[m], detections, ious[m])[rest]
        found = association.assign(costs)
        pairs += [(left[row], rest[column]) for row, column in found]
        matched = [(tracks[m], n) for m, n in pairs]
        for track, n in matched:
            self._free(int(detections.queries[n]), keep=track)
            track.query = int(detections.queries[n])
        matched = [(self._observe(t, detections, n, confirm_frames), n) for t, n in matched]
        explained = {column for _, column in found}
        for column, n in enumerate(rest):
            if column not in explained:
                matched.append((self._begin_track(detections, n), n))
        self._limit()
        alive = set(map(id, self.tracks))
        return sorted((p for p in matched if id(p[0]) in alive), key=lambda pair: pair[1])

    def identity(self, track: Track) -> Identity:
        """Whom the track's pixels belong to: its own identity, or that of its merged class."""
        class_id = track.class_id
        if class_id not in self._merged_classes:
            return track.identity
        return self.merged_identity(class_id)

    def merged_identity(self, class_id: int) -> Identity:
        """The one identity of a merged class, made if it is not alive."""
        return self.merged.setdefault(class_id, Identity(self._frame))

    def age(self, identity: Identity) -> int:
        """Frames since it began, the present one included."""
        return self._frame - identity.first_frame + 1

    def will_be_confirmed(self, identity: Identity, confirm_frames: int) -> bool:
        """True if the identity is confirmed once it is seen in this frame."""
        return identity.confirmed or identity.frames_seen + 1 >= confirm_frames

    def settle(
        self, sights: Mapping[Identity, Sight], seen: Set[Track], confirm_frames: int
    ) -> None:
        """Close the frame with what was seen in it.

        Args:
            sights: the identities that were seen; those drawn get their ids here.
            seen: the tracks that were seen.
            confirm_frames: frames in a row after which a track is confirmed.
        """
        stamp_ns = self._stamp_ns
        assert stamp_ns is not None, 'begin() opens a frame'
        for identity in self.identities():
            sight = sights.get(identity)
            identity.seen = sight is not None
            identity.area = 0
            if sight is None:
                continue
            identity.confirmed = self.will_be_confirmed(identity, confirm_frames)
            identity.frames_seen += 1
            identity.last_seen_ns = stamp_ns
            identity.class_id, identity.score = sight.class_id, sight.score
            if sight.box is not None:
                identity.area, identity.box = sight.area, sight.box
        for track in self.tracks:
            track.seen = track in seen
            if track.seen:
                track.last_seen_ns = stamp_ns
        self.tracks = [t for t in self.tracks if t.seen or self.identity(t).confirmed]
        self.merged = {key: i for key, i in self.merged.items() if i.seen or i.confirmed}
        drawn = [i for i in sights if i.box is not None and i.track_id is None and i.area]
        for identity in sorted(drawn, key=lambda i: (-i.score, -i.area, i.box)):
            identity.track_id = self._new_id()

    def identities(self) -> list[Identity]:
        """All that are alive, each once."""
        own = [t.identity for t in self.tracks if t.class_id not in self._merged_classes]
        return own + list(self.merged.values())

    def _own_tracks(self, detections: Detections, ious: NDArray[np.float32]) -> dict[int, int]:
        """Detection -> track that holds its slot and can be what it shows."""
        stamp_ns = self._stamp_ns
        assert stamp_ns is not None
        holders = {t.query: m for m, t in enumerate(self.tracks) if t.query is not None}
        own = {}
        for n, query in enumerate(detections.queries):
            m = holders.get(int(query))
            if m is None:
                continue
            track = self.tracks[m]
            changed = changed_class(detections.class_logits[n], track.class_id)
            in_place = ious[m, n] >= association.SAME_PLACE_IOU
            if changed is not None:
                # After a gap, or with another mask, another class is another object.
                plausible = in_place and track.seen
            else:
                plausible = in_place or track.motion.reaches(detections, stamp_ns)[n] <= 1.0
            if plausible:
                own[n] = m
        return own

    def _without_duplicates(
        self,
        detections: Detections,
        own: Mapping[int, int],
        ious: NDArray[np.float32],
        score_threshold: float,
    ) -> list[int]:
        """One detection per object, of several the one that keeps ids most stable.

        In this order: continues a confirmed track in view, a lost one, a tentative one, has no
        track, is weak in this frame but continues a track; then by overlap with its own track.
        """
        ranks = np.full(len(detections), 5)
        fits = np.zeros(len(detections))
        strong = detections.scores >= score_threshold
        ranks[strong] = 3
        for n, m in own.items():
            track = self.tracks[m]
            fits[n] = ious[m, n]
            if not strong[n]:
                ranks[n] = 4
            elif not self.identity(track).confirmed:
                ranks[n] = 2
            else:
                ranks[n] = 0 if track.seen else 1
        order = np.lexsort((-fits, ranks))
        return association.suppress_duplicates(
            detections, order[ranks[order] < 5], established=ranks <= 1
        )

    def _costs(
        self, track: Track, detections: Detections, ious: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Cost (N,) of explaining detections in other slots by this track; inf: it cannot.

        By overlap with the expected mask unless the class changed for certain; without it, by
        reach and the same class.
        """
        assert self._stamp_ns is not None
        classes = detections.class_logits[:, :-1].argmax(1)
        same_class = classes == track.class_id
        reaches = track.motion.reaches(detections, self._stamp_ns)
        costs = np.where(same_class & (reaches <= 1.0), 1.0 + reaches, np.inf)
        for n in np.flatnonzero(ious >= association.SAME_PLACE_IOU):
            changed = changed_class(detections.class_logits[n], track.class_id)
            if changed is None:
                costs[n] = 1.0 - ious[n]
        # What two tracks can explain goes to the confirmed one.
        return costs if self.identity(track).confirmed else costs + 0.5

    def _observe(self, track: Track, detections: Detections, n: int, confirm_frames: int) -> Track:
        """Add a detection to its track; returns the track that takes over if the class changed."""
        assert self._stamp_ns is not None
        logits = detections.class_logits[n]
        changed = changed_class(logits, track.class_id)
        if changed is None:
            track.new_class, track.new_class_frames = None, 0
        elif changed != track.new_class:
            track.new_class, track.new_class_frames = changed, 1
            track.new_class_sum = logits.copy()
        else:
            track.new_class_frames += 1
            track.new_class_sum = track.new_class_sum + logits
        track.motion.move(detections, n, self._stamp_ns)
        track.logit_sum = track.logit_sum + logits
        track.num_logits += 1
        if track.new_class_frames < max(CLASS_CHANGE_FRAMES, confirm_frames):
            return track
        successor = Track(
            Identity(
                first_frame=self._frame - track.new_class_frames + 1,
                frames_seen=track.new_class_frames - 1,
                last_seen_ns=track.last_seen_ns,
            ),
            track.query,
            track.motion,
            track.new_class_sum,
            track.new_class_frames,
            track.last_seen_ns,
        )
        self.tracks[self.tracks.index(track)] = successor
        return successor

    def _begin_track(self, detections: Detections, n: int) -> Track:
        """A new track that takes the detection's slot."""
        assert self._stamp_ns is not None
        query = int(detections.queries[n])
        self._free(query, keep=None)
        motion = Motion(
            detections.masks[n],
            detections.centres[n],
            float(detections.sizes[n]),
            self._stamp_ns,
        )
        track = Track(
            Identity(self._frame, last_seen_ns=self._stamp_ns),
            query,
            motion,
            detections.class_logits[n].copy(),
            1,
            self._stamp_ns,
        )
        self.tracks.append(track)
        return track

    def _free(self, query: int, keep: Track | None) -> None:
        """Take a slot from the track that holds it, if that is not `keep`."""
        for track in self.tracks:
            if track.query == query and track is not keep:
                track.query = None

    def _limit(self) -> None:
        """End the tracks that were seen longest ago when there are too many."""
        if len(self.tracks) > self._max_tracks:
            newest = sorted(self.tracks, key=lambda t: -t.motion.stamp_ns)[: self._max_tracks]
            alive = set(map(id, newest))
            self.tracks = [track for track in self.tracks if id(track) in alive]

    def _new_id(self) -> int:
        """The next id in turn that no live track has."""
        used = {identity.track_id for identity in self.identities()}
        while self._next_id in used:
            self._next_id = self._next_id % self._max_id + 1
        new_id = self._next_id
        self._next_id = self._next_id % self._max_id + 1
        return new_id
