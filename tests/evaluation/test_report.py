from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from videomt_ros.datasets.masks import MaskTrack
from videomt_ros.datasets.synth import write_dataset
from videomt_ros.datasets.ytvis import load_ytvis, write_ytvis_results
from videomt_ros.datasets.ytvis_folders import ytvis_dataset
from videomt_ros.evaluation.glossary import GROUPS
from videomt_ros.evaluation.report import write_report
from videomt_ros.evaluation.score_report import COUNTS, FIGURES
from videomt_ros.evaluation.scoring import score_files

NUM_FRAMES = 6
SWITCH_AT = 3
PAPER = {'benchmark': 'YouTube-VIS 2019 val', 'AP': 52.8, 'AR10': 62.2}


class Page(HTMLParser):
    """A parsed report: every tag is closed, and all text is kept."""

    VOID = {'meta', 'img', 'br', 'hr', 'link'}

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.text = [], [], ''
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != 'style':
            self.text = ' '.join([*self.text.split(), *data.split()])

    def find(self, tag, style=''):
        return [
            attrs
            for name, attrs in self.tags
            if name == tag and set(style.split()) <= set((attrs.get('class') or '').split())
        ]

    @property
    def pictures(self):
        return [attrs['src'] for attrs in self.find('img')]


def decode_picture(uri):
    kind, _, data = uri.partition(',')
    assert kind == 'data:image/jpeg;base64'
    return np.array(Image.open(BytesIO(base64.b64decode(data))))


@pytest.fixture(scope='module')
def ytvis(tmp_path_factory):
    """A data set of seven videos; in all but the first, object 1 changes its track at frame 3."""
    root = tmp_path_factory.mktemp('ytvis') / 'data'
    write_dataset('ytvis', root, num_videos=7, num_frames=NUM_FRAMES)
    dataset = ytvis_dataset('ytvis2019', root, 'valid')
    truth = load_ytvis(dataset.truth[0])
    tracks = []
    for video in truth.videos:
        for number, track in enumerate(truth.tracks(video.video_id)):
            masks = list(track.masks)
            parts = [masks]
            if number == 0 and video.video_id > 1:
                parts = [
                    masks[:SWITCH_AT] + [None] * (NUM_FRAMES - SWITCH_AT),
                    [None] * SWITCH_AT + masks[SWITCH_AT:],
                ]
            tracks += [
                MaskTrack(video.video_id, track.category_id, part, 0.9, track_id=number)
                for part in parts
            ]
    out = root.parent / 'out'
    write_ytvis_results(out / 'live' / 'results.json', tracks)
    score = score_files('ytvis', dataset.truth, out / 'live' / 'results.json').to_json()
    return dataset, out, score


@pytest.fixture
def metrics(ytvis):
    return {
        'run': {
            'model': 'demo',
            'dataset': 'ytvis2019',
            'split': 'valid',
            'modes': ['live', 'published'],
            'num_videos': 7,
            'limit': None,
            'command': 'videomt evaluate --model demo --dataset ytvis2019',
            'settings': {'score_threshold': 0.5},
            'versions': {'torch': '2.15.0'},
            'hardware': {'cpu': 'Xeon'},
        },
        'live': ytvis[2],
        'published': ytvis[2],
        'failures': [],
        'timing_ms': {
            'network': {'p50': 38.25, 'mean': 39.5},
            'total': {'p50': 51.0, 'mean': 53.5},
        },
    }


@pytest.fixture
def report(tmp_path, ytvis):
    """Writes a report and reads it again."""

    def run(metrics, dataset=ytvis[0], out=ytvis[1], paper=PAPER):
        path = tmp_path / 'report.html'
        write_report(path, metrics, dataset, out, paper)
        html = path.read_text(encoding='utf-8')
        assert not re.search('(?:https?:)?//[a-z]', re.sub('data:image[^"]*', '', html))
        assert '@import' not in html and 'url(' not in html
        page = Page(html)
        assert not page.find('script') and not page.find('link')
        assert all(attrs['alt'] for attrs in page.find('img'))
        assert all(attrs['aria-label'] for attrs in page.find('svg') if 'role' in attrs)
        ids = [attrs['id'] for _, attrs in page.tags if 'id' in attrs]
        assert len(set(ids)) == len(ids)
        assert all(attrs['href'][1:] in ids for attrs in page.find('a'))
        return page

    return run


def test_every_figure_has_a_meaning():
    meant = [name for group in GROUPS for name in group.meanings]
    assert len(set(meant)) == len(meant)
    assert set(meant) == {name for names in FIGURES.values() for name in names}


def test_a_report_shows_all_that_was_found(report, metrics, ytvis, tmp_path):
    page = report(metrics)
    for name, value in ytvis[2]['figures'].items():
        shown = (
            '–' if value is None else f'{value:.0f}' if name in COUNTS else f'{100 * value:.1f}'
        )
        assert re.search(rf' {name} [^|]*?[.:] {shown} {shown} ', page.text), name
    assert re.search(r'\bAP Average precision.*?\. [\d.]+ [\d.]+ 52\.8 ', page.text)
    assert 'measured on YouTube-VIS 2019 val. It is comparable' in page.text
    assert 'network 38.2 39.5 total 51.0 53.5' in page.text
    for text in ('demo on ytvis2019', 'torch 2.15.0', 'score_threshold 0.5', 'hardware cpu Xeon'):
        assert text in page.text
    assert (tmp_path / 'report.html').stat().st_size < 3_000_000


def test_classes_are_sorted_and_those_without_objects_named(report, metrics):
    live = metrics['live'] | {
        'per_class': [
            {'category_id': 1, 'name': 'cat', 'AP': 0.25},
            {'category_id': 2, 'name': 'dog', 'AP': 0.5},
            {'category_id': 3, 'name': 'cow', 'AP': None},
        ]
    }
    page = report(metrics | {'live': live, 'published': {**live, 'per_class': []}})
    assert re.search('dog 50.0 cat 25.0 .*Nothing to score: cow', page.text)
    widths = [attrs['style'] for attrs in page.find('span', 'live') if 'style' in attrs]
    assert widths[:2] == ['width:50.0%', 'width:25.0%']


def test_curves_end_where_the_figures_do(report, metrics):
    recall = np.linspace(0, 1, 101)
    curves = {
        'recall': recall.tolist(),
        'precision': {
            '0.5': [1.0] * 101,
            '0.75': (1 - recall).tolist(),
            'mean': [0.5] * 51 + [0.0] * 50,
        },
    }
    page = report(metrics | {'live': {**metrics['live'], 'curves': curves}, 'published': {}})
    lines = {}
    for style in ('dashed', 'dotted', ''):
        attrs = [each for each in page.find('polyline', 'curve') if style in each['class']][-1]
        places = [tuple(map(float, pair.split(','))) for pair in attrs['points'].split()]
        assert len(places) == 101
        lines[style] = places
    (left, top), (right, _) = lines['dashed'][0], lines['dashed'][-1]
    bottom = lines['dotted'][-1][1]
    assert lines['dashed'][-1] == (right, top)
    assert lines['dotted'][0] == (left, top) and lines['dotted'][-1][0] == right
    assert lines[''][0] == (left, (top + bottom) / 2) and lines[''][-1] == (right, bottom)
    # The axes say so too: 100 % stands at the upper end and at the right end.
    ticks = page.find('line', 'axis')
    assert any(float(tick['x1']) == right and float(tick['y1']) == bottom for tick in ticks)


def test_names_from_files_are_escaped(report, metrics, ytvis):
    bad = '<script>alert(1)</script>"&'
    dataset, out, score = ytvis
    videos = [replace(video, name=f'{bad}{video.video_id}') for video in dataset.videos]
    named = [{**entry, 'name': f'{bad}{entry["name"]}'} for entry in score['per_class']]
    page = report(
        {
            'run': metrics['run'] | {'model': bad, 'command': bad},
            'live': {**score, 'per_class': named, 'notes': [bad]},
            'failures': [{'video': bad, 'mode': 'live', 'error': bad}],
            'timing_ms': {bad: {'p50': 1.0, 'mean': 1.0}},
        },
        dataset=replace(dataset, videos=videos),
        paper={'benchmark': bad, 'AP': 1.0},
    )
    assert page.text.count(bad) >= 10
