"""The table of parameters, and the file that documents it."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

pytest.importorskip('rclpy', reason='needs ROS')

import rclpy
from rclpy.context import Context
from rclpy.parameter import Parameter

from tests.ros.node_process import new_domain
from videomt_ros.inference import StreamSettings
from videomt_ros.launch_files import read_parameters
from videomt_ros.resources import resource
from videomt_ros.ros.declaration import (
    changed_parameters,
    declare_parameters,
    follow_changes,
)
from videomt_ros.ros.parameter_entry import constraint
from videomt_ros.ros.parameters import NodeParameters, Parameters

pytestmark = pytest.mark.ros
TABLE = {entry.name: entry for entry in fields(NodeParameters)}


def test_every_entry_has_a_meaning_and_a_default_that_fits():
    NodeParameters()
    for name, entry in TABLE.items():
        assert entry.metadata['meaning'].endswith('.'), name


def test_stream_settings_are_all_there_with_their_own_defaults():
    settings = NodeParameters().stream_settings(())
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

    listed = read_parameters(resource('config', 'segmenter.yaml'))
    assert {parameter.name: parameter.meaning for parameter in listed} == {
        name: f'{entry.metadata["meaning"]} {constraint(entry)}'.strip()
        for name, entry in TABLE.items()
    }


def test_input_sizes_that_the_network_does_not_take_are_refused(tiny_config):
    common = NodeParameters(cameras=('front', 'rear'), input_size=96)
    Parameters(common).check_input_sizes(tiny_config)
    Parameters(NodeParameters()).check_input_sizes(tiny_config)
    wrong = Parameters(common, {'rear': {'input_size': 100}})
    with pytest.raises(ValueError, match='Camera rear: Expected input_size to be a multiple of'):
        wrong.check_input_sizes(tiny_config)
    with pytest.raises(ValueError, match='^Expected input_size to be a multiple of the patch'):
        Parameters(NodeParameters(input_size=8)).check_input_sizes(tiny_config)


def test_the_page_of_the_node_marks_what_may_differ_and_what_may_change():
    text = (Path(__file__).parents[2] / 'docs' / 'node.md').read_text()
    marks = dict(re.findall(r'^\| `(\w+)` ?([+*]*) \|', text, re.MULTILINE))
    assert {name: marks[name] for name in TABLE} == {
        name: '+' * entry.metadata['per_camera'] + '*' * entry.metadata['dynamic']
        for name, entry in TABLE.items()
    }


def change(current=None, class_names=None, **values):
    changes = [Parameter(name, value=value) for name, value in values.items()]
    parameters = Parameters(current or NodeParameters())
    return changed_parameters(parameters, changes, class_names).common


def two_cameras(**common):
    return Parameters(
        NodeParameters(cameras=('front', 'rear'), **common), {'front': {}, 'rear': {}}
    )


def change_camera(current, values, class_names=None):
    changes = [Parameter(name, value=value) for name, value in values.items()]
    return changed_parameters(current, changes, class_names)


def test_a_camera_follows_the_common_value_until_it_has_its_own():
    changed = change_camera(two_cameras(), {'rear.gap_s': 3.0, 'gap_s': 2.0})
    assert [changed.of_camera(name).gap_s for name in ('front', 'rear', '')] == [2.0, 3.0, 2.0]
    again = change_camera(changed, {'gap_s': 4.0})
    assert [again.of_camera(name).gap_s for name in ('front', 'rear')] == [4.0, 3.0]
    back = change_camera(again, {'rear.gap_s': None})
    assert back.of_camera('rear').gap_s == 4.0


def test_a_cameras_values_are_checked_as_the_common_ones():
    with pytest.raises(ValueError, match=r'Camera rear: Expected gap_s from 0\.0 to 3600'):
        change_camera(two_cameras(), {'rear.gap_s': -1.0})
    with pytest.raises(ValueError, match='Camera rear: Expected gap_s to be a float, got 1'):
        change_camera(two_cameras(), {'rear.gap_s': 1})
    with pytest.raises(ValueError, match="Camera rear: Expected in class_filter .* got 'cart'"):
        change_camera(two_cameras(), {'rear.class_filter': ['cart']}, ['cat'])
    with pytest.raises(ValueError, match='rear.input_depth cannot change while a model is loaded'):
        change_camera(two_cameras(), {'rear.input_depth': 3}, ['cat'])
    # One that it has already is no change.
    same = change_camera(two_cameras(), {'rear.input_depth': 3})
    assert change_camera(same, {'rear.input_depth': 3}, ['cat']) == same


def test_a_model_filters_the_classes_that_it_knows():
    parameters = NodeParameters(class_filter=('cat', 'road'))
    parameters.check_classes(['dog', 'cat', 'road'])  # those of all models
    animals = parameters.stream_settings(['cat', 'dog'])
    assert (animals['class_filter'], animals['track_states']) == (('cat',), ('confirmed',))
    nothing = parameters.stream_settings(['sky'])
    assert (nothing['class_filter'], nothing['track_states']) == ((), ())
    everything = NodeParameters().stream_settings(['sky'])
    assert (everything['class_filter'], everything['track_states']) == ((), ('confirmed',))


def test_one_model_or_several():
    assert NodeParameters().all_models() == ()
    assert NodeParameters(model='demo').all_models() == ('demo',)
    assert NodeParameters(models=('a', 'b')).all_models() == ('a', 'b')
    with pytest.raises(ValueError, match='Expected model or models, got .* Leave one of them'):
        NodeParameters(model='demo', models=('a', 'b'))


@pytest.mark.parametrize('cameras', [('front', 'front'), ('a b',), ('front/left',), ('1st',)])
def test_names_of_cameras_are_names_of_topics_and_differ(cameras):
    with pytest.raises(ValueError, match='cameras'):
        NodeParameters(cameras=cameras)


def test_values_of_cameras_are_read_and_may_be_set_later():
    context = Context()
    words = ['-p', 'cameras:=[front, rear]', '-p', 'rear.gap_s:=3.0', '-p', 'gap_s:=2.0']
    words += ['-p', 'class_filter:=[dog]', '-p', 'rear.class_filter:=[]']  # all, and not the dog
    rclpy.init(args=['--ros-args', *words], context=context, domain_id=new_domain())
    node = rclpy.create_node('segmenter', context=context)
    try:
        declared = declare_parameters(node)
        assert declared.own == {'front': {}, 'rear': {'gap_s': 3.0, 'class_filter': ()}}
        assert list(node.get_parameter('rear.class_filter').value) == []
        assert declared.of_camera('front').gap_s == 2.0
        assert not node.has_parameter('rear.model')
        later = Parameter('front.class_filter', value=['cat'])
        assert node.set_parameters([later])[0].successful
        assert changed_parameters(declared, [later], ['cat', 'dog']).own['front'] == {
            'class_filter': ('cat',)
        }
    finally:
        node.destroy_node()
        context.try_shutdown()


def test_parameters_of_cameras_follow_unset_values_and_the_cameras():
    context = Context()
    words = ['-p', 'cameras:=[front, rear]', '-p', 'rear.gap_s:=3.0']
    rclpy.init(args=['--ros-args', *words], context=context, domain_id=new_domain())
    node = rclpy.create_node('segmenter', context=context)
    try:
        declared = declare_parameters(node)
        changes = [Parameter('rear.gap_s'), Parameter('cameras', value=['rear', 'left'])]
        changed = changed_parameters(declared, changes, None)
        assert node.set_parameters_atomically(changes).successful
        assert not node.has_parameter('rear.gap_s')
        followed = follow_changes(node, changed, changes)
        assert followed.own == {'rear': {}, 'left': {}}
        assert node.get_parameter('rear.gap_s').value is None
        assert node.has_parameter('left.gap_s')
        assert not node.has_parameter('front.gap_s')
    finally:
        node.destroy_node()
        context.try_shutdown()


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


def test_a_string_for_a_list_is_refused_with_the_way_to_write_it():
    with pytest.raises(ValueError, match=r"got 'cat'. Write it as \[cat\]"):
        change(class_filter='cat')


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
