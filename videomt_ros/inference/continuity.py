"""Which frames continue the video of a camera, judged by their stamps and sizes.

Clocks are corrected, bags loop, drivers send a wrong stamp now and then, and several publishers
may share a topic. A frame that does not continue the video begins another one. Where outliers are
held, this takes two frames that agree, so that a lone outlier costs one frame and not the video.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass
from typing import Literal, get_args

STEP_BACK_S = 0.2
"""Largest step back of the stamps, in seconds, within one video. Jitter, frames out of order and
two publishers on one topic cause such steps."""
STEP_BACK_NS = round(STEP_BACK_S * 1e9)
"""The same in nanoseconds."""
MAX_HELD = 10
"""Number of frames in a row that do not continue the video, the last of which begins a new one
even if no two of them agree, so that no stream is silent for ever."""
_INTERVALS = 9
"""Number of newest intervals whose median is the usual interval of a video."""
_USUAL_INTERVALS = 3
"""Number of usual intervals that are no gap, however long they are."""

ResetReason = Literal['size', 'stamp_back', 'stamp_ahead', 'gap', 'clock_jump', 'requested']
"""Why a video begins anew: another image size, stamps that jumped back or ahead, a pause of the
camera, a jump of the clock that the stamps come from, or a request."""
RESET_REASONS: tuple[ResetReason, ...] = get_args(ResetReason)


class OutlierError(Exception):
    """A frame that does not continue the video was dropped; the stream is as it was before."""

    def __init__(self, reason: ResetReason, text: str) -> None:
        """Build the error of one frame.

        Args:
            reason: why the frame does not continue the video.
            text: the same with the numbers, as a sentence without a full stop.
        """
        super().__init__(f'{text}: the frame is dropped, unless the next one agrees with it.')
        self.reason = reason
        """Why the frame does not continue the video."""


@dataclass(frozen=True)
class Break:
    """The end of a video."""

    reason: ResetReason
    """Why a frame does not continue the video."""
    text: str
    """The same with the numbers, as a sentence without a full stop."""


@dataclass(frozen=True)
class Moment:
    """When a frame was taken, and its size."""

    stamp_ns: int
    """Stamp of the frame, in nanoseconds."""
    image_size: tuple[int, int]
    """(height, width) in pixels."""
    arrival_s: float | None
    """Time at which it arrived, in seconds of a clock that never jumps; None: not known."""
    is_stamped: bool = True
    """Whether the stamp is the camera's; else it was made up so that the video goes on."""


@dataclass(frozen=True)
class _Suspect:
    """The latest frame that was dropped as an outlier."""

    moment: Moment
    found: Break


class Continuity:
    """Judges the frames of one stream, in their order.

    A frame continues the video if it has the same size and its stamp is at most STEP_BACK_S
    earlier than the latest and at most `max_gap_s` later, or three usual intervals of the video
    if that is more. A longer step ahead is a pause of the camera ('gap') if the frame also arrived
    that much later, and begins a new video.

    Every other frame is an outlier. It begins a new video at once, unless outliers are held: then
    it is dropped. If the next frame neither continues the video nor agrees with the outlier, it is
    dropped too; if it agrees, a new video begins with it. It agrees if it has the same size and,
    unless this size is new, its stamp is nearer to that of the outlier than to the video. A frame
    without a stamp of its own does not tell which stamps are right: the one after it does.
    """

    def __init__(self, hold_outliers: bool) -> None:
        """Expect the first frame of a video.

        Args:
            hold_outliers: whether a video ends only when two frames agree.
        """
        self._hold_outliers = hold_outliers
        self._latest: Moment | None = None
        """The newest frame of the video, with the largest stamp so far."""
        self._intervals_ns: deque[int] = deque(maxlen=_INTERVALS)
        self._suspect: _Suspect | None = None
        self._num_held = 0

    @property
    def now_ns(self) -> int:
        """Time of the video in nanoseconds: the largest stamp so far; valid after a frame."""
        assert self._latest is not None
        return self._latest.stamp_ns

    def judge(self, frame: Moment, max_gap_s: float) -> Break | None:
        """Take the next frame into account.

        Args:
            frame: the frame.
            max_gap_s: longest step ahead of the stamps, in seconds, within one video.

        Returns:
            None if the frame continues the video or is the first one; else why it begins a new
            video.

        Raises:
            OutlierError: the frame is dropped.
        """
        latest = self._latest
        found = None if latest is None else self._find_break(latest, frame, max_gap_s)
        if latest is None or found is None:
            self._go_on(latest, frame)
            return None
        agreed = None
        if self._hold_outliers and found.reason != 'gap':
            suspect = self._suspect
            if suspect is not None and _agree(latest, suspect.moment, frame):
                agreed, found = suspect.moment, suspect.found
            elif self._num_held + 1 < MAX_HELD:
                self._suspect = _Suspect(frame, found)
                self._num_held += 1
                raise OutlierError(found.reason, found.text)
        self._intervals_ns.clear()
        self._go_on(agreed, frame)
        # The first frame of a video sets its time, even if it is out of order.
        self._latest = frame
        return found

    def _go_on(self, before: Moment | None, frame: Moment) -> None:
        """Accept a frame, which follows another one."""
        now_ns = frame.stamp_ns
        if before is not None:
            now_ns = max(now_ns, before.stamp_ns)
            self._intervals_ns.append(now_ns - before.stamp_ns)
        self._latest = Moment(now_ns, frame.image_size, frame.arrival_s)
        if frame.is_stamped or self._suspect is None or self._suspect.found.reason == 'size':
            self._suspect, self._num_held = None, 0

    def _find_break(self, latest: Moment, frame: Moment, max_gap_s: float) -> Break | None:
        """Find out why a frame does not continue the video; None if it does."""
        if frame.image_size != latest.image_size:
            old, new = ('{} x {}'.format(*size) for size in (latest.image_size, frame.image_size))
            return Break('size', f'The image size changed from {old} to {new}')
        step_ns = frame.stamp_ns - latest.stamp_ns
        step_s = step_ns * 1e-9
        if step_ns < -STEP_BACK_S * 1e9:
            return Break('stamp_back', f'The stamps went back by {-step_s:.3f} s')
        usual_ns = statistics.median(self._intervals_ns) if self._intervals_ns else 0
        if step_ns <= max(max_gap_s * 1e9, _USUAL_INTERVALS * usual_ns):
            return None
        elapsed_s = 0.0
        if frame.arrival_s is not None and latest.arrival_s is not None:
            elapsed_s = frame.arrival_s - latest.arrival_s
        is_pause = step_s - elapsed_s <= max_gap_s
        if not self._intervals_ns and (is_pause or not self._hold_outliers):
            return None  # the first interval of a video may be its usual one
        if is_pause:
            return Break('gap', f'The camera paused for {step_s:.3f} s')
        return Break('stamp_ahead', f'The stamps jumped ahead by {step_s:.3f} s')


def _agree(latest: Moment, suspect: Moment, frame: Moment) -> bool:
    """Whether a frame belongs to an outlier before it rather than to the video."""
    if frame.image_size != suspect.image_size:
        return False
    if frame.image_size != latest.image_size:
        return True
    return abs(frame.stamp_ns - suspect.stamp_ns) < abs(frame.stamp_ns - latest.stamp_ns)
