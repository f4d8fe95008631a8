"""The table of parameters, the file that documents it, and the launch file's arguments."""

from __future__ import annotations

import ast
from dataclasses import fields
from importlib import util
from pathlib import Path

import pytest
import yaml

pytest.importorskip('rclpy', reason='needs ROS')

from rclpy.parameter import Parameter

from videomt_ros.inference import StreamSettings
from videomt_ros.resources import resource
from videomt_ros.ros.parameters import NodeParameters, changed_parameters, constraint

pytestmark = pytest.mark.ros
TABLE = {entry.name: entry for entry in fields(NodeParameters)}
LAUNCH_FILE = Path(__file__).parents[2] / 'launch' / 'segmenter.launch.py'


def test_every_entry_has_a_meaning_and_a_default_that_fits():
    NodeParameters()
    for name, entry in TABLE.items():
        assert entry.metadata['meaning'].endswith('.'), name


def test_stream_settings_are_all_there_with_their_own_defaults():
    settings = NodeParameters().stream_settings()
    assert StreamSettings(**settings) == StreamSettings()
    assert set(settings) == {entry.name for entry in fields(StreamSettings)}


def test_the_documented_file_says_what_the_table_says():
    text = resource('config', 'segmenter.yaml').read_text()
    values = yaml.safe_load(text)['/**']['ros__parameters']
    defaults = {
        name: list(entry.default) if isinstance(entry.default, tuple) else entry.default
        for name, entry in TABLE.items()
    }
    assert values == defaults
    assert [type(value) for value in values.values()] == [type(v) for v in defaults.values()]
    assert list(values) == list(defaults)

    comments: dict[str, str] = {}
    words: list[str] = []
    for line in text.split('ros__parameters:')[1].splitlines():
        line = line.strip()
        if line.startswith('#'):
            words.append(line[1:].strip())
        elif line:
            comments[line.split(':')[0]] = ' '.join(words)
            words = []
    assert comments == {
        name: f'{entry.metadata["meaning"]} {constraint(entry)}'.strip()
        for name, entry in TABLE.items()
    }


def change(current=None, class_names=None, **values):
    changes = [Parameter(name, value=value) for name, value in values.items()]
    return changed_parameters(current or NodeParameters(), changes, class_names)


def test_changes_apply_together_or_not_at_all():
    current = NodeParameters()
    assert change(gap_s=2.0, min_area=9) == NodeParameters(gap_s=2.0, min_area=9)
    with pytest.raises(ValueError, match='min_area'):
        change(current, gap_s=2.0, min_area=-1)
    assert current == NodeParameters()


def test_others_parameters_are_let_through():
    assert change(use_sim_time=True) == NodeParameters()


def test_a_loaded_model_holds_what_it_was_loaded_with():
    assert change(model='demo', device='cuda:1').device == 'cuda:1'
    with pytest.raises(ValueError, match='model cannot change while a model is loaded'):
        change(class_names=['cat'], model='demo')
    # The same value again is no change: tools write back whole sets.
    assert change(class_names=['cat'], model='', device='auto') == NodeParameters()


def test_unknown_classes_are_named_with_the_nearest():
    assert change(class_filter=['cart'], class_names=None).class_filter == ('cart',)
    with pytest.raises(ValueError, match=r"got 'cart'. The nearest is 'cat'"):
        change(class_filter=['cart'], class_names=['dog', 'cat'])
    with pytest.raises(ValueError, match=r"got 'xyz'. The nearest is"):
        change(class_filter=['xyz'], class_names=['dog', 'cat'])


def test_empty_words_and_empty_lists_mean_every_class():
    current = NodeParameters(class_filter=('cat',))
    assert change(current, class_filter=['']).class_filter == ()
    assert change(current, class_filter=[]).class_filter == ()


@pytest.mark.parametrize(
    'values',
    [
        {'device': 'tpu'},
        {'precision': 'fp8'},
        {'task': ''},
        {'input_depth': 0},
        {'input_depth': True},
        {'class_filter': 'cat'},
        {'class_filter': [1]},
        {'class_filter': [True]},
        {'class_filter': [b'\x01']},
        {'track_states': ['lost', 'found']},
        {'score_threshold': float('nan')},
    ],
)
def test_wrong_values_are_named(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        change(**values)


def launch_module_source() -> ast.Module:
    return ast.parse(LAUNCH_FILE.read_text())


def test_launch_file_imports_launch_and_launch_ros_alone():
    modules = set()
    for node in ast.walk(launch_module_source()):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            modules.add(node.module.split('.')[0])
    assert modules == {'launch', 'launch_ros'}


def test_launch_file_lists_the_parameters_with_types_and_meanings():
    listed = next(
        node.value
        for node in launch_module_source().body
        if isinstance(node, ast.Assign) and node.targets[0].id == 'PARAMETERS'
    )
    rows = [
        (row.elts[0].value, ast.unparse(row.elts[1]), row.elts[2].value) for row in listed.elts
    ]
    kinds = {tuple: 'list[str]'}
    assert [(name, kind) for name, kind, _ in rows] == [
        (name, kinds.get(type(entry.default), type(entry.default).__name__))
        for name, entry in TABLE.items()
    ]
    assert all(len(meaning) > 10 for _, _, meaning in rows)


def test_launch_description_declares_every_argument():
    pytest.importorskip('launch_ros', reason='launch_ros comes with a ROS installation alone')
    spec = util.spec_from_file_location('segmenter_launch', LAUNCH_FILE)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = module.generate_launch_description().get_launch_arguments()
    names = {argument.name for argument in arguments}
    assert names == {*TABLE, 'image', 'params_file', 'namespace', 'name', 'log_level'}
    assert all(len(argument.description) > 10 for argument in arguments)
