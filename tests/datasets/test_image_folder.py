from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.datasets.image_folder import (
    ImageFolderVideo,
    find_files,
    is_plain_name,
    regular_stamps,
    remarks_on_images,
    stamps_of_names,
)


def video(*paths, size=(3, 4)) -> ImageFolderVideo:
    names = tuple(path.name for path in paths)
    return ImageFolderVideo(1, 'v', size, names, paths, regular_stamps(len(paths), 10))


def test_images_are_rgb_whatever_their_mode(tmp_path):
    colour = (200, 90, 40)
    Image.new('RGB', (4, 3), colour).save(tmp_path / 'a.png')
    Image.new('RGBA', (4, 3), (*colour, 9)).save(tmp_path / 'b.png')
    Image.new('L', (4, 3), 77).save(tmp_path / 'c.jpg', quality=100)
    frames = list(video(*find_files(tmp_path).values()).frames())
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.stamp_ns for frame in frames] == [0, 100_000_000, 200_000_000]
    for frame, expected in zip(frames, (colour, colour, (77, 77, 77)), strict=True):
        assert frame.image.dtype == np.uint8
        assert frame.image.shape == (3, 4, 3)
        assert (frame.image == expected).all()


def test_sixteen_bits(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (3, 4, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / 'a.png'), deep)  # BGR
    cv2.imwrite(str(tmp_path / 'b.png'), deep[..., 0])
    colour, grey = (frame.image for frame in video(*find_files(tmp_path).values()).frames())
    np.testing.assert_array_equal(colour, deep[..., ::-1] // 256)
    np.testing.assert_array_equal(grey, deep[..., [0, 0, 0]] // 256)


def test_a_turn_noted_in_the_file_is_left_aside(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new('RGB', (4, 3)).save(tmp_path / 'a.jpg', exif=exif)
    assert next(video(tmp_path / 'a.jpg').frames()).image.shape == (3, 4, 3)


def test_a_turn_noted_in_the_file_is_remarked_on(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (3, 4)).save(tmp_path / 'a.jpg', exif=exif)
    Image.new('RGB', (4, 3)).save(tmp_path / 'b.jpg')
    with pytest.raises(DatasetError, match=r'got 3 x 4. Its EXIF orientation \(6\) is ignored'):
        next(video(tmp_path / 'a.jpg').frames())
    videos = [video(tmp_path / name) for name in ('none.jpg', 'b.jpg', 'a.jpg')]
    (remark,) = remarks_on_images([object(), *videos])
    assert 'a.jpg has an EXIF orientation (6), which is ignored' in remark
    assert remarks_on_images(videos[:2]) == []


def test_a_range_of_grey_values(tmp_path):
    grey = np.arange(12, dtype=np.uint16).reshape(3, 4) * 93
    cv2.imwrite(str(tmp_path / 'a.png'), grey)
    dark = video(tmp_path / 'a.png')
    bright = dark.with_grey_range((0, 1023))
    assert next(dark.frames()).image.max() == 3
    assert next(bright.frames()).image.max() == 255
    (remark,) = remarks_on_images([dark])
    assert 'values from 0 to 1023 of 65535' in remark and '--grey-high 1023' in remark
    assert remarks_on_images([bright]) == []


def test_an_image_that_is_missing_cut_off_or_none_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / 'cut.jpg')
    data = (tmp_path / 'cut.jpg').read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(data[:-6])
    (tmp_path / 'text.jpg').write_text('no image')
    (tmp_path / 'empty.jpg').touch()
    for name in ('none.jpg', 'cut.jpg', 'text.jpg', 'empty.jpg'):
        with pytest.raises(DatasetError, match=name):
            next(video(tmp_path / name).frames())


def test_files_come_by_name_and_only_those_of_a_kind(tmp_path):
    for name in ('00010.jpg', '00002.JPG', '00001.png', '._00001.png', 'list.txt', '.DS_Store'):
        (tmp_path / name).touch()
    assert list(find_files(tmp_path)) == ['00001', '00002', '00010']
    assert list(find_files(tmp_path, ('.png',))) == ['00001']
    assert find_files(tmp_path / 'none') == {}


def test_regular_stamps_do_not_drift():
    assert regular_stamps(0, 15) == ()
    assert regular_stamps(4, 15) == (0, 66_666_667, 133_333_333, 200_000_000)


@pytest.mark.parametrize(
    ('names', 'stamps'),
    [
        ((), None),
        (('1000000000000000.png',), (10**15,)),
        (('999999999999999.png',), None),
        (('v/1700000000000000.jpg', 'v/1700000000000001.jpg'), (17 * 10**14, 17 * 10**14 + 1)),
        (('1700000000000000001.jpg', '1700000000000000000.jpg'), None),
        (('1700000000000000000.jpg', '1700000000000000000.png'), None),
        (('1700000000000000000.jpg', 'frame_1700000000000000001.jpg'), None),
        (('00000001.png', '00000002.png'), None),
        (('-1700000000000000000.png',), None),
        (('\u0661' * 16 + '.png',), None),
    ],
)
def test_names_are_stamps_only_if_all_are_rising_nanoseconds(names, stamps):
    assert stamps_of_names(names) == stamps


@pytest.mark.parametrize('name', ['a', '127_-aB.x', '...', '00001.png', 'with space'])
def test_a_name_of_a_folder_is_plain(name):
    assert is_plain_name(name)


@pytest.mark.parametrize('name', ['', '.', '..', 'a/b', '/a', '..\\a', 'a\0', 5, None])
def test_a_name_that_leads_elsewhere_is_not(name):
    assert not is_plain_name(name)
