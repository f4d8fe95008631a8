"""The launch files: what they compute, and the actions that they make of it.

`launch` and `launch_ros` come with a ROS installation alone. Without them the launch files run
with stand-ins, which record the actions.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib import util
from types import ModuleType, SimpleNamespace

import pytest
import yaml

from videomt_ros.launch_files import (
    REPLAY_ARGUMENTS,
    SEGMENTER_ARGUMENTS,
    check_arguments,
    check_replay,
    check_rviz,
    find_cameras,
    given_parameters,
    image_remappings,
    parse_words,
    profile_environment,
    read_parameters,
    replay_words,
    rviz_config,
)
from videomt_ros.resources import resource

PARAMETERS = read_parameters(resource('config', 'segmenter.yaml'))
PROFILE = str(resource('config', 'fastdds_images.xml'))
VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('person', ['person']),
        ('person,dog', ['person', 'dog']),
        (' person , dog ', ['person', 'dog']),
        ('[person, dog]', ['person', 'dog']),
        ('[person,dog,]', ['person', 'dog']),
        ('traffic light', ['traffic light']),
        ('"traffic light"', ['traffic light']),
        ("['traffic light', dog]", ['traffic light', 'dog']),
        ('"a, b",c', ['a, b', 'c']),
        ('1', ['1']),
        ('[1, 2.0, yes, null]', ['1', '2.0', 'yes', 'null']),
        ("dog's", ["dog's"]),
        ('车', ['车']),
        ('[]', []),
        ('', []),
        ("''", []),
    ],
)
def test_arrays_of_strings_are_read_with_and_without_brackets(text, words):
    assert parse_words('class_filter', text) == words


@pytest.mark.parametrize('text', ['[a', 'a]', 'a: b', '[[a]]', '{a: b}', '"a', 'a,,b', '[a] b'])
def test_other_text_is_refused_with_the_way_to_write_it(text):
    with pytest.raises(
        ValueError, match='Expected class_filter:=person,? or|class_filter:=person'
    ):
        parse_words('class_filter', text)


def test_every_argument_has_a_type_and_a_meaning():
    assert {type(parameter.default) for parameter in PARAMETERS} <= {str, bool, int, float, list}
    meanings = [parameter.meaning for parameter in PARAMETERS]
    meanings += [meaning for _, _, meaning in (*SEGMENTER_ARGUMENTS, *REPLAY_ARGUMENTS)]
    assert all(len(meaning) > 10 for meaning in meanings)
    names = [parameter.name for parameter in PARAMETERS]
    names += [name for name, _, _ in (*SEGMENTER_ARGUMENTS, *REPLAY_ARGUMENTS)]
    assert len(names) == len(set(names))


def test_arguments_become_parameters_of_their_types():
    arguments = {
        'model': '1.0',
        'score_threshold': '1',
        'min_area': '9',
        'publish_tracks': 'False',
        'class_filter': '[]',
        'track_states': 'lost,confirmed',
        'device': '',
        'rear.gap_s': '2e-1',
        'other.gap_s': '3',
        'image': '/camera/image_raw',
    }
    values = given_parameters(PARAMETERS, ['front', 'rear'], arguments)
    assert values == {
        'model': '1.0',
        'score_threshold': 1.0,
        'min_area': 9,
        'publish_tracks': False,
        'class_filter': [''],
        'track_states': ['lost', 'confirmed'],
        'rear.gap_s': 0.2,
    }
    assert type(values['score_threshold']) is float


@pytest.mark.parametrize(
    ('argument', 'what'),
    [
        ('min_area:=1.5', 'min_area to be a whole number'),
        ('score_threshold:=high', 'score_threshold to be a number'),
        ('publish_tracks:=maybe', 'publish_tracks to be true or false'),
    ],
)
def test_arguments_of_another_type_are_named(argument, what):
    name, _, text = argument.partition(':=')
    with pytest.raises(ValueError, match=what):
        given_parameters(PARAMETERS, [], {name: text})


def test_unknown_arguments_are_named_with_the_nearest():
    words = ['ros2', 'launch', 'videomt_ros', 'cameras.launch.py', 'sigterm_timeout:=20']
    check_arguments([*words, 'rear.gap_s:=1', 'rviz:=true', 'bag:=a'], PARAMETERS, ['rear'])
    for word, nearest in (
        ('scoer_threshold:=0.9', 'score_threshold'),
        ('reer.gap_s:=1', 'rear.gap_s'),
        ('rear.gap:=1', 'rear.gap_s'),
    ):
        with pytest.raises(ValueError, match=f"{word.partition(':')[0]}'. The .* '{nearest}'"):
            check_arguments([*words, word], PARAMETERS, ['rear'])


@pytest.mark.parametrize(
    ('argument', 'file', 'cameras'),
    [
        ('', '/**:\n  ros__parameters:\n    cameras: []\n', []),
        ('', '', []),
        ('', '/**:\n  ros__parameters:\n', []),
        ('', 'ns:\n  segmenter:\n    ros__parameters: {cameras: [front, 1]}\n', ['front', '1']),
        ('a,b', '/**:\n  ros__parameters:\n    cameras: [front]\n', ['a', 'b']),
    ],
)
def test_cameras_are_found_in_the_argument_and_in_the_file(argument, file, cameras):
    assert find_cameras(argument, file) == cameras


def test_each_camera_hears_its_image_topic():
    assert image_remappings([], []) == image_remappings(['front'], []) == []
    assert image_remappings([], ['/a']) == [('image_raw', '/a')]
    two = image_remappings(['front', 'rear'], ['/a', 'b/c'])
    assert two == [('front/image_raw', '/a'), ('rear/image_raw', 'b/c')]
    assert image_remappings([], ['/d'], 'depth_image') == [('depth/image_raw', '/d')]
    one = image_remappings(['front'], ['/d'], 'depth_image')
    assert one == [('front/depth/image_raw', '/d')]
    with pytest.raises(ValueError, match='got depth_image:=a,b for'):
        image_remappings([], ['a', 'b'], 'depth_image')
    for cameras, images in ((['front'], ['a', 'b']), ([], ['a', 'b']), (['a', 'b'], ['c'])):
        with pytest.raises(ValueError, match='one image topic for each camera'):
            image_remappings(cameras, images)


def test_the_profile_is_set_unless_the_environment_chooses_another():
    both = dict.fromkeys(VARIABLES, PROFILE)
    assert profile_environment('auto', PROFILE, {}) == both
    for rmw in ('', 'rmw_fastrtps_cpp', 'rmw_fastrtps_dynamic_cpp'):
        assert profile_environment('auto', PROFILE, {'RMW_IMPLEMENTATION': rmw}) == both
    for own in (
        {'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'},
        {'FASTDDS_BUILTIN_TRANSPORTS': 'LARGE_DATA'},
        {VARIABLES[0]: '/mine.xml'},
        {VARIABLES[1]: '/mine.xml'},
    ):
        assert profile_environment('auto', PROFILE, own) == {}
        assert profile_environment(PROFILE, '/other.xml', own) == both
    assert profile_environment('none', PROFILE, {}) == {}
    with pytest.raises(ValueError, match='got /missing.xml'):
        profile_environment('/missing.xml', PROFILE, {})


def topics_of_rviz(*args):
    text = rviz_config(resource('config', 'segmenter.rviz').read_text(), *args)
    manager = yaml.safe_load(text)['Visualization Manager']
    assert len({display['Name'] for display in manager['Displays']}) == len(manager['Displays'])
    return manager, [display['Topic']['Value'] for display in manager['Displays']]


def test_rviz_shows_the_topics_of_the_launch():
    manager, topics = topics_of_rviz('/', [], ['/camera/image_raw'], 'camera_link')
    assert manager['Global Options']['Fixed Frame'] == 'camera_link'
    assert {'/camera/image_raw', '/segmentation/overlay'} <= set(topics)
    _, topics = topics_of_rviz('/', [], [], 'camera')
    assert {'/image_raw', '/segmentation/overlay'} <= set(topics)
    _, topics = topics_of_rviz('/robot', ['front', 'rear'], ['color/image', '/r'], 'camera')
    assert {'/robot/color/image', '/r', '/robot/front/segmentation/overlay'} <= set(topics)
    assert '/robot/rear/segmentation/instances' in topics


def test_rviz_is_refused_for_several_models():
    one = '/**: {ros__parameters: {models: [a]}}'
    two = '/**: {ros__parameters: {models: [a, b]}}'
    for models, text in (('', '{}'), ('', one), ('c', two)):
        check_rviz(models, text)
    for models, text in (('a,b', one), ('', two)):
        with pytest.raises(ValueError, match='one model with rviz:=true, got models:=a,b'):
            check_rviz(models, text)


def test_rviz_shows_ids_of_any_size_and_every_mask():
    displays = yaml.safe_load(resource('config', 'segmenter.rviz').read_text())
    displays = displays['Visualization Manager']['Displays']
    by_topic = {display['Topic']['Value']: display for display in displays}
    instances = by_topic['segmentation/instances']
    assert instances['Enabled'] and instances['Normalize Range']


def test_foxglove_shows_the_topics_of_an_unnamed_camera():
    layout = json.loads(resource('config', 'segmenter.foxglove.json').read_text())
    panels = layout['configById']

    def placed(node):
        return [node] if isinstance(node, str) else placed(node['first']) + placed(node['second'])

    assert sorted(placed(layout['layout'])) == sorted(panels)
    assert panels['Image!overlay']['imageMode']['imageTopic'] == '/segmentation/overlay/compressed'
    assert panels['DiagnosticSummary!node']['topicToRender'] == '/diagnostics'


@pytest.fixture
def launch_modules(monkeypatch):
    """The modules that launch files import; stand-ins where they are not installed."""
    if util.find_spec('launch_ros') is not None:
        pytest.skip('run with the real launch_ros')

    class Action(SimpleNamespace):
        def __init__(self, *args, **values):
            super().__init__(args=args, **values)

    names = {
        'launch': ['LaunchContext', 'LaunchDescription'],
        'launch.actions': [
            'DeclareLaunchArgument', 'ExecuteProcess', 'IncludeLaunchDescription',
            'OpaqueFunction', 'SetEnvironmentVariable', 'Shutdown',
        ],
        'launch.events.process': ['ProcessExited'],
        'launch_ros.actions': ['LifecycleNode', 'Node'],
        'launch_ros.parameter_descriptions': ['ParameterFile'],
        'launch_ros.substitutions': ['ExecutableInPackage'],
    }  # fmt: skip
    for name in (*names, 'launch.events', 'launch_ros', 'launch_ros.utilities'):
        module = ModuleType(name)
        for kind in names.get(name, []):
            setattr(module, kind, type(kind, (Action,), {}))
        monkeypatch.setitem(sys.modules, name, module)
    utilities = sys.modules['launch_ros.utilities']
    utilities.prefix_namespace = lambda base, name: '/'.join(filter(None, [base, name]))
    utilities.make_namespace_absolute = lambda name: '/' + name.strip('/')


def load(file):
    spec = util.spec_from_file_location(
        file.partition('.')[0] + '_launch', resource('launch', file)
    )
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(module, **given):
    """The actions of the launch file for these arguments, by their kind."""
    entities = module.generate_launch_description().args[0]
    declared = {
        entity.args[0]: entity.default_value
        for entity in entities
        if type(entity).__name__ == 'DeclareLaunchArgument' and hasattr(entity, 'default_value')
    }
    context = SimpleNamespace(
        launch_configurations={**declared, **given}, environment={}, is_shutdown=False
    )
    actions = module.start(context)
    return {type(action).__name__: action for action in actions}, context


def test_segmenter_launch_file_starts_the_node(launch_modules):
    module = load('segmenter.launch.py')
    actions, context = started(module, model='demo', image='/camera/image_raw', depth_image='/d')
    assert set(actions) == {'SetEnvironmentVariable', 'LifecycleNode'}
    node = actions['LifecycleNode']
    assert (node.package, node.executable) == ('videomt_ros', 'segmenter')
    assert (node.name, node.namespace) == ('segmenter', '')
    assert node.parameters[1] == {'model': 'demo'}
    assert node.remappings == [('image_raw', '/camera/image_raw'), ('depth/image_raw', '/d')]
    assert node.respawn is False
    assert node.on_exit(SimpleNamespace(returncode=0), context) is None
    for code in (1, -9):
        with pytest.raises(RuntimeError, match=f'exit code {code}'):
            node.on_exit(SimpleNamespace(returncode=code), context)
    context.is_shutdown = True  # such as by Ctrl-C
    assert node.on_exit(SimpleNamespace(returncode=-15), context) is None


def test_segmenter_launch_file_passes_on_every_argument(launch_modules, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    module = load('segmenter.launch.py')
    actions, _ = started(
        module,
        cameras='front,rear',
        respawn='true',
        respawn_delay='3',
        rviz='true',
        use_sim_time='true',
        log_level='debug',
        fastdds_profile='none',
        namespace='robot',
        **{'rear.gap_s': '2'},
    )
    # The node last: where rviz2 is missing, nothing is left behind.
    assert list(actions) == ['Node', 'LifecycleNode']
    node, rviz = actions['LifecycleNode'], actions['Node']
    sim_time = {'use_sim_time': True}
    assert node.parameters[1] == {**sim_time, 'cameras': ['front', 'rear'], 'rear.gap_s': 2.0}
    assert (node.respawn, node.respawn_delay, node.on_exit) == (True, 3.0, None)
    assert node.ros_arguments == ['--log-level', 'debug']
    assert (rviz.package, rviz.parameters) == ('rviz2', [sim_time])
    with open(rviz.arguments[1], encoding='utf-8') as file:
        assert '/robot/front/segmentation/overlay' in file.read()


def test_cameras_launch_file_requires_names(launch_modules):
    (entities,) = load('cameras.launch.py').generate_launch_description().args
    argument, included = entities
    assert argument.args == ('cameras',) and not hasattr(argument, 'default_value')
    assert included.args[0].endswith('segmenter.launch.py')


@pytest.mark.parametrize('truth', ['', PROFILE])
def test_replay_launch_file_plays_scores_and_ends(launch_modules, truth):
    module = load('replay.launch.py')
    given = {'namespace': 'robot', 'name': 'eyes', 'use_sim_time': ''}
    actions, context = started(module, **given, bag='a', out='b', truth=truth, rate='2')
    play = actions['ExecuteProcess']
    assert play.cmd[0].args == ('videomt', 'videomt_ros')
    words = 'bag replay a --running /robot/eyes --out b --rate 2'
    assert play.cmd[1:] == words.split()
    with pytest.raises(RuntimeError, match='videomt bag ended with exit code 1'):
        play.on_exit(SimpleNamespace(returncode=1), context)
    then = play.on_exit(SimpleNamespace(returncode=0), context)
    if truth:
        assert then.cmd[1:] == ['evaluate', '--results-bag', 'b', '--truth', truth]
        with pytest.raises(RuntimeError, match='videomt evaluate ended with exit code 2'):
            then.on_exit(SimpleNamespace(returncode=2), context)
        then = then.on_exit(SimpleNamespace(returncode=0), context)
    assert type(then).__name__ == 'Shutdown'
    context.is_shutdown = True  # such as by Ctrl-C
    assert play.on_exit(SimpleNamespace(returncode=130), context) is None


def test_replay_launch_file_hears_every_image_unless_told_otherwise(launch_modules):
    module = load('replay.launch.py')
    context = SimpleNamespace(launch_configurations={'input_depth': '3'})
    given = context.launch_configurations
    given |= {name: default for name, default, _ in REPLAY_ARGUMENTS}
    module.prepare(context)
    assert (given['input_depth'], given['input_reliability']) == ('3', 'reliable')


def test_a_replay_is_of_one_camera_and_model_and_has_its_truth(tmp_path):
    params_file = tmp_path / 'node.yaml'
    params_file.write_text('/**:\n  ros__parameters:\n    models: [c, d]\n')
    given = {name: default for name, default, _ in REPLAY_ARGUMENTS}
    given |= {'topic': '/a', 'every_frame': 'true', 'use_sim_time': 'true'}
    check_replay(given)
    words = replay_words(given, '/segmenter')
    assert words[-4:] == ['--clock', '--topic', '/a', '--every-frame'] and '--rate' not in words
    check_replay({**given, 'models': 'a'})
    check_replay({**given, 'models': 'a', 'params_file': str(params_file)})
    for wrong, words in (
        ({'image': '/b'}, 'one camera'),
        ({'cameras': 'front'}, 'one camera'),
        ({'models': 'a,b'}, 'expected one model, got models:=a,b'),
        ({'params_file': str(params_file)}, 'expected one model, got models:=c,d'),
        ({'truth': '/missing.json'}, '/missing.json'),
    ):
        with pytest.raises(ValueError, match=words):
            check_replay({**given, **wrong})


@pytest.mark.parametrize('file', ['segmenter.launch.py', 'cameras.launch.py', 'replay.launch.py'])
def test_real_launch_descriptions_declare_every_argument(file):
    pytest.importorskip('launch_ros', reason='launch_ros comes with a ROS installation alone')
    arguments = load(file).generate_launch_description().get_launch_arguments()
    names = {argument.name for argument in arguments}
    assert names >= {name for name, _, _ in SEGMENTER_ARGUMENTS}
    assert names >= {parameter.name for parameter in PARAMETERS}
    assert all(len(argument.description) > 10 for argument in arguments)
