"""What the files in `launch/` compute: their arguments, the node's parameters, rviz's displays.

Nothing here needs ROS, so that tests run it everywhere; the launch files themselves only turn it
into actions of `launch` and `launch_ros`.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Argument = tuple[str, str, str]
"""Name, default and meaning of a launch argument."""

SEGMENTER_ARGUMENTS: tuple[Argument, ...] = (
    ('image', '', 'topic of the images; with cameras:=a,b one for each, in their order. Default: '
     'image_raw, or <camera>/image_raw'),
    ('depth_image', '', 'topic of the depth images, likewise; used with depth:=true. Default: '
     'depth/image_raw, or <camera>/depth/image_raw'),
    ('namespace', '', 'namespace of the node and its topics'),
    ('name', 'segmenter', 'name of the node'),
    ('use_sim_time', '', 'true takes the time from /clock, as for a simulation or a bag'),
    ('log_level', 'info', 'debug, info, warn, error or fatal'),
    ('respawn', 'false', 'true starts the node again whenever it ends by itself'),
    ('respawn_delay', '2.0', 'seconds before it is started again'),
    ('fastdds_profile', 'auto', 'profile file of Fast DDS for all that is launched from here on; '
     'auto: config/fastdds_images.xml, whose shared memory holds images, unless the environment '
     'chooses a profile or another middleware; none: leave the environment as it is'),
    ('rviz', 'false', 'true also starts rviz2 with config/segmenter.rviz, on the topics of this '
     'launch'),
    ('fixed_frame', 'camera', 'frame in which rviz2 shows markers and points: frame_id of the '
     'images, or another that /tf joins with it'),
)  # fmt: skip
"""Arguments of `segmenter.launch.py` that are not parameters of the node."""

REPLAY_ARGUMENTS: tuple[Argument, ...] = (
    ('bag', '', 'rosbag2 folder, .mcap, .db3 or .bag to play; needed'),
    ('out', '', 'new bag (mcap) for the lists of tracks; needed'),
    ('topic', '', 'image topic of a bag that has several'),
    ('rate', '1.0', 'speed relative to the recording'),
    (
        'every_frame',
        'false',
        'true plays as fast as the node takes the images, without dropping any',
    ),
    ('truth', '', 'truth of the bag, as for videomt evaluate --truth: the recording is scored'),
)
"""Arguments that `replay.launch.py` has beside those of `segmenter.launch.py`."""
REPLAY_NEEDS = ('bag', 'out')
"""Those of them that have no default."""
REPLAY_DEFAULTS = {'input_reliability': 'reliable', 'input_depth': '100'}
"""Defaults of a replay, with which the node alone decides which images it leaves out."""

_OF_LAUNCH = {
    'emulate_tty', 'global_params', 'launch-prefix', 'launch-prefix-filter', 'ros_namespace',
    'ros_remaps', 'sigkill_timeout', 'sigterm_timeout',
}  # fmt: skip
"""Launch configurations that `launch` and `launch_ros` read by themselves."""
_PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
"""The variable of Fast DDS 2 (Humble, Jazzy) and that of Fast DDS 3 (Kilted)."""


class NodeParameter(NamedTuple):
    """A parameter of the node, as `config/segmenter.yaml` documents it."""

    name: str
    default: Any
    """Its value in the file, whose type is the parameter's; a list holds strings."""
    meaning: str
    """The comment above it, with its range and choices."""


def read_parameters(path: str | Path) -> list[NodeParameter]:
    """Read the parameters that `config/segmenter.yaml` documents, in its order."""
    text = Path(path).read_text(encoding='utf-8')
    defaults = yaml.safe_load(text)['/**']['ros__parameters']
    meanings: dict[str, str] = {}
    words: list[str] = []
    for line in text.partition('ros__parameters:')[2].splitlines():
        line = line.strip()
        if line.startswith('#'):
            words.append(line[1:].strip())
        elif line:
            meanings[line.partition(':')[0]] = ' '.join(words)
            words = []
    return [NodeParameter(name, value, meanings[name]) for name, value in defaults.items()]


def find_cameras(text: str, params_file: str) -> list[str]:
    """Find the names of the cameras: in the argument `cameras`, else in the parameter file.

    Args:
        text: value of the argument; may be empty.
        params_file: text of the parameter file.
    """
    return _find_words('cameras', text, params_file)


def find_models(text: str, params_file: str) -> list[str]:
    """Find the models of `models`: in the argument of this name, else in the parameter file.

    Args:
        text: value of the argument; may be empty.
        params_file: text of the parameter file.
    """
    return _find_words('models', text, params_file)


def _find_words(parameter: str, text: str, params_file: str) -> list[str]:
    """Find the words of an array of strings: in an argument, else in a parameter file."""
    if text:
        return parse_words(parameter, text)

    def walk(sections: Any) -> list[str]:
        for key, value in sections.items() if isinstance(sections, dict) else ():
            found = value.get(parameter) if key == 'ros__parameters' and value else walk(value)
            if found:
                return [str(name) for name in found]
        return []

    return walk(yaml.load(params_file, Loader=yaml.BaseLoader))


def given_parameters(
    parameters: Sequence[NodeParameter],
    cameras: Sequence[str],
    configurations: Mapping[str, str],
) -> dict[str, Any]:
    """Get the node's parameters that launch arguments give a value, common and per camera.

    Args:
        parameters: the parameters that there are.
        cameras: names of the cameras; `front.gap_s` is `gap_s` of the camera `front`.
        configurations: values of the launch arguments, '' for those that were not given.

    Raises:
        ValueError: a value is not of the parameter's type.
    """
    values = {}
    for prefix in ('', *(f'{camera}.' for camera in cameras)):
        for parameter in parameters:
            argument = prefix + parameter.name
            if text := configurations.get(argument, ''):
                values[argument] = parse_value(argument, text, parameter.default)
    return values


def check_arguments(
    words: Sequence[str], parameters: Sequence[NodeParameter], cameras: Collection[str]
) -> None:
    """Check the arguments of a command line, of which `ros2 launch` ignores the unknown ones.

    Args:
        words: the words of the command line; those without `:=` are no arguments.
        parameters: parameters of the node.
        cameras: names of the cameras.

    Raises:
        ValueError: a name is unknown; the message holds the nearest one.
    """
    own = {name for name, _, _ in (*SEGMENTER_ARGUMENTS, *REPLAY_ARGUMENTS)}
    names = {parameter.name for parameter in parameters}
    known = {*own, *names, 'params_file', *_OF_LAUNCH}
    known |= {f'{camera}.{name}' for camera in cameras for name in names}
    for word in words:
        name, assigned, _ = word.partition(':=')
        if assigned and name not in known:
            nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)
            raise ValueError(f'There is no argument {name!r}. The nearest is {nearest[0]!r}.')


def parse_words(argument: str, text: str) -> list[str]:
    """Read an array of strings as users write it on a command line.

    With or without brackets, quotes and spaces after commas; every word stays a string, such as
    a class that is named `1` or `yes`.

    Args:
        argument: name of the argument, for the error.
        text: such as `person`, `person,dog`, `[person, dog]` or `traffic light`.

    Raises:
        ValueError: it is not a list of words.
    """
    text = text.strip()
    flow = text if text.startswith('[') else f'[{text}]'
    try:
        # Without types: YAML would read `1` as a number and `yes` as a boolean.
        words = yaml.load(flow, Loader=yaml.BaseLoader)
    except yaml.YAMLError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(
            f'Expected {argument}:=person or {argument}:=person,dog, got {argument}:={text}. A '
            f'name with a comma, a colon or a bracket needs quotes of its own: '
            f"""{argument}:='["a, b", dog]'."""
        )
    return [word for word in words if word]


def parse_bool(argument: str, text: str) -> bool:
    """Read a boolean as launch files take it.

    Raises:
        ValueError: it is none.
    """
    values = {'true': True, '1': True, 'false': False, '0': False}
    if text.lower() not in values:
        raise ValueError(f'Expected {argument} to be true or false, got {text!r}.')
    return values[text.lower()]


def sim_time_parameter(text: str) -> dict[str, bool]:
    """Get the parameter `use_sim_time` of the nodes, if the argument was given."""
    return {'use_sim_time': parse_bool('use_sim_time', text)} if text else {}


def image_remappings(
    cameras: Sequence[str], images: Sequence[str], argument: str = 'image'
) -> list[tuple[str, str]]:
    """Map the image topic of each camera to the topic that it publishes.

    Args:
        cameras: names of the cameras; empty for the one without a name.
        images: their topics, in the same order; empty where the topics have the node's own names.
        argument: launch argument that names them: image or depth_image.

    Raises:
        ValueError: there are more or fewer topics than cameras.
    """
    if not images:
        return []
    if len(images) != max(1, len(cameras)):
        raise ValueError(
            f'Expected one image topic for each camera, got {argument}:={",".join(images)} for '
            f'cameras:={",".join(cameras) or "(none)"}.'
        )
    name = {'image': 'image_raw', 'depth_image': 'depth/image_raw'}[argument]
    return [
        (f'{camera}/{name}' if camera else name, image)
        for camera, image in zip(cameras or [''], images, strict=True)
    ]


def profile_environment(
    argument: str, shipped: str, environment: Mapping[str, str]
) -> dict[str, str]:
    """Get the environment variables that choose the profile of Fast DDS.

    Args:
        argument: value of `fastdds_profile`: a path, auto or none.
        shipped: path of the profile for auto.
        environment: the environment, whose own choice auto respects.

    Raises:
        ValueError: there is no such file.
    """
    if argument == 'none':
        return {}
    if argument == 'auto':
        rmw = environment.get('RMW_IMPLEMENTATION') or 'rmw_fastrtps_cpp'
        chosen = (*_PROFILE_VARIABLES, 'FASTDDS_BUILTIN_TRANSPORTS')
        if not rmw.startswith('rmw_fastrtps') or any(environment.get(name) for name in chosen):
            return {}
        argument = shipped
    if not Path(argument).is_file():
        raise ValueError(f'Expected fastdds_profile to be a file, auto or none, got {argument}.')
    return dict.fromkeys(_PROFILE_VARIABLES, str(Path(argument).absolute()))


def check_replay(given: Mapping[str, str]) -> None:
    """Check the arguments of `replay.launch.py`.

    Args:
        given: values of the launch arguments; those that were not given may be missing.

    Raises:
        ValueError: they name cameras, image topics or several models, or a value is wrong.
    """
    if given.get('image') or given.get('cameras'):
        raise ValueError(
            'A bag is played to one camera without a name: leave image and cameras out.'
        )
    params_file = Path(given.get('params_file', ''))
    params = params_file.read_text(encoding='utf-8') if params_file.is_file() else ''
    models = find_models(given.get('models', ''), params)
    if len(models) > 1:
        raise ValueError(
            'The tracks of one model are recorded and scored: expected one model, got '
            f'models:={",".join(models)}. Replay the bag for each of them.'
        )
    if given['truth'] and not Path(given['truth']).exists():
        raise ValueError(f'Expected truth to be a file or a folder, got {given["truth"]}.')
    parse_bool('every_frame', given['every_frame'])


def replay_words(given: Mapping[str, str], node: str) -> list[str]:
    """Get the arguments of `videomt` that play a bag to a running node.

    Args:
        given: values of the launch arguments, as `check_replay` accepts them.
        node: full name of the node.
    """
    words = ['bag', 'replay', given['bag'], '--running', node, '--out', given['out']]
    if any(sim_time_parameter(given['use_sim_time']).values()):
        words += ['--clock']
    if given['topic']:
        words += ['--topic', given['topic']]
    if parse_bool('every_frame', given['every_frame']):
        return [*words, '--every-frame']
    return [*words, '--rate', given['rate']]


def check_rviz(models: str, params_file: str) -> None:
    """Check that the topics which rviz2 is to show are known before a model is loaded.

    Args:
        models: value of the argument `models`; may be empty.
        params_file: text of the parameter file.

    Raises:
        ValueError: there are several models, whose topics are named after their tasks.
    """
    found = find_models(models, params_file)
    if len(found) > 1:
        raise ValueError(
            f'Expected one model with rviz:=true, got models:={",".join(found)}. Start rviz2 '
            'yourself, on topics such as panoptic/segmentation/overlay.'
        )


def rviz_config(
    template: str, namespace: str, cameras: Sequence[str], images: Sequence[str], fixed_frame: str
) -> str:
    """Write the configuration of rviz2 for the topics of a launch.

    Args:
        template: `config/segmenter.rviz`, whose topics are those of one unnamed camera.
        namespace: absolute namespace of the node.
        cameras: names of the cameras, each of which gets the displays of the template.
        images: their image topics; empty where they are the node's own.
        fixed_frame: frame in which markers and points are shown.
    """
    config = yaml.safe_load(template)
    manager = config['Visualization Manager']
    manager['Global Options']['Fixed Frame'] = fixed_frame
    displays = []
    for number, camera in enumerate(cameras or ['']):
        for display in copy.deepcopy(manager['Displays']):
            topic = display['Topic']['Value']
            if topic == 'image_raw' and images:
                topic = images[number]
            elif camera:
                topic = f'{camera}/{topic}'
            if not topic.startswith('/'):
                topic = f'{namespace.rstrip("/")}/{topic}'
            display['Topic']['Value'] = topic
            display['Name'] = f'{display["Name"]} {camera}'.strip()
            displays.append(display)
    manager['Displays'] = displays
    return yaml.safe_dump(config, sort_keys=False)


def parse_value(argument: str, text: str, default: Any) -> Any:
    """Convert the text of an argument to the type of a default.

    Raises:
        ValueError: it is not of this type.
    """
    if isinstance(default, str):
        return text
    if isinstance(default, list):
        # launch_ros takes no empty list; the node leaves out empty words.
        return parse_words(argument, text) or ['']
    if isinstance(default, bool):
        return parse_bool(argument, text)
    try:
        return type(default)(text)
    except ValueError as error:
        what = 'a whole number' if isinstance(default, int) else 'a number'
        raise ValueError(f'Expected {argument} to be {what}, got {text!r}.') from error
