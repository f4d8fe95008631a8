"""Tests of the table of families: a further family needs no change outside it."""

from __future__ import annotations

import ast
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import videomt_ros
from tests.evaluation.made_videos import MadeVideo, made_dataset
from videomt_ros.evaluation.evaluator import evaluate
from videomt_ros.evaluation.families import FAMILIES, family_of
from videomt_ros.evaluation.families.family import Family, Label, TruthLabels
from videomt_ros.evaluation.figures import COUNTS, TRACKING, Group
from videomt_ros.evaluation.real_time import RealTime
from videomt_ros.evaluation.score_report import ScoreReport
from videomt_ros.structures import Segments

PACKAGE = Path(videomt_ros.__file__).parent
HOMES = ('evaluation/families/', 'datasets/formats/', 'model/config_completion.py')
"""The modules of the families, the readers of their files, and what looks at lists of classes."""
TABLES = {
    'datasets/bags/fleet_truth.py',
    'datasets/bags/truth_formats.py',
    'datasets/synthetic/writing.py',
    'training/clip_truth.py',
}
"""Files that have one object or function per family in one table."""


class Boxes(Family):
    """A made-up family: the box of all tracks of each frame, in one text file per video."""

    name = 'boxes'
    task = 'instance'
    group = Group('Boxes', {'BoxShare': 'Share of the frames that have a box.'})
    main_figure = class_figure = 'BoxShare'
    logged_figures = ('BoxShare',)
    has_tracks = False
    comparison_note = 'Boxes say nothing of shapes.'

    def new_results(self, folder, video, categories):
        return BoxResults(folder)

    def live_video(self, results, classes):
        return results

    def write_published(self, ended, results, classes):
        [pair] = ended.choose_pairs(classes.usable)[:1]
        for index, [mask] in ((k, list(masks)) for k, masks in ended.instance_masks([pair.query])):
            results.add(index, mask)
        return results.finish()

    def video_folder(self, target, part, video):
        return target / 'boxes' / video.name

    def write_files(self, target, videos):
        names = [video.name for video, folder, _ in videos if (folder / 'boxes.txt').exists()]
        (target / 'videos.txt').write_text('\n'.join(names))
        return target

    def score(self, request):
        rows = [path.read_text() for path in sorted(request.results.glob('boxes/*/boxes.txt'))]
        share = np.mean([row != '[]' for rows_of in rows for row in rows_of.splitlines()])
        per_class = [
            {'category_id': 10, 'name': 'circle', 'is_thing': True, 'BoxShare': float(share)}
        ]
        return ScoreReport(self.name, self.select({'BoxShare': float(share)}), per_class, {})

    def load_truth(self, dataset, videos):
        return TruthLabels(self.load_results(None, dataset), Counter({10: 1}))

    def load_results(self, folder, dataset):
        return BoxLabels()


class BoxResults:
    def __init__(self, folder):
        folder.mkdir(parents=True)
        self._path, self._boxes = folder / 'boxes.txt', {}

    def add(self, index, found):
        mask = found.ids > 0 if isinstance(found, Segments) else found
        rows, columns = np.nonzero(mask)
        sides = [columns.min(), rows.min(), columns.max(), rows.max()] if rows.size else []
        self._boxes[index] = [int(side) for side in sides]

    def finish(self):
        self._path.write_text('\n'.join(map(str, self._boxes.values())))
        return {'num_boxes': len(self._boxes)}

    def abort(self):
        pass


class BoxLabels:
    def frame(self, video, index):
        keys = np.zeros(video.size, np.int64)
        keys[5:20, 5:20] = 1
        return keys, [Label(1, 'circle', True, None)]


@pytest.fixture
def boxes(monkeypatch):
    """Adds the made-up family to the table."""
    monkeypatch.setitem(FAMILIES, 'boxes', Boxes())


def test_a_further_family_is_a_class_and_a_line(boxes, tiny_net, tmp_path):
    videos = [MadeVideo(video_id=k, seed=k, num_frames=4) for k in (1, 2)]
    dataset = replace(made_dataset('boxes', videos), truth=(tmp_path / 'truth',))
    clock = RealTime(latency_ms=0.0, sweep_ms=(0.0,))
    settings = {'confirm_frames': 1, 'score_threshold': 0.0}
    out = tmp_path / 'out'
    metrics = evaluate(dataset, tiny_net, out, settings=settings, real_time=clock)
    assert metrics['failures'] == []
    assert json.loads((out / 'metrics.json').read_text()) == metrics
    for mode in ('published', 'live', 'real_time'):
        assert (out / mode / 'videos.txt').read_text() == 'video_1\nvideo_2'
        assert len((out / mode / 'boxes/video_2/boxes.txt').read_text().splitlines()) == 4
    assert metrics['published']['benchmark'] == 'boxes'
    assert list(metrics['live']['figures']) == ['BoxShare']
    assert metrics['real_time']['sweep_figure'] == 'BoxShare'
    page = (out / 'report.html').read_text()
    for text in ('BoxShare, live', 'Share of the frames', 'Boxes say nothing', 'data:image/jpeg'):
        assert text in page


def test_a_name_without_a_family_is_refused():
    with pytest.raises(ValueError, match="out of ytvis, vipseg, coco_panoptic, vspw, got 'boxes'"):
        family_of('boxes')


@pytest.mark.parametrize('family', FAMILIES.values(), ids=FAMILIES)
def test_each_family_says_what_its_figures_mean(family):
    assert family_of(family.name) is family
    assert set(family.group.meanings) <= set(family.figures)
    assert {family.main_figure, *family.logged_figures} <= set(family.figures)
    assert set(family.paper_names.values()) <= set(family.figures)
    tracking = TRACKING if family.has_tracks else ()
    assert family.figures[len(family.group.meanings) :] == tracking


@pytest.mark.parametrize('family', FAMILIES.values(), ids=FAMILIES)
def test_each_figure_stands_in_one_group(family):
    names = [name for group in family.groups for name in group.meanings]
    assert len(names) == len(set(names))
    assert set(names) == set(family.figures)
    assert set(COUNTS) < set(TRACKING)


def test_nothing_outside_the_tables_tells_families_apart():
    """No name of a family is compared, or is the key of a dictionary, anywhere else."""
    found = []
    for path in PACKAGE.rglob('*.py'):
        place = path.relative_to(PACKAGE).as_posix()
        if not place.startswith(HOMES):
            tree = ast.parse(path.read_text(encoding='utf-8'))
            found += [f'{place}:{line}' for line in switches(tree, place in TABLES)]
    assert found == []


def switches(tree, may_have_a_table):
    """Yield the lines that compare the name of a family, or look something up by it."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left, _, others):
                names = constants([left, *others])
                yield from [node.lineno] if names & set(FAMILIES) else []
            case ast.MatchValue(value):
                yield from [value.lineno] if constants([value]) & set(FAMILIES) else []
            case ast.Dict(keys) if not may_have_a_table:
                # vipseg and vspw are names of data sets, too.
                yield from [node.lineno] if 'ytvis' in constants(keys) else []


def constants(nodes):
    return {node.value for node in nodes if isinstance(node, ast.Constant)}
