from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.datasets.mask_png import (
    present_ids,
    read_ids,
    read_mask,
    read_size,
    segments_info,
    write_ids,
    write_mask,
)


def test_an_id_is_red_plus_256_green_plus_65536_blue(tmp_path):
    path = tmp_path / 'ids.png'
    Image.fromarray(np.array([[[0, 0, 0], [1, 2, 3], [255, 255, 255]]], np.uint8)).save(path)
    ids = read_ids(path, (1, 3))
    assert ids.dtype == np.uint32
    assert ids.tolist() == [[0, 1 + 2 * 256 + 3 * 65536, 2**24 - 1]]


def test_a_fourth_channel_is_not_looked_at(tmp_path):
    path = tmp_path / 'ids.png'
    Image.fromarray(np.array([[[7, 1, 0, 0], [7, 1, 0, 255]]], np.uint8)).save(path)
    assert read_ids(path, (1, 2)).tolist() == [[263, 263]]


@pytest.mark.parametrize('dtype', [np.uint32, np.int64, '>u4'])
def test_written_ids_are_read_back(tmp_path, dtype):
    ids = np.random.default_rng(0).integers(0, 2**24, (17, 31)).astype(dtype)
    write_ids(tmp_path / 'new' / 'ids.png', ids)
    assert (read_ids(tmp_path / 'new' / 'ids.png', (17, 31)) == ids).all()


def test_ids_read_back_are_those_of_plain_arithmetic(tmp_path):
    rgb = np.random.default_rng(1).integers(0, 256, (9, 14, 3)).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / 'ids.png')
    red, green, blue = np.moveaxis(rgb.astype(np.uint32), -1, 0)
    plain = red + 256 * green + 65536 * blue
    assert (read_ids(tmp_path / 'ids.png', (9, 14)) == plain).all()


def test_a_palette_gives_indices_not_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [124, 255]], np.uint8)).convert('P')
    image.putpalette([value for index in range(256) for value in (255 - index, 7, 9)])
    indices = np.array(image)
    image.save(tmp_path / 'mask.png')
    assert Image.open(tmp_path / 'mask.png').mode == 'P'
    assert (read_mask(tmp_path / 'mask.png', (2, 2)) == indices).all()


def test_a_written_mask_is_read_back(tmp_path):
    mask = np.arange(256).reshape(8, 32)
    write_mask(tmp_path / 'mask.png', mask)
    assert Image.open(tmp_path / 'mask.png').mode == 'L'
    back = read_mask(tmp_path / 'mask.png', (8, 32))
    assert back.dtype == np.uint8
    assert (back == mask).all()


def test_the_size_is_height_and_width(tmp_path):
    write_mask(tmp_path / 'mask.png', np.zeros((3, 5), np.uint8))
    assert read_size(tmp_path / 'mask.png') == (3, 5)


@pytest.mark.parametrize('mode', ['L', 'P', 'I;16', '1', 'LA'])
def test_ids_in_a_wrong_mode_are_named(tmp_path, mode):
    Image.new(mode, (4, 2)).save(tmp_path / 'ids.png')
    with pytest.raises(DatasetError, match=rf'ids\.png: .*mode RGB.* of mode {mode}'):
        read_ids(tmp_path / 'ids.png', (2, 4))


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'I;16', '1', 'LA'])
def test_a_mask_in_a_wrong_mode_is_named(tmp_path, mode):
    Image.new(mode, (4, 2)).save(tmp_path / 'mask.png')
    with pytest.raises(DatasetError, match=rf'mask\.png: .*mode L or P.* of mode {mode}'):
        read_mask(tmp_path / 'mask.png', (2, 4))


def test_wrong_size_and_wrong_mode_come_in_one_error(tmp_path):
    Image.new('L', (4, 2)).save(tmp_path / 'ids.png')
    with pytest.raises(DatasetError) as error:
        read_ids(tmp_path / 'ids.png', (4, 2))
    assert len(error.value.faults) == 2
    assert 'Expected 2 x 4 pixels (width x height), got 4 x 2' in str(error.value)


def test_a_png_that_is_cut_off_anywhere_is_named(tmp_path):
    write_ids(tmp_path / 'ids.png', np.random.default_rng(2).integers(0, 2**24, (40, 40)))
    data = (tmp_path / 'ids.png').read_bytes()
    # What comes after the last pixels are sums and the end mark: those may be missing.
    for length in [*range(0, len(data) - 32, 97), len(data) - 32]:
        (tmp_path / 'cut.png').write_bytes(data[:length])
        with pytest.raises(DatasetError, match=r'cut\.png'):
            read_ids(tmp_path / 'cut.png', (40, 40))


def test_damaged_bytes_never_end_in_another_error(tmp_path):
    write_mask(tmp_path / 'mask.png', np.arange(64).reshape(8, 8))
    data = (tmp_path / 'mask.png').read_bytes()
    rng = np.random.default_rng(3)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= int(rng.integers(1, 256))
        (tmp_path / 'bad.png').write_bytes(damaged)
        for read in (read_mask, read_ids):
            try:
                assert read(tmp_path / 'bad.png', (8, 8)).shape == (8, 8)
            except DatasetError as error:
                assert 'bad.png' in str(error)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for read in (read_ids, read_mask):
        with pytest.raises(DatasetError, match=r'none\.png: .*no such file'):
            read(tmp_path / 'none.png', (1, 1))
        with pytest.raises(DatasetError, match='got a folder'):
            read(tmp_path, (1, 1))
    with pytest.raises(DatasetError, match=r'none\.png'):
        read_size(tmp_path / 'none.png')


@pytest.mark.parametrize(
    'ids',
    [
        np.zeros((2, 2, 3), np.uint8),
        np.zeros((2, 2), np.float32),
        np.zeros((0, 2), np.uint8),
        np.full((2, 2), 2**24),
        np.full((2, 2), -1),
    ],
)
def test_ids_that_no_png_holds_are_refused(tmp_path, ids):
    with pytest.raises(ValueError, match='Expected ids'):
        write_ids(tmp_path / 'ids.png', ids)
    assert os.listdir(tmp_path) == []


def test_a_mask_above_255_is_refused(tmp_path):
    with pytest.raises(ValueError, match='from 0 to 255, got 0 to 256'):
        write_mask(tmp_path / 'mask.png', np.array([[0, 256]]))


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    write_mask(tmp_path / 'mask.png', np.full((2, 2), 5, np.uint8))

    def fail(image, file, *args, **kwargs):
        file.write(b'half of it')
        raise OSError('No space left on device')

    monkeypatch.setattr(Image.Image, 'save', fail)
    with pytest.raises(OSError, match='No space'):
        write_mask(tmp_path / 'mask.png', np.full((2, 2), 6, np.uint8))
    assert os.listdir(tmp_path) == ['mask.png']
    assert (read_mask(tmp_path / 'mask.png', (2, 2)) == 5).all()


@pytest.mark.parametrize('high', [1, 2, 5, 2**24])
def test_present_ids_are_the_distinct_values(high):
    rng = np.random.default_rng(high)
    for shape in [(1, 1), (1, 9), (9, 1), (13, 8)]:
        ids = rng.integers(0, high, shape).astype(np.uint32)
        assert present_ids(ids).tolist() == sorted(set(ids.ravel().tolist()))


def test_segments_info_counts_pixels_and_bounds():
    ids = np.array([[0, 9, 9, 0], [0, 9, 0, 0], [4, 0, 0, 4]], np.uint16)
    entries = segments_info(ids, {9: 60, 8: 1, 4: 123})
    assert entries == [
        {'id': 9, 'category_id': 60, 'iscrowd': 0, 'area': 3, 'bbox': [1, 0, 2, 2]},
        {'id': 4, 'category_id': 123, 'iscrowd': 0, 'area': 2, 'bbox': [0, 2, 4, 1]},
    ]


def test_segments_info_of_void_is_empty_and_an_id_without_category_is_refused():
    assert segments_info(np.zeros((2, 2), np.uint32), {3: 1}) == []
    with pytest.raises(ValueError, match=r'got none for \[5\]'):
        segments_info(np.array([[5, 3]]), {3: 1})
