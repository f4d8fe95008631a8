"""Figures of a speed test, and the search for the peak rate."""

from __future__ import annotations

import pytest

from videomt_ros.rig.trials import MISSED, PLAYBACK_RATE, RATE, SENT, figures, find_peak, keeps_up


def test_figures_of_one_camera_are_as_worked_out_on_paper():
    # Sent at 0, 100, 200, 300 ms; the third is lost; latencies 20, 40 and 60 ms.
    sent_s = {('', n): n / 10 for n in range(4)}
    received_s = {('', 0): 0.02, ('', 1): 0.14, ('', 3): 0.36}
    values = figures(sent_s, received_s)
    assert values[SENT] == 4
    assert values[MISSED] == 1
    assert values[PLAYBACK_RATE] == pytest.approx(10)
    assert values[RATE] == pytest.approx(2 / 0.34)
    assert values['Delta between First & Last Received Frames (ms)'] == pytest.approx(340)
    assert values['P50 End-to-End Latency (ms)'] == pytest.approx(40)
    assert values['P95 End-to-End Latency (ms)'] == pytest.approx(58)
    assert values['Max. End-to-End Latency (ms)'] == pytest.approx(60)
    assert values['Min. End-to-End Latency (ms)'] == pytest.approx(20)
    assert values['Mean End-to-End Latency (ms)'] == pytest.approx(40)
    # Intervals of 120 and 220 ms differ by 100.
    assert values['Mean Frame-to-Frame Jitter (ms)'] == pytest.approx(100)
    assert values['Frame-to-Frame Jitter Std. Deviation (ms)'] == pytest.approx(0)


def test_jitter_is_that_of_each_camera_and_rates_are_of_all():
    sent_s = {(camera, n): n + camera / 2 for n in range(5) for camera in range(2)}
    received_s = {key: time_s + 0.1 * (1 + key[0]) for key, time_s in sent_s.items()}
    values = figures(sent_s, received_s)
    assert values['Max. Frame-to-Frame Jitter (ms)'] == pytest.approx(0, abs=1e-6)
    assert values[PLAYBACK_RATE] == pytest.approx(2)
    assert values[MISSED] == 0


def test_without_results_there_are_counts_alone():
    assert figures({}, {}) == {SENT: 0, MISSED: 0}
    assert figures({('', 0): 1.0}, {}) == {SENT: 1, MISSED: 1}
    assert figures({('', 0): 1.0}, {('', 0): 1.5})['Max. End-to-End Latency (ms)'] == 500


@pytest.mark.parametrize(
    ('sent', 'missed', 'pace_hz', 'wanted'),
    [
        (100, 4, 10, True),
        (100, 5, 10, False),  # 5 % is not less than 5 %
        (100, 0, 9.6, True),
        (100, 0, 9.4, False),  # a sender that is too slow says nothing of the node
        (2, 1, 10, False),
    ],
)
def test_less_than_5_percent_may_be_missed_at_the_rate_that_was_wanted(
    sent, missed, pace_hz, wanted
):
    assert keeps_up({SENT: sent, MISSED: missed, PLAYBACK_RATE: pace_hz}, 10) == wanted


@pytest.mark.parametrize('peak_hz', [0.6, 3.0, 27.0, 119.0])
def test_the_search_comes_within_5_percent_of_the_peak(peak_hz):
    tried = []

    def try_rate(rate_hz):
        tried.append(rate_hz)
        return rate_hz <= peak_hz

    found = find_peak(try_rate, 0.5, 120)
    assert 0.94 * peak_hz <= found <= peak_hz
    assert len(tried) <= 9


def test_the_search_ends_at_its_limits():
    assert find_peak(lambda rate_hz: True, 0.5, 120) == 120
    assert find_peak(lambda rate_hz: False, 0.5, 120) is None
