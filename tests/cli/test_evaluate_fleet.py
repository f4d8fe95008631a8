"""`videomt evaluate --bags`: the bags of a fleet are one data set."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.cli.evaluations import NAMES, arguments, write_roots
from videomt_ros.cli import main
from videomt_ros.datasets.bags.writing import make_bags
from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.evaluation.scoring import score_files


@pytest.fixture(scope='module')
def roots(tmp_path_factory):
    """Three scenes in three formats."""
    return write_roots(tmp_path_factory.mktemp('data'), 3, 4)


@pytest.fixture(scope='module')
def fleets(roots, tmp_path_factory):
    """The same as bags, one of them in a folder of its own, by the name of the data set."""
    home = tmp_path_factory.mktemp('fleets')
    for name in NAMES:
        dataset = open_dataset(name, roots[name])
        make_bags(dataset, home / name)
        first, *_ = dataset.videos
        if name == 'ytvis2019':
            (home / name / 'depot').mkdir()
            for end in ('', '.json'):
                shutil.move(home / name / f'{first.name}{end}', home / name / 'depot')
    return {name: home / name for name in NAMES}


@pytest.fixture
def fleet(fleets, tmp_path):
    """A copy of the bags of instances."""
    shutil.copytree(fleets['ytvis2019'], tmp_path / 'fleet')
    return tmp_path / 'fleet'


def command(out, *source):
    return [
        *('evaluate', '--model', 'demo', '--device', 'cpu', '--mode', 'live'),
        *('--out', str(out), *map(str, source)),
    ]


def metrics_of(out):
    return json.loads((out / 'metrics.json').read_text())


@pytest.mark.parametrize('name', NAMES)
def test_bags_score_as_the_data_set_that_they_were_made_of(roots, fleets, tmp_path, name, capsys):
    alone, out = tmp_path / 'alone', tmp_path / 'out'
    assert main([*arguments(name, roots[name], alone), '--mode', 'live']) == 0
    capsys.readouterr()
    assert main(command(out, '--bags', fleets[name])) == 0
    err = capsys.readouterr().err
    assert not any(word in err for word in ('Note', 'Failed', 'Missing'))
    expected, found = metrics_of(alone), metrics_of(out)
    for part in ('figures', 'per_class'):
        assert found['live'][part] == expected['live'][part]
    rows = [entry['name'] for entry in found['live']['per_video'].values()]
    assert sorted(rows) == sorted(video.name for video in open_dataset(name, roots[name]).videos)
    assert all(row in (out / 'report.html').read_text() for row in rows)
    # The truth of all bags is kept, and scores the result files.
    results = out / 'live'
    truth, masks = out / 'truth/truth.json', None
    if name == 'vspw':
        truth = out / 'truth'
    elif name == 'ytvis2019':
        results /= 'results.json'
    else:
        masks = out / 'truth/panomasksRGB'
    again = score_files(NAMES[name], [truth], results, masks)
    assert json.loads(json.dumps(again.figures)) == found['live']['figures']


def test_what_cannot_be_used_is_named_and_the_others_are_scored(fleet, tmp_path, capsys):
    bags = sorted(path for path in fleet.rglob('scene_*') if path.is_dir())
    for name in ('torn', 'unlabelled', 'mislabelled', 'lost'):
        shutil.copytree(bags[0], fleet / name)
        if name != 'unlabelled':
            shutil.copy(f'{bags[0]}.json', fleet / f'{name}.json')
    for file in (fleet / 'torn').glob('*.mcap'):
        file.write_bytes(b'torn')
    (fleet / 'mislabelled.json').write_text('{"videos": [')
    shutil.rmtree(fleet / 'lost')
    assert main(command(tmp_path / 'out', '--bags', fleet)) == 0
    captured = capsys.readouterr()
    metrics = metrics_of(tmp_path / 'out')
    errors = {each['video']: each['error'] for each in metrics['failures']}
    assert set(errors) == {'torn', 'unlabelled', 'mislabelled', 'lost'}
    assert 'unlabelled.json or unlabelled_vspw, got none' in errors['unlabelled']
    assert 'Expected JSON, but it breaks' in errors['mislabelled']
    assert 'Expected its bag beside it' in errors['lost']
    assert all(name in captured.err for name in errors)
    # Those whose objects are known count as missed.
    rows = {entry['name'] for entry in metrics['live']['per_video'].values()}
    assert rows == {bag.name for bag in bags} | {'torn', 'lost'}
    assert any('torn' in note and 'lost' in note for note in metrics['live']['notes'])
    assert metrics['live']['figures']['AP'] > 0

    for bag in bags:
        shutil.rmtree(bag)
    assert main(command(tmp_path / 'none', '--bags', fleet)) == 1
    assert metrics_of(tmp_path / 'none')['live']['figures']['AP'] == 0


def test_shards_of_bags_give_what_one_process_gives(fleet, tmp_path, capsys):
    # One annotated frame has no image, which only the shard that reads the bag notices.
    labels = sorted(fleet.rglob('scene_*.json'))[0]
    content = json.loads(labels.read_text())
    [video] = content['videos']
    video['stamps_ns'][-1] += 10**9
    labels.write_text(json.dumps(content))
    alone, out = tmp_path / 'alone', tmp_path / 'out'
    assert main(command(alone, '--bags', fleet)) == 0
    for index in (2, 1, 3):
        assert main(command(out, '--bags', fleet, '--shard', f'{index}/3')) == 0
    shutil.move(fleet, tmp_path / 'elsewhere')
    assert main(['evaluate', '--merge', str(out)]) == 1
    assert 'Expected a folder of bags' in capsys.readouterr().err
    merge = ['evaluate', '--merge', str(out), '--bags', str(tmp_path / 'elsewhere')]
    assert main(merge) == 0
    expected, found = metrics_of(alone), metrics_of(out)
    for part in ('live', 'failures', 'notes', 'left_out'):
        assert json.dumps(found[part]) == json.dumps(expected[part])
    assert any('3 of 4 annotated frames' in note for note in found['live']['notes'])


def test_bags_named_one_by_one_are_one_data_set(fleet, tmp_path, capsys):
    bags = sorted(path for path in fleet.rglob('scene_*') if path.is_dir())[:2]
    source = [item for bag in bags for item in ('--bag', bag)]
    assert main(command(tmp_path / 'beside', *source)) == 0
    truths = [item for bag in bags for item in ('--truth', f'{bag}.json')]
    assert main(command(tmp_path / 'named', *source, *truths)) == 0
    assert metrics_of(tmp_path / 'beside')['live'] == metrics_of(tmp_path / 'named')['live']
    # A bag alone finds its truth as well.
    assert main(command(tmp_path / 'one', '--bag', bags[0])) == 0
    assert len(metrics_of(tmp_path / 'one')['live']['per_video']) == 1
    # More bags than before are another data set.
    capsys.readouterr()
    assert main([*command(tmp_path / 'beside', '--bags', fleet), '--resume']) == 1
    assert 'holds the results of another run' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('source', 'reason'),
    [
        (('--bags', 'a', '--bag', 'b'), 'Expected --bags alone'),
        (('--bags', 'a', '--truth', 'b'), 'Expected --bags alone'),
        (('--bags', 'a', '--root', 'b'), 'or a bag, got both'),
        (('--bag', 'a', '--bag', 'a'), 'Expected each bag once'),
        (('--bag', 'a', '--bag', 'b', '--truth', 'c', '--truth', 'd', '--truth', 'e'), 'got 3'),
        (('--bag', 'a', '--truth', 'c', '--truth', 'd'), 'one --truth for one bag, got 2'),
        (('--bag', 'a'), 'Expected --truth with the labels of the bag'),
        (('--bags', 'a'), 'Expected a folder of bags, but there is none'),
    ],
)
def test_sources_that_make_no_sense_are_refused(tmp_path, monkeypatch, capsys, source, reason):
    monkeypatch.chdir(tmp_path)
    assert main(command(tmp_path / 'out', *source)) == 1
    assert reason in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
