from __future__ import annotations

import base64
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from videomt_ros.datasets.dataset import Category
from videomt_ros.datasets.formats.vipseg import (
    PredictedVideo,
    load_vipseg,
    vipseg_dataset,
    write_pred_json,
)
from videomt_ros.datasets.formats.vspw import load_vspw, vspw_dataset
from videomt_ros.datasets.formats.ytvis import load_ytvis, write_ytvis_results
from videomt_ros.datasets.formats.ytvis_folders import ytvis_dataset
from videomt_ros.datasets.mask_png import write_ids, write_mask
from videomt_ros.datasets.rle import MaskTrack
from videomt_ros.datasets.synthetic.writing import write_dataset
from videomt_ros.evaluation.figures import COUNTS
from videomt_ros.evaluation.report.clip import MAX_BYTES
from videomt_ros.evaluation.report.page import write_report
from videomt_ros.evaluation.scoring import score_files

NUM_FRAMES = 6
SWITCH_AT = 3
REST = {'frames': 47, 'annotated': 47, 'without_result': 3}
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
        if self.open and self.open[-1] not in ('style', 'script'):
            self.text = ' '.join([*self.text.split(), *data.split()])

    def find(self, tag, style=''):
        return [
            attrs
            for name, attrs in self.tags
            if name == tag and set(style.split()) <= set((attrs.get('class') or '').split())
        ]

    @property
    def pictures(self):
        """The JPEGs of the pairs, without those at the top."""
        top = 2 * len(self.find('figure', 'hero')) - len(self.find('figure', 'hero single'))
        uris = [attrs['src'] for attrs in self.find('img')]
        return [uri for uri in uris[top:] if uri.startswith('data:image/jpeg')]

    @property
    def clips(self):
        return [uri for attrs in self.find('img') if 'webp' in (uri := attrs['src'])[:20]]


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
        assert len(page.find('script')) == len(page.find('table', 'sortable'))
        assert not any(page.find('script')) and not page.find('link')  # no script has a source
        assert all(attrs['alt'] for attrs in page.find('img'))
        assert all(attrs['aria-label'] for attrs in page.find('svg') if 'role' in attrs)
        ids = [attrs['id'] for _, attrs in page.tags if 'id' in attrs]
        assert len(set(ids)) == len(ids)
        assert all(attrs['href'][1:] in ids for attrs in page.find('a'))
        return page

    return run


def test_a_report_shows_all_that_was_found(report, metrics, ytvis, tmp_path):
    page = report(metrics)
    for name, value in ytvis[2]['figures'].items():
        shown = (
            '–' if value is None else f'{value:.0f}' if name in COUNTS else f'{100 * value:.1f}'
        )
        assert re.search(rf' {name} [^|]*?[.:] {shown} {shown} ', page.text), name
    assert re.search(r'\bAP Average precision.*?\. [\d.]+ [\d.]+ 52\.8 ', page.text)
    assert 'measured on YouTube-VIS 2019 val. This run scored drawn scenes' in page.text
    assert 'network 38.2 39.5 a live frame in all, once it is read 51.0 53.5' in page.text
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
    assert re.search(r'dog \d+ 50.0 cat \d+ 25.0 .*Nothing to score: cow', page.text)
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


def test_the_score_over_the_latency_is_drawn_and_listed(report, metrics):
    sweep = [
        {'latency_ms': ms, 'figure': value, 'processed': 40, 'dropped': ms // 10, **REST}
        for ms, value in ((0, 0.5), (100, 0.25), (400, None))
    ]
    clocked = {
        'factor': 2.0,
        'latency_ms': None,
        'measured_ms': {'p50': 31.5, 'mean': 33.0},
        'processed': 40,
        'dropped': 7,
        'failures': [{'video': 'v9', 'mode': 'real_time', 'error': 'ValueError: no frames'}],
        'scores': metrics['live'] | {'figures': {'AP': 0.125}},
        'sweep_figure': 'AP',
        'sweep': sweep,
        **REST,
    }
    page = report(metrics | {'real_time': clocked})
    assert 'played 2 times as fast' in page.text and '31.5 ms (median)' in page.text
    assert re.search(r'0 ms 50.0 40 0 3 100 ms 25.0 40 10 3 400 ms – 40 40 3', page.text)
    assert 'published live real time ×2 paper' in page.text and ' 12.5 52.8 ' in page.text
    assert 'v9 (real_time): ValueError: no frames' in page.text
    first, second = page.find('circle', 'dot real')  # x 0 and 100 of 100 ms, y 1/2 and 1/4
    assert float(second['cy']) - float(first['cy']) == pytest.approx((280 - 12 - 44) / 4, abs=0.2)


def test_the_worst_and_the_best_videos_have_pictures_beside_their_truth(report, metrics, ytvis):
    dataset, _, score = ytvis
    hota = {name: 0.1 * (place + 1) for place, name in enumerate(score['per_video'])}
    per_video = {name: {**entry, 'HOTA': hota[name]} for name, entry in score['per_video'].items()}
    page = report(metrics | {'live': {**score, 'per_video': per_video}})
    titles = [f'{dataset.videos[place].name} worst' for place in (0, 1, 2)]
    titles += [f'{dataset.videos[place].name} best' for place in (6, 5)]
    assert all(title in page.text for title in titles)
    assert (
        'The 3 worst and the 2 best of 7 videos by HOTA, live; the pictures are of that result.'
        in page.text
    )
    assert len(page.pictures) == 5 * 3 * 2
    for truth, live in zip(page.pictures[::2], page.pictures[1::2], strict=True):
        assert decode_picture(truth).shape == decode_picture(live).shape == (384, 480, 3)


def test_a_switch_is_told_and_marked_in_time_and_in_its_frame(report, metrics, ytvis):
    page = report(metrics)
    assert len(ytvis[2]['switches']) == 6
    # Each of the videos with pictures, but the best, which has none, has one on its timeline.
    assert len(page.find('line', 'event')) in (4, 5)
    assert len(page.find('span', 'switch')) == len(page.find('line', 'event'))
    assert re.search(r'frame 3 · identity switch: object \d+ goes on as track \d+, not', page.text)
    assert page.find('svg', 'timeline')[0]['aria-label'] == (
        f'1 identity switch in {NUM_FRAMES} frames, at frame {SWITCH_AT}'
    )


def test_a_missing_image_costs_its_own_picture_alone(report, metrics, ytvis, tmp_path):
    dataset = ytvis[0]
    shutil.copytree(dataset.truth[0].parent, tmp_path / 'data')
    broken = ytvis_dataset('ytvis2019', tmp_path / 'data', 'valid')
    images = sorted((tmp_path / 'data' / 'valid' / 'JPEGImages').glob('*'))[0]
    (images / '00005.jpg').write_bytes(b'no image')
    page = report(metrics | {'run': metrics['run'] | {'num_videos': 1}}, dataset=broken)
    assert len(page.pictures) == 2 * 2
    assert 'No picture of frame 5:' in page.text


def test_result_files_that_cannot_be_read_cost_the_pictures_alone(report, metrics, tmp_path):
    page = report(metrics, out=tmp_path)
    assert 'There are no pictures: ' in page.text and not page.pictures
    assert 'AP Average precision' in page.text and 'All 7 videos' in page.text


def test_a_truth_that_is_gone_costs_its_side_of_the_pictures(report, metrics, ytvis, tmp_path):
    page = report(metrics, dataset=replace(ytvis[0], truth=(tmp_path / 'gone.json',)))
    assert 'The truth cannot be shown: ' in page.text
    assert len(page.pictures) == 5 * 3


def test_a_split_without_truth_shows_predictions_only(report, metrics, ytvis):
    without = {key: value for key, value in metrics.items() if key not in ('live', 'published')}
    page = report(without, dataset=replace(ytvis[0], truth=()), paper={})
    assert len(page.pictures) == 5 * 3
    assert 'no truth: predictions only' in page.text
    assert 'Average precision' not in page.text
    headings = [attrs['id'] for attrs in page.find('section')]
    assert headings == ['speed', 'videos', 'run']


def test_a_report_of_almost_nothing_stands(report, ytvis, tmp_path):
    page = report({'run': {'modes': []}}, out=tmp_path, paper={})
    assert [attrs['id'] for attrs in page.find('section')] == ['run']


def test_the_title_says_when_the_data_are_drawn(report, metrics, ytvis):
    for dataset, title in (
        (ytvis[0], 'demo on ytvis2019 (drawn scenes) '),
        (replace(ytvis[0], is_drawn=False), 'demo on ytvis2019 7 videos'),
    ):
        text = report(metrics, dataset=dataset).text
        assert text.count('drawn') == ('drawn' in title) * 3 and title in text


@pytest.mark.parametrize(
    ('name', 'limit', 'verdict'),
    [
        ('ytvis2019', None, 'It is comparable with the column "published" if'),
        ('ytvis2021', None, 'This run scored other data: the two are not comparable.'),
        ('ytvis2019', 7, 'at most 7 of its videos, a sample: not comparable.'),
    ],
)
def test_what_is_not_comparable_is_said(report, metrics, ytvis, name, limit, verdict):
    run = metrics['run'] | {'limit': limit}
    page = report(metrics | {'run': run}, dataset=replace(ytvis[0], name=name, is_drawn=False))
    assert verdict in page.text


def test_a_report_of_a_node_says_nothing_of_the_papers_protocol(report, metrics):
    assert 'whole video before it decides' in report(metrics).text
    live = {key: value for key, value in metrics.items() if key != 'published'}
    run = metrics['run'] | {'modes': ['live']}
    assert 'whole video before it decides' not in report(live | {'run': run}).text


def test_each_of_several_annotation_files_has_its_row(report, metrics, ytvis):
    parts = {'valid_long': {'AP': 0.25, 'AP50': None}, 'valid_short': {'AP': 0.75}}
    page = report(metrics | {'live': {**metrics['live'], 'parts': parts}})
    assert 'valid_long, live 25.0 – ' in page.text and 'valid_short, live 75.0 ' in page.text


def test_panoptic_videos_are_shown_with_things_and_stuff(report, tmp_path):
    write_dataset('vipseg', tmp_path / 'data', num_videos=1, num_frames=8)
    dataset = vipseg_dataset('vipseg', tmp_path / 'data', 'val')
    truth, video = load_vipseg(dataset.truth[0]), dataset.videos[0]
    segments = [truth.segments(video.video_id, t) for t in range(8)]
    names = truth.videos[0].frame_names
    for t, name in enumerate(names):
        write_ids(
            tmp_path / 'live' / 'pan_pred' / video.video_id / name, truth.ids(video.video_id, t)
        )
    write_pred_json(tmp_path / 'live', [PredictedVideo(video.video_id, names, segments)])
    score = score_files('vipseg', dataset.truth, tmp_path / 'live').to_json()
    page = report(
        {'run': {'modes': ['live']}, 'live': score},
        dataset,
        tmp_path,
        {'benchmark': 'VIPSeg val', 'VPQ': 55.2},
    )
    assert re.search(r'VPQ Video panoptic quality.*? 100\.0 55\.2 VPQ_th', page.text)
    num_objects = len({segment['id'] for frame in segments for segment in frame})
    classes = page.text.partition('VPQ of each class')[2].partition(' Videos ')[0]
    assert sum(map(int, re.findall(r'(\d+) 100\.0', classes))) == num_objects
    # A perfect prediction looks like the truth: same numbers, same colours.
    pictures = [decode_picture(uri) for uri in page.pictures]
    assert len(pictures) == 6
    for true_view, view in zip(pictures[::2], pictures[1::2], strict=True):
        assert np.array_equal(true_view, view)


def test_semantic_videos_are_shown_with_one_colour_per_class(report, tmp_path):
    write_dataset('vspw', tmp_path / 'data', num_videos=1, num_frames=2)
    dataset = vspw_dataset('vspw', tmp_path / 'data', 'val')
    truth, video = load_vspw(tmp_path / 'data'), dataset.videos[0]
    for t, name in enumerate(truth.videos[0].frame_names):
        mask = truth.mask(video.video_id, t)
        write_mask(tmp_path / 'live' / video.video_id / name, np.where(mask, mask - 1, 255))
    score = score_files('vspw', dataset.truth, tmp_path / 'live', split='val').to_json()
    page = report(
        {'run': {'modes': ['live']}, 'live': score},
        dataset,
        tmp_path,
        {'benchmark': 'VSPW val', 'mVC16': 95.0, 'mIoU': 64.9},
    )
    assert re.search(r'mIoU Mean over classes.*? 100\.0 64\.9 FWIoU', page.text)
    # The paper's mVC16 is what the released script prints under that name.
    assert re.search(
        r'mVC16 The same over 16 frames\. – – mVC16_as_printed .*? – 95\.0', page.text
    )
    pictures = [decode_picture(uri) for uri in page.pictures]
    assert len(pictures) == 4
    for true_view, view in zip(pictures[::2], pictures[1::2], strict=True):
        assert np.array_equal(true_view, view)


def test_without_jinja2_the_error_names_it(report, metrics, monkeypatch):
    monkeypatch.setitem(sys.modules, 'jinja2', None)
    with pytest.raises(ModuleNotFoundError, match='jinja2'):
        report(metrics)


def with_hota(score, values):
    """Give each video another HOTA."""
    entries = score['per_video'].items()
    return {
        **score,
        'per_video': {
            name: {**entry, 'HOTA': value}
            for (name, entry), value in zip(entries, values, strict=True)
        },
    }


def test_the_picture_at_the_top_is_of_the_middle_video(report, metrics, ytvis):
    hota = [0.1, 0.5, 0.3, 0.2, 0.9, 0.8, 0.7]
    page = report(metrics | {'live': with_hota(ytvis[2], hota)})
    name = ytvis[0].videos[1].name
    assert f'{name}, frame 3: neither good nor bad, the middle of 7 videos by HOTA' in page.text
    first, second = page.find('img')[:2]
    assert first['alt'] == f'Frame 3 of {name} with its true objects'
    assert decode_picture(second['src']).shape == (384, 480, 3)
    assert len(page.find('figure', 'hero')) == 1


def test_a_video_without_images_leaves_the_top_to_another(report, metrics, ytvis, tmp_path):
    shutil.copytree(ytvis[0].truth[0].parent, tmp_path / 'data')
    broken = ytvis_dataset('ytvis2019', tmp_path / 'data', 'valid')
    scores = with_hota(ytvis[2], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    for path in (tmp_path / 'data' / 'valid' / 'JPEGImages' / broken.videos[3].name).iterdir():
        path.write_bytes(b'')
    page = report(metrics | {'live': scores}, dataset=broken)
    assert broken.videos[2].name in page.find('img')[0]['alt']
    assert 'neither good nor bad' not in page.text
    for path in (tmp_path / 'data' / 'valid' / 'JPEGImages').rglob('*.jpg'):
        path.write_bytes(b'')
    page = report(metrics | {'live': scores}, dataset=broken)
    assert not page.find('img') and page.text.count('No picture of frame') == 5 * 3


class Rows(HTMLParser):
    """The texts of the cells of each row of the tables of a class."""

    def __init__(self, html, style):
        super().__init__()
        self.style, self.rows, self.inside = style, [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == 'table':
            self.inside = self.style in (dict(attrs).get('class') or '').split()
        if tag == 'tr' and self.inside:
            self.rows.append([])
        if tag in ('td', 'th') and self.inside:
            self.rows[-1].append('')

    def handle_endtag(self, tag):
        self.inside &= tag != 'table'

    def handle_data(self, data):
        if self.inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def rows_of(tmp_path, style):
    return Rows((tmp_path / 'report.html').read_text(encoding='utf-8'), style).rows


def test_every_video_has_a_row_the_worst_first(report, metrics, ytvis, tmp_path):
    hota = [0.1, 0.5, 0.3, 0.2, None, 0.8, 0.7]
    failed = ytvis[0].videos[4].name
    failures = [
        {'video': failed, 'mode': mode, 'error': 'ValueError: <b>'}
        for mode in ('published', 'live')
    ]
    failures.append({'video': 'bag 9', 'mode': 'truth', 'error': 'There is no bag_9.json.'})
    scores = metrics | {'live': with_hota(ytvis[2], hota), 'failures': failures}
    page = report(scores)
    head, *rows = rows_of(tmp_path, 'sortable')
    figures = ['HOTA', 'IDF1', 'IDSW']
    modes = [f'{figure}, {mode}' for mode in ('live', 'published') for figure in figures]
    assert head == ['video', 'frames', *modes, 'problem']
    names = [video.name for video in ytvis[0].videos]
    assert [row[0] for row in rows] == [names[place] for place in (0, 3, 2, 1, 6, 5, 4)] + [
        'bag 9'
    ]
    hota = ['10.0', '20.0', '30.0', '50.0', '70.0', '80.0', '–', '–']
    assert [row[2] for row in rows] == hota
    assert [row[1] for row in rows] == [str(NUM_FRAMES)] * 7 + ['–']
    problems = ['published, live: ValueError: <b>', 'truth: There is no bag_9.json.']
    assert [row[-1] for row in rows] == [''] * 6 + problems
    assert 'All 8 videos' in page.text
    # Videos with pictures are linked, and each head has a button and tells its order.
    links = [attrs['href'] for attrs in page.find('a') if attrs['href'].startswith('#video-')]
    assert links == ['#video-1', '#video-2', '#video-3', '#video-5', '#video-4']
    assert len(page.find('button')) == len(head)
    assert [attrs.get('aria-sort') for attrs in page.find('th') if 'aria-sort' in attrs] == [
        'ascending'
    ]


def test_a_video_that_failed_has_a_row_but_no_pictures(report, metrics, ytvis, tmp_path):
    name = ytvis[0].videos[0].name
    scores = metrics | {'live': with_hota(ytvis[2], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])}
    failures = [{'video': name, 'mode': 'live', 'error': 'ValueError: no'}]
    page = report(scores | {'failures': failures})
    assert rows_of(tmp_path, 'sortable')[1][0] == name
    assert f'{ytvis[0].videos[1].name} worst' in page.text and f'{name} worst' not in page.text
    assert 'best of 6 videos' in page.text and len(page.clips) == 1
    # One that failed in the other mode alone has a result to show.
    failures[0]['mode'] = 'published'
    assert f'{name} worst' in report(scores | {'failures': failures}).text


def test_a_thousand_videos_fit_in_the_table(report, metrics, ytvis, tmp_path):
    dataset, _, score = ytvis
    videos = tuple(replace(dataset.videos[0], video_id=n, name=f'v{n}') for n in range(1, 1001))
    entry = score['per_video']['1']
    per_video = {str(n): {**entry, 'name': f'v{n}', 'HOTA': n / 1001} for n in range(1, 1001)}
    run = metrics['run'] | {'num_videos': 1000}
    scored = {**score, 'per_video': per_video}
    report(
        metrics | {'run': run, 'live': scored, 'published': scored},
        dataset=replace(dataset, videos=videos),
        out=tmp_path,
    )
    assert len(rows_of(tmp_path, 'sortable')) == 1001
    assert (tmp_path / 'report.html').stat().st_size < 2_000_000


def test_the_worst_video_has_a_clip(report, metrics, ytvis):
    page = report(metrics | {'live': with_hota(ytvis[2], [0.3, 0.1, 0.2, 0.4, 0.5, 0.6, 0.7])})
    (uri,) = page.clips
    kind, _, data = uri.partition(',')
    assert kind == 'data:image/webp;base64'
    content = base64.b64decode(data)
    assert len(content) <= MAX_BYTES
    clip = Image.open(BytesIO(content))
    assert clip.n_frames == NUM_FRAMES and clip.format == 'WEBP'
    (alt,) = (attrs['alt'] for attrs in page.find('img') if attrs['src'] == uri)
    assert alt == (
        f'Clip of {ytvis[0].videos[1].name}, frames 0 to 5, truth on the left, live on the right'
    )
    # People who do not want motion see one of its frames.
    (still,) = page.find('source')
    assert 'reduce' in still['media'] and decode_picture(still['srcset']).shape[1] == 646


def test_the_timeline_has_a_legend(report, metrics):
    page = report(metrics)
    for sign in ('frames of the video', 'identity switch: an object', 'frame shown below'):
        assert sign in page.text
    assert len(page.find('line', 'event-sign')) == 1
    assert len(page.find('svg', 'timeline')) == 5
    assert len(page.find('line', 'span')) == 2  # of the legend, and of the one clip


def test_the_confusion_of_classes_is_a_matrix(report, metrics, tmp_path):
    confusion = {
        'unit': 'masks',
        'category_ids': [1, 3],
        'counts': [[900, 97, 3], [0, 0, 2], [1, 3, 0]],
    }
    live = metrics['live'] | {'confusion': confusion}
    page = report(metrics | {'live': live, 'published': {}}, out=tmp_path)
    assert rows_of(tmp_path, 'confusion') == [
        ['true class', 'masks', 'circle', 'triangle', 'missed'],
        ['circle', '1,000', '90', '10', '<1'],
        ['triangle', '2', '', '', '100'],
        ['spurious', '4', '25', '75', ''],
    ]
    titles = [attrs['title'] for attrs in page.find('td', 'wrong') if 'title' in attrs]
    assert 'circle, triangle: 97 of 1,000 masks' in titles
    assert 'IoU with it is at least 0.5' in page.text and 'below 0.3' in page.text


def test_of_many_classes_the_largest_and_the_most_confused_are_shown(
    report, metrics, ytvis, tmp_path
):
    counts = np.zeros((125, 125), np.int64)
    counts[np.arange(124), np.arange(124)] = 1000 - np.arange(124)
    counts[100, 7] = 50
    counts[7, 124] = 5
    confusion = {
        'unit': 'pixels',
        'category_ids': list(range(124)),
        'counts': counts.tolist(),
    }
    names = tuple(Category(k, f'class {k}') for k in range(124))
    live = metrics['live'] | {'confusion': confusion}
    dataset = replace(ytvis[0], categories=names)
    page = report(metrics | {'live': live, 'published': {}}, dataset=dataset, out=tmp_path)
    head, *rows = rows_of(tmp_path, 'confusion')
    shown = [f'class {k}' for k in range(11)]
    assert head == ['true class', 'pixels', *shown, '113 others', 'missed']
    assert [row[0] for row in rows] == [*shown, '113 others']
    total = int(counts[11:].sum())
    assert rows[-1][1] == f'{total:,}' and rows[-1][2 + 7] == '<1'
    assert len(page.find('td', 'right')) == 11  # the others may be confused among themselves
    assert 'class 100 class 7 50 5.3' in page.text  # 50 of 900 + 50
    assert 'Missed: pixels without a predicted class' in page.text


def test_a_broken_confusion_costs_its_own_part(report, metrics, tmp_path):
    live = metrics['live'] | {'confusion': {'unit': 'masks'}}
    page = report(metrics | {'live': live}, out=tmp_path)
    assert 'Missing in this report: Confusion of classes: KeyError' in page.text
    assert page.find('section') and 'AP Average precision' in page.text


def test_notes_and_records_left_out_are_listed(report, metrics, ytvis, tmp_path):
    left_out = tuple(f'valid.json: Annotation {n}: <b>' for n in range(12))
    dataset = replace(ytvis[0], notes=('valid.json: no iscrowd & more',), left_out=left_out)
    page = report(metrics, dataset=dataset, out=tmp_path)
    assert '12 bad records of the data set were left out (--skip-bad)' in page.text
    assert all(line in page.text for line in left_out)
    assert 'Notes valid.json: no iscrowd & more' in page.text
    page = report(metrics, dataset=replace(dataset, left_out=left_out[:1]), out=tmp_path)
    assert '1 bad record of the data set was left out' in page.text
