"""Specks: which parts of a mask are dropped, against rules worked out by hand and a plain form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from tests.inference.scripted import CAT, IMAGE, SKY, Obj, ScriptedNet, make_logits
from videomt_ros.inference import VideoStream, postprocess
from videomt_ros.inference.specks import REACH, drop_specks


def image(*rectangles, size=(120, 160), value=1):
    """An image of one segment, drawn as rectangles (x0, y0, x1, y1)."""
    pixels = np.zeros(size, np.int16)
    for x0, y0, x1, y1 in rectangles:
        pixels[y0:y1, x0:x1] = value
    return pixels


def dropped(pixels, share=0.1, are_things=None):
    """The image and its regions without specks; both must agree."""
    count = int(pixels.max()) if are_things is None else len(are_things)
    result = pixels.copy()
    regions = drop_specks(
        result, postprocess.regions(pixels, count), are_things or [True] * count, share
    )
    assert regions == postprocess.regions(result, count)
    return result, regions


def plain(mask, share):
    """The same rule in its plainest form, one part after the other."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    if not count:
        return mask
    areas = [int((labels == k).sum()) for k in range(1, count + 1)]
    is_large = [area >= share * max(areas) for area in areas]
    large = np.isin(labels, 1 + np.flatnonzero(is_large))
    rows, columns = np.nonzero(large)
    kept = large.copy()
    for k, (ys, xs) in enumerate(ndimage.find_objects(labels), start=1):
        # Empty pixels between the part's box and a pixel, along the rows and the columns.
        down = np.maximum(np.maximum(ys.start - rows, rows - ys.stop + 1) - 1, 0)
        across = np.maximum(np.maximum(xs.start - columns, columns - xs.stop + 1) - 1, 0)
        gap = np.maximum(down, across).min()
        if gap <= math.floor(REACH * math.sqrt(areas[k - 1])):
            kept |= labels == k
    return kept


def test_one_stray_pixel_leaves_mask_and_box():
    pixels = image((20, 20, 60, 60), (150, 110, 151, 111))
    result, regions = dropped(pixels)
    assert (result == image((20, 20, 60, 60))).all()
    assert regions == [(1600, (20, 20, 60, 60))]


def test_a_share_of_nothing_drops_nothing():
    pixels = image((20, 20, 60, 60), (150, 110, 151, 111))
    assert (dropped(pixels, share=0.0)[0] == pixels).all()


def test_an_object_behind_a_pole_stays_whole():
    halves = image((20, 20, 60, 60), (70, 20, 110, 60))
    assert (dropped(halves)[0] == halves).all()
    # A foot of 7 x 7 pixels, 3 % of the main part, below a bar of 8 pixels across the leg.
    leg = image((20, 20, 60, 60), (30, 68, 37, 75))
    assert (dropped(leg)[0] == leg).all()


def test_a_large_part_stays_however_far_it_is():
    pixels = image((0, 0, 40, 40), (146, 106, 160, 120))  # 196 of 1600 pixels
    assert (dropped(pixels, share=0.1)[0] == pixels).all()
    assert (dropped(pixels, share=0.2)[0] == image((0, 0, 40, 40))).all()


def test_small_parts_stay_near_each_large_part_but_not_near_one_another():
    large = (0, 0, 40, 40), (100, 0, 140, 40)
    near = (115, 46, 120, 51)  # 25 pixels, which reach 7
    beyond = (115, 55, 120, 60)  # 4 from the small part, 15 from the large one
    result, regions = dropped(image(*large, near, beyond))
    assert (result == image(*large, near)).all()
    assert regions == [(3225, (0, 0, 140, 51))]


@pytest.mark.parametrize(('gap', 'is_kept'), [(6, True), (7, False)])
def test_a_part_reaches_one_and_a_half_times_its_size(gap, is_kept):
    """Sixteen pixels reach six, along a row, a column and a diagonal."""
    for dx, dy in ((1, 0), (0, 1), (1, 1)):
        x, y = 60 + dx * gap if dx else 40, 60 + dy * gap if dy else 40
        result, _ = dropped(image((20, 20, 60, 60), (x, y, x + 4, y + 4)))
        assert bool(result[y, x]) == is_kept


def test_corners_connect():
    stairs = image(*((k, k, k + 1, k + 1) for k in range(100)))
    assert (dropped(stairs)[0] == stairs).all()


def test_tiny_objects_stay():
    for rectangles in (
        [(5, 5, 6, 6)],
        [(0, 0, 1, 1), (159, 119, 160, 120)],  # two pixels of equal right
        [(0, 0, 2, 1), (159, 119, 160, 120)],
    ):
        pixels = image(*rectangles)
        assert (dropped(pixels)[0] == pixels).all()
        result, (region,) = dropped(pixels, share=1.0)
        assert region is not None and region[0] == result.sum() > 0


def test_segments_do_not_touch_one_another_and_stuff_stays():
    pixels = image((20, 20, 60, 60), (150, 110, 151, 111))
    pixels += image((80, 20, 120, 60), (0, 0, 1, 1), value=2)
    pixels += image((80, 70, 120, 90), (2, 0, 3, 1), value=4)  # nothing has 3
    result, regions = dropped(pixels, are_things=[True, False, True, True, True])
    assert (np.bincount(result.ravel())[1:] == (1600, 1601, 0, 800)).all()
    assert regions[2] is None and regions[4] is None
    assert result[0, 0] == 2


@pytest.mark.parametrize('seed', range(30))
def test_random_masks_agree_with_the_plain_form(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 60, 2)
    smooth = ndimage.gaussian_filter(
        rng.normal(size=(height, width)), rng.choice([0, 0.7, 1.5, 3])
    )
    pixels = np.zeros((height, width), np.int16)
    quantile = rng.uniform(0.3, 0.9)
    pixels[smooth > np.quantile(smooth, quantile)] = 1
    pixels[smooth < np.quantile(smooth, 1 - quantile) - 1e-9] = 2
    share = float(rng.choice([0.02, 0.1, 0.3, 1.0]))
    result, _ = dropped(pixels, share, [True, True])
    for k in (1, 2):
        assert ((result == k) == plain(pixels == k, share)).all()


@pytest.mark.parametrize(
    ('task', 'class_id', 'share', 'is_dropped'),
    [
        ('instance', CAT, 0.1, True),
        ('instance', CAT, 0.0, False),
        ('panoptic', CAT, 0.1, True),
        ('panoptic', SKY, 0.1, False),
        ('semantic', CAT, 0.1, False),
    ],
)
def test_a_stream_leaves_specks_out_of_things(task, class_id, share, is_dropped):
    class_logits, mask_logits = make_logits([Obj(0, class_id, 4, 4)])
    mask_logits[0, 37, 45] = 8.0  # one cell, far from the 64 of the object
    net = ScriptedNet([(class_logits, mask_logits)], task)
    stream = VideoStream(net, confirm_frames=1, speck_share=share)
    result = stream.push(IMAGE, 0)
    (segment,) = (s for s in result.segments if s.class_id == class_id)
    far = result.mask(segment.track_id)[140:, 170:]
    assert far.any() != is_dropped
    if task != 'semantic':  # there each pixel has a class
        assert (segment.box[2] < 60) == is_dropped
    assert segment.area == result.mask(segment.track_id).sum()


def test_noise_stays_as_it_is():
    pixels = (np.random.default_rng(0).random((600, 800)) < 0.12).astype(np.int16)
    kept, (region,) = dropped(pixels.copy())
    np.testing.assert_array_equal(kept, pixels)
    assert region is not None and region[0] == pixels.sum()
