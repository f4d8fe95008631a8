"""Panoptic images of COCO: results as panopticapi has them, and their figures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.score_files import (
    CATEGORIES,
    SIZE,
    disc,
    panoptic_frame,
    panoptic_ids,
    write_ids,
    write_json,
)
from videomt_ros.cli import main
from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.dataset import DatasetError
from videomt_ros.evaluation.evaluator import evaluate
from videomt_ros.evaluation.run_folder import MODES
from videomt_ros.evaluation.scoring import score_files

IMAGES = (139, 285)


@pytest.fixture
def truth(tmp_path):
    """Write two images with their segments as COCO has them; returns the JSON."""
    path = tmp_path / 'data' / 'annotations' / 'panoptic_val2017.json'
    images, annotations = [], []
    for t, number in enumerate(IMAGES):
        name = f'{number:012d}'
        images.append(
            {'id': number, 'height': SIZE[0], 'width': SIZE[1], 'file_name': f'{name}.jpg'}
        )
        ids = panoptic_ids(t)
        write_ids(path.with_suffix('') / f'{name}.png', ids)
        annotations.append(
            {
                'image_id': number,
                'file_name': f'{name}.png',
                'segments_info': panoptic_frame(ids),
            }
        )
        picture = np.random.default_rng(t).integers(0, 256, (*SIZE, 3), np.uint8)
        (tmp_path / 'data' / 'val2017').mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / 'data' / 'val2017' / f'{name}.jpg')
    content = {'images': images, 'annotations': annotations, 'categories': CATEGORIES}
    return write_json(path, content)


def as_panopticapi(truth, path, folder, *, wrapped=True, as_text=False):
    """Write the truth as results in the form of panopticapi: a JSON and a folder of PNGs."""
    entries = []
    for entry in json.loads(truth.read_text())['annotations']:
        number, name = entry['image_id'], entry['file_name']
        # A writer may leave out all but what panopticapi reads.
        segments = [
            {'id': each['id'] + 500, 'category_id': each['category_id']}
            for each in entry['segments_info']
        ]
        ids = panoptic_ids(IMAGES.index(number))
        write_ids(folder / name, ids + np.uint32(500))
        entries.append(
            {
                'image_id': name[:-4] if as_text else number,
                'file_name': name,
                'segments_info': segments,
            }
        )
    return write_json(path, {'annotations': entries} if wrapped else entries)


def score(truth, results, **options):
    return score_files('coco_panoptic', [truth], results, **options)


@pytest.mark.parametrize('wrapped', [True, False])
@pytest.mark.parametrize('as_text', [True, False])
def test_results_of_panopticapi_are_read_from_where_they_lie(truth, tmp_path, wrapped, as_text):
    form = {'wrapped': wrapped, 'as_text': as_text}
    beside = as_panopticapi(truth, tmp_path / 'a/pred.json', tmp_path / 'a/pred', **form)
    inside = as_panopticapi(
        truth, tmp_path / 'b/pred/predictions.json', tmp_path / 'b/pred', **form
    )
    named = as_panopticapi(truth, tmp_path / 'c/mine.json', tmp_path / 'c/mine', **form)
    for place in (beside, beside.parent, inside, inside.parent, named, named.with_suffix('')):
        report = score(truth, place)
        assert report.family == 'coco_panoptic'
        assert {report.figures[name] for name in ('PQ', 'SQ', 'RQ', 'PQ_th', 'PQ_st')} == {1}


def test_what_is_wrong_in_the_results_of_one_image_costs_that_image(truth, tmp_path):
    path = as_panopticapi(truth, tmp_path / 'out/pred.json', tmp_path / 'out/pred')
    png = tmp_path / 'out/pred' / f'{IMAGES[1]:012d}.png'
    png.unlink()
    with pytest.raises(DatasetError, match=png.name):
        score(truth, path)
    report = score(truth, path, is_strict=False)
    assert [each['video'] for each in report.failures] == [str(IMAGES[1])]
    assert report.figures['PQ'] == pytest.approx(2 / 3)  # 1 of 2 found: 1 / (1 + 1/2)
    assert report.figures['SQ'] == 1
    content = json.loads(path.read_text())
    content['annotations'] = [content['annotations'][0], {**content['annotations'][0]}]
    write_json(path, content)
    with pytest.raises(DatasetError, match='expected one result, got another one'):
        score(truth, path, is_strict=False)


def test_the_true_mask_of_one_image_costs_that_image(truth, tmp_path):
    path = as_panopticapi(truth, tmp_path / 'out/pred.json', tmp_path / 'out/pred')
    (truth.with_suffix('') / f'{IMAGES[0]:012d}.png').write_bytes(b'')
    report = score(truth, path, is_strict=False)
    assert [(each['video'], each['side']) for each in report.failures] == [
        (str(IMAGES[0]), 'truth')
    ]
    assert report.figures['PQ'] == 1


def test_pq_heads_the_printed_table(truth, tmp_path, capsys):
    path = as_panopticapi(truth, tmp_path / 'out/pred.json', tmp_path / 'out/pred')
    ids = panoptic_ids(0)
    ids[disc(6)] = 11  # the left cat becomes wall
    write_ids(tmp_path / 'out/pred' / f'{IMAGES[0]:012d}.png', ids + np.uint32(500))
    content = json.loads(path.read_text())
    content['annotations'][0]['segments_info'] = [
        each for each in content['annotations'][0]['segments_info'] if each['id'] != 512
    ]
    write_json(path, content)
    for benchmark in ('coco_panoptic', 'vipseg'):
        options = ['--benchmark', benchmark, '--truth', str(truth), '--results', str(path)]
        assert main(['score', *options]) == 0
        printed = capsys.readouterr().out.splitlines()
        assert printed[0].split() == ['Panoptic', 'all', 'things', 'stuff']
        assert [line.split()[0] for line in printed[1:4]] == ['PQ', 'SQ', 'RQ']
        # 3 of 4 cats: PQ 3 / (3 + 1/2).
        assert printed[3].split()[2] == f'{100 * 3 / 3.5:.1f}'
        assert printed[-1].startswith('PQ ')
        assert 'VPQ' not in '\n'.join(printed)


def test_an_evaluation_of_images_has_pq_at_its_head(truth, tiny_net, tmp_path):
    content = json.loads(truth.read_text())
    content['categories'][1]['name'] = 'circle'
    write_json(truth, content)
    dataset = open_dataset('coco_panoptic', tmp_path / 'data')
    out = tmp_path / 'out'
    metrics = evaluate(dataset, tiny_net, out, settings={'score_threshold': 0.0})
    for mode in MODES:
        assert metrics[mode]['benchmark'] == 'coco_panoptic'
        assert list(metrics[mode]['figures'])[0] == 'PQ'
        assert metrics[mode]['figures']['PQ'] is not None
        assert score(truth, out / mode).figures == metrics[mode]['figures']
    assert any('--set confirm_frames=1' in note for note in metrics['run']['notes'])
    page = (out / 'report.html').read_text()
    assert 'PQ, published' in page
    assert 'VPQ' not in page
