"""Drawing: what is painted where, and that it can be read."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage

from videomt_ros.inference import draw
from videomt_ros.inference.draw import _LabelWriter, positions, track_color
from videomt_ros.inference.trails import Trails
from videomt_ros.structures import Segment, Segments, TrackState


def segment(track_id, box, area, is_thing=True, state=TrackState.CONFIRMED):
    return Segment(track_id, 0, 'cat', is_thing, 0.9, state, 5, 0, box, area)


def result(*boxes, size=(120, 160), **kwargs):
    ids = np.zeros(size, np.uint16)
    segments = []
    for number, (x0, y0, x1, y1) in enumerate(boxes, start=1):
        ids[y0:y1, x0:x1] = number
        segments.append(segment(number, (x0, y0, x1, y1), (y1 - y0) * (x1 - x0), **kwargs))
    return Segments(0, ids, tuple(segments), 3)


def test_nothing_is_painted_without_segments():
    image = np.full((120, 160, 3), 50, np.uint8)
    drawn = draw(image, result())
    assert (drawn == image).all()
    assert drawn is not image
    assert not np.shares_memory(drawn, image)


def test_masks_are_blended_inside_and_the_rest_stays():
    image = np.full((120, 160, 3), 50, np.uint8)
    image.flags.writeable = False
    drawn = draw(image, result((40, 60, 80, 100)), alpha=0.5, labels=False, boxes=False)
    expected = (0.5 * 50 + 0.5 * np.array(track_color(1))).round()
    assert np.abs(drawn[80, 60] - expected).max() <= 1
    assert tuple(drawn[60, 60]) == track_color(1)  # outline
    outside = np.ones((120, 160), bool)
    outside[60:100, 40:80] = False
    assert (drawn[outside] == 50).all()


def test_a_label_without_its_score_is_shorter():
    image = np.zeros((120, 160, 3), np.uint8)
    segments = result((40, 60, 80, 100))
    full, short = (
        draw(image, segments, boxes=False, scores=scores)[:60].any(2) for scores in (True, False)
    )
    assert 0 < short.any(0).sum() < full.any(0).sum()


def test_colours_belong_to_ids():
    colors = [track_color(i) for i in range(1, 13)]
    assert colors == [track_color(i) for i in range(1, 13)]
    for i, a in enumerate(colors):
        for b in colors[:i]:
            assert np.abs(np.subtract(a, b)).max() > 20
    assert all(len(track_color(i)) == 3 for i in (1, 65535))


def test_things_have_boxes_and_stuff_has_none():
    image = np.zeros((120, 160, 3), np.uint8)
    hollow = result((40, 60, 80, 100))
    hollow.ids[60:100, 40:80] = 0
    hollow.ids[80, 60] = 1
    assert tuple(draw(image, hollow, labels=False)[60, 50]) == track_color(1)
    stuff = Segments(0, hollow.ids, (segment(1, (40, 60, 80, 100), 1, is_thing=False),), 3)
    assert not draw(image, stuff, labels=False)[60, 50].any()


@pytest.mark.parametrize('size', [(48, 64), (360, 640), (640, 120)])
def test_a_note_is_a_line_along_the_lower_edge(size):
    image = np.full((*size, 3), 130, np.uint8)
    segments = Segments(0, np.zeros(size, np.uint16), (), 1)
    noted = draw(image, segments, note='demo knows drawn shapes alone')
    (rows,) = np.nonzero((noted != image).any(axis=(1, 2)))
    assert rows[-1] == size[0] - 1 and len(rows) == size[0] - rows[0] <= size[0] / 3
    line = noted[rows[0] :].max(axis=2)
    (columns,) = np.nonzero((line > 100).any(axis=0))  # where letters are
    assert 0 < columns[0] < 10 and size[1] / 4 < columns[-1] < size[1] - 1
    np.testing.assert_array_equal(draw(image, segments), image)


def test_lost_tracks_are_not_drawn():
    image = np.zeros((120, 160, 3), np.uint8)
    lost = segment(1, (40, 60, 80, 100), 0, state=TrackState.LOST)
    assert not draw(image, Segments(0, np.zeros((120, 160), np.uint16), (lost,), 3)).any()


@pytest.mark.parametrize('size', [(120, 160), (40, 60), (720, 1280), (1, 1), (5, 300)])
def test_labels_stay_inside_the_image(size):
    image = np.zeros((*size, 3), np.uint8)
    height, width = size
    box = (width - 1, height - 1, width, height)
    drawn = draw(image, result(box, size=size))
    assert drawn.shape == image.shape
    if height >= 40:
        written = np.nonzero(draw(image, result(box, size=size), boxes=False).any(2))
        assert written[0].max() - written[0].min() >= 8  # legible height in pixels


def test_sizes_must_agree():
    with pytest.raises(ValueError, match='Expected an RGB image'):
        draw(np.zeros((10, 10, 3), np.uint8), result())
    with pytest.raises(ValueError, match='Expected an RGB image'):
        draw(np.zeros((120, 160), np.uint8), result())


def test_the_label_of_stuff_lies_on_the_stuff():
    """A bay with another class in the middle of its box, and wider on the right."""
    ids = np.full((120, 400), 1, np.uint16)
    ids[20:, 60:240] = 2
    box, size = (0, 0, 400, 120), (120, 400)
    stuff = Segments(0, ids, (segment(1, box, 30000, is_thing=False),), 3)
    drawn = draw(np.zeros((*size, 3), np.uint8), stuff, alpha=0.0)
    rows, columns = np.nonzero((drawn == (24, 24, 24)).all(2))
    assert columns.min() > 240 and rows.min() > 20
    # 8000 of 30000 pixels are in the first 20 rows, 220 in each of the others: half is at row 51.
    assert abs((rows.min() + rows.max()) / 2 - 51) <= 1
    assert abs((columns.min() + columns.max()) / 2 - 320) <= 1


def test_labels_give_way_to_one_another():
    image = np.zeros((120, 160, 3), np.uint8)
    boxes = (20, 50, 60, 70), (25, 52, 65, 72)
    plate = (24, 24, 24)
    alone = [
        (
            draw(image, Segments(0, np.zeros((120, 160), np.uint16), (one,), 3), boxes=False)
            == plate
        )
        for one in result(*boxes).segments
    ]
    both = draw(image, result(*boxes), boxes=False) == plate
    # Letters cover a part of the plates, the same part wherever they are.
    assert both.all(2).sum() == sum(part.all(2).sum() for part in alone)


def plain_masks(image, segments, alpha, outline):
    """Masks and outlines by their definition, over the whole image at once."""
    colors = np.zeros_like(image)
    for one in segments.segments:
        colors[segments.ids == one.track_id] = track_color(one.track_id)
    inside = segments.ids > 0
    drawn = image.copy()
    drawn[inside] = cv2.addWeighted(image, 1.0 - alpha, colors, alpha, 0.0)[inside]
    for one in segments.segments:
        mask = segments.ids == one.track_id
        inner = ndimage.binary_erosion(mask, iterations=outline, border_value=1)
        drawn[mask & ~inner] = colors[mask & ~inner]
    return drawn


@pytest.mark.parametrize(
    ('seed', 'size', 'outline'),
    [*((seed, (97, 131), 1) for seed in range(8)), (8, (1080, 1100), 2), (9, (1400, 1350), 2)],
)
def test_masks_look_as_their_definition_says(seed, size, outline):
    """Blobs that touch, overlap the border of the image, and have holes and specks."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    coarse = ndimage.gaussian_filter(rng.normal(size=(60, 60)), rng.uniform(0, 3))
    levels = np.digitize(coarse, np.quantile(coarse, [0.2, 0.4, 0.6, 0.8]))
    ids = cv2.resize(levels.astype(np.uint16), size[::-1], interpolation=cv2.INTER_NEAREST)
    shown = []
    for track_id in np.unique(ids[ids > 0]).tolist():
        mask = (ids == track_id).view(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        shown.append(segment(track_id, (x, y, x + width, y + height), int(mask.sum())))
    segments = Segments(0, ids, tuple(shown), 3)
    drawn = draw(image, segments, alpha=0.3, labels=False, boxes=False)
    assert (drawn == plain_masks(image, segments, 0.3, outline)).all()


@pytest.mark.parametrize('size', [(240, 320), (480, 640), (1080, 1920), (10, 20)])
def test_no_label_covers_another(size):
    height, width = size
    rng = np.random.default_rng(0)
    writer = _LabelWriter(np.zeros((*size, 3), np.uint8), scores=True)
    for k in range(80):
        x0, y0 = int(rng.integers(width)), int(rng.integers(height))
        x1, y1 = int(rng.integers(x0, width)) + 1, int(rng.integers(y0, height)) + 1
        state = TrackState.TENTATIVE if k % 5 == 0 else TrackState.CONFIRMED
        box = (x0, y0, x1, y1)
        writer.write(segment(k + 100, box, 1, is_thing=k % 3 > 0, state=state), box)
    covered = np.zeros(size, int)
    for left, top, right, bottom in writer._plates:
        assert min(left, top) >= 0
        if height > 10:
            assert right <= width and bottom <= height
        covered[top:bottom, left:right] += 1
    assert covered.max() == 1
    assert len(writer._plates) >= (10 if height > 10 else 1)


def test_a_long_name_is_cut():
    def written(name):
        image = np.zeros((480, 640, 3), np.uint8)
        one = Segment(1, 0, name, True, 0.9, TrackState.CONFIRMED, 5, 0, (9, 90, 99, 199), 1)
        drawn = draw(image, Segments(0, np.zeros((480, 640), np.uint16), (one,), 3), boxes=False)
        return drawn.any((0, 2)).sum()

    assert written('a' * 24) < written('a' * 24 + 'bcd') * 1.1
    assert written('a' * 500) == written('a' * 40) < 640


@pytest.mark.parametrize('track_id', [1, 2, 3, 33, 34, 1000, 65535])
def test_letters_stand_out_from_their_plate(track_id):
    one = segment(track_id, (40, 60, 80, 100), 1)
    empty = Segments(0, np.zeros((120, 160), np.uint16), (one,), 3)
    for background in (0, 128, 255):
        image = np.full((120, 160, 3), background, np.uint8)
        changed = draw(image, empty, boxes=False)
        plate = changed[(changed != image).any(2)].astype(float)
        luminance = plate @ (0.299, 0.587, 0.114)
        assert luminance.max() - 24 > 120


def test_a_trail_ends_in_the_box_of_its_track():
    image = np.zeros((120, 160, 3), np.uint8)
    now = result((100, 60, 120, 80))
    assert positions(now) == {1: (110, 70)}
    trails = Trails()
    for t, x in enumerate((30, 50, 70, 90)):
        trails.update(t * 100_000_000, {1: (x, 70), 5: (x, 10)})
    trails.update(400_000_000, positions(now))
    drawn = draw(image, now, labels=False, boxes=False, trails=trails)
    without = draw(image, now, labels=False, boxes=False)
    for x in (40, 85):  # the line is smoothed, which takes a little of its colour
        assert np.abs(drawn[70, x] - np.array(track_color(1))).max() <= 30
    assert not without[70, 85].any()
    assert not drawn[:40].any()  # track 5 is not in view
    assert (drawn[:, 130:] == 0).all()


def test_neither_stuff_nor_lost_tracks_have_a_position():
    stuff = result((100, 60, 120, 80), is_thing=False)
    lost = Segments(
        0,
        np.zeros((120, 160), np.uint16),
        (segment(1, (0, 0, 9, 9), 0, state=TrackState.LOST),),
        3,
    )
    assert positions(stuff) == positions(lost) == {}
