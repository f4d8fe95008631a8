from __future__ import annotations

from array import array

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from videomt_ros.datasets.rle import (
    convert,
    decode,
    encode,
    inspect,
    pack_runs,
    rle_to_json,
    to_rle,
)
from videomt_ros.datasets.rle_strings import count_pixels

# Column by column: 0 1 | 1 0 | 0 0, so the runs are 1, 2, 3.
CORNER = np.array([[0, 1, 0], [1, 0, 0]], bool)


def random_mask(rng: np.random.Generator) -> np.ndarray:
    height, width = rng.integers(1, 70, 2)
    if rng.random() < 0.5:
        return rng.random((height, width)) < rng.choice([0, 0.02, 0.5, 1])
    mask = np.zeros((height, width), bool)
    top, left = rng.integers(0, height), rng.integers(0, width)
    mask[top : top + 40, left : left + 40] = True
    return mask


def runs_by_hand(mask: np.ndarray) -> list[int]:
    """Runs of a mask, found pixel by pixel."""
    runs, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def damaged(string: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(string)
    match rng.integers(3):
        case 0:
            data = data[: rng.integers(len(data))]
        case 1:
            data[rng.integers(len(data))] = rng.integers(30, 127)
        case 2:
            data.insert(rng.integers(len(data) + 1), rng.integers(48, 112))
    return bytes(data)


def runs_of_string(string: bytes) -> list[int] | None:
    """The runs of an RLE string, read character by character; None if it is none."""
    runs: list[int] = []
    value = place = 0
    for character in string:
        bits = character - 48
        if not 0 <= bits < 64 or place > 6:
            return None
        value |= (bits & 31) << (5 * place)
        place += 1
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << (5 * place)
        if len(runs) > 2:
            value += runs[-2]
        runs.append(value)
        value = place = 0
    return None if place or not runs or min(runs) < 0 else runs


@pytest.mark.parametrize('nothing', [None, [], [[]], [[], []], [[1, 2]], [[0, 0, 4, 4], []]])
def test_nothing_is_no_code(nothing):
    assert to_rle(nothing, 2, 3) is None


@pytest.mark.parametrize(
    'counts',
    [[1, 2, 3], array('I', [1, 2, 3]), '123', b'123'],
    ids=['list', 'packed', 'text', 'bytes'],
)
def test_every_way_to_write_a_mask_gives_its_pixels(counts):
    rle = to_rle({'size': [2, 3], 'counts': counts}, 2, 3)
    assert rle == {'size': [2, 3], 'counts': b'123'}
    assert (decode(rle) == CORNER).all()


def test_encode_is_the_inverse_of_decode_and_json_holds_text():
    rle = encode(CORNER)
    assert rle == {'size': [2, 3], 'counts': b'123'}
    assert (decode(rle) == CORNER).all()
    assert rle_to_json(rle) == {'size': [2, 3], 'counts': '123'}


def test_polygons_stand_for_their_union():
    left, right = [0, 0, 2, 0, 2, 4, 0, 4], [1, 1, 5, 1, 5, 3, 1, 3]
    both = decode(to_rle([left, right], 4, 6))
    assert (both == (decode(to_rle([left], 4, 6)) | decode(to_rle([right], 4, 6)))).all()
    # Rows 0 to 3 of columns 0 and 1, and rows 1 and 2 of columns 2 to 4.
    assert both.sum() == 4 * 2 + 2 * 3


@pytest.mark.parametrize(
    ('counts', 'joined'),
    [
        ([2, 0, 0, 3, 1], b'231'),  # 2 of background, and 3 of the object
        ([0, 0, 2, 4], b'24'),
        ([2, 1, 0, 2, 1], b'231'),
        ([0, 6], b'06'),
        ([0, 3, 0, 3], b'06'),
        ([6, 0], b'6'),
        ([0, 0, 6], b'6'),
        ([2.0, 3.0, 1.0], b'231'),
        ([0, 0, 0, 6], b'06'),
    ],
)
@pytest.mark.parametrize('is_string', [False, True])
def test_empty_runs_are_left_out_and_their_neighbours_joined(counts, joined, is_string):
    code = {'size': [2, 3], 'counts': counts}
    if is_string:  # pycocotools keeps empty runs in the string
        code = rle_to_json(coco_mask.frPyObjects(code, 2, 3))
    rle = to_rle(code, 2, 3)
    # An empty run at the end does no harm.
    assert rle == {'size': [2, 3], 'counts': b'60' if is_string and counts == [6, 0] else joined}
    inspection = inspect([code], 2, 3)
    if is_string:
        assert inspection.pixels.tolist() == [sum(counts[1::2])]
    assert convert(inspection.segmentations[0], 2, 3) == rle
    is_object = np.repeat(np.arange(len(counts)) % 2, np.array(counts, int))
    assert decode(rle).ravel('F').tolist() == is_object.tolist()
    # pycocotools stops where both codes have an empty run, and finds nothing in common.
    assert coco_mask.iou([rle], [rle], [0])[0, 0] == is_object.any()


def test_codes_agree_with_pycocotools_on_random_masks():
    rng = np.random.default_rng(0)
    for _ in range(200):
        mask = random_mask(rng)
        height, width = mask.shape
        compressed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        for counts in (runs_by_hand(mask), compressed['counts'].decode()):
            rle = to_rle({'size': [height, width], 'counts': counts}, height, width)
            assert rle == compressed
        assert (decode(compressed) == mask).all()


def test_pixels_of_many_strings_at_once_are_those_of_each():
    rng = np.random.default_rng(1)
    masks = [random_mask(rng) for _ in range(300)]
    strings = [encode(mask)['counts'] for mask in masks]
    assert count_pixels(strings).sums == [mask.size for mask in masks]


def test_the_check_of_a_track_counts_the_pixels_of_its_masks():
    rng = np.random.default_rng(3)
    for fill in (0.02, 0.5, 0.98):
        masks = [rng.random((30, 40)) < fill for _ in range(9)]
        masks[4:6] = np.zeros((30, 40), bool), np.ones((30, 40), bool)
        track = [{'size': [30, 40], 'counts': encode(mask)['counts'].decode()} for mask in masks]
        faults, areas, segmentations, _ = inspect([None, *track, []], 30, 40)
        assert (faults, segmentations) == ([], [None, *track, []])
        assert areas.tolist() == [0, *(mask.sum() for mask in masks), 0]
        # Only strings are counted, and only where all of them are sound.
        for counts in ([1200], '1'):
            assert inspect([*track, {'size': [30, 40], 'counts': counts}], 30, 40).pixels is None


def test_masks_of_more_pixels_than_a_quick_check_counts():
    side = 40_000
    half = side * side // 2
    rle = to_rle({'size': [side, side], 'counts': [half, half]}, side, side)
    faults, areas, *_ = inspect([rle], side, side)
    assert (faults, areas.tolist()) == ([], [half])


def test_damaged_strings_are_found_among_sound_ones():
    rng = np.random.default_rng(2)
    strings = [encode(random_mask(rng))['counts'] for _ in range(600)]
    strings = [damaged(string, rng) if rng.random() < 0.5 else string for string in strings]
    expected = []
    for string in strings:
        runs = runs_of_string(string)
        expected.append(-1 if runs is None else sum(runs))
    assert expected.count(-1) > 50
    assert count_pixels(strings).sums == expected
    # A few at a time, most of these have no damaged one.
    assert [n for k in range(0, 600, 2) for n in count_pixels(strings[k : k + 2]).sums] == expected


@pytest.mark.parametrize('strings', [[], [b''], [b'', b'6', b''], [b'6', b''], [b'', b'']])
def test_empty_strings_are_no_codes(strings):
    assert count_pixels(strings).sums == [6 if string else -1 for string in strings]


@pytest.mark.parametrize(
    ('segmentation', 'words'),
    [
        (5, 'expected null, RLE or polygons, got 5'),
        ({}, 'expected an RLE of size and counts'),
        ({'size': [2, 3]}, 'expected an RLE of size and counts'),
        ({'size': [3, 2], 'counts': [6]}, r'size \[2, 3\], got \[3, 2\]'),
        ({'size': [2, 3], 'counts': [1, 2]}, 'make 3 pixels, expected 2 x 3 = 6'),
        ({'size': [2, 3], 'counts': []}, 'make 0 pixels'),
        ({'size': [2, 3], 'counts': [-1, 7]}, r'runs of 0 or more, got \[-1, 7\]'),
        ({'size': [2, 3], 'counts': [1.5, 4.5]}, 'runs of 0 or more'),
        ({'size': [2, 3], 'counts': None}, 'runs of 0 or more, got None'),
        ({'size': [2, 3], 'counts': '12'}, 'make 3 pixels'),
        ({'size': [2, 3], 'counts': '12n'}, "string '12n' is damaged"),  # ends within a number
        ({'size': [2, 3], 'counts': 'VPPPPPPPP0'}, 'is damaged'),  # 6, in ten characters
        ({'size': [2, 3], 'counts': '12~'}, "string '12~' is damaged"),
        ({'size': [2, 3], 'counts': '12é'}, "string '12é' is damaged"),
        ({'size': [2, 3], 'counts': b'12\xff'}, 'is damaged'),
        ({'size': [2, 3], 'counts': ''}, 'is damaged'),
        ({'size': [2, 3], 'counts': '7O'}, 'is damaged'),  # runs of 7 and of -1
        ([[0, 0, 4, 4, 1]], r'three points or more, got \[0, 0, 4, 4, 1\] as polygon 1'),
        ([[[0, 0], [4, 4], [0, 4]]], 'as polygon 1'),
        ([[0, 0, 4, 0, 4, 4], [0, 0, 4, 0, 4, 4, 1]], 'as polygon 2'),
        ([[0, 0, 4, 0, 4, float('nan')]], 'as polygon 1'),
        ([[0, 0, 4, 0, 4, 1e9]], 'as polygon 1'),
        ([[0, 0, 4, 0, 4, '4']], 'as polygon 1'),
        ([0, 0, 4, 0, 4], 'as polygon 1'),
        ([[0, 0, float('inf'), 4]], 'as polygon 1'),
    ],
)
def test_a_bad_segmentation_says_what_was_expected(segmentation, words):
    with pytest.raises(ValueError, match=words):
        to_rle(segmentation, 2, 3)


def test_faults_of_a_track_name_their_frames_in_order():
    good = {'size': [2, 3], 'counts': '123'}
    track = [{**good, 'counts': '12'}, None, good, 5, {**good, 'counts': '~'}]
    assert [frame for frame, _ in inspect(track, 2, 3).faults] == [0, 3, 4]


def test_long_values_are_cut_in_messages():
    ((_, fault),) = inspect([{'size': [2, 3], 'counts': '~' * 10_000}], 2, 3).faults
    assert len(fault) < 200


def test_packed_runs_are_the_same_and_what_is_not_runs_stays():
    record = pack_runs({'size': [2, 3], 'counts': [1, 2, 3]})
    assert isinstance(record['counts'], array)
    assert convert(record, 2, 3) == {'size': [2, 3], 'counts': b'123'}
    for counts in ([-1], [1.5], ['1'], [2**40], '123'):
        assert pack_runs({'counts': counts}) == {'counts': counts}
    assert pack_runs({'id': 1}) == {'id': 1}
