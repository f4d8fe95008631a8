"""Scores of whole files: perfect ones, and ones with a single fault whose effect is known."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest

from tests.evaluation.score_files import (
    CATEGORIES,
    LEFT,
    NUM_FRAMES,
    RIGHT,
    SIZE,
    disc,
    instances,
    panoptic_frame,
    panoptic_ids,
    predictions,
    rle,
    write_ids,
    write_json,
    write_vipseg,
    write_vspw,
)
from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.evaluation.families import FAMILIES
from videomt_ros.evaluation.figures import COUNTS
from videomt_ros.evaluation.score_report import ScoreReport, mean_report
from videomt_ros.evaluation.scoring import score_files

ISSUE_KEYS = {
    'ytvis': 'AP AP50 AP75 APs APm APl AR1 AR10 AR100',
    'vipseg': 'VPQ VPQ_th VPQ_st VPQ_five VPQ_five_th VPQ_five_st VPQ1 VPQ1_th VPQ1_st VPQ2 '
    'VPQ2_th VPQ2_st VPQ4 VPQ4_th VPQ4_st VPQ6 VPQ6_th VPQ6_st VPQ8 VPQ8_th VPQ8_st STQ AQ SQ',
    'coco_panoptic': 'PQ SQ RQ PQ_th SQ_th RQ_th PQ_st SQ_st RQ_st',
    'vspw': 'mIoU FWIoU mVC8 mVC16 mVC16_as_printed',
}
TRACKING_KEYS = 'IDF1 HOTA DetA AssA IDSW Frag MT ML Merges'


def score_instances(folder, truth, results, **options):
    return score_files(
        'ytvis',
        [write_json(folder / 'instances.json', truth)],
        write_json(folder / 'results.json', results),
        **options,
    )


def test_figures_have_the_promised_names():
    for family, keys in ISSUE_KEYS.items():
        tracking = TRACKING_KEYS.split() if family != 'vspw' else []
        assert set(FAMILIES[family].figures) == {*keys.split(), *tracking}


def test_perfect_instances(tmp_path):
    truth = instances()
    report = score_instances(tmp_path, truth, predictions(truth))
    assert list(report.figures) == list(FAMILIES['ytvis'].figures)
    ones = dict.fromkeys(FAMILIES['ytvis'].figures, 1)
    # 49 pixels: all objects are small. Four are tracked throughout.
    expected = ones | {
        'APm': None,
        'APl': None,
        'IDSW': 0,
        'Frag': 0,
        'MT': 4,
        'ML': 0,
        'Merges': 0,
    }
    assert report.figures == pytest.approx(expected)
    assert report.switches == report.notes == []
    assert report.per_video == {
        str(number): {'name': f'v{number}', 'HOTA': 1, 'IDF1': 1, 'IDSW': 0} for number in (1, 2)
    }
    cat, _, owl = report.per_class
    assert (cat['category_id'], cat['name'], cat['AP'], cat['MT']) == (1, 'cat', 1, 2)
    assert (owl['AP'], owl['HOTA'], owl['IDSW']) == (None, None, 0)
    assert report.curves['recall'] == np.linspace(0, 1, 101).tolist()
    assert report.confusion['unit'] == 'masks' and report.confusion['category_ids'] == [1, 2]
    assert np.count_nonzero(report.confusion['counts']) == 2
    assert report.curves['precision'] == {name: [1] * 101 for name in ('0.5', '0.75', 'mean')}


def test_the_report_survives_json(tmp_path):
    truth = instances()
    report = score_instances(tmp_path, truth, predictions(truth)[:-1])
    text = json.dumps(report.to_json(), allow_nan=False)
    assert ScoreReport.from_json(json.loads(text)) == report
    with pytest.raises(ValueError, match='lacks figures, parts'):
        ScoreReport.from_json(
            {k: v for k, v in report.to_json().items() if k not in ('figures', 'parts')}
        )


def test_a_swapped_identity_is_found(tmp_path):
    # Video 1 gets a second cat; from frame 5 on the two tracks follow the other one.
    truth = instances()
    truth['annotations'][1]['category_id'] = 1
    results = predictions(truth)
    first, second = results[0]['segmentations'], results[1]['segmentations']
    results[0]['segmentations'] = first[:5] + second[5:]
    results[1]['segmentations'] = second[:5] + first[5:]
    report = score_instances(tmp_path, truth, results)
    assert report.figures['IDSW'] == 2
    shared = {'video_id': 1, 'frame': 5, 'category_id': 1}
    assert report.switches == [
        {**shared, 'truth_id': 11, 'from': 1, 'to': 2},
        {**shared, 'truth_id': 12, 'from': 2, 'to': 1},
    ]
    # 5 of 9 frames agree for each of the two, all for the others: 28 of 36.
    assert report.figures['IDF1'] == pytest.approx(28 / 36)
    assert report.figures['DetA'] == 1
    assert report.per_video['1']['IDSW'] == 2
    assert report.per_video['1']['IDF1'] == pytest.approx(10 / 18)
    assert report.per_video['2'] == {'name': 'v2', 'HOTA': 1, 'IDF1': 1, 'IDSW': 0}


def test_a_missing_video_is_missed_and_named(tmp_path):
    truth = instances()
    results = [entry for entry in predictions(truth) if entry['video_id'] == 2]
    report = score_instances(tmp_path, truth, results)
    assert report.notes == ['1 video without results, whose objects count as missed: v1.']
    assert report.figures['AR100'] == 1 / 2
    assert report.figures['IDF1'] == pytest.approx(18 / (18 + 18 / 2))
    assert (report.figures['MT'], report.figures['ML']) == (2, 2)


def test_a_note_names_twenty_videos_and_counts_the_others(tmp_path):
    report = score_instances(tmp_path, instances(tuple(range(1, 24))), [])
    [note] = report.notes
    assert note.startswith('23 videos without results, whose objects count as missed: v1, v2, ')
    assert note.endswith(', v20 and 3 more.')


def test_no_predictions_at_all(tmp_path):
    report = score_instances(tmp_path, instances(), [])
    zeros = dict.fromkeys(FAMILIES['ytvis'].figures, 0)
    assert report.figures == zeros | {'APm': None, 'APl': None, 'ML': 4}
    assert report.notes == ['2 videos without results, whose objects count as missed: v1, v2.']


def test_no_objects_at_all(tmp_path):
    truth = instances()
    report = score_instances(tmp_path, truth | {'annotations': []}, [])
    undefined = [name for name in FAMILIES['ytvis'].figures if name not in COUNTS]
    assert report.figures == dict.fromkeys(undefined) | dict.fromkeys(COUNTS, 0)
    assert report.curves == {}


def test_an_unlikely_track_can_be_left_out_of_tracking_alone(tmp_path):
    truth = instances()
    ghost = {
        'video_id': 1,
        'category_id': 3,
        'score': 0.2,
        'segmentations': [rle(disc(14))] * NUM_FRAMES,
    }
    results = [*predictions(truth), ghost]
    # 36 true detections of 36 + 9.
    every = score_instances(tmp_path, truth, results)
    assert every.figures['DetA'] == pytest.approx(36 / 45)
    likely = score_instances(tmp_path, truth, results, track_score=0.5)
    assert likely.figures['DetA'] == 1
    assert likely.notes == [
        'Figures of tracking leave out 1 of 5 tracks, whose score is below 0.5.'
    ]
    assert score_instances(tmp_path, truth, results, track_score=0.2).figures == every.figures
    # AP goes on seeing all: with the first object's track left out too, 27 of 36 remain.
    results[0]['score'] = 0.4
    fewer = score_instances(tmp_path, truth, results, track_score=0.5).figures
    assert fewer['DetA'] == pytest.approx(27 / 36)
    assert all(fewer[name] == every.figures[name] for name in FAMILIES['ytvis'].figures[:9])


def test_curves_are_those_of_their_thresholds(tmp_path):
    # Both cats' masks lack rows; the share that is left, their IoU, lies between 0.5 and 0.75.
    truth = instances()
    results = predictions(truth)
    part = disc(6) & (np.indices(SIZE)[0] >= 9)
    share = part.sum() / disc(6).sum()
    assert 0.7 < share < 0.75
    for entry in results[::2]:
        entry['segmentations'] = [rle(np.roll(part, t % 3, axis=1)) for t in range(NUM_FRAMES)]
    precision = score_instances(tmp_path, truth, results).curves['precision']
    assert precision['0.5'] == [1] * 101
    assert precision['0.75'] == [1 / 2] * 101
    # The cats pass the five thresholds 0.50 to 0.70, the dogs all ten.
    assert precision['mean'] == pytest.approx([(5 + 10) / 20] * 101)


def test_crowds_and_unknown_categories_are_noted(tmp_path):
    truth = instances()
    truth['annotations'][0]['iscrowd'] = 1
    results = predictions(truth)
    results.append(results[0] | {'category_id': 77})
    ignored, crowds = score_instances(tmp_path, truth, results).notes
    assert '77' in ignored
    assert crowds.startswith('Crowds (1) are ignored by AP and AR')


def test_chosen_videos_alone_are_scored(tmp_path):
    truth = instances((1, 2, 3))
    results = [entry for entry in predictions(truth) if entry['video_id'] != 3]
    progress = []
    report = score_instances(
        tmp_path, truth, results, video_ids={2, 1}, progress=lambda *at: progress.append(at)
    )
    assert report.figures['HOTA'] == 1
    assert list(report.per_video) == ['1', '2']
    assert report.notes == []
    assert progress == [(1, 2), (2, 2)]
    for wrong, message in (({4}, 'videos of the truth, got 4'), ((), 'at least one video')):
        with pytest.raises(ValueError, match=message):
            score_instances(tmp_path, truth, results, video_ids=wrong)


def test_several_truths_are_averaged_and_shown(tmp_path):
    short, long = instances((1, 2)), instances((7,))
    results = predictions(short)[1:] + predictions(long)
    # One of 4 objects of `short` is missed: its class has recall 1/2, the other 1.
    paths = [write_json(tmp_path / f'{name}.json', truth) for name, truth in
             (('short', short), ('long', long))]  # fmt: skip
    results_path = write_json(tmp_path / 'results.json', results)
    alone = score_files('ytvis', paths[:1], write_json(tmp_path / 'r.json', results[:3]))
    report = score_files('ytvis', paths, results_path)
    assert report.parts['short'] == alone.figures
    assert report.parts['short']['AR100'] == 3 / 4
    assert report.parts['long']['AR100'] == 1
    assert report.figures['AR100'] == 7 / 8
    assert report.figures['APl'] is None
    assert report.figures['MT'] == 3 + 2
    assert report.confusion['category_ids'] == [1, 2]
    missed = np.array(alone.confusion['counts'])[:, -1].tolist()
    assert np.array(report.confusion['counts'])[:, -1].tolist() == missed
    assert np.array(report.confusion['counts']).sum() > np.array(alone.confusion['counts']).sum()
    assert list(report.per_video) == ['1', '2', '7']
    assert report.per_class[0]['AR100'] == (1 / 2 + 1) / 2
    assert report.curves['precision']['0.5'][-1] == (alone.curves['precision']['0.5'][-1] + 1) / 2
    assert ScoreReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    some = score_files('ytvis', paths, results_path, video_ids=[7])
    assert some.figures['AR100'] == 1
    assert some.notes == ['short: none of its videos was scored, so it is left out of the mean.']


def test_a_mean_needs_all_of_its_parts():
    curves = {'recall': [0, 1], 'precision': {'mean': [1, 0.5]}}
    one = ScoreReport('ytvis', {'AP': 1.0, 'APl': None, 'IDSW': 2}, [], {}, curves=curves)
    other = ScoreReport('ytvis', {'AP': 0.5, 'APl': 1.0, 'IDSW': 1}, [], {})
    report = mean_report({'one': one, 'other': other})
    assert report.figures == {'AP': 0.75, 'APl': None, 'IDSW': 3}
    assert report.curves == {}
    assert mean_report({'one': one, 'again': one}).curves == curves


def test_truth_files_need_different_names(tmp_path):
    path = write_json(tmp_path / 'a.json', instances())
    results = write_json(tmp_path / 'results.json', [])
    with pytest.raises(ValueError, match='different names, got a, a'):
        score_files('ytvis', [path, path], results)
    with pytest.raises(ValueError, match='at least one truth'):
        score_files('ytvis', [], results)
    with pytest.raises(ValueError, match='one truth for vipseg, got 2'):
        score_files('vipseg', [path, path], results)


def test_truth_without_annotations_cannot_be_scored(tmp_path):
    truth = instances()
    results = predictions(truth)
    del truth['annotations']
    with pytest.raises(DatasetError, match='nothing to score'):
        score_instances(tmp_path, truth, results)


def test_results_of_other_videos_are_an_error(tmp_path):
    truth = instances()
    with pytest.raises(DatasetError, match='5'):
        score_instances(tmp_path, truth, [predictions(truth)[0] | {'video_id': 5}])


def test_perfect_panoptic(tmp_path):
    truth, results = write_vipseg(tmp_path)
    report = score_files('vipseg', [truth], results)
    ones = dict.fromkeys(FAMILIES['vipseg'].figures, 1)
    assert list(report.figures) == list(ones)
    assert report.figures == pytest.approx(
        ones | {'IDSW': 0, 'Frag': 0, 'MT': 4, 'ML': 0, 'Merges': 0}
    )
    assert report.switches == report.notes == []
    assert report.per_video['a'] == {'name': 'a', 'HOTA': 1, 'IDF1': 1, 'IDSW': 0}
    wall, cat = report.per_class
    assert (wall['name'], wall['VPQ'], wall['IoU']) == ('wall', 1, 1)
    assert 'HOTA' not in wall
    assert (cat['is_thing'], cat['VPQ'], cat['HOTA']) == (True, 1, 1)
    assert report.confusion['unit'] == 'pixels'
    assert (
        np.count_nonzero(report.confusion['counts'])
        == 2
        == np.trace(np.array(report.confusion['counts']) > 0)
    )
    assert ScoreReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_swapped_panoptic_ids_are_switches(tmp_path):
    truth, results = write_vipseg(tmp_path)
    for t in range(4, NUM_FRAMES):
        ids = panoptic_ids(t)
        left, right = ids == LEFT, ids == RIGHT
        ids[left], ids[right] = RIGHT, LEFT
        write_ids(results / 'pan_pred' / 'b' / f'{t:08d}.png', ids)
    report = score_files('vipseg', [truth], results)
    shared = {'video_id': 'b', 'frame': 4, 'category_id': 1}
    assert report.switches == [
        {**shared, 'truth_id': LEFT, 'from': LEFT, 'to': RIGHT},
        {**shared, 'truth_id': RIGHT, 'from': RIGHT, 'to': LEFT},
    ]
    # In video b 5 of 9 frames agree.
    assert report.figures['IDF1'] == pytest.approx((18 + 10) / 36)
    assert report.figures['VPQ1'] == report.figures['SQ'] == report.figures['DetA'] == 1
    assert report.figures['AQ'] < 1


def test_tracking_leaves_void_alone(tmp_path):
    # What is predicted on void, one more cat, costs nothing.
    truth, results = write_vipseg(tmp_path, names=('a',))
    content = json.loads((results / 'pred.json').read_text())
    for t in range(NUM_FRAMES):
        true_ids, ids = panoptic_ids(t), panoptic_ids(t)
        true_ids[:3], ids[:3] = 0, 99
        write_ids(truth.parent / 'panomasksRGB' / 'a' / f'{t:08d}.png', true_ids)
        write_ids(results / 'pan_pred' / 'a' / f'{t:08d}.png', ids)
        content['annotations'][0]['annotations'][t]['segments_info'] = panoptic_frame(ids)
    write_json(results / 'pred.json', content)
    report = score_files('vipseg', [truth], results)
    assert report.figures['DetA'] == report.figures['IDF1'] == 1


def test_a_missing_panoptic_video_is_missed_and_named(tmp_path):
    truth, results = write_vipseg(tmp_path)
    content = json.loads((results / 'pred.json').read_text())
    content['annotations'] = content['annotations'][1:]
    write_json(results / 'pred.json', content)
    report = score_files('vipseg', [truth], results)
    assert report.notes == ['1 video without results, whose objects count as missed: a.']
    # Half of all is there: PQ = 1 TP / (1 TP + 1/2 FN).
    assert report.figures['VPQ'] == pytest.approx(2 / 3)
    assert report.figures['AQ'] == pytest.approx(1 / 2)
    assert report.figures['ML'] == 2
    chosen = score_files('vipseg', [truth], results, video_ids={'b'})
    assert (chosen.figures['VPQ'], chosen.notes) == (1, [])


def test_true_pngs_may_lie_elsewhere(tmp_path):
    truth, results = write_vipseg(tmp_path)
    masks = tmp_path / 'masks'
    (truth.parent / 'panomasksRGB').rename(masks)
    assert score_files('vipseg', [truth], results, masks).figures['VPQ'] == 1
    with pytest.raises(DatasetError, match='panomasksRGB'):
        score_files('vipseg', [truth], results)


def test_images_of_coco_are_videos_of_one_frame(tmp_path):
    # In image 5 a cat is found; in image 6 a crowd takes what is predicted on it out of AP.
    mask, annotations, results = disc(10), [], []
    for number, is_crowd in ((5, 0), (6, 1)):
        annotations.append(
            {
                'id': number,
                'image_id': number,
                'category_id': 1,
                'iscrowd': is_crowd,
                'area': int(mask.sum()),
                'bbox': [0, 0, 1, 1],
                'segmentation': rle(mask),
            }
        )
        shared = {'video_id': number, 'category_id': 1, 'score': 0.5}
        results.append({**shared, 'segmentations': [rle(mask)]})
    images = [
        {'id': number, 'height': SIZE[0], 'width': SIZE[1], 'file_name': f'{number}.jpg'}
        for number in (5, 6)
    ]
    truth = {
        'images': images,
        'annotations': annotations,
        'categories': [{'id': 1, 'name': 'cat'}],
    }
    report = score_instances(tmp_path, truth, results)
    assert (report.figures['AP'], report.figures['HOTA'], report.figures['MT']) == (1, 1, 2)
    assert list(report.per_video) == ['5', '6']
    assert report.notes[0].startswith('Crowds (1)')


def test_panoptic_images_of_coco(tmp_path):
    ids = panoptic_ids(0)
    images = [{'id': 5, 'height': SIZE[0], 'width': SIZE[1], 'file_name': '5.jpg'}]
    segments = panoptic_frame(ids)
    annotation = {'image_id': 5, 'file_name': '5.png', 'segments_info': segments}
    truth = write_json(
        tmp_path / 'panoptic_val.json',
        {'images': images, 'annotations': [annotation], 'categories': CATEGORIES},
    )
    write_ids(tmp_path / 'panoptic_val' / '5.png', ids)
    write_ids(tmp_path / 'results' / 'pan_pred' / '5' / '5.png', ids)
    frames = [{'file_name': '5.png', 'segments_info': segments}]
    write_json(
        tmp_path / 'results' / 'pred.json',
        {'annotations': [{'video_id': '5', 'annotations': frames}]},
    )
    for family in ('vipseg', 'coco_panoptic'):
        report = score_files(family, [truth], tmp_path / 'results')
        assert report.family == 'coco_panoptic'
        assert list(report.figures)[:6] == ['PQ', 'SQ', 'RQ', 'PQ_th', 'SQ_th', 'RQ_th']
        assert {report.figures[name] for name in ('PQ', 'RQ_th', 'SQ_st', 'HOTA')} == {1}
        assert [entry['PQ'] for entry in report.per_class] == [1, 1]


def test_perfect_semantic(tmp_path):
    truth, results = write_vspw(tmp_path)
    report = score_files('vspw', [truth], results)
    # 9 frames have one window of 8 that counts, and none of 16.
    assert report.figures == {
        'mIoU': 1, 'FWIoU': 1, 'mVC8': 1, 'mVC16': None, 'mVC16_as_printed': 1
    }  # fmt: skip
    assert report.per_video == {name: {'name': name, 'mIoU': 1} for name in 'ab'}
    assert len(report.per_class) == 124
    assert [entry['category_id'] for entry in report.per_class if entry['IoU'] == 1] == [2, 6]
    assert ScoreReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_a_missing_semantic_video_is_missed_and_named(tmp_path):
    truth, results = write_vspw(tmp_path)
    shutil.rmtree(results / 'a')
    report = score_files('vspw', [truth], results, split='val')
    assert report.notes == ['1 video without results, whose objects count as missed: a.']
    assert report.figures['mIoU'] == report.figures['FWIoU'] == report.figures['mVC8'] == 1 / 2
    counts = np.array(report.confusion['counts'])
    assert report.confusion['category_ids'] == [2, 6]
    assert (counts[:2, 2] == counts.diagonal()[:2]).all() and counts[0, 0] > 0 == counts[2].sum()
    assert report.per_video == {'a': {'name': 'a', 'mIoU': 0}, 'b': {'name': 'b', 'mIoU': 1}}
    assert score_files('vspw', [truth], results, video_ids=['b']).figures['mIoU'] == 1


def test_every_frame_that_cannot_be_scored_is_named(tmp_path):
    truth, results = write_vspw(tmp_path)
    paths = [results / 'a' / '00000001.png', results / 'b' / '00000002.png']
    for path in paths:
        path.write_bytes(b'')
    with pytest.raises(DatasetError) as error:
        score_files('vspw', [truth], results)
    assert [fault.partition(':')[0] for fault in error.value.faults] == list(map(str, paths))
    assert pickle.loads(pickle.dumps(error.value)).faults == error.value.faults


def test_many_frames_that_cannot_be_scored_end_the_work(tmp_path):
    truth, results = write_vipseg(tmp_path)
    for path in (results / 'pan_pred').rglob('*.png'):
        path.write_bytes(b'')
    with pytest.raises(DatasetError, match='not looked at') as error:
        score_files('vipseg', [truth], results)
    assert len(error.value.faults) == 11


def test_a_missing_frame_is_an_error(tmp_path):
    truth, results = write_vspw(tmp_path)
    (results / 'b' / '00000003.png').unlink()
    with pytest.raises(DatasetError, match='00000003.png'):
        score_files('vspw', [truth], results)


def test_the_size_of_the_files_is_that_of_the_truth(tmp_path):
    truth, results = write_vipseg(tmp_path)
    write_ids(results / 'pan_pred' / 'a' / '00000000.png', np.ones((SIZE[0], 5), np.uint32))
    with pytest.raises(DatasetError, match='30 x 20'):
        score_files('vipseg', [truth], results)


@pytest.mark.parametrize('move', [lambda n: n - 10, lambda n: n + 2**40, lambda n: n - 2**70])
def test_ids_of_any_size_give_the_same_figures(tmp_path, move):
    truth = instances()
    truth['annotations'][1].update(category_id=1, iscrowd=1)
    results = predictions(truth)
    for result, other in ((0, 1), (1, 0)):
        segmentations = truth['annotations'][other]['segmentations']
        results[result]['segmentations'][5:] = segmentations[5:]
    expected = score_instances(tmp_path / 'usual', truth, results)
    for record in [*truth['videos'], *truth['categories'], *truth['annotations'], *results]:
        for field in ('id', 'video_id', 'category_id'):
            if field in record:
                record[field] = move(record[field])
    report = score_instances(tmp_path / 'moved', truth, results)
    assert report.figures == pytest.approx(expected.figures)
    assert len(report.switches) == len(expected.switches) > 0

    path, folder = write_vipseg(tmp_path / 'vipseg')
    usual = score_files('vipseg', [path], folder).figures
    for file in (path, folder / 'pred.json'):
        content = json.loads(file.read_text())
        records = [
            segment
            for video in content['annotations']
            for frame in video['annotations']
            for segment in frame['segments_info']
        ]
        for segment in records:
            segment['category_id'] = move(segment['category_id'])
        for category in content.get('categories', ()):
            category['id'] = move(category['id'])
        file.write_text(json.dumps(content))
    assert score_files('vipseg', [path], folder).figures == pytest.approx(usual)
