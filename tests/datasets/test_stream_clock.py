"""Times of images that have stamps, have none, or have some."""

from __future__ import annotations

from videomt_ros.datasets.stream_clock import StreamClock

STAMP_NS = 5_000_000_000  # of a camera that counts from when it was switched on
CLOCK_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000


def times(*images: tuple[int, float]) -> list[int]:
    """Times of images, given as stamp and arrival in seconds."""
    clock = StreamClock()
    return [
        clock.time_of(stamp_ns, CLOCK_NS + int(came_s * 1e9), came_s)
        for stamp_ns, came_s in images
    ]


def test_stamps_are_taken_as_they_are():
    stamps = [STAMP_NS, STAMP_NS, STAMP_NS + 5, STAMP_NS - 10**9, STAMP_NS]
    assert times(*((stamp, 0.1 * i) for i, stamp in enumerate(stamps))) == stamps


def test_without_any_stamp_the_nodes_clock_is_taken():
    assert times((0, 1.0), (0, 2.0)) == [CLOCK_NS + 10**9, CLOCK_NS + 2 * 10**9]


def test_a_missing_stamp_stays_on_the_clock_of_the_others():
    found = times((STAMP_NS, 7.0), (0, 7.1), (0, 7.2), (STAMP_NS + 3 * PERIOD_NS, 7.3))
    assert found == [STAMP_NS + i * PERIOD_NS for i in range(4)]


def test_an_image_that_came_late_does_not_turn_time_back():
    found = times((STAMP_NS, 7.0), (0, 7.15), (STAMP_NS + PERIOD_NS, 7.16), (0, 7.17))
    assert found == sorted(found)
    assert found[2] == found[1] == STAMP_NS + 150_000_000


def test_a_bag_that_starts_over_goes_back():
    found = times((STAMP_NS, 7.0), (0, 7.5), (STAMP_NS - 10**9, 7.6), (0, 7.7))
    assert found[2:] == [STAMP_NS - 10**9, STAMP_NS - 9 * PERIOD_NS]
