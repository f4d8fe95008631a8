"""Evaluations of data sets as people have them: odd ids, files that vanish or cannot be read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from videomt_ros.cli.evaluate import print_failures, print_result
from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.dataset import Dataset, DatasetError
from videomt_ros.datasets.formats.vspw import load_vspw
from videomt_ros.datasets.mask_png import write_mask
from videomt_ros.datasets.synthetic.writing import write_dataset
from videomt_ros.evaluation.evaluator import evaluate
from videomt_ros.evaluation.families import family_of
from videomt_ros.evaluation.merging import find_shards, merge_shards
from videomt_ros.evaluation.real_time import RealTime
from videomt_ros.evaluation.run_folder import MODES, ShardNumber
from videomt_ros.evaluation.scoring import score_files
from videomt_ros.evaluation.sharding import Shard

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


@pytest.mark.parametrize(
    ('new_ids', 'crowd'),
    [
        (lambda number: number, None),
        (lambda number: 2**31 + number, 0),
        (lambda number: 2**62 + 2**32 * number, None),
        (lambda number: -number, 0),
        (lambda number: (0, 2**63, -(2**65), 2**70)[number] if number < 4 else 2**99 + number, 0),
    ],
    ids=['from 0', 'from 2^31', '64 bits', 'negative', 'larger'],
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


MASKED = ('vipseg', 'vspw')


def masks_of(root, name):
    """List the true masks of the second video of a data set, by name."""
    if name == 'vipseg':
        [_, folder, *_] = sorted((root / 'panomasksRGB').iterdir())
    else:
        [_, folder, *_] = sorted(each / 'mask' for each in (root / 'data').iterdir())
    return sorted(folder.iterdir())


def name_of(mask, name):
    return mask.parent.name if name == 'vipseg' else mask.parent.parent.name


def in_other_mode(path):
    image = Image.open(path)
    image.convert('L' if image.mode == 'RGB' else 'RGB').save(path)


def with_an_unknown_value(path):
    pixels = np.array(Image.open(path))
    pixels[:2, :2] = 99
    Image.fromarray(pixels).save(path)


def as_a_palette_of_other_numbers(path):
    """Write an image of the same look, whose bytes are places in a palette of its own."""
    image = Image.open(path).convert('RGB').quantize(20)
    places = np.array(image).astype(np.uint8) + 90
    other = Image.fromarray(places, 'P')
    other.putpalette([0] * 3 * 90 + image.getpalette())
    other.save(path)


def smaller(path):
    Image.open(path).resize((40, 32)).save(path)


BREAKERS = {
    'other mode': in_other_mode,
    'empty': lambda path: path.write_bytes(b''),
    'cut off': lambda path: path.write_bytes(path.read_bytes()[:-30]),
    'unknown value': with_an_unknown_value,
    'palette': as_a_palette_of_other_numbers,
    'other size': smaller,
    'missing': lambda path: path.unlink(),
    'no folder': lambda path: shutil.rmtree(path.parent),
}


def without_second(root, name):
    """Remove the second video from the lists of a data set."""
    if name == 'vspw':
        path = root / 'val.txt'
        names = path.read_text().splitlines()
        path.write_text(''.join(f'{each}\n' for each in (names[0], *names[2:])))
        return
    path = root / 'panoptic_gt_VIPSeg_val.json'
    content = json.loads(path.read_text())
    for key in ('videos', 'annotations'):
        del content[key][1]
    path.write_text(json.dumps(content))


def figures_of_others(sound, net, tmp_path, name):
    """Compute the figures of a data set without its second video."""
    root = shutil.copytree(sound / name, tmp_path / 'others')
    without_second(root, name)
    return figures_of(
        evaluate(open_dataset(name, root), net, tmp_path / 'of_others', settings=SETTINGS)
    )


@pytest.mark.parametrize('breaker', BREAKERS)
@pytest.mark.parametrize('name', MASKED)
def test_a_video_whose_truth_cannot_be_used_is_left_out_and_told_before_the_first_frame(
    tiny_net, copied, sound, tmp_path, caplog, name, breaker
):
    root = copied(name)
    mask = masks_of(root, name)[1]
    video = name_of(mask, name)
    BREAKERS[breaker](mask)
    net, out = tiny_net, tmp_path / 'out'
    told = []
    hook = net.class_head.register_forward_hook(
        lambda *_: told.append(f'Video {video} cannot be scored' in caplog.text)
    )
    dataset = open_dataset(name, root, keep_faulty=True)
    metrics = evaluate(dataset, net, out, settings=SETTINGS)
    hook.remove()
    assert told and all(told)
    assert figures_of(metrics) == figures_of_others(sound, net, tmp_path, name)
    [failure] = metrics['failures']
    assert (failure['video'], failure['mode']) == (video, 'truth')
    assert mask.name in failure['error'] or breaker == 'no folder'
    assert 'truth of 1 video cannot be used' in (out / 'report.html').read_text()
    assert print_result(metrics, MODES, {}, out) == 0
    # Results are there, and `score` says the same of them.
    scored = score_files(
        dataset.family, dataset.truth, out / 'live', split=dataset.split, is_strict=False
    )
    assert scored.figures == metrics['live']['figures']
    assert [each['video'] for each in scored.failures] == [video]
    assert any(note.startswith('1 video without usable truth') for note in scored.notes)
    with pytest.raises(DatasetError):
        score_files(dataset.family, dataset.truth, out / 'live', split=dataset.split)


@pytest.mark.parametrize('name', MASKED)
def test_a_mended_truth_is_scored_by_a_resumed_run(tiny_net, copied, tmp_path, name):
    root = copied(name)
    net = tiny_net
    whole = evaluate(open_dataset(name, root), net, tmp_path / 'whole', settings=SETTINGS)
    mask = masks_of(root, name)[1]
    kept = mask.read_bytes()
    mask.unlink()
    out = tmp_path / 'out'
    evaluate(open_dataset(name, root, keep_faulty=True), net, out, settings=SETTINGS)
    mask.write_bytes(kept)
    mended = open_dataset(name, root, keep_faulty=True)
    metrics = evaluate(mended, net, out, settings=SETTINGS, resume=True)
    assert metrics['run']['num_resumed'] == NUM_VIDEOS
    assert figures_of(metrics) == figures_of(whole)
    assert metrics['failures'] == []


@pytest.mark.parametrize('name', MASKED)
def test_a_truth_of_which_nothing_can_be_used_ends_the_run_before_the_first_frame(
    tiny_net, copied, tmp_path, name
):
    root = copied(name)
    for path in root.rglob('*.png'):
        if 'mask' in str(path.relative_to(root)):
            path.write_bytes(b'')
    dataset = open_dataset(name, root, keep_faulty=True)
    with pytest.raises(DatasetError, match='Expected an image that Pillow can read'):
        evaluate(dataset, tiny_net, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('breaker', ['missing', 'empty', 'no folder'])
@pytest.mark.parametrize('name', BENCHMARKS)
def test_a_missing_or_empty_image_costs_its_video_alone(
    tiny_net, copied, tmp_path, name, breaker, caplog, capsys
):
    root = copied(name)
    images = sorted(root.rglob('*.jpg'))
    BREAKERS[breaker](images[NUM_FRAMES])
    dataset = open_dataset(name, root, keep_faulty=True)
    metrics = evaluate(dataset, tiny_net, tmp_path / 'out', settings=SETTINGS)
    video = dataset.videos[1].name
    assert [(each['video'], each['mode']) for each in metrics['failures']] == [
        (video, mode) for mode in MODES
    ]
    assert all(each['error'] for each in metrics['failures'])
    # Both modes fail for one reason, which is told once when it happens and once at the end.
    assert len([line for line in caplog.messages if 'failed (' in line]) == 1
    capsys.readouterr()
    print_failures(metrics['failures'])
    (line,) = capsys.readouterr().err.splitlines()
    error = metrics['failures'][0]['error']
    assert line == f'Failed, counted as missed: {video} ({", ".join(MODES)}): {error}'
    for mode in MODES:
        assert [note for note in metrics[mode]['notes'] if 'without results' in note] == [
            f'1 video without results, whose objects count as missed: {video}.'
        ]
    # Those that learn from the videos, or write them as bags, need all of them.
    if breaker != 'empty':
        with pytest.raises(DatasetError, match='image'):
            open_dataset(name, root)


@pytest.mark.parametrize('name', MASKED)
def test_a_result_that_cannot_be_used_counts_as_missed(tiny_net, copied, tmp_path, name):
    root, out = copied(name), tmp_path / 'out'
    dataset = open_dataset(name, root)
    evaluate(dataset, tiny_net, out, settings=SETTINGS, modes=('live',))
    files = sorted((out / 'live').rglob('*.png'))
    whole_of_second = files[NUM_FRAMES].parent

    def score(**options):
        return score_files(
            dataset.family, dataset.truth, out / 'live', split=dataset.split, **options
        )

    for breaker in ('empty', 'missing'):
        BREAKERS[breaker](files[NUM_FRAMES + 1])
        with pytest.raises(DatasetError, match=files[NUM_FRAMES + 1].name):
            score()
        broken = score(is_strict=False)
        [failure] = broken.failures
        assert (failure['video'], failure['side']) == (dataset.videos[1].name, 'results')
        assert files[NUM_FRAMES + 1].name in failure['error']
        assert any('objects count as missed' in note for note in broken.notes)
    if name == 'vspw':
        shutil.rmtree(whole_of_second)
        assert score().figures == broken.figures


def test_the_check_names_what_cannot_be_decoded_of_many_frames(tmp_path):
    for video in ('a', 'b'):
        for frame in range(300):
            path = tmp_path / 'data' / video / 'mask' / f'{frame:05d}.png'
            write_mask(path, np.ones((4, 4), np.uint8))
    (tmp_path / 'val.txt').write_text('a\nb\n')
    path.write_bytes(b'')
    truth = load_vspw(tmp_path)
    dataset = Dataset('made', 'vspw', truth.categories, truth.videos, (tmp_path,), split='val')
    steps = []
    found = family_of('vspw').check_truth(dataset, dataset.videos, lambda: steps.append(1))
    assert list(found) == ['b']
    assert str(path) in found['b']
    assert len(steps) == 2 * 300


@pytest.mark.parametrize('name', MASKED)
def test_a_shard_of_which_nothing_can_be_scored_is_no_hindrance_to_the_others(
    tiny_net, copied, tmp_path, name
):
    root = copied(name)
    masks_of(root, name)[1].write_bytes(b'')
    dataset = open_dataset(name, root, keep_faulty=True)
    whole = evaluate(dataset, tiny_net, tmp_path / 'whole', settings=SETTINGS)
    for index in (1, 2, 3):
        number = ShardNumber(index, 3)
        out = tmp_path / 'shards' / number.folder_name
        evaluate(dataset, tiny_net, out, settings=SETTINGS, shard=Shard(number=number))
    shards = find_shards(tmp_path / 'shards')
    merged = merge_shards(shards, dataset, tmp_path / 'merged', {})
    assert [merged[mode] for mode in MODES] == [whole[mode] for mode in MODES]
    assert merged['failures'] == whole['failures']
    assert [each['mode'] for each in merged['failures']] == ['truth']


@pytest.mark.parametrize('name', MASKED)
def test_a_video_of_which_nothing_is_there_costs_itself_alone(tiny_net, copied, tmp_path, name):
    root = copied(name)
    mask = masks_of(root, name)[0]
    video = name_of(mask, name)
    for folder in [each for each in root.rglob(video) if each.is_dir()]:
        shutil.rmtree(folder)
    dataset = open_dataset(name, root, keep_faulty=True)
    clock = RealTime(latency_ms=0.0, sweep_ms=(0.0,))
    metrics = evaluate(dataset, tiny_net, tmp_path / 'out', settings=SETTINGS, real_time=clock)
    assert {(each['video'], each['mode']) for each in metrics['failures']} == {
        (video, mode) for mode in ('truth', *MODES)
    }
    assert metrics['report_problems'] == []
    figures = metrics['live']['figures']
    assert figures == metrics['real_time']['scores']['figures']
