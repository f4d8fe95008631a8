from __future__ import annotations

import cv2
import numpy as np
import pytest

from videomt_ros.datasets.recording import MAX_STILLS, Recording, RecordingWriter

PERIOD_NS = 100_000_000
START_NS = 1_700_000_000_000_000_000


def shade(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), (20 + 4 * number, 60, 200), np.uint8)


def red_of_video(recording: Recording) -> list[float]:
    """Mean red of each frame of the video."""
    video = cv2.VideoCapture(str(recording.video))
    means = []
    while (frame := video.read()[1]) is not None:
        means.append(float(frame[..., 2].mean()))
    return means


def test_what_is_written_is_read(tmp_path):
    folder = tmp_path / 'recording'
    writer = RecordingWriter(folder, 10)
    ids = np.array([[0, 1], [300, 65535]], np.uint16)
    for number in range(3):
        stamp_ns = START_NS + number * PERIOD_NS
        writer.add_tracks({'stamp_ns': stamp_ns, 'tracks': []})
        writer.add_ids(stamp_ns, ids)
        writer.add_overlay(stamp_ns, shade(number))
    writer.close()
    recording = Recording(folder)
    assert [r['stamp_ns'] for r in recording.tracks()] == recording.stills()
    np.testing.assert_array_equal(recording.ids(START_NS), ids)
    assert recording.ids(START_NS + 1) is None
    np.testing.assert_array_equal(recording.still(START_NS + PERIOD_NS), shade(1))
    assert cv2.VideoCapture(str(recording.video)).get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    assert red_of_video(recording) == pytest.approx([20, 24, 28], abs=3)


def test_missing_frames_are_shown_as_the_one_before(tmp_path):
    writer = RecordingWriter(tmp_path / 'recording', 10)
    for number in (0, 1, 5, 6):
        jitter_ns = 20_000_000 * (-1) ** number
        writer.add_overlay(START_NS + number * PERIOD_NS + jitter_ns, shade(number))
    writer.close()
    expected = [20 + 4 * number for number in (0, 1, 1, 1, 1, 5, 6)]
    assert red_of_video(Recording(tmp_path / 'recording')) == pytest.approx(expected, abs=3)


@pytest.mark.parametrize('size', [(47, 63), (48, 64)])
def test_odd_sizes_and_a_size_that_changes(tmp_path, size):
    writer = RecordingWriter(tmp_path / 'recording', 29.97)
    writer.add_overlay(START_NS, shade(0, *size))
    writer.add_overlay(START_NS + 33_366_667, shade(1, 100, 50))
    writer.close()
    video = cv2.VideoCapture(str(tmp_path / 'recording' / 'overlay.mp4'))
    frames = [video.read()[1] for _ in range(2)]
    assert all(frame is not None for frame in frames)
    assert frames[0].shape == frames[1].shape


def test_stills_stay_few_and_even(tmp_path):
    writer = RecordingWriter(tmp_path / 'recording', 10)
    for number in range(5 * MAX_STILLS):
        writer.add_overlay(START_NS + number * PERIOD_NS, shade(number % 8, 16, 16))
    writer.close()
    stills = Recording(tmp_path / 'recording').stills()
    assert MAX_STILLS / 2 <= len(stills) <= MAX_STILLS
    assert stills[0] == START_NS and len(set(np.diff(stills))) == 1


def test_nothing_came(tmp_path):
    RecordingWriter(tmp_path / 'recording', 10).close()
    recording = Recording(tmp_path / 'recording')
    assert list(recording.tracks()) == [] and recording.stills() == []
