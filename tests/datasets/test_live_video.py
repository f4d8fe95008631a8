"""Streams of a real server on this machine, and cameras, which the test's machine may lack."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.datasets.test_video import write_video
from tests.datasets.video_server import serve_videos
from videomt_ros.datasets import live_video
from videomt_ros.datasets.live_video import Stream, Webcam
from videomt_ros.datasets.opening import open_source
from videomt_ros.datasets.video import VideoError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    write_video(tmp_path / 'clip.mp4', 10)
    (tmp_path / 'notes.txt').write_text('no video')
    with serve_videos(tmp_path) as url:
        yield url


def test_a_file_on_a_web_server_is_played_by_its_own_times(server):
    source = open_source(f'{server}/clip.mp4')
    assert isinstance(source, Stream) and not source.is_endless
    assert (source.num_frames, source.fps) == (10, pytest.approx(12.5))
    frames = list(source.frames())
    assert [frame.time_ns for frame in frames] == [i * 80_000_000 for i in range(10)]
    expected = (40 + 8 * 9, 30, 200 - 8 * 9)
    assert np.abs(frames[9].image.mean(axis=(0, 1)) - expected).max() < 8
    assert source.notes == []
    assert source.description == f'video {server}/clip.mp4, 12.5 frames a second'


def test_a_stream_is_taken_as_it_comes_and_its_end_is_told(server):
    source = open_source(f'{server}/camera')
    assert source.is_endless and source.num_frames is None
    times = [frame.time_ns for frame in source.frames()]
    assert len(times) == 12 and times == sorted(times)
    assert source.notes == [f'{server}/camera ended after 12 images.']


def test_a_stream_that_stalls_is_over_after_a_while(server, monkeypatch, capfd):
    monkeypatch.setattr(live_video, 'TIMEOUT_S', 3.0)
    source = open_source(f'{server}/stalls')
    assert 10 <= len(list(source.frames())) <= 12  # FFmpeg holds the last ones back
    (note,) = source.notes
    assert 'gave no image for' in note and 'taken to be over' in note
    assert capfd.readouterr() == ('', '')


def test_a_server_that_says_nothing_is_given_up(server, monkeypatch, capfd):
    monkeypatch.setattr(live_video, 'TIMEOUT_S', 0.5)
    with pytest.raises(VideoError, match=r'no image came within .* s\. Is the sender on'):
        open_source(f'{server}/silent')
    with socket.socket() as camera:  # it accepts connections, and answers none
        camera.bind(('127.0.0.1', 0))
        camera.listen()
        with pytest.raises(VideoError, match='no image came within'):
            open_source(f'rtsp://127.0.0.1:{camera.getsockname()[1]}/stream')
    with pytest.raises(VideoError, match='no image came within'):
        open_source('udp://127.0.0.1:0')
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize(
    ('path', 'reason'),
    [
        ('/nothing.mp4', 'the server answers 404'),
        ('/notes.txt', 'OpenCV finds none there. Are path, user and password right'),
    ],
)
def test_a_wrong_path_on_a_server_is_told(server, path, reason):
    with pytest.raises(VideoError) as caught:
        open_source(server + path)
    assert f'{server}{path}, but {reason}' in str(caught.value)


@pytest.mark.parametrize('scheme', ['rtsp', 'http'])
def test_a_server_that_is_off_is_told_without_the_password(scheme):
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{taken.getsockname()[1]}'
        with pytest.raises(VideoError) as caught:
            open_source(f'{scheme}://me:secret@{address}/stream')
    text = str(caught.value)
    assert f'{address} cannot be reached (Connection refused)' in text
    assert f'{scheme}://me:***@{address}/stream' in text and 'secret' not in text


@pytest.mark.parametrize('name', ['foo://camera/1', 'http://127.0.0.1:port/x', 'rtsp://'])
def test_what_is_no_url_that_opencv_knows_is_told(name):
    with pytest.raises(VideoError, match='Expected a video at'):
        open_source(name)


@pytest.mark.skipif(
    cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER), reason='this OpenCV has GStreamer'
)
def test_a_pipeline_without_gstreamer_is_told():
    with pytest.raises(VideoError, match='built without GStreamer.*URL'):
        open_source('videotestsrc num-buffers=3 ! videoconvert ! appsink')


@pytest.mark.parametrize(
    ('name', 'device'),
    [
        ('97', '/dev/video97'),
        ('/dev/video98', '/dev/video98'),
        ('99999999999', '/dev/video99999999999'),
    ],
)
def test_missing_webcam(name, device, capfd):
    with pytest.raises(VideoError, match=rf'webcam .*{name}, but .* There is no {device}; this'):
        open_source(name)
    assert capfd.readouterr() == ('', '')


def test_a_device_that_is_no_camera(capfd):
    with pytest.raises(VideoError, match='webcam at /dev/null, but OpenCV gets no image from it'):
        open_source('/dev/null')
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize('name', ['0', '/dev/video0'])
def test_webcam_that_is_unplugged(tmp_path, monkeypatch, name):
    """A file stands in for the camera, which the test's machine may lack."""
    path = str(write_video(tmp_path / 'clip.avi', 5, code='MJPG'))
    open_file = cv2.VideoCapture
    asked = []

    def open_camera(source, *_):
        asked.append(source)
        return open_file(path)

    monkeypatch.setattr(cv2, 'VideoCapture', open_camera)
    source = open_source(name)
    assert isinstance(source, Webcam)
    assert source.is_endless and source.num_frames is None and source.fps == pytest.approx(12.5)
    times = [frame.time_ns for frame in source.frames()]
    assert len(times) == 5 and times == sorted(times)
    assert source.notes == [f'Webcam {name} stopped giving images.']
    assert asked == [int(name) if name == '0' else name] * 2
