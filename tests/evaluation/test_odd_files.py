"""Evaluations of data sets as people have them: odd ids, files that vanish or cannot be read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.synthetic.writing import write_dataset
from videomt_ros.evaluation.evaluator import evaluate
from videomt_ros.evaluation.run_folder import MODES

NUM_VIDEOS, NUM_FRAMES = 3, 3
BENCHMARKS = {'ytvis2019': 'ytvis', 'vipseg': 'vipseg', 'vspw': 'vspw'}
SETTINGS = {'confirm_frames': 1, 'score_threshold': 0.0}


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    """The same small scenes as a data set of each family."""
    home = tmp_path_factory.mktemp('sound')
    for name, family in BENCHMARKS.items():
        write_dataset(family, home / name, NUM_VIDEOS, NUM_FRAMES, size=(64, 80))
    return home


@pytest.fixture
def copied(sound, tmp_path):
    """Copies the data set of a benchmark, so that a test can break it."""
    return lambda name: shutil.copytree(sound / name, tmp_path / name)


def figures_of(metrics):
    return {mode: metrics[mode]['figures'] for mode in MODES}


def with_ids(root, new_ids, crowd=None):
    """Give the annotations of a YouTube-VIS file other ids."""
    path = root / 'valid.json'
    content = json.loads(path.read_text())
    for number, annotation in enumerate(content['annotations']):
        annotation['id'] = new_ids(number)
        if number == crowd:
            annotation['iscrowd'] = 1
    path.write_text(json.dumps(content))


@pytest.mark.parametrize('crowd', [None, 0])
@pytest.mark.parametrize(
    'new_ids',
    [
        lambda number: number,
        lambda number: 2**31 + number,
        lambda number: 2**62 + 2**32 * number,
        lambda number: -number,
    ],
    ids=['from 0', 'from 2^31', '64 bits', 'negative'],
)
def test_ids_of_any_whole_number_give_the_same_figures_and_pictures(
    tiny_net, copied, tmp_path, new_ids, crowd
):
    root = copied('ytvis2019')
    pages = []
    for name, ids in (('usual', lambda number: number + 1), ('odd', new_ids)):
        with_ids(root, ids, crowd)
        dataset, out = open_dataset('ytvis2019', root), tmp_path / name
        metrics = evaluate(dataset, tiny_net, out, settings=SETTINGS)
        assert metrics['report_problems'] == metrics['failures'] == []
        pages.append((figures_of(metrics), (out / 'report.html').read_text().count('data:image')))
    assert pages[0] == pages[1]
    assert pages[0][1] > 0


def test_a_switch_of_an_object_of_any_id_is_told_with_its_numbers(tiny_net, copied, tmp_path):
    root = copied('ytvis2019')
    with_ids(root, lambda number: 2**40 * number)
    # Two results in place of one: each object changes its track in the second frame.
    dataset = open_dataset('ytvis2019', root)
    content = json.loads((root / 'valid.json').read_text())
    out = tmp_path / 'out'
    metrics = evaluate(dataset, tiny_net, out, settings=SETTINGS, modes=('live',))
    results = []
    for annotation in content['annotations']:
        masks = annotation['segmentations']
        for part in ([masks[0], None, None], [None, *masks[1:]]):
            results.append(
                {
                    'video_id': annotation['video_id'],
                    'category_id': annotation['category_id'],
                    'score': 0.9,
                    'segmentations': part,
                }
            )
    (out / 'live/results.json').write_text(json.dumps(results))
    from videomt_ros.evaluation.report.page import build_page
    from videomt_ros.evaluation.scoring import score_results

    score = score_results(dataset, dataset.videos, out / 'live/results.json')
    assert {switch['truth_id'] % 2**40 for switch in score.switches} == {0}
    page = build_page({**metrics, 'live': score.to_json()}, dataset, out, {})
    events = [text for entry in page['videos']['shown'] for pair in entry['pairs']
              for text in pair['events']]  # fmt: skip
    assert events and all('goes on as track' in text for text in events)


@pytest.mark.parametrize('name', BENCHMARKS)
def test_an_image_that_vanishes_after_inference_costs_its_picture_alone(
    tiny_net, copied, tmp_path, monkeypatch, name
):
    from videomt_ros.evaluation import finishing

    root = copied(name)
    whole = evaluate(open_dataset(name, root), tiny_net, tmp_path / 'whole', settings=SETTINGS)
    score = finishing.score_results
    images = sorted(root.rglob('*.jpg'))

    def score_and_lose(*args):
        """Score as usual; after inference, and before the pictures, two images are lost."""
        images[0].unlink(missing_ok=True)
        images[-1].write_bytes(b'no image')
        return score(*args)

    monkeypatch.setattr(finishing, 'score_results', score_and_lose)
    out = tmp_path / 'out'
    metrics = evaluate(open_dataset(name, root), tiny_net, out, settings=SETTINGS)
    assert figures_of(metrics) == figures_of(whole)
    assert metrics['failures'] == []
    assert len(metrics['report_problems']) == 2
    assert any('There is no such file' in problem for problem in metrics['report_problems'])
    assert json.loads((out / 'metrics.json').read_text()) == metrics
    page = (out / 'report.html').read_text()
    assert 'data:image' in page
    assert page.count('Missing in this report: ') == 2


def test_a_part_of_the_report_that_fails_costs_no_figure_and_no_other_part(
    tiny_net, copied, tmp_path, monkeypatch
):
    dataset = open_dataset('ytvis2019', copied('ytvis2019'))
    whole = evaluate(dataset, tiny_net, tmp_path / 'whole')

    def fail(*_, **__):
        raise KeyError(0)

    monkeypatch.setattr('videomt_ros.evaluation.report.page.class_bars', fail)
    monkeypatch.setattr('videomt_ros.evaluation.report.overlays.draw', fail)
    out = tmp_path / 'out'
    metrics = evaluate(dataset, tiny_net, out)
    assert figures_of(metrics) == figures_of(whole)
    assert metrics['report_problems'][0] == 'Classes: KeyError: 0'
    assert len(metrics['report_problems']) == 1 + NUM_VIDEOS
    page = (out / 'report.html').read_text()
    assert 'id="scores"' in page
    assert 'id="classes"' not in page


def test_a_report_that_cannot_be_written_costs_no_figure(tiny_net, copied, tmp_path, capsys):
    dataset = open_dataset('ytvis2019', copied('ytvis2019'))
    out = tmp_path / 'out'
    (out / 'report.html').mkdir(parents=True)
    metrics = evaluate(dataset, tiny_net, out)
    [problem] = metrics['report_problems']
    assert problem.startswith('There is no report.html: ')
    assert json.loads((out / 'metrics.json').read_text()) == metrics
    assert set(MODES) <= set(metrics)
    resumed = evaluate(replace(dataset), tiny_net, out, resume=True)
    assert figures_of(resumed) == figures_of(metrics)
