"""`videomt demo` as a user runs it: three processes over real DDS, and what they leave behind."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from pycocotools import mask as coco_mask
from rosbags.rosbag2 import StoragePlugin

from tests.datasets.bags.made import image_message, image_of, write_bag
from tests.datasets.video_server import serve_videos
from tests.hub import serve
from tests.model.layout_files import write_original
from videomt_ros.cli.demo import DEFAULT_MODEL, rate_hint
from videomt_ros.datasets.synthetic.scene import ALL_NAMES, CLASS_NAMES, Scene
from videomt_ros.evaluation.report.demo import DemoReport
from videomt_ros.model.presets import load_preset
from videomt_ros.resources import resource

pytestmark = pytest.mark.ros
RESULTS = {'contact_sheet.png', 'overlay.mp4', 'tracks.jsonl'}


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random network that sees one thing or another in every image."""
    import torch

    from videomt_ros.model import NetworkConfig, VidEoMT, save_model

    torch.manual_seed(0)
    net = VidEoMT(
        NetworkConfig(
            num_classes=len(CLASS_NAMES),
            class_names=CLASS_NAMES,
            embed_dim=32,
            depth=3,
            num_heads=2,
            num_queries=4,
            num_query_blocks=2,
            table_size=64,
            test_size=64,
            name='random',
        )
    )
    with torch.no_grad():
        net.class_head.bias[0] += 6
    path = tmp_path_factory.mktemp('model') / 'random.safetensors'
    save_model(net, path)
    return path


class Demo:
    """`python -m videomt_ros demo` in a process of its own."""

    def __init__(self, out: Path, model: Path | str, *args: str, **environment: str) -> None:
        command = [sys.executable, '-m', 'videomt_ros', 'demo', '--out', str(out)]
        self.process = subprocess.Popen(
            [*command, *(['--model', str(model)] if model else []), *args],
            env={**os.environ, 'OMP_NUM_THREADS': '1', **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.seen = ''

    def finish(self) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        stdout, stderr = self.process.communicate(timeout=200)
        return self.process.returncode, self.seen + stdout, stderr

    def wait_for(self, text: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen += line
            if text in line:
                return
        raise AssertionError(f'No {text!r} in: {self.seen}{self.process.stderr.read()}')

    def children(self) -> list[psutil.Process]:
        """The processes that belong to the demo, by its namespace in their command lines."""
        namespace = f'/demo_{self.process.pid}'
        return [
            process
            for process in psutil.process_iter(['cmdline'])
            if any(namespace in word for word in process.info['cmdline'] or ())
        ]


def figure(table: str, name: str) -> int:
    (line,) = (line for line in table.splitlines() if line.startswith(f'  {name}  '))
    return int(line.removeprefix(f'  {name}').split()[0])


def test_synthetic_scene(tmp_path, model):
    out = tmp_path / 'demo'
    out.mkdir()
    for name in (*RESULTS, 'mine.txt'):
        (out / name).write_text('of an earlier run')
    demo = Demo(out, model, '--frames', '20', '--seed', '3')
    code, stdout, stderr = demo.finish()
    assert code == 0, stderr
    assert stderr == ''
    assert not demo.children()

    # The table adds up.
    sent, received, processed, dropped, rejected = (
        figure(stdout, name)
        for name in ('frames sent', 'received', 'processed', 'dropped', 'rejected')
    )
    assert sent == 20 and rejected == 0
    assert 0 < received == processed + dropped <= sent
    assert 'mean IoU' in stdout and 'latency p95' in stdout
    assert 'stuff' not in stdout
    last_line = stdout.strip().splitlines()[-1]
    assert last_line.startswith('Results: ') and all(name in last_line for name in RESULTS)

    # All results are new, those of the earlier run are kept, and nothing else was touched or left.
    assert {path.name for path in out.iterdir()} == RESULTS | {'mine.txt', 'earlier-1'}
    assert (out / 'mine.txt').read_text() == 'of an earlier run'
    assert {path.name for path in (out / 'earlier-1').iterdir()} == RESULTS
    assert {path.read_text() for path in (out / 'earlier-1').iterdir()} == {'of an earlier run'}
    assert f'results of an earlier run in {out} are now in {out}/earlier-1' in stdout

    records = [json.loads(line) for line in (out / 'tracks.jsonl').read_text().splitlines()]
    assert 0 < len(records) <= processed
    frames = [record['frame'] for record in records]
    assert frames == sorted(set(frames)) and frames[0] >= 0 and frames[-1] < 20
    assert all(record['received_ns'] > record['stamp_ns'] for record in records)
    assert all((record['height'], record['width']) == (384, 480) for record in records)
    tracks = [track for record in records for track in record['tracks']]
    assert tracks
    for track in tracks:
        assert track['class_name'] == CLASS_NAMES[track['class_id']]
        if track['mask']:
            mask = coco_mask.decode(track['mask'])
            assert mask.shape == (384, 480) and mask.sum() == track['area']

    video = cv2.VideoCapture(str(out / 'overlay.mp4'))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    assert video.read()[1].shape == (384, 480, 3)
    # As long as the scene, whatever was dropped.
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) >= frames[-1] - frames[0]
    sheet = cv2.imread(str(out / 'contact_sheet.png'))
    assert sheet is not None and sheet.shape[1] >= min(4, len(records)) * 480


def test_a_model_of_stuff_is_shown_a_scene_with_stuff(tmp_path):
    out = tmp_path / 'demo'
    code, stdout, stderr = Demo(out, 'demo_panoptic', '--frames', '10').finish()
    assert code == 0, stderr
    assert 'Playing synthetic scene 29 with sky, ground and walls, ' in stdout
    assert 'mean IoU' in stdout and 'stuff mIoU' in stdout

    # What the camera sent is the scene that the figures come from.
    scene = Scene(29, num_frames=10, stuff=True)
    record = json.loads((out / 'tracks.jsonl').read_text().splitlines()[-1])
    true_ids = scene.frame(record['frame'])[1]
    found = {track['class_name']: track for track in record['tracks']}
    for name in ('sky', 'ground'):
        (identity,) = (i for i, k in scene.class_of.items() if ALL_NAMES[k] == name)
        true, mask = true_ids == identity, coco_mask.decode(found[name]['mask']) > 0
        assert not found[name]['is_thing']
        assert np.count_nonzero(true & mask) / np.count_nonzero(true | mask) > 0.8


def test_bag_with_two_topics(tmp_path, model):
    bag = write_bag(
        tmp_path / 'bag',
        {
            '/left': [image_message(number) for number in range(12)],
            '/right': [image_message(number, 'bgr8') for number in range(8)],
        },
        StoragePlugin.MCAP,
    )
    out = tmp_path / 'demo'
    code, stdout, stderr = Demo(out, model, '--source', str(bag)).finish()
    assert (code, stdout) == (1, '')
    assert stderr.count('\n') == 1 and '/left' in stderr and '/right' in stderr
    assert not out.exists()

    code, stdout, stderr = Demo(out, model, '--source', str(bag), '--topic', '/right').finish()
    assert code == 0, stderr
    assert figure(stdout, 'frames sent') == 8 and 'mean IoU' not in stdout
    record = json.loads((out / 'tracks.jsonl').read_text().splitlines()[0])
    assert record['frame_id'] == 'front'  # as in the bag
    assert record['source_ns'] < 1_700_000_001_000_000_000 < record['stamp_ns']


def write_clip(path: Path, images: Iterable[np.ndarray]) -> Path:
    """Write RGB images as a video of 10 frames a second."""
    writer = None
    for image in images:
        if writer is None:
            size = image.shape[1::-1]
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), 10, size)
        writer.write(image[..., ::-1])
    writer.release()
    return path


def frames_of(video: Path) -> list[np.ndarray]:
    """Read a video, RGB."""
    capture = cv2.VideoCapture(str(video))
    return [capture.read()[1][..., ::-1] for _ in range(int(capture.get(7)))]


@pytest.fixture
def real_clip(tmp_path) -> Path:
    """Write a grey gradient that moves, bright enough that no part looks like a dark plate."""
    across = np.linspace(110, 230, 320).astype(np.uint8)
    views = [np.tile(np.roll(across, 20 * i)[None, :, None], (240, 1, 3)) for i in range(6)]
    return write_clip(tmp_path / 'clip.mp4', views)


def has_note(overlay: np.ndarray) -> bool:
    """Tell whether the lowest rows of an overlay are a dark plate."""
    return bool(np.median(overlay[-3:]) < 60)


NOTE = 'knows drawn shapes alone'


@pytest.mark.parametrize('name', ['demo', 'demo_panoptic'])
def test_a_model_of_drawn_scenes_says_so_on_a_real_clip(tmp_path, real_clip, name):
    out = tmp_path / 'demo'
    code, stdout, stderr = Demo(out, name, '--source', str(real_clip)).finish()
    assert code == 0, stderr
    lines = stdout.splitlines()
    assert lines[0].startswith(f'Warning: {name} {NOTE}') and 'clip.mp4' in lines[0]
    assert any(line.strip() == f'Warning: {name} {NOTE}.' for line in lines[1:])
    shown = frames_of(out / 'overlay.mp4')
    assert shown and all(has_note(image) for image in shown)
    sheet = cv2.imread(str(out / 'contact_sheet.png'))[44:72].astype(int)
    red = (sheet[..., 2] > 150) & (sheet[..., :2].max(axis=2) < 90)
    assert red.sum() > 100


def test_other_models_and_drawn_scenes_carry_no_note(tmp_path, model, real_clip):
    for name, args in ((model, ['--source', str(real_clip)]), ('', ['--frames', '8'])):
        out = tmp_path / ('real' if name else 'drawn')
        code, stdout, stderr = Demo(out, name, *args).finish()
        assert code == 0, stderr
        assert NOTE not in stdout and 'Warning' not in stdout
        assert ('Loading model demo ' in stdout) == (name == '')  # the default for drawn scenes
        assert not any(has_note(image) for image in frames_of(out / 'overlay.mp4'))


def test_without_a_model_a_real_clip_gets_the_published_one(tmp_path, real_clip):
    preset = load_preset(DEFAULT_MODEL)
    config = replace(preset.config(), depth=2, num_query_blocks=1)  # small, to be fast
    write_original(tmp_path / 'hub' / preset.source / preset.file, config)
    with serve(tmp_path / 'hub') as environment:
        home = {'HF_HOME': str(tmp_path / 'home')}
        out = tmp_path / 'demo'
        args = ('--source', str(real_clip), '--frames', '3')
        code, stdout, stderr = Demo(out, '', *args, **environment, **home).finish()
        assert code == 0, stderr
        assert f'Downloading {preset.file} of {preset.source}' in stdout
        assert f'Loading model {DEFAULT_MODEL} ' in stdout and NOTE not in stdout
    # The next run finds it in the cache, and does not ask the hub.
    code, stdout, stderr = Demo(out, '', *args, HF_HUB_OFFLINE='1', **home).finish()
    assert code == 0, stderr
    assert 'Downloading' not in stdout and figure(stdout, 'frames sent') == 3


@pytest.mark.parametrize('name', ['', 'videomt-dinov2-large-ovis', 'owner/unknown'])
def test_without_cache_and_network_two_lines_say_how_to_go_on(tmp_path, real_clip, name):
    out = tmp_path / 'demo'
    environment = {'HF_HOME': str(tmp_path / 'home'), 'HF_HUB_OFFLINE': '1'}
    code, stdout, stderr = Demo(out, name, '--source', str(real_clip), **environment).finish()
    assert code == 1 and 'Loading' not in stdout
    assert not out.exists()
    tried, how = stderr.splitlines()
    preset = load_preset(name or DEFAULT_MODEL) if 'owner' not in name else None
    assert preset is None or f'{preset.file} of {preset.source}' in tried
    assert (DEFAULT_MODEL in tried) == (name == '')
    assert 'not in the cache and the hub is out of reach' in tried
    for word in ('network', 'HF_HUB_OFFLINE', 'HF_HOME', 'MODEL=', '`videomt models`', 'demo'):
        assert word in how


def test_video_file(tmp_path, model):
    clip = write_clip(tmp_path / 'clip.mp4', map(image_of, range(12)))
    code, stdout, stderr = Demo(tmp_path / 'demo', model, '--source', str(clip)).finish()
    assert code == 0, stderr
    assert figure(stdout, 'frames sent') == 12
    records = (tmp_path / 'demo' / 'tracks.jsonl').read_text().splitlines()
    assert records
    assert (json.loads(records[0])['height'], json.loads(records[0])['width']) == (48, 64)


def test_a_stream_that_ends_and_what_it_had_before(tmp_path, model):
    out = tmp_path / 'demo'
    with serve_videos(tmp_path) as url:
        args = ('--source', f'{url}/camera', '--rate', '10')
        code, stdout, stderr = Demo(out, model, *args).finish()
    assert code == 0, stderr
    assert f'Playing stream {url}/camera, 25 frames a second, here 10, for 20 s' in stdout
    notes = [line for line in stdout.splitlines() if line.startswith('Note: ')]
    assert notes == [f'Note: {url}/camera ended after 12 images.']
    assert 1 <= figure(stdout, 'frames sent') < 12  # the others are left out for the rate
    assert {path.name for path in out.iterdir()} == RESULTS


def test_a_single_image_is_segmented_at_first_sight(tmp_path, model):
    image = tmp_path / 'photo.jpg'
    assert cv2.imwrite(str(image), image_of(3)[..., ::-1])
    out = tmp_path / 'demo'
    code, stdout, stderr = Demo(out, model, '--source', str(image)).finish()
    assert code == 0, stderr
    assert figure(stdout, 'frames sent') == 1 and figure(stdout, 'tracks seen') >= 1


def test_make_passes_its_variables_on():
    values = {'SOURCE': 'rtsp://10.0.0.5/a?b=1&c=2', 'RATE': '5', 'OUT': 'out/my run'}
    words = [f'{name}={value}' for name, value in values.items()]
    root = resource('package.xml').parent
    done = subprocess.run(
        ['make', '--no-print-directory', '-n', 'demo', *words],
        cwd=root, check=True, capture_output=True, text=True,
    )  # fmt: skip
    command = done.stdout[done.stdout.index('-m videomt_ros demo') :].replace('\\\n', ' ')
    assert shlex.split(command)[3:] == [
        '--source', values['SOURCE'], '--rate', '5', '--out', values['OUT'],
    ]  # fmt: skip


def report_of(dropped: int, processed_hz: float = 8.04) -> DemoReport:
    counts = dict.fromkeys(('received', 'processed', 'rejected', 'kept', 'unknown'), 0)
    latencies = {'latency_p50_ms': 1.0, 'latency_p95_ms': 2.0}
    rates = {'sent_hz': 29.97, 'processed_hz': processed_hz}
    ends = {'track_ids': (), 'scores': None, 'stuff_iou': None}
    return DemoReport(sent=100, dropped=dropped, **counts, **latencies, **rates, **ends)


def test_a_source_that_is_too_fast_is_told_with_a_rate_that_is_not():
    hint = rate_hint(report_of(70), is_endless=False)
    assert '70 of 100 frames were dropped, since the source gives 30 a second' in hint
    assert 'this machine processes 8.04 with this model' in hint
    for word in ('RATE=7.2 ', '--rate 7.2', 'MODEL=', 'input_size'):
        assert word in hint
    assert 'RATE=' not in rate_hint(report_of(70), is_endless=True)  # a camera has its own
    # Some at the start are not worth a word, and one result has no rate.
    assert rate_hint(report_of(5), False) == rate_hint(report_of(70, math.nan), False) == ''


def test_an_output_folder_that_cannot_be_is_told_before_the_model_loads(tmp_path, model):
    (tmp_path / 'file').touch()
    code, stdout, stderr = Demo(tmp_path / 'file/demo', model).finish()
    assert (code, stdout) == (1, '') and stderr.count('\n') == 1
    assert 'Expected a folder for the results' in stderr and 'OUT=' in stderr


def test_wrong_model_ends_in_the_nodes_own_words(tmp_path):
    out = tmp_path / 'demo'
    out.mkdir()
    (out / 'tracks.jsonl').write_text('of an earlier run')
    (tmp_path / 'damaged.pth').write_text('no weights')
    demo = Demo(out, tmp_path / 'damaged.pth')
    code, _, stderr = demo.finish()
    assert code == 1 and stderr.count('\n') == 1
    assert stderr.startswith('videomt demo: The segmenter ended with exit code 1: ')
    assert 'damaged.pth: expected .pth or .safetensors weights, got text' in stderr
    assert not demo.children()
    assert [path.name for path in out.iterdir()] == ['tracks.jsonl']
    assert (out / 'tracks.jsonl').read_text() == 'of an earlier run'


def test_interrupt_leaves_nothing(tmp_path, model):
    demo = Demo(tmp_path / 'demo', model)
    demo.wait_for('Loading')
    demo.process.send_signal(signal.SIGINT)
    code, _, stderr = demo.finish()
    assert (code, stderr) == (130, '')
    assert not demo.children()
    assert not list((tmp_path / 'demo').iterdir())


@pytest.mark.parametrize(
    ('source', 'reason'),
    [('nothing.mp4', 'there is no nothing.mp4'), ('97', 'webcam with index 97')],
)
def test_unusable_source_ends_at_once(tmp_path, source, reason):
    code, _, stderr = Demo(tmp_path / 'demo', tmp_path, '--source', source).finish()
    assert code == 1 and stderr.count('\n') == 1 and reason in stderr


def test_the_engine_reaches_the_segmenter(tmp_path):
    path = tmp_path / 'robot.onnx'
    path.write_bytes(b'no model')
    code, _, stderr = Demo(tmp_path / 'demo', path, '--engine', 'onnxruntime').finish()
    assert code == 1
    assert 'Not configured' in stderr
    assert 'Expected the engine onnxruntime' not in stderr


def test_a_model_whose_queries_are_all_alike_is_told_of(tmp_path, model):
    import torch

    from videomt_ros.model import load_model, save_model

    net = load_model(model)
    with torch.no_grad():
        net.q.weight.copy_(net.q.weight[:1].expand_as(net.q.weight))
    save_model(net, tmp_path / 'alike.safetensors')
    demo = Demo(tmp_path / 'demo', tmp_path / 'alike.safetensors', '--frames', '5')
    code, stdout, stderr = demo.finish()
    assert code == 0, stderr
    assert 'Note: The outputs of the network random are the same for all queries' in stdout
