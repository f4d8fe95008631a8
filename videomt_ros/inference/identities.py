"""Identities: what users see of a track, and when it is confirmed, lost, ended and published.

Tracks (`tracker.py`) and the classes of semantic segmentation (`semantic.py`) share these rules.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from videomt_ros.inference.stream_settings import StreamSettings
from videomt_ros.model.config import NetworkConfig
from videomt_ros.structures import Segment, TrackState

_INTERVALS = 9
"""Number of newest frame intervals whose median is the usual interval of a stream."""


@dataclass(eq=False)
class Identity:
    """The id and the state of a track, as users see them."""

    first_frame: int
    """Number of the frame in which the identity began."""
    track_id: int | None = None
    """Id that users see; None until the identity is first published."""
    frames_seen: int = 0
    """Number of frames in which the identity was seen; consecutive ones while it is tentative."""
    returned: bool = False
    """Whether it goes on with the id of an identity that was out of sight."""
    confirmed: bool = False
    """Whether the identity has been seen in enough consecutive frames at least once."""
    seen: bool = False
    """Whether the identity was seen in the newest frame."""
    last_seen_ns: int = 0
    """Stamp of the newest frame in which the identity was seen."""
    class_id: int = 0
    """Class when the identity was last seen, 0..K-1."""
    score: float = 0.0
    """Class probability when the identity was last seen, 0..1."""
    area: int = 0
    """Number of image pixels in the newest frame."""
    box: tuple[int, int, int, int] | None = None
    """(x0, y0, x1, y1) in image pixels when it was last drawn; None if it never was."""

    @property
    def state(self) -> TrackState:
        """State in the newest frame; valid after `Lifecycle.settle`."""
        if not self.confirmed:
            return TrackState.TENTATIVE
        return TrackState.CONFIRMED if self.seen else TrackState.LOST

    @property
    def pixel_value(self) -> int:
        """Value of the identity's pixels in the image of ids; 0 if it has no pixels."""
        if not self.area:
            return 0
        assert self.track_id is not None, 'every identity that is drawn has an id'
        return self.track_id


@dataclass(frozen=True)
class Sight:
    """One identity in one frame."""

    class_id: int
    """Class, 0..K-1."""
    score: float
    """Class probability, 0..1."""
    area: int = 0
    """Number of image pixels; 0 if it was seen on the mask grid only and not drawn."""
    box: tuple[int, int, int, int] | None = None
    """(x0, y0, x1, y1) in image pixels; None if it was not drawn."""

    def joined(self, other: Sight) -> Sight:
        """Combine two sights: the union of the boxes, the sum of the areas, the larger score."""
        assert self.box is not None and other.box is not None
        corners = zip(self.box, other.box, strict=True)
        x0, y0, x1, y1 = (
            min(pair) if side < 2 else max(pair) for side, pair in enumerate(corners)
        )
        return Sight(
            self.class_id,
            max(self.score, other.score),
            self.area + other.area,
            (x0, y0, x1, y1),
        )


class _Seen(Protocol):
    """An identity or a track, which ends when it was not seen for too long."""

    seen: bool
    last_seen_ns: int


class Lifecycle:
    """Decides when identities are confirmed, lost and ended, and which of them are published.

    The identities belong to the caller. In each frame it calls `begin`, drops those that are not
    `is_alive`, calls `settle`, and gets the `segments`.
    """

    def __init__(self, config: NetworkConfig, settings: StreamSettings) -> None:
        """Start before the first frame.

        Args:
            config: configuration of the network, with the names and kinds of the classes.
            settings: settings of the stream.
        """
        self.settings = settings
        """Settings of the stream; others may be assigned between two frames."""
        self.frame = 0
        """Number of the newest frame; the first one is 1."""
        self.stamp_ns = 0
        """Stamp of the newest frame."""
        self._config = config
        self._intervals_s: deque[float] = deque(maxlen=_INTERVALS)
        self._pause_s = 0.0

    @property
    def min_area(self) -> int:
        """Fewest image pixels with which an identity counts as seen, at least 1."""
        return max(1, self.settings.min_area)

    def begin(self, stamp_ns: int) -> None:
        """Start a frame."""
        self._pause_s = self.settings.gap_s
        if self.frame:
            interval_s = (stamp_ns - self.stamp_ns) * 1e-9
            usual_s = statistics.median(self._intervals_s or [interval_s])
            self._pause_s = max(self._pause_s, 3.0 * usual_s)
            self._intervals_s.append(interval_s)
        self.stamp_ns = stamp_ns
        self.frame += 1

    def is_alive(self, item: _Seen) -> bool:
        """Decide after `begin` whether an identity or a track is kept.

        It ends when it has not been seen for longer than `gap_s`. One that was seen in the frame
        before is kept even so if the pause is at most three usual intervals of the stream, so
        that a stream slower than `gap_s` keeps its tracks.
        """
        limit_s = self._pause_s if item.seen else self.settings.gap_s
        return (self.stamp_ns - item.last_seen_ns) * 1e-9 <= limit_s

    def is_drawn(self, identity: Identity, class_id: int) -> bool:
        """Whether the identity is to be published once it is seen in this frame."""
        state = 'confirmed' if self._will_be_confirmed(identity) else 'tentative'
        return self._is_wanted(class_id) and state in self.settings.track_states

    def settle(self, identities: Iterable[Identity], sights: Mapping[Identity, Sight]) -> None:
        """Finish the frame: update each identity, whether it was seen or not.

        Args:
            identities: those that are alive.
            sights: the identities that were seen in this frame.
        """
        for identity in identities:
            sight = sights.get(identity)
            identity.seen = sight is not None
            identity.area = 0
            if sight is None:
                continue
            identity.confirmed = self._will_be_confirmed(identity)
            identity.frames_seen += 1
            identity.last_seen_ns = self.stamp_ns
            identity.class_id, identity.score = sight.class_id, sight.score
            if sight.box is not None:
                identity.area, identity.box = sight.area, sight.box

    def segments(self, identities: Iterable[Identity]) -> tuple[Segment, ...]:
        """List the segments to publish after `settle`, by falling score."""
        names, are_things = self._config.class_names, self._config.thing_classes
        segments = [
            Segment(
                track_id=identity.track_id,
                class_id=identity.class_id,
                class_name=names[identity.class_id],
                is_thing=are_things[identity.class_id],
                score=min(1.0, identity.score),
                state=identity.state,
                age=self.frame - identity.first_frame + 1,
                last_seen_ns=identity.last_seen_ns,
                box=identity.box,
                area=identity.area,
            )
            for identity in identities
            if identity.track_id is not None
            and identity.box is not None
            and (identity.area or self._is_listed_as_lost(identity))
        ]
        return tuple(sorted(segments, key=lambda segment: (-segment.score, segment.track_id)))

    def _will_be_confirmed(self, identity: Identity) -> bool:
        """Whether the identity is confirmed once it is seen in this frame."""
        return identity.confirmed or identity.frames_seen + 1 >= self.settings.confirm_frames

    def _is_listed_as_lost(self, identity: Identity) -> bool:
        return (
            identity.state is TrackState.LOST
            and 'lost' in self.settings.track_states
            and self._is_wanted(identity.class_id)
        )

    def _is_wanted(self, class_id: int) -> bool:
        wanted = self.settings.class_filter
        return not wanted or self._config.class_names[class_id] in wanted
