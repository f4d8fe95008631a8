"""Video AP: cases worked out by hand, then agreement with the plain loop over pairs."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from videomt_ros.datasets.rle import MaskTrack
from videomt_ros.evaluation.metrics.ap import IOU_THRESHOLDS, RECALL_LEVELS, VideoAP
from videomt_ros.evaluation.metrics.overlap import overlap_tracks
from videomt_ros.speed.plain_scoring import plain_figures
from videomt_ros.speed.scoring import CATEGORIES, make_case

SIDE = 600
HALF_FOUND = Fraction(51, 101)
"""AP where half of the objects are found and nothing else: recalls 0.00 to 0.50."""


def run(start, stop):
    """Encode a mask of the pixels start..stop-1, or return None."""
    if start == stop:
        return None
    counts = [start, stop - start, SIDE**2 - stop]
    return coco_mask.frPyObjects({'size': [SIDE, SIDE], 'counts': counts}, SIDE, SIDE)


def thing(*spans, video=1, category=1, **fields):
    """Build a true object or a result from one span of pixels per frame."""
    return MaskTrack(video, category, [span and run(*span) for span in spans], **fields)


def score(truth, results, categories=(1,)):
    """Compute the figures of one video; scores of the results fall in their order."""
    ap = VideoAP(categories)
    ap.add_video(1, truth, ranked(results))
    return ap.result().figures()


def ranked(results):
    return [
        MaskTrack(r.video_id, r.category_id, r.masks, score=1 - 0.001 * place)
        for place, r in enumerate(results)
    ]


def near(value):
    """Expect a figure that is this fraction."""
    return pytest.approx(float(value), abs=1e-12)


A, B, C, NOWHERE = (thing((start, start + 10)) for start in (0, 100, 200, 300))


def test_precision_is_read_at_101_recalls():
    # Right, wrong, right, of 3 objects: precision 1 up to recall 1/3, then 2/3 up to 2/3.
    figures = score([A, B, C], [A, NOWHERE, B])
    assert figures['AP'] == near((34 + 33 * Fraction(2, 3)) / 101)
    assert figures['AP50'] == figures['AP75'] == near(figures['AP'])
    assert (figures['AR1'], figures['AR10']) == (near(Fraction(1, 3)), near(Fraction(2, 3)))


def test_precision_never_rises_with_recall():
    # Wrong, right, right of 2 objects: 1/2 at recall 1/2, but 2/3 is reached later.
    assert score([A, B], [NOWHERE, A, B])['AP'] == near(Fraction(2, 3))


def test_recall_levels_are_those_of_linspace():
    # 7 of 20 objects are found. linspace(0, 1, 101)[35] is a bit above 7/20, so 35 levels count.
    truth = [thing((10 * k, 10 * k + 5)) for k in range(20)]
    assert RECALL_LEVELS[35] > 7 / 20
    assert score(truth, truth[:7])['AP'] == near(Fraction(35, 101))


@pytest.mark.parametrize(
    ('tenths', 'num_thresholds'), [(4, 0), (5, 1), (6, 3), (7, 5), (8, 7), (9, 9), (10, 10)]
)
def test_an_iou_equal_to_the_threshold_matches(tenths, num_thresholds):
    figures = score([A], [thing((0, tenths))])
    assert figures['AP'] == figures['AR1'] == near(Fraction(num_thresholds, 10))
    assert figures['AP50'] == (tenths >= 5)
    assert figures['AP75'] == (tenths >= 8)


def test_an_iou_of_three_quarters_matches_at_0_75():
    assert score([thing((0, 4))], [thing((0, 3))])['AP75'] == 1


def test_thresholds_are_those_of_linspace():
    assert IOU_THRESHOLDS.tolist() == np.linspace(0.5, 0.95, 10).tolist()
    assert IOU_THRESHOLDS[2] == 0.6 < np.arange(0.5, 1, 0.05)[2]


def test_the_iou_is_that_of_the_whole_video():
    # 10 + 0 of 10 + 10 pixels, the second frame missed; and the other way round.
    assert score([thing((0, 10), (0, 10))], [thing((0, 10), None)])['AP'] == near(Fraction(1, 10))
    assert score([thing((0, 10), None)], [thing((0, 10), (5, 15))])['AP50'] == 1
    assert score([thing((0, 10), None)], [thing((0, 10), (0, 11))])['AP50'] == 0


def test_an_object_is_found_once():
    # The second result of A is wrong: 1, 1/2, 2/3 at recalls 1/2, 1/2, 1.
    assert score([A, B], [A, A, B])['AP'] == near((51 + 50 * Fraction(2, 3)) / 101)


def test_a_result_takes_the_object_it_overlaps_most():
    worse, better = thing((0, 6)), thing((0, 9))
    # The first result takes `better`, and leaves `worse` to the second.
    for truth in ([worse, better], [better, worse]):
        assert score(truth, [thing((0, 10)), thing((0, 6))])['AP50'] == 1


def test_of_equal_ious_the_later_object_is_taken():
    # The first result has an IoU of 3/5 with both; the second only reaches the object `low`.
    low, high = thing((0, 4)), thing((2, 6))
    results = [thing((1, 5)), thing((0, 3))]
    assert score([low, high], results)['AP50'] == 1
    assert score([high, low], results)['AP50'] == near(HALF_FOUND)


def test_categories_do_not_mix():
    other = thing((0, 10), category=2)
    assert score([A], [other], (1, 2))['AP'] == 0
    # Found in category 1, not in category 2.
    figures = score([A, thing((50, 60), category=2)], [A, other], (1, 2))
    assert figures['AP'] == near(Fraction(1, 2))


def test_a_category_without_objects_costs_nothing():
    figures = score([A], [thing((0, 10), category=2), A], (1, 2))
    assert figures['AP'] == 1


def test_a_category_without_results_counts_as_0():
    ap = VideoAP([1, 2, 3])
    ap.add_video(1, [A, thing((0, 10), category=2)], [A])
    scores = ap.result()
    assert scores.figures()['AP'] == scores.figures()['AR10'] == near(Fraction(1, 2))
    assert [scores.per_class[category]['AP'] for category in (1, 2, 3)] == [1, 0, None]
    assert scores.per_class[3] == dict.fromkeys(scores.figures())


def test_results_of_unknown_categories_have_no_effect():
    assert score([A], [thing((50, 60), category=9), A])['AP'] == 1


def test_without_objects_nothing_is_defined():
    names = ['AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'AR1', 'AR10', 'AR100']
    undefined = dict.fromkeys(names)
    assert VideoAP([]).result().figures() == undefined
    assert VideoAP([1]).result().figures() == undefined
    assert score([], [A]) == undefined
    assert list(score([], [])) == names


def test_without_results_all_is_0():
    figures = score([A], [])
    assert figures.pop('APm') is figures.pop('APl') is None
    assert set(figures.values()) == {0}


def test_a_result_that_is_empty_everywhere_is_wrong():
    figures = score([thing((0, 10), None)], [thing(None, None), thing((0, 10), None)])
    # Its mean area is 0, which is small.
    assert figures['AP'] == figures['APs'] == near(Fraction(1, 2))


# Crowds


def crowd(start, stop):
    return thing((start, stop), is_crowd=True)


def test_a_crowd_takes_any_number_of_results_and_drops_them():
    group = crowd(100, 200)
    inside = [thing((100, 200)), thing((100, 195)), thing((105, 200))]
    assert score([A, group], [*inside, A])['AP50'] == 1
    assert score([group, A], [*inside, A])['AP50'] == 1


def test_a_small_result_inside_a_crowd_is_wrong():
    # Its IoU is 1/10. COCO would drop it, as all of it lies within the crowd.
    assert score([A, crowd(100, 200)], [thing((100, 110)), A])['AP'] == near(Fraction(1, 2))


def test_a_crowd_is_not_to_be_found():
    figures = score([A, crowd(100, 200)], [A])
    assert figures['AP'] == figures['AR100'] == 1
    assert set(score([crowd(100, 200)], [A]).values()) == {None}


def test_an_object_comes_before_a_crowd_that_fits_better():
    # IoU 6/10 with the object, 1 with the crowd: right up to 0.6, dropped above.
    figures = score([crowd(0, 6), A], [thing((0, 6))])
    assert figures['AR1'] == near(Fraction(3, 10))
    assert score([crowd(0, 6), A], [thing((0, 6)), A])['AP'] == near(
        # Up to 0.6 the first takes A, and the second is wrong but comes after it.
        Fraction(3 + 7, 10)
    )


# Size ranges


@pytest.mark.parametrize(
    ('area', 'ranges'),
    [
        (128**2 - 1, 's'), (128**2, 'sm'), (128**2 + 1, 'm'),
        (256**2 - 1, 'm'), (256**2, 'ml'), (256**2 + 1, 'l'), (290_000, 'l'),
    ],
)  # fmt: skip
def test_both_ends_belong_to_a_size_range(area, ranges):
    figures = score([thing((0, area))], [thing((0, area))])
    assert figures['AP'] == 1
    for name in 'sml':
        assert figures[f'AP{name}'] == (1 if name in ranges else None)
    # So do they for results that match nothing: a small object, found, comes after.
    other = thing((300_000, 300_010), areas=[128**2])
    both = thing((310_000, 310_010), areas=[256**2])
    wrong = [thing((0, area)), thing((300_000, 300_010)), thing((310_000, 310_010))]
    figures = score([other, both], wrong)
    for name, right in zip('sml', (1, 2, 1), strict=True):
        expected = Fraction(right, right + 1) if name in ranges else 1
        assert figures[f'AP{name}'] == near(expected)


def test_the_size_of_an_object_is_the_mean_area_of_the_file():
    # Masks of 10 pixels; the file says 0, nothing and twice 256 x 256.
    areas = [0, None, 256**2 - 5, 256**2 + 5]
    spans = [(0, 10)] * 4
    figures = score([thing(*spans, areas=areas)], [thing(*spans)])
    # The result is small, but right all the same.
    assert (figures['APs'], figures['APm'], figures['APl']) == (None, 1, 1)
    # Without areas, those of the masks.
    figures = score([thing((0, 128**2 - 5), None, (0, 128**2 + 5))], [])
    assert (figures['APs'], figures['APm'], figures['APl']) == (0, 0, None)


def test_the_size_of_a_result_is_the_mean_area_of_its_masks():
    medium = thing((300_000, 300_010), None, areas=[200**2, None])
    # Absent in a frame: the mean over both would be small.
    wrong = thing((0, 128**2 + 1), None)
    figures = score([medium], [wrong, thing((300_000, 300_010), None)])
    assert figures['APm'] == near(Fraction(1, 2))


def test_results_of_another_size_are_dropped():
    medium = thing((0, 128**2 + 1))
    figures = score([medium], [thing((300_000, 300_010)), medium])
    assert (figures['AP'], figures['APm']) == (near(Fraction(1, 2)), 1)


def test_an_object_of_another_size_takes_one_result():
    # All masks are medium, but the file calls one object small.
    area = 128**2 + 1
    called_small = thing((0, area), areas=[100])
    medium = thing((100_000, 100_000 + area))
    results = [thing((0, area)), thing((0, area)), medium]
    # Medium: dropped, wrong, right.
    assert score([called_small, medium], results)['APm'] == near(Fraction(1, 2))


# Order and limits


def scored(track, value, video=1):
    return MaskTrack(video, track.category_id, track.masks, score=value)


def test_equal_scores_keep_the_order_of_the_file():
    for results, expected in (([A, NOWHERE], 1), ([NOWHERE, A], Fraction(1, 2))):
        ap = VideoAP([1])
        ap.add_video(1, [A], [scored(result, 0.5) for result in results])
        assert ap.result().figures()['AP'] == near(expected)


def test_results_are_sorted_by_score():
    ap = VideoAP([1])
    ap.add_video(1, [A], [scored(NOWHERE, 0.1), scored(A, 0.9)])
    figures = ap.result().figures()
    assert figures['AP'] == figures['AR1'] == 1


@pytest.mark.parametrize(
    ('first', 'second'), [(9, 10), ('10', '9'), ('a', 'b'), (9, '10'), (10, '9')]
)
def test_equal_scores_of_two_videos_are_sorted_by_id(first, second):
    """Ids of videos are ordered: numbers as numbers, then names."""
    for right, wrong, expected in ((first, second, 1), (second, first, Fraction(1, 2))):
        for order in ((right, wrong), (wrong, right)):
            ap = VideoAP([1])
            for video in order:
                truth = [thing((0, 10), video=video)] if video == right else []
                found = thing((0, 10), video=video, score=0.5)
                ap.add_video(video, truth, [found])
            assert ap.result().figures()['AP'] == near(expected)


def test_videos_are_pooled():
    # Scores 0.9 wrong in the one, 0.8 right in the other video, 0.7 right in the one.
    ap = VideoAP([1])
    ap.add_video(1, [A], [scored(NOWHERE, 0.9), scored(A, 0.7)])
    other = thing((0, 10), video=2)
    ap.add_video(2, [other], [scored(other, 0.8, video=2)])
    figures = ap.result().figures()
    assert figures['AP'] == near(Fraction(2, 3))
    # The first result of each video: only the second's is right.
    assert (figures['AR1'], figures['AR10']) == (near(Fraction(1, 2)), 1)


def test_only_100_results_of_a_video_and_category_are_read():
    wrong = [NOWHERE] * 99
    figures = score([A], [*wrong, A])
    assert (figures['AR10'], figures['AR100'], figures['AP']) == (0, 1, near(Fraction(1, 100)))
    assert score([A], [*wrong, NOWHERE, A])['AR100'] == 0
    # Those of another category do not count.
    others = [thing((50, 60), category=2)] * 150
    assert score([A], [*others, A], (1, 2))['AP'] == 1


def test_the_tenth_result_counts_for_ar10():
    assert score([A], [*[NOWHERE] * 9, A])['AR10'] == 1
    assert score([A], [*[NOWHERE] * 10, A])['AR10'] == 0


# Curves and errors


def test_the_precision_array_holds_the_curves():
    ap = VideoAP([7, 1])
    ap.add_video(1, [A, B], [scored(thing((0, 6)), 0.9)])
    precision = ap.result().precision
    assert precision.shape == (10, 101, 2)
    assert np.isnan(precision[:, :, 0]).all()
    # Half of the objects, up to an IoU of 0.6.
    expected = np.zeros((10, 101))
    expected[:3, :51] = 1
    assert (precision[:, :, 1] == expected).all()


def test_wrong_use_is_an_error():
    with pytest.raises(ValueError, match='category ids that differ'):
        VideoAP([1, 1])
    ap = VideoAP([1])
    with pytest.raises(ValueError, match=r'got \[2\] in video 1'):
        ap.add_video(1, [thing((0, 10), category=2)], [])
    with pytest.raises(ValueError, match='tracks of video 2, got track 0 of video 1'):
        ap.add_video(2, [], [A])
    with pytest.raises(ValueError, match='Expected 1 frames'):
        ap.add_video(1, [A], [thing((0, 10), None)])
    ap.add_video(1, [A], [A])  # a video that failed was not added
    with pytest.raises(ValueError, match='video 1 again'):
        ap.add_video(1, [A], [A])
    assert ap.result().figures()['AP'] == 1


# Agreement


def random_video(rng, video_id):
    """Draw tracks with few pixels, so that IoU and scores tie often, in all sizes."""
    shape = tuple(rng.integers(1, (4, 10, 10)))
    scale = int(rng.choice([1, 60]))

    def block():
        mask = np.zeros(shape, bool)
        for frame in mask:
            top, left = (rng.integers(0, side) for side in frame.shape)
            frame[top : top + rng.integers(0, 9), left : left + rng.integers(0, 9)] = True
        return mask

    def make(pixels, **fields):
        large = pixels.repeat(scale, 1).repeat(scale, 2)
        masks = [
            None
            if not mask.any() and rng.random() < 0.5
            else coco_mask.encode(np.asfortranarray(mask, np.uint8))
            for mask in large
        ]
        return MaskTrack(video_id, int(rng.integers(1, 4)), masks, **fields), large.sum((1, 2))

    objects = [block() for _ in range(rng.integers(0, 5))]
    truth = []
    for pixels in objects:
        fields = {'is_crowd': bool(rng.random() < 0.2)}
        if rng.random() < 0.5:
            fields['areas'] = [float(rng.choice([0, 100, 128**2, 256**2])) for _ in pixels]
        truth.append(make(pixels, **fields)[0])
    results = []
    for _ in range(rng.integers(0, 8) if rng.random() < 0.95 else 250):
        pixels = block()
        if objects and rng.random() < 0.8:
            noise = rng.random(shape) < rng.choice([0, 0.1, 0.3])
            pixels = objects[rng.integers(len(objects))] ^ noise
        score = float(rng.choice([0.1, 0.2, 0.3, rng.random()]))
        results.append(make(pixels, score=score)[0])
    return video_id, truth, results


@pytest.mark.parametrize('seed', range(200))
def test_it_agrees_with_the_plain_loop(seed):
    rng = np.random.default_rng(seed)
    ids = rng.permutation(20)[: rng.integers(1, 6)].tolist()
    videos = [random_video(rng, str(i) if seed % 2 else i) for i in ids]
    ap = VideoAP([1, 2, 3])
    for video in videos:
        ap.add_video(*video)
    scores = ap.result()
    for categories, figures in (
        ([1, 2, 3], scores.figures()),
        *(([category], per_class) for category, per_class in scores.per_class.items()),
    ):
        expected = plain_figures(categories, videos)
        assert list(figures) == list(expected)
        for name, value in figures.items():
            if value is None or expected[name] is None:
                assert value is expected[name], name
            else:
                assert value == pytest.approx(expected[name], abs=1e-9), name


@pytest.mark.parametrize('seed', range(20))
def test_the_order_of_videos_and_categories_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    videos = [random_video(rng, number) for number in range(6)]
    forward, backward = VideoAP([1, 2, 3]), VideoAP([3, 1, 2])
    for video in videos:
        forward.add_video(*video)
    for video in reversed(videos):
        backward.add_video(*video)
    assert forward.result().figures() == backward.result().figures()


def test_known_overlaps_give_the_same_scores_without_reading_a_mask():
    for num_results in (30, 150):  # more than the hundred that count
        [(video_id, truth, results)] = make_case(1, num_results, 4, seed=2, num_frames=3)
        sequences = overlap_tracks(video_id, truth, results)
        plain, quick = VideoAP(CATEGORIES), VideoAP(CATEGORIES)
        plain.add_video(video_id, truth, results)
        unread = [replace(track, masks=()) for track in results]
        quick.add_video(video_id, truth, unread, sequences)
        assert quick.result().per_class == plain.result().per_class
        assert plain.result().figures()['AP'] > 0
