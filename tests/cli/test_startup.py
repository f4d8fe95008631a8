"""What answers at once imports none of the libraries that take seconds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from videomt_ros.cli import find_verbs
from videomt_ros.cli.score import FAMILY_NAMES
from videomt_ros.datasets.synthetic.writing import write_dataset
from videomt_ros.evaluation.families import FAMILIES
from videomt_ros.resources import resource

SLOW = ('torch', 'timm', 'torchvision', 'lightning', 'transformers', 'rclpy')
"""Modules that take a second or more, and those of ROS."""
LIBRARIES = (*SLOW, 'scipy', 'cv2', 'pycocotools', 'rosbags', 'PIL', 'numpy', 'yaml')
CODE = f"""
import atexit, json, sys
atexit.register(
    lambda: print(json.dumps([name for name in {LIBRARIES} if name in sys.modules]))
)
from videomt_ros.cli import main
sys.exit(main())
"""


def run(*arguments):
    """Run the command in a fresh Python: its exit code, and the libraries that it imported."""
    done = subprocess.run([sys.executable, '-c', CODE, *arguments], capture_output=True, text=True)
    assert 'Traceback' not in done.stderr, done.stderr
    return done.returncode, set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize('verb', find_verbs())
def test_help_and_unknown_options_import_no_slow_library(verb):
    # The formats of `synth` are a table of writers, which import OpenCV.
    allowed = {'cv2', 'pycocotools', 'PIL', 'numpy'} if verb == 'synth' else set()
    for arguments, code in ((['--help'], 0), (['--no-such-option'], 2)):
        returned, imported = run(verb, *arguments)
        assert returned == code
        assert imported <= allowed


@pytest.mark.parametrize(
    'line',
    [
        'bag replay here --out there',
        'bag make --dataset vspw --root here --out there --limit 0',
        'benchmark node --seconds 0',
        'benchmark model --image-size 0 0',
        'benchmark train',
        'demo --rate -1',
        'evaluate --precision int4',
        'export --model demo --out a.onnx --dynamic width',
        'export --model demo --out a.onnx --image-size 640',
        'score --benchmark coco --truth a --results b',
        'score --benchmark ytvis',
        'train',
    ],
)
def test_a_wrong_or_missing_argument_imports_no_library(line):
    assert run(*line.split()) == (2, set())


@pytest.mark.parametrize(
    'line',
    [
        'score --benchmark ytvis --truth no.json --results no.json',
        'evaluate --model demo --dataset nothing --root no',
        'evaluate --model demo --dataset ytvis2019 --root no',
        'demo --model nothing',
        'export --model nothing --out a.onnx --image-size 640x480',
        'export --model demo --out a.pth --image-size 640x480',
        'export --model demo --out a.onnx',
        'demo --source no.mp4',
        'bag make --dataset nothing --root no --out no',
        'bag replay no --model demo --out no',
        'train --config no.yaml',
        f'train --config {resource("config", "train_demo.yaml")} nothing=3',
        'benchmark train --config no.yaml',
        'benchmark model --image-size 64 96',
        'benchmark model --json /proc/none/speed.json',
        'benchmark gpu --inputs 65x64',
        'models nothing',
    ],
)
def test_a_wrong_value_is_named_before_a_slow_library_is_imported(line):
    code, imported = run(*line.split())
    assert code == 1
    assert not imported & set(SLOW)


@pytest.mark.parametrize('arguments', [(), ('demo',), ('videomt-dinov2-large-ovis',)])
def test_the_models_are_listed_without_torch(arguments):
    code, imported = run('models', *arguments)
    assert code == 0
    assert imported <= {'numpy', 'yaml'}


def test_a_wrong_model_is_named_before_torch_is_imported(tmp_path):
    write_dataset('ytvis', tmp_path, 1, 2)
    line = f'evaluate --model nothing --dataset ytvis2019 --root {tmp_path}'
    code, imported = run(*line.split())
    assert code == 1
    assert not imported & set(SLOW)


def test_the_families_of_score_are_those_there_are():
    assert tuple(FAMILIES) == FAMILY_NAMES
