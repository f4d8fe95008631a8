"""What users see of a track: an id with a life, and what one frame adds to it."""

from __future__ import annotations

from dataclasses import dataclass

from videomt_ros.structures import TrackState


@dataclass(eq=False)
class Identity:
    """What users see of a track: its id and its life."""

    first_frame: int
    track_id: int | None = None
    """None until it is first published."""
    frames_seen: int = 0
    """In a row while it is tentative."""
    confirmed: bool = False
    seen: bool = False
    """In the newest frame."""
    last_seen_ns: int = 0
    class_id: int = 0
    score: float = 0.0
    area: int = 0
    """Image pixels in the newest frame."""
    box: tuple[int, int, int, int] | None = None
    """(x0, y0, x1, y1) in image pixels when it was last drawn; None if it never was."""

    @property
    def state(self) -> TrackState:
        """After `settle`, that of the newest frame."""
        if not self.confirmed:
            return TrackState.TENTATIVE
        return TrackState.CONFIRMED if self.seen else TrackState.LOST


@dataclass(frozen=True)
class Sight:
    """One identity in one frame."""

    class_id: int
    score: float
    area: int = 0
    """Image pixels; 0 if it was seen on the mask grid alone and not drawn."""
    box: tuple[int, int, int, int] | None = None

    def joined(self, other: Sight) -> Sight:
        """Both as one: the union of the boxes, the sum of the areas, the larger score."""
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
