"""`videomt bag` and the bags of `videomt evaluate`, as a user runs them without ROS."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from videomt_ros.cli import main
from videomt_ros.datasets.bags.messages import BagTopic, message_types
from videomt_ros.datasets.synthetic.writing import write_dataset

NUM_FRAMES = 10
NAMES = {'ytvis': 'ytvis2019', 'vipseg': 'vipseg', 'vspw': 'vspw'}
BENCHMARKS = pytest.mark.parametrize('benchmark', list(NAMES))


@pytest.fixture(scope='module')
def home(tmp_path_factory) -> Path:
    """Data sets, and the bags that the command makes of them."""
    folder = tmp_path_factory.mktemp('home')
    for benchmark, name in NAMES.items():
        write_dataset(benchmark, folder / benchmark, 2, NUM_FRAMES, seed=29)
        command = ['bag', 'make', '--dataset', name, '--root', str(folder / benchmark)]
        assert main([*command, '--out', str(folder / f'{benchmark}_bags')]) == 0
    return folder


def first_bag(home: Path, benchmark: str) -> tuple[Path, Path]:
    folder = home / f'{benchmark}_bags'
    bag = min(path.parent for path in folder.glob('*/metadata.yaml'))
    return bag, bag.with_name(bag.name + ('_vspw' if benchmark == 'vspw' else '.json'))


def run(out: Path, *options: str | Path) -> dict:
    command = ['evaluate', '--model', 'demo', '--device', 'cpu', *map(str, options)]
    assert main([*command, '--out', str(out)]) == 0
    return json.loads((out / 'metrics.json').read_text())


@BENCHMARKS
def test_a_bag_scores_as_its_data_set_does(tmp_path, home, benchmark):
    bag, truth = first_bag(home, benchmark)
    of_bag = run(tmp_path / 'bag', '--bag', bag, '--truth', truth)
    source = ('--dataset', NAMES[benchmark], '--root', home / benchmark)
    of_dataset = run(tmp_path / 'dataset', *source, '--limit', '1')
    for mode in ('published', 'live'):
        assert of_bag[mode]['figures'] == of_dataset[mode]['figures']
    assert of_bag['live']['notes'][0].startswith(f'{NUM_FRAMES} of {NUM_FRAMES} annotated frames')


def test_sixteen_bits_score_as_eight_with_their_range(tmp_path, home, capsys):
    """The same images with 12 bits; without the range they are nearly black, which is said."""
    bag, truth = first_bag(home, 'ytvis')
    store = message_types()
    kind = 'sensor_msgs/msg/Image'
    deep = tmp_path / 'deep'
    with Writer(deep, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection('/image', kind, typestore=store)
        for image in BagTopic(bag, (kind,), '', 'images').messages():
            message = image.content
            message.data = (message.data.astype(np.uint16) * 16).view(np.uint8)
            message.encoding, message.step = 'rgb16', 2 * message.step
            writer.write(connection, image.time_ns, store.serialize_cdr(message, kind))
    options = ('--truth', truth, '--mode', 'live')
    plain = run(tmp_path / 'plain', '--bag', bag, *options)
    ranged = run(tmp_path / 'ranged', '--bag', deep, *options, '--grey-high', '4080')
    assert ranged['live']['figures'] == plain['live']['figures']
    assert 'little to see' not in ' '.join(ranged['live']['notes'])
    capsys.readouterr()
    command = ['evaluate', '--model', 'demo', '--bag', deep, *options, '--resume']
    assert main([*map(str, command), '--out', str(tmp_path / 'ranged')]) == 1
    assert 'grey_range' in capsys.readouterr().err
    dark = run(tmp_path / 'dark', '--bag', deep, *options, '--limit', '1')
    assert 'little to see; --grey-low 0 --grey-high 4095' in ' '.join(dark['live']['notes'])


def test_two_runs_of_a_bag_are_equal(tmp_path, home):
    bag, truth = first_bag(home, 'ytvis')
    for name in ('a', 'b'):
        run(tmp_path / name, '--bag', bag, '--truth', truth, '--mode', 'live')
    first, second = ((tmp_path / n / 'live' / 'results.json').read_bytes() for n in ('a', 'b'))
    assert first == second


def test_annotated_frames_without_an_image_are_misses(tmp_path, home):
    """The bag was cut off: fewer frames, and a lower score, which says so."""
    bag, truth = first_bag(home, 'ytvis')
    whole = run(tmp_path / 'whole', '--bag', bag, '--truth', truth, '--mode', 'live')
    (file,) = bag.glob('*.mcap')
    cut = tmp_path / 'cut.mcap'
    data = file.read_bytes()
    cut.write_bytes(data[: int(0.7 * len(data))])
    part = run(tmp_path / 'part', '--bag', cut, '--truth', truth, '--mode', 'live')
    assert 0 < part['live']['figures']['IDF1'] < whole['live']['figures']['IDF1']
    notes = ' '.join(part['live']['notes'])
    assert 'annotated frames have no image, and count as misses' in notes
    assert 'damaged or was cut off' in notes


def test_notes_and_the_score_on_the_clock_are_printed(tmp_path, home, capsys):
    bag, truth = first_bag(home, 'ytvis')
    clock = ('--real-time', '2', '--latency-ms', '100')
    run(tmp_path / 'out', '--bag', bag, '--truth', truth, '--mode', 'live', *clock)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        f'Note: {NUM_FRAMES} of {NUM_FRAMES} annotated frames have an image'
    )
    (clocked,) = (line for line in lines if line.startswith('Real time x 2, 100 ms a frame: AP '))
    assert clocked.endswith(', 5 of 10 frames processed, 4 dropped, 1 waiting at the end')
    (at_zero,) = (line for line in lines if line.startswith('  at   0 ms: AP '))
    assert at_zero.endswith(', 10 of 10 frames processed, 0 dropped')


@pytest.mark.parametrize(
    ('options', 'reason'),
    [
        ([], 'Expected --dataset and --root, or --bag, or --bags, or --results-bag'),
        (['--dataset', 'vspw'], 'Expected --dataset and --root, or --bag'),
        (['--bag', 'b', '--truth', 't', '--root', 'r'], 'or a bag, got both'),
        (['--bag', 'b'], 'Expected --truth'),
        (['--results-bag', 'b'], 'Expected --truth'),
        (['--bag', 'b', '--truth', 't'], 'Expected --model'),
        (['--dataset', 'vspw', '--root', 'r', '--topic', '/t'], 'belong to a bag'),
        (
            ['--results-bag', 'b', '--truth', 't', '--real-time', '1'],
            '--real-time has no meaning for --results-bag',
        ),
        (['--results-bag', 'b', '--truth', 't', '--model', 'm'], '--model has no meaning'),
        (['--results-bag', 'b', '--truth', 't', '--set', 'gap_s=1'], '--set has no meaning'),
        (['--results-bag', 'b', '--truth', 't', '--grey-high', '9'], 'there is no --bag'),
        (
            [
                '--bag',
                'b',
                '--truth',
                't',
                '--model',
                'demo',
                '--grey-low',
                '9',
                '--grey-high',
                '9',
            ],
            '--grey-low below --grey-high, up to 65535, got 9 and 9',
        ),
        (['--results-bag', 'b', '--truth', 't', '--mode', 'published'], 'Expected the live mode'),
        (['--bag', 'no-bag', '--truth', 'no-truth', '--model', 'demo'], 'no-truth'),
    ],
)
def test_what_does_not_go_together(options, reason, capsys):
    assert main(['evaluate', *options]) == 1
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize('value', ['0', '-1', 'nan', 'inf', 'fast'])
def test_factors_that_are_none(value, capsys):
    with pytest.raises(SystemExit):
        main(['evaluate', '--real-time', value])
    assert 'expected a number' in capsys.readouterr().err


@pytest.mark.parametrize('option', [['--limit', '0'], ['--storage', 'zip'], ['--zstd', 'lots']])
def test_options_of_make(option, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(['bag', 'make', '--dataset', 'vspw', '--root', 'r', '--out', 'o', *option])
    assert option[0] in capsys.readouterr().err


def test_replay_says_what_it_lacks(tmp_path, home, capsys):
    bag, _ = first_bag(home, 'ytvis')
    command = ['bag', 'replay', '--model', 'demo', '--out', str(tmp_path / 'out')]
    assert main([*command, str(tmp_path / 'nothing')]) == 1
    assert 'there is no' in capsys.readouterr().err
    assert main([*command, str(bag), '--params', str(tmp_path / 'no.yaml')]) == 1
    assert 'Expected a parameter file' in capsys.readouterr().err
    running = [*command[:2], '--running', '/segmenter', *command[4:], str(bag)]
    assert main([*running, '--task', 'semantic']) == 1
    assert '--task are for' in capsys.readouterr().err
    assert main([*command, str(bag), '--topic', '/rear']) == 1
    assert "got '/rear'" in capsys.readouterr().err


def test_replay_without_ros(tmp_path, home):
    bag, _ = first_bag(home, 'ytvis')
    code = (
        'import sys\n'
        "sys.modules['rclpy'] = None\n"
        'from videomt_ros.cli import main\n'
        'sys.exit(main(sys.argv[1:]))'
    )
    command = ['bag', 'replay', str(bag), '--model', 'demo', '--out', str(tmp_path / 'out')]
    done = subprocess.run(
        [sys.executable, '-c', code, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert 'needs the Python module rclpy' in done.stderr
    assert list(tmp_path.iterdir()) == []
