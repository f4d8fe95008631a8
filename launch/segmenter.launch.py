"""Start the segmenter on one camera, or on several that share it.

    ros2 launch videomt_ros segmenter.launch.py model:=tue-mps/videomt-dinov2-small-ytvis2019 \
        image:=/camera/image_raw class_filter:=person

Every parameter of the node is an argument, which overrides the value in `params_file`. The node
configures and activates itself; if it ends with an error, the launch ends with an error.
"""

import sys
import tempfile
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.events.process import ProcessExited
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterFile
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from videomt_ros import launch_files

CONFIG = Path(__file__).parents[1] / 'config'
PARAMETERS = launch_files.read_parameters(CONFIG / 'segmenter.yaml')
LAUNCH_FILES = ('segmenter.launch.py', 'cameras.launch.py', 'replay.launch.py')


def start(context: LaunchContext) -> list[SetEnvironmentVariable | Node]:
    """Start the node, and rviz2 if it is asked for."""
    given = context.launch_configurations
    params_file = Path(given['params_file'])
    params_text = params_file.read_text()
    cameras = launch_files.find_cameras(given['cameras'], params_text)
    images = launch_files.parse_words('image', given['image'])
    depths = launch_files.parse_words('depth_image', given['depth_image'])
    # Where another launch file includes this one, the command line has arguments of that one.
    if any(Path(word).name in LAUNCH_FILES for word in sys.argv):
        launch_files.check_arguments(sys.argv, PARAMETERS, cameras)
    environment = launch_files.profile_environment(
        given['fastdds_profile'], str(CONFIG / 'fastdds_images.xml'), context.environment
    )
    sim_time = launch_files.sim_time_parameter(given['use_sim_time'])
    values = {**sim_time, **launch_files.given_parameters(PARAMETERS, cameras, given)}
    respawns = launch_files.parse_bool('respawn', given['respawn'])
    node = LifecycleNode(
        package='videomt_ros',
        executable='segmenter',
        namespace=given['namespace'],
        name=given['name'],
        # With substitutions the node gets a copy, and its errors name the copy.
        parameters=[
            ParameterFile(params_file, allow_substs='$(' in params_text),
            *([values] if values else []),
        ],
        remappings=[
            *launch_files.image_remappings(cameras, images),
            *launch_files.image_remappings(cameras, depths, 'depth_image'),
        ],
        ros_arguments=['--log-level', given['log_level']],
        output='screen',
        respawn=respawns,
        respawn_delay=launch_files.parse_value('respawn_delay', given['respawn_delay'], 0.0),
        on_exit=None if respawns else end_with_the_node,
    )
    actions = [SetEnvironmentVariable(name, value) for name, value in environment.items()]
    if launch_files.parse_bool('rviz', given['rviz']):
        launch_files.check_rviz(given['models'], params_text)
        namespace = prefix_namespace(given.get('ros_namespace'), given['namespace'])
        config = launch_files.rviz_config(
            (CONFIG / 'segmenter.rviz').read_text(),
            make_namespace_absolute(namespace),
            cameras,
            images,
            given['fixed_frame'],
        )
        actions.append(rviz_node(config, sim_time))
    # Last: an error right after its start, such as a missing rviz2, would leave it behind.
    return [*actions, node]


def rviz_node(config: str, sim_time: dict[str, bool]) -> Node:
    """Make the action that starts rviz2.

    Args:
        config: its configuration, which is written to a temporary file.
        sim_time: the parameter `use_sim_time`, if it was given.
    """
    with tempfile.NamedTemporaryFile(
        'w', prefix='segmenter_', suffix='.rviz', delete=False
    ) as file:
        file.write(config)
    return Node(
        package='rviz2',
        executable='rviz2',
        arguments=['-d', file.name],
        parameters=[sim_time] if sim_time else [],
        output='screen',
    )


def end_with_the_node(event: ProcessExited, context: LaunchContext) -> None:
    """End the launch with an error if the node ended with one.

    Raises:
        RuntimeError: it did; `launch` then ends all processes, and with exit code 1.
    """
    if event.returncode and not context.is_shutdown:
        raise RuntimeError(f'the segmenter ended with exit code {event.returncode}')


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the node."""
    declared = [
        DeclareLaunchArgument(
            'params_file',
            default_value=str(CONFIG / 'segmenter.yaml'),
            description='YAML file of parameters',
        )
    ]
    for name, default, meaning in launch_files.SEGMENTER_ARGUMENTS:
        declared.append(DeclareLaunchArgument(name, default_value=default, description=meaning))
    # '' means the value in the file, which any other default would override.
    for name, _, meaning in PARAMETERS:
        description = f'{meaning} Default: as in params_file'
        declared.append(DeclareLaunchArgument(name, default_value='', description=description))
    return LaunchDescription([*declared, OpaqueFunction(function=start)])
