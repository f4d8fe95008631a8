from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.datasets.test_video import write_video
from videomt_ros.datasets.image_files import ImageFiles
from videomt_ros.datasets.opening import open_source
from videomt_ros.datasets.video import VideoError


def write_images(folder: Path, names: list[str]) -> Path:
    """Write images whose red is 10 times their place in the list."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), np.full((24, 32, 3), (0, 0, 10 * number), np.uint8))
    return folder


def reds(source: ImageFiles) -> list[int]:
    """The red of each image that a source gives, to the nearest ten."""
    return [round(float(frame.image[..., 0].mean()), -1) for frame in source.frames()]


NAMES = ['frame2.png', 'frame9.jpg', 'frame10.bmp', 'frame11.PNG', 'frame100.webp']


def test_a_folder_is_played_in_the_order_of_its_numbers(tmp_path):
    folder = write_images(tmp_path / 'frames', NAMES)
    (folder / '.hidden.png').write_bytes(b'')
    (folder / 'notes.txt').write_text('of no interest')
    source = open_source(str(folder))
    assert isinstance(source, ImageFiles) and not source.is_endless
    assert (source.num_frames, source.fps) == (5, 10)
    assert reds(source) == [0, 10, 20, 30, 40]
    assert [frame.time_ns for frame in source.frames()] == [i * 100_000_000 for i in range(5)]
    assert [frame.stamp_ns for frame in source.frames()] == [None] * 5
    assert source.notes == []
    assert source.description.startswith(f'folder {folder}, 5 images, 10 a second')


def test_names_that_are_stamps_give_the_times(tmp_path):
    start = 1_700_000_000_000_000_000
    stamps = [start, start + 50_000_000, start + 200_000_000]
    source = open_source(str(write_images(tmp_path / 'a', [f'{stamp}.png' for stamp in stamps])))
    assert [(frame.time_ns, frame.stamp_ns) for frame in source.frames()] == [
        (stamp, stamp) for stamp in stamps
    ]
    assert source.fps == pytest.approx(10)


@pytest.mark.parametrize(
    ('pattern', 'expected'),
    [
        ('*.png', [0]),
        ('frame*', [0, 10, 20, 30, 40]),
        ('frame1*', [20, 30, 40]),
        ('frame[29].*', [0, 10]),
        ('frame%d.png', [0]),
        ('frame%02d.bmp', [20]),
        ('fra%se%d.jpg', []),
    ],
)
def test_a_pattern_stands_for_files(tmp_path, pattern, expected):
    write_images(tmp_path, NAMES)
    if not expected:
        with pytest.raises(VideoError, match='but it stands for no file'):
            open_source(str(tmp_path / pattern))
        return
    assert reds(open_source(str(tmp_path / pattern))) == expected


def test_a_pattern_may_stand_for_one_other_source(tmp_path):
    write_video(tmp_path / 'a.mp4', 3)
    assert open_source(f'{tmp_path}/*.mp4').num_frames == 3
    write_video(tmp_path / 'b.mp4', 3)
    with pytest.raises(VideoError, match='the 2 files .*a.mp4, .*b.mp4'):
        open_source(f'{tmp_path}/*.mp4')


def test_a_name_with_the_signs_of_a_pattern_is_a_file_first(tmp_path):
    write_images(tmp_path, ['a[1].png', 'b%d.png'])
    assert reds(open_source(f'{tmp_path}/a[1].png')) == [0]
    assert reds(open_source(f'{tmp_path}/b%d.png')) == [10]


def test_a_single_image_is_not_taken_for_a_numbered_video(tmp_path):
    write_images(tmp_path, ['frame_00.png', 'frame_01.png'])
    source = open_source(f'file://{tmp_path}/frame_00.png')
    assert source.num_frames == 1 and reds(source) == [0]
    assert source.description == f'image {tmp_path}/frame_00.png'


def test_damaged_images_are_left_out_and_told(tmp_path):
    folder = write_images(tmp_path / 'frames', ['0.png', '1.png', '2.png', '3.png'])
    (folder / '0.png').write_bytes(b'')
    (folder / '2.png').write_text('some text')
    source = open_source(str(folder))
    assert [frame.time_ns for frame in source.frames()] == [100_000_000, 300_000_000]
    (note,) = source.notes
    assert note.startswith('2 of 4 images could not be read') and '0.png' in note


def test_a_folder_without_one_good_image(tmp_path):
    folder = tmp_path / 'frames'
    folder.mkdir()
    for name in ('0.png', '1.png'):
        (folder / name).write_bytes(b'no image')
    with pytest.raises(VideoError, match=r'0\.png: .*So is the other file'):
        open_source(str(folder))
    (folder / '1.png').unlink()
    with pytest.raises(VideoError, match=r'0\.png: Expected a JPEG or PNG image, got 8 bytes'):
        open_source(str(folder / '0.png'))


def test_folders_without_images(tmp_path):
    with pytest.raises(VideoError, match='it is empty'):
        open_source(str(tmp_path))
    write_video(tmp_path / 'clip.mp4', 2)
    write_images(tmp_path / 'left', ['0.png'])
    with pytest.raises(
        VideoError, match=r'it holds the folders left and the files clip.mp4. Name one of them'
    ):
        open_source(str(tmp_path))


def test_a_folder_may_be_named_by_a_number(tmp_path, monkeypatch):
    write_images(tmp_path / '97', ['0.png'])
    monkeypatch.chdir(tmp_path)
    assert open_source('97').description == 'image folder 97'


@pytest.mark.parametrize('name', ['', ' '])
def test_an_empty_name_is_told_with_what_may_be_given(name):
    with pytest.raises(VideoError, match='folder of images.*URL.*got an empty name'):
        open_source(name)


def test_what_is_not_there_is_told_with_what_may_be_given(tmp_path):
    with pytest.raises(VideoError, match='folder of images.*URL.*but there is no .*gone'):
        open_source(str(tmp_path / 'gone'))


def test_an_orientation_and_a_dark_grey_are_remarked(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new('RGB', (32, 24)).save(tmp_path / 'photo.jpg', exif=exif)
    cv2.imwrite(str(tmp_path / 'thermal.png'), np.full((24, 32), 900, np.uint16))
    for name, told in (('photo.jpg', 'EXIF orientation (6)'), ('thermal.png', 'from 900 to 900')):
        source = open_source(str(tmp_path / name))
        (frame,) = source.frames()
        assert frame.image.shape == (24, 32, 3) and frame.image.dtype == np.uint8
        (note,) = source.notes
        assert name in note and told in note
