"""Images that were lost before the node received them: what the middleware reports, and stamps.

The middleware reports messages of which it knows that it lost them (the message-lost event). It
does not report all: images that were replaced in its queue while they waited are not among them.
Every image that is lost leaves a gap in the stamps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

from videomt_ros.ros.health import ImageCounts

_WINDOW = 31
"""Number of newest intervals between stamps, whose median is the usual interval."""
_AGREEING = 5
"""Number of intervals in a row that show a rate, if they are alike."""
_ALIKE = 0.2
"""Largest deviation, as a share of their median, of intervals that are alike."""
_MAX_INTERVALS = 30
"""Length, in usual intervals, above which a gap is a pause of the camera."""
_BACK_NS = 1_000_000_000
"""A stamp that is older by more than this, in nanoseconds, starts another recording."""
_REPORTS = 11
"""Number of newest reports, one each second, between the first and the last of which losses are
judged."""
_TOLD_NUMBER = 3
"""Smallest number of lost images that is told, whatever share of the images they are."""


class Losses:
    """Counts the images of one camera that were lost before the node received them.

    All methods are called from the executor's thread.
    """

    def __init__(self, health: ImageCounts) -> None:
        """Count nothing yet.

        Args:
            health: receives the counts.
        """
        self._health = health
        self._gaps = StampGaps()
        self._totals = (0, 0, 0)  # heard, lost, missing
        self._reported = deque([self._totals], maxlen=_REPORTS)

    def subscribe(
        self,
        node: Node,
        message_type: type,
        topic: str,
        callback: Callable[[Any, int | None], None],
        qos: QoSProfile,
    ) -> Subscription:
        """Create a subscription whose lost messages are counted, where the middleware tells them.

        Args:
            node: node on which it is created.
            message_type: type of the messages.
            topic: name of the topic, which a user may have remapped.
            callback: called with each message and its number among those of its publisher, None
                where the middleware (Cyclone DDS) or rclpy (Humble) does not tell it.
            qos: quality of service that is requested.
        """
        if hasattr(Subscription, 'CallbackType'):

            def take(msg: Any, info: Mapping[str, Any]) -> None:
                callback(msg, info.get('publication_sequence_number'))

        else:  # Humble

            def take(msg: Any) -> None:  # type: ignore[misc]
                callback(msg, None)

        events = SubscriptionEventCallbacks(message_lost=self._take_event)
        try:
            return node.create_subscription(message_type, topic, take, qos, event_callbacks=events)
        except UnsupportedEventTypeError:
            return node.create_subscription(message_type, topic, take, qos)

    def start(self) -> None:
        """Note that the node begins to listen: it has missed nothing before the next image."""
        self._gaps.start()

    def heard(self, stamp_ns: int) -> None:
        """Take the stamp, in nanoseconds, of the next image that was received."""
        missing = self._gaps.add(stamp_ns)
        self._health.count_missing(missing)
        self._add(heard=1, missing=missing)

    def explain(self, warn_share: float) -> str:
        """Say how many images were lost lately, and what to do; empty if they are few.

        It is called once a second.

        Args:
            warn_share: share of the images, 0..1, above which losses are told; 0: never.
        """
        before, now = self._reported[0], self._totals
        self._reported.append(now)
        heard, lost, missing = (new - old for new, old in zip(now, before, strict=True))
        # Images that the middleware lost leave gaps too.
        absent = max(lost, missing)
        if not warn_share or absent < _TOLD_NUMBER or absent <= warn_share * (heard + absent):
            return ''
        return (
            f'Images are lost before they reach the node: of about {heard + absent} in the last '
            f'{len(self._reported) - 1} s, {lost} by the report of the middleware and {missing} '
            'by gaps in their stamps. See "Large images" in docs/images.md.'
        )

    def _take_event(self, event: Any) -> None:
        self._health.count_lost(event.total_count_change)
        self._add(lost=event.total_count_change)

    def _add(self, heard: int = 0, lost: int = 0, missing: int = 0) -> None:
        a, b, c = self._totals
        self._totals = (a + heard, b + lost, c + missing)


class StampGaps:
    """Estimates from the stamps of the images that arrived how many did not.

    The usual interval is the median of the newest. An interval of n times this length, if it is
    also longer than the jitter explains, counts as n - 1 missing images. It is counted once an
    interval of the usual length follows: several longer ones in a row that are alike are a
    camera that has become slower. A gap of more than 30 usual intervals is a pause, and no image
    counts as missing.

    On a camera of a steady rate, with jitter of 10 % of the interval (standard deviation) and up
    to 30 % of its images lost at random, the estimate is within 15 % of the truth; with more
    jitter it is rather too small. If most images are lost, the longer interval is the usual one.
    A camera that leaves images out itself, as in long exposures, cannot be told from a loss.
    """

    def __init__(self) -> None:
        self.missing = 0
        """Estimated number of images that did not arrive."""
        self._newest_ns: int | None = None
        self._intervals_ns: deque[int] = deque(maxlen=_WINDOW)
        self._pending = 0

    def start(self) -> None:
        """Forget the newest stamp, but not the usual interval."""
        self._newest_ns, self._pending = None, 0

    def add(self, stamp_ns: int) -> int:
        """Take the stamp of the next image that arrived.

        Args:
            stamp_ns: the stamp in nanoseconds; 0 if the image has none.

        Returns:
            The number by which `missing` has risen.
        """
        if not stamp_ns:
            return 0
        before_ns, self._newest_ns = self._newest_ns, stamp_ns
        if before_ns is None:
            return 0
        interval_ns = stamp_ns - before_ns
        if interval_ns <= 0:
            if interval_ns >= -_BACK_NS:
                self._newest_ns = before_ns  # a duplicate, or late
                # A late one fills the gap that it left, also if its stamp was wrong.
                self._pending -= interval_ns < 0
            return 0
        if len(self._intervals_ns) < _AGREEING:
            self._intervals_ns.append(interval_ns)
            return 0
        usual_ns = median(self._intervals_ns)
        # Of the shorter ones alone: among the longer ones are the gaps.
        jitter_ns = median(usual_ns - i for i in self._intervals_ns if i <= usual_ns)
        if interval_ns > _MAX_INTERVALS * usual_ns:
            return 0
        self._intervals_ns.append(interval_ns)
        if self._has_changed_rate(usual_ns):
            self._pending = 0
            return 0
        if interval_ns > usual_ns + max(0.5 * usual_ns, 4 * jitter_ns):
            self._pending += round(interval_ns / usual_ns) - 1
            return 0
        rise, self._pending = max(self._pending, 0), 0
        self.missing += rise
        return rise

    def _has_changed_rate(self, usual_ns: float) -> bool:
        """Whether the newest intervals show another rate; if so, forget the older ones."""
        newest_ns = list(self._intervals_ns)[-_AGREEING:]
        middle_ns = median(newest_ns)
        if abs(middle_ns - usual_ns) <= _ALIKE * usual_ns:
            return False
        if any(abs(interval - middle_ns) > _ALIKE * middle_ns for interval in newest_ns):
            return False
        self._intervals_ns = deque(newest_ns, maxlen=_WINDOW)
        return True
