"""Turn query slots into track ids.

A query slot is not a track: when a slot has lost its object, the network reuses it for another
one. The tracker guarantees:

- An id names one object until a reset is requested. It survives a gap of at most `gap_s` seconds
  if the object returns, in the same slot or another, where it can have moved to. It survives a gap
  of at most `memory_s` more, wherever the object returns, if that looks like before; `gallery.py`
  has the rules. This is decided when the object would get its first id, so that no id that was
  published changes.
- A slot that is taken over by another object gets a new id. Another object is one that appears
  where the old one cannot be, or that has another class and another mask. A noisy class does not
  change an id; a class that is certain to have changed does, after `class_change_frames` frames.
- Ids are 1..65535 and are given in that order, starting again at 1 after the last; ids in use
  are skipped. An id is therefore reused only after all others. A tracker that follows another one
  goes on from its `next_id`.
- A track gets its id when it is first published, so flickers use up no ids.
- A track is tentative until it was seen in `confirm_frames` consecutive frames, and is dropped if
  it is missed before. From then on it is confirmed in frames in which it is seen, else lost.
- Memory is bounded by the number of queries and classes, and of the ended tracks that are
  remembered.
- In panoptic results all stuff of one class is one segment with one id.

The setting `association` says how a track finds its detection. `full` is described above. With
`slots` a detection belongs to the track that last had its slot, as long as that lives, wherever
the detection is; otherwise it begins a track. The slot gets a new id only after the track was not
seen for `gap_s`, or showed another class for certain in `class_change_frames` consecutive
detections. No id moves to another slot, and two slots that show one object are two tracks, which
compete for its pixels. `confirm_frames`, `min_area`, the score averaged over a track and the
joining of stuff are the same in both.

A track is seen in a frame if the result has at least `min_area` pixels of it and the probability
of its class, averaged over its past, is at least `score_threshold`. The class probability does
not tell whether an object is visible: it stays high for a hidden object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videomt_ros.inference import association, grid_masks
from videomt_ros.inference.association import Detections
from videomt_ros.inference.gallery import Gallery
from videomt_ros.inference.identities import Identity, Lifecycle, Sight
from videomt_ros.inference.stream_settings import StreamSettings
from videomt_ros.inference.track import Track
from videomt_ros.inference.tracker_constants import TrackerConstants
from videomt_ros.model.config import NetworkConfig, Task
from videomt_ros.structures import MAX_TRACK_ID, Segment

_TRACKS_PER_QUERY = 4
"""Largest number of tracks, lost ones included, over the number of queries."""


@dataclass(frozen=True, eq=False)
class Match:
    """A track that a detection of this frame shows, and whose score reaches the threshold."""

    track: Track
    identity: Identity
    """Identity to which the track's pixels belong."""
    class_id: int
    """Class of the track, 0..K-1."""
    score: float
    """Class probability averaged over the track's past, 0..1."""

    @property
    def query(self) -> int:
        """Query index of the detection."""
        assert self.track.query is not None
        return self.track.query


class Tracker:
    """The tracks of one stream.

    In each frame, call `begin`, `match` and `settle`, the last with the pixels of the matches.
    """

    def __init__(
        self,
        config: NetworkConfig,
        task: Task,
        settings: StreamSettings,
        max_id: int = MAX_TRACK_ID,
        next_id: int = 1,
        constants: TrackerConstants = TrackerConstants(),  # noqa: B008 (it is frozen)
    ) -> None:
        """Start without tracks.

        Args:
            config: configuration of the network.
            task: instance or panoptic.
            settings: settings of the stream.
            max_id: largest id; it must exceed the number of queries and classes.
            next_id: the first id to give.
            constants: constants of the association `full`.
        """
        self.tracks: list[Track] = []
        """The tracks that are alive."""
        self._task, self._constants = task, constants
        self._life = Lifecycle(config, settings)
        self._gallery = Gallery(settings)
        is_panoptic = task == 'panoptic'
        self._merged_classes = {
            k for k, is_thing in enumerate(config.thing_classes) if is_panoptic and not is_thing
        }
        self._merged: dict[int, Identity] = {}
        """Identities of the stuff classes that are alive in panoptic results, by class."""
        self._max_id = max_id
        self._max_tracks = max(
            config.num_queries,
            min(_TRACKS_PER_QUERY * config.num_queries, max_id - len(self._merged_classes)),
        )
        self.next_id = next_id
        """The next id in turn; it is skipped if it is in use."""
        self._drawn: list[Match] = []
        """Matches of this frame that are to be drawn."""
        self._undrawn: dict[Match, Sight] = {}
        """Matches of this frame that are seen but not published."""

    @property
    def is_empty(self) -> bool:
        """Whether no identity is alive."""
        return not self._identities()

    def update(self, settings: StreamSettings) -> None:
        """Use other settings from now on; tracks and ids stay."""
        self._life.settings = settings
        self._gallery.update(settings)

    def begin(self, stamp_ns: int) -> None:
        """Start a frame, and end the tracks that were not seen for too long."""
        self._life.begin(stamp_ns)
        self.tracks = [track for track in self.tracks if self._life.is_alive(track)]
        self._merged = {k: i for k, i in self._merged.items() if self._life.is_alive(i)}

    def owned_queries(self) -> NDArray[np.intp]:
        """Query indices that the tracks hold."""
        return np.array([t.query for t in self.tracks if t.query is not None], np.intp)

    def match(self, detections: Detections) -> list[Match]:
        """Decide which track each detection shows, and begin tracks for new objects.

        Duplicates, and detections below the score threshold that no track explains, are ignored.

        Returns:
            The tracks to be drawn, in the order of the detections. Tracks that are not published
            are kept for `settle` instead, so that they take no pixels from the others.
        """
        life = self._life
        self._drawn, self._undrawn = [], {}
        assigned = self._assign(detections)
        for (track, n), score in zip(assigned, self._scores(assigned), strict=True):
            identity, class_id = self._identity(track), track.class_id
            if score < life.settings.score_threshold:
                continue
            match = Match(track, identity, class_id, score)
            if life.is_drawn(identity, class_id):
                self._drawn.append(match)
            elif self._is_large_enough(detections, n):
                self._undrawn[match] = Sight(class_id, score)
        return self._drawn

    @property
    def remembers(self) -> bool:
        """Whether `settle` is to be given embeddings, by which tracks are remembered."""
        return self._gallery.is_on

    def observed_queries(self) -> NDArray[np.intp]:
        """List the query indices of the matches of this frame, first those to be drawn, (N,)."""
        return np.array([match.query for match in (*self._drawn, *self._undrawn)], np.intp)

    def _is_large_enough(self, detections: Detections, n: int) -> bool:
        """Whether the mask of a detection has as many pixels as a track that is seen."""
        return bool(detections.sizes[n] ** 2 * detections.cell_area >= self._life.min_area)

    def _scores(self, assigned: Sequence[tuple[Track, int]]) -> list[float]:
        """Score tracks by the means of their class logits so far."""
        if not assigned:
            return []
        probs = association.softmax(np.array([track.mean_logits for track, _ in assigned]))
        return association.class_scores(probs, self._task).tolist()

    def settle(
        self, sights: Mapping[Match, Sight], embeddings: NDArray[np.float32] | None = None
    ) -> tuple[Segment, ...]:
        """Finish the frame: update the tracks, and give ids to those drawn for the first time.

        Args:
            sights: what the matches won in the image; those without pixels are left out. The
                matches of one identity count together; it is seen if it has min_area pixels.
            embeddings: embeddings of the `observed_queries`, (N, C); None: not known.

        Returns:
            The segments of the frame, by falling score.
        """
        life = self._life
        drawn: dict[Identity, Sight] = {}
        for match, sight in sights.items():
            other = drawn.get(match.identity)
            drawn[match.identity] = sight if other is None else sight.joined(other)
        drawn = {i: sight for i, sight in drawn.items() if sight.area >= life.min_area}
        seen = {match.track for match in self._undrawn}
        seen |= {match.track for match in self._drawn if match.identity in drawn}
        undrawn = {match.identity: sight for match, sight in self._undrawn.items()}
        life.settle(self._identities(), undrawn | drawn)
        for track in self.tracks:
            track.seen = track in seen
            if track.seen:
                track.last_seen_ns = life.stamp_ns
        self.tracks = [t for t in self.tracks if t.seen or self._identity(t).confirmed]
        self._merged = {key: i for key, i in self._merged.items() if i.seen or i.confirmed}
        if embeddings is not None:
            self._recall(drawn, embeddings)
        without_id = [identity for identity in drawn if identity.track_id is None]
        for identity in sorted(without_id, key=lambda i: (-i.score, -i.area, i.box)):
            identity.track_id = self._new_id()
        return life.segments(self._identities())

    def _recall(self, drawn: Mapping[Identity, Sight], embeddings: NDArray[np.float32]) -> None:
        """Note how tracks look, and let those drawn for the first time go on with an older id."""
        gallery, life = self._gallery, self._life
        alive = set(self.tracks)
        matches = [*self._drawn, *self._undrawn]
        seen = [
            n
            for n, m in enumerate(matches)
            if m.track.seen and m.identity is m.track.identity and m.track in alive
        ]
        gallery.observe([matches[n].track for n in seen], embeddings[seen], life.frame)
        gallery.keep(alive, life.stamp_ns)
        newcomers = [
            matches[n].track
            for n in seen
            if matches[n].identity.track_id is None and matches[n].identity in drawn
        ]
        lost = [
            t
            for t in self.tracks
            if not t.seen
            and t.identity.track_id is not None
            and t.identity.confirmed
            and t.class_id not in self._merged_classes
        ]
        recalled = {old for _, old in gallery.recall(newcomers, lost)}
        if recalled:
            self.tracks = [track for track in self.tracks if track not in recalled]

    def _identities(self) -> list[Identity]:
        """List the identities that are alive, each once."""
        own = [t.identity for t in self.tracks if t.class_id not in self._merged_classes]
        return own + list(self._merged.values())

    def _identity(self, track: Track) -> Identity:
        """Get the identity of the track's pixels: its own, or the one that its class shares."""
        class_id = track.class_id
        if class_id not in self._merged_classes:
            return track.identity
        return self._merged.setdefault(class_id, Identity(self._life.frame))

    def _assign(self, detections: Detections) -> list[tuple[Track, int]]:
        """Find the pairs of a track and the detection that shows it, by rising detection."""
        if not len(detections):
            return []
        if self._life.settings.association == 'slots':
            return self._assign_by_slot(detections)
        tracks = self.tracks
        expected = [track.motion.expected_mask(self._life.stamp_ns) for track in tracks]
        ious = grid_masks.ious(expected, detections.masks)  # M, N
        own = self._own_tracks(detections, ious)
        kept = self._without_duplicates(detections, own, ious)

        # Tracks whose slot still shows their object keep it.
        pairs = [(own[n], n) for n in kept if n in own]
        taken = {m for m, _ in pairs}
        # The other detections go to the other tracks, at the least total cost.
        others = [n for n in kept if n not in own]
        free = [m for m in range(len(tracks)) if m not in taken]
        costs = np.full((len(free), len(others)), np.inf)
        for row, m in enumerate(free):
            costs[row] = tracks[m].costs(
                detections, ious[m], self._life.stamp_ns, self._life.settings
            )[others]
        found = association.assign(costs)
        pairs += [(free[row], others[column]) for row, column in found]
        matched = [(tracks[m], n) for m, n in pairs]
        for track, n in matched:
            self._take_slot(int(detections.queries[n]), keep=track)
            track.query = int(detections.queries[n])
        matched = [(self._observe(t, detections, n), n) for t, n in matched]
        # Detections that no track explains are new objects.
        explained = {column for _, column in found}
        for column, n in enumerate(others):
            if column not in explained:
                matched.append((self._begin_track(detections, n), n))
        self._limit()
        alive = set(self.tracks)
        return sorted((p for p in matched if p[0] in alive), key=lambda pair: pair[1])

    def _assign_by_slot(self, detections: Detections) -> list[tuple[Track, int]]:
        """Pair each detection with the track that holds its slot, or with a new one."""
        holders = self._holders()
        matched: list[tuple[Track, int]] = []
        for n, query in enumerate(detections.queries.tolist()):
            if query in holders:
                track = self.tracks[holders[query]]
                matched.append((self._observe(track, detections, n), n))
            elif detections.scores[n] >= self._life.settings.score_threshold:
                matched.append((self._begin_track(detections, n), n))
        return matched

    def _holders(self) -> dict[int, int]:
        """Map the slots that tracks hold to the places of these tracks in the list."""
        return {t.query: m for m, t in enumerate(self.tracks) if t.query is not None}

    def _own_tracks(self, detections: Detections, ious: NDArray[np.float32]) -> dict[int, int]:
        """Map detections to the tracks that hold their slots and that they can show."""
        holders = self._holders()
        own: dict[int, int] = {}
        for n, query in enumerate(detections.queries):
            m = holders.get(int(query))
            if m is None:
                continue
            if self.tracks[m].may_continue_as(
                detections, n, ious[m], self._life.stamp_ns, self._life.settings
            ):
                own[n] = m
        return own

    def _without_duplicates(
        self,
        detections: Detections,
        own: Mapping[int, int],
        ious: NDArray[np.float32],
    ) -> list[int]:
        """Keep one detection per object: of several, the one that keeps ids most stable.

        The order of preference is: continues a confirmed track in view, a lost track, a tentative
        track; has no track; continues a track but is below the threshold in this frame. Among
        equals, the larger overlap with its own track decides.
        """
        ranks = np.full(len(detections), 5)
        fits = np.zeros(len(detections))
        strong = detections.scores >= self._life.settings.score_threshold
        ranks[strong] = 3
        for n, m in own.items():
            track = self.tracks[m]
            fits[n] = ious[m, n]
            if not strong[n]:
                ranks[n] = 4
            elif not self._identity(track).confirmed:
                ranks[n] = 2
            else:
                ranks[n] = 0 if track.seen else 1
        order = np.lexsort((-fits, ranks))
        return association.suppress_duplicates(
            detections, order[ranks[order] < 5], self._life.settings.same_object_iou
        )

    def _observe(self, track: Track, detections: Detections, n: int) -> Track:
        """Add a detection to its track.

        Returns:
            The track, or the one that replaces it because its class has changed.
        """
        life = self._life
        track.observe(detections, n, life.stamp_ns, self._is_large_enough(detections, n))
        if track.new_class_frames < max(
            self._constants.class_change_frames, life.settings.confirm_frames
        ):
            return track
        successor = track.successor(life.frame)
        self.tracks[self.tracks.index(track)] = successor
        return successor

    def _begin_track(self, detections: Detections, n: int) -> Track:
        """Begin a track that takes the detection's slot."""
        self._take_slot(int(detections.queries[n]), keep=None)
        track = Track.begin(detections, n, self._life.frame, self._life.stamp_ns, self._constants)
        self.tracks.append(track)
        return track

    def _take_slot(self, query: int, keep: Track | None) -> None:
        """Take a slot from the track that holds it, unless that is `keep`."""
        for track in self.tracks:
            if track.query == query and track is not keep:
                track.query = None

    def _limit(self) -> None:
        """If there are too many tracks, end those that were seen longest ago."""
        if len(self.tracks) > self._max_tracks:
            newest = sorted(self.tracks, key=lambda t: -t.motion.stamp_ns)
            alive = set(newest[: self._max_tracks])
            self.tracks = [track for track in self.tracks if track in alive]

    def _new_id(self) -> int:
        """Get the next id in turn that is not in use."""
        used = {identity.track_id for identity in self._identities()} | self._gallery.ids
        while len(used) >= self._max_id:
            used.remove(self._gallery.forget_first())
        while self.next_id in used:
            self.next_id = self.next_id % self._max_id + 1
        new_id = self.next_id
        self.next_id = self.next_id % self._max_id + 1
        return new_id
