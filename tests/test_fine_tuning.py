"""docs/fine_tuning.md, followed on small scenes: commands and files are read from it.

It takes half a minute on one core: a training, two evaluations and a run through the node.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videomt_ros.cli import main
from videomt_ros.datasets.formats.ytvis import load_ytvis
from videomt_ros.inference import VideoStream
from videomt_ros.launch_files import check_arguments, read_parameters
from videomt_ros.model import load_model
from videomt_ros.model.presets import preset_names
from videomt_ros.training.run_file import load_settings

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / 'docs' / 'fine_tuning.md').read_text(encoding='utf-8')
RUN_FILE = 'config/mine.yaml'
SMALLER = ['phases=[{steps: 4, clip_frames: 2, batch_size: 2}]', 'threads=1', 'workers=0']
SHORTER = {
    'videomt synth': ['--frames', '8', '--size', '192', '240'],
    'videomt benchmark train': ['--steps', '1', *SMALLER],
    'videomt train': [*SMALLER, 'validation.every=4', 'log_every=2', 'checkpoint_every=4'],
}
"""What is added to commands; all else is as written."""


def blocks(language: str) -> list[str]:
    """What the document has in fences of a language, in order."""
    return re.findall(rf'^```{language}\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks('sh') for line in block.splitlines()]


def command(start: str) -> str:
    """The one that starts so."""
    (found,) = (line for line in commands() if line.startswith(start))
    return found


@pytest.fixture(scope='module')
def home(tmp_path_factory) -> Path:
    """The folder of a user who has followed the document up to its fifth section."""
    home = tmp_path_factory.mktemp('home')
    (home / 'config').mkdir()
    (home / RUN_FILE).write_text(blocks('yaml')[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for line in commands():
            if line.startswith('videomt ') and not line.startswith('videomt demo'):
                words = shlex.split(line)[1:]
                for start, more in SHORTER.items():
                    words += more if line.startswith(start) else []
                assert main(words) == 0, line
    return home


def figures(folder: Path) -> dict[str, float]:
    return json.loads((folder / 'metrics.json').read_text())['live']['figures']


def test_the_labels_are_split_by_video(home):
    parts = [load_ytvis(home / f'data/mine/{split}.json') for split in ('train', 'valid')]
    assert [len(part.videos) for part in parts] == [16, 4]
    names = [{video.name for video in part.videos} for part in parts]
    assert not names[0] & names[1]
    whole = load_ytvis(home / 'data/labelled/valid.json')
    count = sum(len(part.tracks(video.video_id)) for part in parts for video in part.videos)
    assert count == sum(len(whole.tracks(video.video_id)) for video in whole.videos)


def test_the_run_leaves_what_the_document_lists(home):
    run = home / 'out/mine'
    bullets = TEXT[TEXT.index('`out/mine` then holds') : TEXT.index('If the score falls')]
    names = [name for name in re.findall(r'`([^`]+)`', bullets)[1:] if ' ' not in name]
    assert len(names) == 7
    for name in names:
        assert (run / name).exists(), name
    lines = [json.loads(line) for line in (run / 'log.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines if 'loss' in line] == [2, 4]
    assert list((run / 'tensorboard').rglob('events.out.tfevents.*'))
    assert command('tensorboard').split()[-1] == 'out/mine/tensorboard'
    assert util.find_spec('tensorboard')


def test_the_result_knows_what_its_start_knew_and_is_scored_beside_it(home):
    before, after = (figures(home / 'out' / name) for name in ('before', 'after'))
    assert before['AP'] > 0.3
    assert after['AP'] > before['AP'] - 0.15  # four steps at a low rate spoil nothing
    assert (home / 'out/after/report.html').is_file()


def test_the_result_runs_in_a_stream(home):
    net = load_model(home / 'out/mine/best.safetensors')
    assert net.config.name == 'mine'
    stream, seen = VideoStream(net), 0
    for number, path in enumerate(sorted((home / 'data/mine/JPEGImages/scene_003016').iterdir())):
        seen += len(stream.push(np.asarray(Image.open(path)), number * 100_000_000).segments)
    assert seen
    start = load_model('demo').state_dict()
    assert any(not np.array_equal(v, start[k]) for k, v in net.state_dict().items())


@pytest.mark.ros
def test_the_result_runs_in_the_node(home):
    words = [sys.executable, '-m', 'videomt_ros', *shlex.split(command('videomt demo'))[1:]]
    done = subprocess.run(
        words,
        cwd=home,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert (home / 'out/mine_demo/overlay.mp4').is_file()
    records = (home / 'out/mine_demo/tracks.jsonl').read_text().splitlines()
    assert any(json.loads(record)['tracks'] for record in records)


def test_the_launch_file_takes_the_arguments_of_the_last_command():
    words = shlex.split(command('ros2 launch'))
    package, file, *arguments = words[2:]
    assert package == 'videomt_ros'
    assert (ROOT / 'launch' / file).is_file()
    check_arguments(arguments, read_parameters(ROOT / 'config' / 'segmenter.yaml'), ())


def test_the_labels_of_the_document_load(tmp_path):
    path = tmp_path / 'labels.json'
    path.write_text(blocks('json')[0])
    truth = load_ytvis(path)
    (track,) = truth.tracks(1)
    assert track.category_id == 2 and track.masks[1] is None
    assert track.masks[0]['size'] == [384, 480]


def test_the_folder_is_the_one_that_the_document_describes(home):
    listing = re.findall(r'^    data/mine/(\S+)', TEXT, re.MULTILINE)
    assert listing == ['train.json', 'valid.json', 'JPEGImages/VIDEO/00000.jpg']
    for name in listing:
        assert (home / 'data/mine' / name.replace('VIDEO', 'scene_003016')).is_file()


def test_the_run_file_for_a_camera_is_one(tmp_path):
    path = tmp_path / 'camera.yaml'
    path.write_text(blocks('yaml')[1])
    settings = load_settings(path)
    assert settings.init_from in preset_names()
    assert settings.network.class_names == ('forklift', 'pallet')
    assert (settings.network.embed_dim, settings.network.test_size) == (384, 448)
