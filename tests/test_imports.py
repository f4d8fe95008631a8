"""Imports run one way, and ROS and training stay in their folders: read from the sources."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import videomt_ros
from videomt_ros.resources import resource

PACKAGE = Path(videomt_ros.__file__).parent
VALUES = {'structures', 'labels', 'resources', 'files', 'errors', 'progress'}
MAY_IMPORT = {
    'structures': set(),
    'resources': set(),
    'files': set(),
    'errors': set(),
    'progress': set(),
    'launch_files': set(),
    'labels': {'resources'},
    'model': VALUES,
    'engines': {*VALUES, 'model'},
    'inference': {*VALUES, 'model', 'engines'},
    'datasets': VALUES,
    'evaluation': {*VALUES, 'model', 'engines', 'inference', 'datasets'},
    'training': {*VALUES, 'model', 'engines', 'inference', 'datasets', 'evaluation'},
    'speed': {*VALUES, 'model', 'engines', 'inference', 'datasets', 'evaluation', 'training'},
    'ros': {*VALUES, 'model', 'engines', 'inference', 'datasets'},
    'rig': {*VALUES, 'datasets', 'ros'},
    'cli': None,  # anything
    '__main__': {'cli'},
    '__init__': set(),
}
"""What a file or folder of the package may import beside itself."""
ROS = {
    'ament_index_python', 'builtin_interfaces', 'cv_bridge', 'diagnostic_msgs', 'geometry_msgs',
    'launch', 'launch_ros', 'lifecycle_msgs', 'message_filters', 'rcl_interfaces', 'rclpy',
    'rosgraph_msgs', 'sensor_msgs', 'std_msgs', 'std_srvs', 'vision_msgs', 'visualization_msgs',
}  # fmt: skip
LIBRARIES = {
    'structures': {'numpy'},
    'resources': set(),
    'files': set(),
    'errors': set(),
    'progress': {'tqdm'},
    'launch_files': {'yaml'},
    'labels': {'numpy', 'yaml'},
    'model': {'numpy', 'torch', 'timm', 'safetensors', 'huggingface_hub', 'yaml'},
}
"""The only libraries these may import."""


def imported_names(path: Path, module: str) -> list[tuple[str, int]]:
    """Full name and line of all that a file imports, at its top and inside functions."""
    package = module.rpartition('.')[0]
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        match node:
            case ast.Import():
                names += [(alias.name, node.lineno) for alias in node.names]
            case ast.ImportFrom():
                parents = package.split('.')
                above = parents[: len(parents) - node.level + 1] if node.level else []
                base = '.'.join([*above, *filter(None, [node.module])])
                names += [(f'{base}.{alias.name}', node.lineno) for alias in node.names]
            case ast.Call(
                ast.Name('import_module') | ast.Attribute(_, 'import_module'),
                [ast.Constant(str(name)), *_],
            ):
                names.append((name, node.lineno))
    return names


def violations(package: Path) -> list[str]:
    """Every import in the sources of a package that breaks a rule, as 'file:line: why'."""
    found = []
    for path in sorted(package.rglob('*.py')):
        parts = path.relative_to(package).with_suffix('').parts
        home = parts[0]
        if home not in MAY_IMPORT:
            found.append(f'{"/".join(parts)}: {home} has no place in the import order')
            continue
        for name, line in imported_names(path, '.'.join(('videomt_ros', *parts))):
            top, target = (*name.split('.'), '')[:2]
            ours, is_ros = top == 'videomt_ros', top in ROS
            if ours and target == 'msg':
                ours, is_ros = False, True
            if (
                (is_ros and home not in ('ros', 'rig'))
                or (
                    ours
                    and MAY_IMPORT[home] is not None
                    and target not in {*MAY_IMPORT[home], home}
                )
                or (
                    not (ours or is_ros or top in sys.stdlib_module_names)
                    and top not in LIBRARIES.get(home, {top})
                )
            ):
                found.append(f'{"/".join(parts)}:{line}: {home} may not import {name}')
    return found


def test_the_package_keeps_its_import_order():
    assert violations(PACKAGE) == []


def test_lightning_stays_in_training():
    """Node, evaluation and scoring do without it."""
    users = {
        path.relative_to(PACKAGE)
        for path in PACKAGE.rglob('*.py')
        for name, _ in imported_names(path, path.stem)
        if name.partition('.')[0] in ('lightning', 'pytorch_lightning')
    }
    others = {path.as_posix() for path in users if path.parts[0] != 'training'}
    assert others == {'speed/training_step.py'}, 'which measures the steps of the trainer'


def test_launch_files_import_launch_and_the_module_made_for_them():
    for path in resource('launch').glob('*.py'):
        names = {name for name, _ in imported_names(path, path.stem)}
        names = {name for name in names if name.partition('.')[0] not in sys.stdlib_module_names}
        others = {name for name in names if name.partition('.')[0] not in ('launch', 'launch_ros')}
        assert others <= {'videomt_ros.launch_files'}, path.name


@pytest.mark.parametrize(
    ('file', 'source'),
    [
        ('inference/stream.py', 'import rclpy'),
        ('cli/demo.py', 'def main():\n    from rclpy.node import Node'),
        ('datasets/bags/images.py', 'from videomt_ros.msg import Track'),
        ('datasets/bags/images.py', 'import videomt_ros.msg'),
        ('datasets/bags/images.py', 'from ... import msg'),
        ('inference/stream.py', 'from cv_bridge import CvBridge'),
        ('inference/stream.py', 'from videomt_ros.training import criterion'),
        ('inference/stream.py', 'from ..training.clips import Clip'),
        ('inference/__init__.py', 'from ..training import clips'),
        (
            'inference/stream.py',
            "import importlib\nimportlib.import_module('videomt_ros.training')",
        ),
        ('model/network.py', 'from videomt_ros.inference import VideoStream'),
        ('model/network.py', 'import cv2'),
        ('datasets/formats/ytvis.py', 'import videomt_ros.model.network'),
        ('evaluation/metrics/ap.py', 'from videomt_ros import training'),
        ('training/module.py', 'from videomt_ros.cli import main'),
        ('ros/node.py', 'from videomt_ros.training.matcher import Matcher'),
        ('structures.py', 'import torch'),
        ('structures.py', 'from videomt_ros.labels import load'),
        ('__init__.py', 'from videomt_ros.model import load_model'),
        ('helpers.py', 'import os'),
    ],
)
def test_a_planted_violation_is_found(tmp_path, file, source):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    assert len(violations(tmp_path)) == 1


@pytest.mark.parametrize(
    ('file', 'source'),
    [
        ('ros/node.py', 'import rclpy\nfrom videomt_ros.msg import Track'),
        ('cli/demo.py', 'def main():\n    from videomt_ros.rig.camera import Camera'),
        ('inference/stream.py', 'import torch\nfrom .tracker import Tracker'),
        ('inference/__init__.py', 'from .stream import VideoStream'),
        ('evaluation/evaluator.py', 'from videomt_ros.datasets.formats.ytvis import read'),
        ('model/network.py', 'import math\nimport torch.nn.functional as F'),
    ],
)
def test_what_is_allowed_passes(tmp_path, file, source):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    assert violations(tmp_path) == []
