"""Measurements of the running node from the times at which images left and results arrived.

The rule of the peak rate, and the names of the figures, are those of NVIDIA's ros2_benchmark where
it has them. This module needs neither ROS nor torch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import pairwise

import numpy as np

Key = tuple[Hashable, int]
"""What an image and its result have in common: the camera, and a number that rises with time."""
MAX_MISSED = 0.05
"""Largest share of frames without a result at a rate that counts as kept up with."""
MIN_PACE = 0.95
"""Smallest share of the wanted rate that the sender must reach for the trial to count."""
MISSED, SENT = '# of Missed Frames', '# of Frames Sent'
"""Names of two figures."""
PLAYBACK_RATE, RATE = 'Mean Playback Frame Rate (fps)', 'Mean Frame Rate (fps)'
"""Names of the rates of the images that were sent, and of the results."""


def figures(sent_s: Mapping[Key, float], received_s: Mapping[Key, float]) -> dict[str, float]:
    """Compute the figures of one trial, over all cameras together.

    Args:
        sent_s: time in seconds at which each image was published, in the order of time.
        received_s: time at which its last result arrived, on the same clock, for those that had
            results.

    Returns:
        The figures by name. Rates count the images of all cameras; jitter is the difference of
        successive intervals between results of one camera. What cannot be computed from so few
        images is left out.
    """
    values: dict[str, float] = {SENT: len(sent_s), MISSED: len(sent_s) - len(received_s)}
    if len(sent_s) > 1:
        times_s = list(sent_s.values())
        # One interval fewer than images: the rate of n images in n - 1 intervals.
        values[PLAYBACK_RATE] = (len(times_s) - 1) / (times_s[-1] - times_s[0])
    if not received_s:
        return values
    first_s, last_s = min(received_s.values()), max(received_s.values())
    values['Delta between First & Last Received Frames (ms)'] = (last_s - first_s) * 1e3
    if last_s > first_s:
        values[RATE] = (len(received_s) - 1) / (last_s - first_s)
    latencies_ms = np.array([(received_s[key] - sent_s[key]) * 1e3 for key in received_s])
    for percent in (50, 95, 99):
        name = f'P{percent} End-to-End Latency (ms)'
        values[name] = float(np.percentile(latencies_ms, percent))
    values['Max. End-to-End Latency (ms)'] = float(latencies_ms.max())
    values['Min. End-to-End Latency (ms)'] = float(latencies_ms.min())
    values['Mean End-to-End Latency (ms)'] = float(latencies_ms.mean())
    jitters_ms = np.array(list(_jitters_ms(received_s)))
    if jitters_ms.size:
        values['Max. Frame-to-Frame Jitter (ms)'] = float(jitters_ms.max())
        values['Min. Frame-to-Frame Jitter (ms)'] = float(jitters_ms.min())
        values['Mean Frame-to-Frame Jitter (ms)'] = float(jitters_ms.mean())
        values['Frame-to-Frame Jitter Std. Deviation (ms)'] = float(jitters_ms.std())
    return values


def _jitters_ms(received_s: Mapping[Key, float]) -> Iterator[float]:
    for camera in {camera for camera, _ in received_s}:
        times_s = sorted(time_s for key, time_s in received_s.items() if key[0] == camera)
        intervals_s = [after - before for before, after in pairwise(times_s)]
        yield from (abs(after - before) * 1e3 for before, after in pairwise(intervals_s))


def keeps_up(values: Mapping[str, float], rate_hz: float) -> bool:
    """Whether a trial at this rate, of all cameras together, lost few frames.

    Args:
        values: its figures.
        rate_hz: rate that was wanted; a sender that was slower shows nothing of the node.
    """
    is_paced = values.get(PLAYBACK_RATE, 0.0) >= MIN_PACE * rate_hz
    return is_paced and values[MISSED] < MAX_MISSED * values[SENT]


def find_peak(
    try_rate: Callable[[float], bool], lowest_hz: float, highest_hz: float, accuracy: float = 0.05
) -> float | None:
    """Search, by bisection, for the highest rate that is kept up with.

    Args:
        try_rate: makes a trial at a rate in Hz, and tells whether the node kept up with it.
        lowest_hz: rate below which none is looked for.
        highest_hz: rate above which none is looked for.
        accuracy: the search ends when the range is this share of its upper end.

    Returns:
        The highest rate of the successful trials; None if there is none.
    """
    if try_rate(highest_hz):
        return highest_hz
    if not try_rate(lowest_hz):
        return None
    low_hz, high_hz = lowest_hz, highest_hz
    while high_hz - low_hz > accuracy * high_hz:
        # The geometric mean, since what counts is the ratio.
        middle_hz = (low_hz * high_hz) ** 0.5
        if try_rate(middle_hz):
            low_hz = middle_hz
        else:
            high_hz = middle_hz
    return low_hz
