"""Bag -> node over DDS -> recorded bag -> score, with the demo model and drawn scenes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rosbags.rosbag2 import StoragePlugin, Writer

from videomt_ros.cli import main
from videomt_ros.datasets.bags.dataset import bag_dataset
from videomt_ros.datasets.bags.images import BagImages
from videomt_ros.datasets.bags.messages import TRACK_ARRAY, BagTopic, message_types
from videomt_ros.datasets.bags.writing import make_bags
from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.dataset import Dataset, VideoFrame
from videomt_ros.datasets.rle import encode
from videomt_ros.datasets.synthetic.scene import Scene
from videomt_ros.datasets.synthetic.writing import write_dataset
from videomt_ros.evaluation.families import FAMILIES
from videomt_ros.inference import VideoStream
from videomt_ros.model import VidEoMT, load_model
from videomt_ros.model.device import choose_precision
from videomt_ros.structures import Segments, TrackState

NUM_FRAMES = 15
ODD_SCALE = 16
ODD_RANGE = (0, 255 * ODD_SCALE)
NAMES = {'ytvis': 'ytvis2019', 'vipseg': 'vipseg', 'vspw': 'vspw'}
STATES = ('tentative', 'confirmed', 'lost')
BENCHMARKS = pytest.mark.parametrize('benchmark', list(NAMES))


@dataclass
class Replay:
    """A bag, its truth, and what the node made of it."""

    bag: Path
    truth: Path
    recorded: Path
    printed: str

    def messages(self) -> list[Any]:
        return list(BagTopic(self.recorded, (TRACK_ARRAY,), '', 'tracks').messages())

    def counts(self) -> dict[str, int]:
        """Read the counts in the last line that the command printed."""
        words = self.printed.splitlines()[-1].replace(';', ',').split(', ')
        names = ('sent', 'received', 'processed', 'dropped', 'rejected', 'failed')
        return {name: int(word.split()[0]) for name, word in zip(names, words, strict=False)}


@pytest.fixture(scope='module')
def bags(tmp_path_factory) -> Mapping[str, tuple[Path, Path]]:
    """A bag and its truth by benchmark; the scene is the same in all."""
    home = tmp_path_factory.mktemp('bags')
    found = {}
    for benchmark, name in NAMES.items():
        write_dataset(benchmark, home / benchmark, 1, NUM_FRAMES, seed=29)
        dataset = open_dataset(name, home / benchmark)
        (bag,) = make_bags(dataset, home / f'{benchmark}_bags')
        end = '_vspw' if benchmark == 'vspw' else '.json'
        found[benchmark] = bag, bag.with_name(bag.name + end)
    return found


class GoesDark:
    """A scene, of which nothing is to be seen in the last three images."""

    video_id, name, size = 1, 'dark', (384, 480)
    frame_names = tuple(map(str, range(10)))

    def frames(self):
        for index, (image, _) in enumerate(Scene(29, num_frames=10).frames()):
            image = image if index < 7 else np.zeros_like(image)
            yield VideoFrame(index, index * 100_000_000, image)


def write_odd_bag(path: Path) -> Path:
    """Images of 12 bits in 16, each recorded twice, and all at the time 0."""
    store = message_types()
    kind = 'sensor_msgs/msg/Image'
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection('/image', kind, typestore=store)
        for number, (image, _) in enumerate(Scene(29, num_frames=6).frames()):
            stamp = store.types['builtin_interfaces/msg/Time'](1_700_000_000, number * 10**8)
            header = store.types['std_msgs/msg/Header'](stamp, 'camera')
            height, width = image.shape[:2]
            data = (image.astype(np.uint16) * ODD_SCALE).view(np.uint8).reshape(-1)
            message = store.types[kind](header, height, width, 'rgb16', 0, 6 * width, data)
            for _ in range(2):
                writer.write(connection, 0, store.serialize_cdr(message, kind))
    return path


def replay_command(bag: Path, out: Path, *options: str) -> list[str]:
    return ['bag', 'replay', str(bag), '--model', 'demo', '--out', str(out), *options]


def network() -> VidEoMT:
    """The network as the node runs it by default."""
    cpu = torch.device('cpu')
    return load_model('demo').to(choose_precision('auto', cpu))


@pytest.fixture(scope='module')
def replays(tmp_path_factory, bags) -> Mapping[str, Replay]:
    """Each benchmark's bag in its task, and `dark` with tracks in all states; no frame dropped.

    All at once: most of a replay is the start of processes.
    """
    home = tmp_path_factory.mktemp('replays')
    (dark,) = make_bags(Dataset('dark', 'ytvis', (), (GoesDark(),)), home / 'bags')
    params = home / 'node.yaml'
    params.write_text(
        f'/**:\n  ros__parameters:\n    track_states: [{", ".join(STATES)}]\n    gap_s: 5.0\n'
    )
    asked = {
        'dark': (dark, params, ('--params', str(params))),
        'odd': (write_odd_bag(home / 'odd_bag'), params, ('--grey-high', str(ODD_RANGE[1]))),
        **{name: (*bags[name], ('--task', FAMILIES[name].task)) for name in NAMES},
    }
    processes = {}
    try:
        for name, (bag, _, options) in asked.items():
            command = replay_command(bag, home / name, '--every-frame', *options)
            processes[name] = subprocess.Popen(
                [sys.executable, '-m', 'videomt_ros', *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        found = {}
        for name, process in processes.items():
            printed, errors = process.communicate()
            assert process.returncode == 0, errors
            found[name] = Replay(*asked[name][:2], home / name, printed)
    finally:
        for process in processes.values():
            process.kill()
    return found


def evaluated(capsys, out: Path, *options: str | Path) -> dict[str, Any]:
    """What `videomt evaluate` writes."""
    assert main(['evaluate', *map(str, options), '--out', str(out)]) == 0
    capsys.readouterr()
    return json.loads((out / 'metrics.json').read_text())


def offline(benchmark: str, bag: Path, truth: Path) -> list[Segments]:
    """What a stream in this process makes of every image of the bag."""
    stream = VideoStream(network(), FAMILIES[benchmark].task)
    (video,) = bag_dataset(bag, '', truth).videos
    return [stream.push(frame.image, frame.stamp_ns) for frame in video.frames()]


def assert_same(message: Any, segments: Segments) -> None:
    """Every field of a list of tracks is that of the segments."""
    assert (message.height, message.width) == segments.ids.shape
    assert len(message.tracks) == len(segments.segments)
    for track, segment in zip(message.tracks, segments.segments, strict=True):
        assert track.id == segment.track_id
        assert (track.class_id, track.class_name) == (segment.class_id, segment.class_name)
        assert track.is_thing == segment.is_thing
        assert track.score == np.float32(segment.score)
        assert track.state == segment.state
        assert (track.age, track.area) == (segment.age, segment.area)
        assert track.last_seen.sec * 10**9 + track.last_seen.nanosec == segment.last_seen_ns
        x0, y0, x1, y1 = segment.box
        box = (track.box.x_offset, track.box.y_offset, track.box.width, track.box.height)
        assert box == (x0, y0, x1 - x0, y1 - y0)
        if segment.state is TrackState.LOST:
            assert track.mask.counts == ''
        else:
            counts = encode(segments.mask(segment.track_id))['counts']
            assert track.mask.counts == counts.decode()


@BENCHMARKS
def test_what_the_node_publishes_is_what_the_evaluator_sees(tmp_path, replays, capsys, benchmark):
    live = replays[benchmark]
    bag, truth = live.bag, live.truth
    assert live.counts() == {
        'sent': NUM_FRAMES,
        'received': NUM_FRAMES,
        'processed': NUM_FRAMES,
        'dropped': 0,
        'rejected': 0,
        'failed': 0,
    }
    messages, expected = live.messages(), offline(benchmark, bag, truth)
    assert len(messages) == len(expected) == NUM_FRAMES
    for message, segments in zip(messages, expected, strict=True):
        assert message.stamp_ns == segments.stamp_ns
        assert_same(message.content, segments)
    assert sum(len(segments.segments) for segments in expected) > NUM_FRAMES

    # And so the scores are equal, too.
    source = ('--truth', truth)
    model = ('--model', 'demo', '--mode', 'live', '--device', 'cpu')
    of_bag = evaluated(capsys, tmp_path / 'bag', '--bag', bag, *source, *model)
    of_node = evaluated(
        capsys, tmp_path / 'node', '--results-bag', live.recorded, '--bag', bag, *source
    )
    assert of_node['live']['figures'] == of_bag['live']['figures']
    assert of_node['live']['figures'][{'ytvis': 'AP', 'vipseg': 'VPQ', 'vspw': 'mIoU'}[benchmark]]
    assert of_node['run']['frames'] == {'annotated': NUM_FRAMES, 'missed': 0}


def test_a_bag_is_played_to_a_segmenter_that_runs(bags, tmp_path, capsys):
    """Twice: what it counted before is not counted again. Without /clock, all would be stale."""
    bag, _ = bags['ytvis']
    words = (
        '--ros-args -r __ns:=/robot -r __node:=eyes -p model:=demo -p input_reliability:=reliable '
        '-p use_sim_time:=true -p stale_after_s:=60.0'
    )
    node = subprocess.Popen([sys.executable, '-m', 'videomt_ros.ros', *words.split()])
    try:
        for name in ('first', 'second'):
            command = [
                'bag',
                'replay',
                str(bag),
                '--running',
                '/robot/eyes',
                '--every-frame',
                '--clock',
            ]
            assert main([*command, '--out', str(tmp_path / name)]) == 0
            live = Replay(bag, bag, tmp_path / name, capsys.readouterr().out)
            assert live.counts() == {
                **dict.fromkeys(('sent', 'received', 'processed'), NUM_FRAMES),
                **dict.fromkeys(('dropped', 'rejected', 'failed'), 0),
            }
            assert len(live.messages()) == NUM_FRAMES
    finally:
        node.send_signal(signal.SIGINT)
        assert node.wait(60) == 0


def test_tentative_and_lost_tracks_are_published_as_the_stream_has_them(replays):
    live = replays['dark']
    stream = VideoStream(network(), track_states=STATES, gap_s=5.0)
    seen = set()
    for message, frame in zip(live.messages(), BagImages(live.bag).frames(), strict=True):
        assert frame.stamp_ns is not None
        segments = stream.push(frame.image, frame.stamp_ns)
        assert_same(message.content, segments)
        seen |= {segment.state for segment in segments.segments}
    assert seen == set(TrackState)


def test_sixteen_bits_are_reduced_by_the_node_and_each_image_is_played_once(replays):
    live = replays['odd']
    assert live.counts()['sent'] == live.counts()['processed'] == 6
    assert 'the images are played by their stamps' in live.printed
    assert '6 of 12 images on /image are in the bag a second time' in live.printed
    assert 'little to see' not in live.printed
    stream = VideoStream(network())
    frames = list(BagImages(live.bag, grey_range=ODD_RANGE).frames())
    for message, frame, (drawn, _) in zip(
        live.messages(), frames, Scene(29, num_frames=6).frames(), strict=True
    ):
        np.testing.assert_array_equal(frame.image, drawn)
        assert frame.stamp_ns is not None
        segments = stream.push(frame.image, frame.stamp_ns)
        assert_same(message.content, segments)
    assert segments.segments


@pytest.mark.parametrize('models', ['[demo]', '[demo, demo_panoptic]'])
def test_a_replay_of_several_models_is_refused(tmp_path, bags, capsys, models):
    params = tmp_path / 'node.yaml'
    params.write_text(f'segmenter:\n  ros__parameters:\n    models: {models}\n')
    command = replay_command(bags['ytvis'][0], tmp_path / 'out', '--params', str(params))
    assert main(command) == 1
    assert 'records the tracks of one model' in capsys.readouterr().err
    params.write_text('a: [')
    assert main(command) == 1
    assert 'Expected YAML in the parameter file' in capsys.readouterr().err


def test_frames_that_were_dropped_count_as_misses(tmp_path, bags, capsys):
    bag, truth = bags['ytvis']
    assert main(replay_command(bag, tmp_path / 'recorded', '--rate', '1000')) == 0
    live = Replay(bag, truth, tmp_path / 'recorded', capsys.readouterr().out)
    counts = live.counts()
    assert counts['sent'] == counts['received'] == NUM_FRAMES
    assert counts['processed'] + counts['dropped'] == NUM_FRAMES
    assert counts['dropped'] > 0
    assert len(live.messages()) == counts['processed']
    metrics = evaluated(
        capsys, tmp_path / 'node', '--results-bag', live.recorded, '--truth', truth
    )
    missed = counts['dropped']
    assert metrics['run']['frames'] == {'annotated': NUM_FRAMES, 'missed': missed}
    assert any(
        f'{missed} annotated frames have no result, and count as misses' in note
        for note in metrics['live']['notes']
    )
    whole = evaluated(
        capsys,
        tmp_path / 'bag',
        *('--bag', bag, '--truth', truth, '--model', 'demo', '--mode', 'live'),
    )
    assert metrics['live']['figures']['AP'] < whole['live']['figures']['AP']


def test_a_recording_is_not_overwritten(tmp_path, bags, capsys):
    (tmp_path / 'recorded').mkdir()
    assert main(replay_command(bags['ytvis'][0], tmp_path / 'recorded')) == 1
    assert 'exists already' in capsys.readouterr().err


def test_a_failed_replay_leaves_nothing(tmp_path, bags, capsys):
    command = ['bag', 'replay', str(bags['ytvis'][0]), '--model', 'no-such-model']
    assert main([*command, '--out', str(tmp_path / 'recorded')]) == 1
    assert 'no-such-model' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_bags_name_the_type_as_ros_does():
    from ament_index_python.packages import get_package_share_directory

    store = message_types()
    for name in ('Mask', 'Track', 'TrackArray'):
        path = Path(get_package_share_directory('videomt_ros'), 'msg', f'{name}.json')
        hashes = {
            h['type_name']: h['hash_string'] for h in json.loads(path.read_text())['type_hashes']
        }
        kind = f'videomt_ros/msg/{name}'
        assert store.hash_rihs01(kind) == hashes[kind]
