from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from videomt_ros.datasets.opening import SyntheticSource, open_source
from videomt_ros.datasets.synthetic.scene import Scene
from videomt_ros.datasets.video import VideoError, VideoFile


def write_video(path: Path, count: int, fps: float = 12.5, code: str = 'mp4v') -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), fps, (64, 48))
    assert writer.isOpened()
    for number in range(count):
        # Red grows, blue falls: the order of colours shows.
        colour = (200 - 8 * number, 30, 40 + 8 * number)
        writer.write(np.full((48, 64, 3), colour, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(('name', 'code'), [('clip.mp4', 'mp4v'), ('clip.avi', 'MJPG')])
def test_frames_and_times(tmp_path, name, code):
    source = open_source(str(write_video(tmp_path / name, 10, code=code)))
    assert isinstance(source, VideoFile)
    assert source.fps == pytest.approx(12.5) and source.num_frames == 10
    frames = list(source.frames())
    assert [frame.time_ns for frame in frames] == [i * 80_000_000 for i in range(10)]
    for number, frame in enumerate(frames):
        assert frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8
        expected = (40 + 8 * number, 30, 200 - 8 * number)
        assert np.abs(frame.image.mean(axis=(0, 1)) - expected).max() < 8
    assert source.notes == []


def test_frames_can_be_read_again(tmp_path):
    source = VideoFile(write_video(tmp_path / 'clip.mp4', 3))
    assert len(list(source.frames())) == len(list(source.frames())) == 3


def test_missing_file(tmp_path):
    with pytest.raises(VideoError, match=r'there is no .*clip\.mp4'):
        open_source(str(tmp_path / 'clip.mp4'))


@pytest.mark.parametrize('content', [b'', b'some text\n'])
def test_file_that_is_no_video(tmp_path, content, capfd):
    path = tmp_path / 'clip.mp4'
    path.write_bytes(content)
    with pytest.raises(VideoError, match=rf'no video in .*clip\.mp4 \({len(content)} bytes\)'):
        open_source(str(path))
    assert capfd.readouterr() == ('', '')  # OpenCV and FFmpeg keep quiet


def test_video_without_frames(tmp_path):
    path = tmp_path / 'clip.avi'
    write_video(path, 0, code='MJPG')
    with pytest.raises(VideoError, match=r'clip\.avi'):
        open_source(str(path))


def test_video_without_its_end(tmp_path):
    """An mp4 file has its index at the end; without it nothing can be read."""
    path = write_video(tmp_path / 'clip.mp4', 20)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(VideoError, match='no video in'):
        open_source(str(path))


def test_video_that_was_cut_off_is_read_up_to_the_cut(tmp_path):
    path = write_video(tmp_path / 'clip.avi', 40, code='MJPG')
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = VideoFile(path)
    count = len(list(source.frames()))
    assert 0 < count < 40
    if source.num_frames == 40:
        assert f'announces 40 frames, but {count} could be read' in source.notes[0]


def test_synthetic_source_plays_the_scene():
    source = open_source('synthetic', seed=5, num_frames=4)
    assert isinstance(source, SyntheticSource)
    frames = list(source.frames())
    scene = Scene(5, num_frames=4)
    assert [frame.time_ns for frame in frames] == [0, 100_000_000, 200_000_000, 300_000_000]
    np.testing.assert_array_equal(frames[3].image, scene.frame(3)[0])
    assert source.description == 'synthetic scene 5, 480 x 384 pixels, 10 frames a second'


def test_synthetic_source_with_stuff():
    source = open_source('synthetic', seed=5, num_frames=2, stuff=True)
    scene = Scene(5, num_frames=2, stuff=True)
    np.testing.assert_array_equal(list(source.frames())[1].image, scene.frame(1)[0])
    assert source.description.startswith('synthetic scene 5 with sky, ground and walls, 480 x 384')
